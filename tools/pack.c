/* pack.c - npk pack: a store as one file. */
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	CODEC,
	LEVEL,
	VERSION,
	THREADS,
	OVERWRITE
};

static const struct npkt_opt opts[] = {
	[CODEC] = {"codec", "CODEC", 'c', "zstd (the default), zlib or none"},
	[LEVEL] = {"level", "N", 'l', "how hard to compress: zstd 1 to 19, zlib 1 to 9"},
	[VERSION] = {"format", "VERSION", 'f', "2 (the default), what NumPack writes, or 1, what its manual describes"},
	[THREADS] = {"threads", "N", 't', "compress with N threads instead of one for each processor"},
	[OVERWRITE] = {"overwrite", NULL, 'o', "replace a PACKAGE that is there"},
	{0},
};

/* A number from 1 to `most`; absent is 0. */
static int take_number(const char *option, const char *text, unsigned most, unsigned *out)
{
	unsigned long n;
	char *end;

	*out = 0;
	if (!text)
		return NPKT_OK;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno == 0 && *text >= '0' && *text <= '9' && *end == 0 && n >= 1 && n <= most) {
		*out = (unsigned)n;
		return NPKT_OK;
	}
	npkt_complain("--%s '%s' is not a number from 1 to %u", option, text, most);
	return NPKT_USAGE;
}

static int take_wish(struct npk_pack *w, const struct npkt_args *args)
{
	struct npk_err err;
	unsigned level = 0;
	int status = NPKT_OK;

	*w = (struct npk_pack){.overwrite = args->opt[OVERWRITE] != NULL};
	if (args->opt[CODEC] && npk_codec_parse(args->opt[CODEC], &w->codec, &err) != 0) {
		npkt_complain("--codec: %s", err.msg);
		return NPKT_USAGE;
	}
	if (w->codec == NPK_CODEC_NONE && args->opt[LEVEL]) {
		npkt_complain("--level says how to compress, --codec none does not");
		return NPKT_USAGE;
	}
	status = take_number("level", args->opt[LEVEL], w->codec == NPK_CODEC_ZLIB ? 9 : 19, &level);
	w->level = (int)level;
	if (status == NPKT_OK)
		status = take_number("format", args->opt[VERSION], 2, &w->version);
	if (status == NPKT_OK)
		status = take_number("threads", args->opt[THREADS], 1024, &w->threads);
	return status;
}

/* As NumPack names it: STORE.npkg beside the store; a name without a suffix gets one. */
static char *name_target(const struct npkt_args *args)
{
	const char *said = args->noperands > 1 ? args->operand[1] : NULL, *store = args->operand[0];
	const char *leaf = said ? strrchr(said, '/') : NULL;
	size_t n = strlen(store);
	char *out;

	while (n > 1 && store[n - 1] == '/')
		n--;
	leaf = leaf ? leaf + 1 : said;
	if (said && strchr(leaf, '.'))
		return strdup(said);
	if (asprintf(&out, "%.*s.npkg", said ? (int)strlen(said) : (int)n, said ? said : store) < 0)
		return NULL;
	return out;
}

static int run(const struct npkt_args *args)
{
	struct npkt_progress progress;
	struct npk_store *s = NULL;
	struct npk_pack how;
	struct npk_err err;
	char *target;
	int rc = take_wish(&how, args);

	if (rc != NPKT_OK)
		return rc;
	s = npkt_open(args->operand[0]);
	if (!s)
		return NPKT_FAILED;
	npkt_progress_begin(&progress, "packing");
	how.progress = npkt_progress;
	how.ctx = &progress;
	target = name_target(args);
	rc = target ? npk_pack(s, target, &how, &err) : npk_fail(&err, ENOMEM, "no memory");
	npkt_progress_end(&progress);
	free(target);
	npk_store_close(s);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

const struct npkt_cmd npkt_pack = {
	.name = "pack",
	.operands = "STORE [PACKAGE]",
	.min = 1,
	.max = 2,
	.help = "write a store into one file",
	.more = "PACKAGE is STORE.npkg when it is not named, and gets .npkg when it has no suffix. It appears whole or "
		"not at\n"
		"all. The store may be mounted, or be written by a program: what is packed is one moment of it. A "
		"NumPack\n"
		"with the Python module zstandard reads zstd, one without it reads zlib, and every one reads none.\n"
		"\n"
		"Examples:\n"
		"  npk pack digits.npk\n"
		"  npk pack digits.npk backup.npkg --codec none\n"
		"  npk pack -l 19 -o digits.npk digits.npkg\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
