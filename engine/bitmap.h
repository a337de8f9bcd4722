/* bitmap.h - deleted_<name>.npkb: which of its forms a file has (FORMAT.md, "deletion bitmap"). */
#ifndef NPKI_BITMAP_H
#define NPKI_BITMAP_H

#include "notes.h"

#define NPKI_BITMAP_HEAD 16

struct npki_bitmap_form {
	bool header;       /* 16 bytes of row count and deleted count before the words */
	uint64_t rows;     /* that the file covers: at least nslots */
	uint64_t deleted;  /* as the header says; the bits win */
	uint64_t words_at; /* byte where the words begin */
};

/* `head` holds the first min(len, 16) bytes of a file of `len` bytes, `nslots` is the array's first dimension and
 * `nheld` the number of rows that its data files really hold. -EUCLEAN: no form fits, or the bitmap is for another
 * number of rows. `file` is for messages. */
int npki_bitmap_form(const uint8_t *head, uint64_t len, uint64_t nslots, uint64_t nheld, const char *file,
	struct npki_bitmap_form *out, struct npki_notes *notes, struct npk_err *err);

#endif
