/* neon.c - the kernels with Advanced SIMD, which every aarch64 CPU has.  */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <float.h>

#include "level.h"

static inline float32x4_t loadn_f32(const void *p, size_t n)
{
	float t[4] = {0};

	memcpy(t, p, 4 * n);
	return vld1q_f32(t);
}

static inline float64x2_t loadn_f64(const void *p, size_t n)
{
	double t[2] = {0};

	memcpy(t, p, 8 * n);
	return vld1q_f64(t);
}

static inline uint8x8_t loadn_bytes(const void *p, size_t n)
{
	uint8_t t[8] = {0};

	memcpy(t, p, n);
	return vld1_u8(t);
}

static inline uint8x16_t loadn_bytes16(const void *p, size_t n)
{
	uint8_t t[16] = {0};

	memcpy(t, p, n);
	return vld1q_u8(t);
}

/* Loads by bytes, since rows lie at any address. */
static inline float32x4_t load_16_f32(const void *p)
{
	return vreinterpretq_f32_u8(vld1q_u8(p));
}

static inline float32x4_t halves(uint8x8_t v)
{
	return vcvt_f32_f16(vreinterpret_f16_u8(v));
}

static inline void fold4_f32(float *out, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
{
	vst1q_f32(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}

static inline void fold4_f64(float *out, float64x2_t a, float64x2_t b, float64x2_t c, float64x2_t d)
{
	vst1q_f32(out, vcvt_high_f32_f64(vcvt_f32_f64(vpaddq_f64(a, b)), vpaddq_f64(c, d)));
}

static inline void fold4_i32(float *out, int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
	vst1q_f32(out, vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))));
}

#define NAME(f) f##_f32
#define Q float
#define BYTES 4
#define V float32x4_t
#define VN 4
#define ZERO() vdupq_n_f32(0)
#define LOADQ(p) vld1q_f32(p)
#define LOAD(p) load_16_f32(p)
#define LOADN(p, n) loadn_f32(p, n)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define SUB(a, b) vsubq_f32(a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f16
#define Q float
#define BYTES 2
#define V float32x4_t
#define VN 4
#define ZERO() vdupq_n_f32(0)
#define LOADQ(p) vld1q_f32(p)
#define LOAD(p) halves(vld1_u8((const uint8_t *)(p)))
#define LOADN(p, n) halves(loadn_bytes(p, 2 * (n)))
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define SUB(a, b) vsubq_f32(a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f64
#define Q double
#define BYTES 8
#define V float64x2_t
#define VN 2
#define ZERO() vdupq_n_f64(0)
#define LOADQ(p) vld1q_f64(p)
#define LOAD(p) vreinterpretq_f64_u8(vld1q_u8((const uint8_t *)(p)))
#define LOADN(p, n) loadn_f64(p, n)
#define FMA(a, b, c) vfmaq_f64(c, a, b)
#define SUB(a, b) vsubq_f64(a, b)
#define FOLD4 fold4_f64
#include "one.inc"

static inline int32x4_t multiply_add(int16x8_t a, int16x8_t b, int32x4_t c)
{
	return vmlal_high_s16(vmlal_s16(c, vget_low_s16(a), vget_low_s16(b)), a, b);
}

static inline int16x8_t widen_i8(uint8x8_t v)
{
	return vmovl_s8(vreinterpret_s8_u8(v));
}

static inline int16x8_t widen_u8(uint8x8_t v)
{
	return vreinterpretq_s16_u16(vmovl_u8(v));
}

#define NAME(f) f##_i8
#define Q int16_t
#define BYTES 1
#define V int32x4_t
#define VL int16x8_t
#define VN 8
#define ZERO() vdupq_n_s32(0)
#define LOADQ(p) vld1q_s16(p)
#define LOAD(p) widen_i8(vld1_u8((const uint8_t *)(p)))
#define LOADN(p, n) widen_i8(loadn_bytes(p, n))
#define FMA multiply_add
#define FOLD4 fold4_i32
#include "one.inc"

#define NAME(f) f##_u8
#define Q int16_t
#define BYTES 1
#define V int32x4_t
#define VL int16x8_t
#define VN 8
#define ZERO() vdupq_n_s32(0)
#define LOADQ(p) vld1q_s16(p)
#define LOAD(p) widen_u8(vld1_u8((const uint8_t *)(p)))
#define LOADN(p, n) widen_u8(loadn_bytes(p, n))
#define FMA multiply_add
#define FOLD4 fold4_i32
#include "one.inc"

#define ROWS 12
#define LANES 4

#define VQ float32x4_t
#define LOADQ(p) load_16_f32(p)
#define SPREAD(p) vdupq_n_f32(load_f32(p))
#define MAC(s, q, x) vfmaq_f32(s, q, x)
#define FINISH(p, s) vst1q_f32(p, s)
#define NAME tile_f32_wide
#define PAIR 1
#include "tile.inc"
#undef VQ
#undef LOADQ
#undef SPREAD
#undef MAC
#undef FINISH

static inline int32x4_t add_pairs(int32x4_t s, int32x4_t q, int32x4_t x)
{
	int16x8_t a = vreinterpretq_s16_s32(q), b = vreinterpretq_s16_s32(x);

	return vaddq_s32(s, vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
}

#define VQ int32x4_t
#define LOADQ(p) vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)(p)))
#define SPREAD(p) vdupq_n_s32(load_i32(p))
#define MAC add_pairs
#define FINISH(p, s) vst1q_f32(p, vcvtq_f32_s32(s))
#define NAME tile_pairs_wide
#define PAIR 1
#include "tile.inc"

static void f16_to_f32(const void *src, size_t n, float *dst)
{
	const uint8_t *x = src;
	size_t i = 0;

	for (; i + 4 <= n; i += 4)
		vst1q_f32(dst + i, halves(vld1_u8(x + 2 * i)));
	if (i < n) {
		float t[4];

		vst1q_f32(t, halves(loadn_bytes(x + 2 * i, 2 * (n - i))));
		memcpy(dst + i, t, 4 * (n - i));
	}
}

static void f64_to_f32(const void *src, size_t n, float *dst)
{
	const uint8_t *x = src;
	size_t i = 0;

	for (; i + 2 <= n; i += 2)
		vst1_f32(dst + i, vcvt_f32_f64(vreinterpretq_f64_u8(vld1q_u8(x + 8 * i))));
	if (i < n)
		dst[i] = vget_lane_f32(vcvt_f32_f64(loadn_f64(x + 8 * i, 1)), 0);
}

static void lift_i8(const void *src, size_t n, void *dst)
{
	const int8_t *x = src;
	int16_t *to = dst;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		vst1q_s16(to + i, vmovl_s8(vld1_s8(x + i)));
	for (; i < n; i++)
		to[i] = x[i];
	if (n % 2)
		to[n] = 0;
}

static void lift_u8(const void *src, size_t n, void *dst)
{
	const uint8_t *x = src;
	int16_t *to = dst;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		vst1q_s16(to + i, widen_u8(vld1_u8(x + i)));
	for (; i < n; i++)
		to[i] = x[i];
	if (n % 2)
		to[n] = 0;
}

static inline uint8x16_t add64(uint8x16_t a, uint8x16_t b)
{
	return vreinterpretq_u8_u64(vaddq_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

#define VB uint8x16_t
#define VBYTES 16
#define LOADB(p) vld1q_u8((const uint8_t *)(p))
#define LOADBN(p, n) loadn_bytes16(p, n)
#define ANDB vandq_u8
#define XORB veorq_u8
#define SPREAD64(p) vreinterpretq_u8_s64(vdupq_n_s64(load_i64(p)))
#define COUNT vcntq_u8
#define ADDU vaddq_u8
#define TWICE(u) vaddq_u8(u, u)
#define WIDEN(u) vreinterpretq_u8_u64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(u))))
#define UNITS 31
#define ADD64 add64
#define ZEROB() vdupq_n_u8(0)
#define SUM64(v) vaddvq_u64(vreinterpretq_u64_u8(v))
#define FINISH64(p, v) vst1_f32(p, vcvt_f32_u32(vmovn_u64(vreinterpretq_u64_u8(v))))
#define CSA(hi, lo, a, b, c)                                                                                           \
	do {                                                                                                           \
		uint8x16_t a_ = (a), c_ = (c), x_ = veorq_u8(a_, b);                                                   \
		hi = vbslq_u8(x_, c_, a_);                                                                             \
		lo = veorq_u8(x_, c_);                                                                                 \
	} while (0)
#include "bits.inc"

static inline float32x4_t pick_log(float32x4_t x, float32x4_t l)
{
	uint32x4_t in = vandq_u32(vcgeq_f32(x, vdupq_n_f32(0)), vcleq_f32(x, vdupq_n_f32(FLT_MAX)));

	return vbslq_f32(in, l, vmulq_f32(x, vdupq_n_f32(INFINITY)));
}

static inline float32x4_t in_range(float32x4_t v, float32x4_t lo, float32x4_t hi, size_t *outside)
{
	uint32x4_t in = vandq_u32(vcgeq_f32(v, lo), vcleq_f32(v, hi));

	*outside += 4 - vaddvq_u32(vshrq_n_u32(in, 31));
	return vbslq_f32(in, v, vdupq_n_f32(NAN));
}

static inline uint32_t hits_of(float32x4_t nx, float32x4_t u, float32x4_t c, float32x4_t w)
{
	const uint32x4_t bits = {1, 2, 4, 8};

	return vaddvq_u32(vandq_u32(bits, vcleq_f32(vfmaq_f32(vnegq_f32(c), nx, u), w)));
}

#define V float32x4_t
#define VI int32x4_t
#define VN 4
#define LOAD(p) load_16_f32(p)
#define LOADN(p, n) loadn_f32(p, n)
#define STORE(p, v) vst1q_f32(p, v)
#define ALL vdupq_n_f32
#define ALLI vdupq_n_s32
#define ADD vaddq_f32
#define MUL vmulq_f32
#define MAX vmaxq_f32
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define SUBI vsubq_s32
#define SAR23(i) vshrq_n_s32(i, 23)
#define SHL23(i) vshlq_n_s32(i, 23)
#define TO_INT vreinterpretq_s32_f32
#define TO_FLOAT vreinterpretq_f32_s32
#define CONVERT vcvtq_f32_s32
#define ABS vabsq_f32
#define PICK_LOG pick_log
#define MAXU(i, j) vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(i), vreinterpretq_u32_s32(j)))
#define ABOVE(i, j) (vmaxvq_u32(vcgtq_u32(vreinterpretq_u32_s32(i), vreinterpretq_u32_s32(j))) != 0)
#define SUM vaddvq_f32
#include "log.inc"

#define SQRT vsqrtq_f32
#define IN_RANGE in_range
#define HITS hits_of
#include "sift.inc"
#include "slots.inc"

void npkv_init_neon(struct npkv_ops *o)
{
	fill_slots(o);
}
#else
typedef int npkv_nothing_here;
#endif
