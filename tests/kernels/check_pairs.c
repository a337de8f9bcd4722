/* check_pairs.c - npkv_pair(): the contract's special cases, 1e-13 of the sum of absolute terms in long double, and
 * the same bits on every level. Plans: what is refused, and that sizes are whole.  */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern.h"

static void expect(const struct k_level *l, const char *what, double got, double want)
{
	if (isnan(want) ? !isnan(got) : got != want)
		k_fail("%s: %s is %.17g, want %.17g", l->name, what, got, want);
}

static void check_cases(const struct k_level *l)
{
	const float zero[2] = {0, 0}, ones[2] = {1, 1}, p[2] = {0.25f, 0.75f}, e0[2] = {1, 0}, e1[2] = {0, 1};
	const float negative[2] = {-1, 1}, nan[2] = {NAN, 1};
	const uint8_t none[3] = {0}, some[3] = {0xf0, 0x01, 0x80}, other[3] = {0x30, 0x00, 0x80};
	const struct npkv_ops *o = &l->ops;

#define F32(m, q, x) npkv_pair(o, m, NPKV_F32, q, x, 2)
#define BITS(m, q, x) npkv_pair(o, m, NPKV_U8, q, x, 3)
	expect(l, "cosine with zero", F32(NPKV_COSINE, ones, zero), 0);
	expect(l, "cosine of zeros", F32(NPKV_COSINE, zero, zero), 0);
	expect(l, "cosine with itself", F32(NPKV_COSINE, p, p), 1);
	expect(l, "l2sq with itself", F32(NPKV_L2SQ, p, p), 0);
	expect(l, "l2sq", F32(NPKV_L2SQ, ones, zero), 2);
	expect(l, "l2", F32(NPKV_L2, e0, zero), 1);
	expect(l, "dot", F32(NPKV_DOT, p, ones), 1);
	expect(l, "dot with NaN", F32(NPKV_DOT, p, nan), (double)NAN);
	expect(l, "kl with itself", F32(NPKV_KL, p, p), 0);
	expect(l, "kl over 0", F32(NPKV_KL, ones, e0), (double)INFINITY);
	expect(l, "kl, 0 log 0", F32(NPKV_KL, e0, ones), 0);
	expect(l, "kl, 0 over 0", F32(NPKV_KL, e0, e0), 0);
	expect(l, "kl, negative row", F32(NPKV_KL, e0, negative), (double)NAN);
	expect(l, "kl, negative query", F32(NPKV_KL, negative, e0), (double)NAN);
	expect(l, "js with itself", F32(NPKV_JS, p, p), 0);
	expect(l, "js of disjoint", F32(NPKV_JS, e0, e1), sqrt(log(2.0)));
	expect(l, "js, negative", F32(NPKV_JS, negative, e0), (double)NAN);
	expect(l, "hamming", BITS(NPKV_HAMMING, some, other), 3);
	expect(l, "jaccard", BITS(NPKV_JACCARD, some, other), 0.5);
	expect(l, "jaccard of empty sets", BITS(NPKV_JACCARD, none, none), 0);
	expect(l, "jaccard with the empty set", BITS(NPKV_JACCARD, none, some), 1);
	expect(l, "an unsupported pair", npkv_pair(o, NPKV_KL, NPKV_I8, some, other, 3), (double)NAN);
#undef F32
#undef BITS
}

/* {.2,.8} against {.5,.5}: the value that a three-term series gets wrong (0.2232). */
static void check_known_kl(const struct k_level *l)
{
	const double q[2] = {0.2, 0.8}, x[2] = {0.5, 0.5};
	double kl = npkv_pair(&l->ops, NPKV_KL, NPKV_F64, q, x, 2);

	if (!(fabs(kl - 0.19274475702175742) < 1e-15))
		k_fail("%s: kl is %.17g", l->name, kl);
}

/* q log(q/x) alone, over all sizes of q and x and for neighbours, where log(q) - log(x) would keep no digit. */
static void check_ratios(const struct k_level *l, uint64_t *rng)
{
	for (unsigned i = 0; i < 20000 / k_share; i++) {
		int most = i % 3 == 0 ? 1000 : i % 3 == 1 ? 490 : 3;
		double q = ldexp(1 + (double)(k_rand(rng) >> 12) * 0x1p-52, (int)(k_rand(rng) % (2 * most)) - most);
		double x = ldexp(1 + (double)(k_rand(rng) >> 12) * 0x1p-52, (int)(k_rand(rng) % (2 * most)) - most);
		long double d, want;
		double got;

		if (i % 5 == 0)
			x = q * (1 + ldexp(1, -(int)(k_rand(rng) % 53)));
		got = npkv_pair(&l->ops, NPKV_KL, NPKV_F64, &q, &x, 1);
		d = ((long double)q - (long double)x) / (long double)x;
		want = (long double)q * (fabsl(d) < 0.5L ? log1pl(d) : logl((long double)q / (long double)x));
		if (!(fabsl((long double)got - want) <= 0x1p-51L * fabsl(want) + 0x1p-1073L))
			k_fail("%s: %a log(%a / %a) is %.17g, want %.20Lg", l->name, q, q, x, got, want);
	}
}

struct sums {
	long double dot, abs_dot, qq, xx, dd, kl, abs_kl, js;
};

static struct sums reference(enum npkv_dtype t, const void *q, const void *x, size_t dim)
{
	struct sums s = {0};

	for (size_t k = 0; k < dim; k++) {
		long double a = (long double)k_get(t, q, k), b = (long double)k_get(t, x, k), m = (a + b) / 2;

		s.dot += a * b;
		s.abs_dot += fabsl(a * b);
		s.qq += a * a;
		s.xx += b * b;
		s.dd += (a - b) * (a - b);
		if (a > 0 && b > 0) {
			s.kl += a * logl(a / b);
			s.abs_kl += fabsl(a * logl(a / b));
		}
		s.js += (a > 0 ? a * logl(a / m) : 0) + (b > 0 ? b * logl(b / m) : 0);
	}
	return s;
}

static void near(const struct k_level *l, enum npkv_metric m, enum npkv_dtype t, const void *q, const void *x,
	size_t dim, long double want, long double scale)
{
	double got = npkv_pair(&l->ops, m, t, q, x, dim);
	struct npkv_ops scalar;
	double same;

	npkv_init(&scalar, 0);
	same = npkv_pair(&scalar, m, t, q, x, dim);
	if (!(fabsl((long double)got - want) <= 1e-13L * scale) || memcmp(&got, &same, sizeof(got)) != 0)
		k_fail("%s pair metric %d type %d dim %zu: %.17g, scalar %.17g, want %.20Lg", l->name, m, t, dim, got,
			same, want);
}

static void check_values(const struct k_level *l, enum npkv_dtype t, size_t dim, uint64_t *rng)
{
	size_t bytes = dim * npkv_dtype_bytes(t);
	char *q = k_guarded(0, bytes), *x = k_guarded(1, bytes);
	struct sums s;

	k_fill(t, K_PLAIN, rng, dim, q);
	k_fill(t, K_PLAIN, rng, dim, x);
	s = reference(t, q, x, dim);
	near(l, NPKV_DOT, t, q, x, dim, s.dot, s.abs_dot);
	near(l, NPKV_INNER, t, q, x, dim, s.dot, s.abs_dot);
	near(l, NPKV_COSINE, t, q, x, dim, dim ? s.dot / sqrtl(s.qq * s.xx) : 0, 1);
	near(l, NPKV_L2SQ, t, q, x, dim, s.dd, s.dd);
	near(l, NPKV_L2, t, q, x, dim, sqrtl(s.dd), sqrtl(s.dd));
	if (t > NPKV_F64)
		return;
	k_fill(t, K_PROBABILITIES, rng, dim, q);
	for (size_t k = 0; k < dim; k++) /* no zeros in the row: kl stays finite */
		do
			k_fill(t, K_PROBABILITIES, rng, 1, x + k * npkv_dtype_bytes(t));
		while (k_get(t, x, k) == 0);
	s = reference(t, q, x, dim);
	near(l, NPKV_KL, t, q, x, dim, s.kl, s.abs_kl);
	near(l, NPKV_JS, t, q, x, dim, sqrtl(s.js / 2), 100 * sqrtl(s.js / 2));
}

void check_pairs(const struct k_level *l)
{
	uint64_t rng = 10;

	check_cases(l);
	check_known_kl(l);
	check_ratios(l, &rng);
	for (size_t d = 0; d < 261 + 3; d++) {
		static const size_t large[] = {1023, 1025, 30001};

		for (enum npkv_dtype t = NPKV_F16; t < NPKV_BOOL; t++)
			if (k_take())
				check_values(l, t, d < 261 ? d : large[d - 261], &rng);
	}
}

void check_plans(const struct k_level *l)
{
	struct npkv_plan p;

	for (enum npkv_metric m = 0; m < NPKV_METRICS; m++) {
		for (enum npkv_dtype t = 0; t < NPKV_DTYPES; t++) {
			bool ok = npkv_plan_init(&p, &l->ops, m, t, 10, 7) == 0;

			if (ok != npkv_supported(m, t))
				k_fail("%s: a plan for metric %d type %d: %d", l->name, m, t, ok);
			if (ok && (p.hits_min == 0 || p.pack_bytes % 64 || p.work_bytes % 64))
				k_fail("%s: plan sizes %zu %zu", l->name, p.pack_bytes, p.work_bytes);
		}
	}
	if (npkv_plan_init(&p, &l->ops, NPKV_DOT, NPKV_F32, 10, 0) == 0)
		k_fail("%s: a plan without queries", l->name);
	if (npkv_plan_init(&p, &l->ops, NPKV_DOT, NPKV_F32, SIZE_MAX / 8, 1) == 0 ||
		npkv_plan_init(&p, &l->ops, NPKV_DOT, NPKV_F32, (size_t)1 << 40, (size_t)1 << 30) == 0)
		k_fail("%s: a plan beyond memory", l->name);
}
