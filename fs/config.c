/* config.c - see config.h. */
#include "config.h"
#include "config_file.h"
#include "settings.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

#define SYSTEM_FILE "/etc/numpackfs.conf"
#define HINT "see numpackfs --help"

/* --- arguments ---------------------------------------------------------------------------------------------------- */

struct args {
	const char **lists; /* the arguments of -o, in order */
	unsigned nlists;
	int show;
};

static const struct option long_options[] = {
	{"foreground", no_argument, NULL, 'f'},
	{"debug", no_argument, NULL, 'd'},
	{"options", required_argument, NULL, 'o'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0},
};

static bool is_helper(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');

	return strcmp(slash != NULL ? slash + 1 : argv0, "mount.numpackfs") == 0;
}

/* mount(8) calls its helpers as "mount.TYPE SOURCE DIR [-sfnv] [-N namespace] [-o options] [-t type.subtype]". */
static int helper_flag(struct npkfs_config *c, struct args *a, int opt)
{
	switch (opt) {
	case 'f':
		c->fake = true;
		return 0;
	case 's':
		c->sloppy = true;
		return 0;
	case 'w':
		a->lists[a->nlists++] = "rw";
		return 0;
	case 'r':
		a->lists[a->nlists++] = "ro";
		return 0;
	case 'o':
		a->lists[a->nlists++] = optarg;
		return 0;
	case 'n':
	case 'v':
	case 'N':
	case 't':
		return 0;
	default:
		return -EINVAL;
	}
}

static int own_flag(struct npkfs_config *c, struct args *a, int opt)
{
	switch (opt) {
	case 'f':
		c->foreground = true;
		return 0;
	case 'd':
		c->foreground = c->debug = true;
		return 0;
	case 'o':
		a->lists[a->nlists++] = optarg;
		return 0;
	case 'h':
	case 'V':
		a->show = a->show != 0 ? a->show : opt;
		return 0;
	default:
		return -EINVAL;
	}
}

static int bad_flag(int opt, char **argv, struct npk_err *err)
{
	if (opt == ':')
		return npk_fail(err, EINVAL, "%s needs an argument: " HINT, argv[optind - 1]);
	if (optopt != 0 && isprint(optopt))
		return npk_fail(err, EINVAL, "unknown option '-%c': " HINT, optopt);
	return npk_fail(err, EINVAL, "unknown option '%s': " HINT, argv[optind - 1]);
}

/* Operands and options may come in any order: mount.fuse3 puts -o last. */
static int parse_args(
	struct npkfs_config *c, struct args *a, int argc, char **argv, char *operand[2], struct npk_err *err)
{
	int opt, rc = 0;

	c->helper = argc > 0 && is_helper(argv[0]);
	optind = 0; /* glibc: forget any earlier parsing */
	opterr = 0;
	while (rc == 0) {
		opt = getopt_long(argc, argv, c->helper ? ":fsnvrwo:t:N:hV" : ":fdo:hV", long_options, NULL);
		if (opt == -1)
			break;
		rc = c->helper && opt != 'h' && opt != 'V' ? helper_flag(c, a, opt) : own_flag(c, a, opt);
		if (rc != 0)
			return bad_flag(opt, argv, err);
	}
	if (a->show != 0)
		return 0;
	if (argc - optind != 2)
		return npk_fail(err, EINVAL, "%s: numpackfs [-f|-d] [-o opt,...] STORE MOUNTPOINT",
			argc - optind < 2 ? "STORE and MOUNTPOINT must be given"
					  : "more than STORE and MOUNTPOINT is given");
	operand[0] = argv[optind];
	operand[1] = argv[optind + 1];
	return 0;
}

/* Absolute, also for a path that cannot be looked at: whoever opens it tells why. */
static int absolute(char **out, const char *path, struct npk_err *err)
{
	char cwd[PATH_MAX];

	*out = realpath(path, NULL);
	if (*out == NULL && path[0] == '/')
		*out = strdup(path);
	else if (*out == NULL && getcwd(cwd, sizeof cwd) != NULL && asprintf(out, "%s/%s", cwd, path) < 0)
		*out = NULL;
	return *out != NULL ? 0 : npk_fail(err, EINVAL, "%s: %s", path, strerror(errno));
}

/* --- the other sources -------------------------------------------------------------------------------------------- */

/* The user's file, by the XDG base directory rules: a relative $XDG_CONFIG_HOME does not count. HOME may be somebody
 * else's after su(1) or sudo(8): a file there that we may not read is not ours. */
static int apply_user_file(struct npkfs_config *c, struct npk_err *err)
{
	const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	char path[PATH_MAX];
	int n = 0;

	if (base != NULL && base[0] == '/')
		n = snprintf(path, sizeof path, "%s/numpackfs.conf", base);
	else if (home != NULL && home[0] == '/')
		n = snprintf(path, sizeof path, "%s/.config/numpackfs.conf", home);
	if (n <= 0 || (size_t)n >= sizeof path || (access(path, R_OK) != 0 && errno == EACCES))
		return 0;
	return npkfs_config_file(c, path, err);
}

/* NUMPACKFS_WATCH=inotify and its like. A misspelt one is refused as anywhere else. */
static int apply_environment(struct npkfs_config *c, struct npk_err *err)
{
	static const char prefix[] = "NUMPACKFS_";
	const size_t plen = sizeof prefix - 1;
	int rc = 0;

	for (char **e = environ; *e != NULL && rc == 0; e++) {
		const char *eq = strchr(*e, '=');
		char var[64], name[64];

		if (eq == NULL || strncmp(*e, prefix, plen) != 0)
			continue;
		snprintf(var, sizeof var, "%.*s", (int)(eq - *e), *e);
		for (size_t i = 0; i <= strlen(var) - plen; i++)
			name[i] = (char)tolower((unsigned char)var[plen + i]);
		rc = npkfs_setting_assign(c, name, eq + 1, var, err);
	}
	return rc;
}

static int apply_lists(struct npkfs_config *c, const struct args *a, struct npk_err *err)
{
	int rc = 0;

	if (c->debug)
		rc = npkfs_setting_assign(c, "log_level", "trace", "-d", err);
	for (unsigned i = 0; i < a->nlists && rc == 0; i++)
		rc = npkfs_options_apply(c, a->lists[i], err);
	return rc;
}

int npkfs_config_load(struct npkfs_config *c, int argc, char **argv, int *show, struct npk_err *err)
{
	struct args a = {.lists = calloc(2 * (size_t)argc + 1, sizeof *a.lists)};
	char *operand[2] = {NULL, NULL};
	int rc;

	npkfs_settings_init(c);
	*show = 0;
	if (a.lists == NULL)
		return npk_fail(err, ENOMEM, "out of memory");
	rc = parse_args(c, &a, argc, argv, operand, err);
	*show = a.show;
	if (rc == 0 && operand[1] != NULL) { /* NULL with -h and -V */
		rc = absolute(&c->store, operand[0], err);
		if (rc == 0)
			rc = absolute(&c->mountpoint, operand[1], err);
		if (rc == 0)
			rc = npkfs_config_file(c, SYSTEM_FILE, err);
		if (rc == 0)
			rc = apply_user_file(c, err);
		if (rc == 0)
			rc = apply_environment(c, err);
		if (rc == 0)
			rc = apply_lists(c, &a, err);
	}
	free(a.lists);
	return rc;
}

void npkfs_config_fini(struct npkfs_config *c)
{
	free(c->store);
	free(c->mountpoint);
	free(c->log_file);
	free(c->cache_dir);
	for (unsigned i = 0; i < NPKFS_SETTINGS; i++)
		free(c->origin[i]);
	*c = (struct npkfs_config){0};
}
