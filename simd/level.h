/* level.h - what the per-level files and dispatch.c know of each other.  */
#ifndef NPKV_LEVEL_H
#define NPKV_LEVEL_H

#include <math.h>
#include <string.h>

#include "npkv.h"

/* The longest SVE vector. So many bytes behind a single query are zeros, since a length need not be a power of two;
 * rows of a panel are a multiple of it. */
enum {
	NPKV_PAD = 256
};

extern const struct npkv_ops npkv_scalar;

void npkv_init_sse42(struct npkv_ops *o);
void npkv_init_clmul(struct npkv_ops *o);
void npkv_init_avx2(struct npkv_ops *o);
void npkv_init_avx512(struct npkv_ops *o);
void npkv_init_vnni(struct npkv_ops *o);
void npkv_init_vpopcnt(struct npkv_ops *o);
void npkv_init_neon(struct npkv_ops *o);
void npkv_init_dotprod(struct npkv_ops *o);
void npkv_init_armcrc(struct npkv_ops *o);
void npkv_init_sve(struct npkv_ops *o);

/* The address of row i, where rows past the end repeat the last one: groups of four need no special end. */
static inline const char *row_at(const void *rows, size_t stride, size_t i, size_t nrows)
{
	return (const char *)rows + stride * (i < nrows ? i : nrows - 1);
}

/* Results of four rows that lie `part` rows apart. */
static inline void put4(float *to, size_t part, const float *v)
{
	to[0] = v[0];
	to[part] = v[1];
	to[2 * part] = v[2];
	to[3 * part] = v[3];
}

static inline int32_t load_i32(const void *p)
{
	int32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline float load_f32(const void *p)
{
	float v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline int64_t load_i64(const void *p)
{
	int64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Appends a hit per set bit of a lane mask; `by_row` lanes count rows, else queries. */
static inline struct npkv_hit *push_hits(uint32_t lanes, bool by_row, struct npkv_hit base, struct npkv_hit *out)
{
	for (; lanes; lanes &= lanes - 1) {
		uint32_t lane = (uint32_t)__builtin_ctz(lanes);

		out->row = base.row + (by_row ? lane : 0);
		out->query = base.query + (by_row ? 0 : lane);
		out++;
	}
	return out;
}

#endif
