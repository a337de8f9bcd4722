/* space.h - which arrays a part of the tree shows: those of the store, or those that a transaction sees.
 *
 * A node's space is NULL for the store's own arrays. A transaction's space outlives it: after the commit its nodes show the
 * store's arrays, after an abort there are none. */
#ifndef NPKFS_SPACE_H
#define NPKFS_SPACE_H

#include <numpack.h>
#include <pthread.h>
#include <stdatomic.h>

struct npkfs_session;
struct npkfs_export;

struct npkfs_space {
	_Atomic unsigned refs;
	pthread_rwlock_t lock;   /* read: the store is used; written: by the end of the transaction */
	struct npk_store *store; /* lock; NULL: the transaction was aborted */
	_Atomic bool ended;
	struct npk_txn *txn;      /* lock */
	char *name;               /* of its directory, a component of .numpack/batch */
	struct npkfs_space *next; /* batch.c */
	bool listed;              /* batch.c */
};

struct npkfs_space *npkfs_space_ref(struct npkfs_space *sp); /* NULL is fine */
void npkfs_space_put(struct npkfs_space *sp);                /* NULL is fine */
/* The store of the space (NULL: the session's), which stays until npkfs_space_leave(). Only short calls between the two.
 * -ESTALE: the transaction was aborted. */
int npkfs_space_enter(struct npkfs_session *s, struct npkfs_space *sp, struct npk_store **out, struct npk_err *err);
void npkfs_space_leave(struct npkfs_space *sp);
/* ".numpack/batch/<name>/" of a transaction, nothing for the store. */
void npkfs_space_path(const struct npkfs_space *sp, struct npk_text *out);

/* The calls of the library that begin with a store. */
int npkfs_array_get(struct npkfs_session *s, struct npkfs_space *sp, const void *name, size_t len,
	struct npk_array **out, struct npk_err *err);
int npkfs_arrays(
	struct npkfs_session *s, struct npkfs_space *sp, struct npk_array ***out, size_t *n, struct npk_err *err);
int npkfs_save_open(struct npkfs_session *s, struct npkfs_space *sp, unsigned dtype, const struct npk_shape *shape,
	struct npk_save **out, struct npk_err *err);

#endif
