/* deflate.h - streams of raw deflate, one after the other, in pieces that several threads compress at the same time. A piece ends
 * at a whole byte and may refer to the 32 KiB before it, so the pieces of a stream together are one ordinary stream. What comes
 * out does not depend on the number of threads. */
#ifndef NPKI_DEFLATE_H
#define NPKI_DEFLATE_H

#include "numpack.h"

#define NPKI_DEFLATE_PIECE ((size_t)512 << 10)

struct npki_deflate;

struct npki_deflated {
	const uint8_t *bytes;
	size_t len;
	bool last; /* the stream ends here */
};

/* Level 1 to 9. With fewer than two threads the pieces are compressed where they are taken. One thread at a time calls. */
int npki_deflate_open(struct npki_deflate **out, int level, unsigned threads, struct npk_err *err);
void npki_deflate_close(struct npki_deflate *d); /* may be NULL; pieces that nobody took are lost */
/* Where the next NPKI_DEFLATE_PIECE bytes of a stream go. NULL: all room is in use until a piece is taken. */
uint8_t *npki_deflate_room(struct npki_deflate *d);
/* So many bytes were put there; `last`: they end the stream. */
void npki_deflate_put(struct npki_deflate *d, size_t len, bool last);
/* The oldest piece, as soon as it is compressed; borrowed until the next call. 1; 0: there is none; -ENOMEM. */
int npki_deflate_take(struct npki_deflate *d, struct npki_deflated *out, struct npk_err *err);

#endif
