/* avx512.c - the kernels with AVX-512 F, BW, DQ, VL: over those of avx2.c. Built with $(AVX512_FLAGS) of rules.mk.  */
#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>

#include "level.h"

static inline __mmask16 first16(size_t n)
{
	return (__mmask16)((1u << n) - 1);
}

static inline __mmask32 first32(size_t n)
{
	return (__mmask32)(((uint64_t)1 << n) - 1);
}

static inline __mmask64 first64(size_t n)
{
	return n < 64 ? ((__mmask64)1 << n) - 1 : ~(__mmask64)0;
}

static inline __m256 halves_f32(__m512 v)
{
	return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

static inline void fold4_f32(float *out, __m512 a, __m512 b, __m512 c, __m512 d)
{
	__m256 ab = _mm256_hadd_ps(halves_f32(a), halves_f32(b)), cd = _mm256_hadd_ps(halves_f32(c), halves_f32(d));
	__m256 s = _mm256_hadd_ps(ab, cd);

	_mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

static inline __m256d halves_f64(__m512d v)
{
	return _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
}

static inline void fold4_f64(float *out, __m512d a, __m512d b, __m512d c, __m512d d)
{
	__m256d ab = _mm256_hadd_pd(halves_f64(a), halves_f64(b)), cd = _mm256_hadd_pd(halves_f64(c), halves_f64(d));
	__m256d s = _mm256_add_pd(_mm256_permute2f128_pd(ab, cd, 0x20), _mm256_permute2f128_pd(ab, cd, 0x31));

	_mm_storeu_ps(out, _mm256_cvtpd_ps(s));
}

static inline __m256i halves_i32(__m512i v)
{
	return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

static inline void fold4_i32(float *out, __m512i a, __m512i b, __m512i c, __m512i d)
{
	__m256i ab = _mm256_hadd_epi32(halves_i32(a), halves_i32(b));
	__m256i cd = _mm256_hadd_epi32(halves_i32(c), halves_i32(d));
	__m256i s = _mm256_hadd_epi32(ab, cd);
	__m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

	_mm_storeu_ps(out, _mm_cvtepi32_ps(t));
}

static inline __m256i load_32(const void *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

#define NAME(f) f##_f32
#define Q float
#define BYTES 4
#define V __m512
#define VN 16
#define ZERO() _mm512_setzero_ps()
#define LOADQ(p) _mm512_loadu_ps(p)
#define LOAD(p) _mm512_loadu_ps(p)
#define LOADN(p, n) _mm512_maskz_loadu_ps(first16(n), p)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f16
#define Q float
#define BYTES 2
#define V __m512
#define VN 16
#define ZERO() _mm512_setzero_ps()
#define LOADQ(p) _mm512_loadu_ps(p)
#define LOAD(p) _mm512_cvtph_ps(load_32(p))
#define LOADN(p, n) _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first16(n), p))
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f64
#define Q double
#define BYTES 8
#define V __m512d
#define VN 8
#define ZERO() _mm512_setzero_pd()
#define LOADQ(p) _mm512_loadu_pd(p)
#define LOAD(p) _mm512_loadu_pd(p)
#define LOADN(p, n) _mm512_maskz_loadu_pd((__mmask8)first16(n), p)
#define FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define SUB(a, b) _mm512_sub_pd(a, b)
#define FOLD4 fold4_f64
#include "one.inc"

#define NAME(f) f##_i8
#define Q int16_t
#define BYTES 1
#define V __m512i
#define VN 32
#define ZERO() _mm512_setzero_si512()
#define LOADQ(p) _mm512_loadu_si512(p)
#define LOAD(p) _mm512_cvtepi8_epi16(load_32(p))
#define LOADN(p, n) _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(first32(n), p))
#define FMA(a, b, c) _mm512_add_epi32(_mm512_madd_epi16(a, b), c)
#define FOLD4 fold4_i32
#include "one.inc"

#define NAME(f) f##_u8
#define Q int16_t
#define BYTES 1
#define V __m512i
#define VN 32
#define ZERO() _mm512_setzero_si512()
#define LOADQ(p) _mm512_loadu_si512(p)
#define LOAD(p) _mm512_cvtepu8_epi16(load_32(p))
#define LOADN(p, n) _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(first32(n), p))
#define FMA(a, b, c) _mm512_add_epi32(_mm512_madd_epi16(a, b), c)
#define FOLD4 fold4_i32
#include "one.inc"

#define ROWS 14
#define LANES 16

#define VQ __m512
#define LOADQ(p) _mm512_load_ps(p)
#define SPREAD(p) _mm512_set1_ps(load_f32(p))
#define MAC(s, q, x) _mm512_fmadd_ps(q, x, s)
#define FINISH(p, s) _mm512_storeu_ps(p, s)
#define NAME tile_f32_wide
#define PAIR 1
#include "tile.inc"
#define NAME tile_f32_narrow
#define PAIR 0
#include "tile.inc"
#undef VQ
#undef LOADQ
#undef SPREAD
#undef MAC
#undef FINISH

#define VQ __m512i
#define LOADQ(p) _mm512_load_si512(p)
#define SPREAD(p) _mm512_set1_epi32(load_i32(p))
#define MAC(s, q, x) _mm512_add_epi32(s, _mm512_madd_epi16(q, x))
#define FINISH(p, s) _mm512_storeu_ps(p, _mm512_cvtepi32_ps(s))
#define NAME tile_pairs_wide
#define PAIR 1
#include "tile.inc"
#define NAME tile_pairs_narrow
#define PAIR 0
#include "tile.inc"

static void f16_to_f32(const void *src, size_t n, float *dst)
{
	const char *x = src;
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
		_mm512_storeu_ps(dst + i, _mm512_cvtph_ps(load_32(x + 2 * i)));
	if (i < n) {
		__m512 v = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first16(n - i), x + 2 * i));

		_mm512_mask_storeu_ps(dst + i, first16(n - i), v);
	}
}

static void f64_to_f32(const void *src, size_t n, float *dst)
{
	const char *x = src;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(dst + i, _mm512_cvtpd_ps(_mm512_loadu_pd(x + 8 * i)));
	if (i < n) {
		__mmask8 m = (__mmask8)first16(n - i);

		_mm256_mask_storeu_ps(dst + i, m, _mm512_cvtpd_ps(_mm512_maskz_loadu_pd(m, x + 8 * i)));
	}
}

/* An odd last element is followed by a zero, which the masked load gives. */
static void lift_i8(const void *src, size_t n, void *dst)
{
	const char *x = src;
	int16_t *to = dst;

	for (size_t i = 0; i < n; i += 32) {
		size_t left = n - i < 32 ? n - i : 32;
		__m512i v = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(first32(left), x + i));

		_mm512_mask_storeu_epi16(to + i, first32((left + 1) & ~(size_t)1), v);
	}
}

static void lift_u8(const void *src, size_t n, void *dst)
{
	const char *x = src;
	int16_t *to = dst;

	for (size_t i = 0; i < n; i += 32) {
		size_t left = n - i < 32 ? n - i : 32;
		__m512i v = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(first32(left), x + i));

		_mm512_mask_storeu_epi16(to + i, first32((left + 1) & ~(size_t)1), v);
	}
}

static inline __m512i count_bytes(__m512i v)
{
	const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
	const __m512i low = _mm512_set1_epi8(15);

	return _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(v, low)),
		_mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), low)));
}

#define VB __m512i
#define VBYTES 64
#define LOADB(p) _mm512_loadu_si512(p)
#define LOADBN(p, n) _mm512_maskz_loadu_epi8(first64(n), p)
#define ANDB _mm512_and_si512
#define XORB _mm512_xor_si512
#define SPREAD64(p) _mm512_set1_epi64(load_i64(p))
#define COUNT count_bytes
#define ADDU _mm512_add_epi8
#define TWICE(u) _mm512_add_epi8(u, u)
#define WIDEN(u) _mm512_sad_epu8(u, _mm512_setzero_si512())
#define UNITS 31
#define ADD64 _mm512_add_epi64
#define ZEROB _mm512_setzero_si512
#define SUM64 _mm512_reduce_add_epi64
#define FINISH64(p, v) _mm256_storeu_ps(p, _mm512_cvtepi64_ps(v))
#define CSA(hi, lo, a, b, c)                                                                                           \
	do {                                                                                                           \
		__m512i a_ = (a), b_ = (b), c_ = (c);                                                                  \
		hi = _mm512_ternarylogic_epi64(a_, b_, c_, 0xe8);                                                      \
		lo = _mm512_ternarylogic_epi64(a_, b_, c_, 0x96);                                                      \
	} while (0)
#include "bits.inc"

static inline __m512 pick_log(__m512 x, __m512 l)
{
	__mmask16 in = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ) &
		       _mm512_cmp_ps_mask(x, _mm512_set1_ps(FLT_MAX), _CMP_LE_OQ);

	return _mm512_mask_blend_ps(in, _mm512_mul_ps(x, _mm512_set1_ps(INFINITY)), l);
}

/* x >= FLT_MIN, finite. x = 2^e m; the first bits of m in [1, 2) choose c with m c within 1 +- 1/32 and -log c; then
 * log x = e log 2 - log c + log(1 + r), the last by its series to r^3. */
static inline __m512 table_log(__m512 x)
{
	const __m512 inverse = _mm512_setr_ps(0x1.f07c2p-1f, 0x1.d41d42p-1f, 0x1.bacf92p-1f, 0x1.a41a42p-1f,
		0x1.8f9c18p-1f, 0x1.7d05f4p-1f, 0x1.6c16c2p-1f, 0x1.5c9882p-1f, 0x1.4e5e0ap-1f, 0x1.414142p-1f,
		0x1.3521dp-1f, 0x1.29e412p-1f, 0x1.1f7048p-1f, 0x1.15b1e6p-1f, 0x1.0c9714p-1f, 0x1.041042p-1f);
	const __m512 log_of = _mm512_setr_ps(0x1.f8299p-6f, 0x1.6f0d28p-4f, 0x1.29552cp-3f, 0x1.9525a8p-3f,
		0x1.fb918cp-3f, 0x1.2e8e2cp-2f, 0x1.5d1bdap-2f, 0x1.89a33ap-2f, 0x1.b44f7ap-2f, 0x1.dd469ep-2f,
		0x1.02552ap-1f, 0x1.154c3ep-1f, 0x1.2795ep-1f, 0x1.393e0ep-1f, 0x1.4a4f88p-1f, 0x1.5ad402p-1f);
	__m512i which = _mm512_srli_epi32(_mm512_castps_si512(x), 19);
	__m512 e = _mm512_getexp_ps(x), m = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
	__m512 r = _mm512_fmadd_ps(m, _mm512_permutexvar_ps(which, inverse), _mm512_set1_ps(-1));
	__m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0x1.555556p-2f), _mm512_set1_ps(-0.5f));

	p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(1));
	e = _mm512_fmadd_ps(e, _mm512_set1_ps(0x1.62e43p-1f), _mm512_permutexvar_ps(which, log_of));
	return _mm512_fmadd_ps(r, p, e);
}

#define V __m512
#define VI __m512i
#define VN 16
#define LOAD(p) _mm512_loadu_ps(p)
#define LOADN(p, n) _mm512_maskz_loadu_ps(first16(n), p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define ALL _mm512_set1_ps
#define ALLI _mm512_set1_epi32
#define ADD _mm512_add_ps
#define MUL _mm512_mul_ps
#define MAX(x, low) _mm512_max_ps(low, x) /* in this order a NaN in x stays */
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SUBI _mm512_sub_epi32
#define SAR23(i) _mm512_srai_epi32(i, 23)
#define SHL23(i) _mm512_slli_epi32(i, 23)
#define TO_INT _mm512_castps_si512
#define TO_FLOAT _mm512_castsi512_ps
#define CONVERT _mm512_cvtepi32_ps
#define ABS _mm512_abs_ps
#define PICK_LOG pick_log
#define MAXU _mm512_max_epu32
#define ABOVE(i, j) (_mm512_cmpgt_epu32_mask(i, j) != 0)
#define VLOG table_log
#define SUM _mm512_reduce_add_ps
#include "log.inc"

static inline __m512 in_range(__m512 v, __m512 lo, __m512 hi, size_t *outside)
{
	__mmask16 in = _mm512_cmp_ps_mask(v, lo, _CMP_GE_OQ) & _mm512_cmp_ps_mask(v, hi, _CMP_LE_OQ);

	*outside += 16 - (size_t)__builtin_popcount(in);
	return _mm512_mask_mov_ps(_mm512_set1_ps(NAN), in, v);
}

#define SQRT _mm512_sqrt_ps
#define IN_RANGE in_range
#define HITS(nx, u, c, w) _mm512_cmp_ps_mask(_mm512_fmsub_ps(nx, u, c), w, _CMP_LE_OQ)
#include "sift.inc"

#include "slots.inc"

void npkv_init_avx512(struct npkv_ops *o)
{
	fill_slots(o);
}
#else
typedef int npkv_nothing_here;
#endif
