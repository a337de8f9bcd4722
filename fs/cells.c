/* cells.c - prints elements, reading the view in small blocks. */
#include "cells.h"

#include <errno.h>
#include <inttypes.h>
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

void npkfs_cells_real(struct npk_text *out, double x)
{
	char text[NPK_ELEMENT_MAX];

	npk_text_add(out, text, npk_element_text(text, NPK_F64, &x));
}

/* JSON has no numbers that are not finite, no complex ones, and words for bool. */
static void print_json_real(struct cells *c, unsigned dtype, const void *p)
{
	char text[NPK_ELEMENT_MAX];
	size_t n = npk_element_text(text, dtype, p);

	if (memchr(text, 'n', n) != NULL) /* nan, inf, -inf */
		npk_text_printf(c->out, "null");
	else
		npk_text_add(c->out, text, n);
}

static void print_json(struct cells *c, const char *p)
{
	unsigned half = c->dtype == NPK_C64 ? NPK_F32 : NPK_F64;

	if (c->dtype == NPK_BOOL) {
		npk_text_printf(c->out, *p != 0 ? "true" : "false");
	} else if (c->dtype != NPK_C64 && c->dtype != NPK_C128) {
		print_json_real(c, c->dtype, p);
	} else {
		npk_text_add(c->out, "[", 1);
		print_json_real(c, half, p);
		npk_text_add(c->out, ", ", 2);
		print_json_real(c, half, p + c->size / 2);
		npk_text_add(c->out, "]", 1);
	}
}

static int print_next(struct cells *c)
{
	char text[NPK_ELEMENT_MAX];
	const void *p;
	int rc = next(c, &p);

	if (rc != 0)
		return rc;
	if (c->json)
		print_json(c, p);
	else
		npk_text_add(c->out, text, npk_element_text(text, c->dtype, p));
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
