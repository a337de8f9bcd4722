/* scalar.c - every kernel in plain C: the oracle of the tests, and the level of CPUs without any of the others.
 * Built with -fno-tree-vectorize -ffp-contract=off.  */
#include <float.h>

#include "level.h"

static float half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff, bits;
	float v;

	if (mag >= 0x7c00) {
		bits = sign | 0x7f800000 | (mag & 0x3ff) << 13;
	} else if (mag >= 0x400) {
		bits = sign | ((mag << 13) + 0x38000000);
	} else {
		v = (float)mag * 0x1p-24f;
		memcpy(&bits, &v, sizeof(bits));
		bits |= sign;
	}
	memcpy(&v, &bits, sizeof(v));
	return v;
}

static void f16_to_f32(const void *src, size_t n, float *dst)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t h;

		memcpy(&h, (const char *)src + 2 * i, sizeof(h));
		dst[i] = half_to_float(h);
	}
}

static double load_f64(const char *p)
{
	double v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* A double beyond float's range becomes infinite, as the conversion instructions have it. */
static float narrow(double v)
{
	if (fabs(v) > (double)FLT_MAX)
		return v < 0 ? -INFINITY : INFINITY;
	return (float)v;
}

static void f64_to_f32(const void *src, size_t n, float *dst)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = narrow(load_f64((const char *)src + 8 * i));
}

static float load_f16(const char *p)
{
	float v;

	f16_to_f32(p, 1, &v);
	return v;
}

#define ONE_FLOAT(name, T, bytes, load)                                                                                \
	static void dot_##name(                                                                                        \
		const void *qv, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx)        \
	{                                                                                                              \
		const T *q = qv;                                                                                       \
		for (size_t i = 0; i < nrows; i++) {                                                                   \
			const char *x = row_at(rows, stride, i, nrows);                                                \
			T s = 0, n = 0;                                                                                \
			for (size_t k = 0; k < dim; k++) {                                                             \
				s += q[k] * (T)load(x + k * (bytes));                                                  \
				n += (T)load(x + k * (bytes)) * (T)load(x + k * (bytes));                              \
			}                                                                                              \
			c[i] = narrow((double)s);                                                                      \
			xx[i] = narrow((double)n);                                                                     \
		}                                                                                                      \
	}                                                                                                              \
	static void l2_##name(                                                                                         \
		const void *qv, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx)        \
	{                                                                                                              \
		const T *q = qv;                                                                                       \
		for (size_t i = 0; i < nrows; i++) {                                                                   \
			const char *x = row_at(rows, stride, i, nrows);                                                \
			T s = 0;                                                                                       \
			for (size_t k = 0; k < dim; k++) {                                                             \
				T d = (T)load(x + k * (bytes)) - q[k];                                                 \
				s += d * d;                                                                            \
			}                                                                                              \
			xx[i] = narrow((double)s);                                                                     \
			c[i] = -xx[i];                                                                                 \
		}                                                                                                      \
	}
ONE_FLOAT(f16, float, 2, load_f16)
ONE_FLOAT(f32, float, 4, load_f32)
ONE_FLOAT(f64, double, 8, load_f64)

#define ONE_INT(name, T)                                                                                               \
	static void dot_##name(                                                                                        \
		const void *qv, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx)        \
	{                                                                                                              \
		const int16_t *q = qv;                                                                                 \
		for (size_t i = 0; i < nrows; i++) {                                                                   \
			const T *x = (const T *)row_at(rows, stride, i, nrows);                                        \
			int32_t s = 0, n = 0;                                                                          \
			for (size_t k = 0; k < dim; k++) {                                                             \
				s += q[k] * x[k];                                                                      \
				n += x[k] * x[k];                                                                      \
			}                                                                                              \
			c[i] = (float)s;                                                                               \
			xx[i] = (float)n;                                                                              \
		}                                                                                                      \
	}
ONE_INT(i8, int8_t)
ONE_INT(u8, uint8_t)

static unsigned popcount8(uint8_t b)
{
	unsigned v = b - (b >> 1 & 0x55u);

	v = (v & 0x33) + (v >> 2 & 0x33);
	return (v + (v >> 4)) & 0x0f;
}

static void and_bits(const void *qv, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx)
{
	const uint8_t *q = qv;

	for (size_t i = 0; i < nrows; i++) {
		const uint8_t *x = (const uint8_t *)row_at(rows, stride, i, nrows);
		uint32_t s = 0, n = 0;

		for (size_t k = 0; k < dim; k++) {
			s += popcount8(q[k] & x[k]);
			n += popcount8(x[k]);
		}
		c[i] = (float)s;
		xx[i] = (float)n;
	}
}

static void xor_bits(const void *qv, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx)
{
	const uint8_t *q = qv;

	for (size_t i = 0; i < nrows; i++) {
		const uint8_t *x = (const uint8_t *)row_at(rows, stride, i, nrows);
		uint32_t s = 0;

		for (size_t k = 0; k < dim; k++)
			s += popcount8(q[k] ^ x[k]);
		c[i] = -(float)s;
		xx[i] = (float)s;
	}
}

static void js(const void *qv, const void *rows, size_t stride, size_t nrows, size_t dim, float *c, float *xx)
{
	const float *q = qv;

	(void)xx;
	for (size_t i = 0; i < nrows; i++) {
		const char *x = row_at(rows, stride, i, nrows);
		float s = 0;

		for (size_t k = 0; k < dim; k++) {
			float t = q[k] + load_f32(x + 4 * k);

			s += t * logf(t > FLT_MIN ? t : FLT_MIN);
		}
		c[i] = s;
	}
}

enum {
	ROWS = 4,
	WIDE = 8
};

#define TILE(name, width, A, T, per, bytes, term)                                                                      \
	static void tile_##name##_##width(const void *qtile, const void *rows, size_t stride, size_t nsteps, float *c, \
		const char *ahead, size_t pace)                                                                        \
	{                                                                                                              \
		(void)ahead;                                                                                           \
		(void)pace;                                                                                            \
		const char *q = qtile;                                                                                 \
		for (size_t r = 0; r < ROWS; r++) {                                                                    \
			const char *x = (const char *)rows + r * stride;                                               \
			A acc[width];                                                                                  \
			for (size_t j = 0; j < width; j++)                                                             \
				memcpy(&acc[j], q + (bytes)*j, sizeof(acc[j]));                                        \
			for (size_t k = 0; k < nsteps; k++) {                                                          \
				const char *lane = q + (k + 1) * (width) * (bytes);                                    \
				T a[per], b[per];                                                                      \
				memcpy(a, x + (bytes)*k, sizeof(a));                                                   \
				for (size_t j = 0; j < width; j++) {                                                   \
					memcpy(b, lane + (bytes)*j, sizeof(b));                                        \
					for (size_t i = 0; i < (per); i++)                                             \
						acc[j] += term;                                                        \
				}                                                                                      \
			}                                                                                              \
			for (size_t j = 0; j < width; j++)                                                             \
				c[r * (width) + j] = (float)acc[j];                                                    \
		}                                                                                                      \
	}
TILE(f32, WIDE, float, float, 1, 4, a[i] * b[i])
TILE(pairs, WIDE, int32_t, int16_t, 2, 4, a[i] * b[i])
TILE(bits, WIDE, uint32_t, uint8_t, 8, 8, popcount8(a[i] & b[i]))

static void lift_i8(const void *src, size_t n, void *dst)
{
	const int8_t *x = src;
	int16_t *to = dst;

	for (size_t i = 0; i < n; i++)
		to[i] = x[i];
	if (n % 2)
		to[n] = 0;
}

static void lift_u8(const void *src, size_t n, void *dst)
{
	const uint8_t *x = src;
	int16_t *to = dst;

	for (size_t i = 0; i < n; i++)
		to[i] = x[i];
	if (n % 2)
		to[n] = 0;
}

static void log_f32(const void *src, size_t n, float *to)
{
	for (size_t i = 0; i < n; i++) {
		float x = load_f32((const char *)src + 4 * i);

		to[i] = x < 0 || x > FLT_MAX ? x * INFINITY : x < FLT_MIN ? logf(FLT_MIN) : logf(x);
	}
}

static void entropy(const float *x, size_t n, float out[3])
{
	float s = 0, a = 0, sum = 0;

	for (size_t i = 0; i < n; i++) {
		float t = x[i] * logf(x[i] < 0 ? (float)NAN : x[i] < FLT_MIN ? FLT_MIN : x[i]);

		s += t;
		a += fabsf(t);
		sum += x[i];
	}
	out[0] = s;
	out[1] = a;
	out[2] = sum;
}

static size_t norms(const float *xx, size_t n, float lo, float hi, bool root, float *nx)
{
	size_t strange = 0;

	for (size_t i = 0; i < n; i++) {
		bool in = xx[i] >= lo && xx[i] <= hi;

		nx[i] = in ? root ? sqrtf(xx[i]) : xx[i] : (float)NAN;
		strange += !in;
	}
	return strange;
}

static struct npkv_hit *sift_rows(
	const float *c, const float *nx, size_t n, float u, float w, struct npkv_hit base, struct npkv_hit *out)
{
	for (size_t i = 0; i < n; i++)
		if (nx[i] * u - c[i] <= w)
			*out++ = (struct npkv_hit){base.row + (uint32_t)i, base.query};
	return out;
}

static struct npkv_hit *sift_tile(const float *c, const float *nx, size_t nrows, size_t width, size_t lanes,
	const float *u, const float *w, struct npkv_hit base, struct npkv_hit *out)
{
	for (size_t r = 0; r < nrows; r++)
		for (size_t i = 0; i < lanes; i++)
			if (nx[r] * u[i] - c[r * width + i] <= w[i])
				*out++ = (struct npkv_hit){base.row + (uint32_t)r, base.query + (uint32_t)i};
	return out;
}

/* Four bits at a time: 64 bytes of table, and a journal on a CPU without the instruction is rare. */
static uint32_t crc_by(const uint32_t table[16], uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

static uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	static const uint32_t table[16] = {
		0x00000000,
		0x105ec76f,
		0x20bd8ede,
		0x30e349b1,
		0x417b1dbc,
		0x5125dad3,
		0x61c69362,
		0x7198540d,
		0x82f63b78,
		0x92a8fc17,
		0xa24bb5a6,
		0xb21572c9,
		0xc38d26c4,
		0xd3d3e1ab,
		0xe330a81a,
		0xf36e6f75,
	};

	return crc_by(table, crc, buf, len);
}

static uint32_t crc32(uint32_t crc, const void *buf, size_t len)
{
	static const uint32_t table[16] = {
		0x00000000,
		0x1db71064,
		0x3b6e20c8,
		0x26d930ac,
		0x76dc4190,
		0x6b6b51f4,
		0x4db26158,
		0x5005713c,
		0xedb88320,
		0xf00f9344,
		0xd6d6a3e8,
		0xcb61b38c,
		0x9b64c2b0,
		0x86d3d2d4,
		0xa00ae278,
		0xbdbdf21c,
	};

	return crc_by(table, crc, buf, len);
}

const struct npkv_ops npkv_scalar = {
	.dot = {dot_f16, dot_f32, dot_f64, dot_i8, dot_u8, dot_u8},
	.l2 = {l2_f16, l2_f32, l2_f64, NULL, NULL, NULL},
	.and_bits = and_bits,
	.xor_bits = xor_bits,
	.js = js,
	.tile_f32 = {{tile_f32_WIDE, ROWS, WIDE}},
	.tile_i8 = {{tile_pairs_WIDE, ROWS, WIDE}},
	.tile_u8 = {{tile_pairs_WIDE, ROWS, WIDE}},
	.tile_bits = {{tile_bits_WIDE, ROWS, WIDE}},
	.int_form = NPKV_PAIR16,
	.f16_to_f32 = f16_to_f32,
	.f64_to_f32 = f64_to_f32,
	.lift_i8 = lift_i8,
	.lift_u8 = lift_u8,
	.log_f32 = log_f32,
	.entropy = entropy,
	.norms = norms,
	.sift_rows = sift_rows,
	.sift_tile = sift_tile,
	.crc32c = crc32c,
	.crc32 = crc32,
};
