/* clone.c - npk clone: a second array with the same rows. */
#include "tool.h"

enum {
	WAIT
};

static const struct npkt_opt opts[] = {
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

static int run(const struct npkt_args *args)
{
	struct npkt_change c;
	struct npk_err err;
	int status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);

	if (status != NPKT_OK)
		return status;
	return npkt_change_end(&c, npk_store_clone(c.s, args->operand[1], args->operand[2], &err), &err);
}

const struct npkt_cmd npkt_clone = {
	.name = "clone",
	.operands = "STORE ARRAY NEW",
	.min = 3,
	.max = 3,
	.help = "copy an array to a new name",
	.more = "Hidden rows are not copied. An array NEW that is there is an error.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk clone digits.npk labels backup\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
