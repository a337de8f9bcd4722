/* store.c - an open directory, or package: its opening, its metadata's bytes, and its end. */
#include "pkg_store.h"
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_MAX ((size_t)1 << 32) /* bytes; a store of 10,000 arrays has about one million */

bool npki_is_store_file(const char *file)
{
	size_t n = strlen(file);

	if (strncmp(file, "data_", 5) == 0)
		return (n >= 10 && strcmp(file + n - 5, ".npkd") == 0) ||
		       (n >= 12 && strcmp(file + n - 7, ".npkseg") == 0);
	return strncmp(file, "deleted_", 8) == 0 && n >= 13 && strcmp(file + n - 5, ".npkb") == 0;
}

static int refuse_store_file(void *ctx, int fd, const char *name, struct npk_err *err)
{
	(void)ctx;
	(void)fd;
	return npki_is_store_file(name) ? npk_fail(err, EUCLEAN, NPKI_META_FILE ": is missing beside %.255s", name) : 0;
}

/* *buf is NULL for a new store, which has no metadata yet. -EUCLEAN when the directory has files of arrays: without metadata
 * they must not look like an empty store. */
int npki_read_metadata(int dirfd, uint8_t **buf, size_t *len, struct npki_file_id *id, struct npk_err *err)
{
	int rc = npki_read_file(dirfd, NPKI_META_FILE, META_MAX, buf, len, id, err);

	if (rc != -ENOENT)
		return rc;
	*buf = NULL;
	*len = 0;
	*id = (struct npki_file_id){0};
	return npki_each_name(dirfd, ".", refuse_store_file, NULL, err);
}

/* A package without metadata has no arrays, and then no file either. */
static int read_packed_metadata(struct npk_store *s, uint8_t **buf, size_t *len, struct npk_err *err)
{
	const struct npk_package *p = npki_packed_package(s->packed);
	uint64_t off, size;
	int fd, rc;

	if (p->info.nfiles == 0)
		return 0;
	rc = npki_packed_member(s->packed, NPKI_META_FILE, &fd, &off, &size, err);
	if (rc == -ENOENT)
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": is missing beside %.200s", p->member[0].name);
	if (rc != 0)
		return rc;
	*buf = size <= META_MAX ? malloc((size_t)size + 1) : NULL;
	if (!*buf)
		rc = npk_fail(err, size <= META_MAX ? ENOMEM : EUCLEAN,
			NPKI_META_FILE ": %" PRIu64 " bytes are too many", size);
	if (rc == 0)
		rc = npki_pread_all(fd, *buf, (size_t)size, off, NPKI_META_FILE, err);
	*len = (size_t)size;
	close(fd);
	return rc;
}

int npki_reload_metadata(struct npk_store *s, struct npk_err *err)
{
	struct npki_file_id id = {0};
	uint8_t *buf = NULL;
	size_t len = 0;
	int rc = s->packed ? read_packed_metadata(s, &buf, &len, err)
			   : npki_read_metadata(s->dirfd, &buf, &len, &id, err);

	if (rc == 0)
		rc = npki_take_metadata(s, buf, len, &id, s->telling, err);
	free(buf);
	return rc;
}

void npki_note_metadata(struct npk_store *s)
{
	struct npki_file_id id;

	if (npki_stat_file(s->dirfd, NPKI_META_FILE, &id, NULL) != 0)
		return; /* the next checkpoint looks at what is there */
	pthread_rwlock_wrlock(&s->table_lock);
	s->meta_id = id;
	pthread_rwlock_unlock(&s->table_lock);
}

static int open_directory(struct npk_store *s, unsigned flags, struct npk_err *err)
{
	if ((flags & NPK_CREATE) && mkdir(s->path, 0777) != 0 && errno != EEXIST)
		return npk_fail(err, errno, "%s", strerror(errno));
	s->dirfd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return s->dirfd < 0 ? npk_fail(err, errno, "%s", strerror(errno)) : 0;
}

static int new_store(struct npk_store **out, const char *path, struct npk_err *err)
{
	struct npk_store *s = calloc(1, sizeof(*s));

	if (s)
		s->path = strdup(path);
	if (!s || !s->path) {
		free(s);
		return npk_fail(err, ENOMEM, "%.300s: no memory", path);
	}
	s->refs = 1;
	s->next_gen = 1;
	s->dirfd = -1;
	pthread_mutex_init(&s->refresh_lock, NULL);
	pthread_rwlock_init(&s->table_lock, NULL);
	*out = s;
	return 0;
}

int npk_store_open_package(struct npk_store **out, const char *path, const char *cache_dir, struct npk_err *err)
{
	struct npk_store *s;
	int rc = new_store(&s, path, err);

	if (rc != 0)
		return rc;
	rc = npki_packed_open(&s->packed, path, cache_dir, err);
	if (rc == 0) {
		s->dirfd = fcntl(npki_packed_package(s->packed)->fd, F_DUPFD_CLOEXEC, 0);
		rc = s->dirfd < 0 ? npk_fail(err, errno, "%s", strerror(errno)) : npki_reload_metadata(s, err);
		if (rc != 0)
			npk_err_context(err, rc, "%.300s", path);
	}
	if (rc != 0)
		npk_store_close(s);
	else
		*out = s;
	return rc;
}

bool npk_store_is_package(const struct npk_store *s)
{
	return s->packed != NULL;
}

static bool is_regular(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int npk_store_open(struct npk_store **out, const char *path, unsigned flags, struct npk_err *err)
{
	bool write = flags & NPK_RDWR;
	struct npk_store *s;
	int rc;

	if ((flags & ~(NPK_RDONLY | NPK_RDWR | NPK_CREATE)) || !(flags & (NPK_RDONLY | NPK_RDWR)) ||
		((flags & NPK_RDONLY) && (flags & ~NPK_RDONLY)))
		return npk_fail(err, EINVAL, "%.300s: flags 0x%x make no sense", path, flags);
	if (flags == NPK_RDONLY && is_regular(path))
		return npk_store_open_package(out, path, NULL, err);
	rc = new_store(&s, path, err);
	if (rc != 0)
		return rc;
	rc = open_directory(s, flags, err);
	if (rc == 0)
		rc = npki_first_look(s, write ? NPKI_LOOK_METADATA : NPKI_LOOK_METADATA | NPKI_LOOK_JOURNAL, err);
	if (rc == 0 && write)
		rc = npki_writer_new(s, err);
	if (rc == 0 && write)
		rc = npki_recover_at_open(s, err);
	if (rc == 0 && write)
		rc = npki_first_look(s, NPKI_LOOK_JOURNAL, err);
	if (rc != 0) {
		npk_err_context(err, rc, "%.300s", path);
		npk_store_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int npki_store_bare(struct npk_store **out, const char *path, struct npk_err *err)
{
	struct npk_store *s;
	int rc = new_store(&s, path, err);

	if (rc != 0)
		return rc;
	rc = open_directory(s, NPK_RDONLY, err);
	if (rc != 0) {
		npk_err_context(err, rc, "%.300s", path);
		npk_store_close(s);
	} else {
		*out = s;
	}
	return rc;
}

void npki_store_ref(struct npk_store *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void npki_store_put(struct npk_store *s)
{
	struct npk_store *base = s->base;

	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (!base) {
		npki_writer_free(s);
		npki_packed_close(s->packed);
		if (s->dirfd >= 0)
			close(s->dirfd);
	}
	pthread_mutex_destroy(&s->refresh_lock);
	pthread_rwlock_destroy(&s->table_lock);
	free(s->bucket);
	free(s->path);
	free(s);
	if (base)
		npki_store_put(base);
}

void npk_store_close(struct npk_store *s)
{
	if (!s)
		return;
	npki_finish(s, NULL); /* what cannot be finished stays in the journal; npk_store_finish() tells */
	npki_tell_changes(&s->missed, NULL, NULL);
	s->missed = (struct npki_changes){0};
	npki_store_empty(s);
	npki_store_put(s);
}

struct npk_store *npki_store_inside(struct npk_store *s)
{
	struct npk_store *in = calloc(1, sizeof(*in));

	if (in)
		in->path = strdup(s->path);
	if (!in || !in->path) {
		free(in);
		return NULL;
	}
	in->refs = 1;
	in->dirfd = s->dirfd;
	in->flags = s->flags;
	in->writer = s->writer;
	in->base = s;
	npki_store_ref(s);
	pthread_mutex_init(&in->refresh_lock, NULL);
	pthread_rwlock_init(&in->table_lock, NULL);
	return in;
}

void npk_store_info(struct npk_store *s, struct npk_store_info *out)
{
	pthread_rwlock_rdlock(&s->table_lock);
	out->narrays = s->narrays;
	out->read_only = s->read_only;
	memcpy(out->why, s->why, sizeof(out->why));
	memcpy(out->warning, s->warning, sizeof(out->warning));
	pthread_rwlock_unlock(&s->table_lock);
}

const char *npk_store_path(const struct npk_store *s)
{
	return s->path;
}

int npk_store_dirfd(const struct npk_store *s)
{
	return s->dirfd;
}
