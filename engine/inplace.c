/* inplace.c - bytes written through a view, where they lie. */
#include "change.h"
#include "rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* An in-place write that no record tells: as with any file, one that is cut by a crash may be there in part. */
static int write_in_place(
	struct npki_tx *tx, struct npki_file *f, uint64_t off, const void *bytes, size_t len, struct npk_err *err)
{
	int fd, rc = npki_use_fd(tx->s->writer, f, &fd, err);

	if (rc == 0)
		rc = npki_wrote_in_place(tx, f->path, err);
	return rc == 0 ? npki_pwrite_all(fd, bytes, len, off, f->path, err) : rc;
}

/* Where `len` bytes from byte `off` of the view on lie together: at most so many, in one file. */
struct place {
	struct npki_file *f;
	uint64_t off;
	size_t len;
};

/* Every run of bytes that a write touches, in turn, in the files that `now` has. -EAGAIN from `fn` stops it early. */
static int each_place(struct npk_view *v, const struct npk_gen *now, uint64_t off, size_t len,
	int (*fn)(void *ctx, const struct place *p, size_t done), void *ctx)
{
	const struct npk_gen *g = npk_view_gen(v);
	size_t done = 0;
	int rc = 0;

	while (done < len && rc == 0) {
		uint64_t in_slot, slot, together, room;
		const struct npki_seg *seg;
		struct place p;

		npki_view_locate(v, off + done, &slot, &in_slot, &together);
		seg = &now->seg[npki_segment_of(now, slot)]; /* the same slots may lie in other files now */
		p.f = seg->file;
		p.off = (slot - seg->first) * g->info.row_bytes + in_slot;
		room = seg->nslots * g->info.row_bytes - p.off;
		p.len = together < len - done ? (size_t)together : len - done;
		if (p.len > room)
			p.len = (size_t)room;
		rc = fn(ctx, &p, done);
		done += p.len;
	}
	return rc;
}

struct view_write {
	struct npki_tx *tx;
	struct npk_store *s;
	const uint8_t *bytes;
	struct npk_err *err;
};

static int is_place_sealed(void *ctx, const struct place *p, size_t done)
{
	const struct view_write *x = ctx;

	(void)done;
	return npki_is_unsealed(x->s->writer, p->f->path, p->off, p->len) ||
			       npki_is_redone(x->s->writer, p->f->path, p->off, p->len)
		       ? -EAGAIN
		       : 0;
}

static int write_place(void *ctx, const struct place *p, size_t done)
{
	const struct view_write *x = ctx;

	return write_in_place(x->tx, p->f, p->off, x->bytes + done, p->len, x->err);
}

/* The array's current generation, if it still has the slots of `g`: a compact, a save over or a removal takes them away.
 * The file may have got another name meanwhile, its inode stays. */
static int current_slots(struct npk_array *a, const struct npk_gen *g, struct npk_gen **now, struct npk_err *err)
{
	int rc = npk_gen_get(now, a, err);

	if (rc != 0)
		return rc == -ENOENT ? npk_fail(err, ESTALE, "array '%.200s' is gone", a->name) : rc;
	if ((*now)->info.slots < g->info.slots || (*now)->info.row_bytes != g->info.row_bytes ||
		(g->nsegs && !npk_gen_shares(*now, g))) {
		npk_gen_put(*now);
		*now = NULL;
		rc = npk_fail(err, ESTALE, "array '%.200s': these rows were compacted or replaced", a->name);
	}
	return rc;
}

/* Under a->lock. A name alone says little: a sync gives the name of a file that went to the one in its place. */
static bool has_file(const struct npk_array *a, const struct npki_file *f)
{
	struct npki_file_id id;

	return strcmp(a->entry->file, f->path) == 0 && npki_stat_file(f->dirfd, f->path, &id, NULL) == 0 && id.exists &&
	       id.ino == f->id.ino && id.dev == f->id.dev;
}

/* Which array has the slots of `g`, whatever its name is; NULL: none. *owner is counted. */
static int find_owner(struct npk_store *s, const struct npk_gen *g, struct npk_array **owner, struct npk_err *err)
{
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	*owner = NULL;
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && !*owner && g->nsegs; i++) {
		pthread_mutex_lock(&list[i]->lock);
		if ((list[i]->cur && npk_gen_shares(list[i]->cur, g)) || has_file(list[i], g->seg[0].file))
			*owner = npk_array_ref(list[i]);
		pthread_mutex_unlock(&list[i]->lock);
	}
	npk_store_list_free(list, n);
	return 0;
}

static bool is_left(const struct npk_gen *g)
{
	bool left = true;

	for (size_t i = 0; i < g->nsegs; i++)
		left &= atomic_load(&g->seg[i].file->inode->left);
	return left;
}

/* What `now` is to a write: a generation to write through, or NULL: the files of `g` are no array's any more. */
static int place_of(struct npki_tx *tx, struct npk_store *s, struct npk_array *a, const struct npk_gen *g,
	struct npk_gen **now, struct npk_err *err)
{
	struct npk_array *owner = NULL;
	struct npk_err why = {0};
	int rc = a ? current_slots(a, g, now, &why) : -ESTALE;

	if (rc == 0)
		return npki_own_files(tx, a, now, err);
	if (rc != -ESTALE || s->base)
		return npk_fail(err, -rc, "%s", why.msg);
	for (size_t i = 0; i < g->nsegs; i++)
		if (atomic_load(&g->seg[i].file->inode->compacted))
			return npk_fail(err, ESTALE, "array '%.200s': these rows were compacted", g->name);
	if (is_left(g))
		return 0;
	rc = find_owner(s, g, &owner, err);
	if (rc == 0 && owner) { /* it is being renamed */
		rc = current_slots(owner, g, now, err);
		if (rc == 0)
			rc = npki_own_files(tx, owner, now, err);
		npk_array_put(owner);
	}
	return rc;
}

static int write_left(void *ctx, const struct place *p, size_t done)
{
	const struct view_write *x = ctx;

	return npki_file_write_left(p->f, x->bytes + done, p->len, p->off, x->err);
}

/* Files that no array has are written without a record. But what took them from their array must be durable first: a
 * recovery may not find the array as it was, with these bytes in it, nor miss a checksum of theirs. */
static int seal_left(struct npk_store *s, const struct npk_gen *g, struct npk_err *err)
{
	int rc = npki_seal(s, err);

	for (size_t i = 0; i < g->nsegs && rc == 0; i++)
		atomic_store(&g->seg[i].file->inode->left, true);
	return rc;
}

static int is_nameless(void *ctx, const struct place *p, size_t done)
{
	const struct view_write *x = ctx;

	(void)done;
	return npki_file_is_nameless(p->f)
		       ? 0
		       : npk_fail(x->err, ESTALE, "%.300s: the transaction that showed these rows has ended",
				 p->f->path);
}

/* The transaction is gone. Its own files lost their names with it, and go on for who kept them; the store's are no longer
 * to be written through it. */
static int write_discarded(struct npk_view *v, uint64_t off, const void *bytes, size_t len, struct npk_err *err)
{
	const struct view_write x = {.bytes = bytes, .err = err};
	int rc = each_place(v, npk_view_gen(v), off, len, is_nameless, (void *)&x);

	return rc == 0 ? each_place(v, npk_view_gen(v), off, len, write_left, (void *)&x) : rc;
}

int npk_view_pwrite(
	struct npk_view *v, struct npk_array *a, uint64_t off, const void *bytes, size_t len, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct npk_gen *g = npk_view_gen(v), *now = NULL;
	struct npk_store *s = a ? a->store : g->store;
	struct npki_tx tx;
	struct view_write x = {&tx, s, bytes, err};
	bool seal_first;
	int rc;

	if (off > info->bytes || len > info->bytes - off)
		return npk_fail(err, EINVAL, "view: bytes %" PRIu64 " + %zu of %" PRIu64, off, len, info->bytes);
	if (!a && s->base)
		return write_discarded(v, off, bytes, len, err);
	do {
		rc = npki_tx_begin(&tx, s, err);
		if (rc != 0)
			return rc;
		rc = place_of(&tx, s, a, g, &now, err);
		seal_first = rc == 0 && !now && !is_left(g);
		if (rc == 0 && now)
			rc = each_place(v, now, off, len, is_place_sealed, &x);
		if (rc == 0 && now)
			rc = each_place(v, now, off, len, write_place, &x);
		else if (rc == 0 && !seal_first)
			rc = each_place(v, g, off, len, write_left, &x);
		npk_gen_put(now);
		now = NULL;
		npki_tx_abort(&tx); /* there is no record */
		if (seal_first)
			rc = seal_left(s, g, err) == 0 ? -EAGAIN : -EIO;
		else if (rc == -EAGAIN && npki_seal(s, err) != 0)
			rc = -EIO;
	} while (rc == -EAGAIN);
	return rc;
}

uint64_t npk_view_pieces(struct npk_view *v, uint64_t most)
{
	uint64_t bytes = npk_view_info(v)->bytes, slot, in_slot, together, n = 0;

	for (uint64_t off = 0; off < bytes && n < most; off += together, n++)
		npki_view_locate(v, off, &slot, &in_slot, &together);
	return n;
}

/* --- a whole view at once --------------------------------------------------------------------------------------------- */

#define COPY_BYTES ((size_t)1 << 20)

struct view_replace {
	struct npki_tx *tx;
	struct npk_store *s;
	struct npki_source_file from;
	uint8_t *buf; /* COPY_BYTES */
	struct npk_err *err;
};

static int log_copy(void *ctx, const struct place *p, size_t done)
{
	const struct view_replace *x = ctx;

	return npki_tx_copy(x->tx, p->f->path, p->off, p->len, x->from.path, done, x->err);
}

static int copy_place(void *ctx, const struct place *p, size_t done)
{
	const struct view_replace *x = ctx;
	int rc = 0;

	for (size_t at = 0; at < p->len && rc == 0; at += COPY_BYTES) {
		size_t n = p->len - at < COPY_BYTES ? p->len - at : COPY_BYTES;

		rc = npki_pread_all(x->from.fd, x->buf, n, done + at, x->from.path, x->err);
		if (rc == 0)
			rc = write_in_place(x->tx, p->f, p->off + at, x->buf, n, x->err);
	}
	return rc;
}

/* The record names the file with the new bytes, which stays until they are durable where they belong. */
static int log_replace(
	struct view_replace *x, struct npk_view *v, struct npk_array *a, struct npk_gen *now, bool atomic)
{
	size_t len = (size_t)x->from.len;
	int rc = npki_tx_extent(x->tx, x->from.path, 0, x->from.len, x->from.crc, x->err);

	if (rc == 0)
		rc = each_place(v, now, 0, len, log_copy, x);
	if (rc != 0)
		return rc;
	npki_tx_time(x->tx, a->name, a->name_len, npki_tick(x->s->writer));
	rc = npki_tx_log(x->tx, x->err);
	if (rc == 0 && atomic)
		rc = npki_tx_sync(x->tx, x->err);
	return rc;
}

static int replace_outside(struct view_replace *x, struct npk_view *v, struct npk_array *a, struct npk_gen *now,
	struct npk_save *w, bool atomic)
{
	struct npki_writer *wr = x->s->writer;
	struct npk_err why = {0}, *err = x->err;
	int rc = log_replace(x, v, a, now, atomic);

	if (rc != 0)
		return rc;
	x->err = &why;
	rc = each_place(v, now, 0, (size_t)x->from.len, copy_place, x);
	x->err = err;
	if (rc == 0 && npki_names_add(&wr->retired, x->from.path) != 0)
		rc = npk_fail(&why, ENOMEM, "no memory");
	if (rc == 0) {
		npki_save_give(w);
		return 0;
	}
	npki_fail_store(wr, rc, &why);
	return npk_fail(err, EIO, "%.500s", wr->why);
}

static int replace_inside(struct view_replace *x, struct npk_view *v, struct npk_array *a, struct npk_gen **now)
{
	int rc = npki_own_files(x->tx, a, now, x->err);

	if (rc == 0)
		rc = each_place(v, *now, 0, (size_t)x->from.len, copy_place, x);
	if (rc == 0) {
		npki_tx_time(x->tx, a->name, a->name_len, npki_tick(x->s->writer));
		rc = npki_tx_log(x->tx, x->err);
	}
	return rc;
}

static int try_replace(struct view_replace *x, struct npk_view *v, struct npk_array *a, struct npk_save *w, bool atomic)
{
	struct view_write probe = {x->tx, x->s, NULL, x->err};
	struct npk_gen *now = NULL;
	int rc = npki_tx_begin(x->tx, x->s, x->err);

	if (rc != 0)
		return rc;
	rc = current_slots(a, npk_view_gen(v), &now, x->err);
	if (rc == 0 && x->s->base) {
		rc = replace_inside(x, v, a, &now);
	} else if (rc == 0) {
		if (atomic && x->s->writer->nunsealed > 0)
			rc = -EAGAIN;
		if (rc == 0)
			rc = each_place(v, now, 0, (size_t)x->from.len, is_place_sealed, &probe);
		if (rc == 0)
			rc = replace_outside(x, v, a, now, w, atomic);
	}
	npk_gen_put(now);
	npki_tx_abort(x->tx);
	return rc;
}

int npk_save_replace(struct npk_save *w, struct npk_view *v, struct npk_array *a, unsigned flags, struct npk_err *err)
{
	struct npki_tx tx;
	struct view_replace x = {&tx, a->store, {0}, malloc(COPY_BYTES), err};
	bool atomic = flags & NPK_REPLACE_ATOMIC;
	int rc = x.buf ? npki_save_source(w, &x.from, err) : npk_fail(err, ENOMEM, "no memory");

	if (rc == 0 && (flags & ~NPK_REPLACE_ATOMIC))
		rc = npk_fail(err, EINVAL, "replace: flags 0x%x make no sense", flags);
	if (rc == 0 && x.from.store != a->store)
		rc = npk_fail(err, EINVAL, "array '%.200s' is of another store", a->name);
	if (rc == 0 && x.from.len != npk_view_info(v)->bytes)
		rc = npk_fail(err, EINVAL, "replace: %" PRIu64 " bytes for a selection of %" PRIu64, x.from.len,
			npk_view_info(v)->bytes);
	if (rc == 0 && atomic && !a->store->base) { /* the record will stand on it */
		rc = npki_sync_fd(x.from.fd, x.from.path, err);
		if (rc == 0)
			rc = npki_sync_dir(a->store->dirfd, err);
	}
	while (rc == 0 && x.from.len) {
		rc = try_replace(&x, v, a, w, atomic);
		if (rc == 0)
			break;
		if (rc == -EAGAIN)
			rc = npki_seal(a->store, err);
	}
	free(x.buf);
	npk_save_abort(w);
	return rc;
}
