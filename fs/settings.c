/* settings.c - see settings.h. */
#include "settings.h"
#include "log.h"

#include <errno.h>
#include <grp.h>
#include <math.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

struct setting {
	const char *name;
	size_t at;               /* of its field in struct npkfs_config */
	uint64_t min, max;       /* of numbers */
	const char *expects;     /* completes "must be ..." */
	const char *form, *help; /* of --help */
	/* 0, -EINVAL when the value is none of `expects`, -ENOMEM */
	int (*parse)(struct npkfs_config *c, const struct setting *s, const char *value);
	void (*print)(const struct npkfs_config *c, const struct setting *s, struct npk_text *out);
};

static void *field(struct npkfs_config *c, const struct setting *s)
{
	return (char *)c + s->at;
}

static const void *cfield(const struct npkfs_config *c, const struct setting *s)
{
	return (const char *)c + s->at;
}

/* --- kinds of values ---------------------------------------------------------------------------------------------- */

static int word(const char *value, const char *const *words)
{
	for (int i = 0; words[i] != NULL; i++)
		if (strcmp(value, words[i]) == 0)
			return i;
	return -1;
}

static int number(const char *value, uint64_t min, uint64_t max, int base, uint64_t *out)
{
	char *end;
	uint64_t n;

	if (*value < '0' || *value > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(value, &end, base);
	if (errno != 0 || *end != '\0' || n < min || n > max)
		return -EINVAL;
	*out = n;
	return 0;
}

static int parse_bool(struct npkfs_config *c, const struct setting *s, const char *value)
{
	static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "0", "1", NULL};
	int w = word(value, words);

	if (w < 0)
		return -EINVAL;
	*(bool *)field(c, s) = w % 2 == 1;
	return 0;
}

static void print_bool(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	npk_text_printf(out, "%s", *(const bool *)cfield(c, s) ? "on" : "off");
}

static int parse_watch(struct npkfs_config *c, const struct setting *s, const char *value)
{
	uint64_t ms = 0;

	if (strcmp(value, "off") == 0)
		c->watch = NPKFS_WATCH_OFF;
	else if (strcmp(value, "inotify") == 0)
		c->watch = NPKFS_WATCH_INOTIFY;
	else if (strncmp(value, "poll:", 5) == 0 && number(value + 5, s->min, s->max, 10, &ms) == 0)
		c->watch = NPKFS_WATCH_POLL;
	else
		return -EINVAL;
	c->watch_ms = (unsigned)ms;
	return 0;
}

static void print_watch(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	(void)s;
	if (c->watch == NPKFS_WATCH_POLL)
		npk_text_printf(out, "poll:%u", c->watch_ms);
	else
		npk_text_printf(out, "%s", c->watch == NPKFS_WATCH_INOTIFY ? "inotify" : "off");
}

static int parse_seconds(struct npkfs_config *c, const struct setting *s, const char *value)
{
	char *end;
	double d;

	if (*value == '\0' || strspn(value, "0123456789.") != strlen(value)) /* no "inf", no "0x", no sign */
		return -EINVAL;
	d = strtod(value, &end);
	if (*end != '\0' || !(d >= (double)s->min && d <= (double)s->max))
		return -EINVAL;
	*(double *)field(c, s) = d;
	return 0;
}

static void print_seconds(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	npk_text_printf(out, "%.10g", *(const double *)cfield(c, s));
}

static int parse_unsigned(struct npkfs_config *c, const struct setting *s, const char *value)
{
	uint64_t n;

	if (number(value, s->min, s->max, 10, &n) != 0)
		return -EINVAL;
	*(unsigned *)field(c, s) = (unsigned)n;
	return 0;
}

static void print_unsigned(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	npk_text_printf(out, "%u", *(const unsigned *)cfield(c, s));
}

static const char suffixes[] = "kKmMgG";

static int parse_size(struct npkfs_config *c, const struct setting *s, const char *value)
{
	size_t len = strlen(value);
	const char *suffix = len > 0 ? strchr(suffixes, value[len - 1]) : NULL;
	unsigned shift = suffix != NULL ? 10 * (unsigned)((suffix - suffixes) / 2 + 1) : 0;
	char digits[24];
	uint64_t n;

	len -= suffix != NULL;
	if (len >= sizeof digits)
		return -EINVAL;
	memcpy(digits, value, len);
	digits[len] = '\0';
	if (number(digits, 0, s->max >> shift, 10, &n) != 0 || n << shift < s->min)
		return -EINVAL;
	*(uint64_t *)field(c, s) = n << shift;
	return 0;
}

static void print_size(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	uint64_t n = *(const uint64_t *)cfield(c, s);
	int i = 0;

	for (; i < 3 && n % 1024 == 0 && n > 0; i++)
		n /= 1024;
	npk_text_printf(out, "%llu%.*s", (unsigned long long)n, i > 0, &"kMG"[i > 0 ? i - 1 : 0]);
}

static int parse_header(struct npkfs_config *c, const struct setting *s, const char *value)
{
	(void)s;
	if (strcmp(value, "numpy") == 0)
		c->header = 64;
	else if (strcmp(value, "4096") == 0)
		c->header = 4096;
	else
		return -EINVAL;
	return 0;
}

static void print_header(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	(void)s;
	npk_text_printf(out, "%s", c->header == 64 ? "numpy" : "4096");
}

static int parse_uid(struct npkfs_config *c, const struct setting *s, const char *value)
{
	const struct passwd *pw;
	uint64_t n = 0;
	bool set = strcmp(value, "store") != 0;

	if (set && number(value, s->min, s->max, 10, &n) != 0) {
		pw = getpwnam(value);
		if (pw == NULL)
			return -EINVAL;
		n = pw->pw_uid;
	}
	c->set_uid = set;
	c->uid = (uid_t)n;
	return 0;
}

static int parse_gid(struct npkfs_config *c, const struct setting *s, const char *value)
{
	const struct group *gr;
	uint64_t n = 0;
	bool set = strcmp(value, "store") != 0;

	if (set && number(value, s->min, s->max, 10, &n) != 0) {
		gr = getgrnam(value);
		if (gr == NULL)
			return -EINVAL;
		n = gr->gr_gid;
	}
	c->set_gid = set;
	c->gid = (gid_t)n;
	return 0;
}

static void print_id(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	bool is_uid = s->at == offsetof(struct npkfs_config, uid);

	if (is_uid ? c->set_uid : c->set_gid)
		npk_text_printf(out, "%u", (unsigned)(is_uid ? c->uid : c->gid));
	else
		npk_text_printf(out, "store");
}

static int parse_umask(struct npkfs_config *c, const struct setting *s, const char *value)
{
	uint64_t n = 0;

	c->set_umask = strcmp(value, "store") != 0;
	if (c->set_umask && number(value, s->min, s->max, 8, &n) != 0)
		return -EINVAL;
	c->umask = (mode_t)n;
	return 0;
}

static void print_umask(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	(void)s;
	if (c->set_umask)
		npk_text_printf(out, "%04o", (unsigned)c->umask);
	else
		npk_text_printf(out, "store");
}

static const char *const levels[] = {"error", "warn", "info", "debug", "trace", NULL}; /* as enum npkfs_level */

static int parse_level(struct npkfs_config *c, const struct setting *s, const char *value)
{
	int level = word(value, levels);

	(void)s;
	if (level < 0)
		return -EINVAL;
	c->log_level = level;
	return 0;
}

static void print_level(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	(void)s;
	npk_text_printf(out, "%s", levels[c->log_level]);
}

static int parse_log_file(struct npkfs_config *c, const struct setting *s, const char *value)
{
	char *copy = NULL;

	(void)s;
	if (strcmp(value, "default") != 0) {
		if (*value != '/')
			return -EINVAL;
		copy = strdup(value);
		if (copy == NULL)
			return -ENOMEM;
	}
	free(c->log_file);
	c->log_file = copy;
	return 0;
}

static void print_log_file(const struct npkfs_config *c, const struct setting *s, struct npk_text *out)
{
	(void)s;
	for (const char *p = c->log_file != NULL ? c->log_file : "default"; *p != '\0'; p++)
		npk_text_printf(out, (unsigned char)*p < ' ' ? "\\x%02x" : "%c", (unsigned char)*p);
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

#define AT(f) offsetof(struct npkfs_config, f)
#define BOOL "on or off (also yes, no, true, false, 1, 0)"

static const struct setting settings[] = {
	{"ro", AT(ro), 0, 0, BOOL, "ro", "mount read-only; this version always does", parse_bool, print_bool},
	{"show_control", AT(show_control), 0, 0, BOOL, "show_control", "list .numpack in the root", parse_bool,
		print_bool},
	{"allow_other", AT(allow_other), 0, 0, BOOL, "allow_other", "let other users in; file modes are checked",
		parse_bool, print_bool},
	{"watch", AT(watch), 10, 3600000, "inotify, poll:<ms> with 10 to 3600000 ms, or off", "watch=HOW",
		"follow a store that others change: inotify, poll:<ms>, off", parse_watch, print_watch},
	{"attr_ttl", AT(attr_ttl), 0, 31536000, "seconds from 0 to 31536000", "attr_ttl=SECONDS",
		"how long the kernel may keep names and attributes", parse_seconds, print_seconds},
	{"threads", AT(threads), 1, 64, "a number from 1 to 64", "threads=N", "threads that serve requests",
		parse_unsigned, print_unsigned},
	{"ctl_max", AT(ctl_max), 4096, 1u << 30, "a size from 4k to 1G, as bytes or with k, M or G", "ctl_max=SIZE",
		"largest query and answer of a conversation", parse_size, print_size},
	{"header", AT(header), 0, 0, "numpy or 4096", "header=KIND",
		"header of .npy files: numpy (as np.save) or 4096 (a page)", parse_header, print_header},
	{"read_ahead_kb", AT(read_ahead_kb), 0, 65536, "a number from 0 (leave it) to 65536", "read_ahead_kb=N",
		"the kernel's read-ahead for this mount; root only", parse_unsigned, print_unsigned},
	{"uid", AT(uid), 0, UINT32_MAX - 1, "a user's name or number, or store", "uid=USER",
		"owner of all files instead of the store's", parse_uid, print_id},
	{"gid", AT(gid), 0, UINT32_MAX - 1, "a group's name or number, or store", "gid=GROUP",
		"group of all files instead of the store's", parse_gid, print_id},
	{"umask", AT(umask), 0, 0777, "octal from 0 to 0777, or store", "umask=OCTAL",
		"mode bits to take away instead of the store's modes", parse_umask, print_umask},
	{"log_level", AT(log_level), 0, 0, "error, warn, info, debug or trace", "log_level=LEVEL",
		"error, warn, info, debug or trace", parse_level, print_level},
	{"log_file", AT(log_file), 0, 0, "an absolute path, or default", "log_file=PATH",
		"log there; default is stderr with -f or -d, else syslog", parse_log_file, print_log_file},
};
_Static_assert(sizeof settings / sizeof settings[0] == NPKFS_SETTINGS, "config.h counts the settings");

const char *npkfs_setting_name(unsigned i)
{
	return i < NPKFS_SETTINGS ? settings[i].name : NULL;
}

static const struct setting *find(const char *name)
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
	const struct setting *s = find(name);

	return s != NULL && s->parse == parse_bool;
}

void npkfs_settings_init(struct npkfs_config *c)
{
	*c = (struct npkfs_config){
		.ro = true,
		.attr_ttl = 3600,
		.threads = 4,
		.ctl_max = 64u << 20,
		.header = 64,
		.log_level = NPKFS_INFO,
	};
}

int npkfs_setting_assign(
	struct npkfs_config *c, const char *name, const char *value, const char *origin, struct npk_err *err)
{
	const struct setting *s = find(name);
	char *copy;
	int rc;

	if (s == NULL)
		return npkfs_setting_unknown(name, origin, err);
	if (value == NULL && s->parse != parse_bool)
		return npk_fail(err, EINVAL, "%s: %s needs a value: %s", origin, name, s->expects);
	if (value == NULL)
		value = "on";
	rc = s->parse(c, s, value);
	if (rc == -EINVAL)
		return npk_fail(err, EINVAL, "%s: %s=%.100s: must be %s", origin, name, value, s->expects);
	if (!c->ro)
		return npk_fail(err, EINVAL, "%s: %s=%s: this version mounts read-only", origin, name, value);
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
		settings[i].print(c, &settings[i], out);
		npk_text_printf(out, "  # %s\n", c->origin[i] != NULL ? c->origin[i] : "built-in");
	}
}

void npkfs_settings_help(struct npk_text *out)
{
	for (unsigned i = 0; i < NPKFS_SETTINGS; i++)
		npk_text_printf(out, "    %-18s %s\n", settings[i].form, settings[i].help);
}
