/* txn.c - see txn.h. */
#include "change.h"
#include "dict.h"
#include "guard.h"
#include "rows.h"
#include "sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_BYTES ((size_t)1 << 20)

/* A name that the transaction changed, and what the store had under it at the begin. */
struct changed {
	struct npk_array *before; /* counted; NULL: no such array */
	uint64_t version;
};

struct npk_txn {
	struct npk_store *base, *view; /* both counted */
	struct npk_txn *next;          /* of writer->txns */
	bool ended, committing;
	bool failed; /* half of a change was applied: it can only be aborted */
	char why[NPK_ERR_MAX];
	struct npk_text items;    /* what was done, as payload of the record to come */
	struct npki_extent *ext;  /* bytes of new files that it relies on */
	size_t next_ext;          /* how many */
	struct npki_dict written; /* files whose checksums do not hold any more: they are synced before the record */
	struct npki_names created, tails; /* new files: those to keep, and those that the commit has no use for */
	struct npki_dict names;           /* changed names -> `changed` */
	struct changed *changed;
	struct npki_pending *pending;
};

/* --- begin ------------------------------------------------------------------------------------------------------------ */

static void txn_free(struct npk_txn *t)
{
	struct npki_pending *p, *next;

	for (p = t->pending; p; p = next) {
		next = p->next;
		npk_array_put(p->origin);
		npki_file_put(p->tail);
		free(p->copy);
		free(p);
	}
	for (size_t i = 0; i < t->names.n; i++)
		npk_array_put(t->changed[i].before);
	free(t->changed);
	npki_dict_fini(&t->names);
	npki_dict_fini(&t->written);
	npki_names_fini(&t->created);
	npki_names_fini(&t->tails);
	npki_extents_fini(t->ext, t->next_ext);
	npk_text_fini(&t->items);
	if (t->view) {
		npki_store_empty(t->view);
		npki_store_put(t->view);
	}
	npki_store_put(t->base);
	free(t);
}

int npk_txn_begin(struct npk_txn **out, struct npk_store *s, struct npk_err *err)
{
	struct npk_txn *t;
	struct npki_tx tx;
	int rc;

	if (s->base)
		return npk_fail(err, EINVAL, "a transaction in a transaction cannot be");
	t = calloc(1, sizeof(*t));
	if (!t)
		return npk_fail(err, ENOMEM, "no memory for a transaction");
	t->base = s;
	npki_store_ref(s);
	rc = npki_tx_begin(&tx, s, err);
	if (rc == 0) {
		t->view = npki_store_inside(s);
		rc = t->view ? npki_table_copy(t->view, s, err) : npk_fail(err, ENOMEM, "no memory for a transaction");
		if (rc == 0) {
			t->view->txn = t;
			t->next = s->writer->txns;
			s->writer->txns = t;
		}
		npki_tx_abort(&tx);
	}
	if (rc != 0)
		txn_free(t);
	else
		*out = t;
	return rc;
}

struct npk_store *npk_txn_store(const struct npk_txn *t)
{
	return t->view;
}

int npki_txn_may_change(const struct npk_txn *t, struct npk_err *err)
{
	if (!t || t->ended)
		return npk_fail(err, ESTALE, "the transaction has ended");
	if (t->failed)
		return npk_fail(err, EIO, "%.500s", t->why);
	return t->committing ? npk_fail(err, EBUSY, "the transaction is being committed") : 0;
}

/* --- changes ---------------------------------------------------------------------------------------------------------- */

static int fail_txn(struct npk_txn *t, int rc, const struct npk_err *why, struct npk_err *err)
{
	t->failed = true;
	memcpy(t->why, why->msg, sizeof(t->why));
	return npk_fail(err, -rc, "%.500s", why->msg);
}

static int move_names(struct npki_names *to, struct npki_names *from)
{
	int rc = 0;

	for (size_t i = 0; i < from->n && rc == 0; i++)
		rc = npki_names_add(to, from->path[i]);
	if (rc == 0)
		npki_names_fini(from);
	return rc;
}

/* Takes the extents over from `tx`. */
static int keep_extents(struct npk_txn *t, struct npki_tx *tx)
{
	struct npki_extent *more;

	for (size_t i = 0; i < tx->next; i++) {
		if ((t->next_ext & (t->next_ext - 1)) == 0) {
			more = realloc(t->ext, (t->next_ext ? 2 * t->next_ext : 1) * sizeof(*more));
			if (!more)
				return -ENOMEM;
			t->ext = more;
		}
		t->ext[t->next_ext++] = tx->ext[i];
		tx->ext[i].path = NULL;
	}
	return 0;
}

/* The array's copy has grown, or its manifest is another one. */
static int note_growth(const struct npk_array *a)
{
	char *copy = strdup(a->entry->file);

	if (!copy)
		return -ENOMEM;
	free(a->pending->copy);
	a->pending->copy = copy;
	a->pending->slots = a->entry->shape.dim[0];
	a->pending->mtime_us = a->entry->mtime_us;
	return 0;
}

int npki_txn_log(struct npki_tx *tx, struct npk_err *err)
{
	struct npk_txn *t = tx->s->txn;
	size_t len = t->items.len;
	struct npk_err why = {0};
	int rc;

	if (!tx->grown)
		npk_text_add(&t->items, tx->payload.p, tx->payload.len);
	if (t->items.bad) {
		t->items.bad = false;
		t->items.len = len;
		return npk_fail(err, ENOMEM, "no memory for a transaction");
	}
	rc = move_names(&t->created, &tx->created);
	if (rc == 0)
		rc = keep_extents(t, tx);
	if (rc != 0)
		npk_fail(&why, ENOMEM, "no memory for a transaction");
	else
		rc = npki_apply(tx->s, tx->payload.p, tx->payload.len, &why);
	if (rc == 0 && tx->grown && note_growth(tx->grown) != 0)
		rc = npk_fail(&why, ENOMEM, "no memory for a transaction");
	npki_extents_fini(tx->ext, tx->next); /* and `tx` is ready for the next step */
	tx->ext = NULL;
	tx->next = 0;
	tx->grown = NULL;
	tx->payload.len = 0;
	return rc ? fail_txn(t, rc, &why, err) : 0;
}

int npki_txn_touch(struct npk_txn *t, const void *name, size_t len, struct npk_array *a)
{
	struct changed *more;
	size_t n = t->names.n;

	if (npki_dict_get(&t->names, name, len, NULL))
		return 0;
	if ((n & (n - 1)) == 0) {
		more = realloc(t->changed, (n ? 2 * n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		t->changed = more;
	}
	if (npki_dict_put(&t->names, name, len, n) != 0)
		return -ENOMEM;
	t->changed[n] = (struct changed){NULL, 0};
	if (a && a->origin)
		t->changed[n] = (struct changed){npk_array_ref(a->origin), a->origin_version};
	return 0;
}

void npki_txn_detach(struct npk_array *a)
{
	npk_array_put(a->origin);
	a->origin = NULL;
	a->pending = NULL;
}

int npki_txn_move(struct npk_store *s, struct npk_array *from, const void *to, size_t len)
{
	struct npk_array *b = npki_table_find(s, to, len);

	if (!b)
		return -ENOENT;
	npki_txn_detach(b);
	b->origin = from->origin;
	b->origin_version = from->origin_version;
	b->pending = from->pending;
	from->origin = NULL;
	from->pending = NULL;
	npk_array_put(b);
	return 0;
}

void npki_txn_keep(struct npki_writer *w, struct npk_array *a, struct npki_rowmap *live)
{
	for (struct npk_txn *t = w->txns; t; t = t->next) {
		struct npk_array *b = npki_table_find(t->view, a->name, a->name_len);

		if (b && b->origin == a) {
			pthread_mutex_lock(&b->lock);
			if (!b->known) {
				b->live = npki_rowmap_ref(live);
				b->known = true;
			}
			pthread_mutex_unlock(&b->lock);
		}
		npk_array_put(b);
	}
}

/* --- appended rows ---------------------------------------------------------------------------------------------------- */

bool npki_txn_has_tail(const struct npk_array *a)
{
	return a->origin && (!a->pending || a->pending->tail);
}

static struct npki_pending *new_pending(struct npk_txn *t, struct npk_array *a, const struct npk_gen *g)
{
	struct npki_pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->origin = npk_array_ref(a->origin);
	p->slots = p->from = g->info.slots;
	p->mtime_us = g->info.mtime_us;
	p->next = t->pending;
	t->pending = p;
	a->pending = p;
	return p;
}

static int make_tail(struct npki_tx *tx, struct npki_file **out, struct npk_err *err)
{
	struct npki_file_id id;
	char path[64];
	int fd, rc = npki_tx_create(tx, ".npkd", path, &fd, err);

	if (rc != 0)
		return rc;
	close(fd);
	rc = npki_stat_file(tx->s->dirfd, path, &id, err);
	return rc == 0 ? npki_file_new(out, tx->s->dirfd, path, &id, err) : rc;
}

static int write_tail(
	struct npki_tx *tx, struct npki_file *tail, uint64_t at, const void *rows, uint64_t bytes, struct npk_err *err)
{
	int fd, rc = npki_use_fd(tx->s->writer, tail, &fd, err);

	if (rc == 0 && rows)
		rc = npki_pwrite_all(fd, rows, bytes, at, tail->path, err);
	else if (rc == 0)
		rc = npki_truncate(fd, at + bytes, tail->path, err);
	return rc;
}

int npki_txn_append(struct npki_tx *tx, struct npk_array *a, struct npk_gen *g, const void *rows, uint64_t nrows,
	struct npk_err *err)
{
	struct npk_txn *t = tx->s->txn;
	struct npki_pending *p = a->pending;
	uint64_t from = p ? p->from : g->info.slots, slots = g->info.slots + nrows, row_bytes = g->info.row_bytes;
	struct npki_file *tail = p ? npki_file_ref(p->tail) : NULL;
	struct npki_rowmap *live = NULL;
	struct npki_entry *e = NULL;
	struct npk_gen *next = NULL;
	struct npk_shape shape = a->entry->shape;
	int rc = tail ? 0 : make_tail(tx, &tail, err);

	shape.dim[0] = slots;
	if (rc == 0)
		rc = write_tail(tx, tail, (g->info.slots - from) * row_bytes, rows, nrows * row_bytes, err);
	if (rc == 0) {
		e = npki_entry_with(a->entry, &shape, NULL, npki_tick(tx->s->writer));
		if (!e || (g->live && npki_rowmap_grow(g->live, slots, &live) != 0))
			rc = -ENOMEM;
		if (rc == 0)
			next = npki_gen_with_tail(g, &(struct npki_layout){e, live, true}, tail, from);
		if (rc == 0 && next)
			rc = npki_txn_touch(t, a->name, a->name_len, a);
		if (rc == 0 && next && !p)
			p = new_pending(t, a, g);
		if (rc != 0 || !next || !p || move_names(&t->tails, &tx->created) != 0)
			rc = npk_fail(err, ENOMEM, "no memory for a transaction");
	}
	if (rc != 0) {
		npki_entry_put(e);
		npki_rowmap_put(live);
		npk_gen_put(next);
		npki_file_put(tail);
		return rc;
	}
	p->slots = slots;
	p->mtime_us = e->mtime_us;
	if (p->tail)
		npki_file_put(tail);
	else
		p->tail = tail;
	return npki_table_put(tx->s, a->name, a->name_len, e, live, next);
}

/* --- bytes in place --------------------------------------------------------------------------------------------------- */

struct slot_copy {
	const struct npk_gen *g;
	uint64_t slot, n; /* n becomes what was copied */
	uint8_t *out;
};

static void copy_slots(void *ctx)
{
	struct slot_copy *c = ctx;
	uint64_t together;
	const uint8_t *p = npki_slot_at(c->g, c->slot, &together);

	if (c->n > together)
		c->n = together;
	memcpy(c->out, p, c->n * c->g->info.row_bytes);
}

/* All slots, the deleted ones too, into new files. */
static int copy_all(struct npki_tx *tx, struct npk_gen *g, char path[64], struct npk_err *err)
{
	uint64_t row_bytes = g->info.row_bytes,
		 batch = row_bytes && row_bytes < COPY_BYTES ? COPY_BYTES / row_bytes : 1;
	struct slot_copy c = {.g = g, .out = malloc(batch * row_bytes + 1)};
	struct npki_sink k = {.fd = -1};
	int rc = c.out ? npk_gen_map(g, err) : npk_fail(err, ENOMEM, "no memory");

	if (rc == 0)
		rc = npki_sink_init(&k, tx, row_bytes, g->info.slots * row_bytes, g->segmented, err);
	for (; rc == 0 && row_bytes && c.slot < g->info.slots; c.slot += c.n) {
		c.n = g->info.slots - c.slot < batch ? g->info.slots - c.slot : batch;
		rc = npki_guarded(copy_slots, &c) == 0 ? npki_sink_write(&k, c.out, c.n * row_bytes, err)
						       : npki_shrank(g, err);
	}
	if (rc == 0)
		rc = npki_sink_finish(&k, path, err);
	npki_sink_fini(&k);
	free(c.out);
	return rc;
}

/* One data file as a copy that shares its blocks. -ENOTSUP: the filesystem, or the layout, does not do that. */
static int share_all(struct npki_tx *tx, struct npk_gen *g, char path[64], struct npk_err *err)
{
	struct npki_writer *w = tx->s->writer;
	int from, fd, rc;

	if (w->cannot_share || g->segmented || g->nsegs != 1)
		return -ENOTSUP;
	rc = npki_open_file(tx->s->dirfd, g->seg[0].file->path, &from, NULL, err);
	if (rc != 0)
		return rc;
	rc = npki_tx_create(tx, ".npkd", path, &fd, err);
	if (rc == 0) {
		rc = npki_share(from, fd, g->info.slots * g->info.row_bytes, path, err);
		close(fd);
		if (rc != 0 && npki_unlink(tx->s->dirfd, path, NULL) == 0)
			free(tx->created.path[--tx->created.n]);
		w->cannot_share = rc == -ENOTSUP;
	}
	close(from);
	return rc;
}

static int mark_written(struct npk_txn *t, const struct npki_names *paths)
{
	int rc = 0;

	for (size_t i = 0; i < paths->n && rc == 0; i++)
		rc = npki_dict_put(&t->written, paths->path[i], strlen(paths->path[i]), 0);
	return rc;
}

/* The array shows its copy from now on; generation and rows stay the same. */
static int use_copy(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, const char *path, struct npk_err *err)
{
	struct npk_txn *t = tx->s->txn;
	struct npki_entry *e = npki_entry_with(a->entry, NULL, path, a->entry->mtime_us);
	struct npki_rowmap *live = npki_rowmap_ref((*g)->live);
	char *copy = strdup(path);
	struct npki_pending *p = a->pending;
	struct npk_gen *next = NULL;
	int rc = !e || !copy ? npk_fail(err, ENOMEM, "no memory for a transaction") : 0;

	if (rc == 0)
		rc = npki_gen_load(&next, tx->s, a->name, a->name_len, &(struct npki_layout){e, live, true}, NULL, err);
	if (rc == 0) {
		next->info.number = (*g)->info.number;
		next->rows_id = (*g)->rows_id;
		p = p ? p : new_pending(t, a, *g);
	}
	if (rc == 0 && (!p || npki_txn_touch(t, a->name, a->name_len, a) != 0 || mark_written(t, &tx->created) != 0 ||
			       move_names(&t->created, &tx->created) != 0))
		rc = npk_fail(err, ENOMEM, "no memory for a transaction");
	if (rc != 0) {
		npki_entry_put(e);
		npki_rowmap_put(live);
		npk_gen_put(next);
		free(copy);
		return rc;
	}
	npki_file_put(p->tail);
	p->tail = NULL;
	p->copy = copy;
	npk_gen_put(*g);
	*g = npk_gen_ref(next);
	return npki_table_put(tx->s, a->name, a->name_len, e, live, next);
}

int npki_own_files(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, struct npk_err *err)
{
	struct npk_err why = {0};
	char path[64];
	int rc;

	if (!tx->s->base) {
		a->version++;
		return 0;
	}
	if (!npki_txn_has_tail(a))
		return 0;
	rc = share_all(tx, *g, path, &why);
	if (rc == -ENOTSUP)
		rc = copy_all(tx, *g, path, err);
	else if (rc != 0)
		npk_fail(err, -rc, "%.500s", why.msg);
	npki_extents_fini(tx->ext, tx->next); /* they are written in place: their checksums say nothing */
	tx->ext = NULL;
	tx->next = 0;
	if (rc == 0)
		rc = npki_same_owner(tx, 0, &(*g)->info, err);
	return rc == 0 ? use_copy(tx, a, g, path, err) : rc;
}

int npki_wrote_in_place(struct npki_tx *tx, const char *path, struct npk_err *err)
{
	int rc = npki_mark_dirty(tx->s->writer, path);

	if (rc == 0 && tx->s->base)
		rc = npki_dict_put(&tx->s->txn->written, path, strlen(path), 0);
	return rc ? npk_fail(err, ENOMEM, "no memory") : 0;
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

/* Under writer->lock. */
static void leave(struct npk_txn *t)
{
	struct npk_txn **link = &t->base->writer->txns;

	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	t->ended = true;
}

/* A file that cannot be removed now goes at the next checkpoint, or at recovery: it carries our nonce. */
static void remove_files(struct npk_txn *t, const struct npki_names *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (npki_unlink(t->base->dirfd, l->path[i], NULL) != 0)
			npki_names_add(&t->base->writer->retired, l->path[i]);
}

/* Under writer->lock. When it is not known what recovery will find, the files stay for it to decide. */
static void discard(struct npk_txn *t)
{
	leave(t);
	if (t->base->writer->failed)
		return;
	remove_files(t, &t->created);
	remove_files(t, &t->tails);
}

void npki_txn_end_all(struct npk_store *s)
{
	pthread_mutex_lock(&s->writer->lock);
	while (s->writer->txns)
		discard(s->writer->txns);
	pthread_mutex_unlock(&s->writer->lock);
}

void npk_txn_abort(struct npk_txn *t)
{
	struct npki_writer *w;

	if (!t)
		return;
	w = t->base->writer;
	pthread_mutex_lock(&w->lock);
	if (!t->ended)
		discard(t);
	t->view->txn = NULL;
	pthread_mutex_unlock(&w->lock);
	txn_free(t);
}

/* Whether the store still has what the transaction began with, where it changed it. */
static int check_conflicts(struct npk_txn *t, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < t->names.n && rc == 0; i++) {
		const struct npki_dict_entry *n = &t->names.entry[i];
		struct npk_array *now = npki_table_find(t->base, n->key, n->len);

		if (now != t->changed[i].before || (now && now->version != t->changed[i].version))
			rc = npk_fail(err, EBUSY,
				"array '%.200s' was changed outside the transaction: nothing of it was done", n->key);
		npk_array_put(now);
	}
	return rc;
}

/* The rows of a tail go behind the array's last row, as in any append. */
static int place_tail(struct npki_tx *tx, const struct npki_pending *p, struct npk_err *err)
{
	struct npk_array *a = p->origin;
	const uint8_t *rows = NULL;
	struct npk_gen *g;
	int rc = npk_gen_get(&g, a, err);

	if (rc != 0)
		return rc;
	if (g->info.row_bytes)
		rc = npki_file_map(p->tail, (p->slots - p->from) * g->info.row_bytes, 0, &rows, err);
	if (rc == 0)
		rc = npki_append_rows(tx, a, g, rows, p->slots - p->from, p->mtime_us, err);
	npk_gen_put(g);
	return rc;
}

static int place_pending(struct npki_tx *tx, const struct npki_pending *p, struct npk_err *err)
{
	const struct npk_array *a = p->origin;

	if (p->tail)
		return place_tail(tx, p, err);
	if (p->slots == p->from)
		npki_tx_file(tx, a->name, a->name_len, p->copy);
	else
		npki_tx_grow(tx, a->name, a->name_len, p->slots, p->mtime_us, p->copy);
	return 0;
}

/* The record: what becomes of the store's own files comes first, under the names of the begin. */
static int fill(struct npk_txn *t, struct npki_tx *tx, struct npk_err *err)
{
	int rc = 0;

	for (const struct npki_pending *p = t->pending; p && rc == 0; p = p->next)
		rc = place_pending(tx, p, err);
	npk_text_add(&tx->payload, t->items.p, t->items.len);
	for (size_t i = 0; i < t->names.n; i++) {
		const struct npki_dict_entry *n = &t->names.entry[i];
		struct npk_array *a = npki_table_find(t->view, n->key, n->len);

		if (a && a->pending)
			npki_tx_time(tx, n->key, n->len, a->entry->mtime_us);
		npk_array_put(a);
	}
	for (size_t i = 0; i < t->next_ext && rc == 0; i++) {
		const struct npki_extent *x = &t->ext[i];

		if (npki_dict_get(&t->written, x->path, strlen(x->path), NULL))
			continue;
		rc = x->zero ? npki_tx_zero(tx, x->path, x->len, err)
			     : npki_tx_extent(tx, x->path, x->off, x->len, x->crc, err);
	}
	return rc;
}

/* Files without checksums are durable before a record relies on them. */
static int sync_written(struct npk_txn *t, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < t->written.n && rc == 0; i++)
		rc = npki_sync_file(t->base->dirfd, t->written.entry[i].key, err);
	return rc == 0 && t->written.n ? npki_sync_dir(t->base->dirfd, err) : rc;
}

/* Closes the transaction to changes, if it can be committed as far as one can see now. */
static int close_txn(struct npk_txn *t, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = npki_tx_begin(&tx, t->base, err);

	if (rc != 0)
		return rc;
	rc = npki_txn_may_change(t, err);
	if (rc == 0)
		rc = check_conflicts(t, err);
	if (rc == 0)
		t->committing = true;
	npki_tx_abort(&tx);
	return rc;
}

/* Under writer->lock. */
static int write_txn(struct npk_txn *t, struct npki_tx *tx, struct npk_err *err)
{
	int rc = t->ended ? npk_fail(err, ESTALE, "the transaction has ended") : check_conflicts(t, err);

	if (rc == 0 && t->names.n) {
		rc = fill(t, tx, err);
		if (rc == 0)
			rc = npki_tx_log(tx, err);
	}
	if (rc != 0)
		return rc;
	leave(t);
	t->view->txn = NULL;
	remove_files(t, &t->tails);
	/* Some were superseded inside already; a checkpoint keeps those that have an array. Without memory for that they
	 * stay until a recovery: they carry our nonce. */
	move_names(&t->base->writer->retired, &t->created);
	return 0;
}

static void tell(struct npk_txn *t, npk_change_fn *fn, void *ctx)
{
	for (size_t i = 0; i < t->names.n; i++) {
		const struct npki_dict_entry *n = &t->names.entry[i];
		struct npk_array *before = t->changed[i].before, *now = npki_table_find(t->base, n->key, n->len);

		if (now && !before)
			fn(ctx, now, NPK_APPEARED);
		else if (now)
			fn(ctx, now, NPK_CHANGED);
		else if (before)
			fn(ctx, before, NPK_GONE);
		npk_array_put(now);
	}
}

int npk_txn_commit(struct npk_txn *t, npk_change_fn *fn, void *ctx, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = close_txn(t, err);

	if (rc != 0)
		return rc;
	rc = sync_written(t, err);
	if (rc == 0)
		rc = npki_tx_begin(&tx, t->base, err);
	if (rc == 0) {
		rc = write_txn(t, &tx, err);
		if (rc != 0)
			t->committing = false;
		npki_tx_abort(&tx);
	} else {
		pthread_mutex_lock(&t->base->writer->lock);
		t->committing = false;
		pthread_mutex_unlock(&t->base->writer->lock);
	}
	if (rc != 0)
		return rc;
	if (fn)
		tell(t, fn, ctx);
	txn_free(t);
	return 0;
}
