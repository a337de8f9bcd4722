/* convert.c - see convert.h.
 *
 * In Fortran order the first axis runs fastest: the bytes are one column of `rows` elements after another, a column for each
 * element of a row. A block of rows is made at a time, so that what is written goes out in order; the read of a column gets
 * the block's part of it, and of several columns at once when the block has all rows. */
#include "convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)8 << 20)

/* --- endianness ----------------------------------------------------------------------------------------------------------- */

static void swap_bytes(uint8_t *p, size_t len, size_t unit)
{
	for (size_t at = 0; at + unit <= len; at += unit)
		for (size_t i = 0; i < unit / 2; i++) {
			uint8_t b = p[at + i];

			p[at + i] = p[at + unit - 1 - i];
			p[at + unit - 1 - i] = b;
		}
}

/* A complex number is two numbers. */
static size_t swap_unit(const struct npk_npy *npy)
{
	size_t size = npk_dtype_size(npy->dtype);

	return npy->dtype == NPK_C64 || npy->dtype == NPK_C128 ? size / 2 : size;
}

static int copy_swapped(struct npk_save *from, const struct npk_npy *npy, struct npk_save *to, struct npk_err *err)
{
	uint8_t *buf = malloc(BLOCK_BYTES);
	int rc = buf != NULL ? 0 : npk_fail(err, ENOMEM, "no memory to convert");
	size_t n;

	for (uint64_t at = 0; at < npy->data_len && rc == 0; at += n) {
		n = npy->data_len - at < BLOCK_BYTES ? (size_t)(npy->data_len - at) : BLOCK_BYTES;
		rc = npk_save_pread(from, at, buf, n, err);
		if (rc == 0) {
			swap_bytes(buf, n, swap_unit(npy));
			rc = npk_save_write(to, buf, n, err);
		}
	}
	free(buf);
	return rc;
}

/* --- order ---------------------------------------------------------------------------------------------------------------- */

struct transpose {
	struct npk_save *from;
	const struct npk_npy *npy;
	size_t size;            /* of an element */
	uint64_t rows, columns; /* columns: elements of a row */
	uint8_t *in, *out;      /* BLOCK_BYTES each, or a row if that is more */
	size_t in_bytes;
};

/* Column number c in the file's order is which element of a row? */
static uint64_t place_of(const struct npk_shape *shape, uint64_t c)
{
	uint64_t index[NPK_MAX_NDIM], place = 0;

	for (unsigned i = 1; i < shape->ndim; i++) {
		index[i] = c % shape->dim[i];
		c /= shape->dim[i];
	}
	for (unsigned i = 1; i < shape->ndim; i++)
		place = place * shape->dim[i] + index[i];
	return place;
}

/* Spreads `n` elements of one column over the rows of t->out. */
static void spread(const struct transpose *t, const uint8_t *column, uint64_t n, uint64_t place)
{
	uint8_t *to = t->out + place * t->size;

	for (uint64_t r = 0; r < n; r++, to += t->columns * t->size, column += t->size)
		memcpy(to, column, t->size);
}

/* Rows [first, first + n) to t->out. */
static int gather(const struct transpose *t, uint64_t first, uint64_t n, struct npk_err *err)
{
	uint64_t at_once = n == t->rows && t->in_bytes / t->size / n > 0 ? t->in_bytes / t->size / n : 1;
	int rc = 0;

	for (uint64_t c = 0; c < t->columns && rc == 0; c += at_once) {
		if (at_once > t->columns - c)
			at_once = t->columns - c;
		rc = npk_save_pread(t->from, (c * t->rows + first) * t->size, t->in, at_once * n * t->size, err);
		for (uint64_t i = 0; i < at_once && rc == 0; i++)
			spread(t, t->in + i * n * t->size, n, place_of(&t->npy->shape, c + i));
	}
	return rc;
}

static int write_transposed(struct transpose *t, struct npk_save *to, struct npk_err *err)
{
	uint64_t row_bytes = t->columns * t->size, block = BLOCK_BYTES / row_bytes, n;
	int rc = 0;

	block = block > 0 ? block : 1;
	t->in_bytes = block * t->size > BLOCK_BYTES ? block * t->size : BLOCK_BYTES;
	t->in = malloc(t->in_bytes);
	t->out = malloc(block * row_bytes);
	if (t->in == NULL || t->out == NULL)
		return npk_fail(err, ENOMEM, "no memory to convert rows of %llu bytes", (unsigned long long)row_bytes);
	for (uint64_t r = 0; r < t->rows && rc == 0; r += n) {
		n = t->rows - r < block ? t->rows - r : block;
		rc = gather(t, r, n, err);
		if (rc == 0 && t->npy->big_endian)
			swap_bytes(t->out, n * row_bytes, swap_unit(t->npy));
		if (rc == 0)
			rc = npk_save_write(to, t->out, n * row_bytes, err);
	}
	return rc;
}

int npkfs_convert(struct npk_save *from, const struct npk_npy *npy, struct npk_save *to, struct npk_err *err)
{
	struct transpose t = {.from = from, .npy = npy, .size = npk_dtype_size(npy->dtype)};
	int rc;

	if (!npy->fortran_order || npy->shape.ndim < 2 || npy->data_len == 0)
		return copy_swapped(from, npy, to, err);
	t.rows = npy->shape.dim[0];
	t.columns = npy->data_len / t.size / t.rows;
	rc = write_transposed(&t, to, err);
	free(t.in);
	free(t.out);
	return rc;
}

void npkfs_convert_memory(const void *from, const struct npk_npy *npy, void *to)
{
	struct transpose t = {.npy = npy, .size = npk_dtype_size(npy->dtype), .out = to};

	if (npy->fortran_order && npy->shape.ndim > 1 && npy->data_len > 0) {
		t.rows = npy->shape.dim[0];
		t.columns = npy->data_len / t.size / t.rows;
		for (uint64_t c = 0; c < t.columns; c++)
			spread(&t, (const uint8_t *)from + c * t.rows * t.size, t.rows, place_of(&npy->shape, c));
	} else {
		memcpy(to, from, npy->data_len);
	}
	if (npy->big_endian)
		swap_bytes(to, npy->data_len, swap_unit(npy));
}
