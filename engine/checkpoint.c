/* checkpoint.c - brings metadata and bitmaps up to date and starts a new journal.
 *
 * Temp images are written and synced first, then a CHECKPOINT record at the end of the old journal says what will be
 * renamed; from then on recovery can finish the work. A reader of NumPack that opens the directory between any two steps
 * sees the old state, the new one, or for an instant no such array: where rows of an array were replaced as a whole, the
 * metadata first forgets it, then its bitmap changes, then the metadata names it again. */
#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_LEN 4096 /* of a path in a checkpoint record */

/* --- snapshot --------------------------------------------------------------------------------------------------------- */

static int use_files(struct npki_names *used, struct npk_array *a, const struct npki_entry *e)
{
	struct npk_gen *g;
	int rc = npki_names_add(used, e->file);

	if (rc == 0 && npki_is_manifest(e->file) && npk_gen_get(&g, a, NULL) == 0) {
		for (size_t i = 0; i < g->nsegs && rc == 0; i++)
			rc = npki_names_add(used, g->seg[i].file->path);
		npk_gen_put(g);
	}
	return rc;
}

/* Of the retired files those that no array has (again). */
static int keep_unused(struct npki_writer *w, struct npki_snapshot *n)
{
	struct npki_names used = {0};
	int rc = 0;

	if (w->retired.n == 0 || w->txns) /* transactions still show the store as it was */
		return 0;
	for (size_t i = 0; i < n->n && rc == 0; i++)
		rc = use_files(&used, n->list[i], n->entry[i]);
	npki_names_sort(&used);
	for (size_t i = 0; i < w->retired.n && rc == 0; i++)
		if (!npki_names_has(&used, w->retired.path[i]))
			rc = npki_names_add(&n->unlink, w->retired.path[i]);
	npki_names_sort(&n->unlink);
	npki_names_fini(&used);
	if (rc == 0) {
		npki_names_fini(&w->retired);
		npki_crowded_no_more(w);
	}
	return rc;
}

/* The current bitmap of a touched array. */
static struct npki_rowmap *current_live(struct npk_array *a)
{
	struct npki_rowmap *live = NULL;

	pthread_mutex_lock(&a->lock);
	if (a->known)
		live = npki_rowmap_ref(a->live);
	pthread_mutex_unlock(&a->lock);
	return live && live->nlive == live->nslots ? (npki_rowmap_put(live), NULL) : live;
}

int npki_snapshot_take(struct npk_store *s, struct npki_snapshot *out, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npki_snapshot n = {.old_hash = w->disk_hash, .new_hash = w->hash};
	int rc = npk_store_list(s, &n.list, &n.n, err);

	if (rc != 0)
		return rc;
	n.entry = calloc(n.n + 1, sizeof(*n.entry));
	n.live = calloc(w->touched.n + 1, sizeof(*n.live));
	rc = n.entry && n.live ? 0 : -ENOMEM;
	for (size_t i = 0; i < n.n && rc == 0; i++)
		n.entry[i] = npki_entry_ref(n.list[i]->entry);
	if (rc == 0)
		rc = keep_unused(w, &n);
	if (rc != 0) {
		npki_snapshot_fini(&n);
		return npk_fail(err, ENOMEM, "no memory for a checkpoint");
	}
	for (size_t i = 0; i < w->touched.n; i++) {
		struct npk_array *a = npki_table_find(s, w->touched.t[i].name, w->touched.t[i].name_len);

		n.live[i] = a ? current_live(a) : NULL;
		npk_array_put(a);
	}
	n.touched = w->touched;
	w->touched = (struct npki_touched_list){0};
	w->round++;
	*out = n;
	return 0;
}

void npki_snapshot_fini(struct npki_snapshot *n)
{
	for (size_t i = 0; n->entry && i < n->n; i++)
		npki_entry_put(n->entry[i]);
	for (size_t i = 0; n->live && i < n->touched.n; i++)
		npki_rowmap_put(n->live[i]);
	npk_store_list_free(n->list, n->list ? n->n : 0);
	free(n->entry);
	free(n->live);
	free(n->bitmap);
	npki_touched_fini(&n->touched);
	npki_names_fini(&n->unlink);
	*n = (struct npki_snapshot){0};
}

/* --- images ----------------------------------------------------------------------------------------------------------- */

struct images {
	struct npk_store *s;
	struct npki_snapshot *n;
	struct npk_text *out; /* the CHECKPOINT payload */
	struct npk_err *err;
};

/* A temp file with `parts` written to it one after the other. */
struct temp {
	char path[64];
	int fd;
	uint64_t len;
	uint32_t crc;
};

static int temp_open(struct images *m, struct temp *t)
{
	npki_temp_name(m->s->writer, t->path);
	t->len = 0;
	t->crc = 0;
	return npki_create(m->s->dirfd, t->path, &t->fd, m->err);
}

static int temp_add(struct images *m, struct temp *t, const void *p, size_t len)
{
	int rc = npki_pwrite_all(t->fd, p, len, t->len, t->path, m->err);

	t->crc = npki_crc32c(t->crc, p, len);
	t->len += len;
	return rc;
}

/* Syncs it and adds the step that gives it its name. */
static int temp_close(struct images *m, struct temp *t, const char *target, int rc)
{
	if (rc == 0)
		rc = npki_sync_fd(t->fd, t->path, m->err);
	close(t->fd);
	npki_put_u8(m->out, NPKI_C_MOVE);
	npki_put_bytes(m->out, t->path, strlen(t->path));
	npki_put_bytes(m->out, target, strlen(target));
	npki_put_u32(m->out, t->crc);
	return rc;
}

static void add_path(struct images *m, enum npki_cstep step, const char *path)
{
	npki_put_u8(m->out, (uint8_t)step);
	npki_put_bytes(m->out, path, strlen(path));
}

static void add_hash(struct images *m, uint64_t hash)
{
	npki_put_u8(m->out, NPKI_C_HASH);
	npki_put_u64(m->out, hash);
}

static int write_bitmap(struct images *m, const char *target, const struct npki_rowmap *live)
{
	uint8_t head[16];
	struct temp t;
	size_t nwords;
	int rc = temp_open(m, &t);

	if (rc != 0)
		return rc;
	npki_set_le(head, live->nslots, 8);
	npki_set_le(head + 8, live->nslots - live->nlive, 8);
	rc = temp_add(m, &t, head, sizeof(head));
	for (size_t c = 0; c < live->nchunks && rc == 0; c++) {
		const uint64_t *words = npki_rowmap_words(live, c, &nwords);

		rc = temp_add(m, &t, words, nwords * 8);
	}
	return temp_close(m, &t, target, rc);
}

/* Entry i of the new state as it is now (`old` false), or as the metadata on disk has it; NULL: not there. */
static const struct npki_touched *touched_entry(const struct npki_snapshot *n, const char *name, size_t len)
{
	size_t lo = 0, hi = n->touched.n; /* sorted by sort_touched() */

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct npki_touched *t = &n->touched.t[mid];
		int c = memcmp(t->name, name, t->name_len < len ? t->name_len : len);

		if (c == 0)
			c = (t->name_len > len) - (t->name_len < len);
		if (c == 0)
			return t;
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

struct meta_image {
	struct npk_text body;
	uint64_t total, hash;
	uint32_t count;
};

static void add_entry(struct meta_image *m, const void *name, size_t len, const struct npki_entry *e)
{
	uint64_t row_bytes, bytes = 0;

	m->hash ^= npki_entry_hash(name, len, e);
	m->count++;
	if (e->raw) {
		npk_text_add(&m->body, e->raw, e->raw_len);
		return;
	}
	npki_shape_bytes(&e->shape, npk_dtype_size(e->dtype), &row_bytes, &bytes); /* checked when it was made */
	m->total += bytes;
	npki_meta_write_entry(&m->body, name, len, e->dtype, &e->shape, e->file, e->mtime_us, bytes);
}

static int write_metadata(struct images *m, struct meta_image *image)
{
	struct npk_text head = {0};
	struct temp t;
	int rc;

	npki_meta_write_head(&head, image->total, image->count);
	if (head.bad || image->body.bad) {
		npk_text_fini(&head);
		return npk_fail(m->err, ENOMEM, "no memory for the metadata");
	}
	rc = temp_open(m, &t);
	if (rc == 0) {
		rc = temp_add(m, &t, head.p, head.len);
		if (rc == 0 && image->body.len)
			rc = temp_add(m, &t, image->body.p, image->body.len);
		rc = temp_close(m, &t, NPKI_META_FILE, rc);
		add_hash(m, image->hash);
	}
	npk_text_fini(&head);
	return rc;
}

/* What happens to the bitmap of a touched array. */
enum plan {
	PLAN_NOTHING,
	PLAN_BEFORE,
	PLAN_HIDDEN,
	PLAN_AFTER
};

struct step {
	enum plan plan;
	char *file;                     /* the bitmap's */
	const struct npki_rowmap *live; /* NULL: the bitmap goes */
};

static const struct npki_entry *new_entry(const struct npki_snapshot *n, const struct npki_touched *t)
{
	size_t lo = 0, hi = n->n;

	while (lo < hi) { /* the list is sorted by name */
		size_t mid = lo + (hi - lo) / 2;
		const struct npk_array *a = n->list[mid];
		int c = memcmp(a->name, t->name, a->name_len < t->name_len ? a->name_len : t->name_len);

		if (c == 0)
			c = (a->name_len > t->name_len) - (a->name_len < t->name_len);
		if (c == 0)
			return n->entry[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static int plan_step(struct images *m, const struct npki_touched *t, const struct npki_rowmap *live, struct step *out)
{
	struct npki_file_id id;
	int rc;

	*out = (struct step){.live = live, .file = npki_bitmap_file(t->name)};
	if (!out->file)
		return npk_fail(m->err, ENOMEM, "no memory for a checkpoint");
	rc = npki_stat_file(m->s->dirfd, out->file, &id, m->err);
	if (rc != 0)
		return rc;
	if (!new_entry(m->n, t))
		out->plan = id.exists ? PLAN_AFTER : PLAN_NOTHING;
	else if (!live && !id.exists)
		out->plan = PLAN_NOTHING;
	else if (!t->entry)
		out->plan = PLAN_BEFORE; /* nobody reads the bitmap of an array that is not there */
	else if (!t->moved && (live ? live != t->live : !t->live))
		out->plan = PLAN_BEFORE; /* rows were deleted or appended: right with the old entry as well */
	else if (!t->moved)
		out->plan = live == t->live ? PLAN_NOTHING : PLAN_HIDDEN;
	else
		out->plan = PLAN_HIDDEN;
	return 0;
}

static int do_step(struct images *m, const struct step *st)
{
	if (st->live)
		return write_bitmap(m, st->file, st->live);
	add_path(m, NPKI_C_REMOVE, st->file);
	return 0;
}

static int do_steps(struct images *m, const struct step *st, enum plan plan)
{
	int rc = 0;

	for (size_t i = 0; i < m->n->touched.n && rc == 0; i++)
		if (st[i].plan == plan)
			rc = do_step(m, &st[i]);
	return rc;
}

/* The old metadata without the arrays whose bitmaps change under them. */
static int hide(struct images *m, const struct step *st)
{
	const struct npki_snapshot *n = m->n;
	struct meta_image image = {0};
	bool any = false;
	int rc = 0;

	for (size_t i = 0; i < n->touched.n; i++) {
		any |= st[i].plan == PLAN_HIDDEN;
		if (st[i].plan != PLAN_HIDDEN && n->touched.t[i].entry)
			add_entry(&image, n->touched.t[i].name, n->touched.t[i].name_len, n->touched.t[i].entry);
	}
	for (size_t i = 0; i < n->n && any; i++)
		if (!touched_entry(n, n->list[i]->name, n->list[i]->name_len))
			add_entry(&image, n->list[i]->name, n->list[i]->name_len, n->entry[i]);
	if (any) {
		npki_remember(m->s->writer, image.hash); /* somebody may open the store in that instant */
		rc = write_metadata(m, &image);
	}
	npk_text_fini(&image.body);
	return rc;
}

static int show(struct images *m)
{
	struct meta_image image = {0};
	int rc;

	for (size_t i = 0; i < m->n->n; i++)
		add_entry(&image, m->n->list[i]->name, m->n->list[i]->name_len, m->n->entry[i]);
	rc = write_metadata(m, &image);
	npk_text_fini(&image.body);
	return rc;
}

int npki_rewrite_metadata(struct npk_store *s, struct npk_err *err)
{
	const struct npki_touched_list *touched = &s->writer->touched;
	struct npk_text payload = {0};
	struct images m = {s, NULL, &payload, err};
	struct meta_image image = {0};
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < touched->n; i++)
		if (touched->t[i].entry)
			add_entry(&image, touched->t[i].name, touched->t[i].name_len, touched->t[i].entry);
	for (size_t i = 0; i < n; i++)
		if (!npki_dict_get(&touched->place, list[i]->name, list[i]->name_len, NULL))
			add_entry(&image, list[i]->name, list[i]->name_len, list[i]->entry);
	npk_store_list_free(list, n);
	if (image.hash != s->writer->disk_hash)
		rc = npk_fail(err, EIO, NPKI_META_FILE ": what it was before another program changed it is not known");
	if (rc == 0)
		rc = write_metadata(&m, &image);
	if (rc == 0 && payload.bad)
		rc = npk_fail(err, ENOMEM, "no memory for the metadata");
	if (rc == 0)
		rc = npki_redo_checkpoint(s, payload.p, payload.len, err);
	npk_text_fini(&image.body);
	npk_text_fini(&payload);
	return rc;
}

struct touched_live {
	struct npki_touched t;
	struct npki_rowmap *live;
};

static int by_name(const void *x, const void *y)
{
	const struct npki_touched *a = &((const struct touched_live *)x)->t, *b = &((const struct touched_live *)y)->t;
	int c = memcmp(a->name, b->name, a->name_len < b->name_len ? a->name_len : b->name_len);

	return c ? c : (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

static int sort_touched(struct npki_snapshot *n)
{
	struct touched_live *both = malloc((n->touched.n + 1) * sizeof(*both));

	if (!both)
		return -ENOMEM;
	for (size_t i = 0; i < n->touched.n; i++)
		both[i] = (struct touched_live){n->touched.t[i], n->live[i]};
	qsort(both, n->touched.n, sizeof(*both), by_name);
	for (size_t i = 0; i < n->touched.n; i++) {
		n->touched.t[i] = both[i].t;
		n->live[i] = both[i].live;
	}
	free(both);
	return 0;
}

int npki_images(struct npk_store *s, struct npki_snapshot *n, struct npk_text *out, struct npk_err *err)
{
	struct images m = {s, n, out, err};
	struct step *st = calloc(n->touched.n + 1, sizeof(*st));
	int rc = st && sort_touched(n) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory for a checkpoint");

	for (size_t i = 0; i < n->touched.n && rc == 0; i++)
		rc = plan_step(&m, &n->touched.t[i], n->live[i], &st[i]);
	add_hash(&m, n->old_hash);
	if (rc == 0)
		rc = do_steps(&m, st, PLAN_BEFORE);
	if (rc == 0)
		rc = hide(&m, st);
	if (rc == 0)
		rc = do_steps(&m, st, PLAN_HIDDEN);
	if (rc == 0)
		rc = show(&m);
	if (rc == 0)
		rc = do_steps(&m, st, PLAN_AFTER);
	for (size_t i = 0; i < n->unlink.n; i++)
		add_path(&m, NPKI_C_UNLINK, n->unlink.path[i]);
	for (size_t i = 0; st && i < n->touched.n; i++)
		free(st[i].file);
	free(st);
	if (rc == 0)
		rc = npki_sync_dir(s->dirfd, err);
	if (rc == 0 && out->bad)
		rc = npk_fail(err, ENOMEM, "no memory for a checkpoint");
	return rc;
}

/* --- carrying it out -------------------------------------------------------------------------------------------------- */

struct cstep {
	enum npki_cstep step;
	char path[NAME_LEN], to[NAME_LEN];
	uint32_t crc;
};

static bool take_path(struct npki_rd *r, char out[NAME_LEN])
{
	size_t len;
	const char *p = npki_take_bytes(r, &len);

	if (!p || len >= NAME_LEN || !npki_is_plain_path(p, len)) {
		r->bad = true;
		return false;
	}
	memcpy(out, p, len);
	out[len] = 0;
	return true;
}

/* The next step; false at the end. */
static bool take_step(struct npki_rd *r, struct cstep *st)
{
	while (r->p < r->end && !r->bad) {
		st->step = npki_rd_u8(r);
		if (st->step == NPKI_C_HASH) {
			npki_rd_u64(r);
			continue;
		}
		if (!take_path(r, st->path))
			return false;
		if (st->step == NPKI_C_MOVE) {
			take_path(r, st->to);
			st->crc = npki_rd_u32(r);
		}
		return !r->bad;
	}
	return false;
}

/* The checksum of a file; *exists tells whether it is there. */
static int file_crc(struct npk_store *s, const char *path, bool *exists, uint32_t *crc, struct npk_err *err)
{
	uint8_t buf[65536];
	ssize_t n;
	int fd, rc = npki_open_file(s->dirfd, path, &fd, NULL, err);

	*exists = rc == 0;
	if (rc == -ENOENT)
		return 0;
	if (rc != 0)
		return rc;
	*crc = 0;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		*crc = npki_crc32c(*crc, buf, (size_t)n);
	if (n < 0)
		rc = npk_fail(err, errno, "%.300s: %s", path, strerror(errno));
	close(fd);
	return rc;
}

/* The checksum of the last metadata image, to tell whether all was done before. */
static uint32_t final_crc(const void *payload, size_t len)
{
	struct npki_rd r = npki_rd_init(payload, len);
	struct cstep st;
	uint32_t crc = 0;

	while (take_step(&r, &st))
		if (st.step == NPKI_C_MOVE && strcmp(st.to, NPKI_META_FILE) == 0)
			crc = st.crc;
	return crc;
}

/* A rename that may have been done before the power went. `done`: the metadata is the final one already. */
static int redo_move(struct npk_store *s, const struct cstep *st, bool done, uint32_t final, struct npk_err *err)
{
	bool meta = strcmp(st->to, NPKI_META_FILE) == 0, is_final = meta && st->crc == final, exists;
	uint32_t crc = 0;
	int rc = file_crc(s, st->path, &exists, &crc, err);

	if (rc != 0)
		return rc;
	if (exists && done && meta && !is_final)
		return npki_unlink(s->dirfd, st->path, err);
	if (exists && crc != st->crc)
		return npk_fail(
			err, EUCLEAN, "%s: is damaged: the checkpoint that wrote it cannot be finished", st->path);
	if (exists)
		return npki_rename(s->dirfd, st->path, st->to, err);
	if (meta && !is_final)
		return 0;
	rc = file_crc(s, st->to, &exists, &crc, err);
	if (rc == 0 && (!exists || crc != st->crc))
		rc = npk_fail(err, EUCLEAN, "%.200s: is not what the checkpoint wrote", st->to);
	return rc;
}

int npki_redo_checkpoint(struct npk_store *s, const void *payload, size_t len, struct npk_err *err)
{
	struct npki_rd r = npki_rd_init(payload, len);
	uint32_t final = final_crc(payload, len), crc = 0;
	struct cstep st;
	bool done;
	int rc = file_crc(s, NPKI_META_FILE, &done, &crc, err);

	done = rc == 0 && done && crc == final;
	while (rc == 0 && take_step(&r, &st)) {
		if (st.step == NPKI_C_MOVE)
			rc = redo_move(s, &st, done, final, err);
		else if (st.step == NPKI_C_REMOVE)
			rc = npki_unlink(s->dirfd, st.path, err);
	}
	if (rc == 0 && r.bad)
		rc = npk_fail(err, EUCLEAN, NPKI_JOURNAL ": the checkpoint record is damaged");
	if (rc == 0)
		rc = npki_sync_dir(s->dirfd, err);
	r = npki_rd_init(payload, len);
	while (rc == 0 && take_step(&r, &st))
		if (st.step == NPKI_C_UNLINK)
			rc = npki_unlink(s->dirfd, st.path, err);
	return rc;
}

/* --- the checkpoint --------------------------------------------------------------------------------------------------- */

/* The metadata has another name as long as a journal builds on it. A copy, where the filesystem has no links: not synced, for
 * it is no part of the protocol. */
int npki_keep_base(struct npk_store *s, struct npk_err *err)
{
	struct npki_file_id id;
	uint8_t *buf;
	size_t len;
	int fd, rc = npki_unlink(s->dirfd, NPKI_BASE, err);

	if (rc == 0)
		rc = npki_link(s->dirfd, NPKI_META_FILE, NPKI_BASE, err);
	if (rc == -EPERM || rc == -ENOTSUP || rc == -EMLINK) {
		rc = npki_read_metadata(s->dirfd, &buf, &len, &id, err);
		if (rc != 0)
			return rc;
		rc = npki_create(s->dirfd, NPKI_BASE, &fd, err);
		if (rc == 0) {
			rc = npki_pwrite_all(fd, buf, len, 0, NPKI_BASE, err);
			close(fd);
		}
		free(buf);
	}
	if (rc == 0)
		npki_note_metadata(s); /* a link changes the inode's time */
	return rc;
}

/* Step 1: new records go to a new journal, which goes on where the old one stops. Under w->lock. */
static int switch_journal(struct npk_store *s, int *old_fd, uint64_t *old_pos, uint32_t *old_chain, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	uint8_t head[NPKI_JHEAD_LEN];
	uint32_t chain;
	int fd, rc = npki_unlink(s->dirfd, NPKI_JOURNAL_NEXT, err);

	npki_jhead_write(head, &(struct npki_jhead){w->nonce, w->hash, w->seq, w->chain}, &chain);
	if (rc == 0)
		rc = npki_create(s->dirfd, NPKI_JOURNAL_NEXT, &fd, err);
	if (rc != 0)
		return rc;
	rc = npki_pwrite_all(fd, head, sizeof(head), 0, NPKI_JOURNAL_NEXT, err);
	if (rc == 0)
		rc = npki_sync_fd(fd, NPKI_JOURNAL_NEXT, err);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	*old_fd = w->prev_fd = w->jfd;
	*old_pos = w->jpos;
	*old_chain = w->chain;
	w->jfd = fd;
	w->jpos = sizeof(head);
	w->chain = chain;
	w->records = 0;
	w->new_names = true;
	return 0;
}

/* Step 4: at the end of the old journal. */
static int write_checkpoint(
	int fd, uint64_t pos, uint32_t chain, uint64_t seq, const struct npk_text *payload, struct npk_err *err)
{
	struct npk_text rec = {0};
	int rc;

	npki_jrec_write(&rec, NPKI_JCKPT, seq, payload->p, payload->len, &chain);
	rc = rec.bad ? npk_fail(err, ENOMEM, "no memory for a checkpoint")
		     : npki_pwrite_all(fd, rec.p, rec.len, pos, NPKI_JOURNAL, err);
	if (rc == 0)
		rc = npki_sync_fd(fd, NPKI_JOURNAL, err);
	npk_text_fini(&rec);
	return rc;
}

/* The bitmaps as the checkpoint left them. */
static int stat_bitmaps(struct npk_store *s, struct npki_snapshot *n, struct npk_err *err)
{
	char *path;
	int rc = 0;

	n->bitmap = calloc(n->touched.n + 1, sizeof(*n->bitmap));
	if (!n->bitmap)
		return npk_fail(err, ENOMEM, "no memory for a checkpoint");
	for (size_t i = 0; i < n->touched.n && rc == 0; i++) {
		path = npki_bitmap_file(n->touched.t[i].name);
		if (!path)
			return npk_fail(err, ENOMEM, "no memory for a checkpoint");
		rc = npki_stat_file(s->dirfd, path, &n->bitmap[i], err);
		free(path);
	}
	return rc;
}

/* What was on disk before is an earlier state now, and what the snapshot shows is there. Under w->lock. */
static void forget_before(struct npk_store *s, const struct npki_snapshot *n)
{
	struct npki_writer *w = s->writer;

	for (size_t i = 0; i < n->touched.n; i++) {
		const struct npki_touched *t = &n->touched.t[i];
		struct npk_array *a = npki_table_find(s, t->name, t->name_len);

		if (t->entry)
			npki_remember(w, npki_entry_hash(t->name, t->name_len, t->entry));
		if (a) {
			a->bitmap = n->bitmap[i];
			a->bitmap_noted = true;
		}
		npk_array_put(a);
	}
	w->disk_hash = n->new_hash;
	npki_remember(w, w->disk_hash);
}

/* A checkpoint writes all the metadata: with many arrays it has to wait for more changes. Under w->lock. */
static void set_due(struct npk_store *s)
{
	struct npki_writer *w = s->writer;
	uint64_t metadata;

	pthread_rwlock_rdlock(&s->table_lock);
	metadata = s->meta_id.size;
	pthread_rwlock_unlock(&s->table_lock);
	w->due_bytes = 8 * metadata > w->limit_bytes ? 8 * metadata : w->limit_bytes;
}

bool npki_is_due(struct npk_store *s)
{
	const struct npki_writer *w = s->writer;

	if (w->jfd < 0 || w->records == 0 || w->failed || w->foreign)
		return false;
	return w->jpos >= w->due_bytes || (w->limit_s && npki_now_s() - w->begun_s >= w->limit_s) || npki_is_crowded(s);
}

static int checkpoint(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npki_snapshot n = {0};
	struct npki_names dirty = {0};
	struct npk_text payload = {0};
	uint64_t old_pos = 0, upto = 0;
	uint32_t old_chain = 0;
	bool new_names = false, nothing;
	struct npk_err why;
	int old_fd = -1, rc = 0, base = 0;

	pthread_mutex_lock(&w->lock);
	if (w->failed)
		rc = npk_fail(err, EIO, "%.500s", w->why);
	nothing = w->jfd < 0 || (w->records == 0 && !w->rebased);
	if (rc == 0 && w->jfd >= 0) {
		rc = npki_check_foreign(s, err);
		rc = rc < 0 ? rc : 0;
	}
	if (rc == 0 && !nothing)
		rc = npki_checkpoint_has_room(s, err);
	if (rc == 0 && !nothing)
		rc = switch_journal(s, &old_fd, &old_pos, &old_chain, err);
	if (rc == 0 && !nothing)
		rc = npki_snapshot_take(s, &n, err);
	if (rc == 0 && !nothing)
		rc = npki_own_retired(s, err);
	if (rc == 0)
		npki_take_dirty(w, &dirty, &new_names, &upto);
	pthread_mutex_unlock(&w->lock);
	if (rc == 0)
		rc = npki_sync_dirty(s, &dirty, new_names, err);
	if (rc == 0 && !nothing)
		rc = npki_images(s, &n, &payload, err);
	if (rc == 0 && !nothing)
		rc = write_checkpoint(old_fd, old_pos, old_chain, upto, &payload, err);
	if (rc == 0 && !nothing)
		rc = npki_redo_checkpoint(s, payload.p, payload.len, err);
	if (rc == 0 && !nothing)
		rc = stat_bitmaps(s, &n, err);
	if (rc == 0 && !nothing)
		base = npki_keep_base(s, &why); /* without it all is as durable */
	if (rc == 0 && !nothing)
		rc = npki_sync_fd(w->jfd, NPKI_JOURNAL_NEXT, err); /* w->jfd changes under sync_lock only */
	if (rc == 0 && !nothing)
		rc = npki_rename(s->dirfd, NPKI_JOURNAL_NEXT, NPKI_JOURNAL, err);
	if (rc == 0 && !nothing)
		rc = npki_sync_dir(s->dirfd, err);
	pthread_mutex_lock(&w->lock);
	if (rc == 0 && !nothing) {
		npki_drop_sealed(w, upto);
		forget_before(s, &n);
		w->prev_fd = -1;
		w->rebased = false;
		set_due(s);
		close(old_fd);
	} else if (rc != 0 && old_fd >= 0) {
		npki_fail_store(w, rc, err);
	}
	pthread_mutex_unlock(&w->lock);
	npki_names_fini(&dirty);
	npki_snapshot_fini(&n);
	npk_text_fini(&payload);
	return rc == 0 && base != 0 ? npk_fail(err, -base, "%s", why.msg) : rc;
}

int npki_checkpoint(struct npk_store *s, struct npk_err *err)
{
	struct npk_err why = {0};
	int rc;

	pthread_mutex_lock(&s->writer->sync_lock);
	rc = checkpoint(s, &why);
	pthread_mutex_unlock(&s->writer->sync_lock);
	return rc ? npk_fail(err, why.code, "%s", why.msg) : 0;
}

void npki_checkpoint_if_due(struct npk_store *s)
{
	struct npki_writer *w = s->writer;
	struct npk_err err = {0};
	bool due;

	if (pthread_mutex_trylock(&w->sync_lock) != 0)
		return;
	pthread_mutex_lock(&w->lock);
	due = npki_is_due(s);
	pthread_mutex_unlock(&w->lock);
	if (due && checkpoint(s, &err) != 0) { /* the journal has it all; no room on the disk, perhaps */
		pthread_mutex_lock(&w->lock);
		w->due_bytes = w->jpos + w->limit_bytes;
		w->begun_s = npki_now_s();
		w->crowded = false;
		pthread_mutex_unlock(&w->lock);
	}
	pthread_mutex_unlock(&w->sync_lock);
}
