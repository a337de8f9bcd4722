/* rename.c - npk rename: another name for an array. */
#include "tool.h"

enum {
	EXCHANGE,
	FORCE,
	WAIT
};

static const struct npkt_opt opts[] = {
	[EXCHANGE] = {"exchange", NULL, 'x', "the two arrays change names"},
	[FORCE] = {"force", NULL, 'f', "an array NEW that is there is replaced"},
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

static int run(const struct npkt_args *args)
{
	unsigned flags = args->opt[EXCHANGE] ? NPK_RENAME_EXCHANGE : args->opt[FORCE] ? 0 : NPK_RENAME_NOREPLACE;
	struct npkt_change c;
	struct npk_err err;
	int status;

	if (args->opt[EXCHANGE] && args->opt[FORCE]) {
		npkt_complain("--exchange and --force are both given");
		return NPKT_USAGE;
	}
	status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);
	if (status != NPKT_OK)
		return status;
	return npkt_change_end(&c, npk_store_rename(c.s, args->operand[1], args->operand[2], flags, &err), &err);
}

const struct npkt_cmd npkt_rename = {
	.name = "rename",
	.operands = "STORE ARRAY NEW",
	.min = 3,
	.max = 3,
	.help = "give an array another name",
	.more = "An array NEW that is there is an error, if no option says what to do with it.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk rename digits.npk labels classes\n"
		"  npk rename --exchange digits.npk images pixels\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
