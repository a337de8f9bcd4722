/* check_convert.c - the small kernels: conversions and comparisons exactly as the scalar ones, logs against libm,
 * CRC32C against its published value and the scalar table.  */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern.h"

static void check_halves(const struct k_level *l)
{
	for (unsigned first = 0; first < 65536; first += 37 * k_share) {
		size_t n = 65536 - first < 37 ? 65536 - first : 37;
		uint16_t *h = k_guarded(0, 2 * n);
		float out[37];

		for (size_t i = 0; i < n; i++)
			h[i] = (uint16_t)(first + i);
		l->ops.f16_to_f32(h, n, out);
		for (size_t i = 0; i < n; i++) {
			float want = (float)k_get(NPKV_F16, h, i);

			if (isnan(want) ? !isnan(out[i]) : memcmp(&out[i], &want, sizeof(want)) != 0)
				k_fail("%s f16 %04x: %g, want %g", l->name, h[i], (double)out[i], (double)want);
		}
	}
}

static void check_narrowing(const struct k_level *l, const struct npkv_ops *scalar)
{
	uint64_t rng = 4;

	for (size_t n = 0; n < 70; n++) {
		char *d = k_guarded(0, 8 * n);
		float got[70], want[70];

		k_fill(NPKV_F64, n % 2 ? K_SPECIAL : K_HUGE, &rng, n, d);
		l->ops.f64_to_f32(d, n, got);
		scalar->f64_to_f32(d, n, want);
		for (size_t i = 0; i < n; i++)
			if (isnan(want[i]) ? !isnan(got[i]) : memcmp(&got[i], &want[i], sizeof(float)) != 0)
				k_fail("%s f64 %.17g: %g, want %g", l->name, k_get(NPKV_F64, d, i), (double)got[i],
					(double)want[i]);
	}
}

static void log_of(const struct k_level *l, float x)
{
	float v[64];
	double want = log(x < FLT_MIN ? (double)FLT_MIN : (double)x);

	l->ops.log_f32(&x, 1, v);
	if (isnan(x)                ? !isnan(v[0])
		: x < 0 || isinf(x) ? !isinf(v[0])
				    : !(fabs((double)v[0] - want) <= 0x1p-21 * fmax(1, fabs(want))))
		k_fail("%s log %a: %.9g, want %.9g", l->name, (double)x, (double)v[0], want);
}

static void check_logs(const struct k_level *l)
{
	static const float edges[] = {0, -0.0f, 1, FLT_MIN, FLT_MAX, 1e-45f, INFINITY, -INFINITY, NAN, -1, -1e-45f,
		0x1.fffffep-1f, 0x1.000002p0f, 0x1.6a09e6p-1f, 0x1.6a09e8p-1f};
	uint64_t rng = 5;

	for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
		log_of(l, edges[i]);
	for (unsigned i = 0; i < 100000 / k_share; i++) {
		uint32_t bits = (uint32_t)k_rand(&rng) & 0x7fffffff;
		float x;

		memcpy(&x, &bits, sizeof(x));
		log_of(l, x);
	}
}

static void check_entropy(const struct k_level *l)
{
	uint64_t rng = 6;

	for (size_t n = 0; n < 261; n++) {
		float *x = k_guarded(0, 4 * n), out[3];
		double s = 0, a = 0, sum = 0, bound = ((double)n + 20) * 0x1p-23;

		k_fill(NPKV_F32, K_PROBABILITIES, &rng, n, x);
		for (size_t i = 0; i < n; i++) {
			double v = k_get(NPKV_F32, x, i);

			s += v > 0 ? v * log(v) : 0;
			a += v > 0 ? fabs(v * log(v)) : 0;
			sum += v;
		}
		l->ops.entropy(x, n, out);
		bound *= a + 2 * sum;
		if (!(fabs((double)out[0] - s) <= bound) || !(fabs((double)out[1] - a) <= bound) ||
			!(fabs((double)out[2] - sum) <= bound))
			k_fail("%s entropy n %zu: %g %g %g, want %g %g %g", l->name, n, (double)out[0], (double)out[1],
				(double)out[2], s, a, sum);
		if (n == 0)
			continue;
		x[n / 2] = n % 3 == 0 ? -1.0f : n % 3 == 1 ? INFINITY : NAN;
		l->ops.entropy(x, n, out);
		if (isfinite(out[0]) && isfinite(out[2]))
			k_fail("%s entropy n %zu of %g is finite", l->name, n, (double)x[n / 2]);
	}
}

static void check_norms(const struct k_level *l, const struct npkv_ops *scalar)
{
	uint64_t rng = 7;

	for (size_t n = 0; n < 70; n++) {
		float *xx = k_guarded(0, 4 * n), got[70], want[70];
		bool root = n % 2;
		float lo = root ? 0.0f : -0.5f;

		k_fill(NPKV_F32, n % 3 ? K_SPECIAL : K_SMALL_INTS, &rng, n, xx);
		if (l->ops.norms(xx, n, lo, 0.75f, root, got) != scalar->norms(xx, n, lo, 0.75f, root, want))
			k_fail("%s norms n %zu: another count", l->name, n);
		for (size_t i = 0; i < n; i++)
			if (isnan(want[i]) ? !isnan(got[i]) : got[i] != want[i])
				k_fail("%s norm of %g: %g, want %g", l->name, (double)xx[i], (double)got[i],
					(double)want[i]);
	}
}

static bool same_hits(
	const struct npkv_hit *a, const struct npkv_hit *a_end, const struct npkv_hit *b, const struct npkv_hit *b_end)
{
	if (a_end - a != b_end - b)
		return false;
	for (; a < a_end; a++, b++)
		if (a->row != b->row || a->query != b->query)
			return false;
	return true;
}

/* Small whole numbers: every product is exact, so that fused and separate rounding agree. */
static void check_sifts(const struct k_level *l, const struct npkv_ops *scalar)
{
	enum {
		ROWS = 14,
		WIDTH = 64
	};
	static float c[ROWS * WIDTH], nx[WIDTH], u[WIDTH], w[WIDTH];
	static struct npkv_hit got[ROWS * WIDTH], want[ROWS * WIDTH];
	uint64_t rng = 8;

	for (size_t n = 0; n <= WIDTH; n++) {
		struct npkv_hit base = {1000, 77};
		struct npkv_hit *a, *b;

		k_fill(NPKV_F32, K_SMALL_INTS, &rng, ROWS * WIDTH, c);
		k_fill(NPKV_F32, K_SMALL_INTS, &rng, WIDTH, nx);
		k_fill(NPKV_F32, K_SMALL_INTS, &rng, WIDTH, u);
		k_fill(NPKV_F32, K_SMALL_INTS, &rng, WIDTH, w);
		nx[n % WIDTH] = NAN;
		w[n / 2] = n % 2 ? INFINITY : -INFINITY;
		a = l->ops.sift_rows(c, nx, n, u[0], w[0], base, got);
		b = scalar->sift_rows(c, nx, n, u[0], w[0], base, want);
		if (!same_hits(got, a, want, b))
			k_fail("%s sift_rows n %zu differs", l->name, n);
		a = l->ops.sift_tile(c, nx, ROWS, WIDTH, n, u, w, base, got);
		b = scalar->sift_tile(c, nx, ROWS, WIDTH, n, u, w, base, want);
		if (!same_hits(got, a, want, b))
			k_fail("%s sift_tile n %zu differs", l->name, n);
	}
}

typedef uint32_t crc_fn(uint32_t crc, const void *buf, size_t len);

static void check_crc(const char *level, const char *name, crc_fn *crc, crc_fn *scalar, uint32_t check)
{
	static const size_t large[] = {511, 1535, 1536, 1537, 12287, 12288, 12289, 13824, 40000, 100003};
	uint64_t rng = 9;

	if (crc(0, "123456789", 9) != check)
		k_fail("%s %s of the check string is %08x", level, name, crc(0, "123456789", 9));
	for (size_t i = 0; i < 300 + 10; i++) {
		size_t n = i < 300 ? i : large[i - 300], cut = n ? k_rand(&rng) % n : 0;
		char *p = k_guarded(0, n);
		uint32_t want, whole, parts;

		k_fill(NPKV_U8, K_PLAIN, &rng, n, p);
		want = scalar(5, p, n);
		whole = crc(5, p, n);
		parts = crc(crc(5, p, cut), p + cut, n - cut);
		if (whole != want || parts != want)
			k_fail("%s %s of %zu bytes: %08x, cut at %zu: %08x, want %08x", level, name, n, whole, cut,
				parts, want);
	}
}

void check_convert(const struct k_level *l)
{
	struct npkv_ops scalar;

	npkv_init(&scalar, 0);
	check_halves(l);
	check_narrowing(l, &scalar);
	check_logs(l);
	check_entropy(l);
	check_norms(l, &scalar);
	check_sifts(l, &scalar);
	check_crc(l->name, "crc32c", l->ops.crc32c, scalar.crc32c, 0xe3069283);
	check_crc(l->name, "crc32", l->ops.crc32, scalar.crc32, 0xcbf43926);
}
