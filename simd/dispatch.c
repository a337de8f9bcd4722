/* dispatch.c - which kernels this machine runs: the CPU's features, the table, the level forced by the environment.  */
#include <stdlib.h>
#include <string.h>

#include "level.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* The registers must be saved by the kernel as well: XCR0 bits 1-2 for AVX, 5-7 for AVX-512. */
static uint32_t saved_registers(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo;
}

unsigned npkv_cpu(void)
{
	unsigned a, b, c, d, c1, have = 0;
	const unsigned avx2_bits = bit_FMA | bit_F16C | bit_AVX | bit_OSXSAVE | bit_POPCNT;
	const unsigned avx512_bits = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
	uint32_t saved;

	if (!__get_cpuid(1, &a, &b, &c1, &d))
		return 0;
	if (c1 & bit_SSE4_2)
		have |= NPKV_SSE42;
	if (c1 & bit_PCLMUL)
		have |= NPKV_CLMUL;
	if ((c1 & avx2_bits) != avx2_bits || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return have;
	saved = saved_registers();
	if (!(b & bit_AVX2) || (saved & 0x06) != 0x06)
		return have;
	have |= NPKV_AVX2;
	if ((b & avx512_bits) != avx512_bits || (saved & 0xe6) != 0xe6)
		return have;
	have |= NPKV_AVX512;
	if (c & bit_AVX512VNNI)
		have |= NPKV_VNNI;
	if (c & bit_AVX512VPOPCNTDQ)
		have |= NPKV_VPOPCNT;
	return have;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

unsigned npkv_cpu(void)
{
	unsigned long caps = getauxval(AT_HWCAP);
	unsigned have = 0;

	if (!(caps & HWCAP_ASIMD))
		return 0;
	have |= NPKV_NEON;
	if (caps & HWCAP_ASIMDDP)
		have |= NPKV_DOTPROD;
	if (caps & HWCAP_CRC32)
		have |= NPKV_ARMCRC;
	if (caps & HWCAP_SVE)
		have |= NPKV_SVE;
	return have;
}

#else

unsigned npkv_cpu(void)
{
	return 0;
}

#endif

void npkv_init(struct npkv_ops *o, unsigned cpu)
{
	*o = npkv_scalar; /* every slot works before any is fast; newer levels overlay older */
#if defined(__x86_64__)
	if (cpu & NPKV_SSE42)
		npkv_init_sse42(o);
	if (cpu & NPKV_CLMUL)
		npkv_init_clmul(o);
	if (cpu & NPKV_AVX2)
		npkv_init_avx2(o);
	if (!(~cpu & (NPKV_AVX2 | NPKV_AVX512))) {
		npkv_init_avx512(o);
		if (cpu & NPKV_VNNI)
			npkv_init_vnni(o);
		if (cpu & NPKV_VPOPCNT)
			npkv_init_vpopcnt(o);
	}
#elif defined(__aarch64__)
	if (cpu & NPKV_ARMCRC)
		npkv_init_armcrc(o);
	if (cpu & NPKV_NEON) {
		npkv_init_neon(o);
		if (cpu & NPKV_DOTPROD)
			npkv_init_dotprod(o);
		if (cpu & NPKV_SVE)
			npkv_init_sve(o);
	}
#else
	(void)cpu;
#endif
}

static const struct level {
	const char *name;
	unsigned needs, allows;
} levels[] = {
	/* best first */
	{"avx512", NPKV_AVX512, NPKV_SSE42 | NPKV_CLMUL | NPKV_AVX2 | NPKV_AVX512 | NPKV_VNNI | NPKV_VPOPCNT},
	{"avx2", NPKV_AVX2, NPKV_SSE42 | NPKV_CLMUL | NPKV_AVX2},
	{"sve", NPKV_SVE, NPKV_NEON | NPKV_DOTPROD | NPKV_ARMCRC | NPKV_SVE},
	{"neon", NPKV_NEON, NPKV_NEON | NPKV_DOTPROD | NPKV_ARMCRC},
	{"scalar", 0, 0},
};

enum {
	NLEVELS = sizeof(levels) / sizeof(levels[0])
};

const char *npkv_level_name(unsigned cpu)
{
	size_t i = 0;

	while ((cpu & levels[i].needs) != levels[i].needs)
		i++;
	return levels[i].name;
}

int npkv_cpu_from_env(const char *name, unsigned *cpu)
{
	const char *want = getenv(name);
	unsigned have = npkv_cpu();

	if (!want || !*want) {
		*cpu = have;
		return 0;
	}
	for (size_t i = 0; i < NLEVELS; i++) {
		if (strcmp(want, levels[i].name) != 0)
			continue;
		if ((have & levels[i].needs) != levels[i].needs)
			return NPKV_ENV_LACKING;
		*cpu = have & levels[i].allows;
		return 0;
	}
	return NPKV_ENV_UNKNOWN;
}
