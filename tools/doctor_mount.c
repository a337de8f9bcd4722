/* doctor_mount.c - what npk doctor asks a mount: whether its daemon answers, and what went wrong in it. */
#include "doctor.h"
#include "top_sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX (1u << 20)

/* --- asking ------------------------------------------------------------------------------------------------------------ */

/* In a process of its own: a daemon that does not answer may keep it for ever. */
static void ask_version(const void *ctx, int fd)
{
	char path[NPKT_PATH_MAX + 32], text[1024];
	int f, status = 1;
	ssize_t n = -1;

	snprintf(path, sizeof(path), "%s/.numpack/version", (const char *)ctx);
	f = open(path, O_RDONLY | O_CLOEXEC);
	if (f >= 0)
		n = read(f, text, sizeof(text));
	if (n < 0)
		n = snprintf(text, sizeof(text), "%s", strerror(errno));
	else
		status = 0;
	if (write(fd, text, (size_t)n) == n)
		_exit(status);
}

/* A control file as a string, at most TEXT_MAX bytes; NULL with errno set. */
static char *read_control(const char *mountpoint, const char *name)
{
	char path[NPKT_PATH_MAX + 32], *text = malloc(TEXT_MAX);
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/.numpack/%s", mountpoint, name);
	f = text ? fopen(path, "re") : NULL;
	if (f) {
		n = fread(text, 1, TEXT_MAX - 1, f);
		text[n] = 0;
	}
	if (!f || ferror(f)) {
		int code = errno;

		free(text);
		text = NULL;
		if (f)
			fclose(f);
		errno = code;
		return NULL;
	}
	fclose(f);
	return text;
}

/* The text of "key": "..." in an object of ours, as it is escaped there; "" when there is none. */
static void json_text(const char *object, const char *key, char *out, size_t cap)
{
	char wanted[64];
	const char *p;
	size_t n = 0;

	snprintf(wanted, sizeof(wanted), "\"%s\": \"", key);
	p = strstr(object, wanted);
	for (p = p ? p + strlen(wanted) : ""; *p && *p != '"' && n + 2 < cap; p++) {
		if (p[0] == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		out[n++] = *p;
	}
	out[n] = 0;
}

/* --- answers ----------------------------------------------------------------------------------------------------------- */

static bool check_daemon(struct npkt_report *r, const char *mountpoint)
{
	char text[1024], wanted[64];
	int status = npkt_listen_to(ask_version, mountpoint, text, sizeof(text));

	npkt_one_line(text, sizeof(text));
	snprintf(wanted, sizeof(wanted), "numpackfs %s;", npk_version());
	if (status > 0 && (strcmp(text, strerror(ENOTCONN)) == 0 || strcmp(text, strerror(ECONNABORTED)) == 0))
		npkt_report(r, NPKT_BAD, "daemon",
			"fusermount3 -u MOUNTPOINT, or umount -l as root, then mount it again",
			"has ended, and left the mount: %s", text);
	else if (status > 0 && strcmp(text, strerror(EACCES)) == 0)
		npkt_report(
			r, NPKT_ODD, "daemon", "ask as the user who mounted, or mount with -o allow_other", "%s", text);
	else if (status != 0)
		npkt_report(r, NPKT_BAD, "daemon", "end its process; changes that it acknowledged are in the journal",
			"%s", text);
	else if (strncmp(text, wanted, strlen(wanted)) != 0)
		npkt_report(r, NPKT_ODD, "daemon", "mount it again to run what is installed",
			"answers, and is of another version than npk %s: %s", npk_version(), text);
	else
		npkt_report(r, NPKT_SOUND, "daemon", NULL, "answers: %s", text);
	return status == 0;
}

static void check_options(struct npkt_report *r, const char *mountpoint)
{
	char options[1024];
	struct npk_err err;

	if (npkt_mount_options(mountpoint, options, sizeof(options), &err) != 0)
		npkt_report(r, NPKT_BAD, "options", NULL, "%s", err.msg);
	else
		npkt_report(r, NPKT_SOUND, "options", NULL, "%s", options[0] ? options : "none but the built-in ones");
}

static void check_numbers(struct npkt_report *r, const char *mountpoint)
{
	struct npkt_sample *s = calloc(1, sizeof(*s));
	struct npk_err err;
	double n;

	if (!s || npkt_sample_read(s, mountpoint, &err) != 0) {
		npkt_report(r, NPKT_BAD, "statistics", NULL, "%s", s ? err.msg : "no memory");
		free(s);
		return;
	}
	npkt_report(r, NPKT_SOUND, "statistics", "npk top shows what it does now",
		"up %.0f s, %.0f arrays, %.0f open files, %.0f bytes allocated",
		npkt_sample_value(s, "uptime_seconds", ""), npkt_sample_value(s, "arrays", ""),
		npkt_sample_value(s, "open_files", ""), npkt_sample_value(s, "heap_bytes", ""));
	n = npkt_sample_value(s, "hidden_arrays", "");
	if (n > 0)
		npkt_report(r, NPKT_ODD, "names", "npk rename, or .numpack/ctl, reaches them",
			"%.0f arrays have names that are too long to be files", n);
	n = npkt_sample_value(s, "refresh_errors_total", "");
	if (n > 0)
		npkt_report(r, NPKT_ODD, "following", "look at the store with npk verify",
			"%.0f looks at the store could not make sense of it", n);
	free(s);
}

static void check_state(struct npkt_report *r, const char *mountpoint)
{
	char why[NPK_ERR_MAX], warning[NPK_ERR_MAX], *stats = read_control(mountpoint, "stats");

	if (!stats) {
		npkt_report(r, NPKT_BAD, "state", NULL, "stats: %s", strerror(errno));
		return;
	}
	json_text(stats, "store_read_only", why, sizeof(why));
	json_text(stats, "store_warning", warning, sizeof(warning));
	free(stats);
	if (why[0])
		npkt_report(r, NPKT_BAD, "state",
			"when another program changed the store: echo reload > MOUNTPOINT/.numpack/ctl",
			"changes nothing: %s", why);
	if (warning[0])
		npkt_report(r, NPKT_ODD, "state", NULL, "%s", warning);
	if (!why[0] && !warning[0])
		npkt_report(r, NPKT_SOUND, "state", NULL, "nothing odd about the store");
}

static void check_errors(struct npkt_report *r, const char *mountpoint)
{
	char when[64], path[1024], name[32], message[1024];
	char *text = read_control(mountpoint, "last_error"), *last = text;
	unsigned n = 0;

	if (!text) {
		npkt_report(r, NPKT_BAD, "last errors", NULL, "%s", strerror(errno));
		return;
	}
	for (char *p = text; *p; n++) {
		last = p;
		p += strcspn(p, "\n");
		if (*p)
			*p++ = 0;
	}
	if (n == 0) {
		npkt_report(r, NPKT_SOUND, "last errors", NULL, "none");
	} else {
		json_text(last, "time", when, sizeof(when));
		json_text(last, "path", path, sizeof(path));
		json_text(last, "errno", name, sizeof(name));
		json_text(last, "message", message, sizeof(message));
		npkt_report(r, NPKT_ODD, "last errors", "cat MOUNTPOINT/.numpack/last_error",
			"programs got %u; the last at %s: %s: %s: %s", n, when, path, name, message);
	}
	free(text);
}

/* Lines are "TIME LEVEL TEXT", the level in five columns. */
static void check_log(struct npkt_report *r, const char *mountpoint)
{
	char *text = read_control(mountpoint, "log"), *end;
	const char *last = NULL;
	unsigned errors = 0, warnings = 0;

	if (!text && errno == EACCES) {
		npkt_report(r, NPKT_SOUND, "log", NULL, "only who mounted may read it");
		return;
	}
	if (!text) {
		npkt_report(r, NPKT_BAD, "log", NULL, "%s", strerror(errno));
		return;
	}
	for (char *line = text; *line; line = end) {
		const char *level = strchr(line, ' ');
		bool error = level && strncmp(level, " error ", 7) == 0,
		     warn = level && strncmp(level, " warn  ", 7) == 0;

		end = line + strcspn(line, "\n");
		if (*end)
			*end++ = 0;
		errors += error;
		warnings += warn;
		if (error || warn)
			last = line;
	}
	if (last)
		npkt_report(r, NPKT_ODD, "log", "cat MOUNTPOINT/.numpack/log", "%u errors, %u warnings; the last: %s",
			errors, warnings, last);
	else
		npkt_report(r, NPKT_SOUND, "log", NULL, "no errors, no warnings in its last lines");
	free(text);
}

void npkt_check_mount(struct npkt_report *r, const char *mountpoint, const char *store)
{
	r->part = "mount";
	npkt_report(r, NPKT_SOUND, "mountpoint", NULL, "%s, of %s", mountpoint, store);
	if (!check_daemon(r, mountpoint))
		return;
	check_options(r, mountpoint);
	check_numbers(r, mountpoint);
	check_state(r, mountpoint);
	check_errors(r, mountpoint);
	check_log(r, mountpoint);
}
