/* compact.c - npk compact: the room of hidden rows is given back. */
#include "tool.h"

enum {
	WAIT
};

static const struct npkt_opt opts[] = {
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

static int compact_all(struct npk_store *s, struct npk_err *err)
{
	struct npk_array **list = NULL;
	size_t n = 0;
	int rc = npk_store_list(s, &list, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = npk_array_compact(list[i], err);
	npk_store_list_free(list, n);
	return rc;
}

static int compact(struct npk_store *s, const char *name, struct npk_err *err)
{
	struct npk_array *a = NULL;
	int rc = name ? npk_array_get(&a, s, name, err) : compact_all(s, err);

	if (rc == 0 && a)
		rc = npk_array_compact(a, err);
	npk_array_put(a);
	return rc;
}

static int run(const struct npkt_args *args)
{
	return npkt_change_each(args, args->opt[WAIT], compact);
}

const struct npkt_cmd npkt_compact = {
	.name = "compact",
	.operands = "STORE [ARRAY...]",
	.min = 1,
	.max = -1,
	.help = "give back the room of hidden rows",
	.more = "Without ARRAY all arrays are compacted. That copies the rows of those with hidden ones and needs room "
		"for them\n"
		"meanwhile.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk compact digits.npk labels\n"
		"  npk compact digits.npk\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
