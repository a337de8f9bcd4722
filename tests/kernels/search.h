/* search.h - the smallest driver of npkv_scan(): top k of rows in memory, one thread. Tests and the benchmark share it.  */
#ifndef T_SEARCH_H
#define T_SEARCH_H

#include "npkv.h"

struct t_problem {
	enum npkv_metric metric;
	enum npkv_dtype dtype;
	const void *queries, *rows;
	size_t dim, nq, nrows, k;
	bool narrow; /* npkv_plan_init_narrow() */
};

/* ids and scores are nq x k; fewer rows than k leave the rest of a line untouched. Returns how many hits were
 * looked at, or SIZE_MAX when there is no memory or the plan is refused. */
size_t t_search(const struct npkv_ops *o, const struct t_problem *p, uint64_t *ids, double *scores);

/* The order of results: better first, NaN last, then the lower row. */
bool t_before(enum npkv_metric m, double a, uint64_t row_a, double b, uint64_t row_b);

#endif
