/* inplace.c - bytes written through a view, where they lie. */
#include "change.h"
#include "rows.h"

#include <errno.h>
#include <inttypes.h>
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
	return npki_is_unsealed(x->s->writer, p->f->path, p->off, p->len) ? -EAGAIN : 0;
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

int npk_view_pwrite(
	struct npk_view *v, struct npk_array *a, uint64_t off, const void *bytes, size_t len, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct npk_gen *now = NULL;
	struct npki_tx tx;
	struct view_write x = {&tx, a->store, bytes, err};
	int rc;

	if (off > info->bytes || len > info->bytes - off)
		return npk_fail(err, EINVAL, "view: bytes %" PRIu64 " + %zu of %" PRIu64, off, len, info->bytes);
	do {
		rc = npki_tx_begin(&tx, a->store, err);
		if (rc != 0)
			return rc;
		rc = current_slots(a, npk_view_gen(v), &now, err);
		if (rc == 0)
			rc = npki_own_files(&tx, a, &now, err);
		if (rc == 0)
			rc = each_place(v, now, off, len, is_place_sealed, &x);
		if (rc == 0)
			rc = each_place(v, now, off, len, write_place, &x);
		npk_gen_put(now);
		now = NULL;
		npki_tx_abort(&tx); /* there is no record */
		if (rc == -EAGAIN && npki_seal(a->store, err) != 0)
			rc = -EIO;
	} while (rc == -EAGAIN);
	return rc;
}
