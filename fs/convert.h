/* convert.h - bytes of a .npy in Fortran order or of the other endianness, as NumPack stores them. */
#ifndef NPKFS_CONVERT_H
#define NPKFS_CONVERT_H

#include <numpack.h>

/* Reads all of `from`, which is laid out as `npy` says, and writes it to `to` in C order and little-endian. */
int npkfs_convert(struct npk_save *from, const struct npk_npy *npy, struct npk_save *to, struct npk_err *err);
/* The same in memory: npy->data_len bytes each. */
void npkfs_convert_memory(const void *from, const struct npk_npy *npy, void *to);

#endif
