/* replace.c - npk replace: rows of an array get new values, in place. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	ROWS,
	ATOMIC,
	WAIT
};

static const struct npkt_opt opts[] = {
	[ROWS] = {"rows", "SEL", 'r', "which rows; all by default"},
	[ATOMIC] = {"atomic", NULL, 'a', "a power cut leaves all or nothing of it; costs time"},
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

/* The rows that a selection names, in its order. */
static int list_rows(struct npk_gen *g, const char *sel, int64_t **out, uint64_t *n, struct npk_err *err)
{
	struct npk_view *v = NULL;
	int rc = npk_view_open(&v, g, sel, err);

	if (rc != 0)
		return rc;
	*n = npk_view_info(v)->rows;
	*out = *n <= SIZE_MAX / sizeof(**out) ? malloc((size_t)*n * sizeof(**out) + 1) : NULL;
	if (!*out)
		rc = npk_fail(err, ENOMEM, "no memory for a list of %" PRIu64 " rows", *n);
	for (uint64_t i = 0; rc == 0 && i < *n; i++)
		(*out)[i] = (int64_t)npk_view_row(v, i);
	npk_view_close(v);
	return rc;
}

static int check_count(const struct npkt_input *in, const struct npk_source_array *a, uint64_t n, struct npk_err *err)
{
	if (a->shape.dim[0] == n)
		return 0;
	return npk_fail(err, EINVAL, "%.200s: %" PRIu64 " rows, and %" PRIu64 " rows are named to be replaced",
		in->file, a->shape.dim[0], n);
}

int npkt_replace_source(
	struct npk_array *array, struct npkt_input *in, const char *sel, bool atomic, struct npk_err *err)
{
	struct npkt_rows rows = {0};
	struct npk_source_array a;
	struct npk_gen *g = NULL;
	int64_t *list = NULL;
	uint64_t n = 0;
	int rc = npk_gen_get(&g, array, err);

	if (rc == 0)
		rc = npkt_input_only(in, &a, err);
	if (rc == 0)
		rc = npkt_same_rows(in->file, &a, npk_gen_info(g), err);
	if (rc == 0)
		rc = list_rows(g, sel, &list, &n, err);
	if (rc == 0)
		rc = check_count(in, &a, n, err);
	if (rc == 0)
		rc = npkt_rows_map(&rows, in->src, err);
	if (rc == 0)
		rc = npkt_input_no_more(in, err);
	if (rc == 0 && n > 0)
		rc = npk_array_replace(array, list, (size_t)n, rows.p, atomic ? NPK_REPLACE_ATOMIC : 0, err);
	free(list);
	npkt_rows_unmap(&rows);
	npk_gen_put(g);
	return rc;
}

static int run(const struct npkt_args *args)
{
	struct npk_source_how how = {.format = NPK_FORMAT_NPY, .dtype = -1};
	struct npkt_input in = {0};
	struct npk_array *array = NULL;
	struct npkt_change c;
	struct npk_err err;
	int rc, status = npkt_check_rows(args->opt[ROWS], NULL);

	if (status == NPKT_OK)
		status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);
	if (status != NPKT_OK)
		return status;
	rc = npk_array_get(&array, c.s, args->operand[1], &err);
	if (rc == 0)
		rc = npkt_input_open(&in, args->operand[2], &how, &err);
	if (rc == 0)
		rc = npkt_replace_source(array, &in, args->opt[ROWS], args->opt[ATOMIC], &err);
	npkt_input_close(&in);
	npk_array_put(array);
	return npkt_change_end(&c, rc, &err);
}

const struct npkt_cmd npkt_replace = {
	.name = "replace",
	.operands = "STORE ARRAY FILE",
	.min = 3,
	.max = 3,
	.help = "give rows of an array new values, in place",
	.more = NPKT_ABOUT_SEL
	"FILE is a .npy file of as many rows as are named, in that order; - is standard input. A row that is\n"
	"named twice gets the last value.\n"
	"\n" NPKT_ABOUT_WRITING "\n"
	"Examples:\n"
	"  npk get digits.npk labels -r 0:3 -o l.npy && npk replace digits.npk labels l.npy -r 7,-1,5\n"
	"  npk get digits.npk pixels | npk replace --atomic digits.npk pixels -\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
