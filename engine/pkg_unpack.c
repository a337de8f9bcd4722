/* pkg_unpack.c - npk_unpack(): a package as a directory, and npk_package_verify(), the same without a directory.
 *
 * Members are shared out among lanes, the largest first. In each lane one thread decodes into a ring of blocks and another
 * computes the checksum and writes; the caller's thread waits and tells the progress. The directory is made beside the target,
 * checked, synced, and takes the target's place in one rename. */
#include "cpu.h"
#include "crc.h"
#include "meta.h"
#include "pkg.h"
#include "pkg_io.h"
#include "store.h"
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BLOCKS 8
#define LANES_MAX 4
#define TELL_BYTES ((uint64_t)1 << 20) /* after which the caller's thread looks up */
#define WRITE_BEHIND ((uint64_t)32 << 20)

/* What all lanes share. */
struct unpacking {
	struct npk_package *p;
	int dirfd;                         /* -1: check only */
	const struct npki_member **member; /* the largest first */
	uint32_t *crc;                     /* of each member, in the package's order; each written by one lane */
	_Atomic uint64_t next;             /* of `member`: not taken yet */
	atomic_bool stop;
	pthread_mutex_t lock;
	pthread_cond_t told;
	uint64_t done;      /* lock; bytes */
	unsigned running;   /* lock; lanes */
	int rc;             /* lock; of the first that failed */
	struct npk_err err; /* lock; likewise */
};

static void set_failed(struct unpacking *u, int rc, const struct npk_err *err)
{
	pthread_mutex_lock(&u->lock);
	if (u->rc == 0) {
		u->rc = rc;
		u->err = *err;
	}
	pthread_mutex_unlock(&u->lock);
	atomic_store(&u->stop, true);
}

/* --- a lane: decoding ------------------------------------------------------------------------------------------------- */

struct block {
	const struct npki_member *m; /* NULL: all members are taken */
	size_t len;                  /* 0: the member has ended */
	int rc;                      /* not 0: decoding has ended */
	uint8_t bytes[NPKI_PKG_BLOCK];
};

struct lane {
	struct unpacking *u;
	struct npki_decoder *decoder;
	struct block *block; /* BLOCKS of them */
	pthread_t decodes, writes;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t made, used; /* lock; blocks */
	uint64_t at, begun;  /* of the writing thread, as fd and crc: in the member's file */
	uint32_t crc;
	int fd;             /* of the member that is being written; -1: none */
	struct npk_err err; /* written before the block with its rc is made */
	bool stop;          /* lock: the writing thread wants no more */
};

/* The next block to fill; NULL: nobody wants it. */
static struct block *next_free(struct lane *l)
{
	struct block *b;

	pthread_mutex_lock(&l->lock);
	while (l->made - l->used == BLOCKS && !l->stop)
		pthread_cond_wait(&l->moved, &l->lock);
	b = l->stop ? NULL : &l->block[l->made % BLOCKS];
	pthread_mutex_unlock(&l->lock);
	return b;
}

static void give(struct lane *l)
{
	pthread_mutex_lock(&l->lock);
	l->made++;
	pthread_cond_signal(&l->moved);
	pthread_mutex_unlock(&l->lock);
}

/* False: nobody wants more. */
static bool decode_member(struct lane *l, const struct npki_member *m)
{
	int rc = npki_decoder_start(l->decoder, m, &l->err);
	struct block *b;

	do {
		b = next_free(l);
		if (!b)
			return false;
		b->m = m;
		b->len = 0;
		b->rc = rc;
		if (rc == 0)
			b->rc = npki_decoder_read(l->decoder, b->bytes, sizeof(b->bytes), &b->len, &l->err);
		rc = b->rc;
		give(l);
	} while (rc == 0 && b->len > 0);
	return rc == 0;
}

/* After a block that has an error nothing follows. */
static void *decode_all(void *ctx)
{
	struct lane *l = ctx;
	struct unpacking *u = l->u;
	struct block *b;
	uint64_t i;

	while ((i = atomic_fetch_add(&u->next, 1)) < u->p->info.nfiles)
		if (!decode_member(l, u->member[i]))
			return NULL;
	b = next_free(l);
	if (b) {
		b->m = NULL;
		b->rc = 0;
		give(l);
	}
	return NULL;
}

static const struct block *next_made(struct lane *l)
{
	pthread_mutex_lock(&l->lock);
	while (l->made == l->used)
		pthread_cond_wait(&l->moved, &l->lock);
	pthread_mutex_unlock(&l->lock);
	return &l->block[l->used % BLOCKS];
}

static void take_back(struct lane *l)
{
	pthread_mutex_lock(&l->lock);
	l->used++;
	pthread_cond_signal(&l->moved);
	pthread_mutex_unlock(&l->lock);
}

/* --- a lane: writing -------------------------------------------------------------------------------------------------- */

static int io_fail(const char *name, struct npk_err *err)
{
	return npk_fail(err, errno, "%.300s: %s", name, strerror(errno));
}

static int begin_member(struct lane *l, const struct npki_member *m, struct npk_err *err)
{
	l->at = l->begun = 0;
	l->crc = 0;
	if (l->u->dirfd < 0)
		return 0;
	l->fd = openat(l->u->dirfd, m->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	return l->fd < 0 ? io_fail(m->name, err) : 0;
}

static void begin_writeback(struct lane *l)
{
	npki_begin_sync(l->fd, l->begun, l->at - l->begun);
	l->begun = l->at;
}

/* Closed files are synced when the package turned out to be whole. */
static void end_member(struct lane *l, const struct npki_member *m)
{
	l->u->crc[m - l->u->p->member] = l->crc;
	if (l->fd < 0)
		return;
	begin_writeback(l);
	close(l->fd);
	l->fd = -1;
}

static int put(struct lane *l, const struct npki_member *m, const uint8_t *bytes, size_t len, struct npk_err *err)
{
	l->crc = npki_crc32(l->crc, bytes, len);
	for (ssize_t n; l->fd >= 0 && len > 0; bytes += n, len -= (size_t)n, l->at += (uint64_t)n) {
		n = write(l->fd, bytes, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return io_fail(m->name, err);
	}
	if (l->fd >= 0 && l->at > l->begun + WRITE_BEHIND)
		begin_writeback(l);
	return 0;
}

static void tell(struct unpacking *u, uint64_t bytes)
{
	uint64_t before;

	pthread_mutex_lock(&u->lock);
	before = u->done;
	u->done += bytes;
	if (before / TELL_BYTES != u->done / TELL_BYTES)
		pthread_cond_signal(&u->told);
	pthread_mutex_unlock(&u->lock);
}

/* One block; *more is false behind the last one. */
static int take_block(struct lane *l, const struct npki_member **now, bool *more, struct npk_err *err)
{
	const struct block *b = next_made(l);
	int rc = b->rc;

	*more = b->m != NULL;
	if (rc != 0)
		*err = l->err;
	else if (b->m && b->m != *now)
		rc = begin_member(l, b->m, err);
	*now = b->m;
	if (rc == 0 && b->m)
		rc = put(l, b->m, b->bytes, b->len, err);
	if (rc == 0 && b->m && b->len == 0)
		end_member(l, b->m);
	if (rc == 0 && b->m)
		tell(l->u, b->len);
	take_back(l);
	return rc;
}

static void want_no_more(struct lane *l)
{
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->moved);
	pthread_mutex_unlock(&l->lock);
}

static void *write_all(void *ctx)
{
	struct lane *l = ctx;
	struct unpacking *u = l->u;
	const struct npki_member *now = NULL;
	struct npk_err err;
	bool more = true;
	int rc = 0;

	while (rc == 0 && more && !atomic_load(&u->stop))
		rc = take_block(l, &now, &more, &err);
	if (rc != 0)
		set_failed(u, rc, &err);
	want_no_more(l);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	pthread_mutex_lock(&u->lock);
	u->running--;
	pthread_cond_signal(&u->told);
	pthread_mutex_unlock(&u->lock);
	return NULL;
}

/* --- all lanes -------------------------------------------------------------------------------------------------------- */

static void lane_free(struct lane *l)
{
	npki_decoder_close(l->decoder);
	free(l->block);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->moved);
}

static int no_thread(int code, struct npk_err *err)
{
	return npk_fail(err, code, "no thread to unpack: %s", strerror(code));
}

static int lane_start(struct lane *l, struct unpacking *u, struct npk_err *err)
{
	int rc;

	*l = (struct lane){.u = u, .fd = -1, .block = malloc(BLOCKS * sizeof(*l->block))};
	rc = l->block ? npki_decoder_open(&l->decoder, u->p, err) : npk_fail(err, ENOMEM, "no memory to unpack");
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->moved, NULL);
	if (rc == 0 && (rc = pthread_create(&l->decodes, NULL, decode_all, l)) != 0) {
		rc = no_thread(rc, err);
	} else if (rc == 0 && (rc = pthread_create(&l->writes, NULL, write_all, l)) != 0) {
		rc = no_thread(rc, err);
		want_no_more(l);
		pthread_join(l->decodes, NULL);
	}
	if (rc != 0)
		lane_free(l);
	return rc;
}

static void lane_join(struct lane *l)
{
	pthread_join(l->writes, NULL);
	pthread_join(l->decodes, NULL);
	lane_free(l);
}

/* Until all lanes have ended. The caller's thread is the one that asks; its wish to stop is theirs. */
static void watch(struct unpacking *u, struct npki_progress *progress)
{
	struct npk_err err;
	uint64_t bytes;
	bool running;

	do {
		pthread_mutex_lock(&u->lock);
		while (u->running > 0 && u->done / TELL_BYTES == progress->done / TELL_BYTES)
			pthread_cond_wait(&u->told, &u->lock);
		bytes = u->done - progress->done;
		running = u->running > 0;
		pthread_mutex_unlock(&u->lock);
		if (atomic_load(&u->stop))
			progress->done += bytes;
		else if (npki_progress_add(progress, bytes, &err) != 0)
			set_failed(u, -ECANCELED, &err);
	} while (running);
}

static unsigned count_lanes(uint64_t nmembers)
{
	unsigned n = npki_cpu_count();

	n = n < LANES_MAX ? n : LANES_MAX;
	return nmembers < n ? (unsigned)nmembers : n;
}

static void run_lanes(struct unpacking *u, struct npki_progress *progress)
{
	struct lane lane[LANES_MAX];
	struct npk_err err;
	unsigned n = count_lanes(u->p->info.nfiles), started = 0;
	int rc = 0;

	u->running = n; /* no thread looks at it yet */
	while (started < n && (rc = lane_start(&lane[started], u, &err)) == 0)
		started++;
	if (rc != 0) {
		set_failed(u, rc, &err);
		pthread_mutex_lock(&u->lock);
		u->running -= n - started;
		pthread_mutex_unlock(&u->lock);
	}
	watch(u, progress);
	for (unsigned i = 0; i < started; i++)
		lane_join(&lane[i]);
}

static int by_size(const void *x, const void *y)
{
	const struct npki_member *a = *(const struct npki_member *const *)x, *b = *(const struct npki_member *const *)y;

	if (a->original != b->original)
		return a->original < b->original ? 1 : -1;
	return a < b ? -1 : 1;
}

/* What the package's end says of all contents together. */
static int check_sum(const struct unpacking *u, struct npk_err *err)
{
	const struct npk_package *p = u->p;
	struct npki_package_crc all = {p->info.version, 0};

	for (uint64_t i = 0; i < p->info.nfiles; i++)
		npki_package_crc_add(&all, u->crc[i], p->member[i].original);
	if (all.crc == p->crc)
		return 0;
	return npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": checksum %08" PRIx32 ", the contents have %08" PRIx32,
		p->path, (uint64_t)p->st.st_size - 4, p->crc, all.crc);
}

/* All members, into files of `dirfd` unless that is -1, and the checksum unless `no_verify`. */
static int unpack_members(
	struct npk_package *p, int dirfd, struct npki_progress progress, bool no_verify, struct npk_err *err)
{
	struct unpacking u = {.p = p, .dirfd = dirfd};
	uint64_t n = p->info.nfiles;

	progress.all = p->info.original_bytes;
	u.member = calloc(n + 1, sizeof(struct npki_member *));
	u.crc = calloc(n + 1, sizeof(*u.crc));
	pthread_mutex_init(&u.lock, NULL);
	pthread_cond_init(&u.told, NULL);
	if (u.member && u.crc) {
		for (uint64_t i = 0; i < n; i++)
			u.member[i] = &p->member[i];
		qsort(u.member, n, sizeof(struct npki_member *), by_size);
		run_lanes(&u, &progress);
	} else {
		u.rc = npk_fail(&u.err, ENOMEM, "no memory to unpack");
	}
	if (u.rc == 0 && !no_verify)
		u.rc = check_sum(&u, &u.err);
	if (u.rc != 0 && err)
		*err = u.err;
	free(u.member);
	free(u.crc);
	pthread_mutex_destroy(&u.lock);
	pthread_cond_destroy(&u.told);
	return u.rc;
}

static int sync_members(const struct npk_package *p, int dirfd, struct npk_err *err)
{
	char **name = malloc((p->info.nfiles + 1) * sizeof(*name));
	int rc;

	if (!name)
		return npk_fail(err, ENOMEM, "no memory to unpack");
	for (uint64_t i = 0; i < p->info.nfiles; i++)
		name[i] = p->member[i].name;
	rc = npki_sync_files(dirfd, name, p->info.nfiles, err);
	free(name);
	return rc == 0 ? npki_sync_dir(dirfd, err) : rc;
}

int npk_package_verify(struct npk_package *p, bool (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_all),
	void *ctx, struct npk_err *err)
{
	return unpack_members(p, -1, (struct npki_progress){progress, ctx, 0, 0}, false, err);
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

static int check_segment(void *ctx, int dirfd, const char *name, struct npk_err *err)
{
	(void)ctx;
	if (!is_dir(dirfd, name) && ends_with(name, ".npkd"))
		return 0;
	return npk_fail(
		err, ENOTEMPTY, "the target holds '%.200s', which is no part of a store: it is not replaced", name);
}

static int check_kept(void *ctx, int dirfd, const char *name, struct npk_err *err)
{
	bool dir = is_dir(dirfd, name);

	if (!is_part_of_store(name, dir))
		return npk_fail(err, ENOTEMPTY,
			"the target holds '%.200s', which is no part of a store: it is not replaced", name);
	return dir ? npki_each_name(dirfd, name, check_segment, ctx, err) : 0;
}

static int remove_file(void *ctx, int dirfd, const char *name, struct npk_err *err)
{
	(void)ctx;
	return unlinkat(dirfd, name, 0) == 0 ? 0 : io_fail(name, err);
}

static int remove_any(void *ctx, int dirfd, const char *name, struct npk_err *err)
{
	int rc;

	if (!is_dir(dirfd, name))
		return remove_file(ctx, dirfd, name, err);
	rc = npki_each_name(dirfd, name, remove_file, ctx, err);
	return rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) != 0 ? io_fail(name, err) : rc;
}

static int remove_store(const char *path, struct npk_err *err)
{
	int rc = npki_each_name(AT_FDCWD, path, remove_any, NULL, err);

	return rc == 0 && rmdir(path) != 0 ? io_fail(path, err) : rc;
}

/* The lock of a store that is about to go, if it has the file or `make`. *fd is -1 when there is nothing to lock. */
static int lock_target(const char *path, bool make, int *fd, struct npk_err *err)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	*fd = -1;
	if (dir < 0)
		return io_fail(path, err);
	rc = npki_lock_file(dir, path, make, 0, fd, err);
	close(dir);
	if (rc == -ENOENT && !make)
		return 0;
	if (rc == -EBUSY)
		return npk_fail(err, EBUSY, "%.300s: a program has it open for writing, so it is not replaced", path);
	return rc ? npk_err_context(err, rc, "%.200s", path) : 0;
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
	rc = npki_each_name(AT_FDCWD, b->target, check_kept, NULL, err);
	if (rc != 0)
		return npk_err_context(err, rc, "%.200s", b->target);
	return lock_target(b->target, last, lock, err);
}

static int unpack_beside(
	struct npk_package *p, struct npki_beside *b, const struct npk_unpack *how, struct npk_err *err)
{
	struct npki_progress progress = {how->progress, how->ctx, 0, 0};
	int dirfd, rc = npki_beside_dir(b, &dirfd, err);

	if (rc != 0)
		return rc;
	rc = check_room(p, dirfd, err);
	if (rc == 0)
		rc = unpack_members(p, dirfd, progress, how->no_verify, err);
	if (rc == 0)
		rc = sync_members(p, dirfd, err);
	close(dirfd);
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
