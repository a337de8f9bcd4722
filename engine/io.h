/* io.h - every open, read and stat of a store goes through here: below a directory handle, without following links. */
#ifndef NPKI_IO_H
#define NPKI_IO_H

#include "numpack.h"

#include <sys/stat.h>

/* What tells that a file is still the one that was looked at. */
struct npki_file_id {
	bool exists;
	uint64_t dev, ino, size;
	int64_t mtime_ns, ctime_ns;
};

bool npki_file_id_same(const struct npki_file_id *a, const struct npki_file_id *b);

/* Opens a regular file for reading; `path` is relative to `dirfd` and passed npki_is_plain_path(). -ENOENT: it is not
 * there; -EUCLEAN: a link, a directory, a FIFO stands in its place. `st` may be NULL. */
int npki_open_file(int dirfd, const char *path, int *fd, struct stat *st, struct npk_err *err);
/* Likewise, without opening; a missing file is no error: out->exists tells. Anything but a regular file: -EUCLEAN. */
int npki_stat_file(int dirfd, const char *path, struct npki_file_id *out, struct npk_err *err);
struct npki_file_id npki_file_id_of(const struct stat *st);

/* Reads exactly `len` bytes at `off`. -EUCLEAN when the file ends before. */
int npki_pread_all(int fd, void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err);
/* The whole file, at most `max` bytes, in a malloc'd buffer. -ENOENT: it is not there. */
int npki_read_file(int dirfd, const char *path, size_t max, uint8_t **buf, size_t *len, struct npki_file_id *id,
	struct npk_err *err);

#endif
