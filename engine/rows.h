/* rows.h - where a slot lies in memory, and copying rows out of a mapped generation. */
#ifndef NPKI_ROWS_H
#define NPKI_ROWS_H

#include "store.h"

/* The slot in the mapping, and how many slots from it on lie in the same file. */
const uint8_t *npki_slot_at(const struct npk_gen *g, uint64_t slot, uint64_t *together);

/* These touch the mapping: call them under npki_guarded(). Rows must exist, the generation must be mapped. */
void npki_copy_range(const struct npk_gen *g, uint64_t first, uint64_t nrows, uint8_t *out);
void npki_copy_step(const struct npk_gen *g, uint64_t first, int64_t step, uint64_t nrows, uint8_t *out);
#define NPKI_BATCH 128 /* rows that are looked up, then prefetched, then copied together */
void npki_copy_batch(
	const struct npk_gen *g, uint64_t *rows, size_t n, uint8_t *out); /* n <= NPKI_BATCH; rows are overwritten */

/* Where byte `off` (< bytes) of a view's form lies: which slot, which byte of it, and how many bytes follow together in
 * the same file. (In view.c.) */
void npki_view_locate(struct npk_view *v, uint64_t off, uint64_t *slot, uint64_t *in_slot, uint64_t *together);

/* Which data file a slot lies in. */
size_t npki_segment_of(const struct npk_gen *g, uint64_t slot);

int npki_shrank(const struct npk_gen *g, struct npk_err *err); /* -EIO with the reason */

#endif
