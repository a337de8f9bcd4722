/* avx512_vnni.c - integer tiles by VPDPBUSD: four products of a byte without and a byte with sign per step. The row's
 * bytes are flipped by 0x80 into the kind that the operand needs, which plan.c undoes by the tile's initial values.
 * Built with $(AVX512_FLAGS) -mavx512vnni.  */
#if defined(__x86_64__)
#include <immintrin.h>

#include "level.h"

#define ROWS 14
#define LANES 16
#define VQ __m512i
#define LOADQ(p) _mm512_load_si512(p)
#define SPREAD(p) _mm512_set1_epi32(load_i32(p))
#define FINISH(p, s) _mm512_storeu_ps(p, _mm512_cvtepi32_ps(s))

/* int8: the row x + 128 is unsigned, sum (x + 128) q - 128 sum q. */
#define MAC(s, q, x) _mm512_dpbusd_epi32(s, x, q)
#define NAME tile_i8_wide
#define PAIR 1
#include "tile.inc"
#define NAME tile_i8_narrow
#define PAIR 0
#include "tile.inc"
#undef MAC

/* uint8: the row x - 128 is signed, sum q (x - 128) + 128 sum q. */
#define MAC(s, q, x) _mm512_dpbusd_epi32(s, q, x)
#define NAME tile_u8_wide
#define PAIR 1
#include "tile.inc"
#define NAME tile_u8_narrow
#define PAIR 0
#include "tile.inc"

static void lift(const void *src, size_t n, void *dst)
{
	const char *x = src;
	char *to = dst;

	for (size_t i = 0; i < n; i += 64) {
		size_t left = n - i < 64 ? n - i : 64, put = (left + 3) & ~(size_t)3;
		__mmask64 load = left < 64 ? ((__mmask64)1 << left) - 1 : ~(__mmask64)0;
		__mmask64 store = put < 64 ? ((__mmask64)1 << put) - 1 : ~(__mmask64)0;
		__m512i v = _mm512_maskz_loadu_epi8(load, x + i);

		_mm512_mask_storeu_epi8(to + i, store, _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80)));
	}
}

void npkv_init_vnni(struct npkv_ops *o)
{
	const struct npkv_tile i8[] = {{tile_i8_wide, ROWS, 2 * LANES}, {tile_i8_narrow, ROWS, LANES}};
	const struct npkv_tile u8[] = {{tile_u8_wide, ROWS, 2 * LANES}, {tile_u8_narrow, ROWS, LANES}};

	memcpy(o->tile_i8, i8, sizeof(i8));
	memcpy(o->tile_u8, u8, sizeof(u8));
	o->lift_i8 = lift;
	o->lift_u8 = lift;
	o->int_form = NPKV_QUAD_BIAS;
}
#else
typedef int npkv_nothing_here;
#endif
