/* io.c - see io.h. */
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SYNC_ALL 64 /* files, from which on the whole filesystem is synced */
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

struct npki_file_id npki_file_id_of(const struct stat *st)
{
	return (struct npki_file_id){true, st->st_dev, st->st_ino, (uint64_t)st->st_size,
		st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
		st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec};
}

bool npki_file_id_same(const struct npki_file_id *a, const struct npki_file_id *b)
{
	return a->exists == b->exists &&
	       (!a->exists || (a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
				      a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns));
}

/* A name too long for the filesystem is one that no file has. */
static int path_error(const char *path, int code, struct npk_err *err)
{
	if (code == ENAMETOOLONG)
		return npk_fail(err, ENOENT, "%.300s: %s", path, strerror(code));
	if (code == ELOOP || code == ENOTDIR)
		return npk_fail(err, EUCLEAN, "%.300s: a symbolic link stands in its place", path);
	if (code == ENXIO || code == ENODEV) /* what open(2) says to a socket, or a device without a driver */
		return npk_fail(err, EUCLEAN, "%.300s: a special file stands in its place", path);
	return npk_fail(err, code, "%.300s: %s", path, strerror(code));
}

/* The directory that holds the last component, each step on the way below the one before and no link. *dir is `dirfd`
 * itself for a path of one component; else the caller closes it. */
static int open_parent(int dirfd, const char *path, int *dir, const char **leaf, struct npk_err *err)
{
	char part[256];
	int at = dirfd, next;
	const char *slash;

	for (; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
		size_t n = (size_t)(slash - path);

		if (n >= sizeof(part)) {
			next = -1;
			errno = ENAMETOOLONG;
		} else {
			memcpy(part, path, n);
			part[n] = 0;
			next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		}
		if (at != dirfd)
			close(at);
		if (next < 0)
			return path_error(path, errno, err);
		at = next;
	}
	*dir = at;
	*leaf = path;
	return 0;
}

static int not_regular(const char *path, mode_t mode, struct npk_err *err)
{
	return npk_fail(err, EUCLEAN, "%.300s: %s stands in its place", path,
		S_ISDIR(mode)    ? "a directory"
		: S_ISFIFO(mode) ? "a FIFO"
		: S_ISLNK(mode)  ? "a symbolic link"
				 : "a special file");
}

/* O_NONBLOCK: the open of a FIFO must not wait for a writer. */
int npki_open_file(int dirfd, const char *path, int *fd, struct stat *st, struct npk_err *err)
{
	struct stat own;
	const char *leaf;
	int dir, f, rc;

	rc = open_parent(dirfd, path, &dir, &leaf, err);
	if (rc != 0)
		return rc;
	f = openat(dir, leaf, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
	rc = f < 0 ? path_error(path, errno, err) : 0;
	if (dir != dirfd)
		close(dir);
	if (rc != 0)
		return rc;
	if (!st)
		st = &own;
	if (fstat(f, st) != 0)
		rc = npk_fail(err, errno, "%.300s: %s", path, strerror(errno));
	else if (!S_ISREG(st->st_mode))
		rc = not_regular(path, st->st_mode, err);
	if (rc != 0)
		close(f);
	else
		*fd = f;
	return rc;
}

int npki_stat_file(int dirfd, const char *path, struct npki_file_id *out, struct npk_err *err)
{
	struct stat st;
	const char *leaf;
	int dir, rc;

	*out = (struct npki_file_id){0};
	rc = open_parent(dirfd, path, &dir, &leaf, err);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	rc = fstatat(dir, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
	if (dir != dirfd)
		close(dir);
	if (rc == ENOENT || rc == ENAMETOOLONG)
		return 0;
	if (rc != 0)
		return path_error(path, rc, err);
	if (!S_ISREG(st.st_mode))
		return not_regular(path, st.st_mode, err);
	*out = npki_file_id_of(&st);
	return 0;
}

#define NAME_FITS 128 /* bytes of a name that every filesystem takes; 143 is the least known, of eCryptfs */

int npki_check_place(int dirfd, const char *path, struct npk_err *err)
{
	const char *leaf;
	long most;
	int dir, rc = open_parent(dirfd, path, &dir, &leaf, err);

	if (rc != 0)
		return rc;
	if (strlen(leaf) > NAME_FITS) {
		most = fpathconf(dir, _PC_NAME_MAX);
		if (strlen(leaf) > (size_t)(most > 0 ? most : NAME_MAX))
			rc = npk_fail(err, ENAMETOOLONG, "%.300s: %s", path, strerror(ENAMETOOLONG));
	}
	if (dir != dirfd)
		close(dir);
	return rc;
}

static struct npki_io_hook hook;

ssize_t npki_pread_some(int fd, void *buf, size_t len, uint64_t off, const char *path)
{
	int rc = hook.read ? hook.read(hook.ctx, path, off, len) : 0;
	ssize_t n = -1;

	if (rc != 0)
		return -rc;
	do {
		n = pread(fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int npki_pread_all(int fd, void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = npki_pread_some(fd, p, len, off, path);

		if (n < 0)
			return npk_fail(err, (int)-n, "%.300s: byte %" PRIu64 ": %s", path, off, strerror((int)-n));
		if (n == 0)
			return npk_fail(err, EUCLEAN, "%.300s: byte %" PRIu64 ": the file ends here", path, off);
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int npki_read_file(int dirfd, const char *path, size_t max, uint8_t **buf, size_t *len, struct npki_file_id *id,
	struct npk_err *err)
{
	struct stat st;
	uint8_t *b;
	int fd, rc;

	rc = npki_open_file(dirfd, path, &fd, &st, err);
	if (rc != 0)
		return rc;
	if ((uint64_t)st.st_size > max) {
		rc = npk_fail(err, EUCLEAN, "%.300s: %jd bytes are too many", path, (intmax_t)st.st_size);
		close(fd);
		return rc;
	}
	b = malloc((size_t)st.st_size + 1);
	rc = b ? npki_pread_all(fd, b, (size_t)st.st_size, 0, path, err)
	       : npk_fail(err, ENOMEM, "%.300s: no memory", path);
	close(fd);
	if (rc != 0) {
		free(b);
		return rc;
	}
	*buf = b;
	*len = (size_t)st.st_size;
	*id = npki_file_id_of(&st);
	return 0;
}

static int dir_error(const char *path, int code, struct npk_err *err)
{
	if (strcmp(path, ".") == 0)
		return npk_fail(err, code, "%s", strerror(code));
	return npk_fail(err, code, "%.300s: %s", path, strerror(code));
}

/* readdir() tells an error by errno alone. */
static struct dirent *next_entry(DIR *d, const char *path, uint64_t n)
{
	int rc = hook.read ? hook.read(hook.ctx, path, n, 0) : 0;
	struct dirent *e;

	errno = 0;
	e = rc == 0 ? readdir(d) : NULL;
	if (rc != 0)
		errno = rc;
	return e;
}

int npki_each_name(int dirfd, const char *path, int (*fn)(void *ctx, int fd, const char *name, struct npk_err *err),
	void *ctx, struct npk_err *err)
{
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		rc = dir_error(path, errno, err);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	for (uint64_t n = 0; rc == 0 && (e = next_entry(d, path, n)) != NULL; n++)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = fn(ctx, fd, e->d_name, err);
	if (rc == 0 && errno != 0)
		rc = dir_error(path, errno, err);
	closedir(d);
	return rc;
}

/* --- changing --------------------------------------------------------------------------------------------------------- */

void npki_io_set_hook(const struct npki_io_hook *h)
{
	hook = h ? *h : (struct npki_io_hook){0};
}

static int os_fail(const char *path, const char *what, int code, struct npk_err *err)
{
	return npk_fail(err, code, "%.300s: cannot be %s: %s", path, what, strerror(code));
}

/* Asks the hook, naming the file by its inode. */
static int ask(enum npki_io_op op, const char *path, const char *to, int fd, uint64_t off, uint64_t len,
	const void *bytes, const char *what, struct npk_err *err)
{
	struct npki_io_call c = {op, path, to, 0, off, len, bytes};
	struct stat st;
	int rc;

	if (!hook.call)
		return 0;
	if (fd >= 0 && fstat(fd, &st) == 0)
		c.ino = st.st_ino;
	rc = hook.call(hook.ctx, &c);
	return rc ? os_fail(path, what, rc, err) : 0;
}

/* The parent of a path in a subdirectory is found as for reading. */
static int in_parent(int dirfd, const char *path, int flags, mode_t mode, int *fd, struct npk_err *err)
{
	const char *leaf;
	int dir, rc = open_parent(dirfd, path, &dir, &leaf, err);

	if (rc != 0)
		return rc;
	*fd = openat(dir, leaf, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
	rc = *fd < 0 ? path_error(path, errno, err) : 0;
	if (dir != dirfd)
		close(dir);
	return rc;
}

int npki_open_rw(int dirfd, const char *path, int *fd, struct npk_err *err)
{
	struct stat st;
	int f, rc = in_parent(dirfd, path, O_RDWR, 0, &f, err);

	if (rc != 0)
		return rc;
	if (fstat(f, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(f);
		return npk_fail(err, EUCLEAN, "%.300s: is no regular file", path);
	}
	*fd = f;
	return 0;
}

int npki_create(int dirfd, const char *path, int *fd, struct npk_err *err)
{
	int f, rc = in_parent(dirfd, path, O_RDWR | O_CREAT | O_EXCL, 0666, &f, err);

	if (rc == 0)
		rc = ask(NPKI_IO_CREATE, path, NULL, f, 0, 0, NULL, "made", err);
	else
		return rc;
	if (rc != 0) {
		close(f);
		unlinkat(dirfd, path, 0);
		return rc;
	}
	*fd = f;
	return 0;
}

int npki_pwrite_all(int fd, const void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err)
{
	const uint8_t *p = buf;
	int rc = ask(NPKI_IO_WRITE, path, NULL, fd, off, len, buf, "written", err);

	while (len > 0 && rc == 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return os_fail(path, "written", errno, err);
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return rc;
}

int npki_wrote(int fd, const void *buf, size_t len, uint64_t off, const char *path, struct npk_err *err)
{
	return hook.call ? ask(NPKI_IO_WRITE, path, NULL, fd, off, len, buf, "written", err) : 0;
}

int npki_truncate(int fd, uint64_t len, const char *path, struct npk_err *err)
{
	int rc = ask(NPKI_IO_TRUNCATE, path, NULL, fd, 0, len, NULL, "cut", err);

	if (rc == 0 && ftruncate(fd, (off_t)len) != 0)
		rc = os_fail(path, "cut", errno, err);
	return rc;
}

/* A disk in a test knows nothing of shared blocks. */
int npki_share(int from, int fd, uint64_t len, const char *path, struct npk_err *err)
{
	struct stat st;

	if (hook.call || ioctl(fd, FICLONE, from) != 0)
		return npk_fail(err, ENOTSUP, "%.300s: cannot share blocks", path);
	if (fstat(fd, &st) != 0)
		return os_fail(path, "read", errno, err);
	if ((uint64_t)st.st_size < len)
		return npk_fail(err, EUCLEAN, "%.300s: byte %jd: the file ends here, the shape needs %ju bytes", path,
			(intmax_t)st.st_size, (uintmax_t)len);
	return (uint64_t)st.st_size > len ? npki_truncate(fd, len, path, err) : 0;
}

int npki_sync_fd(int fd, const char *path, struct npk_err *err)
{
	int rc = ask(NPKI_IO_SYNC, path, NULL, fd, 0, 0, NULL, "synced", err);

	if (rc == 0 && fdatasync(fd) != 0)
		rc = os_fail(path, "synced", errno, err);
	return rc;
}

int npki_sync_file(int dirfd, const char *path, struct npk_err *err)
{
	int fd, rc = npki_open_file(dirfd, path, &fd, NULL, err);

	if (rc == -ENOENT)
		return 0;
	if (rc != 0)
		return rc;
	rc = npki_sync_fd(fd, path, err);
	close(fd);
	return rc;
}

void npki_begin_sync(int fd, uint64_t off, uint64_t len)
{
	sync_file_range(fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static void begin_sync_file(int dirfd, const char *path)
{
	int fd;

	if (npki_open_file(dirfd, path, &fd, NULL, NULL) != 0)
		return;
	npki_begin_sync(fd, 0, 0);
	close(fd);
}

/* syncfs(2) waits for other programs' bytes too, so there must be many files for it to pay. Before Linux 5.8 it did not tell of
 * errors, and what it does on a filesystem over a network or another one is not known here. */
static bool can_sync_all(int dirfd)
{
	static const unsigned long known[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC};
	unsigned major = 0, minor = 0;
	struct utsname kernel;
	struct statfs fs;

	if (uname(&kernel) != 0 || sscanf(kernel.release, "%u.%u", &major, &minor) != 2 || fstatfs(dirfd, &fs) != 0)
		return false;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if ((unsigned long)fs.f_type == known[i])
			return major > 5 || (major == 5 && minor >= 8);
	return false;
}

static bool in_one_directory(char *const *path, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strchr(path[i], '/'))
			return false;
	return true;
}

/* One by one, all are on their way before the first is waited for: a journaling filesystem then commits once, not for each. What
 * a sync of all cannot do is tried again so, for the error to name its file. */
int npki_sync_files(int dirfd, char *const *path, size_t n, struct npk_err *err)
{
	int rc = 0;

	if (n >= SYNC_ALL && !hook.call && in_one_directory(path, n) && can_sync_all(dirfd) && syncfs(dirfd) == 0)
		return 0;
	for (size_t i = 0; i < n && n > 1; i++)
		begin_sync_file(dirfd, path[i]);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = npki_sync_file(dirfd, path[i], err);
	return rc;
}

int npki_sync_dir(int dirfd, struct npk_err *err)
{
	int rc = ask(NPKI_IO_SYNC_DIR, ".", NULL, -1, 0, 0, NULL, "synced", err);

	if (rc == 0 && fsync(dirfd) != 0)
		rc = os_fail("the store's directory", "synced", errno, err);
	return rc;
}

int npki_rename(int dirfd, const char *from, const char *to, struct npk_err *err)
{
	int rc = ask(NPKI_IO_RENAME, from, to, -1, 0, 0, NULL, "renamed", err);

	if (rc == 0 && renameat(dirfd, from, dirfd, to) != 0)
		rc = os_fail(from, "renamed", errno, err);
	return rc;
}

int npki_link(int dirfd, const char *from, const char *to, struct npk_err *err)
{
	int rc = ask(NPKI_IO_LINK, from, to, -1, 0, 0, NULL, "linked", err);

	if (rc == 0 && linkat(dirfd, from, dirfd, to, 0) != 0)
		rc = os_fail(from, "linked", errno, err);
	return rc;
}

int npki_unlink(int dirfd, const char *path, struct npk_err *err)
{
	int rc = ask(NPKI_IO_UNLINK, path, NULL, -1, 0, 0, NULL, "removed", err);

	if (rc == 0 && unlinkat(dirfd, path, 0) != 0 && errno != ENOENT)
		rc = os_fail(path, "removed", errno, err);
	return rc;
}
