/* unmounter.c - see unmounter.h. */
#include "unmounter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

/* --- a daemon that cannot die ------------------------------------------------------------------------------------------ */

/* Killed while its notify thread waits in the kernel for a lock whose holder waits for an answer of the daemon, it would
 * never end, and keep the store locked. Nobody can free the two but who ends the connection. */

#define ORPHAN_SIGNAL SIGUSR1
#define LAST_BREATH_MS 500

static volatile sig_atomic_t orphan;

static void note_orphan(int signal)
{
	(void)signal;
	orphan = 1;
}

/* The device that is mounted there, without asking the daemon; 0: none. */
static uint64_t device_of(const char *mountpoint)
{
	struct statx st;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) !=
		0)
		return 0;
	return (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor;
}

/* As root by the mount, if it is still the one; as the mount's owner where the kernel's list of connections is mounted. Either
 * may be refused, then there is nothing else to try. */
static void abort_connection(const char *mountpoint, uint64_t device)
{
	char path[64];
	int fd;

	/* EBUSY: somebody is in it, but the connection is at its end. */
	if (device_of(mountpoint) == device &&
		(umount2(mountpoint, MNT_FORCE | UMOUNT_NOFOLLOW) == 0 || errno == EBUSY))
		return;
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", (unsigned)device);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		_exit(1);
}

/* The daemon's first thread is gone. The socket closes when the last one is, soon in all cases but that one. */
static _Noreturn void outlive(int fd, const char *mountpoint, uint64_t device)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, LAST_BREATH_MS) < 0 && errno == EINTR)
		;
	if (p.revents == 0)
		abort_connection(mountpoint, device);
	_exit(0);
}

/* --- the process ------------------------------------------------------------------------------------------------------- */

/* A byte is the order to unmount, the end of the connection the end. */
static _Noreturn void obey(int fd, const char *mountpoint)
{
	uint64_t device = device_of(mountpoint);
	struct npk_err err;
	char order;
	ssize_t n;

	for (;;) {
		/* The signal may come just before the wait: it is not for ever. */
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int ready = orphan ? 0 : poll(&p, 1, 10000);

		if (orphan)
			outlive(fd, mountpoint, device);
		if (ready <= 0)
			continue;
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
	static const int deaf[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2, SIGPIPE};
	const struct sigaction told = {.sa_handler = note_orphan};
	sigset_t none;

	sigaction(ORPHAN_SIGNAL, &told, NULL);
	prctl(PR_SET_PDEATHSIG, ORPHAN_SIGNAL, 0, 0, 0);
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
