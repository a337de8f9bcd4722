/* crc.c - see crc.h. */
#include "crc.h"

#include <npkv.h>
#include <pthread.h>
#include <zlib.h>

/* A wrong NPKV_LEVEL is told where a search is asked for; checksums work all the same. */
static struct npkv_ops kernels;
static bool has_crc32;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void choose_kernels(void)
{
	unsigned cpu = npkv_cpu();

	npkv_init(&kernels, cpu);
	has_crc32 = (cpu & NPKV_HAS_CRC32) != 0;
}

uint32_t npki_crc32c(uint32_t crc, const void *buf, size_t len)
{
	pthread_once(&once, choose_kernels);
	return kernels.crc32c(crc, buf, len);
}

uint32_t npki_crc32(uint32_t crc, const void *buf, size_t len)
{
	pthread_once(&once, choose_kernels);
	return has_crc32 ? kernels.crc32(crc, buf, len) : (uint32_t)crc32_z(crc, buf, len);
}
