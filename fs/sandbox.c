/* sandbox.c - see sandbox.h. The kernel's own headers may be older than the kernel, so what they may lack is named here. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- files -------------------------------------------------------------------------------------------------------------- */

#define FS_REFER (1ULL << 13)     /* Landlock 2 */
#define FS_TRUNCATE (1ULL << 14)  /* 3 */
#define FS_IOCTL_DEV (1ULL << 15) /* 5 */

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE                                                                                                          \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |              \
		LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR | FS_REFER | FS_TRUNCATE)

static uint64_t handled(long abi)
{
	uint64_t all = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* every right of the first version */

	return all | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) | (abi >= 5 ? FS_IOCTL_DEV : 0);
}

static int allow_fd(int ruleset, uint64_t known, int fd, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = rights & known, .parent_fd = fd};

	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0 ? 0 : -errno;
}

static int allow_path(int ruleset, uint64_t known, const char *path, uint64_t rights, struct npk_err *err)
{
	int fd = open(path, O_PATH | O_CLOEXEC), rc;

	if (fd < 0)
		return npk_fail(err, errno, "sandbox: %.300s: %s", path, strerror(errno));
	rc = allow_fd(ruleset, known, fd, rights);
	close(fd);
	return rc == 0 ? 0 : npk_fail(err, -rc, "sandbox: %.300s: %s", path, strerror(-rc));
}

/* A log that was moved away is made anew, so its directory is what counts. */
static int allow_log(int ruleset, uint64_t known, const char *file, struct npk_err *err)
{
	char *dir = strdup(file), *slash = dir != NULL ? strrchr(dir, '/') : NULL;
	int rc;

	if (slash == NULL) {
		free(dir);
		return npk_fail(err, EINVAL, "sandbox: log_file %.300s: not an absolute path", file);
	}
	slash[slash == dir] = '\0';
	rc = allow_path(ruleset, known, dir, LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG, err);
	free(dir);
	return rc;
}

static int allow_all(int ruleset, uint64_t known, const struct npkfs_sandbox *box, struct npk_err *err)
{
	struct stat st;
	bool package = fstat(box->store, &st) == 0 && S_ISREG(st.st_mode); /* of a file there are fewer rights */
	int rc = allow_fd(ruleset, known, box->store,
		package      ? LANDLOCK_ACCESS_FS_READ_FILE
		: box->write ? READ | WRITE
			     : READ);

	if (rc != 0)
		return npk_fail(err, -rc, "sandbox: the store's directory: %s", strerror(-rc));
	rc = allow_path(ruleset, known, "/proc", READ, err);
	if (rc == 0 && box->log_file != NULL)
		rc = allow_log(ruleset, known, box->log_file, err);
	if (rc == 0 && box->dir != NULL)
		rc = allow_path(ruleset, known, box->dir, READ | WRITE, err);
	if (rc == 0 && box->read_ahead)
		rc = allow_path(ruleset, known, "/sys", READ | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE, err);
	return rc;
}

static int confine_files(const struct npkfs_sandbox *box, bool *done, struct npk_err *err)
{
	struct landlock_ruleset_attr attr = {0};
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int ruleset, rc;

	*done = false;
	if (abi < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
		return 0;
	attr.handled_access_fs = handled(abi);
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (ruleset < 0)
		return npk_fail(err, errno, "sandbox: landlock: %s", strerror(errno));
	rc = allow_all(ruleset, attr.handled_access_fs, box, err);
	if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
		rc = npk_fail(err, errno, "sandbox: landlock: %s", strerror(errno));
	close(ruleset);
	*done = rc == 0;
	return rc;
}

/* --- system calls ------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH

/* What the daemon, the engine, libfuse and the C library use while a mount is served. Those between #ifdef exist on x86-64
 * only, where the C library still uses some of them. */
/* clang-format off */
static const int allowed[] = {
	/* files that are open */
	SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
	SYS_pwritev2, SYS_lseek, SYS_close, SYS_close_range, SYS_fstat, SYS_statx, SYS_ftruncate, SYS_fallocate, SYS_fsync,
	SYS_fdatasync, SYS_syncfs, SYS_sync_file_range, SYS_fadvise64, SYS_readahead, SYS_flock, SYS_fcntl, SYS_ioctl,
	SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_tee, SYS_vmsplice, SYS_pipe2, SYS_dup, SYS_dup3, SYS_getdents64,
	SYS_fstatfs, SYS_fchmod, SYS_fchown, SYS_fgetxattr, SYS_flistxattr, SYS_memfd_create, SYS_name_to_handle_at,
	/* names */
	SYS_openat, SYS_openat2, SYS_newfstatat, SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_unlinkat, SYS_renameat,
	SYS_renameat2, SYS_linkat, SYS_mkdirat, SYS_fchmodat, SYS_fchownat, SYS_utimensat, SYS_statfs, SYS_getcwd, SYS_umask,
	SYS_truncate, SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch,
	/* memory */
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_mincore, SYS_msync, SYS_brk, SYS_mlock, SYS_munlock,
	SYS_membarrier,
	/* threads, signals, time */
	SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_set_tid_address, SYS_sched_yield, SYS_sched_getaffinity,
	SYS_sched_setaffinity, SYS_gettid, SYS_tgkill, SYS_exit, SYS_exit_group, SYS_rt_sigaction, SYS_rt_sigprocmask,
	SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_rt_sigsuspend, SYS_rt_sigpending, SYS_sigaltstack, SYS_restart_syscall,
	SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getrusage,
	SYS_ppoll, SYS_pselect6, SYS_eventfd2, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_wait4, SYS_getrandom,
	/* who and where we are */
	SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups, SYS_getpgid, SYS_getsid,
	SYS_setsid, SYS_uname, SYS_sysinfo, SYS_getcpu, SYS_prlimit64, SYS_getpriority,
	/* sockets that are open: the system's log, the service manager, the unmounter */
	SYS_sendto, SYS_sendmsg, SYS_recvfrom, SYS_recvmsg, SYS_shutdown, SYS_getsockopt,
#ifdef __x86_64__
	SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_unlink, SYS_rename, SYS_link, SYS_mkdir, SYS_rmdir, SYS_readlink,
	SYS_chmod, SYS_poll, SYS_select, SYS_dup2, SYS_pipe, SYS_epoll_wait, SYS_getdents, SYS_time, SYS_arch_prctl,
#endif
};
/* clang-format on */

#define NALLOWED (sizeof(allowed) / sizeof(allowed[0]))
#define SAY(code, value) (struct sock_filter) BPF_STMT(code, value)
#define IF(value, yes, no) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define LOAD(field) SAY(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ANSWER(what) SAY(BPF_RET | BPF_K, what)
#define REFUSE(code) ANSWER(SECCOMP_RET_ERRNO | (code))

/* Threads are made by clone(), whose flags a filter can see; clone3() is said to be missing, and the C library then uses
 * clone(). prctl() may only name threads. */
static size_t write_filter(struct sock_filter *f)
{
	size_t n = 0;

	f[n++] = LOAD(arch);
	f[n++] = IF(ARCH, 1, 0);
	f[n++] = ANSWER(SECCOMP_RET_KILL_PROCESS);
	f[n++] = LOAD(nr);
	for (size_t i = 0; i < NALLOWED; i++) {
		f[n++] = IF((uint32_t)allowed[i], 0, 1);
		f[n++] = ANSWER(SECCOMP_RET_ALLOW);
	}
	f[n++] = IF(SYS_clone3, 0, 1);
	f[n++] = REFUSE(ENOSYS);
	f[n++] = IF(SYS_clone, 0, 4);
	f[n++] = LOAD(args[0]);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1);
	f[n++] = ANSWER(SECCOMP_RET_ALLOW);
	f[n++] = REFUSE(EPERM);
	f[n++] = IF(SYS_prctl, 0, 3);
	f[n++] = LOAD(args[0]);
	f[n++] = IF(PR_SET_NAME, 0, 1);
	f[n++] = ANSWER(SECCOMP_RET_ALLOW);
	f[n++] = REFUSE(EPERM);
	return n;
}

static int confine_calls(struct npk_err *err)
{
	struct sock_filter filter[2 * NALLOWED + 32];
	struct sock_fprog program = {.filter = filter};

	program.len = (unsigned short)write_filter(filter);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0 &&
		errno != EINVAL) /* EINVAL: a kernel without */
		return npk_fail(err, errno, "sandbox: seccomp: %s", strerror(errno));
	return 0;
}

#else

static int confine_calls(struct npk_err *err)
{
	(void)err;
	return 0;
}

#endif

int npkfs_sandbox_enter(const struct npkfs_sandbox *box, bool *files, struct npk_err *err)
{
	int rc;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return npk_fail(err, errno, "sandbox: no_new_privs: %s", strerror(errno));
	rc = confine_files(box, files, err);
	return rc == 0 ? confine_calls(err) : rc;
}
