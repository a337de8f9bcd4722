/* slow.h - requests whose answer takes long: each is answered by a thread of its own, so that the workers go on serving. A
 * few run at a time, the others wait for their turn; the kernel's INTERRUPT (a signal to the client) and the end of the
 * mount end them. */
#ifndef NPKFS_SLOW_H
#define NPKFS_SLOW_H

#include <fuse_lowlevel.h>
#include <numpack.h>
#include <pthread.h>
#include <stdatomic.h>

struct npkfs_slow {
	pthread_mutex_t lock; /* memory only; under it at most libfuse's own lock is taken */
	pthread_cond_t turn;  /* a thread ended, or stopped running */
	unsigned threads;     /* lock: all of them */
	unsigned running;     /* lock: those that have their turn */
	_Atomic bool stop;
};

void npkfs_slow_init(struct npkfs_slow *q);
/* Interrupts all that runs and waits until it is answered. Workers may still start some, which end at once. */
void npkfs_slow_stop(struct npkfs_slow *q);
void npkfs_slow_fini(struct npkfs_slow *q);

/* Calls fn(ctx) in another thread, which answers `req`. -EAGAIN: too many wait already, -ENOMEM: no thread. */
typedef void npkfs_slow_fn(void *ctx);
int npkfs_slow_start(struct npkfs_slow *q, fuse_req_t req, npkfs_slow_fn *fn, void *ctx, struct npk_err *err);

/* In such a thread: true; whether its answer is not wanted any more; how many threads its computation may use, so that all of
 * them together have about as many as there are CPUs (0: as many as it likes). */
bool npkfs_slow_here(void);
bool npkfs_slow_cancelled(void);
unsigned npkfs_slow_share(void);

#endif
