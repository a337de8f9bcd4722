/* background.c - see background.h. */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct outcome { /* less than PIPE_BUF: written and read whole */
	enum npkfs_exit status;
	struct npk_err err;
};

static int leave_terminal(struct npk_err *err)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return npk_fail(err, errno, "/dev/null: %s", strerror(errno));
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (dup2(null, fd) < 0)
			return npk_fail(err, errno, "/dev/null: %s", strerror(errno));
	if (null > STDERR_FILENO)
		close(null);
	if (chdir("/") != 0)
		return npk_fail(err, errno, "/: %s", strerror(errno));
	return 0;
}

pid_t npkfs_background_fork(int *report, struct npk_err *err)
{
	int ends[2];
	pid_t pid;
	int rc;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return npk_fail(err, errno, "pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0) {
		rc = npk_fail(err, errno, "fork: %s", strerror(errno));
		close(ends[0]);
		close(ends[1]);
		return rc;
	}
	close(ends[pid == 0 ? 0 : 1]);
	*report = ends[pid == 0 ? 1 : 0];
	return pid > 0 ? pid : leave_terminal(err);
}

void npkfs_background_tell(int *report, enum npkfs_exit status, const struct npk_err *err)
{
	struct outcome out;
	ssize_t n;

	if (*report < 0)
		return;
	/* Not earlier: an x-systemd.automount lets only systemd's own process group walk over the mountpoint as long as
	 * the mount is not there yet, and serving may look at it. */
	setsid();
	memset(&out, 0, sizeof out);
	out.status = status;
	if (err != NULL)
		out.err = *err;
	do
		n = write(*report, &out, sizeof out);
	while (n < 0 && errno == EINTR);
	close(*report);
	*report = -1;
}

enum npkfs_exit npkfs_background_wait(int report, bool *died, struct npk_err *err)
{
	struct outcome in;
	ssize_t n;

	do
		n = read(report, &in, sizeof in);
	while (n < 0 && errno == EINTR);
	close(report);
	*died = n != sizeof in;
	if (*died) {
		npk_fail(err, EIO, "the background process died before the mount answered; see its log");
		return NPKFS_EXIT_FUSE;
	}
	if (in.status != NPKFS_OK)
		*err = in.err;
	return in.status;
}
