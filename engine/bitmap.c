/* bitmap.c - tells the two forms of a bitmap file apart, and whether it belongs to the array as it is now. Neither hides
 * nor revives a row by guessing: what does not fit exactly is damage. */
#include "bitmap.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>

static uint64_t words_for(uint64_t rows)
{
	return rows / 64 + (rows % 64 != 0); /* rows may be 2^64 - 1 */
}

/* The header form: its row count against the array's. */
static int check_rows(const struct npki_bitmap_form *f, uint64_t nslots, uint64_t nheld, const char *file,
	struct npki_notes *notes, struct npk_err *err)
{
	if (f->rows < nslots)
		return npk_fail(err, EUCLEAN, "%s: byte 0: covers %" PRIu64 " rows, the array has %" PRIu64, file,
			f->rows, nslots);
	if (f->rows > nslots && nheld < f->rows)
		return npk_fail(err, EUCLEAN,
			"%s: byte 0: covers %" PRIu64 " rows, the array has %" PRIu64 ": left over from an older array",
			file, f->rows, nslots);
	if (f->rows > nslots)
		npki_note(notes, NPK_WARNING,
			"%s: byte 0: covers %" PRIu64 " rows, the array has %" PRIu64 ": an append was interrupted",
			file, f->rows, nslots);
	return 0;
}

int npki_bitmap_form(const uint8_t *head, uint64_t len, uint64_t nslots, uint64_t nheld, const char *file,
	struct npki_bitmap_form *out, struct npki_notes *notes, struct npk_err *err)
{
	uint64_t total = len >= NPKI_BITMAP_HEAD ? npki_le(head, 8) : 0;
	struct npki_bitmap_form f = {.rows = nslots};
	bool with, without = len % 8 == 0 && len / 8 == words_for(nslots);

	if (len % 8 != 0)
		return npk_fail(err, EUCLEAN, "%s: byte %" PRIu64 ": the length is not a multiple of 8", file, len);
	with = len >= NPKI_BITMAP_HEAD && (len - NPKI_BITMAP_HEAD) / 8 == words_for(total);
	if (!with && !without)
		return npk_fail(err, EUCLEAN, "%s: byte 0: %" PRIu64 " bytes fit neither %" PRIu64 " rows nor a header",
			file, len, nslots);
	if (with) {
		f = (struct npki_bitmap_form){true, total, npki_le(head + 8, 8), NPKI_BITMAP_HEAD};
		if (without && f.deleted > f.rows) /* no header counts more deleted rows than rows */
			f = (struct npki_bitmap_form){.rows = nslots};
	}
	if (f.header) {
		int rc = check_rows(&f, nslots, nheld, file, notes, err);

		if (rc != 0)
			return rc;
	}
	*out = f;
	return 0;
}
