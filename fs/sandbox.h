/* sandbox.h - what a serving daemon may still do, should a damaged store or a query ever take it over: read and write the
 * store, read /proc of its callers, answer the kernel. No other file, no program, no new socket, no other process.
 *
 * Landlock (Linux 5.13) keeps the files, a seccomp allow-list the system calls; a call that is not on it fails with EPERM. A
 * kernel without Landlock gets the second half only. */
#ifndef NPKFS_SANDBOX_H
#define NPKFS_SANDBOX_H

#include <numpack.h>

struct npkfs_sandbox {
	int store;            /* descriptor of the store's directory, or of a package */
	bool write;           /* it may be changed */
	const char *log_file; /* may be opened anew, or NULL */
	const char *dir;      /* a further directory that may be written to, or NULL */
	bool read_ahead;      /* the mount's settings in sysfs may be written */
};

/* For this process and all that it starts, for ever; no other thread may run yet. 0, or -errno. *files tells whether Landlock
 * could be used. */
int npkfs_sandbox_enter(const struct npkfs_sandbox *box, bool *files, struct npk_err *err);

#endif
