/* inval.h - the notify thread: tells the kernel to forget names and pages.
 *
 * A notification may wait for a directory's lock, whose holder waits for a free worker. So workers never notify and
 * never wait for it: they queue, after the new state is published and with no lock held, and this thread sends. The same
 * notification queued twice is sent once. */
#ifndef NPKFS_INVAL_H
#define NPKFS_INVAL_H

#include "stats.h"

#include <numpack.h>
#include <pthread.h>

struct fuse_session;
struct npkfs_inval_item;

#define NPKFS_INVAL_BUCKETS 1024

struct npkfs_inval {
	struct fuse_session *fuse;
	struct npkfs_stats *stats;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct npkfs_inval_item *head, *tail;                  /* lock */
	struct npkfs_inval_item *pending[NPKFS_INVAL_BUCKETS]; /* lock: what is queued, by its hash */
	bool started, stop;                                    /* lock */
	bool busy;                                             /* lock: an item is being sent */
};

void npkfs_inval_init(struct npkfs_inval *q, struct fuse_session *fuse, struct npkfs_stats *stats);
int npkfs_inval_start(struct npkfs_inval *q, struct npk_err *err);
/* Ends the thread; what is still queued is dropped. Workers must still run: a notification may wait for them. */
void npkfs_inval_stop(struct npkfs_inval *q);
void npkfs_inval_fini(struct npkfs_inval *q);

/* The name `name` in directory `parent` means something else, or nothing, from now on. */
void npkfs_inval_entry(struct npkfs_inval *q, uint64_t parent, const char *name);
/* Its attributes, and the pages of [off, off + len). A len of 0: the attributes alone. */
void npkfs_inval_range(struct npkfs_inval *q, uint64_t id, uint64_t off, uint64_t len);
/* Calls fn(ctx) in the notify thread when all that is queued now was sent. It may reply to a request and change the store;
 * it must not wait for a notification. At the end of the mount it is called as well, by npkfs_inval_stop(). */
typedef void npkfs_inval_fn(void *ctx);
int npkfs_inval_call(struct npkfs_inval *q, npkfs_inval_fn *fn, void *ctx);
/* From within such a call only: what these queue, at once. The second tells the bytes at `off`, and with it that the file is no
 * shorter than off + len, whatever sizes the kernel is getting in answers meanwhile. */
void npkfs_inval_range_now(struct npkfs_inval *q, uint64_t id, uint64_t off, uint64_t len);
void npkfs_inval_store_now(struct npkfs_inval *q, uint64_t id, uint64_t off, const void *bytes, size_t len);
/* Nothing is queued, and nothing is being sent. */
bool npkfs_inval_idle(struct npkfs_inval *q);

/* The attributes and all cached pages (of a directory: its listing) of node `id` are out of date. */
void npkfs_inval_node(struct npkfs_inval *q, uint64_t id);

#endif
