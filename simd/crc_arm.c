/* crc_arm.c - CRC32C by the ARMv8 instruction; see crc.inc. Built with -march=armv8-a+crc.  */
#if defined(__aarch64__)
#include <arm_acle.h>

#include "level.h"

static uint64_t step(uint64_t crc, const uint8_t *p)
{
	return __crc32cd((uint32_t)crc, (uint64_t)load_i64(p));
}

static uint64_t last(uint64_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 8; n -= 8, p += 8)
		crc = step(crc, p);
	for (; n; n--, p++)
		crc = __crc32cb((uint32_t)crc, *p);
	return crc;
}

#include "crc.inc"

/* zlib's polynomial has an instruction as well. One stream is as fast as memory. */
static uint32_t crc32(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint32_t s = ~crc;

	for (; len >= 8; len -= 8, p += 8)
		s = __crc32d(s, (uint64_t)load_i64(p));
	for (; len; len--, p++)
		s = __crc32b(s, *p);
	return ~s;
}

void npkv_init_armcrc(struct npkv_ops *o)
{
	o->crc32 = crc32;
	o->crc32c = crc32c;
}
#else
typedef int npkv_nothing_here;
#endif
