/* bench_limits.c - what this machine can do at most on one core: bytes read from memory, and float multiply-adds.
 *
 * One JSON object on stdout: read_gb_s over 512 MiB in four streams, fma_gflop_s (two operations each), best of five. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BYTES ((size_t)512 << 20)
#define TURNS 20000000

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Twelve chains cover the latency of two units. Written out: a compiler spills an array of them. */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define START(N) V a##N = m;
#define STEP(N) a##N = FMA(a##N, m, k);
#define SUM(N) k = ADD(k, a##N);
#define MULTIPLY_ADD(NAME, TARGET)                                                                                     \
	TARGET static float NAME(float with)                                                                           \
	{                                                                                                              \
		V m = SET(with), k = m;                                                                                \
		EACH(START)                                                                                            \
		for (int n = 0; n < TURNS; n++) {                                                                      \
			EACH(STEP)                                                                                     \
		}                                                                                                      \
		EACH(SUM)                                                                                              \
		return FIRST(k);                                                                                       \
	}
#define READ(NAME, TARGET)                                                                                             \
	TARGET static uint64_t NAME(const uint8_t *p)                                                                  \
	{                                                                                                              \
		const size_t part = BYTES / 4;                                                                         \
		W a = WZERO, b = a, c = a, d = a;                                                                      \
		for (size_t i = 0; i < part; i += sizeof(W)) {                                                         \
			a = OR(a, LOAD(p + i)), b = OR(b, LOAD(p + part + i));                                         \
			c = OR(c, LOAD(p + 2 * part + i)), d = OR(d, LOAD(p + 3 * part + i));                          \
		}                                                                                                      \
		return WFIRST(OR(OR(a, b), OR(c, d)));                                                                 \
	}

#ifdef __x86_64__
#include <immintrin.h>

#define V __m512
#define SET(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
#define FIRST(v) _mm512_cvtss_f32(v)
#define W __m512i
#define WZERO _mm512_setzero_si512()
#define OR(a, b) _mm512_or_si512(a, b)
#define LOAD(p) _mm512_loadu_si512(p)
#define WFIRST(v) (uint64_t) _mm_cvtsi128_si64(_mm512_castsi512_si128(v))
MULTIPLY_ADD(multiply_add_512, __attribute__((target("avx512f"))))
READ(read_512, __attribute__((target("avx512f"))))
#undef V
#undef SET
#undef FMA
#undef ADD
#undef FIRST
#undef W
#undef WZERO
#undef OR
#undef LOAD
#undef WFIRST

#define V __m256
#define SET(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define FIRST(v) _mm256_cvtss_f32(v)
#define W __m256i
#define WZERO _mm256_setzero_si256()
#define OR(a, b) _mm256_or_si256(a, b)
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define WFIRST(v) (uint64_t) _mm_cvtsi128_si64(_mm256_castsi256_si128(v))
MULTIPLY_ADD(multiply_add_256, __attribute__((target("avx2,fma"))))
READ(read_256, __attribute__((target("avx2"))))

static unsigned lanes(void)
{
	return __builtin_cpu_supports("avx512f") ? 16 : __builtin_cpu_supports("avx2") ? 8 : 0;
}
#define multiply_add(x) (lanes() == 16 ? multiply_add_512(x) : multiply_add_256(x))
#define read_all(p) (lanes() == 16 ? read_512(p) : read_256(p))
#elif defined(__aarch64__)
#include <arm_neon.h>

#define V float32x4_t
#define SET(x) vdupq_n_f32(x)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define ADD(a, b) vaddq_f32(a, b)
#define FIRST(v) vgetq_lane_f32(v, 0)
#define W uint64x2_t
#define WZERO vdupq_n_u64(0)
#define OR(a, b) vorrq_u64(a, b)
#define LOAD(p) vld1q_u64((const uint64_t *)(const void *)(p))
#define WFIRST(v) vgetq_lane_u64(v, 0)
MULTIPLY_ADD(multiply_add, )
READ(read_all, )

static unsigned lanes(void)
{
	return 4;
}
#else
#define multiply_add(x) (x)
#define read_all(p) (uint64_t) * (p)

static unsigned lanes(void)
{
	return 0;
}
#endif

int main(void)
{
	uint8_t *p = malloc(BYTES);
	double read = 1e9, fma = 1e9;
	uint64_t seen = 0;
	float sum = 0;

	if (!p || lanes() == 0) /* another CPU: no limits are known */
		return 1;
	memset(p, 1, BYTES);
	for (int i = 0; i < 5; i++) {
		double t0 = now(), t1;

		seen |= read_all(p);
		t1 = now();
		read = t1 - t0 < read ? t1 - t0 : read;
		sum += multiply_add(0.5f + (float)seen * 1e-30f);
		t0 = now();
		fma = t0 - t1 < fma ? t0 - t1 : fma;
	}
	free(p);
	printf("{\"read_gb_s\": %.2f, \"fma_gflop_s\": %.1f, \"check\": %g}\n", BYTES / read / 1e9,
		2.0 * lanes() * 12 * TURNS / fma / 1e9, (double)sum);
	return 0;
}
