/* doctor.c - npk doctor: looks at the machine, a store and a mount, and tells what it found and what to do about it. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	JSON
};

enum {
	UNCHECKED = 2
}; /* 0 and 1 are what was found */

static const struct npkt_opt opts[] = {
	[JSON] = {"json", NULL, 'j', "one JSON object with all findings"},
	{0},
};

/* --- the report ------------------------------------------------------------------------------------------------------- */

static const char *const health_names[] = {"ok", "warn", "bad"};

static void put_json(const struct npkt_report *r, const char *health, const char *what, const char *advice,
	const char *found, bool first)
{
	const char *value[] = {health, r->part, what, found, advice};
	static const char *const key[] = {"level", "part", "check", "found", "advice"};
	struct npk_text t = {0};

	npk_text_printf(&t, "%s", first ? "\n  {" : ",\n  {");
	for (size_t i = 0; i < sizeof(key) / sizeof(*key); i++) {
		npk_text_printf(&t, "%s\"%s\": ", i ? ", " : "", key[i]);
		if (value[i])
			npk_text_json(&t, value[i], strlen(value[i]));
		else
			npk_text_printf(&t, "null");
	}
	npk_text_printf(&t, "}");
	npkt_put_text(stdout, &t);
}

static void put_line(
	const struct npkt_report *r, enum npkt_health health, const char *what, const char *advice, const char *found)
{
	static const char *const colour[] = {"\033[32m", "\033[33m", "\033[31m"};

	printf("%s%-4s%s  %s: %s: ", r->coloured ? colour[health] : "", health_names[health],
		r->coloured ? "\033[0m" : "", r->part, what);
	npkt_put_escaped(stdout, found, strlen(found));
	if (advice) {
		printf(" -> ");
		npkt_put_escaped(stdout, advice, strlen(advice));
	}
	putchar('\n');
}

void npkt_report(
	struct npkt_report *r, enum npkt_health health, const char *what, const char *advice, const char *fmt, ...)
{
	char found[2 * NPKT_PATH_MAX];
	bool first = r->count[NPKT_SOUND] + r->count[NPKT_ODD] + r->count[NPKT_BAD] == 0;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(found, sizeof(found), fmt, ap);
	va_end(ap);
	r->count[health]++;
	if (r->json)
		put_json(r, health_names[health], what, advice, found, first);
	else
		put_line(r, health, what, advice, found);
	fflush(stdout); /* before a check that takes long; npkt_flush() tells what went wrong */
}

static void begin(const struct npkt_report *r, const char *path)
{
	struct npk_text t = {0};

	if (!r->json)
		return;
	npk_text_printf(&t, "{\"version\": \"%s\", \"path\": ", npk_version());
	if (path)
		npk_text_json(&t, path, strlen(path));
	else
		npk_text_printf(&t, "null");
	npk_text_printf(&t, ",\n \"checks\": [");
	npkt_put_text(stdout, &t);
}

static void end(const struct npkt_report *r)
{
	if (r->json)
		printf("],\n \"ok\": %" PRIu64 ", \"warn\": %" PRIu64 ", \"bad\": %" PRIu64 "}\n", r->count[NPKT_SOUND],
			r->count[NPKT_ODD], r->count[NPKT_BAD]);
	else
		printf("%s: bad %" PRIu64 ", warnings %" PRIu64 ", ok %" PRIu64 "\n",
			r->count[NPKT_BAD] ? "something does not work" : "nothing is broken", r->count[NPKT_BAD],
			r->count[NPKT_ODD], r->count[NPKT_SOUND]);
}

/* --- other programs ---------------------------------------------------------------------------------------------------- */

#define PATIENCE_MS 10000

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Until the other end is closed or time is over: false. */
static bool read_all(int fd, char *out, size_t cap)
{
	int64_t deadline = now_ms() + PATIENCE_MS;
	size_t len = 0;
	char more[512];
	ssize_t n = 1;

	while (n > 0) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - now_ms();

		if (left <= 0 || (poll(&p, 1, (int)left) < 0 && errno != EINTR))
			break;
		if (p.revents == 0)
			continue;
		n = read(fd, more, sizeof(more));
		for (ssize_t i = 0; i < n && len + 1 < cap; i++)
			out[len++] = more[i];
	}
	out[len] = 0;
	return n == 0;
}

int npkt_listen_to(void (*speak)(const void *ctx, int fd), const void *ctx, char *out, size_t cap)
{
	int pipes[2], status = -1;
	bool whole;
	pid_t pid;

	fflush(stdout); /* the child has a copy of what is not written yet */
	if (pipe2(pipes, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
		snprintf(out, cap, "%s", strerror(errno));
		return -1;
	}
	if (pid == 0) {
		speak(ctx, pipes[1]);
		_exit(127);
	}
	close(pipes[1]);
	whole = read_all(pipes[0], out, cap);
	close(pipes[0]);
	if (!whole)
		kill(pid, SIGKILL);
	if (waitpid(pid, &status, whole ? 0 : WNOHANG) != pid || !whole) /* the kernel may not let go of it */
		snprintf(out, cap, "does not answer within %d seconds", PATIENCE_MS / 1000);
	return whole && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void become(const void *ctx, int fd)
{
	char *const *argv = ctx;

	if (dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0)
		execvp(argv[0], argv);
}

int npkt_listen(char *const argv[], char *out, size_t cap)
{
	return npkt_listen_to(become, argv, out, cap);
}

void npkt_one_line(char *text, size_t cap)
{
	size_t n = strlen(text);

	while (n > 0 && text[n - 1] == '\n')
		text[--n] = 0;
	for (char *p = strchr(text, '\n'); p; p = strchr(p, '\n')) {
		*p++ = ';';
		if (n + 2 > cap) {
			*p = 0;
			return;
		}
		memmove(p + 1, p, n++ - (size_t)(p - text) + 1);
		*p = ' ';
	}
}

/* --- the command ------------------------------------------------------------------------------------------------------ */

/* A mount may be dead, so that its path leads nowhere; a store may be mounted. */
static void check_path(struct npkt_report *r, const char *path)
{
	char wanted[NPKT_PATH_MAX], point[NPKT_PATH_MAX], store[NPKT_PATH_MAX], real[PATH_MAX];

	if (npkt_resolve(path, wanted) && npkt_find_mount(wanted, NULL, point, store)) {
		npkt_check_mount(r, point, store);
		npkt_check_store(r, store);
	} else if (realpath(path, real) && npkt_find_mount(NULL, real, point, store)) {
		npkt_check_mount(r, point, store);
		npkt_check_store(r, path);
	} else {
		npkt_check_store(r, path);
	}
}

static int run(const struct npkt_args *args)
{
	const char *path = args->noperands ? args->operand[0] : NULL;
	struct npkt_report r = {.json = args->opt[JSON]};

	r.coloured = !r.json && isatty(STDOUT_FILENO);
	begin(&r, path);
	npkt_check_machine(&r);
	if (path)
		check_path(&r, path);
	end(&r);
	return npkt_flush(r.count[NPKT_BAD] ? 1 : NPKT_OK);
}

const struct npkt_cmd npkt_doctor = {
	.name = "doctor",
	.operands = "[STORE|MOUNTPOINT]",
	.min = 0,
	.max = 1,
	.help = "look what may be wrong with this machine, a store, a mount",
	.more = "One line for each thing that was looked at: \"ok\", \"warn\" or \"bad\", what was found and, behind "
		"\"->\", what to\n"
		"do. Of a mount both it and its store are looked at, and so of a store that is mounted. Nothing is "
		"changed. The\n"
		"exit status is 0 when nothing is bad, 1 when something is. It belongs into a report of a bug.\n"
		"\n"
		"Examples:\n"
		"  npk doctor digits.npk\n"
		"  npk doctor --json digits.npk\n"
		"  mkdir mnt && numpackfs digits.npk mnt && npk doctor mnt && npk umount mnt\n",
	.opts = opts,
	.usage_status = UNCHECKED,
	.run = run,
};
