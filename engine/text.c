/* text.c - a growing text buffer, and strings as JSON and in messages. */
#include "text.h"
#include "wire.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool npki_text_reserve(struct npk_text *t, size_t more)
{
	size_t cap = t->cap ? t->cap : 256;
	char *p;

	if (t->bad || more >= SIZE_MAX / 2 - t->len) {
		t->bad = true;
		return false;
	}
	while (cap < t->len + more + 1)
		cap *= 2;
	if (cap == t->cap)
		return true;
	p = realloc(t->p, cap);
	if (!p) {
		t->bad = true;
		return false;
	}
	t->p = p;
	t->cap = cap;
	return true;
}

void npk_text_add(struct npk_text *t, const void *bytes, size_t len)
{
	if (!npki_text_reserve(t, len))
		return;
	if (len)
		memcpy(t->p + t->len, bytes, len);
	t->len += len;
	t->p[t->len] = 0;
}

void npk_text_printf(struct npk_text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !npki_text_reserve(t, (size_t)n)) {
		t->bad = true;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(t->p + t->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	t->len += (size_t)n;
}

/* The length of the UTF-8 sequence at p, or 0 when there is none (RFC 3629: no surrogates, no overlong forms). */
size_t npki_utf8_len(const uint8_t *p, size_t left)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;

	if (n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	if (n == 3 && ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)))
		return 0;
	if (n == 4 && ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)))
		return 0;
	return n;
}

bool npki_is_utf8(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = npki_utf8_len(p + i, len - i);
		if (n == 0)
			return false;
	}
	return true;
}

void npk_text_json(struct npk_text *t, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	size_t n;

	npk_text_add(t, "\"", 1);
	for (size_t i = 0; i < len; i += n) {
		n = npki_utf8_len(p + i, len - i);
		if (n == 0) {
			npk_text_add(t, "\xEF\xBF\xBD", 3);
			n = 1;
		} else if (p[i] == '"' || p[i] == '\\') {
			npk_text_printf(t, "\\%c", p[i]);
		} else if (p[i] < 0x20) {
			npk_text_printf(t, "\\u%04x", p[i]);
		} else {
			npk_text_add(t, p + i, n);
		}
	}
	npk_text_add(t, "\"", 1);
}

void npki_text_le(struct npk_text *t, uint64_t v, unsigned bytes)
{
	uint8_t le[8];

	npki_set_le(le, v, bytes);
	npk_text_add(t, le, bytes);
}

void npk_text_fini(struct npk_text *t)
{
	if (!t)
		return;
	free(t->p);
	*t = (struct npk_text){0};
}

const char *npki_show(char out[NPKI_SHOW_MAX], const void *bytes, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";
	const uint8_t *p = bytes;
	size_t n = 0, i;

	for (i = 0; i < len && n + 8 < NPKI_SHOW_MAX; i++) {
		if (p[i] < 0x20 || p[i] == 0x7F || p[i] == '\\') {
			out[n++] = '\\';
			out[n++] = 'x';
			out[n++] = hex[p[i] >> 4];
			out[n++] = hex[p[i] & 15];
		} else {
			out[n++] = (char)p[i];
		}
	}
	memcpy(out + n, i < len ? "..." : "", i < len ? 4 : 1);
	return out;
}
