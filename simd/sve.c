/* sve.c - products with scalable vectors, over the kernels of neon.c. The length of a vector is known at run time
 * only, so a tile is as wide as two of them. Built with -march=armv8.2-a+sve.  */
#if defined(__aarch64__)
#include <arm_sve.h>

#include "level.h"

static inline void fold4_f32(float *out, svfloat32_t a, svfloat32_t b, svfloat32_t c, svfloat32_t d)
{
	out[0] = svaddv_f32(svptrue_b32(), a);
	out[1] = svaddv_f32(svptrue_b32(), b);
	out[2] = svaddv_f32(svptrue_b32(), c);
	out[3] = svaddv_f32(svptrue_b32(), d);
}

static inline void fold4_f64(float *out, svfloat64_t a, svfloat64_t b, svfloat64_t c, svfloat64_t d)
{
	out[0] = (float)svaddv_f64(svptrue_b64(), a);
	out[1] = (float)svaddv_f64(svptrue_b64(), b);
	out[2] = (float)svaddv_f64(svptrue_b64(), c);
	out[3] = (float)svaddv_f64(svptrue_b64(), d);
}

static inline void fold4_i64(float *out, svint64_t a, svint64_t b, svint64_t c, svint64_t d)
{
	out[0] = (float)svaddv_s64(svptrue_b64(), a);
	out[1] = (float)svaddv_s64(svptrue_b64(), b);
	out[2] = (float)svaddv_s64(svptrue_b64(), c);
	out[3] = (float)svaddv_s64(svptrue_b64(), d);
}

#define NAME(f) f##_f32
#define Q float
#define BYTES 4
#define V svfloat32_t
#define VN svcntw()
#define ZERO() svdup_f32(0)
#define LOADQ(p) svld1_f32(svptrue_b32(), p)
#define LOAD(p) svld1_f32(svptrue_b32(), (const float *)(const void *)(p))
#define LOADN(p, n) svld1_f32(svwhilelt_b32_u64(0, n), (const float *)(const void *)(p))
#define FMA(a, b, c) svmla_f32_x(svptrue_b32(), c, a, b)
#define SUB(a, b) svsub_f32_x(svptrue_b32(), a, b)
#define FOLD4 fold4_f32
#include "one.inc"

/* Halves are loaded into the low parts of 32-bit lanes, from where the conversion takes them. */
static inline svfloat32_t load_f16(svbool_t lanes, const void *p)
{
	return svcvt_f32_f16_x(lanes, svreinterpret_f16_u32(svld1uh_u32(lanes, (const uint16_t *)p)));
}

static inline svfloat32_t loadn_f16(const void *p, size_t n)
{
	svbool_t lanes = svwhilelt_b32_u64(0, n);

	return svsel_f32(lanes, load_f16(lanes, p), svdup_f32(0));
}

#define NAME(f) f##_f16
#define Q float
#define BYTES 2
#define V svfloat32_t
#define VN svcntw()
#define ZERO() svdup_f32(0)
#define LOADQ(p) svld1_f32(svptrue_b32(), p)
#define LOAD(p) load_f16(svptrue_b32(), p)
#define LOADN(p, n) loadn_f16(p, n)
#define FMA(a, b, c) svmla_f32_x(svptrue_b32(), c, a, b)
#define SUB(a, b) svsub_f32_x(svptrue_b32(), a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f64
#define Q double
#define BYTES 8
#define V svfloat64_t
#define VN svcntd()
#define ZERO() svdup_f64(0)
#define LOADQ(p) svld1_f64(svptrue_b64(), p)
#define LOAD(p) svld1_f64(svptrue_b64(), (const double *)(const void *)(p))
#define LOADN(p, n) svld1_f64(svwhilelt_b64_u64(0, n), (const double *)(const void *)(p))
#define FMA(a, b, c) svmla_f64_x(svptrue_b64(), c, a, b)
#define SUB(a, b) svsub_f64_x(svptrue_b64(), a, b)
#define FOLD4 fold4_f64
#include "one.inc"

#define NAME(f) f##_i8
#define Q int16_t
#define BYTES 1
#define V svint64_t
#define VL svint16_t
#define VN svcnth()
#define ZERO() svdup_s64(0)
#define LOADQ(p) svld1_s16(svptrue_b16(), p)
#define LOAD(p) svld1sb_s16(svptrue_b16(), (const int8_t *)(p))
#define LOADN(p, n) svld1sb_s16(svwhilelt_b16_u64(0, n), (const int8_t *)(p))
#define FMA(a, b, c) svdot_s64(c, a, b)
#define FOLD4 fold4_i64
#include "one.inc"

#define NAME(f) f##_u8
#define Q int16_t
#define BYTES 1
#define V svint64_t
#define VL svint16_t
#define VN svcnth()
#define ZERO() svdup_s64(0)
#define LOADQ(p) svld1_s16(svptrue_b16(), p)
#define LOAD(p) svld1ub_s16(svptrue_b16(), (const uint8_t *)(p))
#define LOADN(p, n) svld1ub_s16(svwhilelt_b16_u64(0, n), (const uint8_t *)(p))
#define FMA(a, b, c) svdot_s64(c, a, b)
#define FOLD4 fold4_i64
#include "one.inc"

#define ROWS 12
#define LANES svcntw()

#define VQ svfloat32_t
#define LOADQ(p) svld1_f32(svptrue_b32(), (const float *)(const void *)(p))
#define SPREAD(p) svdup_f32(load_f32(p))
#define MAC(s, q, x) svmla_f32_x(svptrue_b32(), s, q, x)
#define FINISH(p, s) svst1_f32(svptrue_b32(), p, s)
#define PAIR 1
#define NAME tile_f32_wide
#include "tile.inc"
#define PAIR 0
#define NAME tile_f32_narrow
#include "tile.inc"
#undef VQ
#undef LOADQ
#undef SPREAD
#undef MAC
#undef FINISH

#define VQ svint32_t
#define LOADQ(p) svld1_s32(svptrue_b32(), (const int32_t *)(const void *)(p))
#define SPREAD(p) svdup_s32(load_i32(p))
#define FINISH(p, s) svst1_f32(svptrue_b32(), p, svcvt_f32_s32_x(svptrue_b32(), s))
#define MAC(s, q, x) svdot_s32(s, svreinterpret_s8_s32(q), svreinterpret_s8_s32(x))
#define PAIR 1
#define NAME tile_i8_wide
#include "tile.inc"
#define PAIR 0
#define NAME tile_i8_narrow
#include "tile.inc"
#undef MAC

/* Sums stay below 2^31 (plan.c), so a lane may be called signed. */
static inline svint32_t add_quads(svint32_t s, svint32_t q, svint32_t x)
{
	svuint32_t sum = svdot_u32(svreinterpret_u32_s32(s), svreinterpret_u8_s32(q), svreinterpret_u8_s32(x));

	return svreinterpret_s32_u32(sum);
}

#define MAC add_quads
#define PAIR 1
#define NAME tile_u8_wide
#include "tile.inc"
#define PAIR 0
#define NAME tile_u8_narrow
#include "tile.inc"

static void lift(const void *src, size_t n, void *dst)
{
	memcpy(dst, src, n);
	memset((char *)dst + n, 0, (0 - n) % 4);
}

void npkv_init_sve(struct npkv_ops *o)
{
	unsigned lanes = (unsigned)LANES;

	o->dot[NPKV_F16] = dot_f16;
	o->dot[NPKV_F32] = dot_f32;
	o->dot[NPKV_F64] = dot_f64;
	o->dot[NPKV_I8] = dot_i8;
	o->dot[NPKV_U8] = o->dot[NPKV_BOOL] = dot_u8;
	o->l2[NPKV_F16] = l2_f16;
	o->l2[NPKV_F32] = l2_f32;
	o->l2[NPKV_F64] = l2_f64;
	o->tile_f32[0] = (struct npkv_tile){tile_f32_wide, ROWS, 2 * lanes};
	o->tile_f32[1] = (struct npkv_tile){tile_f32_narrow, ROWS, lanes};
	o->tile_i8[0] = (struct npkv_tile){tile_i8_wide, ROWS, 2 * lanes};
	o->tile_i8[1] = (struct npkv_tile){tile_i8_narrow, ROWS, lanes};
	o->tile_u8[0] = (struct npkv_tile){tile_u8_wide, ROWS, 2 * lanes};
	o->tile_u8[1] = (struct npkv_tile){tile_u8_narrow, ROWS, lanes};
	o->lift_i8 = o->lift_u8 = lift;
	o->int_form = NPKV_QUAD;
}
#else
typedef int npkv_nothing_here;
#endif
