/* apply.c - what a journal record does to the table of arrays. One piece of code for the moment the record is written
 * and for recovery. */
#include "txn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct item {
	const char *name;
	size_t len;
};

static struct item take_name(struct npki_rd *r)
{
	struct item i;

	i.name = npki_take_bytes(r, &i.len);
	return i;
}

uint64_t npki_entry_hash(const void *name, size_t len, const struct npki_entry *e)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a, 64 bits */
	const uint8_t *p = name;
	uint64_t field[3 + NPK_MAX_NDIM] = {e->dtype, e->mtime_us, e->shape.ndim};

	memcpy(field + 3, e->shape.dim, e->shape.ndim * sizeof(uint64_t));
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	h = (h ^ 0x100) * 1099511628211u;
	for (p = (const uint8_t *)e->file; *p; p++)
		h = (h ^ *p) * 1099511628211u;
	for (size_t i = 0; i < (3 + e->shape.ndim) * 8; i++)
		h = (h ^ (uint8_t)(field[i / 8] >> (8 * (i % 8)))) * 1099511628211u;
	for (size_t i = 0; i < e->raw_len; i++)
		h = (h ^ e->raw[i]) * 1099511628211u;
	return h;
}

void npki_touched_fini(struct npki_touched_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->t[i].name);
		npki_entry_put(l->t[i].entry);
		npki_rowmap_put(l->t[i].live);
	}
	free(l->t);
	npki_dict_fini(&l->place);
	*l = (struct npki_touched_list){0};
}

static struct npki_touched *find_touched(struct npki_writer *w, const void *name, size_t len, const struct npk_array *a)
{
	struct npki_touched_list *l = &w->touched;
	size_t at;

	if (a && a->touched_round == w->round)
		return &l->t[a->touched_at];
	return npki_dict_get(&l->place, name, len, &at) ? &l->t[at] : NULL;
}

/* The bitmap on disk is the one that the rows were loaded with. A generation of ours may have been another array's. */
static void note_bitmap(struct npk_array *a, const struct npk_gen *g)
{
	const struct npki_file_id *id = a->known ? NULL : npki_gen_bitmap_id(g);

	if (!id)
		return;
	a->bitmap = *id;
	a->bitmap_noted = true;
}

/* Notes how the array stands on disk, before its first change. `a` may be NULL: it is new. */
static int note(struct npk_store *s, const struct item *i, struct npk_array *a, bool moved)
{
	struct npki_touched_list *l = s->writer ? &s->writer->touched : NULL;
	struct npki_touched *t = l ? find_touched(s->writer, i->name, i->len, a) : NULL, *more;
	struct npk_gen *g;

	if (!l)
		return 0;
	if (t) {
		t->moved |= moved;
		return 0;
	}
	if ((l->n & (l->n - 1)) == 0) {
		more = realloc(l->t, (l->n ? 2 * l->n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->t = more;
	}
	t = &l->t[l->n];
	*t = (struct npki_touched){.name = malloc(i->len + 1), .name_len = i->len, .moved = moved};
	if (!t->name || npki_dict_put(&l->place, i->name, i->len, l->n) != 0) {
		free(t->name);
		return -ENOMEM;
	}
	memcpy(t->name, i->name, i->len);
	t->name[i->len] = 0;
	if (a && npk_gen_get(&g, a, NULL) == 0) { /* a damaged array has no rows to keep */
		note_bitmap(a, g);
		t->live = npki_rowmap_ref(g->live);
		npki_txn_keep(s->writer, a, g->live);
		npk_gen_put(g);
	} else {
		t->moved = true;
	}
	if (a) {
		t->entry = npki_entry_ref(a->entry);
		a->touched_round = s->writer->round;
		a->touched_at = l->n;
	}
	l->n++;
	return 0;
}

static int touch(struct npk_store *s, const struct item *i, struct npk_array *a, bool moved)
{
	if (s->base)
		return npki_txn_touch(s->txn, i->name, i->len, a);
	if (a)
		a->version++;
	return note(s, i, a, moved);
}

/* A generation that somebody holds keeps its rows: it is mapped before its file's name goes to another one. */
static void map_held(struct npk_array *a)
{
	struct npk_gen *g = NULL;

	pthread_mutex_lock(&a->lock);
	if (a->cur &&
		(atomic_load_explicit(&a->cur->refs, memory_order_relaxed) > 1 ||
			(a->cur->nsegs && atomic_load_explicit(&a->cur->seg[0].file->refs, memory_order_relaxed) > 1)))
		g = npk_gen_ref(a->cur); /* it, or an older one with the same file */
	pthread_mutex_unlock(&a->lock);
	if (g)
		npk_gen_map(g, NULL); /* else its holder is told when it reads */
	npk_gen_put(g);
}

/* The files of an array that goes away. What a damaged entry names is not touched. */
static int retire(struct npk_store *s, struct npk_array *a)
{
	struct npki_names *l = s->writer && !s->base ? &s->writer->retired : NULL;
	struct npk_gen *g;
	int rc = 0;

	if (!l || !a || a->entry->damage)
		return 0;
	map_held(a);
	if (npki_is_manifest(a->entry->file) && npk_gen_get(&g, a, NULL) == 0) {
		for (size_t i = 0; i < g->nsegs && rc == 0; i++)
			rc = npki_names_add(l, g->seg[i].file->path);
		npk_gen_put(g);
	}
	return rc == 0 ? npki_names_add(l, a->entry->file) : rc;
}

/* What `a` has no use for of the files it had: `old` and the segments of `g`. *copied: its rows lie in other files now. */
static int retire_rest(
	struct npk_store *s, const struct npk_gen *g, const struct npki_entry *old, struct npk_array *a, bool *copied)
{
	struct npki_names *l = s->writer && !s->base ? &s->writer->retired : NULL;
	struct npk_gen *now;
	int rc = l ? npki_names_add(l, old->file) : 0;

	*copied = !g->segmented;
	if (rc != 0 || !l || !g->segmented)
		return rc;
	rc = npk_gen_get(&now, a, NULL);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < g->nsegs && rc == 0; i++)
		if (i >= now->nsegs || strcmp(g->seg[i].file->path, now->seg[i].file->path) != 0) {
			*copied = true;
			rc = npki_names_add(l, g->seg[i].file->path);
		}
	npk_gen_put(now);
	return rc;
}

static void rehash(
	struct npk_store *s, const struct item *i, const struct npki_entry *old, const struct npki_entry *new)
{
	if (s->base)
		return;
	if (s->writer && old)
		s->writer->hash ^= npki_entry_hash(i->name, i->len, old);
	if (s->writer && new)
		s->writer->hash ^= npki_entry_hash(i->name, i->len, new);
}

/* Puts a changed array in place; takes over `e`, `live` and `cur`. */
static int put(struct npk_store *s, const struct item *i, struct npk_array *a, struct npki_entry *e,
	struct npki_rowmap *live, struct npk_gen *cur)
{
	if (!e) {
		npki_rowmap_put(live);
		npk_gen_put(cur);
		return -ENOMEM;
	}
	rehash(s, i, a ? a->entry : NULL, e);
	return npki_table_put(s, i->name, i->len, e, live, cur);
}

/* Likewise, but in a transaction only `cur` knows which files those are. */
static int put_same_files(struct npk_store *s, const struct item *i, struct npk_array *a, struct npki_entry *e,
	struct npki_rowmap *live, struct npk_gen *cur)
{
	if (!s->base || cur || !e)
		return put(s, i, a, e, live, cur);
	npki_entry_put(e);
	npki_rowmap_put(live);
	return -ENOMEM;
}

/* A change that moves no row, by us, keeps the generation; those who read beside a writer have to read bytes of it anew. */
static bool keeps_number(const struct npk_store *s)
{
	return !s->telling;
}

static struct npki_entry *take_entry(struct npki_rd *r)
{
	struct npk_shape shape = {0};
	unsigned dtype = npki_rd_u8(r);
	struct item file;
	uint64_t mtime_us;

	shape.ndim = npki_rd_u32(r);
	if (shape.ndim > NPK_MAX_NDIM || dtype >= NPK_DTYPE_COUNT)
		r->bad = true;
	for (unsigned i = 0; i < shape.ndim && !r->bad; i++)
		shape.dim[i] = npki_rd_u64(r);
	file = take_name(r);
	mtime_us = npki_rd_u64(r);
	if (r->bad || !npki_is_plain_path(file.name, file.len)) {
		r->bad = true;
		return NULL;
	}
	return npki_entry_make(dtype, &shape, file.name, file.len, mtime_us);
}

static int apply_set(struct npk_store *s, struct npki_rd *r)
{
	struct item i = take_name(r);
	struct npki_entry *e = take_entry(r);
	struct npk_array *a;
	int rc;

	if (r->bad)
		return 0;
	a = npki_table_find(s, i.name, i.len);
	rc = touch(s, &i, a, true);
	if (rc == 0)
		rc = retire(s, a);
	if (rc == 0)
		rc = put(s, &i, a, e, NULL, NULL);
	else
		npki_entry_put(e);
	if (rc == 0 && a && s->base)
		npki_txn_detach(a);
	npk_array_put(a);
	return rc;
}

static int apply_del(struct npk_store *s, struct npki_rd *r)
{
	struct item i = take_name(r);
	struct npk_array *a = r->bad ? NULL : npki_table_find(s, i.name, i.len);
	int rc = a ? touch(s, &i, a, true) : 0;

	if (a && rc == 0)
		rc = retire(s, a);
	if (a && rc == 0) {
		rehash(s, &i, a->entry, NULL);
		rc = npki_table_del(s, i.name, i.len);
	}
	npk_array_put(a);
	return rc;
}

static int apply_clear(struct npk_store *s, struct npki_rd *r)
{
	struct item i = take_name(r);
	uint64_t mtime_us = npki_rd_u64(r), n = npki_rd_u64(r), slots;
	const uint8_t *runs = n <= UINT64_MAX / 16 ? npki_rd_take(r, 16 * n) : NULL;
	struct npk_array *a = r->bad || !runs ? NULL : npki_table_find(s, i.name, i.len);
	struct npki_run *run = a ? malloc((n + 1) * sizeof(*run)) : NULL;
	struct npki_rowmap *live = NULL;
	struct npki_entry *e;
	struct npk_gen *g = NULL, *next;
	int rc = a ? run ? npk_gen_get(&g, a, NULL) : -ENOMEM : -EUCLEAN;

	slots = rc == 0 ? g->info.slots : 0;
	for (uint64_t k = 0; k < n && rc == 0; k++) {
		run[k] = (struct npki_run){npki_le(runs + 16 * k, 8), npki_le(runs + 16 * k + 8, 8)};
		if (run[k].slot > slots || run[k].n > slots - run[k].slot)
			rc = -EUCLEAN;
	}
	if (rc == 0)
		rc = touch(s, &i, a, false);
	if (rc == 0)
		rc = npki_rowmap_clear(g->live, slots, run, n, &live);
	if (rc == 0) {
		e = npki_entry_with(a->entry, NULL, NULL, mtime_us);
		next = e ? npki_gen_derive(g, &(struct npki_layout){e, live, true}, false) : NULL;
		rc = put_same_files(s, &i, a, e, live, next);
	}
	free(run);
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static int apply_grow(struct npk_store *s, struct npki_rd *r)
{
	struct item i = take_name(r), file;
	uint64_t nslots = npki_rd_u64(r), mtime_us = npki_rd_u64(r);
	struct npki_rowmap *live = NULL;
	struct npki_entry *e = NULL, *old;
	struct npk_gen *g = NULL, *next;
	struct npk_shape shape;
	struct npk_array *a;
	bool same, copied = false;
	int rc;

	file = take_name(r);
	if (r->bad || !npki_is_plain_path(file.name, file.len))
		return -EUCLEAN;
	a = npki_table_find(s, i.name, i.len);
	rc = a ? npk_gen_get(&g, a, NULL) : -EUCLEAN;
	if (rc == 0 && (g->info.shape.ndim == 0 || nslots < g->info.slots))
		rc = -EUCLEAN;
	if (rc == 0)
		rc = touch(s, &i, a, false);
	if (rc == 0 && g->live)
		rc = npki_rowmap_grow(g->live, nslots, &live);
	if (rc == 0) {
		shape = a->entry->shape;
		shape.dim[0] = nslots;
		e = npki_entry_make(a->entry->dtype, &shape, file.name, file.len, mtime_us);
		same = strlen(a->entry->file) == file.len && memcmp(a->entry->file, file.name, file.len) == 0;
		next = e && same ? npki_gen_derive(g, &(struct npki_layout){e, live, true}, keeps_number(s)) : NULL;
		old = npki_entry_ref(a->entry);
		rc = put(s, &i, a, e, live, next);
		if (rc == 0 && !same) /* a manifest, or a copy */
			rc = retire_rest(s, g, old, a, &copied);
		if (rc == 0 && copied && !s->base) /* a bitmap of the new rows says nothing of the old ones */
			rc = note(s, &i, a, true);
		npki_entry_put(old);
	}
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

/* The data file keeps its bytes and gets another name: readers who hold a generation have it mapped first. */
static int apply_file(struct npk_store *s, struct npki_rd *r)
{
	struct item i = take_name(r), file = take_name(r);
	struct npk_array *a = r->bad ? NULL : npki_table_find(s, i.name, i.len);
	struct npki_rowmap *live = NULL;
	struct npk_gen *g = NULL, *next = NULL;
	struct npki_entry *e;
	int rc = !a || !npki_is_plain_path(file.name, file.len) ? -EUCLEAN : npk_gen_get(&g, a, NULL);

	if (rc == 0)
		rc = npk_gen_map(g, NULL);
	if (rc == 0)
		rc = note(s, &i, a, false);
	if (rc == 0)
		rc = retire(s, a);
	if (rc == 0) {
		e = npki_entry_make(a->entry->dtype, &a->entry->shape, file.name, file.len, a->entry->mtime_us);
		live = npki_rowmap_ref(g->live);
		if (e)
			next = npki_gen_refile(g, &(struct npki_layout){e, live, true});
		if (!next) /* a copy, whose rows were changed: a new bitmap says nothing of the old ones */
			rc = note(s, &i, a, true);
		if (rc != 0) {
			npki_entry_put(e);
			npki_rowmap_put(live);
		} else
			rc = put(s, &i, a, e, live, next);
	}
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static int apply_move(struct npk_store *s, struct npki_rd *r)
{
	struct item from = take_name(r), to = take_name(r);
	struct npk_array *a = r->bad ? NULL : npki_table_find(s, from.name, from.len), *b;
	struct npki_entry *e;
	struct npk_gen *g = NULL;
	int rc = !a ? -EUCLEAN : npk_gen_get(&g, a, NULL);

	if (rc != 0) {
		npk_array_put(a);
		return rc;
	}
	b = npki_table_find(s, to.name, to.len);
	rc = touch(s, &from, a, true);
	if (rc == 0)
		rc = touch(s, &to, b, true);
	if (rc == 0)
		rc = retire(s, b);
	if (rc == 0) {
		e = npki_entry_ref(a->entry);
		rehash(s, &from, e, NULL);
		rc = npki_table_del(s, from.name, from.len);
		if (rc == 0)
			rc = put(s, &to, b, e, npki_rowmap_ref(g->live), npk_gen_ref(g));
		else
			npki_entry_put(e);
	}
	if (rc == 0 && s->base)
		rc = npki_txn_move(s, a, to.name, to.len);
	npk_gen_put(g);
	npk_array_put(a);
	npk_array_put(b);
	return rc;
}

static int apply_time(struct npk_store *s, struct npki_rd *r)
{
	struct item i = take_name(r);
	uint64_t mtime_us = npki_rd_u64(r);
	struct npk_array *a = r->bad ? NULL : npki_table_find(s, i.name, i.len);
	struct npki_rowmap *live;
	struct npki_entry *e;
	struct npk_gen *g = NULL;
	int rc = !a ? -EUCLEAN : npk_gen_get(&g, a, NULL);

	if (rc == 0)
		rc = touch(s, &i, a, false);
	if (rc == 0) {
		e = npki_entry_with(a->entry, NULL, NULL, mtime_us);
		live = npki_rowmap_ref(g->live);
		rc = put_same_files(s, &i, a, e, live,
			e ? npki_gen_derive(g, &(struct npki_layout){e, live, true}, keeps_number(s)) : NULL);
	}
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

/* Items that are no change of state are passed over. */
static void skip_item(uint8_t tag, struct npki_rd *r)
{
	take_name(r);
	if (tag == NPKI_J_EXTENT) {
		npki_rd_take(r, 8 + 8 + 4);
	} else if (tag == NPKI_J_ZERO) {
		npki_rd_u64(r);
	} else if (tag == NPKI_J_WRITE) {
		npki_take_writes(r);
	} else if (tag == NPKI_J_COPY) {
		npki_rd_take(r, 8 + 8);
		take_name(r);
		npki_rd_u64(r);
	}
}

static int apply_item(struct npk_store *s, uint8_t tag, struct npki_rd *r)
{
	switch (tag) {
	case NPKI_J_SET:
		return apply_set(s, r);
	case NPKI_J_DEL:
		return apply_del(s, r);
	case NPKI_J_CLEAR:
		return apply_clear(s, r);
	case NPKI_J_GROW:
		return apply_grow(s, r);
	case NPKI_J_FILE:
		return apply_file(s, r);
	case NPKI_J_MOVE:
		return apply_move(s, r);
	case NPKI_J_TIME:
		return apply_time(s, r);
	case NPKI_J_OWN:
	case NPKI_J_INTENT:
	case NPKI_J_EXTENT:
	case NPKI_J_ZERO:
	case NPKI_J_WRITE:
	case NPKI_J_COPY:
		skip_item(tag, r);
		return 0;
	default:
		return -ENOTSUP;
	}
}

int npki_apply(struct npk_store *s, const void *payload, size_t len, struct npk_err *err)
{
	struct npki_rd r = npki_rd_init(payload, len);
	int rc = 0;

	while (r.p < r.end && !r.bad && rc == 0)
		rc = apply_item(s, npki_rd_u8(&r), &r);
	if (rc == 0 && r.bad)
		rc = -EUCLEAN;
	if (rc != 0)
		return npk_fail(err, -rc, NPKI_JOURNAL ": a record cannot be applied: %s", strerror(-rc));
	return 0;
}
