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

/* Whether a file of that name can be made there: the directories on the way exist, and the last name is not too long. */
int npki_check_place(int dirfd, const char *path, struct npk_err *err);

/* Reads what there is of `len` bytes at `off`: how many, 0 at the end of the file, or -errno without a message. */
ssize_t npki_pread_some(int fd, void *buf, size_t len, uint64_t off, const char *path);
/* Reads exactly `len` bytes at `off`. -EUCLEAN when the file ends before. */
int npki_pread_all(int fd, void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err);
/* The whole file, at most `max` bytes, in a malloc'd buffer. -ENOENT: it is not there. */
int npki_read_file(int dirfd, const char *path, size_t max, uint8_t **buf, size_t *len, struct npki_file_id *id,
	struct npk_err *err);
/* Calls fn for each name in the directory `path` but "." and "..", with the directory's descriptor; the first answer that is
 * not 0 ends it and is returned. Messages give `path`, unless it is "." and the caller knows of what. */
int npki_each_name(int dirfd, const char *path, int (*fn)(void *ctx, int fd, const char *name, struct npk_err *err),
	void *ctx, struct npk_err *err);

/* --- changing --------------------------------------------------------------------------------------------------------- */

/* Every call below that changes the disk, in the order of the calls: what a test needs to cut the power at any of them
 * and to lose what was not synced. A hook that returns an errno makes the call fail with it, before it does anything. */
enum npki_io_op {
	NPKI_IO_CREATE,
	NPKI_IO_WRITE,
	NPKI_IO_TRUNCATE,
	NPKI_IO_SYNC,
	NPKI_IO_SYNC_DIR,
	NPKI_IO_RENAME,
	NPKI_IO_LINK,
	NPKI_IO_UNLINK
};

struct npki_io_call {
	enum npki_io_op op;
	const char *path, *to; /* of the store's directory; `to` of a rename or link */
	uint64_t ino;          /* of the file that is written, truncated or synced */
	uint64_t off, len;     /* of a write; len alone of a truncate */
	const void *bytes;
};

struct npki_io_hook {
	int (*call)(void *ctx, const struct npki_io_call *c); /* 0, or a positive errno */
	void *ctx;
	/* Likewise for reads of `len` bytes at `off`, and of the off-th name in a directory (`len` is 0): a disk that has gone
	 * bad. NULL: all is well. */
	int (*read)(void *ctx, const char *path, uint64_t off, uint64_t len);
};
void npki_io_set_hook(const struct npki_io_hook *hook); /* NULL: none. Before any thread starts */

/* Opens an existing regular file for reading and writing. */
int npki_open_rw(int dirfd, const char *path, int *fd, struct npk_err *err);
/* Makes a new file, mode 0666 less the umask; -EEXIST when there is one. */
int npki_create(int dirfd, const char *path, int *fd, struct npk_err *err);
int npki_pwrite_all(int fd, const void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err);
int npki_truncate(int fd, uint64_t len, const char *path, struct npk_err *err);
/* Makes the empty file `fd` the first `len` bytes of `from`, with blocks that both share. -ENOTSUP: copy them. */
int npki_share(int from, int fd, uint64_t len, const char *path, struct npk_err *err);
int npki_sync_fd(int fd, const char *path, struct npk_err *err);      /* fdatasync */
int npki_sync_file(int dirfd, const char *path, struct npk_err *err); /* likewise by name; a missing file is no error */
int npki_sync_dir(int dirfd, struct npk_err *err);
/* All of them, as npki_sync_file() each; many at once on filesystems where that is known to be the same. */
int npki_sync_files(int dirfd, char *const *path, size_t n, struct npk_err *err);
/* The disk begins with bytes of a file that a sync will wait for later. A hint: it promises nothing and does not fail. */
void npki_begin_sync(int fd, uint64_t off, uint64_t len);
int npki_rename(int dirfd, const char *from, const char *to, struct npk_err *err);
int npki_link(int dirfd, const char *from, const char *to, struct npk_err *err);
int npki_unlink(int dirfd, const char *path, struct npk_err *err); /* a missing file is no error */
/* Bytes of a file that were written through a mapping: tells the hook. */
int npki_wrote(int fd, const void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err);

#endif
