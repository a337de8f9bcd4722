/* crc_x86.c - CRC32C by the SSE4.2 instruction; see crc.inc. Built with -msse4.2.  */
#if defined(__x86_64__)
#include <nmmintrin.h>

#include "level.h"

static uint64_t step(uint64_t crc, const uint8_t *p)
{
	return _mm_crc32_u64(crc, (uint64_t)load_i64(p));
}

static uint64_t last(uint64_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 8; n -= 8, p += 8)
		crc = step(crc, p);
	for (; n; n--, p++)
		crc = _mm_crc32_u8((uint32_t)crc, *p);
	return crc;
}

#include "crc.inc"

void npkv_init_sse42(struct npkv_ops *o)
{
	o->crc32c = crc32c;
}
#else
typedef int npkv_nothing_here;
#endif
