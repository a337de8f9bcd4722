/* pkg_io.c - see pkg_io.h. */
#include "pkg_io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *path, int code, struct npk_err *err)
{
	return npk_fail(err, code, "%.300s: %s", path, strerror(code));
}

int npki_beside_init(struct npki_beside *b, const char *target, bool overwrite, struct npk_err *err)
{
	struct stat st;

	*b = (struct npki_beside){0};
	b->exists = lstat(target, &st) == 0;
	if (!b->exists && errno != ENOENT)
		return fail(target, errno, err);
	if (b->exists && !overwrite)
		return npk_fail(err, EEXIST, "%.300s: is there already, and was not to be replaced", target);
	b->target = b->exists ? realpath(target, NULL) : strdup(target);
	if (!b->target)
		return fail(target, errno, err);
	for (size_t n = strlen(b->target); n > 1 && b->target[n - 1] == '/'; n--)
		b->target[n - 1] = 0; /* "dir/" */
	return 0;
}

void npki_beside_fini(struct npki_beside *b)
{
	free(b->target);
	free(b->temp);
	*b = (struct npki_beside){0};
}

/* TARGET.tmp.<8 hex digits>: a name that nobody has. */
static int name_temp(struct npki_beside *b, struct npk_err *err)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return fail("/dev/urandom", errno, err);
	free(b->temp);
	if (asprintf(&b->temp, "%s.tmp.%08" PRIx32, b->target, random) >= 0)
		return 0;
	b->temp = NULL;
	return fail(b->target, ENOMEM, err);
}

static int give_up(struct npki_beside *b, int code, struct npk_err *err)
{
	int rc = fail(b->temp, code, err);

	free(b->temp);
	b->temp = NULL;
	return rc;
}

int npki_beside_file(struct npki_beside *b, int *fd, struct npk_err *err)
{
	int rc, f;

	do {
		rc = name_temp(b, err);
		if (rc != 0)
			return rc;
		f = open(b->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	} while (f < 0 && errno == EEXIST);
	if (f < 0)
		return give_up(b, errno, err);
	*fd = f;
	return 0;
}

int npki_beside_dir(struct npki_beside *b, int *fd, struct npk_err *err)
{
	int rc, f;

	do {
		rc = name_temp(b, err);
		if (rc != 0)
			return rc;
	} while ((rc = mkdir(b->temp, 0777)) != 0 && errno == EEXIST);
	if (rc != 0)
		return give_up(b, errno, err);
	f = open(b->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f < 0) {
		rc = errno;
		rmdir(b->temp);
		return give_up(b, rc, err);
	}
	*fd = f;
	return 0;
}

static int sync_parent(const char *path, struct npk_err *err)
{
	const char *slash = strrchr(path, '/');
	char *dir = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	int fd, rc = 0;

	if (!dir)
		return fail(path, ENOMEM, err);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		rc = fail(dir, errno, err);
	if (fd >= 0)
		close(fd);
	free(dir);
	return rc;
}

static int taken(const struct npki_beside *b, struct npk_err *err)
{
	return npk_fail(err, EEXIST, "%.300s: has come to be meanwhile, and was not to be replaced", b->target);
}

/* Where the filesystem has no RENAME_NOREPLACE, a second link does the same for a file. */
static int into_place(struct npki_beside *b, struct npk_err *err)
{
	if (b->exists)
		return rename(b->temp, b->target) == 0 ? 0 : fail(b->target, errno, err);
	if (renameat2(AT_FDCWD, b->temp, AT_FDCWD, b->target, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EINVAL && link(b->temp, b->target) == 0) {
		unlink(b->temp);
		return 0;
	}
	return errno == EEXIST ? taken(b, err) : fail(b->target, errno, err);
}

int npki_beside_commit_file(struct npki_beside *b, struct npk_err *err)
{
	int rc = into_place(b, err);

	if (rc != 0)
		return rc;
	free(b->temp);
	b->temp = NULL;
	return sync_parent(b->target, err);
}

/* Where the filesystem cannot exchange two names there is a moment without a target; the old one comes back when the new
 * one cannot take its place. */
static int exchange_by_hand(struct npki_beside *b, struct npk_err *err)
{
	char *aside;
	int rc = 0;

	if (asprintf(&aside, "%s.old", b->temp) < 0)
		return fail(b->target, ENOMEM, err);
	if (rename(b->target, aside) != 0)
		rc = fail(b->target, errno, err);
	else if (rename(b->temp, b->target) != 0) {
		rc = fail(b->target, errno, err);
		if (rename(aside, b->target) != 0)
			rc = npk_fail(err, errno, "%.200s: cannot get its name back and is now %.200s: %s", b->target,
				aside, strerror(errno));
	}
	if (rc != 0) {
		free(aside);
		return rc;
	}
	free(b->temp);
	b->temp = aside;
	return 0;
}

int npki_beside_commit_dir(struct npki_beside *b, struct npk_err *err)
{
	int rc = 0;

	if (!b->exists) {
		if (renameat2(AT_FDCWD, b->temp, AT_FDCWD, b->target, RENAME_NOREPLACE) != 0 &&
			(errno != EINVAL || rename(b->temp, b->target) != 0))
			return errno == EEXIST || errno == ENOTEMPTY ? taken(b, err) : fail(b->target, errno, err);
		free(b->temp);
		b->temp = NULL;
	} else if (renameat2(AT_FDCWD, b->temp, AT_FDCWD, b->target, RENAME_EXCHANGE) != 0) {
		rc = errno == EINVAL ? exchange_by_hand(b, err) : fail(b->target, errno, err);
	}
	return rc == 0 ? sync_parent(b->target, err) : rc;
}

#define ASK_BYTES ((uint64_t)1 << 20)

int npki_progress_add(struct npki_progress *p, uint64_t bytes, struct npk_err *err)
{
	uint64_t before = p->done;

	p->done += bytes;
	if (!p->ask || (before / ASK_BYTES == p->done / ASK_BYTES && p->done != p->all))
		return 0;
	return p->ask(p->ctx, p->done, p->all) ? 0 : npk_fail(err, ECANCELED, "was stopped");
}
