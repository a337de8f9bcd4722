/* settings.c - see settings.h. */
#include "settings.h"
#include "log.h"
#include "values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT(f) offsetof(struct npkfs_config, f)
/* A sanitizer's runtime reports with system calls of its own, at any time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define BOOL "on or off (also yes, no, true, false, 1, 0)"

static const struct npkfs_setting settings[] = {
	{"ro", &npkfs_kind_bool, AT(ro), 0, 0, BOOL, "ro", "mount read-only"},
	{"create", &npkfs_kind_bool, AT(create), 0, 0, BOOL, "create", "make the store when it is not there"},
	{"drop_if_exists", &npkfs_kind_bool, AT(drop_if_exists), 0, 0, BOOL, "drop_if_exists",
		"remove all arrays of the store first"},
	{"sync", &npkfs_kind_sync, AT(sync), 0, 0, "always, commit or fsync", "sync=WHEN",
		"when changes reach the disk: always, commit, fsync"},
	{"commit", &npkfs_kind_unsigned, AT(commit), 1, 3600, "seconds from 1 to 3600", "commit=SECONDS",
		"with sync=commit: how often"},
	{"lock_timeout", &npkfs_kind_unsigned, AT(lock_timeout), 0, 86400, "seconds from 0 to 86400",
		"lock_timeout=SECONDS", "how long to wait for another writer"},
	{"staging_ttl", &npkfs_kind_unsigned, AT(staging_ttl), 1, 31536000, "seconds from 1 to 31536000",
		"staging_ttl=SECONDS", "how long incomplete files are kept"},
	{"show_control", &npkfs_kind_bool, AT(show_control), 0, 0, BOOL, "show_control", "list .numpack in the root"},
	{"allow_other", &npkfs_kind_bool, AT(allow_other), 0, 0, BOOL, "allow_other",
		"let other users in; file modes are checked"},
	{"watch", &npkfs_kind_watch, AT(watch), 10, 3600000, "inotify, poll:<ms> with 10 to 3600000 ms, or off",
		"watch=HOW", "read-only mounts: follow a store that others change: inotify, poll:<ms>, off"},
	{"attr_ttl", &npkfs_kind_seconds, AT(attr_ttl), 0, 31536000, "seconds from 0 to 31536000", "attr_ttl=SECONDS",
		"how long the kernel may keep names and attributes"},
	{"threads", &npkfs_kind_unsigned, AT(threads), 1, 64, "a number from 1 to 64", "threads=N",
		"threads that serve requests"},
	{"ctl_max", &npkfs_kind_size, AT(ctl_max), 4096, 1u << 30, "a size from 4k to 1G, as bytes or with k, M or G",
		"ctl_max=SIZE", "largest query and answer of a conversation"},
	{"header", &npkfs_kind_header, AT(header), 0, 0, "numpy or 4096", "header=KIND",
		"header of .npy files: numpy (as np.save) or 4096 (a page)"},
	{"read_ahead_kb", &npkfs_kind_unsigned, AT(read_ahead_kb), 0, 65536, "a number from 0 (leave it) to 65536",
		"read_ahead_kb=N", "the kernel's read-ahead for this mount; root only"},
	{"uid", &npkfs_kind_uid, AT(uid), 0, UINT32_MAX - 1, "a user's name or number, or store", "uid=USER",
		"owner of all files instead of the store's"},
	{"gid", &npkfs_kind_gid, AT(gid), 0, UINT32_MAX - 1, "a group's name or number, or store", "gid=GROUP",
		"group of all files instead of the store's"},
	{"umask", &npkfs_kind_umask, AT(umask), 0, 0777, "octal from 0 to 0777, or store", "umask=OCTAL",
		"mode bits to take away instead of the store's modes"},
	{"autocompact", &npkfs_kind_unsigned, AT(autocompact), 0, 100, "percent from 0 (never) to 100",
		"autocompact=PERCENT", "compact arrays of whose rows so many are deleted"},
	{"sandbox", &npkfs_kind_bool, AT(sandbox), 0, 0, BOOL, "sandbox",
		"give up all rights that serving does not need (built-in: on)"},
	{"cache_dir", &npkfs_kind_path, AT(cache_dir), 0, 0, "an absolute path, or default", "cache_dir=PATH",
		"where arrays of a package are unpacked; default is $TMPDIR or /var/tmp"},
	{"log_level", &npkfs_kind_level, AT(log_level), 0, 0, "error, warn, info, debug or trace", "log_level=LEVEL",
		"error, warn, info, debug or trace"},
	{"log_file", &npkfs_kind_path, AT(log_file), 0, 0, "an absolute path, or default", "log_file=PATH",
		"log there; default is stderr with -f or -d, else syslog"},
};
_Static_assert(sizeof settings / sizeof settings[0] == NPKFS_SETTINGS, "config.h counts the settings");

const char *npkfs_setting_name(unsigned i)
{
	return i < NPKFS_SETTINGS ? settings[i].name : NULL;
}

static const struct npkfs_setting *find(const char *name)
{
	for (unsigned i = 0; i < NPKFS_SETTINGS; i++)
		if (strcmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

bool npkfs_setting_exists(const char *name)
{
	return find(name) != NULL;
}

bool npkfs_setting_is_bool(const char *name)
{
	const struct npkfs_setting *s = find(name);

	return s != NULL && s->kind == &npkfs_kind_bool;
}

bool npkfs_setting_is_given(const struct npkfs_config *c, const char *name)
{
	const struct npkfs_setting *s = find(name);

	return s != NULL && c->origin[s - settings] != NULL;
}

void npkfs_settings_init(struct npkfs_config *c)
{
	*c = (struct npkfs_config){
		.commit = 5,
		.lock_timeout = 10,
		.staging_ttl = 3600,
		.watch = NPKFS_WATCH_INOTIFY,
		.attr_ttl = 3600,
		.threads = 4,
		.ctl_max = 64u << 20,
		.header = 64,
		.sandbox = !SANITIZED,
		.log_level = NPKFS_INFO,
	};
}

int npkfs_setting_assign(
	struct npkfs_config *c, const char *name, const char *value, const char *origin, struct npk_err *err)
{
	const struct npkfs_setting *s = find(name);
	char *copy;
	int rc;

	if (s == NULL)
		return npkfs_setting_unknown(name, origin, err);
	if (value == NULL && s->kind != &npkfs_kind_bool)
		return npk_fail(err, EINVAL, "%s: %s needs a value: %s", origin, name, s->expects);
	if (value == NULL)
		value = "on";
	rc = s->kind->parse(c, s, value);
	if (rc == -EINVAL)
		return npk_fail(err, EINVAL, "%s: %s=%.100s: must be %s", origin, name, value, s->expects);
	copy = rc == 0 ? strdup(origin) : NULL;
	if (copy == NULL)
		return npk_fail(err, ENOMEM, "out of memory");
	free(c->origin[s - settings]);
	c->origin[s - settings] = copy;
	return 0;
}

void npkfs_config_print(const struct npkfs_config *c, struct npk_text *out)
{
	for (unsigned i = 0; i < NPKFS_SETTINGS; i++) {
		npk_text_printf(out, "%s = ", settings[i].name);
		settings[i].kind->print(c, &settings[i], out);
		npk_text_printf(out, "  # %s\n", c->origin[i] != NULL ? c->origin[i] : "built-in");
	}
}

void npkfs_settings_help(struct npk_text *out)
{
	for (unsigned i = 0; i < NPKFS_SETTINGS; i++)
		npk_text_printf(out, "    %-21s %s\n", settings[i].form, settings[i].help);
}
