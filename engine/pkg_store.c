/* pkg_store.c - see pkg_store.h. */
#include "pkg_store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct npki_packed {
	struct npk_package *p;
	int dir; /* of the cache; open, because a sandbox may come before the first use */
	char *dir_path;
	pthread_mutex_t lock; /* one member is unpacked at a time */
};

static int open_cache(struct npki_packed *k, const char *dir, struct npk_err *err)
{
	const char *temp = getenv("TMPDIR");

	if (!dir)
		dir = temp && *temp == '/' ? temp : "/var/tmp"; /* not /tmp, which is memory on many machines */
	k->dir_path = strdup(dir);
	if (!k->dir_path)
		return npk_fail(err, ENOMEM, "%.300s: no memory", dir);
	k->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return k->dir < 0 ? npk_fail(err, errno, "cache directory %.300s: %s", dir, strerror(errno)) : 0;
}

int npki_packed_open(struct npki_packed **out, const char *path, const char *cache_dir, struct npk_err *err)
{
	struct npki_packed *k = calloc(1, sizeof(*k));
	int rc;

	if (!k)
		return npk_fail(err, ENOMEM, "%.300s: no memory", path);
	k->dir = -1;
	pthread_mutex_init(&k->lock, NULL);
	rc = npk_package_open(&k->p, path, err);
	if (rc == 0)
		rc = open_cache(k, cache_dir, err);
	if (rc != 0)
		npki_packed_close(k);
	else
		*out = k;
	return rc;
}

void npki_packed_close(struct npki_packed *k)
{
	if (!k)
		return;
	npk_package_close(k->p);
	if (k->dir >= 0)
		close(k->dir);
	pthread_mutex_destroy(&k->lock);
	free(k->dir_path);
	free(k);
}

const struct npk_package *npki_packed_package(const struct npki_packed *k)
{
	return k->p;
}

static int cache_fail(const struct npki_packed *k, int code, struct npk_err *err)
{
	return npk_fail(err, code, "cache directory %.300s: %s", k->dir_path, strerror(code));
}

static int check_room(const struct npki_packed *k, const struct npki_member *m, struct npk_err *err)
{
	struct statvfs st;
	uint64_t room;

	if (fstatvfs(k->dir, &st) != 0)
		return cache_fail(k, errno, err);
	if (__builtin_mul_overflow((uint64_t)st.f_bavail, (uint64_t)st.f_frsize, &room) || m->original <= room)
		return 0;
	return npk_fail(err, ENOSPC,
		"cache directory %.200s: '%.100s' has %" PRIu64 " bytes, there is room for %" PRIu64, k->dir_path,
		m->name, m->original, room);
}

static int write_all(const struct npki_packed *k, int fd, const uint8_t *p, size_t len, struct npk_err *err)
{
	for (ssize_t n; len > 0; p += n, len -= (size_t)n) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return cache_fail(k, errno, err);
	}
	return 0;
}

static int unpack(const struct npki_packed *k, const struct npki_member *m, int fd, struct npk_err *err)
{
	struct npki_decoder *d = NULL;
	uint8_t *buf = malloc(NPKI_PKG_BLOCK);
	size_t got;
	int rc = buf ? npki_decoder_open(&d, k->p, err) : npk_fail(err, ENOMEM, "'%.100s': no memory", m->name);

	if (rc == 0)
		rc = npki_decoder_start(d, m, err);
	do {
		got = 0;
		if (rc == 0)
			rc = npki_decoder_read(d, buf, NPKI_PKG_BLOCK, &got, err);
		if (rc == 0)
			rc = write_all(k, fd, buf, got, err);
	} while (rc == 0 && got > 0);
	npki_decoder_close(d);
	free(buf);
	return rc;
}

int npki_packed_member(
	struct npki_packed *k, const char *name, int *fd, uint64_t *off, uint64_t *len, struct npk_err *err)
{
	const struct npki_member *m = npki_package_find(k->p, name);
	int f = -1, rc = 0;

	if (!m)
		return npk_fail(err, ENOENT, "%.200s: has no '%.200s'", k->p->path, name);
	if (m->codec == NPK_CODEC_NONE) {
		f = fcntl(k->p->fd, F_DUPFD_CLOEXEC, 0);
		if (f < 0)
			return npk_fail(err, errno, "%.200s: %s", k->p->path, strerror(errno));
	} else {
		pthread_mutex_lock(&k->lock);
		rc = check_room(k, m, err);
		if (rc == 0) {
			f = npk_unnamed_file(k->dir);
			rc = f < 0 ? cache_fail(k, -f, err) : 0;
		}
		if (rc == 0)
			rc = unpack(k, m, f, err);
		pthread_mutex_unlock(&k->lock);
	}
	if (rc != 0) {
		if (f >= 0)
			close(f);
		return rc;
	}
	*fd = f;
	*off = m->codec == NPK_CODEC_NONE ? m->at : 0;
	*len = m->original;
	return 0;
}
