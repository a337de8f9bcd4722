/* json.c - see json.h. */
#include "json.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64

struct npki_json npki_json_init(const void *buf, size_t len, const char *path)
{
	const char *p = buf;

	return (struct npki_json){p, p, p + len, path};
}

int npki_json_fail(const struct npki_json *j, struct npk_err *err, const char *want)
{
	return npk_fail(err, EUCLEAN, "%.300s: byte %zu: %s is expected", j->path, (size_t)(j->p - j->start), want);
}

static void skip_blanks(struct npki_json *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
		j->p++;
}

bool npki_json_take(struct npki_json *j, char c)
{
	skip_blanks(j);
	if (j->p == j->end || *j->p != c)
		return false;
	j->p++;
	return true;
}

bool npki_json_at_end(struct npki_json *j)
{
	skip_blanks(j);
	return j->p == j->end;
}

static bool hex4(struct npki_json *j, uint32_t *out)
{
	uint32_t v = 0;

	if (j->end - j->p < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		char c = *j->p++;
		uint32_t d = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
			     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
			     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
						    : 16;
		if (d == 16)
			return false;
		v = v << 4 | d;
	}
	*out = v;
	return true;
}

static void put_utf8(struct npk_text *t, uint32_t c)
{
	char b[4];
	size_t n;

	if (c < 0x80) {
		b[0] = (char)c;
		n = 1;
	} else if (c < 0x800) {
		b[0] = (char)(0xC0 | c >> 6);
		b[1] = (char)(0x80 | (c & 0x3F));
		n = 2;
	} else if (c < 0x10000) {
		b[0] = (char)(0xE0 | c >> 12);
		b[1] = (char)(0x80 | (c >> 6 & 0x3F));
		b[2] = (char)(0x80 | (c & 0x3F));
		n = 3;
	} else {
		b[0] = (char)(0xF0 | c >> 18);
		b[1] = (char)(0x80 | (c >> 12 & 0x3F));
		b[2] = (char)(0x80 | (c >> 6 & 0x3F));
		b[3] = (char)(0x80 | (c & 0x3F));
		n = 4;
	}
	npk_text_add(t, b, n);
}

/* What follows a backslash. A surrogate counts only as a pair. */
static bool take_escape(struct npki_json *j, struct npk_text *t)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	uint32_t c, low;

	if (j->p == j->end)
		return false;
	if (*j->p != 'u') {
		at = *j->p ? strchr(from, *j->p) : NULL;
		j->p++;
		if (at)
			npk_text_add(t, &to[at - from], 1);
		return at != NULL;
	}
	j->p++;
	if (!hex4(j, &c) || c == 0 || (c >= 0xDC00 && c < 0xE000))
		return false;
	if (c >= 0xD800 && c < 0xDC00) {
		if (j->end - j->p < 6 || j->p[0] != '\\' || j->p[1] != 'u')
			return false;
		j->p += 2;
		if (!hex4(j, &low) || low < 0xDC00 || low > 0xDFFF)
			return false;
		c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
	}
	put_utf8(t, c);
	return true;
}

int npki_json_string(struct npki_json *j, char **out, struct npk_err *err)
{
	struct npk_text t = {0};
	bool ok;
	size_t n;

	skip_blanks(j);
	ok = npki_json_take(j, '"');
	npk_text_add(&t, "", 0);
	while (ok && j->p < j->end && *j->p != '"') {
		if (*j->p == '\\') {
			j->p++;
			ok = take_escape(j, &t);
			continue;
		}
		n = (uint8_t)*j->p < 0x20 ? 0 : npki_utf8_len((const uint8_t *)j->p, (size_t)(j->end - j->p));
		ok = n > 0;
		npk_text_add(&t, j->p, n);
		j->p += n;
	}
	if (ok && !t.bad && npki_json_take(j, '"')) {
		*out = t.p;
		return 0;
	}
	ok = t.bad;
	npk_text_fini(&t);
	return ok ? npk_fail(err, ENOMEM, "%.300s: no memory", j->path) : npki_json_fail(j, err, "a string");
}

int npki_json_uint(struct npki_json *j, uint64_t *out, struct npk_err *err)
{
	uint64_t v = 0;
	const char *from;

	skip_blanks(j);
	for (from = j->p; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*j->p - '0'), &v))
			return npki_json_fail(j, err, "a number below 2^63");
	if (j->p == from || (*from == '0' && j->p > from + 1) || v > INT64_MAX ||
		(j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E')))
		return npki_json_fail(j, err, "a whole number from 0 on");
	*out = v;
	return 0;
}

static int skip_number(struct npki_json *j, struct npk_err *err)
{
	const char *from = j->p;

	while (j->p < j->end && *j->p && strchr("+-0123456789.eE", *j->p))
		j->p++;
	return j->p > from ? 0 : npki_json_fail(j, err, "a value");
}

static int skip_word(struct npki_json *j, const char *word, struct npk_err *err)
{
	size_t n = strlen(word);

	if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0)
		return npki_json_fail(j, err, "a value");
	j->p += n;
	return 0;
}

static int skip_value(struct npki_json *j, unsigned depth, struct npk_err *err);

static int skip_string(struct npki_json *j, struct npk_err *err)
{
	char *s;
	int rc = npki_json_string(j, &s, err);

	if (rc == 0)
		free(s);
	return rc;
}

static int skip_members(struct npki_json *j, char close, unsigned depth, struct npk_err *err)
{
	int rc = 0;

	if (depth == DEPTH_MAX)
		return npki_json_fail(j, err, "less nesting");
	if (npki_json_take(j, close))
		return 0;
	do {
		if (close == '}') {
			rc = skip_string(j, err);
			if (rc == 0 && !npki_json_take(j, ':'))
				rc = npki_json_fail(j, err, "':'");
		}
		if (rc == 0)
			rc = skip_value(j, depth + 1, err);
	} while (rc == 0 && npki_json_take(j, ','));
	if (rc == 0 && !npki_json_take(j, close))
		rc = npki_json_fail(j, err, "',' or the end of the list");
	return rc;
}

static int skip_value(struct npki_json *j, unsigned depth, struct npk_err *err)
{
	skip_blanks(j);
	if (j->p == j->end)
		return npki_json_fail(j, err, "a value");
	switch (*j->p) {
	case '{':
	case '[':
		return skip_members(j, *j->p++ == '{' ? '}' : ']', depth, err);
	case '"':
		return skip_string(j, err);
	case 't':
		return skip_word(j, "true", err);
	case 'f':
		return skip_word(j, "false", err);
	case 'n':
		return skip_word(j, "null", err);
	default:
		return skip_number(j, err);
	}
}

int npki_json_skip(struct npki_json *j, struct npk_err *err)
{
	return skip_value(j, 0, err);
}
