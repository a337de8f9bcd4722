/* text.h - UTF-8, and how names from disk look in messages. */
#ifndef NPKI_TEXT_H
#define NPKI_TEXT_H

#include "numpack.h"

size_t npki_utf8_len(const uint8_t *p, size_t left); /* of the sequence at p; 0: not UTF-8. left >= 1 */
bool npki_is_utf8(const void *bytes, size_t len);

/* A little-endian value. */
void npki_text_le(struct npk_text *t, uint64_t v, unsigned bytes);
/* Room for `more` bytes and a NUL behind what there is; false, and `bad`, without memory. */
bool npki_text_reserve(struct npk_text *t, size_t more);

#define NPKI_SHOW_MAX 128
/* A name for a message: control bytes as \xNN, long ones cut with "...". Returns `out`. */
const char *npki_show(char out[NPKI_SHOW_MAX], const void *bytes, size_t len);

#endif
