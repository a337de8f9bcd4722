/* exact.c - npkv_pair(): the score that every level agrees on. Plain double arithmetic in a fixed order: sixteen
 * lanes inside a block of 1024 elements, the blocks added with compensation. So a sum of n terms is off by at most
 * some 70 * 2^-53 of the sum of absolute terms, whatever n is. Built with -ffp-contract=off.  */
#include <float.h>
#include <math.h>
#include <string.h>

#include "npkv.h"

enum {
	LANES = 16,
	BLOCK = 1024
};

struct sum { /* Neumaier's compensated sum */
	double hi, lo;
};

struct moments {
	struct sum qx, qq, xx, dd;
};

static void add(struct sum *s, double v)
{
	double t = s->hi + v;

	s->lo += fabs(s->hi) >= fabs(v) ? (s->hi - t) + v : (v - t) + s->hi;
	s->hi = t;
}

static double total(const struct sum *s)
{
	return isfinite(s->hi) ? s->hi + s->lo : s->hi;
}

static double fold(const double *lane)
{
	double s[8];

	for (int i = 0; i < 8; i++)
		s[i] = lane[i] + lane[i + 8];
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* The sum of TERM over a block of stored values; a float becomes a double exactly. */
#define BLOCK_SUM(NAME, TYPE, TERM)                                                                                    \
	static void NAME(const TYPE *q, const TYPE *x, size_t n, struct sum *to)                                       \
	{                                                                                                              \
		double lane[LANES] = {0};                                                                              \
		size_t k = 0;                                                                                          \
                                                                                                                       \
		for (; k + LANES <= n; k += LANES)                                                                     \
			for (size_t i = 0; i < LANES; i++)                                                             \
				lane[i] += TERM((double)q[k + i], (double)x[k + i]);                                   \
		for (; k < n; k++)                                                                                     \
			lane[k % LANES] += TERM((double)q[k], (double)x[k]);                                           \
		add(to, fold(lane));                                                                                   \
	}
#define PRODUCT(a, b) ((a) * (b))
#define SQUARE(a, b) (((a) - (b)) * ((a) - (b)))
BLOCK_SUM(dot_f32, float, PRODUCT)
BLOCK_SUM(dot_f64, double, PRODUCT)
BLOCK_SUM(diff_f32, float, SQUARE)
BLOCK_SUM(diff_f64, double, SQUARE)

/* log a - log b of close numbers, where the difference of two logs would keep no digit. */
static double log_ratio(double a, double b)
{
	double d = (a - b) / b, r = a / b;

	if (fabs(d) < 0.5)
		return log1p(d);
	return r >= DBL_MIN && r <= DBL_MAX ? log(r) : log(a) - log(b);
}

static double kl_term(double q, double x)
{
	if (q < 0 || x < 0)
		return (double)NAN;
	if (q == 0)
		return x != x ? x : 0;
	return x == 0 ? (double)INFINITY : q * log_ratio(q, x);
}

static double js_term(double q, double x)
{
	double m = q / 2 + x / 2;

	if (q < 0 || x < 0 || q != q || x != x)
		return (double)NAN;
	return (q > 0 ? q * log_ratio(q, m) : 0) + (x > 0 ? x * log_ratio(x, m) : 0);
}

/* log(a / b) for a and b in [2^-500, 2^500], in steps that a compiler can take for several pairs at once. With n the
 * difference of their binary logarithms, rounded after the fractions as they stand in the mantissas, a / 2^n / b is
 * within 2^+-0.59, so s below is within +-0.201 and the series of 2 atanh(s) ends after s^21. */
static inline double quick_log_ratio(double a, double b)
{
	const double ln2_hi = 0x1.62e42fefa38p-1, ln2_lo = 0x1.ef35793c7673p-45; /* n ln2_hi is exact */
	uint64_t abits, bbits, biased, bits;
	double n, scale, s, z, p;

	memcpy(&abits, &a, sizeof(a));
	memcpy(&bbits, &b, sizeof(b));
	biased = (abits - bbits + 0x4008000000000000u) >> 52; /* n + 1024 */
	bits = biased | 0x4330000000000000u;
	memcpy(&n, &bits, sizeof(n));
	n -= 0x1p52 + 1024;
	bits = (2047 - biased) << 52;
	memcpy(&scale, &bits, sizeof(scale));
	a *= scale;
	s = (a - b) / (a + b);
	z = s * s;
	p = 2.0 / 19 + z * (2.0 / 21);
	p = 2.0 / 17 + z * p;
	p = 2.0 / 15 + z * p;
	p = 2.0 / 13 + z * p;
	p = 2.0 / 11 + z * p;
	p = 2.0 / 9 + z * p;
	p = 2.0 / 7 + z * p;
	p = 2.0 / 5 + z * p;
	p = 2.0 / 3 + z * p;
	return n * ln2_hi + (2 * s + (s * z * p + n * ln2_lo));
}

/* Whether all values are +0 or in [2^-500, 2^500]; for kl also that no q > 0 stands over x = 0. Each condition is the top
 * bit of a difference of the values' bits. */
static bool are_plain(bool kl, const double *q, const double *x, size_t n)
{
	const uint64_t small = (uint64_t)(1023 - 500) << 52, large = (uint64_t)(1023 + 500) << 52,
		       kl_only = -(uint64_t)kl;
	uint64_t odd = 0;

	for (size_t k = 0; k < n; k++) {
		uint64_t a, b;

		memcpy(&a, q + k, sizeof(a));
		memcpy(&b, x + k, sizeof(b));
		odd |= ((a - small) | (large - a)) & (a | -a); /* the last is 0 for 0 only */
		odd |= ((b - small) | (large - b)) & (b | -b);
		odd |= (a | -a) & ~(b | -b) & kl_only;
	}
	return odd >> 63 == 0;
}

/* The same terms; a zero's logarithm is taken of 1 instead. */
static void quick_kl(const double *q, const double *x, size_t n, double *terms)
{
	for (size_t k = 0; k < n; k++) {
		double a = q[k], b = x[k];

		terms[k] = a * quick_log_ratio(a > 0 ? a : 1, a > 0 ? b : 1);
	}
}

static void quick_js(const double *q, const double *x, size_t n, double *terms)
{
	for (size_t k = 0; k < n; k++) {
		double a = q[k], b = x[k], m = a / 2 + b / 2, some = m > 0 ? m : 1;

		terms[k] = a * quick_log_ratio(a > 0 ? a : some, some) + b * quick_log_ratio(b > 0 ? b : some, some);
	}
}

static void block_terms(bool kl, const double *q, const double *x, size_t n, struct sum *to)
{
	double lane[LANES] = {0}, terms[BLOCK];

	if (!are_plain(kl, q, x, n))
		for (size_t k = 0; k < n; k++)
			terms[k] = kl ? kl_term(q[k], x[k]) : js_term(q[k], x[k]);
	else
		(kl ? quick_kl : quick_js)(q, x, n, terms);
	for (size_t k = 0; k < n; k++)
		lane[k % LANES] += terms[k];
	add(to, fold(lane));
}

static double cosine(double qx, double qq, double xx)
{
	double c, p = qq * xx;

	if (qq == 0 || xx == 0)
		return 0;
	c = p > 1e-280 && p < 1e300 ? qx / sqrt(p) : qx / (sqrt(qq) * sqrt(xx)); /* the first: 1 of itself */
	return c > 1 ? 1 : c < -1 ? -1 : c;
}

static void sums_f64(enum npkv_metric m, const double *q, const double *x, size_t n, struct moments *s)
{
	if (m <= NPKV_INNER)
		dot_f64(q, x, n, &s->qx);
	if (m == NPKV_COSINE) {
		dot_f64(q, q, n, &s->qq);
		dot_f64(x, x, n, &s->xx);
	}
	if (m == NPKV_L2 || m == NPKV_L2SQ)
		diff_f64(q, x, n, &s->dd);
	if (m == NPKV_KL || m == NPKV_JS)
		block_terms(m == NPKV_KL, q, x, n, &s->dd);
}

static void sums_f32(enum npkv_metric m, const float *q, const float *x, size_t n, struct moments *s)
{
	double a[BLOCK], b[BLOCK];

	if (m <= NPKV_INNER)
		dot_f32(q, x, n, &s->qx);
	if (m == NPKV_COSINE) {
		dot_f32(q, q, n, &s->qq);
		dot_f32(x, x, n, &s->xx);
	}
	if (m == NPKV_L2 || m == NPKV_L2SQ)
		diff_f32(q, x, n, &s->dd);
	if (m == NPKV_KL || m == NPKV_JS) {
		for (size_t k = 0; k < n; k++) {
			a[k] = (double)q[k];
			b[k] = (double)x[k];
		}
		block_terms(m == NPKV_KL, a, b, n, &s->dd);
	}
}

static double pair_float(
	const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, const char *q, const char *x, size_t dim)
{
	struct moments s = {0};
	size_t width = npkv_dtype_bytes(t);

	for (size_t k = 0; k < dim; k += BLOCK) {
		size_t n = dim - k < BLOCK ? dim - k : BLOCK;
		double a[BLOCK], b[BLOCK];
		float f[BLOCK], g[BLOCK];

		if (t == NPKV_F64) {
			memcpy(a, q + k * width, n * width);
			memcpy(b, x + k * width, n * width);
			sums_f64(m, a, b, n, &s);
			continue;
		}
		if (t == NPKV_F16) {
			o->f16_to_f32(q + k * width, n, f);
			o->f16_to_f32(x + k * width, n, g);
		} else {
			memcpy(f, q + k * width, n * width);
			memcpy(g, x + k * width, n * width);
		}
		sums_f32(m, f, g, n, &s);
	}
	switch (m) {
	case NPKV_COSINE:
		return cosine(total(&s.qx), total(&s.qq), total(&s.xx));
	case NPKV_L2:
		return sqrt(total(&s.dd));
	case NPKV_L2SQ:
	case NPKV_KL:
		return total(&s.dd);
	case NPKV_JS:
		return total(&s.dd) < 0 ? 0 : sqrt(total(&s.dd) / 2);
	default:
		return total(&s.qx);
	}
}

static double pair_int(enum npkv_metric m, bool is_signed, const void *qv, const void *xv, size_t dim)
{
	const uint8_t *q = qv, *x = xv;
	int64_t qx = 0, qq = 0, xx = 0, dd;

	for (size_t k = 0; k < dim;) {
		size_t end = dim - k < BLOCK ? dim : k + BLOCK;
		int32_t a = 0, b = 0, c = 0;

		for (; k < end; k++) {
			int32_t y = is_signed ? (int8_t)q[k] : q[k], z = is_signed ? (int8_t)x[k] : x[k];

			a += y * z;
			b += y * y;
			c += z * z;
		}
		qx += a;
		qq += b;
		xx += c;
	}
	dd = qq + xx - 2 * qx;
	switch (m) {
	case NPKV_COSINE:
		return cosine((double)qx, (double)qq, (double)xx);
	case NPKV_L2:
		return sqrt((double)dd);
	case NPKV_L2SQ:
	case NPKV_HAMMING:
		return (double)dd;
	case NPKV_JACCARD:
		return qq + xx == 0 ? 0 : 1 - (double)qx / (double)(qq + xx - qx);
	default:
		return (double)qx;
	}
}

static unsigned popcount64(uint64_t v)
{
	v -= v >> 1 & 0x5555555555555555u;
	v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
	return (unsigned)(v * 0x0101010101010101u >> 56);
}

static double pair_bits(enum npkv_metric m, const char *q, const char *x, size_t dim)
{
	uint64_t both = 0, either = 0;

	for (size_t k = 0; k < dim; k += 8) {
		size_t n = dim - k < 8 ? dim - k : 8;
		uint64_t a = 0, b = 0;

		memcpy(&a, q + k, n);
		memcpy(&b, x + k, n);
		both += popcount64(a & b);
		either += popcount64(a | b);
	}
	if (m == NPKV_HAMMING)
		return (double)(either - both);
	return either == 0 ? 0 : 1 - (double)both / (double)either;
}

double npkv_pair(
	const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, const void *q, const void *x, size_t dim)
{
	if (!npkv_supported(m, t))
		return (double)NAN;
	if (t <= NPKV_F64)
		return pair_float(o, m, t, q, x, dim);
	if (t == NPKV_U8 && (m == NPKV_HAMMING || m == NPKV_JACCARD))
		return pair_bits(m, q, x, dim);
	return pair_int(m, t == NPKV_I8, q, x, dim);
}
