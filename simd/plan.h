/* plan.h - what plan.c writes into a pack and a work area, and scan.c reads.  */
#ifndef NPKV_PLAN_H
#define NPKV_PLAN_H

#include "level.h"

enum npkv_kind {    /* which kernels serve a pair of metric and dtype */
	KIND_EXACT, /* npkv_pair() on every row: sizes beyond the kernels' bounds */
	KIND_DOT,   /* f16 f32 f64 as float: x, q.x and x.x */
	KIND_DIFF,  /* f16 f32 f64: sum (q-x)^2, no cancellation, one query at a time */
	KIND_INT,   /* i8 u8 bool: exact q.x and x.x */
	KIND_AND,
	KIND_XOR, /* bits */
	KIND_KL,  /* a float dot product with log x */
	KIND_JS,
};

/* What npkv_limit() needs of a query; sums over its elements in double. */
struct npkv_qstat {
	double norm2;                 /* q.q; for bits the count */
	double sum, xlogx, abs_xlogx; /* kl and js */
	bool wild;                    /* too large for float: every row is decided by npkv_pair() */
};

/* pack: qstat[nq] | zeros | tiles: wide, narrow | single queries.   All parts 64-byte aligned. */
struct npkv_pack_map {
	size_t zeros;            /* a query of zeros, in the form of single queries */
	size_t wide, wide_bytes; /* offset, and bytes of one */
	size_t narrow, narrow_bytes;
	size_t single, single_bytes;
	size_t total;
};

/* work: u | w | limit (KIND_EXACT) | c | xx | nx | panel. */
struct npkv_work_map {
	size_t u, w;  /* float per lane */
	size_t limit; /* double per query */
	size_t c, xx, nx;
	size_t panel; /* group rows of panel_stride bytes */
	size_t total;
};

void npkv_map_pack(const struct npkv_plan *p, struct npkv_pack_map *m);
void npkv_map_work(const struct npkv_plan *p, struct npkv_work_map *m);

/* Queries in tiles come first, then the single ones: the first query and the lanes of each part. */
static inline size_t npkv_lanes(const struct npkv_plan *p)
{
	size_t lanes = p->nsingle;

	if (p->tile)
		lanes += p->nwide * p->tile[0].width + (p->nnarrow ? p->nnarrow * p->tile[1].width : 0);
	return lanes;
}

/* Rows are turned into floats, logs or int_form steps before the kernels see them. */
static inline bool npkv_panelled(const struct npkv_plan *p)
{
	return p->panel_stride != 0;
}

#endif
