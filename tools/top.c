/* top.c - npk top: what a mount does now, one screen or line of JSON for each interval. */
#include "top_sample.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DELAY 2.0
#define DELAY_MAX 3600
#define OPTIONS_MAX 1024

enum {
	INTERVAL,
	COUNT,
	BATCH,
	JSON
};

static const struct npkt_opt opts[] = {
	[INTERVAL] = {"delay", "SECONDS", 'd', "how long an interval is; 2 by default"},
	[COUNT] = {"count", "N", 'n', "end after so many intervals"},
	[BATCH] = {"batch", NULL, 'b', "one after the other, without colours, as into a pipe"},
	[JSON] = {"json", NULL, 'j', "a line with a JSON object for each interval"},
	{0},
};

struct top {
	char mountpoint[NPKT_PATH_MAX], store[NPKT_PATH_MAX];
	char options[OPTIONS_MAX]; /* "sync=always,ro": those that somebody set */
	double delay;
	uint64_t count; /* 0: no end */
	bool screen, json;
	unsigned columns; /* of the terminal; 0: lines have no end */
	struct npkt_sample before, now;
};

/* --- what is known besides the numbers ---------------------------------------------------------------------------------- */

/* Lines are "NAME = VALUE  # ORIGIN". */
int npkt_mount_options(const char *mountpoint, char *out, size_t cap, struct npk_err *err)
{
	char path[NPKT_PATH_MAX + 32], *line = NULL, *equals, *origin;
	size_t room = 0, len = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/.numpack/config", mountpoint);
	f = fopen(path, "re");
	if (!f)
		return npk_fail(err, errno, "%.400s: %s", path, strerror(errno));
	out[0] = 0;
	while (len < cap && getline(&line, &room, f) > 0) {
		equals = strstr(line, " = ");
		origin = equals ? strstr(equals, "  # ") : NULL;
		if (!origin || strncmp(origin, "  # built-in", 12) == 0)
			continue;
		*equals = *origin = 0;
		len += (size_t)snprintf(out + len, cap - len, "%s%s=%s", len ? "," : "", line, equals + 3);
	}
	free(line);
	fclose(f);
	return 0;
}

/* -1: it has none, or it is not ours to see. */
static int64_t journal_bytes(const struct top *t)
{
	static const char *const names[] = {"numpackfs.journal", "numpackfs.journal.next"};
	char path[NPKT_PATH_MAX + 64];
	int64_t sum = -1;
	struct stat st;

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", t->store, names[i]);
		if (stat(path, &st) == 0)
			sum = (sum < 0 ? 0 : sum) + st.st_size;
	}
	return sum;
}

static double rate(const struct top *t, const char *name, const char *label)
{
	return npkt_sample_growth(&t->before, &t->now, name, label) / (t->now.seconds - t->before.seconds);
}

static double value(const struct top *t, const char *name)
{
	return npkt_sample_value(&t->now, name, "");
}

/* --- the screen --------------------------------------------------------------------------------------------------------- */

/* Prints a line no longer than the screen is wide. `look` is how it looks on a terminal, "" for plain. */
static void put_line(const struct top *t, const char *look, const char *text)
{
	size_t len = strlen(text);

	if (t->columns && len > t->columns)
		len = t->columns;
	if (t->screen)
		fputs(look, stdout);
	npkt_put_escaped(stdout, text, len);
	fputs(t->screen ? "\033[0m\033[K\n" : "\n", stdout);
}

static const char *size_text(char out[16], double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned u = 0;

	while (bytes >= 1000 && u + 1 < sizeof(units) / sizeof(*units)) {
		bytes /= 1024;
		u++;
	}
	snprintf(out, 16, u == 0 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
	return out;
}

static const char *time_text(char out[16], double us, bool bound)
{
	const char *before = bound ? isinf(us) ? "> " : "<= " : "";

	if (us < 0)
		snprintf(out, 16, "-");
	else if (isinf(us))
		snprintf(out, 16, "> 25 ms"); /* the last bound of the mount's histogram */
	else if (us < 1000)
		snprintf(out, 16, "%s%.3g us", before, us);
	else
		snprintf(out, 16, "%s%.3g ms", before, us / 1000);
	return out;
}

static void put_head(const struct top *t)
{
	unsigned long up = (unsigned long)value(t, "uptime_seconds");
	char line[2 * NPKT_PATH_MAX + OPTIONS_MAX], a[16], b[16], c[16];
	int64_t journal = journal_bytes(t);
	double read = rate(t, "read_bytes_total", ""), mapped = rate(t, "mapped_read_bytes_total", "");

	snprintf(line, sizeof(line), "%s: %s, up %lu:%02lu:%02lu", t->mountpoint, t->store, up / 3600, up / 60 % 60,
		up % 60);
	put_line(t, "\033[1m", line);
	snprintf(line, sizeof(line), "options: %s", t->options[0] ? t->options : "none but the built-in ones");
	put_line(t, "", line);
	snprintf(line, sizeof(line), "arrays %.0f, generations %.0f, nodes %.0f, open: files %.0f, directories %.0f",
		value(t, "arrays"), value(t, "generations"), value(t, "nodes"), value(t, "open_files"),
		value(t, "open_directories"));
	put_line(t, "", line);
	snprintf(line, sizeof(line), "memory: allocated %s, resident at most %s; journal: %s",
		size_text(a, value(t, "heap_bytes")), size_text(b, value(t, "peak_resident_bytes")),
		journal < 0 ? "none" : size_text(c, (double)journal));
	put_line(t, "", line);
	snprintf(line, sizeof(line), "read %s/s (%.0f %% of it mapped), written %s/s", size_text(a, read),
		read > 0 ? mapped / read * 100 : 0, size_text(b, rate(t, "written_bytes_total", "")));
	put_line(t, "", line);
	snprintf(line, sizeof(line), "a READ: mean %s, half %s, 99 %% %s",
		time_text(a, npkt_sample_mean_us(&t->before, &t->now), false),
		time_text(b, npkt_sample_bound_us(&t->before, &t->now, 0.5), true),
		time_text(c, npkt_sample_bound_us(&t->before, &t->now, 0.99), true));
	put_line(t, "", line);
	snprintf(line, sizeof(line), "searches %.1f/s, invalidations %.1f/s, refreshes %.1f/s",
		rate(t, "searches_total", ""), rate(t, "invalidations_total", ""), rate(t, "refreshes_total", ""));
	put_line(t, "", line);
	put_line(t, "", "");
}

static const struct top *sorted_for; /* qsort() has no context */

static int by_rate(const void *x, const void *y)
{
	const struct npkt_number *a = *(const struct npkt_number *const *)x, *b = *(const struct npkt_number *const *)y;
	double ra = rate(sorted_for, a->name, a->label), rb = rate(sorted_for, b->name, b->label);

	if (ra != rb)
		return ra < rb ? 1 : -1;
	if (a->value != b->value)
		return a->value < b->value ? 1 : -1;
	return strcmp(a->label, b->label);
}

/* Kinds of requests that there were, those of this moment first. */
static size_t list_requests(const struct top *t, const struct npkt_number *out[NPKT_SAMPLE_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < t->now.n; i++)
		if (strcmp(t->now.number[i].name, "requests_total") == 0 && t->now.number[i].value > 0)
			out[n++] = &t->now.number[i];
	sorted_for = t;
	qsort(out, n, sizeof(*out), by_rate);
	return n;
}

static void put_requests(const struct top *t)
{
	const struct npkt_number *list[NPKT_SAMPLE_MAX];
	size_t n = list_requests(t, list);
	char line[160];

	snprintf(line, sizeof(line), "%-16s%12s%12s%14s%10s", "REQUEST", "/s", "errors/s", "all", "errors");
	put_line(t, "\033[7m", line);
	for (size_t i = 0; i < n; i++) {
		double failing = rate(t, "request_errors_total", list[i]->label);

		snprintf(line, sizeof(line), "%-16s%12.1f%12.1f%14.0f%10.0f", list[i]->label,
			rate(t, "requests_total", list[i]->label), failing, list[i]->value,
			npkt_sample_value(&t->now, "request_errors_total", list[i]->label));
		put_line(t, failing > 0 ? "\033[31m" : "", line);
	}
}

static void put_screen(struct top *t, bool first)
{
	struct winsize w;

	t->columns = t->screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
	if (t->screen)
		fputs(first ? "\033[H\033[2J" : "\033[H", stdout);
	else if (!first)
		putchar('\n');
	put_head(t);
	put_requests(t);
	if (t->screen)
		fputs("\033[J", stdout);
}

/* --- JSON --------------------------------------------------------------------------------------------------------------- */

static void put_text(struct npk_text *out, const char *name, const char *text)
{
	npk_text_printf(out, "\"%s\": ", name);
	npk_text_json(out, text, strlen(text));
	npk_text_printf(out, ", ");
}

/* Microseconds; null for none, and for more than the histogram knows. */
static void put_us(struct npk_text *out, const char *name, double us, const char *end)
{
	if (us < 0 || isinf(us))
		npk_text_printf(out, "\"%s\": null%s", name, end);
	else
		npk_text_printf(out, "\"%s\": %.3f%s", name, us, end);
}

static void put_json(const struct top *t)
{
	static const char *const gauges[] = {"uptime_seconds", "arrays", "generations", "nodes", "open_files",
		"open_directories", "heap_bytes", "peak_resident_bytes"};
	static const char *const rates[] = {
		"read_bytes", "mapped_read_bytes", "written_bytes", "searches", "invalidations", "refreshes"};
	int64_t journal = journal_bytes(t);
	struct npk_text out = {0};
	char name[64];
	bool first = true;

	npk_text_printf(&out, "{");
	put_text(&out, "mountpoint", t->mountpoint);
	put_text(&out, "store", t->store);
	put_text(&out, "options", t->options);
	npk_text_printf(&out, "\"seconds\": %.3f, ", t->now.seconds - t->before.seconds);
	for (size_t i = 0; i < sizeof(gauges) / sizeof(*gauges); i++)
		npk_text_printf(&out, "\"%s\": %.0f, ", gauges[i], value(t, gauges[i]));
	if (journal < 0)
		npk_text_printf(&out, "\"journal_bytes\": null, ");
	else
		npk_text_printf(&out, "\"journal_bytes\": %" PRId64 ", ", journal);
	for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
		snprintf(name, sizeof(name), "%s_total", rates[i]);
		npk_text_printf(&out, "\"%s_per_second\": %.3f, ", rates[i], rate(t, name, ""));
	}
	npk_text_printf(&out, "\"read_latency\": {\"count\": %.0f, ",
		npkt_sample_growth(&t->before, &t->now, "read_duration_seconds_count", ""));
	put_us(&out, "mean_us", npkt_sample_mean_us(&t->before, &t->now), ", ");
	put_us(&out, "p50_us", npkt_sample_bound_us(&t->before, &t->now, 0.5), ", ");
	put_us(&out, "p99_us", npkt_sample_bound_us(&t->before, &t->now, 0.99), "}, \"requests\": {");
	for (size_t i = 0; i < t->now.n; i++) {
		const struct npkt_number *m = &t->now.number[i];

		if (strcmp(m->name, "requests_total") != 0)
			continue;
		npk_text_printf(&out, "%s", first ? "" : ", ");
		npk_text_json(&out, m->label, strlen(m->label));
		npk_text_printf(&out,
			": {\"per_second\": %.3f, \"errors_per_second\": %.3f, \"count\": %.0f, \"errors\": %.0f}",
			rate(t, m->name, m->label), rate(t, "request_errors_total", m->label), m->value,
			npkt_sample_value(&t->now, "request_errors_total", m->label));
		first = false;
	}
	npk_text_printf(&out, "}}\n");
	npkt_put_text(stdout, &out);
}

/* --- the command -------------------------------------------------------------------------------------------------------- */

static int take_options(struct top *t, const struct npkt_args *args)
{
	const char *delay = args->opt[INTERVAL], *count = args->opt[COUNT];
	char *end;

	t->delay = delay ? strtod(delay, &end) : DELAY;
	if (delay && (*delay < '0' || *delay > '9' || *end || !(t->delay > 0 && t->delay <= DELAY_MAX))) {
		npkt_complain("--delay '%s' is not a number of seconds above 0 and up to %d", delay, DELAY_MAX);
		return NPKT_USAGE;
	}
	errno = 0;
	t->count = count ? strtoull(count, &end, 10) : 0;
	if (count && (errno != 0 || *count < '0' || *count > '9' || *end || t->count == 0)) {
		npkt_complain("--count '%s' is not a number of intervals from 1 on", count);
		return NPKT_USAGE;
	}
	t->json = args->opt[JSON] != NULL;
	t->screen = !t->json && !args->opt[BATCH] && isatty(STDOUT_FILENO);
	return NPKT_OK;
}

static void sleep_for(double seconds)
{
	struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

static int run_top(struct top *t)
{
	struct npk_err err;
	int rc = npkt_mount_options(t->mountpoint, t->options, sizeof(t->options), &err), status = NPKT_OK;

	if (rc == 0)
		rc = npkt_sample_read(&t->before, t->mountpoint, &err);
	for (uint64_t i = 0; rc == 0 && status == NPKT_OK && (t->count == 0 || i < t->count); i++) {
		sleep_for(t->delay);
		rc = npkt_sample_read(&t->now, t->mountpoint, &err);
		if (rc != 0)
			break;
		if (t->json)
			put_json(t);
		else
			put_screen(t, i == 0);
		status = npkt_flush(NPKT_OK);
		t->before = t->now;
	}
	return rc ? npkt_failed(&err) : status;
}

static int run(const struct npkt_args *args)
{
	struct top *t = calloc(1, sizeof(*t));
	int status;

	if (!t) {
		npkt_complain("no memory");
		return NPKT_FAILED;
	}
	status = take_options(t, args);
	if (status == NPKT_OK && !npkt_mount_of(args->operand[0], t->mountpoint, t->store))
		status = NPKT_FAILED;
	if (status == NPKT_OK)
		status = run_top(t);
	free(t);
	return status;
}

const struct npkt_cmd npkt_top = {
	.name = "top",
	.operands = "MOUNTPOINT|STORE",
	.min = 1,
	.max = 1,
	.help = "show what a mount does, again and again",
	.more = "Requests by kind, bytes, how long reads take, what is open, memory, the journal. Rates are those of "
		"the last\n"
		"interval, and the first is shown at its end; what npk top itself asks counts as well. Ctrl-C ends it. "
		"Where\n"
		"standard output is no terminal, intervals are printed one after the other, as with --batch.\n"
		"\n"
		"Examples:\n"
		"  mkdir mnt && numpackfs digits.npk mnt && npk top mnt -b -n 2 -d 0.1 && npk umount mnt\n"
		"  mkdir m && numpackfs digits.npk m && npk top m --json -n 1 -d 0.1 && npk umount m\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
