/* search.h - where the engine meets the kernels: rows in, the k best out. */
#ifndef NPKI_SEARCH_H
#define NPKI_SEARCH_H

#include "numpack.h"

#include <npkv.h>

/* How a metric over a stored dtype is computed. */
struct npki_kind {
	const struct npkv_ops *ops;
	enum npkv_metric metric;
	enum npkv_dtype dtype; /* of the kernels */
	unsigned stored;       /* NPK_ dtype of the rows */
	bool convert;          /* rows go through npki_convert() first */
};

/* -EINVAL: no such metric, or not for that dtype, or NPKV_LEVEL is wrong. */
int npki_kind(enum npk_metric m, unsigned dtype, struct npki_kind *out, struct npk_err *err);
int npki_kernels(const struct npkv_ops **out, struct npk_err *err);
/* `n` stored elements in the kernels' form. */
void npki_convert(const struct npki_kind *k, const uint8_t *from, size_t n, void *out);

/* Queries ready for the kernels, shared by all threads of a search. plan[1], where there are two, is the narrow form: for
 * data far from the origin, where the bounds of plan[0] let too many rows through. */
struct npki_query {
	struct npki_kind kind;
	size_t nq, dim, row_bytes; /* row_bytes: of a row in the kernels' form */
	uint8_t *vectors;          /* nq rows in the kernels' form; owned */
	unsigned nplans;           /* 0 before npki_query_plan() */
	struct npkv_plan plan[2];
	void *pack[2]; /* owned */
};

int npki_query_init(struct npki_query *out, const struct npk_queries *q, enum npk_metric m, struct npk_err *err);
/* What a scan needs, and npkv_pair() alone does not. */
int npki_query_plan(struct npki_query *q, struct npk_err *err);
void npki_query_fini(struct npki_query *q);

/* The best rows so far of one thread: a heap of at most k for each query, the worst on top. */
struct npki_candidate {
	double score;
	uint64_t row;
};

struct npki_list {
	size_t n;
	double limit; /* what the scans were told; NaN: every row is wanted */
	bool changed; /* since then */
};

struct npki_topk {
	const struct npki_query *q;
	size_t k;
	bool ordered; /* rows come with growing numbers: an equal score never wins later */
	struct npki_list *list;
	struct npki_candidate *item; /* nq * k */
	struct npkv_hit *hits;
	size_t hits_cap;
	void *work[2];
	unsigned plan; /* in use */
	size_t step;   /* rows of the next scan: doubles, since limits move between scans only */
	uint64_t seen,
		false_alarms; /* since the plan was judged: pairs, and those reported though worse than the limit */
	uint8_t *converted;   /* room for rows in the kernels' form; NULL when rows need no conversion */
	size_t converted_rows;
};

/* `q` is borrowed and has plans. -E2BIG: `threads` of these would pass 2^40 bytes. */
int npki_topk_init(
	struct npki_topk *t, const struct npki_query *q, size_t k, bool ordered, unsigned threads, struct npk_err *err);
void npki_topk_fini(struct npki_topk *t);

/* Tells the number of the row at position `at` of a block, false when it does not count (it is deleted). */
typedef bool npki_row_fn(void *ctx, uint64_t at, uint64_t *row);
/* Looks at `nrows` stored rows, `stride` bytes apart. Allocates nothing and takes no lock. */
void npki_topk_feed(
	struct npki_topk *t, const uint8_t *rows, size_t stride, size_t nrows, npki_row_fn *row_of, void *ctx);
/* Takes over what another thread found. */
void npki_topk_merge(struct npki_topk *t, const struct npki_topk *other);
/* min(k, rows) hits a query, best first; `t` is used up. */
int npki_topk_result(struct npki_topk *t, struct npk_hits *out, struct npk_err *err);

#endif
