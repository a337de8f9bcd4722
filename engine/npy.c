/* npy.c - the header of a .npy file: as np.save() writes it, and a strict reader of any that NumPy writes. The
 * grammar is the Python dict literal of NumPy's NEP 1 ("A simple file format for NumPy arrays"); nothing is evaluated. */
#include "numpack.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAGIC_LEN 8          /* "\x93NUMPY", major, minor */
#define GROWTH_DIGITS 21     /* NumPy leaves room for the first dimension to grow to so many digits */
#define HEADER_LEN_MAX 65535 /* NumPy itself refuses headers over 10,000 bytes */

size_t npk_npy_header(char out[NPK_NPY_HEADER_MAX], unsigned dtype, const struct npk_shape *shape, size_t align)
{
	char *p = out + MAGIC_LEN + 2;
	size_t cap = NPK_NPY_HEADER_MAX - MAGIC_LEN - 2, n = 0, total;
	char digits[24];

	n += (size_t)snprintf(p, cap, "{'descr': '%s', 'fortran_order': False, 'shape': (", npk_dtype_descr(dtype));
	for (unsigned i = 0; i < shape->ndim; i++)
		n += (size_t)snprintf(p + n, cap - n, "%s%" PRIu64, i ? ", " : "", shape->dim[i]);
	n += (size_t)snprintf(p + n, cap - n, "%s), }", shape->ndim == 1 ? "," : "");
	if (shape->ndim > 0) {
		size_t len = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, shape->dim[0]);

		n += (size_t)snprintf(p + n, cap - n, "%*s", (int)(GROWTH_DIGITS - len), "");
	}
	total = MAGIC_LEN + 2 + n + 1;  /* + the newline; a header that ends on the border gets a whole */
	total += align - total % align; /* unit more, as NumPy does */
	memset(p + n, ' ', total - MAGIC_LEN - 2 - n - 1);
	out[total - 1] = '\n';
	memcpy(out, "\x93NUMPY\x01\x00", MAGIC_LEN);
	out[MAGIC_LEN] = (char)((total - MAGIC_LEN - 2) & 0xFF);
	out[MAGIC_LEN + 1] = (char)((total - MAGIC_LEN - 2) >> 8);
	return total;
}

struct cursor {
	const char *p, *end;
};

static void skip_blanks(struct cursor *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
		c->p++;
}

static bool take(struct cursor *c, char want)
{
	skip_blanks(c);
	if (c->p == c->end || *c->p != want)
		return false;
	c->p++;
	return true;
}

static bool take_word(struct cursor *c, const char *word)
{
	size_t n = strlen(word);

	skip_blanks(c);
	if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n) != 0)
		return false;
	c->p += n;
	return true;
}

/* A quoted string without escapes, which NumPy never needs here. */
static bool take_string(struct cursor *c, char *out, size_t cap)
{
	const char *from;
	char quote;

	skip_blanks(c);
	if (c->p == c->end || (*c->p != '\'' && *c->p != '"'))
		return false;
	quote = *c->p++;
	for (from = c->p; c->p < c->end && *c->p != quote; c->p++)
		if (*c->p == '\\' || (size_t)(c->p - from) + 1 >= cap)
			return false;
	if (c->p == c->end)
		return false;
	memcpy(out, from, (size_t)(c->p - from));
	out[c->p - from] = 0;
	c->p++;
	return true;
}

static bool take_number(struct cursor *c, uint64_t *out)
{
	uint64_t v = 0;
	const char *from;

	skip_blanks(c);
	for (from = c->p; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*c->p - '0'), &v))
			return false;
	*out = v;
	return c->p > from;
}

static int parse_shape(struct cursor *c, struct npk_shape *shape, struct npk_err *err)
{
	bool comma = true;

	shape->ndim = 0;
	if (!take(c, '('))
		return npk_fail(err, EINVAL, ".npy header: the shape is not a tuple");
	while (!take(c, ')')) {
		if (!comma)
			return npk_fail(err, EINVAL, ".npy header: the shape is not a tuple of numbers");
		if (shape->ndim == NPK_MAX_NDIM)
			return npk_fail(err, EINVAL, ".npy header: more than %d dimensions", NPK_MAX_NDIM);
		if (!take_number(c, &shape->dim[shape->ndim]))
			return npk_fail(err, EINVAL, ".npy header: dimension %u is not a number of rows", shape->ndim);
		shape->ndim++;
		comma = take(c, ',');
	}
	if (shape->ndim == 1 && !comma) /* "(5)" is a number in Python, not a tuple */
		return npk_fail(err, EINVAL, ".npy header: the shape is not a tuple");
	return 0;
}

static int parse_descr(struct cursor *c, struct npk_npy *out, struct npk_err *err)
{
	char descr[16];
	char order;

	skip_blanks(c);
	if (c->p < c->end && *c->p == '[')
		return npk_fail(err, EINVAL, ".npy header: structured dtypes cannot be stored");
	if (!take_string(c, descr, sizeof(descr)) || descr[0] == 0)
		return npk_fail(err, EINVAL, ".npy header: descr is not a short string");
	order = descr[0];
	out->big_endian = false;
	if (order == '>')
		descr[0] = '<';
	if (npk_dtype_parse(descr, &out->dtype, NULL) != 0 || npk_dtype_descr(out->dtype)[0] == 0 ||
		(order != '<' && order != '>' && order != '|' && order != '='))
		return npk_fail(err, EINVAL, ".npy header: dtype '%.1s%s' cannot be stored", &order, descr + 1);
	if (order == '|' && npk_dtype_size(out->dtype) != 1)
		return npk_fail(err, EINVAL, ".npy header: dtype '|%s' has no byte order", descr + 1);
	out->big_endian = order == '>' && npk_dtype_size(out->dtype) > 1;
	return 0;
}

static int parse_pair(struct cursor *c, struct npk_npy *out, unsigned *seen, struct npk_err *err)
{
	static const char *const keys[] = {"descr", "fortran_order", "shape"};
	char key[16];
	unsigned k;

	if (!take_string(c, key, sizeof(key)) || !take(c, ':'))
		return npk_fail(err, EINVAL, ".npy header: not a dict of descr, fortran_order and shape");
	for (k = 0; k < 3 && strcmp(key, keys[k]) != 0; k++)
		;
	if (k == 3 || (*seen & 1u << k))
		return npk_fail(err, EINVAL, ".npy header: key '%s' is %s", key, k == 3 ? "unknown" : "there twice");
	*seen |= 1u << k;
	if (k == 0)
		return parse_descr(c, out, err);
	if (k == 2)
		return parse_shape(c, &out->shape, err);
	out->fortran_order = take_word(c, "True");
	if (!out->fortran_order && !take_word(c, "False"))
		return npk_fail(err, EINVAL, ".npy header: fortran_order is neither True nor False");
	return 0;
}

static int parse_dict(struct cursor *c, struct npk_npy *out, struct npk_err *err)
{
	unsigned seen = 0;
	bool comma = true;
	int rc;

	if (!take(c, '{'))
		return npk_fail(err, EINVAL, ".npy header: not a dict");
	while (!take(c, '}')) {
		if (!comma)
			return npk_fail(err, EINVAL, ".npy header: a comma is missing");
		rc = parse_pair(c, out, &seen, err);
		if (rc != 0)
			return rc;
		comma = take(c, ',');
	}
	if (seen != 7)
		return npk_fail(err, EINVAL, ".npy header: descr, fortran_order or shape is missing");
	skip_blanks(c);
	if (c->p != c->end)
		return npk_fail(err, EINVAL, ".npy header: something follows the dict");
	return 0;
}

static int data_length(struct npk_npy *out, struct npk_err *err)
{
	uint64_t len = npk_dtype_size(out->dtype), nonzero = len;
	bool over = false;

	for (unsigned i = 0; i < out->shape.ndim; i++) {
		uint64_t d = out->shape.dim[i];

		over |= __builtin_mul_overflow(nonzero, d ? d : 1, &nonzero) || nonzero > INT64_MAX;
		len = over ? 0 : len * d;
	}
	if (over)
		return npk_fail(err, EINVAL, ".npy header: the shape overflows");
	out->data_len = len;
	return 0;
}

int npk_npy_parse(const void *buf, size_t len, struct npk_npy *out, size_t *need, struct npk_err *err)
{
	const uint8_t *b = buf;
	struct npk_npy npy = {0};
	struct cursor c;
	size_t lead = 2, want = MAGIC_LEN + 4, hlen;
	int rc;

	if (memcmp(b, "\x93NUMPY", len < 6 ? len : 6) != 0)
		return npk_fail(err, EINVAL, ".npy header: the first bytes are not those of a .npy file");
	if (len >= MAGIC_LEN && (b[6] < 1 || b[6] > 3 || b[7] != 0))
		return npk_fail(err, EINVAL, ".npy header: version %u.%u is unknown", b[6], b[7]);
	if (len >= want) {
		lead = b[6] == 1 ? 2 : 4;
		hlen = (size_t)npki_le(b + MAGIC_LEN, (unsigned)lead);
		if (hlen > HEADER_LEN_MAX)
			return npk_fail(err, EINVAL, ".npy header: %zu bytes are too long", hlen);
		want = MAGIC_LEN + lead + hlen;
	}
	if (len < want) {
		if (need)
			*need = want;
		return npk_fail(err, EAGAIN, ".npy header: %zu bytes of it are here, %zu are needed", len, want);
	}
	c = (struct cursor){(const char *)b + MAGIC_LEN + lead, (const char *)b + want};
	npy.header_len = want;
	rc = parse_dict(&c, &npy, err);
	if (rc == 0)
		rc = data_length(&npy, err);
	if (rc == 0)
		*out = npy;
	return rc;
}
