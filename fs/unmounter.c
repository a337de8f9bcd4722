/* unmounter.c - see unmounter.h. */
#include "unmounter.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int run_fusermount(const char *mountpoint, struct npk_err *err)
{
	char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", (char *)mountpoint, NULL};
	pid_t pid;
	int rc = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), status = 0;

	if (rc != 0)
		return npk_fail(err, rc, "unmounting %.300s: fusermount3: %s", mountpoint, strerror(rc));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return npk_fail(err, errno, "unmounting %.300s: fusermount3: %s", mountpoint, strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return npk_fail(err, EPERM, "unmounting %.300s: fusermount3 failed", mountpoint);
	return 0;
}

/* Those who use the mount go on; the connection ends with the last of them. */
static int take_away(const char *mountpoint, struct npk_err *err)
{
	return umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : run_fusermount(mountpoint, err);
}

/* A byte is the order to unmount, the end of the connection the end. */
static _Noreturn void obey(int fd, const char *mountpoint)
{
	struct npk_err err;
	char order;
	ssize_t n;

	for (;;) {
		n = recv(fd, &order, 1, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != 1)
			_exit(0);
		memset(&err, 0, sizeof(err));
		take_away(mountpoint, &err);
		if (send(fd, &err, sizeof(err), MSG_NOSIGNAL) != sizeof(err))
			_exit(1);
	}
}

static void become_helper(int fd)
{
	static const int deaf[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
	sigset_t none;

	for (size_t i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
		signal(deaf[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_NAME, "numpackfs-umnt", 0, 0, 0);
	if (fd > 3)
		close_range(
			3, (unsigned)fd - 1, 0); /* the kernel's connection above all: it must end with the daemon */
	close_range((unsigned)fd + 1, ~0u, 0);
}

int npkfs_unmounter_start(const char *mountpoint, struct npk_err *err)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return npk_fail(err, errno, "socketpair: %s", strerror(errno));
	pid = fork();
	if (pid < 0) {
		npk_fail(err, errno, "fork: %s", strerror(errno));
		close(ends[0]);
		close(ends[1]);
		return -err->code;
	}
	if (pid == 0) {
		become_helper(ends[1]);
		obey(ends[1], mountpoint);
	}
	close(ends[1]);
	return ends[0];
}

int npkfs_unmount(int socket, const char *mountpoint, struct npk_err *err)
{
	ssize_t n;

	if (socket < 0)
		return take_away(mountpoint, err);
	n = send(socket, "u", 1, MSG_NOSIGNAL);
	while (n == 1 && (n = recv(socket, err, sizeof(*err), 0)) < 0 && errno == EINTR)
		n = 1;
	if (n != sizeof(*err))
		return npk_fail(err, EPIPE, "unmounting %.300s: the process that would do it is gone", mountpoint);
	return -err->code;
}
