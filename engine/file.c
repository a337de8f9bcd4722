/* file.c - see file.h. */
#include "file.h"
#include "pkg_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct npki_inode *new_inode(const char *path)
{
	struct npki_inode *n = calloc(1, sizeof(*n));

	if (n)
		n->path = strdup(path);
	if (!n || !n->path) {
		free(n);
		return NULL;
	}
	n->refs = 1;
	n->fd = -1;
	pthread_mutex_init(&n->lock, NULL);
	return n;
}

static void put_inode(struct npki_inode *n)
{
	if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (n->fd >= 0)
		close(n->fd);
	pthread_mutex_destroy(&n->lock);
	free(n->path);
	free(n);
}

int npki_file_new(
	struct npki_file **out, int dirfd, const char *path, const struct npki_file_id *id, struct npk_err *err)
{
	struct npki_file *f = calloc(1, sizeof(*f));

	if (f) {
		f->path = strdup(path);
		f->inode = new_inode(path);
	}
	if (!f || !f->path || !f->inode) {
		if (f) {
			put_inode(f->inode);
			free(f->path);
		}
		free(f);
		return npk_fail(err, ENOMEM, "%.300s: no memory", path);
	}
	f->refs = 1;
	f->dirfd = dirfd;
	f->id = *id;
	f->size = id->size;
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
	put_inode(f->inode);
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

/* --- files that lost their name --------------------------------------------------------------------------------------- */

int npki_file_share(struct npki_file *f, const struct npki_file *old, struct npk_err *err)
{
	struct npki_inode *n = old->inode;
	char *path = strdup(f->path);

	if (!path)
		return npk_fail(err, ENOMEM, "%.300s: no memory", f->path);
	pthread_mutex_lock(&n->lock);
	free(n->path);
	n->path = path;
	pthread_mutex_unlock(&n->lock);
	atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	put_inode(f->inode);
	f->inode = n;
	return 0;
}

/* Under f->inode->lock. Its latest name may be another file's by now. */
static int open_left(const struct npki_file *f, int *out, struct npk_err *err)
{
	const char *path = f->inode->path;
	struct stat st;
	int fd, rc = npki_open_rw(f->dirfd, path, &fd, err);

	if (rc == -ENOENT)
		return npk_fail(err, ESTALE, "%.300s: was removed", path);
	if (rc != 0)
		return rc;
	if (fstat(fd, &st) != 0)
		rc = npk_fail(err, errno, "%.300s: %s", path, strerror(errno));
	else if (st.st_ino != f->id.ino || st.st_dev != f->id.dev)
		rc = npk_fail(err, ESTALE, "%.300s: was replaced", path);
	if (rc != 0)
		close(fd);
	else
		*out = fd;
	return rc;
}

void npki_file_keep(struct npki_file *f)
{
	struct npki_inode *n = f->inode;

	if (f->packed)
		return;
	pthread_mutex_lock(&n->lock);
	n->keepers++;
	if (n->fd < 0 && open_left(f, &n->fd, NULL) != 0)
		n->fd = -1;
	pthread_mutex_unlock(&n->lock);
}

void npki_file_unkeep(struct npki_file *f)
{
	struct npki_inode *n = f->inode;

	if (f->packed)
		return;
	pthread_mutex_lock(&n->lock);
	if (--n->keepers == 0 && n->fd >= 0) {
		close(n->fd);
		n->fd = -1;
	}
	pthread_mutex_unlock(&n->lock);
}

bool npki_file_is_nameless(struct npki_file *f)
{
	struct npki_inode *n = f->inode;
	struct stat st;
	bool nameless;

	pthread_mutex_lock(&n->lock);
	nameless = n->fd >= 0 && fstat(n->fd, &st) == 0 && st.st_nlink == 0;
	pthread_mutex_unlock(&n->lock);
	return nameless;
}

int npki_file_write_left(struct npki_file *f, const void *bytes, size_t len, uint64_t off, struct npk_err *err)
{
	struct npki_inode *n = f->inode;
	int fd, rc = 0;

	pthread_mutex_lock(&n->lock);
	fd = n->fd;
	if (fd < 0)
		rc = open_left(f, &fd, err);
	if (rc == 0)
		rc = npki_pwrite_all(fd, bytes, len, off, n->path, err);
	if (rc == 0 && n->fd < 0 && n->keepers > 0)
		n->fd = fd;
	else if (fd >= 0 && fd != n->fd)
		close(fd);
	pthread_mutex_unlock(&n->lock);
	return rc;
}
