/* file.c - see file.h. */
#include "file.h"
#include "pkg_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int npki_file_new(
	struct npki_file **out, int dirfd, const char *path, const struct npki_file_id *id, struct npk_err *err)
{
	struct npki_file *f = calloc(1, sizeof(*f));

	if (f)
		f->path = strdup(path);
	if (!f || !f->path) {
		free(f);
		return npk_fail(err, ENOMEM, "%.300s: no memory", path);
	}
	f->refs = 1;
	f->dirfd = dirfd;
	f->id = *id;
	f->fd = -1;
	pthread_mutex_init(&f->lock, NULL);
	*out = f;
	return 0;
}

struct npki_file *npki_file_ref(struct npki_file *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

static void unmap(struct npki_mapping *m)
{
	struct npki_mapping *older;

	for (; m; m = older) {
		older = m->older;
		munmap(m->base, m->len);
		free(m);
	}
}

void npki_file_put(struct npki_file *f)
{
	if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
		return;
	unmap(f->map);
	unmap(f->wmap);
	if (f->fd >= 0)
		close(f->fd);
	pthread_mutex_destroy(&f->lock);
	free(f->path);
	free(f);
}

/* Under f->lock. */
static int add_mapping(
	struct npki_file *f, struct npki_mapping **list, int fd, int prot, size_t len, struct npk_err *err)
{
	struct npki_mapping *m = malloc(sizeof(*m));
	void *p = m ? mmap(NULL, len, prot, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (p == MAP_FAILED) {
		free(m);
		return npk_fail(
			err, m ? errno : ENOMEM, "%.300s: cannot be mapped: %s", f->path, strerror(m ? errno : ENOMEM));
	}
	*m = (struct npki_mapping){p, len, 0, *list};
	*list = m;
	return 0;
}

/* Under f->lock. A member keeps its bytes: a package is opened once. */
static int map_member(struct npki_file *f, size_t need, struct npk_err *err)
{
	uint64_t off, len, page = (uint64_t)sysconf(_SC_PAGESIZE), skip;
	struct npki_mapping *m;
	void *p;
	int fd, rc = npki_packed_member(f->packed, f->path, &fd, &off, &len, err);

	if (rc != 0)
		return rc;
	skip = off % page;
	m = malloc(sizeof(*m));
	p = m ? mmap(NULL, need + skip, PROT_READ, MAP_SHARED, fd, (off_t)(off - skip)) : MAP_FAILED;
	rc = p == MAP_FAILED ? (m ? errno : ENOMEM) : 0;
	close(fd);
	if (rc != 0) {
		free(m);
		return npk_fail(err, rc, "%.300s: cannot be mapped: %s", f->path, strerror(rc));
	}
	*m = (struct npki_mapping){p, need + (size_t)skip, (size_t)skip, f->map};
	f->map = m;
	return 0;
}

/* Under f->lock. The file must be the one whose size was checked; what has been appended since is no harm. */
static int map_new(struct npki_file *f, size_t need, size_t more, struct npk_err *err)
{
	struct stat st;
	int fd, rc = npki_open_file(f->dirfd, f->path, &fd, &st, err);

	if (rc == -ENOENT)
		return npk_fail(err, ESTALE, "%.300s: was removed since the store was read", f->path);
	if (rc != 0)
		return rc;
	if (st.st_ino != f->id.ino || st.st_dev != f->id.dev || (uint64_t)st.st_size < need)
		rc = npk_fail(err, ESTALE, "%.300s: was replaced since the store was read", f->path);
	if (rc == 0)
		rc = add_mapping(f, &f->map, fd, PROT_READ, need + more, err);
	close(fd);
	return rc;
}

int npki_file_map(struct npki_file *f, size_t need, size_t more, const uint8_t **base, struct npk_err *err)
{
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	if (!f->map || f->map->len < need)
		rc = f->packed ? map_member(f, need, err) : map_new(f, need, more, err);
	if (rc == 0)
		*base = f->map->base + f->map->skip;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* Under f->lock. */
static int open_fd(struct npki_file *f, struct npk_err *err)
{
	if (f->fd >= 0)
		return 0;
	return npki_open_rw(f->dirfd, f->path, &f->fd, err);
}

int npki_file_wmap(struct npki_file *f, size_t need, uint8_t **base, struct npk_err *err)
{
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	if (!f->wmap || f->wmap->len < need) {
		rc = open_fd(f, err);
		if (rc == 0)
			rc = add_mapping(f, &f->wmap, f->fd, PROT_READ | PROT_WRITE, need, err);
	}
	if (rc == 0)
		*base = f->wmap->base;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int npki_file_fd(struct npki_file *f, int *fd, struct npk_err *err)
{
	int rc;

	pthread_mutex_lock(&f->lock);
	rc = open_fd(f, err);
	*fd = f->fd;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

void npki_file_close_fd(struct npki_file *f)
{
	pthread_mutex_lock(&f->lock);
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	pthread_mutex_unlock(&f->lock);
}
