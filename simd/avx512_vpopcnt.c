/* avx512_vpopcnt.c - bits where the CPU counts 64-bit lanes itself. Built with $(AVX512_FLAGS) -mavx512vpopcntdq.  */
#if defined(__x86_64__)
#include <immintrin.h>

#include "level.h"

#define VB __m512i
#define VBYTES 64
#define LOADB(p) _mm512_loadu_si512(p)
#define LOADBN(p, n) _mm512_maskz_loadu_epi8(((__mmask64)1 << (n)) - 1, p)
#define ANDB _mm512_and_si512
#define XORB _mm512_xor_si512
#define SPREAD64(p) _mm512_set1_epi64(load_i64(p))
#define COUNT _mm512_popcnt_epi64
#define ADDU _mm512_add_epi64
#define WIDEN(u) (u)
#define UNITS (1u << 20)
#define ADD64 _mm512_add_epi64
#define ZEROB _mm512_setzero_si512
#define SUM64 _mm512_reduce_add_epi64
#define FINISH64(p, v) _mm256_storeu_ps(p, _mm512_cvtepi64_ps(v))
#include "bits.inc"

void npkv_init_vpopcnt(struct npkv_ops *o)
{
	o->and_bits = and_bits;
	o->xor_bits = xor_bits;
	o->tile_bits[0] = (struct npkv_tile){tile_bits, BITS_ROWS, BITS_WIDE};
}
#else
typedef int npkv_nothing_here;
#endif
