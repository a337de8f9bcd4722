/* import_csv.c - lines of numbers, as npk_csv_read() and numpy.savetxt() write them. Lines may end in \n or \r\n; elements
 * may stand in double quotes; blank lines, and what follows the comment character, count for nothing. */
#include "csv.h"
#include "import.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct csv {
	uint64_t line;    /* of the file, from 1 */
	uint64_t columns; /* elements of a row */
	char delimiter;   /* ' ': any number of blanks */
	bool told;        /* the one array was told */
	size_t size;
};

static int bad(const struct npk_source *src, struct npk_err *err, const char *what, const char *p, size_t len)
{
	const struct csv *c = src->state;

	return npk_fail(err, EINVAL, "%.200s: line %" PRIu64 ": %s '%.*s'", src->how.file, c->line, what,
		(int)(len < 60 ? len : 60), p);
}

/* The next line without its end, in src->in's buffer; *p NULL at the end of the file. */
static int take_line(struct npk_source *src, const char **p, size_t *len, struct npk_err *err)
{
	struct npki_in *in = &src->in;
	struct csv *c = src->state;
	const uint8_t *nl = memchr(in->buf + in->pos, '\n', in->have - in->pos);
	size_t n;

	if (!nl && !in->ended) {
		int rc = npki_in_fill(in, NPKI_IMPORT_BLOCK, err);

		if (rc != 0)
			return rc;
		nl = memchr(in->buf + in->pos, '\n', in->have - in->pos);
		if (!nl && !in->ended)
			return npk_fail(err, EINVAL, "%.200s: line %" PRIu64 ": longer than %zu bytes", in->file,
				c->line + 1, NPKI_IMPORT_BLOCK);
	}
	*p = NULL;
	if (in->have == in->pos)
		return 0;
	c->line++;
	*p = (const char *)in->buf + in->pos;
	n = nl ? (size_t)(nl - (in->buf + in->pos)) : in->have - in->pos;
	in->pos += n + (nl != NULL);
	in->at += n + (nl != NULL);
	*len = n;
	return 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Without comment and without blanks at its ends, unless a blank is a delimiter that has an element on both sides. */
static void trim(const struct npk_source *src, const char **p, const char **end)
{
	const char *comment = src->how.comment ? memchr(*p, src->how.comment, (size_t)(*end - *p)) : NULL;
	char keep = src->how.delimiter == ' ' ? 0 : src->how.delimiter;

	if (comment)
		*end = comment;
	while (*p < *end && is_blank(**p) && **p != keep)
		++*p;
	while (*p < *end && is_blank((*end)[-1]) && (*end)[-1] != keep)
		--*end;
}

/* The next element of a line; *p goes behind it and its delimiter, or to NULL behind the last. */
static void take_word(char delimiter, const char **p, const char *end, const char **word, size_t *len)
{
	const char *q = *p;

	*word = q;
	if (delimiter == ' ')
		while (q < end && !is_blank(*q))
			q++;
	else
		q = memchr(q, delimiter, (size_t)(end - q)) ?: end;
	*len = (size_t)(q - *word);
	if (q == end) {
		*p = NULL;
		return;
	}
	q++;
	while (delimiter == ' ' && is_blank(*q)) /* ends before `end`: no blank stands there */
		q++;
	*p = q;
}

static int take_element(struct npk_source *src, void *out, const char *word, size_t len, struct npk_err *err)
{
	int rc;

	while (len > 0 && is_blank(*word)) {
		word++;
		len--;
	}
	while (len > 0 && is_blank(word[len - 1]))
		len--;
	if (len > 1 && *word == '"' && word[len - 1] == '"') {
		word++;
		len -= 2;
	}
	rc = npk_element_parse(out, src->now.dtype, word, len);
	if (rc == 0)
		return 0;
	if (rc == -ERANGE)
		return bad(src, err, "the dtype does not hold", word, len);
	if (len == 0)
		return bad(src, err, "an element is missing", word, len);
	return bad(src, err,
		src->how.dtype < 0 ? "not what the lines before have (a dtype can be given):"
				   : "not a number of the dtype:",
		word, len);
}

/* --- the first lines -------------------------------------------------------------------------------------------------- */

static char guess_delimiter(const char *p, const char *end)
{
	static const char usual[] = {',', ';', '\t'};

	for (size_t i = 0; i < sizeof(usual); i++)
		if (memchr(p, usual[i], (size_t)(end - p)))
			return usual[i];
	return ' ';
}

/* The least of int64, float64 and complex128 that can read the word; NPK_DTYPE_COUNT when none can. */
static unsigned need(const char *word, size_t len, unsigned least)
{
	static const unsigned try[] = {NPK_I64, NPK_F64, NPK_C128};
	uint8_t element[16];

	if (len > 1 && *word == '"' && word[len - 1] == '"') {
		word++;
		len -= 2;
	}
	for (size_t i = 0; i < 3; i++)
		if (try[i] >= least && npk_element_parse(element, try[i], word, len) == 0)
			return try[i];
	return NPK_DTYPE_COUNT;
}

/* Looks at the lines that are in the buffer, and takes none of them. */
static int look_ahead(struct npk_source *src, struct npk_err *err)
{
	struct csv *c = src->state;
	struct npki_in *in = &src->in;
	const char *p = (const char *)in->buf + in->pos, *stop = (const char *)in->buf + in->have;
	unsigned dtype = NPK_I64;

	c->columns = 0;
	for (uint64_t line = c->line + 1; p < stop; line++) {
		const char *nl = memchr(p, '\n', (size_t)(stop - p)), *end = nl ? nl : stop, *next = nl ? nl + 1 : stop,
			   *word;
		uint64_t columns = 0;
		size_t len;

		if (!nl && !in->ended && c->columns > 0)
			break; /* the rest of the line is not here */
		trim(src, &p, &end);
		if (p < end && c->delimiter == 0)
			c->delimiter = guess_delimiter(p, end);
		for (const char *q = p < end ? p : NULL; q; columns++) {
			take_word(c->delimiter, &q, end, &word, &len);
			if (src->how.dtype < 0)
				dtype = need(word, len, dtype);
			if (dtype == NPK_DTYPE_COUNT) {
				c->line = line;
				return bad(src, err, "not a number:", word, len);
			}
		}
		if (c->columns == 0)
			c->columns = columns;
		p = next;
		if (src->how.dtype >= 0 && c->columns > 0)
			break;
	}
	src->now.dtype = src->how.dtype >= 0 ? (unsigned)src->how.dtype : dtype;
	return 0;
}

/* What one line is in the array. */
static int set_shape(struct npk_source *src, struct npk_err *err)
{
	const struct npk_shape *row = src->how.row;
	struct csv *c = src->state;
	uint64_t wanted = 1;

	if (!row) {
		src->now.shape.ndim = c->columns == 1 ? 1 : 2;
		src->now.shape.dim[1] = c->columns;
		return 0;
	}
	if (row->ndim >= NPK_MAX_NDIM)
		return npk_fail(err, EINVAL, "%.200s: a row of %u dimensions", src->how.file, row->ndim);
	src->now.shape.ndim = row->ndim + 1;
	for (unsigned i = 0; i < row->ndim; i++) {
		src->now.shape.dim[i + 1] = row->dim[i];
		if (__builtin_mul_overflow(wanted, row->dim[i], &wanted))
			return npk_fail(err, EINVAL, "%.200s: the shape overflows", src->how.file);
	}
	if (c->columns > 0 && c->columns != wanted)
		return npk_fail(err, EINVAL, "%.200s: lines of %" PRIu64 " elements, a row has %" PRIu64, src->how.file,
			c->columns, wanted);
	c->columns = wanted;
	return 0;
}

static int next(struct npk_source *src, struct npk_err *err)
{
	struct csv *c = src->state;
	const char *p;
	size_t len;
	int rc = 0;

	if (c && c->told)
		return 0;
	c = src->state = calloc(1, sizeof(*c));
	if (!c)
		return npk_fail(err, ENOMEM, "no memory");
	c->told = true;
	c->delimiter = src->how.delimiter;
	for (uint64_t i = 0; i < src->how.skip && rc == 0; i++) {
		rc = take_line(src, &p, &len, err);
		if (rc == 0 && !p)
			break;
	}
	if (rc == 0)
		rc = npki_in_fill(&src->in, NPKI_IMPORT_BLOCK, err);
	if (rc == 0)
		rc = look_ahead(src, err);
	if (rc == 0)
		rc = set_shape(src, err);
	if (rc == 0 && c->columns == 0)
		rc = npk_fail(err, EINVAL, "%.200s: no numbers: how many a row has must be said", src->how.file);
	c->size = npk_dtype_size(src->now.dtype);
	return rc == 0 ? 1 : rc;
}

/* --- the lines -------------------------------------------------------------------------------------------------------- */

/* One line's elements to the block, which has room for them. */
static int take_row(struct npk_source *src, const char *p, const char *end, struct npk_err *err)
{
	struct csv *c = src->state;
	uint8_t *out = src->block + src->filled;
	uint64_t n = 0;
	const char *word;
	size_t len;
	int rc = 0;

	for (const char *q = p; q && rc == 0; n++) {
		take_word(c->delimiter, &q, end, &word, &len);
		if (n == c->columns)
			return npk_fail(err, EINVAL, "%.200s: line %" PRIu64 ": more than %" PRIu64 " elements",
				src->how.file, c->line, c->columns);
		rc = take_element(src, out + n * c->size, word, len, err);
	}
	if (rc == 0 && n < c->columns)
		return npk_fail(err, EINVAL, "%.200s: line %" PRIu64 ": %" PRIu64 " elements, the first has %" PRIu64,
			src->how.file, c->line, n, c->columns);
	src->filled += (size_t)(n * c->size);
	return rc;
}

static int more(struct npk_source *src, struct npk_err *err)
{
	struct csv *c = src->state;
	size_t row = (size_t)c->columns * c->size;
	int rc = 0;

	if (c->columns > NPKI_IMPORT_BLOCK / c->size)
		return npk_fail(err, EINVAL, "%.200s: rows of %" PRIu64 " elements, at most %zu are possible",
			src->how.file, c->columns, NPKI_IMPORT_BLOCK / c->size);
	while (rc == 0 && src->filled <= NPKI_IMPORT_BLOCK - row) {
		const char *p = NULL, *end;
		size_t len = 0;

		rc = take_line(src, &p, &len, err);
		if (rc != 0 || !p)
			break;
		end = p + len;
		trim(src, &p, &end);
		if (p < end)
			rc = take_row(src, p, end, err);
	}
	return rc;
}

static void close_csv(struct npk_source *src)
{
	free(src->state);
}

const struct npki_format npki_import_csv = {.next = next, .more = more, .close = close_csv};
