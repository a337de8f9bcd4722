/* cells.c - prints elements, reading the view in small blocks. */
#include "cells.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 65536u /* a multiple of every element's size */

struct cells {
	struct npk_view *view;
	unsigned dtype;
	size_t size;         /* of an element */
	uint64_t off, bytes; /* what the block begins with; of the view */
	size_t at, have;     /* in the block */
	uint64_t max;
	bool json;
	struct npk_text *out;
	struct npk_err *err;
	char block[BLOCK];
};

static int cells_open(
	struct cells **out, struct npk_view *v, uint64_t max, bool json, struct npk_text *text, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct cells *c = malloc(sizeof(*c));

	if (c == NULL)
		return npk_fail(err, ENOMEM, "no memory for a text");
	c->view = v;
	c->dtype = info->dtype;
	c->size = npk_dtype_size(info->dtype);
	c->bytes = info->bytes;
	c->off = c->at = c->have = 0;
	c->max = max;
	c->json = json;
	c->out = text;
	c->err = err;
	*out = c;
	return 0;
}

/* The next element; there must be one. */
static int next(struct cells *c, const void **p)
{
	int rc;

	if (c->at == c->have) {
		c->off += c->have;
		c->at = 0;
		c->have = c->bytes - c->off < BLOCK ? (size_t)(c->bytes - c->off) : BLOCK;
		rc = npk_view_read(c->view, c->off, c->block, c->have, c->err);
		if (rc != 0)
			return rc;
	}
	*p = c->block + c->at;
	c->at += c->size;
	return 0;
}

/* Asked after every element and bracket, so that a shape with a zero in it cannot print for ever. */
static int check_size(const struct cells *c)
{
	if (c->out->bad)
		return npk_fail(c->err, ENOMEM, "no memory for the text");
	if (c->out->len > c->max)
		return npk_fail(
			c->err, E2BIG, "the text is longer than %" PRIu64 " bytes: use fmt=npy or a view", c->max);
	return 0;
}

/* --- numbers ---------------------------------------------------------------------------------------------------------- */

static double half_to_double(uint16_t h)
{
	int exponent = h >> 10 & 31;
	double m = h & 1023, value;

	if (exponent == 31)
		value = m != 0 ? (double)NAN : (double)INFINITY;
	else
		value = exponent == 0 ? ldexp(m, -24) : ldexp(m + 1024, exponent - 25);
	return h & 0x8000 ? -value : value;
}

/* The fewest digits, from `digits` on, that read back to the same value. The daemon runs in the C locale. */
static void print_real(struct npk_text *out, double x, int digits, bool single)
{
	char text[40];

	if (isnan(x)) {
		npk_text_printf(out, "nan");
		return;
	}
	for (;; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, x);
		if (isinf(x) || digits >= 17 || (single ? (double)strtof(text, NULL) == x : strtod(text, NULL) == x))
			break;
	}
	npk_text_printf(out, "%s", text);
}

void npkfs_cells_real(struct npk_text *out, double x)
{
	print_real(out, x, 15, false);
}

/* The real number at p, of the dtype or of a half of a complex one. */
static double load_real(unsigned dtype, const char *p)
{
	uint16_t h;
	float f;
	double d;

	switch (dtype) {
	case NPK_F16:
		memcpy(&h, p, sizeof(h));
		return half_to_double(le16toh(h));
	case NPK_F32:
	case NPK_C64:
		memcpy(&f, p, sizeof(f));
		return (double)f;
	default:
		memcpy(&d, p, sizeof(d));
		return d;
	}
}

static void print_float(struct cells *c, const char *p)
{
	bool single = c->dtype == NPK_F16 || c->dtype == NPK_F32 || c->dtype == NPK_C64;
	double x = load_real(c->dtype, p);

	if (c->json && !isfinite(x))
		npk_text_printf(c->out, "null");
	else
		print_real(c->out, x, single ? 6 : 15, single);
}

static void print_complex(struct cells *c, const char *p)
{
	const char *imag = p + c->size / 2;

	if (c->json)
		npk_text_add(c->out, "[", 1);
	print_float(c, p);
	if (c->json)
		npk_text_add(c->out, ", ", 2);
	else if (!signbit(load_real(c->dtype, imag)) || isnan(load_real(c->dtype, imag)))
		npk_text_add(c->out, "+", 1);
	print_float(c, imag);
	npk_text_add(c->out, c->json ? "]" : "j", 1);
}

static void print_integer(struct cells *c, const void *p)
{
	bool is_signed = c->dtype >= NPK_I8 && c->dtype <= NPK_I64;
	uint64_t u = 0;

	memcpy(&u, p, c->size); /* little-endian, as every machine that this is built for */
	if (is_signed && c->size < 8 && u >> (c->size * 8 - 1) != 0)
		u |= ~(uint64_t)0 << (c->size * 8);
	if (is_signed)
		npk_text_printf(c->out, "%" PRId64, (int64_t)u);
	else
		npk_text_printf(c->out, "%" PRIu64, u);
}

static int print_next(struct cells *c)
{
	const void *p;
	int rc = next(c, &p);

	if (rc != 0)
		return rc;
	if (c->dtype == NPK_C64 || c->dtype == NPK_C128)
		print_complex(c, p);
	else if (c->dtype == NPK_F16 || c->dtype == NPK_F32 || c->dtype == NPK_F64)
		print_float(c, p);
	else if (c->dtype == NPK_BOOL && c->json)
		npk_text_printf(c->out, *(const uint8_t *)p ? "true" : "false");
	else
		print_integer(c, p);
	return check_size(c);
}

/* --- layouts ---------------------------------------------------------------------------------------------------------- */

int npkfs_cells_text(struct npk_view *v, uint64_t max, struct npk_text *out, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct cells *c;
	int rc = cells_open(&c, v, max, false, out, err);
	uint64_t columns;

	if (rc != 0)
		return rc;
	columns = info->row_bytes / c->size;
	for (uint64_t row = 0; row < info->rows && rc == 0; row++) {
		for (uint64_t i = 0; i < columns && rc == 0; i++) {
			if (i > 0)
				npk_text_add(out, ",", 1);
			rc = print_next(c);
		}
		npk_text_add(out, "\n", 1);
		if (rc == 0)
			rc = check_size(c);
	}
	free(c);
	return rc;
}

static int print_axis(struct cells *c, const struct npk_shape *shape, unsigned axis)
{
	int rc = 0;

	if (axis == shape->ndim)
		return print_next(c);
	npk_text_add(c->out, "[", 1);
	for (uint64_t i = 0; i < shape->dim[axis] && rc == 0; i++) {
		if (i > 0)
			npk_text_add(c->out, ", ", 2);
		rc = print_axis(c, shape, axis + 1);
	}
	npk_text_add(c->out, "]", 1);
	return rc == 0 ? check_size(c) : rc;
}

int npkfs_cells_json(struct npk_view *v, uint64_t max, struct npk_text *out, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct cells *c;
	int rc = cells_open(&c, v, max, true, out, err);

	if (rc != 0)
		return rc;
	npk_text_printf(out, "{\"dtype\": \"%s\", \"shape\": [", npk_dtype_descr(info->dtype));
	for (unsigned i = 0; i < info->shape.ndim; i++)
		npk_text_printf(out, "%s%" PRIu64, i ? ", " : "", info->shape.dim[i]);
	npk_text_printf(out, "], \"data\": ");
	rc = print_axis(c, &info->shape, 0);
	npk_text_printf(out, "}\n");
	free(c);
	return rc;
}
