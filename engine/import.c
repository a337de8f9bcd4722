/* import.c - arrays out of foreign files, whatever the format: blocks of elements, put in order when the file has them in
 * another one. Also the two formats that need nothing more: .npy and raw. */
#include "import.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int npki_source_context(const struct npk_source *src, int rc, struct npk_err *err)
{
	return npk_err_context(err, rc, "%.200s", src->how.file);
}

/* --- input ------------------------------------------------------------------------------------------------------------ */

int npki_in_fill(struct npki_in *in, size_t want, struct npk_err *err)
{
	if (in->pos > 0 && in->pos + want > NPKI_IMPORT_BLOCK) {
		memmove(in->buf, in->buf + in->pos, in->have - in->pos);
		in->have -= in->pos;
		in->pos = 0;
	}
	while (!in->ended && in->have - in->pos < want) {
		ssize_t n = read(in->fd, in->buf + in->have, NPKI_IMPORT_BLOCK - in->have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return npk_fail(err, errno, "%.200s: %s", in->file, strerror(errno));
		in->ended = n == 0;
		in->have += (size_t)n;
	}
	return 0;
}

/* What stands in the buffer is used up: up to `len` bytes straight to `out`. How many; 0 at the end. */
static ssize_t read_past(struct npki_in *in, void *out, size_t len, struct npk_err *err)
{
	ssize_t n;

	do
		n = read(in->fd, out, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return npk_fail(err, errno, "%.200s: %s", in->file, strerror(errno));
	in->ended = n == 0;
	in->at += (uint64_t)n;
	return n;
}

static int ends_early(const struct npki_in *in, size_t more, struct npk_err *err)
{
	return npk_fail(
		err, EINVAL, "%.200s: ends at byte %" PRIu64 ", %zu bytes before it should", in->file, in->at, more);
}

int npki_in_read(struct npki_in *in, void *out, size_t len, struct npk_err *err)
{
	uint8_t *to = out;

	while (len > 0) {
		size_t n = in->have - in->pos;
		int rc;

		if (n == 0 && len >= NPKI_IMPORT_BLOCK / 4 && !in->ended) {
			ssize_t past = read_past(in, to, len, err);

			if (past < 0)
				return (int)past;
			to += past;
			len -= (size_t)past;
			continue;
		}
		rc = n > 0 ? 0 : npki_in_fill(in, 1, err);
		if (rc != 0)
			return rc;
		n = in->have - in->pos;
		if (n == 0)
			return ends_early(in, len, err);
		n = n < len ? n : len;
		memcpy(to, in->buf + in->pos, n);
		in->pos += n;
		in->at += n;
		to += n;
		len -= n;
	}
	return 0;
}

static int write_all(int fd, const uint8_t *p, size_t len, struct npk_err *err)
{
	for (ssize_t n; len > 0; p += n, len -= (size_t)n) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return npk_fail(err, errno, "a temporary file: %s", strerror(errno));
	}
	return 0;
}

int npki_in_spool(struct npki_in *in, int *out, struct npk_err *err)
{
	int fd = npk_temp_file(err), rc = fd < 0 ? fd : 0;

	while (rc == 0) {
		rc = npki_in_fill(in, 1, err);
		if (rc != 0 || in->have == in->pos)
			break;
		rc = write_all(fd, in->buf + in->pos, in->have - in->pos, err);
		in->at += in->have - in->pos;
		in->pos = in->have;
	}
	if (rc != 0 && fd >= 0)
		close(fd);
	if (rc == 0)
		*out = fd;
	return rc;
}

/* --- order ------------------------------------------------------------------------------------------------------------ */

static void swap_bytes(uint8_t *p, size_t len, unsigned unit)
{
	for (size_t at = 0; at < len; at += unit)
		for (unsigned i = 0; i < unit / 2; i++) {
			uint8_t b = p[at + i];

			p[at + i] = p[at + unit - 1 - i];
			p[at + unit - 1 - i] = b;
		}
}

static uint64_t row_elements(const struct npk_shape *shape)
{
	uint64_t n = 1;

	for (unsigned i = 1; i < shape->ndim; i++)
		n *= shape->dim[i];
	return n;
}

/* The array in a temporary file, which is mapped. */
static int map_fortran(struct npk_source *src, struct npk_err *err)
{
	int fd = npk_temp_file(err), rc = fd < 0 ? fd : 0;
	uint64_t len = src->left;

	src->f.element = 0;
	src->f.elements = len / npk_dtype_size(src->now.dtype);
	src->f.columns = row_elements(&src->now.shape);
	for (uint64_t left = len; left > 0 && rc == 0;) {
		size_t n = left < NPKI_IMPORT_BLOCK ? (size_t)left : NPKI_IMPORT_BLOCK;

		rc = src->format->pull(src, src->block, n, err);
		if (rc == 0)
			rc = write_all(fd, src->block, n, err);
		left -= n;
		src->left = left;
	}
	if (rc == 0 && len > 0) {
		src->f.map = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0);
		if (src->f.map == MAP_FAILED) {
			src->f.map = NULL;
			rc = npk_fail(err, errno, "%.200s: mmap: %s", src->how.file, strerror(errno));
		}
		src->f.map_len = (size_t)len;
	}
	src->f.data = src->f.map;
	if (fd >= 0)
		close(fd);
	return rc;
}

static void unmap(struct npk_source *src)
{
	if (src->f.map)
		munmap(src->f.map, src->f.map_len);
	memset(&src->f, 0, sizeof(src->f));
}

/* Element j of a row, in C order, begins a column at this element of the file. The first axis runs fastest. */
static uint64_t column_start(const struct npk_shape *shape, uint64_t j)
{
	uint64_t at = 0, stride = shape->dim[0];
	uint64_t index[NPK_MAX_NDIM];

	for (unsigned i = shape->ndim; i-- > 1; j /= shape->dim[i])
		index[i] = j % shape->dim[i];
	for (unsigned i = 1; i < shape->ndim; stride *= shape->dim[i++])
		at += index[i] * stride;
	return at;
}

static void copy_column(uint8_t *to, size_t to_step, const uint8_t *from, uint64_t n, size_t size)
{
	for (uint64_t i = 0; i < n; i++, to += to_step, from += size)
		memcpy(to, from, size);
}

/* The next block: whole rows while they are small, else a piece of one. */
static void gather(struct npk_source *src)
{
	size_t size = npk_dtype_size(src->now.dtype);
	uint64_t columns = src->f.columns, row = src->f.element / columns, first = src->f.element % columns;
	uint64_t fit = NPKI_IMPORT_BLOCK / size, rows = first == 0 ? fit / columns : 0, n = columns;

	if (rows > src->now.shape.dim[0] - row)
		rows = src->now.shape.dim[0] - row;
	if (rows == 0) {
		rows = 1;
		n = columns - first < fit ? columns - first : fit;
	}
	for (uint64_t j = 0; j < n; j++)
		copy_column(src->block + j * size, n * size,
			src->f.data + (column_start(&src->now.shape, first + j) + row) * size, rows, size);
	src->filled = (size_t)(rows * n * size);
	src->f.element += rows * n;
}

/* --- the calls -------------------------------------------------------------------------------------------------------- */

static const struct npki_format *const formats[NPK_FORMAT_COUNT] = {
	[NPK_FORMAT_NPY] = &npki_import_npy,
	[NPK_FORMAT_NPZ] = &npki_import_npz,
	[NPK_FORMAT_CSV] = &npki_import_csv,
	[NPK_FORMAT_TENSORS] = &npki_import_tensors,
	[NPK_FORMAT_RAW] = &npki_import_raw,
};

int npk_source_open(struct npk_source **out, int fd, const struct npk_source_how *how, struct npk_err *err)
{
	struct npk_source *src;

	if ((unsigned)how->format >= NPK_FORMAT_COUNT)
		return npk_fail(err, EINVAL, "%.200s: format %d is unknown", how->file, (int)how->format);
	if (how->dtype >= NPK_DTYPE_COUNT)
		return npk_fail(err, EINVAL, "%.200s: dtype %d is unknown", how->file, how->dtype);
	src = calloc(1, sizeof(*src));
	if (!src)
		return npk_fail(err, ENOMEM, "no memory");
	src->how = *how;
	src->format = formats[how->format];
	src->in = (struct npki_in){.fd = fd, .file = how->file, .buf = malloc(NPKI_IMPORT_BLOCK)};
	src->block = malloc(NPKI_IMPORT_BLOCK);
	if (!src->in.buf || !src->block) {
		npk_source_close(src);
		return npk_fail(err, ENOMEM, "no memory");
	}
	*out = src;
	return 0;
}

uint64_t npk_source_at(const struct npk_source *src)
{
	return src->in.at;
}

void npk_source_close(struct npk_source *src)
{
	if (!src)
		return;
	if (src->format->close)
		src->format->close(src);
	unmap(src);
	free(src->in.buf);
	free(src->block);
	free(src);
}

int npk_source_next(struct npk_source *src, struct npk_source_array *out, struct npk_err *err)
{
	const void *skipped;
	size_t n = 1;
	int rc = 0;

	while (rc == 0 && n > 0 && src->now.shape.ndim + src->left > 0)
		rc = npk_source_read(src, &skipped, &n, err);
	unmap(src);
	if (rc != 0)
		return rc;
	memset(&src->now, 0, sizeof(src->now));
	src->left = src->swap = 0;
	src->fortran = src->checked = false;
	rc = src->format->next(src, err);
	if (rc != 1)
		return rc;
	if (src->fortran && src->now.shape.ndim > 1) {
		rc = map_fortran(src, err);
		if (rc != 0)
			return rc;
	} else {
		src->fortran = false; /* the orders are the same */
	}
	*out = src->now;
	return 1;
}

static int pull_block(struct npk_source *src, struct npk_err *err)
{
	size_t n = src->left < NPKI_IMPORT_BLOCK ? (size_t)src->left : NPKI_IMPORT_BLOCK;
	int rc = n > 0 ? src->format->pull(src, src->block, n, err) : 0;

	if (rc == 0) {
		src->left -= n;
		src->filled = n;
	}
	return rc;
}

int npk_source_read(struct npk_source *src, const void **bytes, size_t *len, struct npk_err *err)
{
	int rc = 0;

	src->filled = 0;
	if (src->fortran && src->f.element < src->f.elements)
		gather(src);
	else if (src->format->more && !src->now.rows_known)
		rc = src->format->more(src, err);
	else if (!src->fortran)
		rc = pull_block(src, err);
	if (rc == 0 && src->filled == 0 && src->format->check && !src->checked) {
		rc = src->format->check(src, err);
		src->checked = true;
	}
	if (rc != 0)
		return rc;
	if (src->swap)
		swap_bytes(src->block, src->filled, src->swap);
	*bytes = src->block;
	*len = src->filled;
	return 0;
}

/* --- .npy ------------------------------------------------------------------------------------------------------------- */

void npki_source_npy(struct npk_source *src, const struct npk_npy *npy)
{
	size_t size = npk_dtype_size(npy->dtype);
	bool pairs = npy->dtype == NPK_C64 || npy->dtype == NPK_C128;

	src->now.dtype = npy->dtype;
	src->now.shape = npy->shape;
	src->now.rows_known = true;
	src->left = npy->data_len;
	src->fortran = npy->fortran_order;
	src->swap = npy->big_endian && size > 1 ? (unsigned)(pairs ? size / 2 : size) : 0;
}

static int next_npy(struct npk_source *src, struct npk_err *err)
{
	struct npki_in *in = &src->in;
	struct npk_npy npy;
	size_t need = 1, have = 0;
	int rc;

	do {
		rc = npki_in_fill(in, need, err);
		have = in->have - in->pos;
		if (rc != 0 || have == 0)
			return rc;
		if (have < need)
			return npk_fail(err, EINVAL, "%.200s: byte %" PRIu64 ": the .npy header is cut short", in->file,
				in->at);
		rc = npk_npy_parse(in->buf + in->pos, have, &npy, &need, err);
	} while (rc == -EAGAIN && need <= NPKI_IMPORT_BLOCK);
	if (rc != 0)
		return npk_err_context(err, rc, "%.200s: byte %" PRIu64, in->file, in->at);
	in->pos += npy.header_len;
	in->at += npy.header_len;
	npki_source_npy(src, &npy);
	return 1;
}

static int pull_in(struct npk_source *src, void *out, size_t len, struct npk_err *err)
{
	return npki_in_read(&src->in, out, len, err);
}

const struct npki_format npki_import_npy = {.next = next_npy, .pull = pull_in};

/* --- raw -------------------------------------------------------------------------------------------------------------- */

static int next_raw(struct npk_source *src, struct npk_err *err)
{
	static const struct npk_shape none = {0};
	const struct npk_shape *row = src->how.row ? src->how.row : &none;

	if (src->state) /* the one array was told */
		return 0;
	if (src->how.dtype < 0)
		return npk_fail(err, EINVAL, "%.200s: raw elements need a dtype", src->how.file);
	if (row->ndim >= NPK_MAX_NDIM)
		return npk_fail(err, EINVAL, "%.200s: a row of %u dimensions", src->how.file, row->ndim);
	src->now.dtype = (unsigned)src->how.dtype;
	src->now.shape.ndim = row->ndim + 1;
	memcpy(src->now.shape.dim + 1, row->dim, row->ndim * sizeof(*row->dim));
	src->state = src;
	return 1;
}

/* Whole elements; bytes that are none at the end are an error. */
static int more_raw(struct npk_source *src, struct npk_err *err)
{
	struct npki_in *in = &src->in;
	size_t size = npk_dtype_size(src->now.dtype), n;
	int rc = npki_in_fill(in, NPKI_IMPORT_BLOCK / 2, err);

	if (rc != 0)
		return rc;
	n = in->have - in->pos;
	if (n > 0 && n < size)
		return npk_fail(err, EINVAL, "%.200s: byte %" PRIu64 ": %zu bytes are left, an element has %zu",
			in->file, in->at, n, size);
	src->filled = n - n % size;
	return npki_in_read(in, src->block, src->filled, err);
}

const struct npki_format npki_import_raw = {.next = next_raw, .more = more_raw};
