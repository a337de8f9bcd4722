/* ls.c - npk ls: which arrays a store has. */
#include "tool.h"

#include <inttypes.h>
#include <string.h>

enum {
	LONG,
	JSON
};

static const struct npkt_opt opts[] = {
	[LONG] = {"long", NULL, 'l', "also dtype, shape, deleted rows and size in bytes"},
	[JSON] = {"json", NULL, 'j', "a JSON list: of names, or with -l of what info --json tells"},
	{0},
};

/* A line of the long form behind the name. */
struct cells {
	char dtype[16], shape[NPK_MAX_NDIM * 21 + 1], deleted[24], size[24];
};

struct widths {
	size_t name, dtype, shape, deleted, size;
};

static const struct cells title = {"DTYPE", "SHAPE", "DELETED", "SIZE"};

static void shape_cell(char *out, size_t cap, const struct npk_shape *shape)
{
	size_t n = 0;

	if (shape->ndim == 0)
		snprintf(out, cap, "()");
	for (unsigned i = 0; i < shape->ndim; i++)
		n += (size_t)snprintf(out + n, cap - n, "%s%" PRIu64, i ? "x" : "", shape->dim[i]);
}

/* What the metadata tells of a damaged array is shown; nobody knows the rest. */
static void fill(struct cells *c, const struct npk_array_info *info)
{
	const char *dtype = npk_dtype_name(info->dtype);

	*c = (struct cells){.deleted = "-", .size = "-"};
	if (dtype)
		snprintf(c->dtype, sizeof(c->dtype), "%s", dtype);
	else
		snprintf(c->dtype, sizeof(c->dtype), "type%u", info->dtype);
	shape_cell(c->shape, sizeof(c->shape), &info->shape);
	if (info->damaged)
		return;
	snprintf(c->deleted, sizeof(c->deleted), "%" PRIu64, info->deleted);
	snprintf(c->size, sizeof(c->size), "%" PRIu64, info->size_bytes);
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static void widen(struct widths *w, size_t name, const struct cells *c)
{
	w->name = larger(w->name, name);
	w->dtype = larger(w->dtype, strlen(c->dtype));
	w->shape = larger(w->shape, strlen(c->shape));
	w->deleted = larger(w->deleted, strlen(c->deleted));
	w->size = larger(w->size, strlen(c->size));
}

static void print_line(const struct widths *w, const char *name, size_t len, const struct cells *c, const char *why)
{
	npkt_put_name(stdout, name, len);
	printf("%*s  %-*s  %-*s  %*s  %*s", (int)(w->name - npkt_name_width(stdout, name, len)), "", (int)w->dtype,
		c->dtype, (int)w->shape, c->shape, (int)w->deleted, c->deleted, (int)w->size, c->size);
	if (*why)
		printf("  damaged: ");
	npkt_put_escaped(stdout, why, strlen(why));
	putchar('\n');
}

/* Two passes: how wide a column is shows at its end, and infos of ten thousand arrays are too much to keep. The second
 * pass finds the layouts loaded. */
static int list_long(struct npk_array **list, size_t n, struct npk_err *err)
{
	struct widths w = {.name = 4};
	struct npk_array_info info;
	struct cells c;
	int status = NPKT_OK;

	widen(&w, strlen("NAME"), &title);
	for (int pass = 0; pass < 2; pass++) {
		if (pass == 1)
			print_line(&w, "NAME", strlen("NAME"), &title, "");
		for (size_t i = 0; i < n; i++) {
			size_t len;
			const char *name = npk_array_name(list[i], &len);

			if (npk_array_info(list[i], &info, err) != 0)
				return npkt_failed(err);
			fill(&c, &info);
			if (pass == 0)
				widen(&w, npkt_name_width(stdout, name, len), &c);
			else
				print_line(&w, name, len, &c, info.why);
			if (info.damaged)
				status = NPKT_FAILED;
		}
	}
	return status;
}

static int list_names(struct npk_array **list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t len;
		const char *name = npk_array_name(list[i], &len);

		npkt_put_name(stdout, name, len);
		putchar('\n');
	}
	return NPKT_OK;
}

static int list_json(struct npk_array **list, size_t n, bool all, struct npk_err *err)
{
	int status = NPKT_OK;

	for (size_t i = 0; i < n; i++) {
		struct npk_text text = {0};
		struct npk_array_info info;
		size_t len;
		const char *name = npk_array_name(list[i], &len);
		int rc = 0;

		npk_text_printf(&text, i ? ",\n " : "[");
		if (all) {
			rc = npk_array_info(list[i], &info, err);
			if (rc == 0)
				rc = npk_array_info_json(list[i], &text, err);
			if (rc == 0 && info.damaged)
				status = NPKT_FAILED;
		} else {
			npk_text_json(&text, name, len);
		}
		npkt_chop(&text);
		npkt_put_text(stdout, &text);
		if (rc != 0)
			return npkt_failed(err);
	}
	printf(n ? "]\n" : "[]\n");
	return status;
}

static int run(const struct npkt_args *args)
{
	struct npk_store *s = npkt_open(args->operand[0]);
	struct npk_array **list = NULL;
	struct npk_err err;
	size_t n = 0;
	int status, checked;

	if (!s)
		return NPKT_FAILED;
	if (npk_store_list(s, &list, &n, &err) != 0)
		status = npkt_failed(&err);
	else if (args->opt[JSON])
		status = list_json(list, n, args->opt[LONG], &err);
	else
		status = args->opt[LONG] ? list_long(list, n, &err) : list_names(list, n);
	checked = npkt_check_list(s);
	npk_store_list_free(list, n);
	npk_store_close(s);
	return npkt_flush(status ? status : checked);
}

const struct npkt_cmd npkt_ls = {
	.name = "ls",
	.operands = "STORE",
	.min = 1,
	.max = 1,
	.help = "list the arrays of a store",
	.more = "Without options only the list of arrays is read, one name a line. With -l each array's layout is "
		"looked at, and\n"
		"a damaged one is shown with the reason. On a terminal control characters in names are shown as "
		"\\xNN.\n"
		"\n"
		"Examples:\n"
		"  npk ls digits.npk\n"
		"  npk ls -l digits.npk\n"
		"  npk ls --long --json digits.npk\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
