/* cells.h - the elements of a view as text, for people and for JSON. */
#ifndef NPKFS_CELLS_H
#define NPKFS_CELLS_H

#include <numpack.h>

/* One line per row, elements joined by commas; every number reads back to the same value, complex as 1+2j, bool as 0/1.
 * -E2BIG as soon as the text is longer than `max` bytes. */
int npkfs_cells_text(struct npk_view *v, uint64_t max, struct npk_text *out, struct npk_err *err);
/* {"dtype": "<f4", "shape": [2, 3], "data": [[...], ...]} and a newline. Complex numbers are [re, im]; what JSON has no
 * number for (NaN, infinities) is null. */
int npkfs_cells_json(struct npk_view *v, uint64_t max, struct npk_text *out, struct npk_err *err);
/* A number with the fewest digits that read back to the same value; "nan", "inf", "-inf". */
void npkfs_cells_real(struct npk_text *out, double x);

#endif
