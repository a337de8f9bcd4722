/* array.c - a named array: which generation is its current one, and what there is to tell about it. */
#include "store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct npk_array *npk_array_ref(struct npk_array *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

void npk_array_put(struct npk_array *a)
{
	if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
		return;
	npk_gen_put(a->cur);
	pthread_mutex_destroy(&a->lock);
	npki_store_put(a->store);
	npki_entry_put(a->entry);
	npki_rowmap_put(a->live);
	npk_array_put(a->origin);
	free(a);
}

const char *npk_array_name(const struct npk_array *a, size_t *len)
{
	if (len)
		*len = a->name_len;
	return a->name;
}

/* Under a->lock. A stale generation is good enough for everybody but the refresh that is about to replace it. */
static int current_gen(struct npk_array *a, struct npk_err *err)
{
	struct npki_notes notes = {0};
	struct npk_gen *fresh;
	int rc;

	if (a->gone)
		return npk_fail(err, ENOENT, "no array '%.256s' any more", a->name);
	if (a->cur && !(a->stale && npki_is_refreshing(a->store)))
		return 0;
	rc = npki_gen_load(&fresh, a->store, a->name, a->name_len, &(struct npki_layout){a->entry, a->live, a->known},
		&notes, err);
	memcpy(a->warning, notes.warning, sizeof(a->warning));
	if (rc != 0)
		return rc;
	npk_gen_put(a->cur);
	a->cur = fresh;
	a->stale = false;
	return 0;
}

static int try_gen(struct npk_gen **out, struct npk_array *a, bool *loaded, struct npk_err *err)
{
	int rc;

	pthread_mutex_lock(&a->lock);
	*loaded = a->cur == NULL;
	rc = current_gen(a, err);
	if (rc == 0)
		*out = npk_gen_ref(a->cur);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

#define MIXED_LOADS 5 /* a store that changes while it is read is read again so often */

/* Entry, bitmap and data are read one after the other. When the metadata is still the same behind them, they belong together;
 * else somebody changed the store, and what was loaded may be of two states. */
int npk_gen_get(struct npk_gen **out, struct npk_array *a, struct npk_err *err)
{
	struct npki_looks looks = {0};
	int rc, mixed = 0;
	bool loaded;

	rc = try_gen(out, a, &loaded, err);
	while (loaded && ((mixed < MIXED_LOADS && npki_look_again(a->store) && ++mixed) ||
				 npki_may_pass(a->store, rc, &looks))) {
		if (rc == 0)
			npk_gen_put(*out);
		rc = try_gen(out, a, &loaded, err);
	}
	return rc;
}

static void info_of_gen(struct npk_array_info *out, const struct npk_gen_info *g)
{
	out->shape = g->shape;
	out->rows = g->rows;
	out->deleted = g->slots - g->rows;
	out->row_bytes = g->row_bytes;
	out->size_bytes = g->rows * g->row_bytes;
	out->generation = g->number;
	out->blocks = g->blocks;
	out->mode = g->mode;
	out->uid = g->uid;
	out->gid = g->gid;
}

/* Under a->lock. */
static void info_of_entry(struct npk_array_info *out, const struct npki_entry *e)
{
	size_t n = strlen(e->file);

	out->dtype = e->dtype;
	out->shape = e->shape;
	out->physical_rows = e->shape.ndim ? e->shape.dim[0] : 1;
	out->mtime_us = e->mtime_us;
	if (n < sizeof(out->data_file))
		memcpy(out->data_file, e->file, n + 1);
	else
		snprintf(out->data_file, sizeof(out->data_file), "%.*s...", (int)sizeof(out->data_file) - 4, e->file);
}

int npk_array_info(struct npk_array *a, struct npk_array_info *out, struct npk_err *err)
{
	struct npk_err why = {0};
	int rc;

	*out = (struct npk_array_info){0};
	pthread_mutex_lock(&a->lock);
	rc = current_gen(a, &why);
	if (a->entry)
		info_of_entry(out, a->entry);
	if (rc == 0) {
		info_of_gen(out, &a->cur->info);
		out->nsegments = a->cur->segmented ? a->cur->nsegs : 0;
		memcpy(out->warning, a->warning, sizeof(out->warning));
	}
	pthread_mutex_unlock(&a->lock);
	if (rc == -ENOMEM || rc == -ENOENT)
		return npk_fail(err, why.code, "%s", why.msg);
	out->damaged = rc != 0;
	out->code = why.code;
	memcpy(out->why, why.msg, sizeof(out->why));
	return 0;
}
