/* stats.c - npk stats: what a mount counts. */
#include "tool.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const struct npkt_opt opts[] = {{0}};

bool npkt_mount_of(const char *path, char point[NPKT_PATH_MAX], char of[NPKT_PATH_MAX])
{
	char wanted[NPKT_PATH_MAX], real[PATH_MAX];

	if (npkt_resolve(path, wanted) && npkt_find_mount(wanted, NULL, point, of))
		return true;
	if (realpath(path, real) && npkt_find_mount(NULL, real, point, of))
		return true;
	npkt_complain("%s: is not mounted", path);
	return false;
}

static int run(const struct npkt_args *args)
{
	char point[NPKT_PATH_MAX], store[NPKT_PATH_MAX], file[NPKT_PATH_MAX + 32], block[65536];
	FILE *f;
	size_t n;
	int status = NPKT_OK;

	if (!npkt_mount_of(args->operand[0], point, store))
		return NPKT_FAILED;
	snprintf(file, sizeof(file), "%s/.numpack/stats", point);
	f = fopen(file, "re");
	if (!f) {
		npkt_complain("%s: %s", file, strerror(errno));
		return NPKT_FAILED;
	}
	while ((n = fread(block, 1, sizeof(block), f)) > 0)
		fwrite(block, 1, n, stdout);
	if (ferror(f)) {
		npkt_complain("%s: %s", file, strerror(errno));
		status = NPKT_FAILED;
	}
	fclose(f);
	return npkt_flush(status);
}

const struct npkt_cmd npkt_stats = {
	.name = "stats",
	.operands = "MOUNTPOINT|STORE",
	.min = 1,
	.max = 1,
	.help = "print what a mount counts, as JSON",
	.more = "Requests by kind, errors, bytes read and written, the time that reads took, what is open: the mount's "
		"file\n"
		".numpack/stats. A store that is mounted will do as well.\n"
		"\n"
		"Examples:\n"
		"  mkdir mnt && numpackfs digits.npk mnt && npk stats mnt && npk umount mnt\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
