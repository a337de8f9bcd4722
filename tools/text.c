/* text.c - elements as text. The same text as npk_csv_read() gives; that one knows whole arrays only. */
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static float half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3FF, bits;
	float f;

	if (exponent == 0) { /* zero and subnormals */
		f = (float)fraction * 0x1p-24f;
		return sign ? -f : f;
	}
	bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* Any float is told by 9 digits, any double by 17; most by fewer. */
static size_t put_float(char *out, size_t cap, float f)
{
	int n = 0;

	for (int digits = 6; digits <= 9; digits++) {
		n = snprintf(out, cap, "%.*g", digits, (double)f);
		if (f != f || strtof(out, NULL) == f)
			break;
	}
	return (size_t)n;
}

static size_t put_double(char *out, size_t cap, double d)
{
	int n = 0;

	for (int digits = 15; digits <= 17; digits++) {
		n = snprintf(out, cap, "%.*g", digits, d);
		if (d != d || strtod(out, NULL) == d)
			break;
	}
	return (size_t)n;
}

static size_t put_real(char *out, size_t cap, unsigned dtype, const char *p)
{
	uint16_t h;
	float f;
	double d;

	switch (dtype) {
	case NPK_F16:
		memcpy(&h, p, sizeof(h));
		return put_float(out, cap, half_to_float(h));
	case NPK_F32:
	case NPK_C64:
		memcpy(&f, p, sizeof(f));
		return put_float(out, cap, f);
	default:
		memcpy(&d, p, sizeof(d));
		return put_double(out, cap, d);
	}
}

static size_t put_complex(char *out, unsigned dtype, const char *p)
{
	char im[NPKT_ELEMENT_MAX / 2];
	size_t n = put_real(out, sizeof(im), dtype, p), len;

	len = put_real(im, sizeof(im), dtype, p + npk_dtype_size(dtype) / 2);
	if (im[0] != '-') /* a negative number brings its own sign */
		out[n++] = '+';
	memcpy(out + n, im, len);
	out[n + len] = 'j';
	return n + len + 1;
}

static uint64_t load(const char *p, size_t size)
{
	uint64_t v = 0;

	memcpy(&v, p, size); /* little-endian, as the bytes on disk */
	return v;
}

size_t npkt_element(char out[NPKT_ELEMENT_MAX], unsigned dtype, const void *element)
{
	const char *p = element;
	size_t size = npk_dtype_size(dtype);
	unsigned unused;

	switch (dtype) {
	case NPK_BOOL:
		out[0] = *p ? '1' : '0';
		return 1;
	case NPK_U8:
	case NPK_U16:
	case NPK_U32:
	case NPK_U64:
		return (size_t)snprintf(out, NPKT_ELEMENT_MAX, "%" PRIu64, load(p, size));
	case NPK_I8:
	case NPK_I16:
	case NPK_I32:
	case NPK_I64:
		unused = (unsigned)(64 - 8 * size);
		return (size_t)snprintf(
			out, NPKT_ELEMENT_MAX, "%" PRId64, (int64_t)(load(p, size) << unused) >> unused);
	case NPK_C64:
	case NPK_C128:
		return put_complex(out, dtype, p);
	default:
		return put_real(out, NPKT_ELEMENT_MAX, dtype, p);
	}
}
