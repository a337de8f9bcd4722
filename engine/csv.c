/* csv.c - rows as lines of text, made piece by piece as they are read. */
#include "csv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 65536
#define TEXT_BYTES 65536

struct npk_csv {
	struct npk_view *v;
	bool own_view;
	char delimiter;
	unsigned dtype;
	size_t size;  /* of an element */
	uint64_t off; /* the next block's first byte */
	uint64_t row_elements, column;
	uint64_t empty_lines; /* still to come, for rows without elements */
	size_t at, filled;    /* within block */
	size_t len, told;     /* of text */
	uint8_t block[BLOCK_BYTES];
	char text[TEXT_BYTES];
};

static void begin(struct npk_csv *c)
{
	const struct npk_view_info *info = npk_view_info(c->v);

	c->dtype = info->dtype;
	c->size = npk_dtype_size(info->dtype);
	c->row_elements = info->row_bytes / c->size;
	c->empty_lines = info->row_bytes == 0 ? info->rows : 0;
}

int npk_csv_open_view(struct npk_csv **out, struct npk_view *v, char delimiter, struct npk_err *err)
{
	struct npk_csv *c = calloc(1, sizeof(*c));

	if (!c)
		return npk_fail(err, ENOMEM, "csv: no memory");
	c->v = v;
	c->delimiter = delimiter;
	begin(c);
	*out = c;
	return 0;
}

int npk_csv_open(struct npk_csv **out, struct npk_gen *g, struct npk_err *err)
{
	struct npk_view *v;
	int rc = npk_view_open(&v, g, NULL, err);

	if (rc != 0)
		return rc;
	rc = npk_csv_open_view(out, v, ',', err);
	if (rc != 0)
		npk_view_close(v);
	else
		(*out)->own_view = true;
	return rc;
}

uint64_t npk_csv_at(const struct npk_csv *c)
{
	return c->off - (c->filled - c->at);
}

void npk_csv_close(struct npk_csv *c)
{
	if (!c)
		return;
	if (c->own_view)
		npk_view_close(c->v);
	free(c);
}

static int fill_block(struct npk_csv *c, struct npk_err *err)
{
	uint64_t left = npk_view_info(c->v)->bytes - c->off;
	size_t n = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
	int rc = n > 0 ? npk_view_read(c->v, c->off, c->block, n, err) : 0;

	if (rc != 0)
		return rc;
	c->off += n;
	c->at = 0;
	c->filled = n;
	return 0;
}

/* As much text as fits; none at the end. */
static int make_text(struct npk_csv *c, struct npk_err *err)
{
	int rc = 0;

	c->told = c->len = 0;
	for (; c->empty_lines > 0 && c->len < TEXT_BYTES; c->empty_lines--)
		c->text[c->len++] = '\n';
	if (c->at == c->filled && c->len == 0)
		rc = fill_block(c, err);
	while (c->at < c->filled && c->len < TEXT_BYTES - NPK_ELEMENT_MAX - 1) {
		c->len += npk_element_text(c->text + c->len, c->dtype, c->block + c->at);
		c->at += c->size;
		if (++c->column == c->row_elements)
			c->column = 0;
		c->text[c->len++] = c->column == 0 ? '\n' : c->delimiter;
	}
	return rc;
}

ssize_t npk_csv_read(struct npk_csv *c, void *buf, size_t len, struct npk_err *err)
{
	char *out = buf;
	size_t done = 0;
	int rc;

	while (done < len) {
		size_t n = c->len - c->told;

		if (n == 0) {
			rc = make_text(c, err);
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
