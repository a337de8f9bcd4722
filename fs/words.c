/* words.c - splits command lines. */
#include "words.h"

#include <errno.h>
#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Copies the quoted text that begins at *from down to *to; false when the quote does not end. */
static bool unquote(char **from, char **to)
{
	char *p = *from + 1, *q = *to;

	while (*p != '\0' && *p != '"') {
		if (*p == '\\' && p[1] != '\0')
			p++;
		*q++ = *p++;
	}
	*from = p + 1;
	*to = q;
	return *p == '"';
}

int npkfs_words_split(struct npkfs_words *w, char *line, size_t len, struct npk_err *err)
{
	char *p = line, *q;

	w->argc = 0;
	if (strlen(line) != len)
		return npk_fail(err, EINVAL, "a NUL byte in a command line");
	for (;;) {
		while (is_blank(*p))
			p++;
		if (*p == '\0')
			return 0;
		if (w->argc == NPKFS_WORDS_MAX)
			return npk_fail(err, EINVAL, "more than %d words in a command line", NPKFS_WORDS_MAX);
		w->argv[w->argc++] = q = p;
		while (*p != '\0' && !is_blank(*p)) {
			if (*p != '"')
				*q++ = *p++;
			else if (!unquote(&p, &q))
				return npk_fail(err, EINVAL, "a quote that does not end");
		}
		if (*p != '\0')
			p++; /* before *q, which may be this very byte, becomes the end of the word */
		*q = '\0';
	}
}

const char *npkfs_words_value(const struct npkfs_words *w, const char *key)
{
	size_t n = strlen(key);

	for (int i = 0; i < w->argc; i++)
		if (strncmp(w->argv[i], key, n) == 0 && w->argv[i][n] == '=')
			return w->argv[i] + n + 1;
	return NULL;
}
