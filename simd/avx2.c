/* avx2.c - the kernels with AVX2, FMA and F16C. Built with -mavx2 -mfma -mf16c.  */
#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>

#include "level.h"

static inline __m256i tail_mask(size_t n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 loadn_f32(const char *p, size_t n)
{
	return _mm256_maskload_ps((const float *)(const void *)p, tail_mask(n));
}

static inline __m256d loadn_f64(const char *p, size_t n)
{
	__m256i m = _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));

	return _mm256_maskload_pd((const double *)(const void *)p, m);
}

static inline __m128i loadn_bytes(const char *p, size_t n)
{
	char t[16] = {0};

	memcpy(t, p, n);
	return _mm_loadu_si128((const __m128i *)(const void *)t);
}

static inline __m256i loadn_bytes32(const char *p, size_t n)
{
	char t[32] = {0};

	memcpy(t, p, n);
	return _mm256_loadu_si256((const __m256i *)(const void *)t);
}

static inline __m128i load_16(const void *p)
{
	return _mm_loadu_si128((const __m128i *)p);
}

static inline __m256i load_32(const void *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

static inline void fold4_f32(float *out, __m256 a, __m256 b, __m256 c, __m256 d)
{
	__m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));

	_mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

static inline void fold4_f64(float *out, __m256d a, __m256d b, __m256d c, __m256d d)
{
	__m256d ab = _mm256_hadd_pd(a, b), cd = _mm256_hadd_pd(c, d);
	__m256d s = _mm256_add_pd(_mm256_permute2f128_pd(ab, cd, 0x20), _mm256_permute2f128_pd(ab, cd, 0x31));

	_mm_storeu_ps(out, _mm256_cvtpd_ps(s));
}

static inline void fold4_i32(float *out, __m256i a, __m256i b, __m256i c, __m256i d)
{
	__m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
	__m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

	_mm_storeu_ps(out, _mm_cvtepi32_ps(t));
}

#define NAME(f) f##_f32
#define Q float
#define BYTES 4
#define V __m256
#define VN 8
#define ZERO() _mm256_setzero_ps()
#define LOADQ(p) _mm256_loadu_ps(p)
#define LOAD(p) _mm256_loadu_ps((const float *)(const void *)(p))
#define LOADN(p, n) loadn_f32(p, n)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f16
#define Q float
#define BYTES 2
#define V __m256
#define VN 8
#define ZERO() _mm256_setzero_ps()
#define LOADQ(p) _mm256_loadu_ps(p)
#define LOAD(p) _mm256_cvtph_ps(load_16(p))
#define LOADN(p, n) _mm256_cvtph_ps(loadn_bytes(p, 2 * (n)))
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define FOLD4 fold4_f32
#include "one.inc"

#define NAME(f) f##_f64
#define Q double
#define BYTES 8
#define V __m256d
#define VN 4
#define ZERO() _mm256_setzero_pd()
#define LOADQ(p) _mm256_loadu_pd(p)
#define LOAD(p) _mm256_loadu_pd((const double *)(const void *)(p))
#define LOADN(p, n) loadn_f64(p, n)
#define FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define SUB(a, b) _mm256_sub_pd(a, b)
#define FOLD4 fold4_f64
#include "one.inc"

#define NAME(f) f##_i8
#define Q int16_t
#define BYTES 1
#define V __m256i
#define VN 16
#define ZERO() _mm256_setzero_si256()
#define LOADQ(p) load_32(p)
#define LOAD(p) _mm256_cvtepi8_epi16(load_16(p))
#define LOADN(p, n) _mm256_cvtepi8_epi16(loadn_bytes(p, n))
#define FMA(a, b, c) _mm256_add_epi32(_mm256_madd_epi16(a, b), c)
#define FOLD4 fold4_i32
#include "one.inc"

#define NAME(f) f##_u8
#define Q int16_t
#define BYTES 1
#define V __m256i
#define VN 16
#define ZERO() _mm256_setzero_si256()
#define LOADQ(p) load_32(p)
#define LOAD(p) _mm256_cvtepu8_epi16(load_16(p))
#define LOADN(p, n) _mm256_cvtepu8_epi16(loadn_bytes(p, n))
#define FMA(a, b, c) _mm256_add_epi32(_mm256_madd_epi16(a, b), c)
#define FOLD4 fold4_i32
#include "one.inc"

#define ROWS 6
#define LANES 8

#define VQ __m256
#define LOADQ(p) _mm256_load_ps((const float *)(const void *)(p))
#define SPREAD(p) _mm256_set1_ps(load_f32(p))
#define MAC(s, q, x) _mm256_fmadd_ps(q, x, s)
#define FINISH(p, s) _mm256_storeu_ps(p, s)
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

#define VQ __m256i
#define LOADQ(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define SPREAD(p) _mm256_set1_epi32(load_i32(p))
#define MAC(s, q, x) _mm256_add_epi32(s, _mm256_madd_epi16(q, x))
#define FINISH(p, s) _mm256_storeu_ps(p, _mm256_cvtepi32_ps(s))
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

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(dst + i, _mm256_cvtph_ps(load_16(x + 2 * i)));
	for (; i < n; i++) {
		uint16_t h;

		memcpy(&h, x + 2 * i, sizeof(h));
		dst[i] = _cvtsh_ss(h);
	}
}

static void f64_to_f32(const void *src, size_t n, float *dst)
{
	const char *x = src;
	size_t i = 0;

	for (; i + 4 <= n; i += 4)
		_mm_storeu_ps(dst + i, _mm256_cvtpd_ps(_mm256_loadu_pd((const double *)(const void *)(x + 8 * i))));
	for (; i < n; i++)
		_mm_store_ss(dst + i,
			_mm_cvtsd_ss(_mm_setzero_ps(), _mm_load_sd((const double *)(const void *)(x + 8 * i))));
}

static void lift_i8(const void *src, size_t n, void *dst)
{
	const int8_t *x = src;
	int16_t *to = dst;
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
		_mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_cvtepi8_epi16(load_16(x + i)));
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

	for (; i + 16 <= n; i += 16)
		_mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_cvtepu8_epi16(load_16(x + i)));
	for (; i < n; i++)
		to[i] = x[i];
	if (n % 2)
		to[n] = 0;
}

static inline __m256i count_bytes(__m256i v)
{
	const __m256i table = _mm256_setr_epi8(
		0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
	const __m256i low = _mm256_set1_epi8(15);

	return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, low)),
		_mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
}

static inline int64_t sum64(__m256i v)
{
	__m128i s = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

	return _mm_cvtsi128_si64(s) + _mm_extract_epi64(s, 1);
}

/* Counts are below 2^24, so the low half of a lane is the lane. */
static inline void store_counts(float *p, __m256i v)
{
	__m256i low = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));

	_mm_storeu_ps(p, _mm_cvtepi32_ps(_mm256_castsi256_si128(low)));
}

#define VB __m256i
#define VBYTES 32
#define LOADB(p) load_32(p)
#define LOADBN(p, n) loadn_bytes32(p, n)
#define ANDB _mm256_and_si256
#define XORB _mm256_xor_si256
#define SPREAD64(p) _mm256_set1_epi64x(load_i64(p))
#define COUNT count_bytes
#define ADDU _mm256_add_epi8
#define TWICE(u) _mm256_add_epi8(u, u)
#define WIDEN(u) _mm256_sad_epu8(u, _mm256_setzero_si256())
#define UNITS 31
#define ADD64 _mm256_add_epi64
#define ZEROB _mm256_setzero_si256
#define SUM64 sum64
#define FINISH64 store_counts
#define CSA(hi, lo, a, b, c)                                                                                           \
	do {                                                                                                           \
		__m256i b_ = (b), c_ = (c), x_ = _mm256_xor_si256(a, b_);                                              \
		hi = _mm256_or_si256(_mm256_and_si256(a, b_), _mm256_and_si256(x_, c_));                               \
		lo = _mm256_xor_si256(x_, c_);                                                                         \
	} while (0)
#include "bits.inc"

static inline __m256 pick_log(__m256 x, __m256 l)
{
	__m256 in = _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ),
		_mm256_cmp_ps(x, _mm256_set1_ps(FLT_MAX), _CMP_LE_OQ));

	return _mm256_blendv_ps(_mm256_mul_ps(x, _mm256_set1_ps(INFINITY)), l, in);
}

static inline bool any_above(__m256i i, __m256i j)
{
	const __m256i top = _mm256_set1_epi32((int)0x80000000);

	return _mm256_movemask_epi8(_mm256_cmpgt_epi32(_mm256_xor_si256(i, top), _mm256_xor_si256(j, top))) != 0;
}

/* x >= FLT_MIN, finite. x = 2^e m; the first bits of m in [1, 2) choose c with m c within 1 +- 1/17 and -log c; then
 * log x = e log 2 - log c + log(1 + r), the last by its series to r^4. */
static inline __m256 table_log(__m256 x)
{
	const __m256 inverse = _mm256_setr_ps(0x1.e1e1e2p-1f, 0x1.af286cp-1f, 0x1.861862p-1f, 0x1.642c86p-1f,
		0x1.47ae14p-1f, 0x1.2f684cp-1f, 0x1.1a7b96p-1f, 0x1.08421p-1f);
	const __m256 log_of = _mm256_setr_ps(0x1.f0a30ap-5f, 0x1.5ff306p-3f, 0x1.1675cap-2f, 0x1.739d7ep-2f,
		0x1.c8ff7ep-2f, 0x1.0be72ep-1f, 0x1.307d74p-1f, 0x1.52a2d4p-1f);
	__m256i bits = _mm256_castps_si256(x), which = _mm256_srli_epi32(bits, 20);
	__m256 e = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
	__m256 m = _mm256_or_ps(_mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffff))), _mm256_set1_ps(1));
	__m256 r = _mm256_fmadd_ps(m, _mm256_permutevar8x32_ps(inverse, which), _mm256_set1_ps(-1));
	__m256 p = _mm256_fmadd_ps(r, _mm256_set1_ps(-0.25f), _mm256_set1_ps(0x1.555556p-2f));

	p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(-0.5f));
	p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(1));
	e = _mm256_fmadd_ps(e, _mm256_set1_ps(0x1.62e43p-1f), _mm256_permutevar8x32_ps(log_of, which));
	return _mm256_fmadd_ps(r, p, e);
}

static inline float sum_f32(__m256 v)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#define V __m256
#define VI __m256i
#define VN 8
#define LOAD(p) _mm256_loadu_ps((const float *)(const void *)(p))
#define LOADN(p, n) loadn_f32((const char *)(p), n)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define ALL _mm256_set1_ps
#define ALLI _mm256_set1_epi32
#define ADD _mm256_add_ps
#define MUL _mm256_mul_ps
#define MAX(x, low) _mm256_max_ps(low, x) /* in this order a NaN in x stays */
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SUBI _mm256_sub_epi32
#define SAR23(i) _mm256_srai_epi32(i, 23)
#define SHL23(i) _mm256_slli_epi32(i, 23)
#define TO_INT _mm256_castps_si256
#define TO_FLOAT _mm256_castsi256_ps
#define CONVERT _mm256_cvtepi32_ps
#define ABS(v) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v)
#define PICK_LOG pick_log
#define MAXU _mm256_max_epu32
#define ABOVE any_above
#define VLOG table_log
#define SUM sum_f32
#include "log.inc"

#define SQRT _mm256_sqrt_ps
#define HITS(nx, u, c, w) (uint32_t) _mm256_movemask_ps(_mm256_cmp_ps(_mm256_fmsub_ps(nx, u, c), w, _CMP_LE_OQ))
#define IN_RANGE in_range

static inline __m256 in_range_mask(__m256 v, __m256 lo, __m256 hi)
{
	return _mm256_and_ps(_mm256_cmp_ps(v, lo, _CMP_GE_OQ), _mm256_cmp_ps(v, hi, _CMP_LE_OQ));
}

static inline __m256 in_range(__m256 v, __m256 lo, __m256 hi, size_t *outside)
{
	__m256 in = in_range_mask(v, lo, hi);

	*outside += 8 - (size_t)__builtin_popcount((unsigned)_mm256_movemask_ps(in));
	return _mm256_or_ps(v, _mm256_andnot_ps(in, _mm256_set1_ps(NAN)));
}
#include "sift.inc"

#include "slots.inc"

void npkv_init_avx2(struct npkv_ops *o)
{
	fill_slots(o);
}
#else
typedef int npkv_nothing_here;
#endif
