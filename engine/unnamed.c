/* unnamed.c - files that have no name, and so go with their last descriptor. */
#include "numpack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int npk_unnamed_file(int dirfd)
{
	static _Atomic unsigned turn;
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char name[64];

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		snprintf(name, sizeof(name), ".numpack-%d-%u", (int)getpid(), atomic_fetch_add(&turn, 1));
		fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0)
			unlinkat(dirfd, name, 0);
	}
	return fd >= 0 ? fd : -errno;
}

int npk_temp_file(struct npk_err *err)
{
	const char *path = secure_getenv("TMPDIR");
	int dir, fd;

	if (!path || !*path)
		path = "/tmp";
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = dir >= 0 ? npk_unnamed_file(dir) : -errno;
	if (dir >= 0)
		close(dir);
	return fd >= 0 ? fd : npk_fail(err, -fd, "%.200s: a temporary file: %s", path, strerror(-fd));
}
