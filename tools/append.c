/* append.c - npk append: rows of .npy files behind those of arrays. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	WAIT
};

static const struct npkt_opt opts[] = {
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

/* A message like "x.npy: int32 of rows (3, 4), the array has float32 of rows (4)" tells what is wrong at one look. */
static void put_rows(struct npk_text *t, unsigned dtype, const struct npk_shape *shape)
{
	npk_text_printf(t, "%s, rows of (", npk_dtype_name(dtype));
	for (unsigned i = 1; i < shape->ndim; i++)
		npk_text_printf(t, "%s%" PRIu64, i > 1 ? ", " : "", shape->dim[i]);
	npk_text_printf(t, ")");
}

int npkt_same_rows(
	const char *file, const struct npk_source_array *a, const struct npk_gen_info *g, struct npk_err *err)
{
	struct npk_text t = {0};
	size_t inner = a->shape.ndim > 0 ? (a->shape.ndim - 1) * sizeof(a->shape.dim[0]) : 0;
	int rc;

	if (a->dtype == g->dtype && a->shape.ndim == g->shape.ndim && a->shape.ndim > 0 &&
		memcmp(a->shape.dim + 1, g->shape.dim + 1, inner) == 0)
		return 0;
	put_rows(&t, a->dtype, &a->shape);
	npk_text_printf(&t, "; the array has ");
	put_rows(&t, g->dtype, &g->shape);
	rc = t.bad ? npk_fail(err, ENOMEM, "no memory") : npk_fail(err, EINVAL, "%.200s: %.250s", file, t.p);
	npk_text_fini(&t);
	return rc;
}

int npkt_append_source(struct npk_store *s, struct npkt_input *in, const char *name, struct npk_err *err)
{
	struct npk_array *array = NULL;
	struct npk_source_array a;
	int rc = npk_array_get(&array, s, name, err), more;

	if (rc != 0)
		return rc;
	while (rc == 0 && (more = npk_source_next(in->src, &a, err)) != 0) {
		struct npkt_rows rows = {0};
		struct npk_gen *g = NULL;

		rc = more < 0 ? more : npk_gen_get(&g, array, err);
		if (rc == 0)
			rc = npkt_same_rows(in->file, &a, npk_gen_info(g), err);
		if (rc == 0)
			rc = npkt_rows_map(&rows, in->src, err);
		if (rc == 0 && a.shape.dim[0] > 0)
			rc = npk_array_append(array, rows.p, a.shape.dim[0], err);
		npkt_rows_unmap(&rows);
		npk_gen_put(g);
	}
	npk_array_put(array);
	return rc;
}

static int append_word(struct npk_store *s, const char *word, struct npk_err *err)
{
	struct npk_source_how how = {.format = NPK_FORMAT_NPY, .dtype = -1};
	struct npkt_input in = {0};
	const char *file;
	char *name = NULL;
	int rc = npkt_take_word(word, ".npy", &name, &file, err);

	if (rc == 0)
		rc = npkt_input_open(&in, file, &how, err);
	if (rc == 0)
		rc = npkt_append_source(s, &in, name, err);
	npkt_input_close(&in);
	free(name);
	return rc;
}

static int run(const struct npkt_args *args)
{
	return npkt_change_each(args, args->opt[WAIT], append_word);
}

const struct npkt_cmd npkt_append = {
	.name = "append",
	.operands = "STORE [NAME=]FILE...",
	.min = 2,
	.max = -1,
	.help = "add the rows of .npy files behind those of arrays",
	.more = "FILE is a .npy file, or several one behind the other; - is standard input. Its dtype and the shape of "
		"its rows\n"
		"must be the array's. Without NAME= the array is called as the file, without its .npy. Either all rows "
		"are added\n"
		"or none.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk get digits.npk images --rows 0:10 -o images.npy && npk append digits.npk images.npy\n"
		"  npk get digits.npk labels --rows=-1 | npk append digits.npk labels=-\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
