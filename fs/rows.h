/* rows.h - a list of rows as text, for commands that want numbers. Pure. */
#ifndef NPKFS_ROWS_H
#define NPKFS_ROWS_H

#include <numpack.h>

/* Integers and slices a:b:c joined by ',', '+' or blanks, or "all", of `nrows` rows, by Python's rules; *out is the
 * caller's to free. -EINVAL: does not parse; -ERANGE: an integer that is no row; -E2BIG: more than `max`. */
int npkfs_rows_parse(const char *text, uint64_t nrows, size_t max, int64_t **out, size_t *n, struct npk_err *err);

#endif
