/* names.c - %XX escapes of array names. One spelling per name: a component is accepted only when escaping its name
 * gives the same bytes again, so two paths never mean one array. */
#include "names.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 character at p (no overlong forms, no surrogates), 0 when there is none. */
static size_t utf8_len(const uint8_t *p, size_t len)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	if (n == 0 || n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
		(p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

/* How many bytes at p stand for themselves; 0: this byte is escaped. */
static size_t plain_len(const uint8_t *p, size_t len, bool first)
{
	if (p[0] < 0x20 || p[0] == 0x7f || p[0] == '/' || p[0] == '%' || (first && p[0] == '.'))
		return 0;
	return utf8_len(p, len);
}

bool npkfs_name_escape(char out[NPKFS_NAME_MAX + 1], const void *name, size_t len, const char *suffix)
{
	static const char hex[] = "0123456789ABCDEF";
	const uint8_t *p = name;
	size_t at = 0, n;

	if (len == 0)
		out[at++] = '%';
	for (size_t i = 0; i < len; i += n) {
		n = plain_len(p + i, len - i, i == 0);
		if (at + (n ? n : 3) > NPKFS_NAME_MAX)
			return false;
		if (n != 0) {
			memcpy(out + at, p + i, n);
			at += n;
		} else {
			out[at++] = '%';
			out[at++] = hex[p[i] >> 4];
			out[at++] = hex[p[i] & 15];
			n = 1;
		}
	}
	n = strlen(suffix);
	if (at + n > NPKFS_NAME_MAX)
		return false;
	memcpy(out + at, suffix, n + 1);
	return true;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Decodes %XX; false for a % without two digits. */
static bool decode(char *out, size_t *out_len, const char *part, size_t len)
{
	size_t at = 0;

	for (size_t i = 0; i < len; i++) {
		if (part[i] != '%') {
			out[at++] = part[i];
			continue;
		}
		if (len - i < 3 || hex_value(part[i + 1]) < 0 || hex_value(part[i + 2]) < 0)
			return false;
		out[at++] = (char)(hex_value(part[i + 1]) << 4 | hex_value(part[i + 2]));
		i += 2;
	}
	out[at] = '\0';
	*out_len = at;
	return true;
}

bool npkfs_name_unescape(char *out, size_t *out_len, const char *part, size_t len)
{
	char again[NPKFS_NAME_MAX + 1];

	if (len == 1 && part[0] == '%') {
		out[0] = '\0';
		*out_len = 0;
		return true;
	}
	return len > 0 && len <= NPKFS_NAME_MAX && decode(out, out_len, part, len) &&
	       npkfs_name_escape(again, out, *out_len, "") && strlen(again) == len && memcmp(again, part, len) == 0;
}

bool npkfs_percent_decode(char *out, const char *part, size_t len)
{
	size_t n;

	return decode(out, &n, part, len) && strlen(out) == n;
}

void npkfs_make_printable(char *text)
{
	uint8_t *p = (uint8_t *)text;
	size_t len = strlen(text), n;

	for (size_t i = 0; i < len; i += n ? n : 1) {
		n = p[i] < 0x20 || p[i] == 0x7f ? 0 : utf8_len(p + i, len - i);
		if (n == 0)
			p[i] = '?';
	}
}

bool npkfs_name_strip(const char *name, const char *suffix, size_t *len)
{
	size_t n = strlen(name), m = strlen(suffix);

	if (n < m || strcmp(name + n - m, suffix) != 0)
		return false;
	*len = n - m;
	return true;
}
