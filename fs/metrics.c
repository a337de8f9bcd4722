/* metrics.c - .numpack/stats (JSON) and .numpack/metrics (Prometheus text format 0.0.4) from one list of numbers. */
#include "fs.h"
#include "names.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct number {
	const char *name, *type, *help; /* "counter": its metric gets _total */
	uint64_t value;
};

static void count_arrays(struct npkfs_session *s, uint64_t *arrays, uint64_t *hidden)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npk_array **list;
	const char *name;
	size_t n, len;

	*arrays = *hidden = 0;
	if (npk_store_list(s->store, &list, &n, NULL) != 0)
		return;
	*arrays = n;
	for (size_t i = 0; i < n; i++) {
		name = npk_array_name(list[i], &len);
		*hidden += !npkfs_name_escape(part, name, len, ".npy");
	}
	npk_store_list_free(list, n);
}

/* Of the whole daemon: what malloc() has lent now, and the most pages it ever had, those of mapped stores included. */
static void measure_memory(uint64_t *heap, uint64_t *peak)
{
	struct mallinfo2 m = mallinfo2();
	struct rusage usage;

	*heap = m.uordblks + m.hblkhd;
	*peak = getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

#define NUMBERS 17

static void collect(struct npkfs_session *s, struct number out[NUMBERS])
{
	struct npkfs_stats *st = &s->stats;
	uint64_t arrays, hidden, heap, peak;
	size_t generations, nodes = npkfs_inodes_count(&s->inodes, &npkfs_array_type, &generations);
	const struct number numbers[NUMBERS] = {
		{"uptime_seconds", "gauge", "Seconds since the store was mounted.", 0},
		{"arrays", "gauge", "Arrays in the store.", 0},
		{"hidden_arrays", "gauge", "Arrays whose name is too long to be shown.", 0},
		{"nodes", "gauge", "Files and directories that the kernel refers to.", nodes},
		{"generations", "gauge", "Generations of arrays that the kernel refers to.", generations},
		{"open_files", "gauge", "Open files.", (uint64_t)NPKFS_LOAD(st->handles)},
		{"open_directories", "gauge", "Open directories.", (uint64_t)NPKFS_LOAD(st->directories)},
		{"read_bytes", "counter", "Bytes sent in READ replies.", NPKFS_LOAD(st->read_bytes)},
		{"mapped_read_bytes", "counter", "Of these, bytes sent straight from a mapping.",
			NPKFS_LOAD(st->borrowed_bytes)},
		{"written_bytes", "counter", "Bytes taken from WRITE requests.", NPKFS_LOAD(st->written_bytes)},
		{"invalidations", "counter", "Names and files that the kernel was told to forget.",
			NPKFS_LOAD(st->invalidations)},
		{"refreshes", "counter", "Looks at the store for changes by others.", NPKFS_LOAD(st->refreshes)},
		{"refresh_errors", "counter", "Of these, those that could not make sense of it.",
			NPKFS_LOAD(st->refresh_errors)},
		{"searches", "counter", "Vector searches that were computed.", NPKFS_LOAD(st->searches)},
		{"searches_failed", "counter", "Of these, those that failed or were interrupted.",
			NPKFS_LOAD(st->searches_failed)},
		{"heap_bytes", "gauge", "Memory that the daemon has allocated, touched or not.", 0},
		{"peak_resident_bytes", "gauge", "The most memory the daemon ever had in use, mapped pages included.",
			0},
	};

	count_arrays(s, &arrays, &hidden);
	measure_memory(&heap, &peak);
	for (int i = 0; i < NUMBERS; i++)
		out[i] = numbers[i];
	out[0].value = (uint64_t)(time(NULL) - s->started);
	out[1].value = arrays;
	out[2].value = hidden;
	out[NUMBERS - 2].value = heap;
	out[NUMBERS - 1].value = peak;
}

/* --- JSON ------------------------------------------------------------------------------------------------------------- */

void npkfs_print_stats(struct npkfs_session *s, struct npk_text *out)
{
	struct number numbers[NUMBERS];
	struct npk_store_info info;

	collect(s, numbers);
	npk_store_info(s->store, &info);
	npk_text_printf(out, "{");
	for (int i = 0; i < NUMBERS; i++)
		npk_text_printf(out, "\"%s\": %" PRIu64 ", ", numbers[i].name, numbers[i].value);
	npk_text_printf(out, "\"store_warning\": ");
	npk_text_json(out, info.warning, strlen(info.warning));
	npk_text_printf(out, ", \"store_read_only\": ");
	npk_text_json(out, info.why, strlen(info.why));
	npk_text_printf(out, ", \"requests\": {");
	for (int i = 0; i < NPKFS_OP_COUNT; i++)
		npk_text_printf(out, "%s\"%s\": {\"count\": %" PRIu64 ", \"errors\": %" PRIu64 "}", i ? ", " : "",
			npkfs_op_name((enum npkfs_op)i), NPKFS_LOAD(s->stats.ops[i]), NPKFS_LOAD(s->stats.errors[i]));
	npk_text_printf(out, "}}\n");
}

/* --- Prometheus -------------------------------------------------------------------------------------------------------- */

static void print_family(struct npk_text *out, const char *name, const char *type, const char *help)
{
	npk_text_printf(out, "# HELP numpackfs_%s %s\n# TYPE numpackfs_%s %s\n", name, help, name, type);
}

static void print_per_op(struct npk_text *out, const char *name, const char *help, _Atomic uint64_t *values)
{
	print_family(out, name, "counter", help);
	for (int i = 0; i < NPKFS_OP_COUNT; i++)
		npk_text_printf(out, "numpackfs_%s{op=\"%s\"} %" PRIu64 "\n", name, npkfs_op_name((enum npkfs_op)i),
			NPKFS_LOAD(values[i]));
}

/* Cumulative, as the format wants it; the sums are taken bucket by bucket while others count, so the last one decides. */
static void print_latency(struct npkfs_stats *st, struct npk_text *out)
{
	static const char name[] = "read_duration_seconds";
	uint64_t sum = 0;

	print_family(out, name, "histogram", "Time from a READ request to its reply.");
	for (unsigned i = 0; i < NPKFS_LATENCY_BUCKETS; i++) {
		sum += NPKFS_LOAD(st->read_time[i]);
		if (i + 1 < NPKFS_LATENCY_BUCKETS)
			npk_text_printf(out, "numpackfs_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name,
				(double)npkfs_latency_bound_ns(i) / 1e9, sum);
		else
			npk_text_printf(out, "numpackfs_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, sum);
	}
	npk_text_printf(out, "numpackfs_%s_sum %.9f\nnumpackfs_%s_count %" PRIu64 "\n", name,
		(double)NPKFS_LOAD(st->read_ns) / 1e9, name, sum);
}

void npkfs_print_metrics(struct npkfs_session *s, struct npk_text *out)
{
	struct number numbers[NUMBERS];
	char name[64];

	collect(s, numbers);
	for (int i = 0; i < NUMBERS; i++) {
		snprintf(name, sizeof(name), "%s%s", numbers[i].name, numbers[i].type[0] == 'c' ? "_total" : "");
		print_family(out, name, numbers[i].type, numbers[i].help);
		npk_text_printf(out, "numpackfs_%s %" PRIu64 "\n", name, numbers[i].value);
	}
	print_per_op(out, "requests_total", "Requests of the kernel.", s->stats.ops);
	print_per_op(out, "request_errors_total", "Requests that were answered with an error.", s->stats.errors);
	print_latency(&s->stats, out);
}
