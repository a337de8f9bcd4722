/* create.c - npk create: an empty store. */
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

enum {
	DROP,
	WAIT
};

static const struct npkt_opt opts[] = {
	[DROP] = {"drop-if-exists", NULL, 'd', "a store that is there loses all of its arrays"},
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

enum kind {
	NOTHING,
	EMPTY,
	STORE,
	OTHER
};

/* What stands at `path`; -errno when that cannot be told. */
static int look(const char *path, struct npk_err *err)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int kind = EMPTY;

	if (!d)
		return errno == ENOENT ? NOTHING : npk_fail(err, errno, "%.400s: %s", path, strerror(errno));
	while (kind != STORE && (e = readdir(d)) != NULL)
		if (strcmp(e->d_name, "metadata.npkm") == 0)
			kind = STORE;
		else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			kind = OTHER;
	closedir(d);
	return kind;
}

static int run(const struct npkt_args *args)
{
	const char *path = args->operand[0];
	struct npkt_change c;
	struct npk_err err;
	int kind = look(path, &err), status;

	if (kind < 0)
		return npkt_failed(&err);
	if (kind == STORE && !args->opt[DROP]) {
		npkt_complain("%s: is a store already; --drop-if-exists removes its arrays", path);
		return NPKT_FAILED;
	}
	if (kind == OTHER) {
		npkt_complain("%s: has other files in it and is no store", path);
		return NPKT_FAILED;
	}
	status = npkt_change_begin(&c, path, NPK_RDWR | NPK_CREATE, args->opt[WAIT]);
	if (status != NPKT_OK)
		return status;
	return npkt_change_end(&c, kind == STORE ? npk_store_reset(c.s, &err) : 0, &err);
}

const struct npkt_cmd npkt_create = {
	.name = "create",
	.operands = "STORE",
	.min = 1,
	.max = 1,
	.help = "make an empty store",
	.more = "STORE is a directory that is not there or is empty.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk create new.npk\n"
		"  npk create --drop-if-exists digits.npk\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
