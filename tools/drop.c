/* drop.c - npk drop: rows are hidden, or arrays removed. */
#include "tool.h"

#include <inttypes.h>
#include <string.h>

enum {
	ROWS,
	JSON,
	WAIT
};

static const struct npkt_opt opts[] = {
	[ROWS] = {"rows", "SEL", 'r', "hide these rows of each ARRAY; without this option the arrays are removed"},
	[JSON] = {"json", NULL, 'j', "with --rows: a JSON object of how many rows each array lost"},
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

static int drop_rows(struct npk_store *s, const char *name, const char *sel, uint64_t *dropped, struct npk_err *err)
{
	struct npk_array *a = NULL;
	int rc = npk_array_get(&a, s, name, err);

	if (rc == 0)
		rc = npk_array_drop(a, sel, dropped, err);
	npk_array_put(a);
	return rc;
}

static int run(const struct npkt_args *args)
{
	const char *sel = args->opt[ROWS];
	struct npk_text told = {0};
	struct npkt_change c;
	struct npk_err err;
	uint64_t dropped = 0;
	int rc = 0, status = npkt_check_rows(sel, NULL);

	if (status == NPKT_OK && args->opt[JSON] && !sel) {
		npkt_complain("--json tells of rows, and --rows is not given");
		status = NPKT_USAGE;
	}
	if (status == NPKT_OK)
		status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);
	if (status != NPKT_OK)
		return status;
	for (int i = 1; i < args->noperands && rc == 0; i++) {
		const char *name = args->operand[i];

		rc = sel ? drop_rows(c.s, name, sel, &dropped, &err) : npk_store_remove(c.s, name, &err);
		npk_text_printf(&told, i > 1 ? ", " : "{");
		npk_text_json(&told, name, strlen(name));
		npk_text_printf(&told, ": %" PRIu64, dropped);
	}
	status = npkt_change_end(&c, rc, &err);
	npk_text_printf(&told, "}\n");
	if (status == NPKT_OK && args->opt[JSON])
		npkt_put_text(stdout, &told);
	npk_text_fini(&told);
	return npkt_flush(status);
}

const struct npkt_cmd npkt_drop = {
	.name = "drop",
	.operands = "STORE ARRAY...",
	.min = 2,
	.max = -1,
	.help = "hide rows of arrays, or remove arrays",
	.more = NPKT_ABOUT_SEL "Hidden rows take room until npk compact. Either all of it is done or nothing.\n"
			       "\n" NPKT_ABOUT_WRITING "\n"
			       "Examples:\n"
			       "  npk drop digits.npk images labels pixels --rows 0:10 --json\n"
			       "  npk drop digits.npk labels --rows=-1\n"
			       "  npk drop digits.npk pixels\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
