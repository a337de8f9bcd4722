/* crc_clmul.c - zlib's CRC32 by carry-less products. Built with -mpclmul.
 *
 * Bits are reflected: bit 0 of a register is its highest power. A register r that is followed by n more bits counts as
 * r x^n, and r x^n modulo the polynomial fits into the next register: its halves times x^(n+32) and x^(n-32), both
 * modulo the polynomial, shifted by the one bit that a product of reflected numbers lacks. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "level.h"

static __m128i load(const uint8_t *p)
{
	return _mm_loadu_si128((const void *)p);
}

static __m128i fold(__m128i r, __m128i k, __m128i onto)
{
	__m128i lo = _mm_clmulepi64_si128(r, k, 0x00), hi = _mm_clmulepi64_si128(r, k, 0x11);

	return _mm_xor_si128(_mm_xor_si128(lo, hi), onto);
}

/* Four registers hide the latency of the product. What is left at the end is 16 bytes with the same remainder. */
static uint32_t crc32(uint32_t crc, const void *buf, size_t len)
{
	const __m128i by4 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4); /* x^480, x^544 */
	const __m128i by1 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0); /* x^96, x^160 */
	const uint8_t *p = buf;
	__m128i a, b, c, d;
	uint8_t folded[16];

	if (len < 64)
		return npkv_scalar.crc32(crc, buf, len);
	a = _mm_xor_si128(load(p), _mm_cvtsi32_si128((int)~crc));
	b = load(p + 16);
	c = load(p + 32);
	d = load(p + 48);
	for (p += 64, len -= 64; len >= 64; p += 64, len -= 64) {
		a = fold(a, by4, load(p));
		b = fold(b, by4, load(p + 16));
		c = fold(c, by4, load(p + 32));
		d = fold(d, by4, load(p + 48));
	}
	d = fold(fold(fold(a, by1, b), by1, c), by1, d);
	for (; len >= 16; p += 16, len -= 16)
		d = fold(d, by1, load(p));
	_mm_storeu_si128((void *)folded, d);
	return npkv_scalar.crc32(npkv_scalar.crc32(~0u, folded, sizeof(folded)), p, len); /* ~0: from state 0 on */
}

void npkv_init_clmul(struct npkv_ops *o)
{
	o->crc32 = crc32;
}
#else
typedef int npkv_nothing_here;
#endif
