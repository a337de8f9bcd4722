/* The sandbox, from inside: a child goes in and tells what it still can do. */
#include "../t.h"

#include "../../fs/sandbox.c"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[] = "/tmp/npk_sandbox_XXXXXX", outside[sizeof(dir) + 8];

#define EXPECT(what)                                                                                                   \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			dprintf(2, "line %d: %s: %s\n", __LINE__, #what, strerror(errno));                             \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

static void *run(void *ctx)
{
	return ctx;
}

static void look(bool change, bool files)
{
	char byte = 1, *argv[] = {"/bin/true", NULL}, *none[] = {NULL};
	pthread_t t;
	void *got;
	int fd, p[2];

	/* what serving needs */
	EXPECT(pipe2(p, O_CLOEXEC) == 0 && write(p[1], &byte, 1) == 1 && read(p[0], &byte, 1) == 1);
	EXPECT(pthread_create(&t, NULL, run, dir) == 0 && pthread_join(t, &got) == 0 && got == dir);
	EXPECT((fd = open("/proc/self/status", O_RDONLY)) >= 0 && read(fd, &byte, 1) == 1 && close(fd) == 0);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	EXPECT(fd >= 0 && openat(fd, "there", O_RDONLY) >= 0);
	if (change || !files) {
		EXPECT(openat(fd, "new", O_RDWR | O_CREAT | O_EXCL, 0600) >= 0);
		EXPECT(renameat(fd, "new", fd, "newer") == 0 && linkat(fd, "newer", fd, "second", 0) == 0);
		EXPECT(unlinkat(fd, "newer", 0) == 0 && unlinkat(fd, "second", 0) == 0);
	} else {
		EXPECT(openat(fd, "new", O_RDWR | O_CREAT, 0600) < 0 && errno == EACCES);
		EXPECT(openat(fd, "there", O_RDWR) < 0 && errno == EACCES);
		EXPECT(unlinkat(fd, "there", 0) < 0 && errno == EACCES);
	}
	/* what it does not */
	EXPECT(!files || (open(outside, O_RDONLY) < 0 && errno == EACCES));
	EXPECT(!files || (open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES));
	EXPECT(!files || (openat(fd, "../../etc/passwd", O_RDONLY) < 0 && errno == EACCES));
	EXPECT(execve(argv[0], argv, none) < 0 && (errno == EPERM || errno == EACCES));
	EXPECT(socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EPERM);
	EXPECT(ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 && errno == EPERM);
	EXPECT(fork() < 0 && errno == EPERM);
	EXPECT(umount2("/", MNT_DETACH) < 0 && errno == EPERM);
	EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) < 0);
	EXPECT(kill(getppid(), 0) < 0 && errno == EPERM);
}

static void check(bool change)
{
	int status;
	pid_t pid = fork();

	T_CHECK(pid >= 0);
	if (pid == 0) {
		struct npkfs_sandbox box = {.store = open(dir, O_RDONLY | O_DIRECTORY), .write = change};
		struct npk_err err = {0};
		bool files;

		if (npkfs_sandbox_enter(&box, &files, &err) != 0) {
			dprintf(2, "%s\n", err.msg);
			_exit(1);
		}
		look(change, files);
		_exit(0);
	}
	T_CHECK(waitpid(pid, &status, 0) == pid);
	T_CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %x", (unsigned)status);
}

TEST(what_serving_needs_and_nothing_else)
{
	char path[sizeof(dir) + 8];
	int fd;

	T_CHECK(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/there", dir);
	snprintf(outside, sizeof(outside), "%s.out", dir);
	T_CHECK((fd = open(path, O_CREAT | O_WRONLY, 0600)) >= 0 && close(fd) == 0);
	T_CHECK((fd = open(outside, O_CREAT | O_WRONLY, 0600)) >= 0 && close(fd) == 0);
	check(true);
	check(false);
	T_CHECK(unlink(path) == 0 && unlink(outside) == 0 && rmdir(dir) == 0);
}

TEST(a_directory_that_is_not_there_is_named)
{
	struct npk_err err = {0};
	uint64_t known = handled(1);
	int rc = allow_path(-1, known, "/no/such/directory", READ, &err);

	T_CHECK(rc == -ENOENT && strstr(err.msg, "/no/such/directory") != NULL);
	T_CHECK(allow_log(-1, known, "relative", &err) == -EINVAL && strstr(err.msg, "relative") != NULL);
}

T_MAIN()
