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

void npkv_init_armcrc(struct npkv_ops *o)
{
	o->crc32c = crc32c;
}
#else
typedef int npkv_nothing_here;
#endif
