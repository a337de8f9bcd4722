/* rowdata.h - rows that a client sends as a .npy in memory. */
#ifndef NPKFS_ROWDATA_H
#define NPKFS_ROWDATA_H

#include <numpack.h>

/* -EINVAL: dtype or a dimension other than the first are not those of the array. */
int npkfs_rows_fit(const struct npk_gen_info *array, const struct npk_npy *npy, struct npk_err *err);
/* The elements at `data` in C order and little-endian: `data` itself, or a copy that the caller frees as *copy. */
int npkfs_rows_plain(const struct npk_npy *npy, const char *data, const char **rows, char **copy, struct npk_err *err);

#endif
