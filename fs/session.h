/* session.h - one mounted store, from the open store to the end of the request loop. main.c makes it, ops.c serves it. */
#ifndef NPKFS_SESSION_H
#define NPKFS_SESSION_H

#include "config.h"

struct npkfs_session;

/* What failed, as the exit status of the command tells (interface.md section 9). */
enum npkfs_exit {
	NPKFS_OK,
	NPKFS_EXIT_USAGE,
	NPKFS_EXIT_STORE,
	NPKFS_EXIT_BUSY,
	NPKFS_EXIT_MOUNTPOINT,
	NPKFS_EXIT_FUSE
};

/* Opens the store, mounts it, but serves nothing yet: after it returned 0 the process may fork into the background (no
 * thread runs). `c` is borrowed until close. On failure *status says which exit status fits. */
int npkfs_session_open(
	struct npkfs_session **out, const struct npkfs_config *c, enum npkfs_exit *status, struct npk_err *err);
/* Serves requests until the mount goes (umount, SIGTERM, SIGINT or npkfs_session_stop()). `ready` is called once, from
 * any thread, when the mount answers. Starts the threads, ends them before it returns. 0, or -errno of the loop. */
int npkfs_session_serve(struct npkfs_session *s, void (*ready)(void *ctx), void *ctx, struct npk_err *err);
/* From a signal handler or any thread: unmount and end the loop. */
void npkfs_session_stop(struct npkfs_session *s);
/* SIGHUP: look at the store anew and drop caches. SIGUSR1: stats to the log. Both called from a normal thread. */
/* What others are told who find the store locked: that this process has it mounted. Again after a fork. */
int npkfs_session_own(struct npkfs_session *s, struct npk_err *err);
/* Has the kernel forget all pages and attributes. */
void npkfs_session_drop_caches(struct npkfs_session *s);
void npkfs_session_reload(struct npkfs_session *s);
void npkfs_session_log_stats(struct npkfs_session *s);
/* Gives up all that serving does not need (sandbox.h). Before any thread starts, in the process that serves. */
int npkfs_session_confine(struct npkfs_session *s, struct npk_err *err);
/* After serving: everything is on disk, and the store is closed, also when it fails. */
int npkfs_session_finish(struct npkfs_session *s, struct npk_err *err);
/* In a parent whose child served the session and died: takes the mount away, and touches nothing of the store. */
void npkfs_session_abandon(struct npkfs_session *s);
void npkfs_session_close(struct npkfs_session *s);

#endif
