/* get.c - npk get: an array, or a selection of it, as a .npy file. */
#include "tool.h"

#include <errno.h>
#include <string.h>

enum {
	ROWS,
	SEL,
	OUTPUT
};

static const struct npkt_opt opts[] = {
	[ROWS] = {"rows", "SEL", 'r', "only these rows"},
	[SEL] = {"sel", "SEL", 's', "only this selection, one part for each axis"},
	[OUTPUT] = {"output", "FILE", 'o', "where the .npy file goes; - is standard output, as without this option"},
	{0},
};

/* An output that cannot take a .npy file is found out before anything is read. */
static int write_npy(struct npk_view *v, const char *path, struct npk_err *err)
{
	struct npkt_out out = {0};
	int rc = npkt_out_open(&out, path, true, err);

	if (rc == 0)
		rc = npkt_out_npy(&out, v, 0, npk_view_info(v)->rows, NULL, err);
	if (rc == 0)
		rc = npkt_out_commit(&out, err);
	npkt_out_fini(&out);
	return rc;
}

static int run(const struct npkt_args *args)
{
	const char *sel = args->opt[SEL] ? args->opt[SEL] : args->opt[ROWS];
	const char *path = args->opt[OUTPUT] ? args->opt[OUTPUT] : "-";
	struct npk_store *s;
	struct npk_gen *g = NULL;
	struct npk_view *v = NULL;
	struct npk_err err;
	int rc;

	if (npkt_check_rows(args->opt[ROWS], args->opt[SEL]) != NPKT_OK)
		return NPKT_USAGE;
	s = npkt_open(args->operand[0]);
	if (!s)
		return NPKT_FAILED;
	rc = npkt_gen(&g, s, args->operand[1], &err);
	if (rc == 0)
		rc = npk_view_open(&v, g, sel, &err);
	if (rc == 0)
		rc = write_npy(v, path, &err);
	npk_view_close(v);
	npk_gen_put(g);
	npk_store_close(s);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

const struct npkt_cmd npkt_get = {
	.name = "get",
	.operands = "STORE ARRAY",
	.min = 2,
	.max = 2,
	.help = "write an array, or a selection of it, as a .npy file",
	.more = NPKT_ABOUT_SEL
	"FILE is replaced when all of the output is there; when something fails it stays as it was.\n"
	"\n"
	"Examples:\n"
	"  npk get digits.npk images -o images.npy\n"
	"  npk get digits.npk images --rows 0:10 -o first.npy\n"
	"  npk get digits.npk images --rows 0:100:5+-1 -o some.npy\n"
	"  npk get digits.npk pixels --sel '0:10;::2' -o columns.npy\n"
	"  npk get digits.npk labels -o - | wc -c\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
