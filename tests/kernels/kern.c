/* kern.c - see kern.h.  */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kern.h"

const char *k_only;
unsigned k_share = 1;

size_t k_levels(struct k_level *out)
{
	static const struct {
		const char *name;
		unsigned cpu;
	} steps[K_LEVELS_MAX] = {
		{"scalar", 0},
		{"sse4.2", NPKV_SSE42},
		{"avx2", NPKV_SSE42 | NPKV_CLMUL | NPKV_AVX2},
		{"avx512", NPKV_SSE42 | NPKV_CLMUL | NPKV_AVX2 | NPKV_AVX512},
		{"avx512+", NPKV_SSE42 | NPKV_CLMUL | NPKV_AVX2 | NPKV_AVX512 | NPKV_VNNI | NPKV_VPOPCNT},
		{"neon", NPKV_NEON},
		{"neon+", NPKV_NEON | NPKV_DOTPROD | NPKV_ARMCRC},
		{"sve", NPKV_NEON | NPKV_DOTPROD | NPKV_ARMCRC | NPKV_SVE},
	};
	unsigned have = npkv_cpu();
	size_t n = 0;

#ifdef NPKV_EMULATED /* avx512_vnni.c and avx512_vpopcnt.c built against libsimde */
	have |= NPKV_VNNI | NPKV_VPOPCNT;
#endif

	for (size_t i = 0; i < K_LEVELS_MAX; i++) {
		if ((steps[i].cpu & ~have) || (k_only && strcmp(k_only, steps[i].name) != 0))
			continue;
		snprintf(out[n].name, sizeof(out[n].name), "%s", steps[i].name);
		out[n].cpu = steps[i].cpu;
		npkv_init(&out[n].ops, steps[i].cpu);
		n++;
	}
	return n;
}

void *k_guarded(unsigned slot, size_t bytes)
{
	static struct {
		char *base;
		size_t room;
	} slots[4];
	size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;

	if (slots[slot].room < room || !slots[slot].base) {
		if (slots[slot].base)
			munmap(slots[slot].base, slots[slot].room + page);
		slots[slot].base = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (slots[slot].base == MAP_FAILED || mprotect(slots[slot].base + room, page, PROT_NONE) != 0)
			abort();
		slots[slot].room = room;
	}
	return slots[slot].base + slots[slot].room - bytes;
}

uint64_t k_rand(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

bool k_take(void)
{
	static uint64_t state = 11;

	return k_share == 1 || k_rand(&state) % k_share == 0;
}

static double uniform(uint64_t *rng)
{
	return (double)(k_rand(rng) >> 11) * 0x1p-53;
}

static double value(enum npkv_dtype t, enum k_values v, uint64_t *rng)
{
	static const double special[] = {0, -0.0, INFINITY, -INFINITY, NAN, 6e-8, 1e-40, 1e-310, 65504, 1, -1};
	double big = t == NPKV_F16 ? 6e4 : t == NPKV_F32 ? 3e38 : 1e308;
	double small = t == NPKV_F16 ? 6e-8 : t == NPKV_F32 ? 1e-44 : 5e-324;
	double x = 2 * uniform(rng) - 1;

	switch (v) {
	case K_SMALL_INTS:
		return (double)(int)(x * 2.5);
	case K_PROBABILITIES:
		return k_rand(rng) % 7 == 0 ? 0 : (x + 1) / 64;
	case K_SPECIAL:
		return k_rand(rng) % 97 == 0 ? special[k_rand(rng) % 11] : x;
	case K_HUGE:
		return k_rand(rng) % 13 == 0 ? x * big : x * 1e4;
	case K_TINY:
		return k_rand(rng) % 3 == 0 ? x * small * 1e3 : 0;
	case K_OFFSET:
		return 1000 + x;
	default:
		return x;
	}
}

/* The nearest half; only the tests need this direction. */
static uint16_t to_half(double v)
{
	float f = (float)v;
	uint32_t b, sign;
	int e;

	memcpy(&b, &f, sizeof(b));
	sign = b >> 16 & 0x8000;
	if (v != v)
		return 0x7e00;
	if (f < 0)
		f = -f;
	if (f >= 65520)
		return (uint16_t)(sign | 0x7c00);
	if (f < 0x1p-14f)
		return (uint16_t)(sign | (uint32_t)(f * 0x1p24f));
	e = (int)(b >> 23 & 255) - 112;
	return (uint16_t)(sign | (uint32_t)e << 10 | (b >> 13 & 0x3ff));
}

static void put(enum npkv_dtype t, double v, void *to, size_t i)
{
	float f = v > 3.4e38 || v < -3.4e38 ? (v > 0 ? INFINITY : -INFINITY) : (float)v;
	uint16_t h;

	switch (t) {
	case NPKV_F16:
		h = to_half(v);
		memcpy((char *)to + 2 * i, &h, sizeof(h));
		break;
	case NPKV_F32:
		memcpy((char *)to + 4 * i, &f, sizeof(f));
		break;
	default:
		memcpy((char *)to + 8 * i, &v, sizeof(v));
	}
}

static uint8_t byte(enum k_values v, uint64_t r)
{
	switch (v) {
	case K_PLAIN:
		return (uint8_t)r;
	case K_TINY:
		return 0;
	case K_SMALL_INTS:
		return (uint8_t)(r % 3);
	default: /* mostly the extremes of both kinds */
		return r % 5 == 0 ? (uint8_t)(r >> 8) : r % 2 ? 0x80 : (uint8_t)(0x7f | (r & 0x80));
	}
}

void k_fill(enum npkv_dtype t, enum k_values v, uint64_t *rng, size_t n, void *to)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t r = k_rand(rng);

		if (t == NPKV_BOOL)
			((uint8_t *)to)[i] = v == K_TINY ? r % 16 == 0 : (uint8_t)(r & 1);
		else if (t == NPKV_I8 || t == NPKV_U8)
			((uint8_t *)to)[i] = byte(v, r);
		else
			put(t, value(t, v, rng), to, i);
	}
}

double k_get(enum npkv_dtype t, const void *from, size_t i)
{
	const unsigned char *p = from;
	uint16_t h;
	double d;
	float f;

	switch (t) {
	case NPKV_F16:
		memcpy(&h, p + 2 * i, sizeof(h));
		d = (h & 0x7c00) == 0x7c00 ? (h & 0x3ff ? (double)NAN : (double)INFINITY)
		    : h & 0x7c00           ? (double)((h & 0x3ff) | 0x400) * (double)(1u << (h >> 10 & 31)) * 0x1p-25
					   : (double)(h & 0x3ff) * 0x1p-24;
		return h & 0x8000 ? -d : d;
	case NPKV_F32:
		memcpy(&f, p + 4 * i, sizeof(f));
		return (double)f;
	case NPKV_F64:
		memcpy(&d, p + 8 * i, sizeof(d));
		return d;
	case NPKV_I8:
		return (double)((const int8_t *)from)[i];
	default:
		return (double)p[i];
	}
}

static unsigned failures;

void k_fail(const char *format, ...)
{
	va_list ap;

	if (failures++ >= 40)
		return;
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

unsigned k_failures(void)
{
	return failures;
}
