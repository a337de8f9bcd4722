/* batch.h - transactions: the directories of .numpack/batch, and begin ... commit in ctl (interface.md section 6). */
#ifndef NPKFS_BATCH_H
#define NPKFS_BATCH_H

#include <numpack.h>
#include <pthread.h>

#define NPKFS_BATCH_NAME_MAX 255

struct npkfs_session;
struct npkfs_space;

struct npkfs_batches {
	pthread_mutex_t lock;
	struct npkfs_space *first; /* lock; each has a reference */
};

void npkfs_batches_init(struct npkfs_batches *b);
/* Discards those that are open. */
void npkfs_batches_fini(struct npkfs_session *s);

/* Opens a transaction; *out has a reference. With a `name` it is a directory of .numpack/batch: -EEXIST. */
int npkfs_batch_begin(struct npkfs_session *s, const char *name, struct npkfs_space **out, struct npk_err *err);
/* Everything that was done in it happens now, and its nodes show the store's arrays. -EBUSY: an array that it changed was
 * changed outside too, or a file in it is open for writing; it goes on. -ESTALE: it has ended. May wait half a second. */
int npkfs_batch_commit(struct npkfs_session *s, struct npkfs_space *sp, struct npk_err *err);
/* Nothing of it happened; files of it that are open show what they showed. -ESTALE: it has ended. */
int npkfs_batch_abort(struct npkfs_session *s, struct npkfs_space *sp, struct npk_err *err);

#endif
