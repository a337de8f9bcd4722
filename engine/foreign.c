/* foreign.c - other programs that change the store while we write it: NumPack knows no lock.
 *
 * It reads the metadata once, when it opens the store, changes data files and bitmaps as it goes, and writes the metadata anew
 * when it closes, also when it only read. So metadata that is not what we wrote last is one of three things: the same
 * entries, which is no harm; entries that were there earlier, of somebody who opened the store then, and ours are written
 * again; or a change. Then we change nothing any more, and the metadata that our journal builds on is kept under a second
 * name, until somebody says that both shall be joined: array by array, and only when no array was changed by both. */
#include "writer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAST 16384 /* states that are remembered */

/* --- earlier states --------------------------------------------------------------------------------------------------- */

/* Without memory an earlier state is taken for a change, which is refused. */
void npki_remember(struct npki_writer *w, uint64_t hash)
{
	if (!w->past)
		w->past = calloc(PAST, sizeof(*w->past));
	if (w->past)
		w->past[w->npast++ % PAST] = hash;
}

static bool is_past(const struct npki_writer *w, uint64_t hash)
{
	for (uint64_t i = 0; i < w->npast && i < PAST; i++)
		if (w->past[i] == hash)
			return true;
	return false;
}

/* --- finding it out --------------------------------------------------------------------------------------------------- */

int npki_found_foreign(struct npki_writer *w, struct npk_err *err, const char *fmt, ...)
{
	char what[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (!w->foreign)
		snprintf(w->why, sizeof(w->why),
			"%.300s; nothing is changed here until the store is reloaded, our changes stay "
			"in " NPKI_JOURNAL,
			what);
	w->foreign = true;
	return npk_fail(err, EBUSY, "%.500s", w->why);
}

/* What is wrong with a file of an array: "" nothing. A file that grew has rows that we know nothing of. */
static int look_at_data(struct npk_store *s, const struct npki_file *f, const char **what, struct npk_err *err)
{
	struct npki_file_id id;
	int rc = npki_stat_file(s->dirfd, f->path, &id, err);

	*what = "";
	if (rc == -EUCLEAN || (rc == 0 && (!id.exists || id.dev != f->id.dev || id.ino != f->id.ino)))
		*what = "another program replaced or removed it";
	else if (rc == 0 && id.size != atomic_load(&f->size))
		*what = "another program changed its size";
	return rc == -EUCLEAN ? 0 : rc;
}

/* Links, mode and owner are no content: a backup or chown -R changes only the ctime. */
static bool is_same_content(const struct npki_file_id *a, const struct npki_file_id *b)
{
	struct npki_file_id x = *a;

	x.ctime_ns = b->ctime_ns;
	return npki_file_id_same(&x, b);
}

static int look_at_bitmap(struct npk_store *s, const struct npk_array *a, const struct npki_file_id *was,
	const char **what, char file[300], struct npk_err *err)
{
	char *path = npki_bitmap_file(a->name);
	struct npki_file_id id;
	int rc = path ? npki_stat_file(s->dirfd, path, &id, err) : npk_fail(err, ENOMEM, "no memory");

	snprintf(file, 300, "%.299s", path ? path : "");
	free(path);
	*what = rc == -EUCLEAN || (rc == 0 && !is_same_content(&id, was)) ? "another program changed it" : "";
	return rc == -EUCLEAN ? 0 : rc;
}

/* Looks at the files of an array as far as we ever did. *what: "" they are as we left them; else what happened to `file`. */
static int look_at_array(
	struct npk_store *s, struct npk_array *a, const char **what, char file[300], struct npk_err *err)
{
	const struct npki_file_id *was = NULL;
	struct npk_gen *g;
	int rc = 0;

	pthread_mutex_lock(&a->lock);
	g = a->cur && !a->stale ? npk_gen_ref(a->cur) : NULL;
	if (a->known)
		was = a->bitmap_noted ? &a->bitmap : NULL;
	else if (g)
		was = npki_gen_bitmap_id(g);
	pthread_mutex_unlock(&a->lock);
	*what = "";
	for (size_t i = 0; g && i < g->nsegs && rc == 0 && !**what; i++) {
		rc = look_at_data(s, g->seg[i].file, what, err);
		snprintf(file, 300, "%.299s", g->seg[i].file->path);
	}
	if (rc == 0 && !**what && was)
		rc = look_at_bitmap(s, a, was, what, file, err);
	npk_gen_put(g);
	return rc;
}

static int check_array(struct npk_store *s, struct npk_array *a, struct npk_err *err)
{
	const char *what;
	char file[300];
	int rc = look_at_array(s, a, &what, file, err);

	return rc == 0 && *what ? npki_found_foreign(s->writer, err, "%s: %s", file, what) : rc;
}

static int check_touched(struct npk_store *s, struct npk_err *err)
{
	const struct npki_touched_list *l = &s->writer->touched;
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++) {
		struct npk_array *a = npki_table_find(s, l->t[i].name, l->t[i].name_len);

		if (a)
			rc = check_array(s, a, err);
		npk_array_put(a);
	}
	return rc;
}

static int check_all(struct npk_store *s, struct npk_err *err)
{
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = check_array(s, list[i], err);
	npk_store_list_free(list, n);
	return rc;
}

static bool is_metadata_ours(struct npk_store *s, const struct npki_file_id *id)
{
	bool same;

	pthread_rwlock_rdlock(&s->table_lock);
	same = npki_file_id_same(id, &s->meta_id);
	pthread_rwlock_unlock(&s->table_lock);
	return same;
}

/* The metadata is another file than we wrote. Who closed the store may have left its entries alone and changed bitmaps. */
static int check_new_metadata(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npk_err why;
	uint64_t hash = 0;
	int rc = npki_disk_hash(s, &hash, &why);

	if (rc == -EUCLEAN)
		return npki_found_foreign(w, err, "%.200s: another program wrote that", why.msg);
	if (rc != 0)
		return npk_fail(err, -rc, "%.500s", why.msg);
	if (hash != w->disk_hash && !is_past(w, hash))
		return npki_found_foreign(w, err, NPKI_META_FILE ": another program changed it");
	rc = check_all(s, err);
	if (rc == 0 && hash != w->disk_hash)
		rc = npki_rewrite_metadata(s, err);
	if (rc != 0)
		return rc;
	npki_note_metadata(s);
	if (hash == w->disk_hash)
		return 0;
	w->undone = true;
	return 1;
}

int npki_check_foreign(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npki_file_id id;
	int rc;

	if (w->foreign)
		return npk_fail(err, EBUSY, "%.500s", w->why);
	rc = npki_stat_file(s->dirfd, NPKI_META_FILE, &id, err);
	if (rc == -EUCLEAN)
		return npki_found_foreign(w, err, NPKI_META_FILE ": another program put something else in its place");
	if (rc != 0)
		return rc;
	return is_metadata_ours(s, &id) ? check_touched(s, err) : check_new_metadata(s, err);
}

int npk_store_check(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npki_file_id id;
	int rc;

	if (!w || s->base || !atomic_load(&w->writing))
		return 0;
	rc = npki_stat_file(s->dirfd, NPKI_META_FILE, &id, NULL);
	if (rc != 0 || !is_metadata_ours(s, &id)) /* or a checkpoint of ours has just written it: it holds sync_lock */
		pthread_mutex_lock(&w->sync_lock);
	else if (pthread_mutex_trylock(&w->sync_lock) != 0)
		return 0;
	pthread_mutex_lock(&w->lock);
	rc = w->closed || w->jfd < 0 ? 0 : w->foreign ? -EBUSY : 0;
	if (rc != 0)
		npk_fail(err, EBUSY, "%.500s", w->why);
	else if (!w->closed && w->jfd >= 0 && !w->failed && !is_metadata_ours(s, &id))
		rc = npki_check_foreign(s, err);
	if (rc >= 0) {
		rc = w->undone;
		w->undone = false;
	}
	pthread_mutex_unlock(&w->lock);
	pthread_mutex_unlock(&w->sync_lock);
	npki_checkpoint_if_due(s);
	return rc;
}

/* --- taking it over --------------------------------------------------------------------------------------------------- */

/* What the other program's metadata says. */
struct theirs {
	struct npki_dict place; /* of a name in `e` */
	struct npki_entry **e;
	uint64_t hash;
};

static int collect(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct theirs *t = ctx;
	size_t n = t->place.n;
	struct npki_entry **more;

	if (npki_dict_get(&t->place, m->name, m->name_len, NULL))
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": array '%.*s' is there twice",
			(int)(m->name_len < 100 ? m->name_len : 100), m->name);
	if ((n & (n - 1)) == 0) {
		more = realloc(t->e, (n ? 2 * n : 1) * sizeof(*more));
		if (!more)
			return npk_fail(err, ENOMEM, NPKI_META_FILE ": no memory for the list of arrays");
		t->e = more;
	}
	t->e[n] = npki_entry_new(m);
	if (!t->e[n] || npki_dict_put(&t->place, m->name, m->name_len, n) != 0) {
		npki_entry_put(t->e[n]);
		return npk_fail(err, ENOMEM, NPKI_META_FILE ": no memory for the list of arrays");
	}
	t->hash ^= npki_entry_hash(m->name, m->name_len, t->e[n]);
	return 0;
}

static void theirs_fini(struct theirs *t)
{
	for (size_t i = 0; i < t->place.n; i++)
		npki_entry_put(t->e[i]);
	free(t->e);
	npki_dict_fini(&t->place);
}

static int read_theirs(struct npk_store *s, struct theirs *t, struct npki_file_id *id, struct npk_err *err)
{
	struct npki_meta meta = {0};
	uint8_t *buf = NULL;
	size_t len;
	int rc = npki_read_metadata(s->dirfd, &buf, &len, id, err);

	if (rc == 0 && !buf)
		rc = npk_fail(err, EUCLEAN, NPKI_META_FILE ": is gone");
	if (rc == 0)
		rc = npki_meta_parse(buf, len, &meta, collect, t, NULL, err);
	if (rc == 0 && meta.cut)
		rc = npk_fail(err, EUCLEAN, "%s", meta.why);
	free(buf);
	return rc;
}

/* One name that both sides may have changed since the metadata was last written by us. */
struct meeting {
	const char *name;
	size_t len;
	const struct npki_touched *touched; /* NULL: we did not change it since */
	struct npk_array *a;                /* borrowed; NULL: we have none */
	struct npki_entry *their;           /* NULL: they have none */
};

/* What becomes of it. */
enum outcome {
	KEEP_OURS,
	TAKE_THEIRS,
	BOTH_CHANGED
};

static const struct npki_entry *base_of(const struct meeting *m)
{
	return m->touched ? m->touched->entry : m->a ? m->a->entry : NULL;
}

/* Their data must lie where they say, with no rows of ours behind it. *yes is set when 0 is returned. */
static int can_be_loaded(struct npk_store *s, const struct meeting *m, bool *yes, struct npk_err *err)
{
	const struct npki_layout from = {.entry = m->their};
	struct npki_file_id id = {0};
	struct npk_gen *g;
	int rc = npki_gen_load(&g, s, m->name, m->len, &from, NULL, err);

	*yes = false;
	if (rc != 0)
		return rc == -EUCLEAN || rc == -ENOTSUP ? 0 : rc;
	*yes = true;
	if (!g->segmented && m->a) {
		rc = npki_stat_file(s->dirfd, m->their->file, &id, err);
		*yes = id.size == g->info.slots * g->info.row_bytes;
	}
	npk_gen_put(g);
	return rc;
}

static int file_exists(struct npk_store *s, const struct npki_entry *e, bool *yes, struct npk_err *err)
{
	struct npki_file_id id = {0};
	int rc = e->damage ? 0 : npki_stat_file(s->dirfd, e->file, &id, err);

	*yes = id.exists;
	return rc == -EUCLEAN ? 0 : rc;
}

/* They have no such array: one that they dropped has no file any more, one that they never knew has it. */
static int decide_gone(
	struct npk_store *s, const struct meeting *m, bool files_changed, enum outcome *out, struct npk_err *err)
{
	const struct npki_entry *base = base_of(m);
	bool exists = true;
	int rc = base && !base->damage ? file_exists(s, base, &exists, err) : 0;

	*out = !base || !m->a || (!files_changed && exists) ? KEEP_OURS : m->touched ? BOTH_CHANGED : TAKE_THEIRS;
	return rc;
}

static int decide(
	struct npk_store *s, const struct meeting *m, bool files_changed, enum outcome *out, struct npk_err *err)
{
	const struct npki_entry *base = base_of(m);
	bool same = base && npki_entry_same(base, m->their), stale, exists = true, sound = false;
	int rc = base ? 0 : file_exists(s, m->their, &exists, err);

	if (rc != 0)
		return rc;
	/* an earlier entry of ours; so far back that it is forgotten, it is one of an array that we removed */
	stale = !same && (is_past(s->writer, npki_entry_hash(m->name, m->len, m->their)) || !exists);
	if (!stale && !m->touched && (files_changed || !same))
		rc = can_be_loaded(s, m, &sound, err);
	*out = (same || stale) && !files_changed ? KEEP_OURS : sound ? TAKE_THEIRS : BOTH_CHANGED;
	return rc;
}

static int judge(struct npk_store *s, struct meeting *m, enum outcome *out, struct npk_err *err)
{
	const char *what = "";
	char file[300];
	int rc = m->a ? look_at_array(s, m->a, &what, file, err) : 0;

	if (rc == 0)
		rc = m->their ? decide(s, m, *what != 0, out, err) : decide_gone(s, m, *what != 0, out, err);
	if (rc != 0)
		return rc;
	if (*out == BOTH_CHANGED)
		return npk_fail(err, EBUSY,
			"array '%.150s': was changed here and by another program: what is here is in " NPKI_JOURNAL
			" and " NPKI_BASE ", its state in " NPKI_META_FILE,
			m->name);
	return 0;
}

static int take(struct npk_store *s, const struct meeting *m)
{
	struct npki_writer *w = s->writer;

	if (m->a) {
		m->a->version++;
		m->a->bitmap_noted = false;
		w->hash ^= npki_entry_hash(m->name, m->len, m->a->entry);
	}
	if (!m->their)
		return npki_table_del(s, m->name, m->len);
	w->hash ^= npki_entry_hash(m->name, m->len, m->their);
	if (m->their->mtime_us > w->clock_us && m->their->mtime_us < UINT64_MAX / 2)
		w->clock_us = m->their->mtime_us;
	return npki_table_take(s, m->name, m->len, npki_entry_ref(m->their));
}

/* Every name that anybody has, in turn: theirs, then those that only we have. */
static int each_meeting(struct npk_store *s, const struct theirs *t,
	int (*fn)(struct npk_store *s, struct meeting *m, struct npk_err *err), struct npk_err *err)
{
	const struct npki_touched_list *l = &s->writer->touched;
	struct npk_array **list;
	struct meeting m;
	size_t n, at;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < t->place.n && rc == 0; i++) {
		m = (struct meeting){t->place.entry[i].key, t->place.entry[i].len, NULL, NULL, t->e[i]};
		m.touched = npki_dict_get(&l->place, m.name, m.len, &at) ? &l->t[at] : NULL;
		m.a = npki_table_find(s, m.name, m.len);
		rc = fn(s, &m, err);
		npk_array_put(m.a);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (npki_dict_get(&t->place, list[i]->name, list[i]->name_len, NULL))
			continue;
		m = (struct meeting){list[i]->name, list[i]->name_len, NULL, list[i], NULL};
		m.touched = npki_dict_get(&l->place, m.name, m.len, &at) ? &l->t[at] : NULL;
		rc = fn(s, &m, err);
	}
	npk_store_list_free(list, n);
	return rc;
}

static int judge_one(struct npk_store *s, struct meeting *m, struct npk_err *err)
{
	enum outcome out;

	return judge(s, m, &out, err);
}

static int join_one(struct npk_store *s, struct meeting *m, struct npk_err *err)
{
	enum outcome out;
	int rc = judge(s, m, &out, err);

	if (rc == 0 && out == TAKE_THEIRS && take(s, m) != 0)
		rc = npk_fail(err, ENOMEM, "no memory for the list of arrays");
	return rc;
}

/* All are judged before any is taken: a refusal leaves everything as it was. */
static int join(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct theirs t = {0};
	struct npki_file_id id;
	int rc = read_theirs(s, &t, &id, err);

	if (rc == 0)
		rc = each_meeting(s, &t, judge_one, err);
	if (rc == 0) {
		rc = each_meeting(s, &t, join_one, err);
		if (rc != 0)
			npki_fail_store(w, rc, err ? err : &(struct npk_err){EIO, "a change could not be taken over"});
	}
	if (rc == 0) {
		npki_remember(w, w->disk_hash);
		w->disk_hash = t.hash;
		w->foreign = false;
		w->rebased = true;
		pthread_rwlock_wrlock(&s->table_lock);
		s->meta_id = id;
		pthread_rwlock_unlock(&s->table_lock);
	}
	theirs_fini(&t);
	return rc == 0 ? 1 : rc;
}

int npki_take_foreign(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	char why[NPK_ERR_MAX];
	int rc;

	if (w->failed || w->jfd < 0)
		return 0;
	memcpy(why, w->why, sizeof(why));
	w->foreign = false; /* it may have put things right again */
	rc = npki_check_foreign(s, err);
	if (!w->foreign)
		return rc < 0 ? rc : 0;
	if (why[0])
		memcpy(w->why, why, sizeof(why));
	return join(s, err);
}
