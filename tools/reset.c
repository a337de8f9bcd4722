/* reset.c - npk reset: a store without arrays. */
#include "tool.h"

#include <stdlib.h>
#include <string.h>

enum {
	CONFIRM,
	WAIT
};

static const struct npkt_opt opts[] = {
	[CONFIRM] = {"confirm", "NAME", 'c', "must be the store's name, the last part of its path"},
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

static int run(const struct npkt_args *args)
{
	char *name = npkt_base_name(args->operand[0]);
	struct npkt_change c;
	struct npk_err err;
	int status = NPKT_OK;

	if (!name || !args->opt[CONFIRM] || strcmp(args->opt[CONFIRM], name) != 0) {
		npkt_complain("this removes all arrays: say --confirm %s", name ? name : "NAME");
		status = NPKT_USAGE;
	}
	free(name);
	if (status == NPKT_OK)
		status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);
	return status ? status : npkt_change_end(&c, npk_store_reset(c.s, &err), &err);
}

const struct npkt_cmd npkt_reset = {
	.name = "reset",
	.operands = "STORE",
	.min = 1,
	.max = 1,
	.help = "remove all arrays of a store",
	.more = "Files in the store that belong to no array stay.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk reset digits.npk --confirm digits.npk\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
