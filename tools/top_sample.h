/* top_sample.h - one look at what a mount counts: its file .numpack/metrics (Prometheus text). */
#ifndef NPKT_TOP_SAMPLE_H
#define NPKT_TOP_SAMPLE_H

#include "tool.h"

#define NPKT_SAMPLE_MAX 256 /* numbers */
#define NPKT_SAMPLE_NAME 48

struct npkt_number {
	char name[NPKT_SAMPLE_NAME];  /* without "numpackfs_" */
	char label[NPKT_SAMPLE_NAME]; /* the value of its one label; "" without one */
	double value;
};

struct npkt_sample {
	double seconds; /* of a clock that only goes on */
	size_t n;
	struct npkt_number number[NPKT_SAMPLE_MAX];
};

/* Reads the file. -EINVAL: it is not what a mount of ours writes. */
int npkt_sample_read(struct npkt_sample *s, const char *mountpoint, struct npk_err *err);

/* 0 when there is no such number. */
double npkt_sample_value(const struct npkt_sample *s, const char *name, const char *label);
/* How much a counter grew; one that fell was started anew, and all it has is new. `before` NULL: all it has. */
double npkt_sample_growth(
	const struct npkt_sample *before, const struct npkt_sample *now, const char *name, const char *label);

/* Of the READ requests between two samples. Bounds are those of the mount's histogram: `share` of them took at most so long.
 * -1: none were there; INFINITY: longer than the last bound. */
double npkt_sample_mean_us(const struct npkt_sample *before, const struct npkt_sample *now);
double npkt_sample_bound_us(const struct npkt_sample *before, const struct npkt_sample *now, double share);

#endif
