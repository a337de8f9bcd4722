/* say.c - messages and names: what comes from disk never reaches a terminal's control language. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *command;
static bool out_of_memory;

void npkt_say_as(const char *cmd)
{
	command = cmd;
}

/* Bytes of the well-formed UTF-8 character at p, 0 when there is none (RFC 3629: no surrogates, no overlong forms). */
static size_t utf8_len(const uint8_t *p, size_t left)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;

	if (n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
		(p[0] == 0xF4 && p[1] > 0x8F))
		return 0;
	return n;
}

/* How many bytes at p are a character that is only shown; 0: this byte must be escaped. A terminal acts on C0, DEL, C1
 * (U+0080..9F) and the marks that turn the direction of writing (U+200E, 200F, 202A..202E, 2066..2069). */
static size_t plain_len(const uint8_t *p, size_t left)
{
	size_t n = utf8_len(p, left);

	if (n == 1 && (p[0] < 0x20 || p[0] == 0x7F))
		return 0;
	if (n == 2 && p[0] == 0xC2 && p[1] < 0xA0)
		return 0;
	if (n == 3 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0x8E || p[2] == 0x8F || (p[2] >= 0xAA && p[2] <= 0xAE)))
		return 0;
	if (n == 3 && p[0] == 0xE2 && p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9)
		return 0;
	return n;
}

void npkt_put_escaped(FILE *out, const char *bytes, size_t len)
{
	const uint8_t *p = (const uint8_t *)bytes;
	size_t n;

	for (size_t i = 0; i < len; i += n ? n : 1) {
		n = plain_len(p + i, len - i);
		if (n == 0)
			fprintf(out, "\\x%02X", p[i]);
		else
			fwrite(p + i, 1, n, out);
	}
}

void npkt_put_name(FILE *out, const char *name, size_t len)
{
	if (isatty(fileno(out)))
		npkt_put_escaped(out, name, len);
	else
		fwrite(name, 1, len, out);
}

size_t npkt_name_width(FILE *out, const char *name, size_t len)
{
	const uint8_t *p = (const uint8_t *)name;
	bool escaped = isatty(fileno(out));
	size_t width = 0, n;

	for (size_t i = 0; i < len; i += n ? n : 1) {
		n = escaped ? plain_len(p + i, len - i) : 1;
		width += n == 0 ? 4 : (p[i] & 0xC0) != 0x80; /* a character is its first byte */
	}
	return width;
}

void npkt_chop(struct npk_text *text)
{
	if (text->len > 0 && text->p[text->len - 1] == '\n')
		text->p[--text->len] = 0;
}

void npkt_put_text(FILE *out, struct npk_text *text)
{
	out_of_memory |= text->bad;
	if (text->len > 0)
		fwrite(text->p, 1, text->len, out);
	npk_text_fini(text);
}

void npkt_complain(const char *fmt, ...)
{
	char line[NPK_ERR_MAX + 4096]; /* a path and a message */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fflush(stdout);
	fprintf(stderr, "npk%s%s: ", command ? " " : "", command ? command : "");
	npkt_put_escaped(stderr, line, strlen(line));
	putc('\n', stderr);
}

int npkt_failed(const struct npk_err *err)
{
	npkt_complain("%s", err->msg);
	return err->code == EBUSY ? NPKT_BUSY : NPKT_FAILED;
}

int npkt_failed_store(const char *path, const struct npk_err *err)
{
	if (strncmp(err->msg, path, strlen(path)) == 0)
		return npkt_failed(err);
	npkt_complain("%s: %s", path, err->msg);
	return err->code == EBUSY ? NPKT_BUSY : NPKT_FAILED;
}

int npkt_flush(int status)
{
	errno = 0;
	if (fflush(stdout) != 0 || ferror(stdout)) {
		npkt_complain("standard output: %s", strerror(errno ? errno : EIO));
		return NPKT_FAILED;
	}
	if (out_of_memory) {
		npkt_complain("no memory");
		return NPKT_FAILED;
	}
	return status;
}
