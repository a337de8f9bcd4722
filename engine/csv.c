/* csv.c - rows as lines of text, made piece by piece as they are read. Numbers have the fewest digits (C's %g) that read
 * back to the same value. */
#include "numpack.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 32768
#define TEXT_MAX 80 /* of one element */

struct npk_csv {
	struct npk_view *v;
	uint64_t off; /* the next element's byte */
	uint64_t row_elements, column;
	uint64_t empty_lines; /* still to come, for rows without elements */
	uint8_t block[BLOCK_BYTES];
	size_t at, filled;   /* within block */
	char text[TEXT_MAX]; /* of the last element, handed out from `told` on */
	size_t len, told;
};

int npk_csv_open(struct npk_csv **out, struct npk_gen *g, struct npk_err *err)
{
	struct npk_csv *c = calloc(1, sizeof(*c));
	const struct npk_view_info *info;
	int rc;

	if (!c)
		return npk_fail(err, ENOMEM, "csv: no memory");
	rc = npk_view_open(&c->v, g, NULL, err);
	if (rc != 0) {
		free(c);
		return rc;
	}
	info = npk_view_info(c->v);
	c->row_elements = info->row_bytes / npk_dtype_size(info->dtype);
	c->empty_lines = info->row_bytes == 0 ? info->rows : 0;
	*out = c;
	return 0;
}

void npk_csv_close(struct npk_csv *c)
{
	if (!c)
		return;
	npk_view_close(c->v);
	free(c);
}

static float half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, frac = h & 0x3FF, bits;
	float f;

	if (exp == 0) { /* zero and subnormals: frac * 2^-24 */
		f = (float)frac * 0x1p-24f;
		return sign ? -f : f;
	}
	bits = sign | (exp == 31 ? 0x7F800000u : (exp + 112) << 23) | frac << 13;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

static size_t put_float(char *out, float f)
{
	int n = 0;

	for (int digits = 6; digits <= 9; digits++) {
		n = snprintf(out, TEXT_MAX / 2, "%.*g", digits, (double)f);
		if (f != f || strtof(out, NULL) == f)
			break;
	}
	return (size_t)n;
}

static size_t put_double(char *out, double f)
{
	int n = 0;

	for (int digits = 15; digits <= 17; digits++) {
		n = snprintf(out, TEXT_MAX / 2, "%.*g", digits, f);
		if (f != f || strtod(out, NULL) == f)
			break;
	}
	return (size_t)n;
}

static size_t put_real(char *out, unsigned dtype, const uint8_t *p)
{
	float f;
	double d;

	switch (dtype) {
	case NPK_F16:
		return put_float(out, half_to_float((uint16_t)npki_le(p, 2)));
	case NPK_F32:
	case NPK_C64:
		memcpy(&f, p, sizeof(f));
		return put_float(out, f);
	default:
		memcpy(&d, p, sizeof(d));
		return put_double(out, d);
	}
}

/* re+imj, as complex() and NumPy read it. */
static size_t put_complex(char *out, unsigned dtype, const uint8_t *p)
{
	size_t n = put_real(out, dtype, p), im;

	out[n] = '+';
	im = put_real(out + n + 1, dtype, p + npk_dtype_size(dtype) / 2);
	if (out[n + 1] == '-') { /* the number brings its own sign */
		memmove(out + n, out + n + 1, im);
		n--;
	}
	n += 1 + im;
	out[n] = 'j';
	return n + 1;
}

static size_t put_element(char *out, unsigned dtype, const uint8_t *p)
{
	size_t size = npk_dtype_size(dtype);
	uint64_t u = npki_le(p, size < 8 ? (unsigned)size : 8);
	int64_t i = (int64_t)(u << (64 - 8 * (size < 8 ? size : 8))) >> (64 - 8 * (size < 8 ? size : 8));

	switch (dtype) {
	case NPK_BOOL:
		return (size_t)snprintf(out, TEXT_MAX, "%d", u != 0);
	case NPK_U8:
	case NPK_U16:
	case NPK_U32:
	case NPK_U64:
		return (size_t)snprintf(out, TEXT_MAX, "%" PRIu64, u);
	case NPK_I8:
	case NPK_I16:
	case NPK_I32:
	case NPK_I64:
		return (size_t)snprintf(out, TEXT_MAX, "%" PRId64, i);
	case NPK_C64:
	case NPK_C128:
		return put_complex(out, dtype, p);
	default:
		return put_real(out, dtype, p);
	}
}

static int fill_block(struct npk_csv *c, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(c->v);
	uint64_t left = info->bytes - c->off;
	size_t n = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
	int rc = npk_view_read(c->v, c->off, c->block, n, err);

	if (rc != 0)
		return rc;
	c->off += n;
	c->at = 0;
	c->filled = n;
	return 0;
}

/* The next element with what follows it; len 0 at the end. */
static int next_text(struct npk_csv *c, struct npk_err *err)
{
	unsigned dtype = npk_view_info(c->v)->dtype;
	int rc = 0;

	c->told = c->len = 0;
	if (c->empty_lines > 0) {
		c->empty_lines--;
		c->text[c->len++] = '\n';
		return 0;
	}
	if (c->at == c->filled) {
		c->filled = c->at = 0;
		if (c->off < npk_view_info(c->v)->bytes)
			rc = fill_block(c, err);
		if (rc != 0 || c->filled == 0)
			return rc;
	}
	c->len = put_element(c->text, dtype, c->block + c->at);
	c->at += npk_dtype_size(dtype);
	if (++c->column == c->row_elements)
		c->column = 0;
	c->text[c->len++] = c->column == 0 ? '\n' : ',';
	return 0;
}

ssize_t npk_csv_read(struct npk_csv *c, void *buf, size_t len, struct npk_err *err)
{
	char *out = buf;
	size_t done = 0;
	int rc;

	while (done < len) {
		size_t n = c->len - c->told;

		if (n == 0) {
			rc = next_text(c, err);
			if (rc != 0 && done == 0)
				return rc;
			if (rc != 0 || c->len == 0)
				break;
			continue;
		}
		n = n < len - done ? n : len - done;
		memcpy(out + done, c->text + c->told, n);
		c->told += n;
		done += n;
	}
	return (ssize_t)done;
}
