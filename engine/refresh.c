/* refresh.c - taking over what another process changed. */
#include "writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local const struct npk_store *refreshing; /* by this thread: it is about to find out what the store is */

bool npki_is_refreshing(const struct npk_store *s)
{
	return refreshing == s;
}

/* What a writer that is alive, or died, has changed since the metadata was written. */
int npki_look_behind(struct npk_store *s, struct npk_err *err)
{
	int rc = npki_stat_file(s->dirfd, NPKI_JOURNAL, &s->journal_id, err);

	refreshing = s;
	if (rc == 0)
		rc = npki_replay_readonly(s, err);
	refreshing = NULL;
	return rc;
}

static bool same_map(const struct npki_rowmap *a, const struct npki_rowmap *b)
{
	size_t na, nb;

	if (!a || !b || a == b)
		return a == b;
	if (a->nslots != b->nslots || a->nlive != b->nlive || a->nchunks != b->nchunks)
		return false;
	for (size_t c = 0; c < a->nchunks; c++) {
		const uint64_t *wa = npki_rowmap_words(a, c, &na), *wb = npki_rowmap_words(b, c, &nb);

		if (na != nb || memcmp(wa, wb, na * sizeof(*wa)) != 0)
			return false;
	}
	return true;
}

/* The same rows in the same files, whose bytes nobody touched: a writer's checkpoint has brought to the metadata what we knew
 * from its journal. */
static bool same_rows(const struct npk_gen *a, const struct npk_gen *b)
{
	if (a->info.dtype != b->info.dtype || a->info.mtime_us != b->info.mtime_us || a->info.slots != b->info.slots ||
		a->info.row_bytes != b->info.row_bytes || a->info.shape.ndim != b->info.shape.ndim ||
		memcmp(a->info.shape.dim, b->info.shape.dim, a->info.shape.ndim * sizeof(a->info.shape.dim[0])) != 0 ||
		a->nsegs != b->nsegs || !same_map(a->live, b->live))
		return false;
	for (size_t i = 0; i < a->nsegs; i++)
		if (strcmp(a->seg[i].file->path, b->seg[i].file->path) != 0 ||
			!npki_file_id_same(&a->seg[i].file->id, &b->seg[i].file->id))
			return false;
	return true;
}

/* Loads anew what is in use and not what it was. While that fails, most likely because somebody is writing, the old
 * generation stays. Needs a->lock. */
static int reload(struct npk_array *a, struct npk_gen **old, struct npk_err *err)
{
	const struct npki_layout from = {.entry = a->entry, .live = a->live, .known = a->known};
	struct npki_notes notes = {0};
	struct npk_gen *fresh;
	int rc;

	*old = NULL;
	if (!a->cur || (!a->stale && npki_gen_is_current(a->cur)))
		return 0;
	rc = npki_gen_load(&fresh, a->store, a->name, a->name_len, &from, &notes, err);
	if (rc != 0)
		return rc;
	memcpy(a->warning, notes.warning, sizeof(a->warning));
	if (same_rows(a->cur, fresh)) {
		fresh->info.number = a->cur->info.number;
		fresh->rows_id = a->cur->rows_id;
		npk_gen_put(a->cur);
	} else {
		*old = a->cur;
	}
	a->cur = fresh;
	a->stale = false;
	return 0;
}

/* The first array that cannot be loaded gives the error; the others are taken over all the same. */
static int check_files(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npk_array **list;
	struct npk_gen *old;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err), one;

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		struct npk_array *a = list[i];

		pthread_mutex_lock(&a->lock);
		one = reload(a, &old, rc == 0 ? err : NULL);
		pthread_mutex_unlock(&a->lock);
		if (rc == 0)
			rc = one;
		if (old && npki_add_change(c, a, NPK_CHANGED) != 0)
			rc = npk_fail(err, ENOMEM, "no memory");
		npk_gen_put(old);
	}
	npk_store_list_free(list, n);
	return rc;
}

/* The files that say what the store is, as they are now; *same: as they were when they were read. */
static int stat_state(
	struct npk_store *s, struct npki_file_id *meta, struct npki_file_id *journal, bool *same, struct npk_err *err)
{
	int rc = npki_stat_file(s->dirfd, NPKI_META_FILE, meta, err);

	if (rc == 0)
		rc = npki_stat_file(s->dirfd, NPKI_JOURNAL, journal, err);
	if (rc != 0)
		return rc;
	pthread_rwlock_rdlock(&s->table_lock);
	*same = npki_file_id_same(meta, &s->meta_id) && npki_file_id_same(journal, &s->journal_id);
	pthread_rwlock_unlock(&s->table_lock);
	return 0;
}

static int refresh(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npki_file_id id, journal;
	uint8_t *buf = NULL;
	size_t len = 0;
	bool same;
	int rc;

	if (s->packed || (s->writer && atomic_load(&s->writer->writing))) /* never changes; only we change it */
		return 0;
	rc = stat_state(s, &id, &journal, &same, err);
	if (rc != 0)
		return rc;
	if (!same && npki_file_id_same(&id, &s->meta_id) && (rc = npki_follow_journal(s, err)) > 0) {
		s->journal_id = journal;
		return check_files(s, c, err);
	}
	if (rc == 0 && !same) {
		rc = npki_read_metadata(s->dirfd, &buf, &len, &id, err);
		if (rc == 0)
			rc = npki_take_metadata(s, buf, len, &id, c, err);
		free(buf);
		if (rc == 0 && journal.exists)
			rc = npki_replay_readonly(s, err);
		s->journal_id = journal;
	}
	return rc == 0 ? check_files(s, c, err) : rc;
}

static int refresh_locked(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	int rc;

	refreshing = s;
	s->telling = c;
	s->refreshes++;
	rc = refresh(s, c, err);
	s->telling = NULL;
	refreshing = NULL;
	return rc;
}

/* The files of an array are not what its entry says: most likely another process changed the store since it was looked at,
 * which may have renamed them. True: it did, and now the table is up to date. */
bool npki_look_again(struct npk_store *s)
{
	struct npki_file_id meta, journal;
	bool same, fresh;

	if (s->writer || s->base || s->packed || refreshing == s)
		return false;
	pthread_mutex_lock(&s->refresh_lock);
	fresh = !(stat_state(s, &meta, &journal, &same, NULL) == 0 && same) && refresh_locked(s, &s->missed, NULL) == 0;
	pthread_mutex_unlock(&s->refresh_lock);
	return fresh;
}

/* As the writer: what is in memory is newer than what is on disk, and ours, but for what another program wrote. */
static int refresh_writer(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	int rc;

	pthread_mutex_lock(&w->sync_lock);
	pthread_mutex_lock(&w->lock);
	pthread_mutex_lock(&s->refresh_lock);
	s->telling = c;
	s->refreshes++;
	rc = w->closed ? npk_fail(err, ESTALE, "%.300s: was closed", s->path) : npki_take_foreign(s, err);
	s->telling = NULL;
	pthread_mutex_unlock(&s->refresh_lock);
	pthread_mutex_unlock(&w->lock);
	pthread_mutex_unlock(&w->sync_lock);
	return rc;
}

int npk_store_refresh(struct npk_store *s, npk_change_fn *fn, void *ctx, struct npk_err *err)
{
	struct npki_changes c = {0}, missed = {0};
	int rc;

	if (s->base) /* a transaction shows the store as of its begin */
		return 0;
	if (s->writer && atomic_load(&s->writer->writing)) {
		rc = refresh_writer(s, &c, err);
		npki_tell_changes(&c, fn, ctx);
		return rc > 0 ? npki_checkpoint(s, err) : rc;
	}
	pthread_mutex_lock(&s->refresh_lock);
	rc = refresh_locked(s, &c, err);
	missed = s->missed;
	s->missed = (struct npki_changes){0};
	pthread_mutex_unlock(&s->refresh_lock);
	npki_tell_changes(&missed, fn, ctx);
	npki_tell_changes(&c, fn, ctx);
	return rc;
}
