/* json.h - a reader of JSON that keeps nothing: the caller asks for the token it expects (RFC 8259). */
#ifndef NPKI_JSON_H
#define NPKI_JSON_H

#include "numpack.h"

struct npki_json {
	const char *start, *p, *end;
	const char *path; /* for messages */
};

struct npki_json npki_json_init(const void *buf, size_t len, const char *path);
/* Takes `c` if it is the next character after blanks. */
bool npki_json_take(struct npki_json *j, char c);
/* A string, unescaped, NUL-terminated and malloc'd; a NUL inside is refused. */
int npki_json_string(struct npki_json *j, char **out, struct npk_err *err);
/* A whole number from 0 to 2^63 - 1. */
int npki_json_uint(struct npki_json *j, uint64_t *out, struct npk_err *err);
/* Any value, nested at most 64 deep. */
int npki_json_skip(struct npki_json *j, struct npk_err *err);
bool npki_json_at_end(struct npki_json *j);                                           /* nothing but blanks is left */
int npki_json_fail(const struct npki_json *j, struct npk_err *err, const char *want); /* -EUCLEAN with the byte */

#endif
