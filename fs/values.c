/* values.c - see values.h. */
#include "values.h"
#include "log.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

static void *field(struct npkfs_config *c, const struct npkfs_setting *s)
{
	return (char *)c + s->at;
}

static const void *cfield(const struct npkfs_config *c, const struct npkfs_setting *s)
{
	return (const char *)c + s->at;
}

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

static int parse_bool(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
{
	static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "0", "1", NULL};
	int w = word(value, words);

	if (w < 0)
		return -EINVAL;
	*(bool *)field(c, s) = w % 2 == 1;
	return 0;
}

static void print_bool(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	npk_text_printf(out, "%s", *(const bool *)cfield(c, s) ? "on" : "off");
}

static int parse_watch(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
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

static void print_watch(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	(void)s;
	if (c->watch == NPKFS_WATCH_POLL)
		npk_text_printf(out, "poll:%u", c->watch_ms);
	else
		npk_text_printf(out, "%s", c->watch == NPKFS_WATCH_INOTIFY ? "inotify" : "off");
}

static int parse_seconds(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
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

static void print_seconds(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	npk_text_printf(out, "%.10g", *(const double *)cfield(c, s));
}

static int parse_unsigned(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
{
	uint64_t n;

	if (number(value, s->min, s->max, 10, &n) != 0)
		return -EINVAL;
	*(unsigned *)field(c, s) = (unsigned)n;
	return 0;
}

static void print_unsigned(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	npk_text_printf(out, "%u", *(const unsigned *)cfield(c, s));
}

static const char *const sync_words[] = {"commit", "always", "fsync", NULL}; /* by enum npkfs_sync */

static int parse_sync(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
{
	int w = word(value, sync_words);

	(void)s;
	if (w < 0)
		return -EINVAL;
	c->sync = (enum npkfs_sync)w;
	return 0;
}

static void print_sync(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	(void)s;
	npk_text_printf(out, "%s", sync_words[c->sync]);
}

static const char suffixes[] = "kKmMgG";

static int parse_size(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
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

static void print_size(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	uint64_t n = *(const uint64_t *)cfield(c, s);
	int i = 0;

	for (; i < 3 && n % 1024 == 0 && n > 0; i++)
		n /= 1024;
	npk_text_printf(out, "%llu%.*s", (unsigned long long)n, i > 0, &"kMG"[i > 0 ? i - 1 : 0]);
}

static int parse_header(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
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

static void print_header(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	(void)s;
	npk_text_printf(out, "%s", c->header == 64 ? "numpy" : "4096");
}

static int parse_uid(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
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

static int parse_gid(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
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

static void print_id(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	bool is_uid = s->at == offsetof(struct npkfs_config, uid);

	if (is_uid ? c->set_uid : c->set_gid)
		npk_text_printf(out, "%u", (unsigned)(is_uid ? c->uid : c->gid));
	else
		npk_text_printf(out, "store");
}

static int parse_umask(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
{
	uint64_t n = 0;

	c->set_umask = strcmp(value, "store") != 0;
	if (c->set_umask && number(value, s->min, s->max, 8, &n) != 0)
		return -EINVAL;
	c->umask = (mode_t)n;
	return 0;
}

static void print_umask(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	(void)s;
	if (c->set_umask)
		npk_text_printf(out, "%04o", (unsigned)c->umask);
	else
		npk_text_printf(out, "store");
}

static const char *const levels[] = {"error", "warn", "info", "debug", "trace", NULL}; /* as enum npkfs_level */

static int parse_level(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
{
	int level = word(value, levels);

	(void)s;
	if (level < 0)
		return -EINVAL;
	c->log_level = level;
	return 0;
}

static void print_level(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	(void)s;
	npk_text_printf(out, "%s", levels[c->log_level]);
}

static int parse_path(struct npkfs_config *c, const struct npkfs_setting *s, const char *value)
{
	char **field = (char **)((char *)c + s->at), *copy = NULL;

	if (strcmp(value, "default") != 0) {
		if (*value != '/')
			return -EINVAL;
		copy = strdup(value);
		if (copy == NULL)
			return -ENOMEM;
	}
	free(*field);
	*field = copy;
	return 0;
}

static void print_path(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out)
{
	const char *path = *(char *const *)((const char *)c + s->at);

	for (const char *p = path != NULL ? path : "default"; *p != '\0'; p++)
		npk_text_printf(out, (unsigned char)*p < ' ' ? "\\x%02x" : "%c", (unsigned char)*p);
}

const struct npkfs_kind npkfs_kind_sync = {parse_sync, print_sync};
const struct npkfs_kind npkfs_kind_bool = {parse_bool, print_bool};
const struct npkfs_kind npkfs_kind_watch = {parse_watch, print_watch};
const struct npkfs_kind npkfs_kind_seconds = {parse_seconds, print_seconds};
const struct npkfs_kind npkfs_kind_unsigned = {parse_unsigned, print_unsigned};
const struct npkfs_kind npkfs_kind_size = {parse_size, print_size};
const struct npkfs_kind npkfs_kind_header = {parse_header, print_header};
const struct npkfs_kind npkfs_kind_uid = {parse_uid, print_id};
const struct npkfs_kind npkfs_kind_gid = {parse_gid, print_id};
const struct npkfs_kind npkfs_kind_umask = {parse_umask, print_umask};
const struct npkfs_kind npkfs_kind_level = {parse_level, print_level};
const struct npkfs_kind npkfs_kind_path = {parse_path, print_path};
