/* pkg_unpack.c - npk_unpack(): a package as a directory, and npk_package_verify(), the same without a directory.
 *
 * One thread decodes the members, in the package's order, into a ring of blocks; the caller's thread computes checksums and
 * writes. The directory is made beside the target, checked, synced, and takes the target's place in one rename. */
#include "meta.h"
#include "pkg.h"
#include "pkg_io.h"
#include "store.h"
#include "writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#define BLOCKS 8
#define WRITE_BEHIND ((uint64_t)32 << 20)

/* --- decoding --------------------------------------------------------------------------------------------------------- */

struct block {
	const struct npki_member *m;
	size_t len; /* 0: the member has ended */
	int rc;     /* not 0: decoding has ended */
	uint8_t bytes[NPKI_PKG_BLOCK];
};

struct pipe {
	struct npk_package *p;
	struct npki_decoder *decoder;
	struct block *block; /* BLOCKS of them */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t made, used; /* lock; blocks */
	bool stop;           /* lock: the user wants no more */
	struct npk_err err;  /* written before the block with its rc is made */
};

/* The next block to fill; NULL: nobody wants it. */
static struct block *next_free(struct pipe *q)
{
	struct block *b;

	pthread_mutex_lock(&q->lock);
	while (q->made - q->used == BLOCKS && !q->stop)
		pthread_cond_wait(&q->moved, &q->lock);
	b = q->stop ? NULL : &q->block[q->made % BLOCKS];
	pthread_mutex_unlock(&q->lock);
	return b;
}

static void give(struct pipe *q)
{
	pthread_mutex_lock(&q->lock);
	q->made++;
	pthread_cond_signal(&q->moved);
	pthread_mutex_unlock(&q->lock);
}

/* After the block that has an error, or the end of the last member, nothing follows. */
static void *decode_all(void *ctx)
{
	struct pipe *q = ctx;
	struct block *b = NULL;

	for (uint64_t i = 0; i < q->p->info.nfiles; i++) {
		int rc = npki_decoder_start(q->decoder, &q->p->member[i], &q->err);

		do {
			b = next_free(q);
			if (!b)
				return NULL;
			b->m = &q->p->member[i];
			b->len = 0;
			b->rc = rc;
			if (rc == 0)
				b->rc = npki_decoder_read(q->decoder, b->bytes, sizeof(b->bytes), &b->len, &q->err);
			rc = b->rc;
			give(q);
			if (rc != 0)
				return NULL;
		} while (b->len > 0);
	}
	return NULL;
}

static const struct block *next_made(struct pipe *q)
{
	pthread_mutex_lock(&q->lock);
	while (q->made == q->used)
		pthread_cond_wait(&q->moved, &q->lock);
	pthread_mutex_unlock(&q->lock);
	return &q->block[q->used % BLOCKS];
}

static void take_back(struct pipe *q)
{
	pthread_mutex_lock(&q->lock);
	q->used++;
	pthread_cond_signal(&q->moved);
	pthread_mutex_unlock(&q->lock);
}

static int pipe_open(struct pipe *q, struct npk_package *p, struct npk_err *err)
{
	int rc;

	*q = (struct pipe){.p = p, .block = malloc(BLOCKS * sizeof(*q->block))};
	rc = q->block ? npki_decoder_open(&q->decoder, p, err) : npk_fail(err, ENOMEM, "no memory to unpack");
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->moved, NULL);
	if (rc == 0 && (rc = pthread_create(&q->thread, NULL, decode_all, q)) != 0)
		rc = npk_fail(err, rc, "no thread to unpack: %s", strerror(rc));
	if (rc != 0) {
		npki_decoder_close(q->decoder);
		free(q->block);
		pthread_mutex_destroy(&q->lock);
		pthread_cond_destroy(&q->moved);
	}
	return rc;
}

static void pipe_close(struct pipe *q)
{
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->moved);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	npki_decoder_close(q->decoder);
	free(q->block);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->moved);
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

struct unpacking {
	struct npk_package *p;
	struct npki_progress progress;
	int dirfd; /* -1: check only */
	int fd;    /* of the member that is being written; -1: none */
	uint64_t at, begun;
	uint32_t crc; /* of the member */
	struct npki_package_crc all;
};

static int io_fail(const char *name, struct npk_err *err)
{
	return npk_fail(err, errno, "%.300s: %s", name, strerror(errno));
}

static int begin_member(struct unpacking *u, const struct npki_member *m, struct npk_err *err)
{
	u->at = u->begun = 0;
	u->crc = 0;
	if (u->dirfd < 0)
		return 0;
	u->fd = openat(u->dirfd, m->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	return u->fd < 0 ? io_fail(m->name, err) : 0;
}

/* Closed files are synced when the package turned out to be whole. */
static void end_member(struct unpacking *u)
{
	npki_package_crc_add(&u->all, u->crc, u->at);
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
}

static int sync_members(const struct npk_package *p, int dirfd, struct npk_err *err)
{
	int rc = 0;

	for (uint64_t i = 0; i < p->info.nfiles && rc == 0; i++)
		rc = npki_sync_file(dirfd, p->member[i].name, err);
	return rc == 0 ? npki_sync_dir(dirfd, err) : rc;
}

static int put(struct unpacking *u, const struct npki_member *m, const uint8_t *bytes, size_t len, struct npk_err *err)
{
	u->crc = (uint32_t)crc32_z(u->crc, bytes, len);
	for (ssize_t n; u->fd >= 0 && len > 0; bytes += n, len -= (size_t)n, u->at += (uint64_t)n) {
		n = write(u->fd, bytes, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return io_fail(m->name, err);
	}
	u->at += len; /* of a check */
	if (u->fd >= 0 && u->at > u->begun + WRITE_BEHIND) {
		sync_file_range(u->fd, (off_t)u->begun, (off_t)(u->at - u->begun), SYNC_FILE_RANGE_WRITE); /* a hint */
		u->begun = u->at;
	}
	return 0;
}

/* All members, and the checksum unless `no_verify`. */
static int unpack_members(struct unpacking *u, bool no_verify, struct npk_err *err)
{
	const struct npki_member *now = NULL;
	struct pipe q;
	int rc = pipe_open(&q, u->p, err);

	if (rc != 0)
		return rc;
	for (uint64_t ended = 0; ended < u->p->info.nfiles && rc == 0; take_back(&q)) {
		const struct block *b = next_made(&q);

		if (b->rc != 0) {
			rc = b->rc;
			if (err)
				*err = q.err;
			break;
		}
		if (b->m != now)
			rc = begin_member(u, b->m, err);
		now = b->m;
		if (rc == 0)
			rc = put(u, now, b->bytes, b->len, err);
		if (rc == 0 && b->len == 0) {
			end_member(u);
			ended++;
		}
		if (rc == 0)
			rc = npki_progress_add(&u->progress, b->len, err);
	}
	pipe_close(&q);
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
	if (rc == 0 && !no_verify && u->all.crc != u->p->crc)
		rc = npk_fail(err, EUCLEAN,
			"%.200s: byte %" PRIu64 ": checksum %08" PRIx32 ", the contents have %08" PRIx32, u->p->path,
			(uint64_t)u->p->st.st_size - 4, u->p->crc, u->all.crc);
	return rc;
}

int npk_package_verify(struct npk_package *p, bool (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_all),
	void *ctx, struct npk_err *err)
{
	struct unpacking u = {p, {progress, ctx, 0, p->info.original_bytes}, -1, -1, 0, 0, 0, {p->info.version, 0}};

	return unpack_members(&u, false, err);
}

/* --- the directory ---------------------------------------------------------------------------------------------------- */

/* Nothing is begun that cannot end: all sizes are known. */
static int check_room(const struct npk_package *p, int dirfd, struct npk_err *err)
{
	struct statvfs st;
	uint64_t room;

	if (fstatvfs(dirfd, &st) != 0)
		return io_fail(p->path, err);
	if (__builtin_mul_overflow((uint64_t)st.f_bavail, (uint64_t)st.f_frsize, &room) ||
		p->info.original_bytes <= room)
		return 0;
	return npk_fail(err, ENOSPC, "%.200s: has %" PRIu64 " bytes of contents, there is room for %" PRIu64, p->path,
		p->info.original_bytes, room);
}

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), k = strlen(end);

	return n >= k && strcmp(name + n - k, end) == 0;
}

/* What NumPack or we leave in a store's directory; with the directories of segments. */
static bool is_part_of_store(const char *name, bool dir)
{
	if (dir)
		return strncmp(name, "data_", 5) == 0 && ends_with(name, "_segments");
	return npki_is_store_file(name) || strncmp(name, NPKI_META_FILE, strlen(NPKI_META_FILE)) == 0 ||
	       strncmp(name, NPKI_JOURNAL, strlen(NPKI_JOURNAL)) == 0 || strcmp(name, NPKI_BASE) == 0 ||
	       strcmp(name, NPKI_LOCK) == 0 ||
	       ((strncmp(name, ".npk-", 5) == 0 || strncmp(name, "data_", 5) == 0) && ends_with(name, ".tmp")) ||
	       (strncmp(name, "temp_", 5) == 0 && ends_with(name, ".npkd"));
}

static bool is_dir(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Calls fn for each name in the directory; the first that is not 0 ends it. */
static int each_name(
	int dirfd, const char *path, int (*fn)(int dirfd, const char *name, struct npk_err *err), struct npk_err *err)
{
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		rc = io_fail(path, err);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	for (errno = 0; rc == 0 && (e = readdir(d)) != NULL; errno = 0)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = fn(fd, e->d_name, err);
	if (rc == 0 && errno != 0)
		rc = io_fail(path, err);
	closedir(d);
	return rc;
}

static int check_segment(int dirfd, const char *name, struct npk_err *err)
{
	if (!is_dir(dirfd, name) && ends_with(name, ".npkd"))
		return 0;
	return npk_fail(
		err, ENOTEMPTY, "the target holds '%.200s', which is no part of a store: it is not replaced", name);
}

static int check_kept(int dirfd, const char *name, struct npk_err *err)
{
	bool dir = is_dir(dirfd, name);

	if (!is_part_of_store(name, dir))
		return npk_fail(err, ENOTEMPTY,
			"the target holds '%.200s', which is no part of a store: it is not replaced", name);
	return dir ? each_name(dirfd, name, check_segment, err) : 0;
}

static int remove_file(int dirfd, const char *name, struct npk_err *err)
{
	return unlinkat(dirfd, name, 0) == 0 ? 0 : io_fail(name, err);
}

static int remove_any(int dirfd, const char *name, struct npk_err *err)
{
	int rc;

	if (!is_dir(dirfd, name))
		return remove_file(dirfd, name, err);
	rc = each_name(dirfd, name, remove_file, err);
	return rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) != 0 ? io_fail(name, err) : rc;
}

static int remove_store(const char *path, struct npk_err *err)
{
	int rc = each_name(AT_FDCWD, path, remove_any, err);

	return rc == 0 && rmdir(path) != 0 ? io_fail(path, err) : rc;
}

/* The lock of a store that is about to go, if it has the file or `make`. *fd is -1 when there is nothing to lock. */
static int lock_target(const char *path, bool make, int *fd, struct npk_err *err)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0, f;

	if (dir < 0)
		return io_fail(path, err);
	f = openat(dir, NPKI_LOCK, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (make ? O_CREAT : 0), 0666);
	if (f < 0 && errno != ENOENT)
		rc = npk_fail(err, errno, "%.200s/" NPKI_LOCK ": %s", path, strerror(errno));
	close(dir);
	if (f >= 0 && fcntl(f, F_OFD_SETLK, &l) != 0)
		rc = npk_fail(err, EBUSY, "%.300s: a program has it open for writing, so it is not replaced", path);
	if (rc != 0 && f >= 0) {
		close(f);
		f = -1;
	}
	*fd = f;
	return rc;
}

/* Before any work, and again when the package turned out to be whole. */
static int check_target(const struct npki_beside *b, bool last, int *lock, struct npk_err *err)
{
	struct stat st;
	int rc;

	*lock = -1;
	if (!b->exists)
		return 0;
	if (stat(b->target, &st) != 0)
		return io_fail(b->target, err);
	if (!S_ISDIR(st.st_mode))
		return npk_fail(err, ENOTDIR, "%.300s: is no directory, so it is not replaced", b->target);
	rc = each_name(AT_FDCWD, b->target, check_kept, err);
	if (rc != 0)
		return npk_err_context(err, rc, "%.200s", b->target);
	return lock_target(b->target, last, lock, err);
}

static int unpack_beside(
	struct npk_package *p, struct npki_beside *b, const struct npk_unpack *how, struct npk_err *err)
{
	struct unpacking u = {
		p, {how->progress, how->ctx, 0, p->info.original_bytes}, -1, -1, 0, 0, 0, {p->info.version, 0}};
	int rc = npki_beside_dir(b, &u.dirfd, err);

	if (rc != 0)
		return rc;
	rc = check_room(p, u.dirfd, err);
	if (rc == 0)
		rc = unpack_members(&u, how->no_verify, err);
	if (rc == 0)
		rc = sync_members(p, u.dirfd, err);
	close(u.dirfd);
	return rc;
}

/* From here on the target is the new one; what cannot be removed of the old one is told, and stays under b->temp. */
static int replace(struct npki_beside *b, struct npk_err *err)
{
	int lock, rc = check_target(b, true, &lock, err);

	if (rc == 0)
		rc = npki_beside_commit_dir(b, err);
	if (rc == 0 && b->exists) {
		rc = remove_store(b->temp, err);
		if (rc != 0)
			rc = npk_err_context(err, rc, "unpacked, but the old store is left at %.200s", b->temp);
		free(b->temp);
		b->temp = NULL;
	}
	if (lock >= 0)
		close(lock);
	return rc;
}

int npk_unpack(const char *package, const char *target, const struct npk_unpack *how, struct npk_err *err)
{
	static const struct npk_unpack careful;
	struct npki_beside b = {0};
	struct npk_package *p = NULL;
	int lock = -1, rc;

	how = how ? how : &careful;
	rc = npki_beside_init(&b, target, how->overwrite, err);
	if (rc == 0)
		rc = check_target(&b, false, &lock, err);
	if (lock >= 0)
		close(lock);
	if (rc == 0)
		rc = npk_package_open(&p, package, err);
	if (rc == 0)
		rc = unpack_beside(p, &b, how, err);
	if (rc == 0)
		rc = replace(&b, err);
	if (b.temp)
		remove_store(b.temp, NULL);
	npk_package_close(p);
	npki_beside_fini(&b);
	return rc;
}
