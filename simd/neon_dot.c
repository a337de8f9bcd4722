/* neon_dot.c - bytes by SDOT and UDOT, four products a lane. Built with -march=armv8.2-a+dotprod.  */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "level.h"

static inline uint8x16_t loadn_bytes(const void *p, size_t n)
{
	uint8_t t[16] = {0};

	memcpy(t, p, n);
	return vld1q_u8(t);
}

static inline void fold4_i32(float *out, int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
	vst1q_f32(out, vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))));
}

static inline void fold4_u32(float *out, uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d)
{
	vst1q_f32(out, vcvtq_f32_u32(vpaddq_u32(vpaddq_u32(a, b), vpaddq_u32(c, d))));
}

#define NAME(f) f##_i8
#define Q int16_t
#define BYTES 1
#define V int32x4_t
#define VL int8x16_t
#define VN 16
#define ZERO() vdupq_n_s32(0)
#define LOADQ(p) vmovn_high_s16(vmovn_s16(vld1q_s16(p)), vld1q_s16((p) + 8))
#define LOAD(p) vreinterpretq_s8_u8(vld1q_u8((const uint8_t *)(p)))
#define LOADN(p, n) vreinterpretq_s8_u8(loadn_bytes(p, n))
#define FMA(a, b, c) vdotq_s32(c, a, b)
#define FOLD4 fold4_i32
#include "one.inc"

#define NAME(f) f##_u8
#define Q int16_t
#define BYTES 1
#define V uint32x4_t
#define VL uint8x16_t
#define VN 16
#define ZERO() vdupq_n_u32(0)
#define LOADQ(p)                                                                                                       \
	vmovn_high_u16(vmovn_u16(vreinterpretq_u16_s16(vld1q_s16(p))), vreinterpretq_u16_s16(vld1q_s16((p) + 8)))
#define LOAD(p) vld1q_u8((const uint8_t *)(p))
#define LOADN(p, n) loadn_bytes(p, n)
#define FMA(a, b, c) vdotq_u32(c, a, b)
#define FOLD4 fold4_u32
#include "one.inc"

#define ROWS 12
#define LANES 4
#define PAIR 1
#define VQ int32x4_t
#define LOADQ(p) vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)(p)))
#define SPREAD(p) vdupq_n_s32(load_i32(p))
#define FINISH(p, s) vst1q_f32(p, vcvtq_f32_s32(s))
#define MAC(s, q, x) vdotq_s32(s, vreinterpretq_s8_s32(q), vreinterpretq_s8_s32(x))
#define NAME tile_i8
#include "tile.inc"
#undef MAC

/* Sums stay below 2^31 (plan.c), so a lane may be called signed. */
static inline int32x4_t add_quads(int32x4_t s, int32x4_t q, int32x4_t x)
{
	uint32x4_t sum = vdotq_u32(vreinterpretq_u32_s32(s), vreinterpretq_u8_s32(q), vreinterpretq_u8_s32(x));

	return vreinterpretq_s32_u32(sum);
}

#define MAC add_quads
#define PAIR 1
#define NAME tile_u8
#include "tile.inc"

static void lift(const void *src, size_t n, void *dst)
{
	memcpy(dst, src, n);
	memset((char *)dst + n, 0, (0 - n) % 4);
}

void npkv_init_dotprod(struct npkv_ops *o)
{
	o->dot[NPKV_I8] = dot_i8;
	o->dot[NPKV_U8] = o->dot[NPKV_BOOL] = dot_u8;
	o->tile_i8[0] = (struct npkv_tile){tile_i8, ROWS, 2 * LANES};
	o->tile_u8[0] = (struct npkv_tile){tile_u8, ROWS, 2 * LANES};
	o->lift_i8 = o->lift_u8 = lift;
	o->int_form = NPKV_QUAD;
}
#else
typedef int npkv_nothing_here;
#endif
