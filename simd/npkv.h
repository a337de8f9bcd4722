/* npkv.h - libnpkv: numbers in, numbers out. Exact nearest-row search in one pass over the data, and CRC32C.
 *   Memory    nothing is allocated; the caller gives every buffer and its size is asked for first.
 *   Threads   an ops table, a plan and a pack are read-only once filled; a work area belongs to one thread.
 *   Results   npkv_pair() defines every score. It is the same double on every level, so results never depend on
 *             the instruction set. The fast kernels only decide which rows are worth that call.
 *
 * How a driver searches (nq queries, rows in blocks, k best each):
 *
 *	npkv_plan_init(&plan, &ops, metric, dtype, dim, nq);           sizes: plan.pack_bytes, .work_bytes, .hits_min
 *	npkv_pack(&plan, queries, query_stride, pack);                 once
 *	npkv_work_init(&plan, pack, work);                             once per thread: every row is wanted
 *	while rows are left:
 *		done = npkv_scan(&plan, pack, work, rows, stride, nrows, hits, cap, &nhits);
 *		for each hit: s = npkv_pair(&ops, metric, dtype, query, row, dim); push (s, row) to the list of hit.query
 *		for each list that is full and changed: npkv_limit(&plan, pack, work, query, worst kept score, ties)
 *		rows += done * stride, nrows -= done
 *
 * A scan reports every row whose npkv_pair() is at least as good as the limit, and few others: the kernels compute
 * in float, and each comparison is moved by a bound on their rounding error that is derived in plan.c. Limits move
 * between calls only, so let the first call see some 64 rows and double from there up to a few MiB.  */
#ifndef NPKV_H
#define NPKV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum npkv_metric {
	NPKV_COSINE,
	NPKV_DOT,
	NPKV_INNER, /* similarities: higher is better */
	NPKV_L2,
	NPKV_L2SQ,
	NPKV_HAMMING,
	NPKV_JACCARD,
	NPKV_KL,
	NPKV_JS, /* distances: lower is better */
	NPKV_METRICS
};

/* hamming and jaccard take NPKV_U8 as packed bits (dim counts bytes, so 8 * dim bits) and NPKV_BOOL as one byte per
 * element, 0 or 1. A bool byte above 1 counts by its value: hamming = sum (q-x)^2, jaccard = 1 - qx/(qq+xx-qx). */
enum npkv_dtype {
	NPKV_F16,
	NPKV_F32,
	NPKV_F64,
	NPKV_I8,
	NPKV_U8,
	NPKV_BOOL,
	NPKV_DTYPES
};

/* What the CPU offers. A level is one of these sets; a mask that lacks a bit must not use it. */
enum {
	NPKV_SSE42 = 1u << 0,   /* crc32 instruction */
	NPKV_AVX2 = 1u << 1,    /* with FMA and F16C */
	NPKV_AVX512 = 1u << 2,  /* F, BW, DQ, VL; implies NPKV_AVX2 */
	NPKV_VNNI = 1u << 3,    /* AVX512_VNNI */
	NPKV_VPOPCNT = 1u << 4, /* AVX512_VPOPCNTDQ */
	NPKV_CLMUL = 1u << 5,   /* carry-less products, with SSE2 */
	NPKV_NEON = 1u << 8,
	NPKV_DOTPROD = 1u << 9, /* SDOT, UDOT */
	NPKV_ARMCRC = 1u << 10,
	NPKV_SVE = 1u << 11, /* any vector length; implies NPKV_NEON */
};

/* Kernels. Rows lie `stride` bytes apart, at any alignment; nothing outside a row's bytes is read. */

/* c[i] = q.x_i and xx[i] = x_i.x_i for nrows rows. Called "l2" or "xor" it gives the distance s instead, as
 * c[i] = -s, xx[i] = s. "js" gives c[i] = sum t log t, t = q + x_i, and leaves xx alone. q is in the kernel's own
 * form, with 256 bytes of zeros behind. c and xx have room for nrows rounded up to 16. */
typedef void npkv_one_fn(const void *q, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx);

/* c[r * width + j] = q_j.x_r for `rows` rows and `width` queries. Rows are nsteps steps of 4 bytes (8 for bits),
 * the query tile is k-major: one initial value per query, then nsteps x width steps, 64-byte aligned. While it computes
 * it may ask memory for the nsteps * pace bytes at `ahead`; these need not exist. */
typedef void npkv_tile_fn(
	const void *qtile, const void *rows, size_t stride, size_t nsteps, float *c, const char *ahead, size_t pace);

struct npkv_tile {
	npkv_tile_fn *run;    /* NULL: this level has none */
	unsigned rows, width; /* width is a multiple of 4 */
};

enum npkv_int_form {    /* what a 4-byte step of an integer tile holds */
	NPKV_PAIR16,    /* two int16 */
	NPKV_QUAD,      /* four int8, or four uint8 */
	NPKV_QUAD_BIAS, /* four bytes, the row's xor 0x80; the tile starts at -+128 sum q */
};

struct npkv_hit {
	uint32_t row; /* counted from the first row of the call */
	uint32_t query;
};

/* The table. Every slot is set at every level; a wider level overlays the slots it has something better for. */
struct npkv_ops {
	npkv_one_fn *dot[NPKV_DTYPES];    /* q: float, float, double, int16, int16, int16 */
	npkv_one_fn *l2[NPKV_DTYPES];     /* f16, f32, f64; NULL for integers: dot and xx are exact there */
	npkv_one_fn *and_bits, *xor_bits; /* c = popcount; xx = popcount(x), or as said for "xor" */
	npkv_one_fn *js;                  /* over float */
	struct npkv_tile tile_f32[2];     /* [0] the wide one, [1] half as wide for what is left */
	struct npkv_tile tile_i8[2], tile_u8[2];
	struct npkv_tile tile_bits[1];
	enum npkv_int_form int_form;

	void (*f16_to_f32)(const void *src, size_t n, float *dst); /* exact */
	void (*f64_to_f32)(const void *src, size_t n, float *dst); /* nearest */
	void (*lift_i8)(const void *src, size_t n, void *dst);     /* row bytes -> int_form */
	void (*lift_u8)(const void *src, size_t n, void *dst);
	/* log(max(x, FLT_MIN)) of n floats; negative and infinite x become infinite, NaN stays. |err| <= 2^-21
	 * max(1, |log|). `to` may be x, and has room for n rounded up to 64. */
	void (*log_f32)(const void *x, size_t n, float *to);
	/* out = { sum x log x, sum |x log x|, sum x }; not finite if an x is negative, infinite or NaN. */
	void (*entropy)(const float *x, size_t n, float out[3]);

	/* nx = xx, or its square root, and NaN where xx is not in [lo, hi]; returns how many those are. */
	size_t (*norms)(const float *xx, size_t n, float lo, float hi, bool root, float *nx);
	/* Hits are the places where nx * u - c <= w, for one query and n rows, or for a tile of nrows x width of which
	 * `lanes` queries count. out has room for all places; returns the end of what was written. */
	struct npkv_hit *(*sift_rows)(const float *c, const float *nx, size_t n, float u, float w, struct npkv_hit base,
		struct npkv_hit *out);
	struct npkv_hit *(*sift_tile)(const float *c, const float *nx, size_t nrows, size_t width, size_t lanes,
		const float *u, const float *w, struct npkv_hit base, struct npkv_hit *out);

	uint32_t (*crc32c)(uint32_t crc, const void *buf, size_t len); /* of RFC 3720 */
	uint32_t (*crc32)(
		uint32_t crc, const void *buf, size_t len); /* of zlib; slower than zlib without NPKV_HAS_CRC32 */
};

#define NPKV_HAS_CRC32 (NPKV_CLMUL | NPKV_ARMCRC) /* one of these makes crc32 fast */

unsigned npkv_cpu(void);                          /* what this CPU and its kernel offer */
void npkv_init(struct npkv_ops *o, unsigned cpu); /* cpu: npkv_cpu() or a subset of it */
const char *npkv_level_name(unsigned cpu);        /* "scalar" "avx2" "avx512" "neon" "sve" */

enum {
	NPKV_ENV_UNKNOWN = -1,
	NPKV_ENV_LACKING = -2
};

/* Reads the environment variable `name` (NPKV_LEVEL): scalar, avx2, avx512, neon or sve restrict *cpu to that level;
 * unset or empty means npkv_cpu(). Any other word is NPKV_ENV_UNKNOWN, a level that this CPU does not have is
 * NPKV_ENV_LACKING; then *cpu is untouched. */
int npkv_cpu_from_env(const char *name, unsigned *cpu);

/* The score itself: double arithmetic over the stored values in a fixed order, without FMA; integers and bits exact.
 *   cosine   q.x / sqrt(q.q x.x), 0 if either is 0         l2, l2sq  sqrt(sum (q-x)^2), its square
 *   hamming  differing bits                                jaccard   1 - and/or, 0 for two empty sets
 *   kl       sum q log(q/x) in nats; 0 log 0 = 0, q > 0 over x = 0 is +inf, a negative q or x gives NaN
 *   js       sqrt(sum q log(q/m) + x log(x/m)) / sqrt(2), m = (q+x)/2; inputs are not normalised
 * Relative error <= 1e-13 of the sum of absolute terms for any dim. NaN in, NaN out: the caller orders NaN last.
 * q and x have the same dtype; a pair that npkv_supported() denies gives NaN. `o` only converts f16. */
double npkv_pair(
	const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, const void *q, const void *x, size_t dim);

bool npkv_supported(enum npkv_metric m, enum npkv_dtype t);
size_t npkv_dtype_bytes(enum npkv_dtype t);

static inline bool npkv_is_similarity(enum npkv_metric m)
{
	return m <= NPKV_INNER;
}

struct npkv_plan { /* filled by npkv_plan_init(); read it, do not change it */
	const struct npkv_ops *ops;
	enum npkv_metric metric;
	enum npkv_dtype dtype;
	size_t dim, nq;
	size_t row_bytes;
	size_t pack_bytes, work_bytes;  /* both 64-byte aligned */
	size_t hits_min;                /* smallest `cap` that lets a scan go on */
	unsigned kind;                  /* enum npkv_kind in plan.h */
	unsigned group;                 /* rows handled together */
	const struct npkv_tile *tile;   /* NULL: one query at a time */
	size_t nwide, nnarrow, nsingle; /* tiles, tiles, queries */
	size_t nsteps, panel_stride;
	float lo, hi; /* x.x outside is decided by npkv_pair() alone */
	bool root;
};

/* Returns 0, or -1 if the pair is not supported, nq is 0 or above 2^31, or a size overflows. `ops` is borrowed. */
int npkv_plan_init(
	struct npkv_plan *p, const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, size_t dim, size_t nq);

/* As npkv_plan_init(), but one query at a time by differences, not by norms. Slower, but its margin does not grow
 * with the distance of the data from the origin: take it when a scan reports more than a few percent of all pairs. */
int npkv_plan_init_narrow(
	struct npkv_plan *p, const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, size_t dim, size_t nq);

void npkv_pack(const struct npkv_plan *p, const void *queries, size_t query_stride, void *pack);
void npkv_work_init(const struct npkv_plan *p, const void *pack, void *work);

/* From now on only rows that score at least as good as `score` are wanted for `query`; rows equal to it only if
 * `ties` (without, they may still be reported). A NaN means that every row is wanted. */
void npkv_limit(const struct npkv_plan *p, const void *pack, void *work, size_t query, double score, bool ties);

/* Looks at rows until they or the room for hits end, and returns how many rows it has dealt with; 0 only if nrows
 * is 0 or cap < hits_min. nrows is taken as at most 2^32 - 1. */
size_t npkv_scan(const struct npkv_plan *p, const void *pack, void *work, const void *rows, size_t stride, size_t nrows,
	struct npkv_hit *hits, size_t cap, size_t *nhits);

#endif
