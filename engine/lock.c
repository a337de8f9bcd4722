/* lock.c - see lock.h. */
#include "lock.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS 20

static void read_owner(int fd, char owner[NPK_OWNER_MAX])
{
	ssize_t n = pread(fd, owner, NPK_OWNER_MAX - 1, 0);

	owner[n > 0 ? n : 0] = 0;
	owner[strcspn(owner, "\n")] = 0;
	if (!owner[0])
		snprintf(owner, NPK_OWNER_MAX, "another process");
}

static int busy(const char *path, int fd, struct npk_err *err)
{
	char owner[NPK_OWNER_MAX];

	read_owner(fd, owner);
	return npk_fail(err, EBUSY, "%.200s: is being written by %s", path, owner);
}

int npki_lock_owner(int dirfd, char owner[NPK_OWNER_MAX], struct npk_err *err)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct npki_file_id id;
	int fd, rc = npki_stat_file(dirfd, NPKI_LOCK, &id, err);

	if (rc != 0 || !id.exists)
		return rc;
	rc = npki_open_file(dirfd, NPKI_LOCK, &fd, NULL, err);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	if (fcntl(fd, F_OFD_GETLK, &l) != 0)
		rc = npk_fail(err, errno, NPKI_LOCK ": %s", strerror(errno));
	else if (l.l_type != F_UNLCK)
		rc = (read_owner(fd, owner), 1);
	close(fd);
	return rc;
}

int npk_lock_owner(const char *path, char owner[NPK_OWNER_MAX], struct npk_err *err)
{
	int rc, fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return npk_fail(err, errno, "%.300s: %s", path, strerror(errno));
	rc = npki_lock_owner(fd, owner, err);
	close(fd);
	return rc < 0 ? npk_err_context(err, rc, "%.300s", path) : rc;
}

/* An OFD lock: it belongs to the open file, so that two stores of one process exclude one another too. */
static int try_lock(int fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_SETLK, &l) == 0 ? 0 : -errno;
}

int npki_lock_file(int dirfd, const char *path, bool make, int timeout_ms, int *out, struct npk_err *err)
{
	int flags = O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | (make ? O_CREAT : 0);
	int fd = openat(dirfd, NPKI_LOCK, flags, 0666), rc, waited = 0;

	if (fd < 0)
		return npk_fail(err, errno, NPKI_LOCK ": %s", strerror(errno));
	while ((rc = try_lock(fd)) == -EAGAIN || rc == -EACCES) {
		if (waited >= timeout_ms) {
			busy(path, fd, err);
			close(fd);
			return -EBUSY;
		}
		usleep(POLL_MS * 1000);
		waited += POLL_MS;
	}
	if (rc != 0) {
		close(fd);
		return npk_fail(err, -rc, NPKI_LOCK ": cannot be locked: %s", strerror(-rc));
	}
	*out = fd;
	return 0;
}

int npki_lock_dir(int dirfd, const char *path, const char *owner, int timeout_ms, int *out, struct npk_err *err)
{
	int fd, rc = npki_lock_file(dirfd, path, true, timeout_ms, &fd, err);

	if (rc == -EACCES)
		return npk_fail(err, EROFS, NPKI_LOCK ": %s", strerror(EACCES));
	if (rc != 0)
		return rc;
	rc = npki_write_owner(fd, owner, err);
	if (rc != 0)
		close(fd);
	else
		*out = fd;
	return rc;
}

int npki_write_owner(int fd, const char *owner, struct npk_err *err)
{
	char host[128] = "", text[512];
	int n;

	gethostname(host, sizeof(host) - 1);
	n = snprintf(text, sizeof(text), "pid %d on %s%s%.300s\n", (int)getpid(), host, owner ? ", " : "",
		owner ? owner : "");
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
		return npk_fail(err, errno, NPKI_LOCK ": %s", strerror(errno));
	return 0;
}

/* Nobody's name is left in it: what is found there later is the name of a process that died. */
void npki_unlock_dir(int fd)
{
	struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	if (ftruncate(fd, 0) != 0)
		errno = 0;          /* the name is only for people, and the lock itself says that it is free */
	fcntl(fd, F_OFD_SETLK, &l); /* cannot fail for a lock that is held, and the close follows */
	close(fd);
}
