/* words.h - one line of a conversation as words (interface.md section 4, "line"). Pure. */
#ifndef NPKFS_WORDS_H
#define NPKFS_WORDS_H

#include <numpack.h>

#define NPKFS_WORDS_MAX 256

struct npkfs_words {
	int argc;
	char *argv[NPKFS_WORDS_MAX]; /* into the line; "key=value" stays one word */
};

/* Splits `line` (len bytes, without its newline, NUL-terminated) in place at blanks. A value may stand in double
 * quotes, in which \ takes the next byte as it is. -EINVAL: an open quote, a NUL byte, too many words. */
int npkfs_words_split(struct npkfs_words *w, char *line, size_t len, struct npk_err *err);
/* The value of the word `key`=..., or NULL. */
const char *npkfs_words_value(const struct npkfs_words *w, const char *key);

#endif
