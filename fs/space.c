/* space.c - see space.h. */
#include "space.h"
#include "fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct npkfs_space *npkfs_space_ref(struct npkfs_space *sp)
{
	if (sp != NULL)
		atomic_fetch_add(&sp->refs, 1);
	return sp;
}

void npkfs_space_put(struct npkfs_space *sp)
{
	if (sp == NULL || atomic_fetch_sub(&sp->refs, 1) != 1)
		return;
	npk_txn_abort(sp->txn);
	pthread_rwlock_destroy(&sp->lock);
	free(sp->name);
	free(sp);
}

int npkfs_space_enter(struct npkfs_session *s, struct npkfs_space *sp, struct npk_store **out, struct npk_err *err)
{
	if (sp == NULL) {
		*out = s->store;
		return 0;
	}
	pthread_rwlock_rdlock(&sp->lock);
	*out = sp->store;
	if (*out != NULL)
		return 0;
	pthread_rwlock_unlock(&sp->lock);
	return npk_fail(err, ESTALE, "the transaction '%s' was discarded", sp->name);
}

void npkfs_space_leave(struct npkfs_space *sp)
{
	if (sp != NULL)
		pthread_rwlock_unlock(&sp->lock);
}

void npkfs_space_path(const struct npkfs_space *sp, struct npk_text *out)
{
	if (sp != NULL)
		npk_text_printf(out, ".numpack/batch/%s/", sp->name);
}

int npkfs_array_get(struct npkfs_session *s, struct npkfs_space *sp, const void *name, size_t len,
	struct npk_array **out, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(s, sp, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_array_get_n(out, store, name, len, err);
	npkfs_space_leave(sp);
	return rc;
}

int npkfs_arrays(
	struct npkfs_session *s, struct npkfs_space *sp, struct npk_array ***out, size_t *n, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(s, sp, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_store_list(store, out, n, err);
	npkfs_space_leave(sp);
	return rc;
}

int npkfs_save_open(struct npkfs_session *s, struct npkfs_space *sp, unsigned dtype, const struct npk_shape *shape,
	struct npk_save **out, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(s, sp, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_save_open(out, store, dtype, shape, err);
	npkfs_space_leave(sp);
	return rc;
}
