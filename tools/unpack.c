/* unpack.c - npk unpack: the store that a package holds. */
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	OVERWRITE,
	NO_VERIFY
};

static const struct npkt_opt opts[] = {
	[OVERWRITE] = {"overwrite", NULL, 'o', "replace a STORE that is there"},
	[NO_VERIFY] = {"no-verify", NULL, 'n', "take the contents although the checksum differs"},
	{0},
};

/* As NumPack names it: without .npkg, with .npk. */
static char *name_target(const struct npkt_args *args)
{
	const char *package = args->operand[0];
	size_t n = strlen(package);
	char *out;

	if (args->noperands > 1)
		return strdup(args->operand[1]);
	if (n > 5 && strcmp(package + n - 5, ".npkg") == 0)
		n -= 5;
	if (asprintf(&out, "%.*s%s", (int)n, package, n > 4 && memcmp(package + n - 4, ".npk", 4) == 0 ? "" : ".npk") <
		0)
		return NULL;
	return out;
}

static int run(const struct npkt_args *args)
{
	struct npkt_progress progress;
	struct npk_unpack how = {.overwrite = args->opt[OVERWRITE] != NULL, .no_verify = args->opt[NO_VERIFY] != NULL};
	struct npk_err err;
	char *target = name_target(args);
	int rc;

	npkt_progress_begin(&progress, "unpacking");
	how.progress = npkt_progress;
	how.ctx = &progress;
	rc = target ? npk_unpack(args->operand[0], target, &how, &err) : npk_fail(&err, ENOMEM, "no memory");
	npkt_progress_end(&progress);
	free(target);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

const struct npkt_cmd npkt_unpack = {
	.name = "unpack",
	.operands = "PACKAGE [STORE]",
	.min = 1,
	.max = 2,
	.help = "make a store of a package",
	.more = "STORE is PACKAGE without .npkg, and with .npk, when it is not named. The package is checked before "
		"anything is\n"
		"replaced; the store appears whole or not at all. --overwrite replaces stores only: a directory that "
		"holds\n"
		"anything else, or is open for writing, stays.\n"
		"\n"
		"Examples:\n"
		"  npk pack digits.npk && npk unpack digits.npk.npkg copy.npk\n"
		"  npk pack -o digits.npk && npk unpack -o digits.npk.npkg\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
