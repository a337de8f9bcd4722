/* refresh.c - taking over what another process changed. */
#include "writer.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Those that <linux/magic.h> does not name, or not everywhere. */
#ifndef SMB2_SUPER_MAGIC
#define SMB2_SUPER_MAGIC 0xFE534D42
#endif
#ifndef CIFS_SUPER_MAGIC
#define CIFS_SUPER_MAGIC 0xFF534D42
#endif
#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif
#define GFS2_MAGIC 0x01161970
#define LUSTRE_MAGIC 0x0BD00BD0
#define GPFS_MAGIC 0x47504653
#define BEEGFS_MAGIC 0x19830326

static _Thread_local const struct npk_store *refreshing; /* by this thread: it is about to find out what the store is */

bool npki_is_refreshing(const struct npk_store *s)
{
	return refreshing == s;
}

/* What a writer that is alive, or died, has changed since the metadata was written. */
static int look_behind(struct npk_store *s, struct npk_err *err)
{
	int rc = npki_stat_file(s->dirfd, NPKI_JOURNAL, &s->journal_id, err);

	refreshing = s;
	if (rc == 0)
		rc = npki_replay_readonly(s, err);
	refreshing = NULL;
	return rc;
}

/* --- a second look ---------------------------------------------------------------------------------------------------- */

#define LOOKS_LEAST 3
#define LOOK_MS 50          /* so long altogether */
#define LOOK_CACHED_MS 3000 /* likewise where names and sizes may be cached: they are for a second or so */
#define PAUSE_MS_MAX 50

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Whether another machine may write the store, and this one sees it late. What serves a FUSE filesystem can be anything. */
static bool is_cached(int dirfd)
{
	static const uint64_t remote[] = {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
		CEPH_SUPER_MAGIC, V9FS_MAGIC, AFS_SUPER_MAGIC, AFS_FS_MAGIC, FUSE_SUPER_MAGIC, GFS2_MAGIC,
		OCFS2_SUPER_MAGIC, LUSTRE_MAGIC, GPFS_MAGIC, BEEGFS_MAGIC};
	struct statfs st;

	if (fstatfs(dirfd, &st) != 0)
		return false;
	for (size_t i = 0; i < sizeof(remote) / sizeof(*remote); i++)
		if ((uint64_t)(uint32_t)st.f_type == remote[i])
			return true;
	return false;
}

/* What cannot be looked at counts as not there. */
static void take_marks(const struct npk_store *s, struct npki_marks *m)
{
	struct stat st;

	*m = (struct npki_marks){0};
	if (fstat(s->dirfd, &st) == 0)
		m->dir = npki_file_id_of(&st);
	npki_stat_file(s->dirfd, NPKI_META_FILE, &m->meta, NULL);
	npki_stat_file(s->dirfd, NPKI_JOURNAL, &m->journal, NULL);
	npki_stat_file(s->dirfd, NPKI_JOURNAL_NEXT, &m->next, NULL);
}

static bool same_marks(const struct npki_marks *a, const struct npki_marks *b)
{
	return npki_file_id_same(&a->dir, &b->dir) && npki_file_id_same(&a->meta, &b->meta) &&
	       npki_file_id_same(&a->journal, &b->journal) && npki_file_id_same(&a->next, &b->next);
}

/* Waiting once for a state that does not pass is enough. */
static bool is_believed(struct npk_store *s, const struct npki_marks *now)
{
	bool believed;

	pthread_rwlock_rdlock(&s->table_lock);
	believed = same_marks(now, &s->believed);
	pthread_rwlock_unlock(&s->table_lock);
	return believed;
}

static void believe(struct npk_store *s, const struct npki_marks *now)
{
	pthread_rwlock_wrlock(&s->table_lock);
	s->believed = *now;
	pthread_rwlock_unlock(&s->table_lock);
}

bool npki_may_pass(struct npk_store *s, int rc, struct npki_looks *l)
{
	char owner[NPK_OWNER_MAX];
	struct npki_marks now;
	int64_t waited;
	bool moves;

	if ((rc != -EUCLEAN && rc != -ESTALE) || s->base || s->packed || refreshing == s ||
		(s->writer && atomic_load(&s->writer->writing)))
		return false;
	take_marks(s, &now);
	if (is_believed(s, &now))
		return false;
	if (l->n++ == 0) { /* a millisecond is nothing, and tells whether somebody is at it */
		l->since_ms = now_ms();
		l->cached = is_cached(s->dirfd);
		l->marks = now;
		usleep(1000);
		return true;
	}
	moves = !same_marks(&now, &l->marks);
	l->marks = now;
	waited = now_ms() - l->since_ms;
	if ((moves || l->cached || npki_lock_owner(s->dirfd, owner, NULL) == 1) &&
		(l->n < LOOKS_LEAST || waited < (l->cached ? LOOK_CACHED_MS : LOOK_MS))) {
		usleep(1000 * (l->n < PAUSE_MS_MAX ? l->n : PAUSE_MS_MAX));
		return true;
	}
	believe(s, &now);
	return false;
}

/* A list of arrays that breaks off can be read as far as it goes, but only when it stays so. */
int npki_first_look(struct npk_store *s, unsigned at, struct npk_err *err)
{
	struct npki_looks looks = {0};
	int rc;

	do {
		rc = at & NPKI_LOOK_METADATA ? npki_reload_metadata(s, err) : 0;
		if (rc == 0 && (at & NPKI_LOOK_JOURNAL))
			rc = look_behind(s, err);
		at |= NPKI_LOOK_METADATA; /* the journal's records are in the table now, as far as it went */
	} while (npki_may_pass(s, rc == 0 && s->read_only ? -EUCLEAN : rc, &looks));
	return rc;
}

/* --- refreshing ------------------------------------------------------------------------------------------------------- */

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
	*same = !s->half && npki_file_id_same(meta, &s->meta_id) && npki_file_id_same(journal, &s->journal_id);
	pthread_rwlock_unlock(&s->table_lock);
	return 0;
}

/* The table is what metadata and journal say, or (`half`) a part of it: then the next look reads all, however they look. */
static void note_state(struct npk_store *s, const struct npki_file_id *journal, bool half)
{
	pthread_rwlock_wrlock(&s->table_lock);
	s->journal_id = *journal;
	s->half = half;
	pthread_rwlock_unlock(&s->table_lock);
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
		note_state(s, &journal, false);
		return check_files(s, c, err);
	}
	if (rc == 0 && !same) {
		rc = npki_read_metadata(s->dirfd, &buf, &len, &id, err);
		if (rc == 0)
			rc = npki_take_metadata(s, buf, len, &id, c, err);
		free(buf);
		if (rc == 0 && journal.exists)
			rc = npki_replay_readonly(s, err);
		note_state(s, &journal, rc != 0);
	}
	return rc == 0 ? check_files(s, c, err) : rc;
}

static int refresh_locked(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npki_looks looks = {0};
	int rc;

	s->telling = c;
	s->refreshes++;
	do {
		refreshing = s;
		rc = refresh(s, c, err);
		refreshing = NULL;
	} while (npki_may_pass(s, rc, &looks));
	s->telling = NULL;
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
