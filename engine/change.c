/* change.c - rows of one array: append, drop, replace. */
#include "guard.h"
#include "manifest.h"
#include "rows.h"
#include "sel.h"
#include "sink.h"
#include "txn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Under the writer's lock: the generation to change; a scalar has no rows. */
static int begin(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, struct npk_err *err)
{
	int rc = npki_tx_begin(tx, a->store, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(g, a, err);
	if (rc == 0 && (*g)->info.shape.ndim == 0)
		rc = npk_fail(err, EINVAL, "array '%.200s' is a scalar: it has no rows to change", a->name);
	if (rc != 0)
		npki_tx_abort(tx);
	return rc;
}

static int end(struct npki_tx *tx, struct npk_gen *g, int rc, struct npk_err *err)
{
	npk_gen_put(g);
	if (rc == 0)
		return npki_tx_commit(tx, err);
	npki_tx_abort(tx);
	return rc;
}

/* --- append ----------------------------------------------------------------------------------------------------------- */

/* Bytes that lie behind the last row are of an append that did not come to be. */
static int cut_tail(int fd, const struct npki_file *f, uint64_t len, struct npk_err *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return npk_fail(err, errno, "%s: %s", f->path, strerror(errno));
	if ((uint64_t)st.st_size < len)
		return npk_fail(err, EUCLEAN, "%s: byte %jd: the file ends here, %" PRIu64 " bytes are needed", f->path,
			(intmax_t)st.st_size, len);
	return (uint64_t)st.st_size > len ? npki_truncate(fd, len, f->path, err) : 0;
}

/* `n` bytes behind the first `len` of a file. What was written is cut off again when it fails. */
static int append_bytes(
	struct npki_tx *tx, struct npki_file *f, uint64_t len, const void *bytes, size_t n, struct npk_err *err)
{
	struct npk_err again;
	int fd, rc = npki_use_fd(tx->s->writer, f, &fd, err);

	if (rc == 0)
		rc = cut_tail(fd, f, len, err);
	if (rc != 0)
		return rc;
	rc = npki_pwrite_all(fd, bytes, n, len, f->path, err);
	if (rc == 0)
		return npki_tx_extent(tx, f->path, len, n, npki_crc32c(0, bytes, n), err);
	if (npki_truncate(fd, len, f->path, &again) != 0)
		npki_fail_store(tx->s->writer, rc, &again);
	return rc;
}

/* The last segment is filled up, then new ones are made; a new manifest names them all. */
static int append_segments(
	struct npki_tx *tx, struct npk_gen *g, const uint8_t *rows, uint64_t nrows, char path[64], struct npk_err *err)
{
	uint64_t row_bytes = g->info.row_bytes, target = npki_segment_target(row_bytes), room = 0;
	struct npki_seg *last = g->nsegs ? &g->seg[g->nsegs - 1] : NULL;
	struct npki_sink k = {.fd = -1};
	struct npki_manifest m = {0};
	int rc = 0;

	if (last && row_bytes && target > last->nslots * row_bytes)
		room = (target - last->nslots * row_bytes) / row_bytes;
	room = room < nrows ? room : nrows;
	if (room)
		rc = append_bytes(tx, last->file, last->nslots * row_bytes, rows, room * row_bytes, err);
	if (rc == 0 && nrows > room) {
		rc = npki_sink_init(&k, tx, row_bytes, 0, false, err);
		k.seg_bytes = row_bytes ? target / row_bytes * row_bytes : 0;
		if (rc == 0)
			rc = npki_sink_write(&k, rows + room * row_bytes, (nrows - room) * row_bytes, err);
	}
	m.seg = rc == 0 ? calloc(g->nsegs + k.nfiles + 1, sizeof(*m.seg)) : NULL;
	if (rc == 0 && !m.seg)
		rc = npk_fail(err, ENOMEM, "no memory");
	for (size_t i = 0; i < g->nsegs && rc == 0; i++) {
		uint64_t n = g->seg[i].nslots + (i + 1 == g->nsegs ? room : 0);

		m.seg[m.nsegs++] = (struct npki_mseg){g->seg[i].file->path, n, n * row_bytes};
	}
	for (size_t i = 0; i < k.nfiles && rc == 0; i++) {
		rc = npki_tx_extent(tx, k.file[i].path, 0, k.file[i].bytes, k.file[i].crc, err);
		m.seg[m.nsegs++] = (struct npki_mseg){k.file[i].path, k.file[i].bytes / row_bytes, k.file[i].bytes};
	}
	if (rc == 0)
		rc = npki_write_manifest(tx, &m, path, err);
	free(m.seg);
	npki_sink_fini(&k);
	return rc;
}

int npki_append_rows(struct npki_tx *tx, struct npk_array *a, struct npk_gen *g, const void *rows, uint64_t nrows,
	uint64_t mtime_us, struct npk_err *err)
{
	const char *file = a->entry->file;
	char path[64];
	int rc = npki_tx_intent(tx, a->name, a->name_len, err);

	if (rc == 0 && g->segmented) {
		rc = append_segments(tx, g, rows, nrows, path, err);
		file = path;
	} else if (rc == 0 && g->info.row_bytes) {
		rc = append_bytes(
			tx, g->seg[0].file, g->info.slots * g->info.row_bytes, rows, nrows * g->info.row_bytes, err);
	}
	if (rc == 0)
		npki_tx_grow(tx, a->name, a->name_len, g->info.slots + nrows, mtime_us, file);
	if (a->pending)
		tx->grown = a;
	return rc;
}

static int check_growth(
	const struct npk_array *a, const struct npk_gen *g, uint64_t nrows, uint64_t *bytes, struct npk_err *err)
{
	uint64_t nslots;

	if (__builtin_add_overflow(g->info.slots, nrows, &nslots) ||
		__builtin_mul_overflow(nslots, g->info.row_bytes, bytes) || *bytes > INT64_MAX || nslots > INT64_MAX)
		return npk_fail(err, EINVAL, "array '%.200s': %" PRIu64 " more rows are too many", a->name, nrows);
	return 0;
}

/* Rows count from the moment their record is whole: nobody looks behind the last row before. */
int npk_array_append(struct npk_array *a, const void *rows, uint64_t nrows, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npki_tx tx;
	uint64_t bytes;
	int rc = begin(&tx, a, &g, err);

	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	rc = check_growth(a, g, nrows, &bytes, err);
	if (rc != 0 || nrows == 0 || npki_txn_has_tail(a)) {
		if (rc == 0 && nrows)
			rc = npki_txn_append(&tx, a, g, rows, nrows, err);
		npki_tx_abort(&tx);
		npk_gen_put(g);
		return rc;
	}
	rc = npki_append_rows(&tx, a, g, rows, nrows, npki_tick(a->store->writer), err);
	return end(&tx, g, rc, err);
}

/* --- drop ------------------------------------------------------------------------------------------------------------- */

struct runs {
	struct npki_run *run;
	size_t n;
};

static int add_run(struct runs *r, uint64_t slot, uint64_t n)
{
	struct npki_run *more;

	if (r->n && r->run[r->n - 1].slot + r->run[r->n - 1].n == slot) {
		r->run[r->n - 1].n += n;
		return 0;
	}
	if ((r->n & (r->n - 1)) == 0) {
		more = realloc(r->run, (r->n ? 2 * r->n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		r->run = more;
	}
	r->run[r->n++] = (struct npki_run){slot, n};
	return 0;
}

/* Rows [first, first + n) as runs of slots. */
static int add_rows(struct runs *r, const struct npk_gen *g, uint64_t first, uint64_t n)
{
	struct npk_spans it;
	uint64_t slot, k;
	int rc = 0;

	npk_spans_init(&it, g, first, n);
	while (rc == 0 && npk_spans_next(&it, &slot, &k))
		rc = add_run(r, slot, k);
	return rc;
}

static int by_slot(const void *a, const void *b)
{
	const struct npki_run *x = a, *y = b;

	return (x->slot > y->slot) - (x->slot < y->slot);
}

/* Ascending, disjoint; returns the number of slots. */
static uint64_t normalize(struct runs *r)
{
	uint64_t total = 0, stop = 0;
	size_t n = 0;

	if (r->n)
		qsort(r->run, r->n, sizeof(*r->run), by_slot);
	for (size_t i = 0; i < r->n; i++) {
		struct npki_run x = r->run[i];

		if (n && x.slot < stop) { /* named twice */
			if (x.slot + x.n <= stop)
				continue;
			x.n -= stop - x.slot;
			x.slot = stop;
		}
		r->run[n++] = x;
		stop = x.slot + x.n;
		total += x.n;
	}
	r->n = n;
	return total;
}

static int drop_runs(struct npki_tx *tx, struct npk_array *a, struct npk_gen *g, struct runs *r, uint64_t *dropped,
	struct npk_err *err)
{
	uint64_t n = normalize(r);
	int rc;

	if (n == 0) {
		npk_gen_put(g);
		npki_tx_abort(tx);
		rc = 0;
	} else {
		npki_tx_clear(tx, a->name, a->name_len, r->run, r->n, npki_tick(a->store->writer));
		rc = end(tx, g, 0, err);
	}
	if (rc == 0 && dropped)
		*dropped = n;
	return rc;
}

static int select_runs(struct runs *r, struct npk_gen *g, const char *text, struct npk_err *err)
{
	struct npki_sel sel = {0};
	struct npki_axis axis = {0};
	uint64_t row, run;
	int64_t step;
	int rc = npki_sel_parse(text, strlen(text), &sel, err);

	if (rc == 0 && sel.nparts != 1)
		rc = npk_fail(err, EINVAL, "drop: rows are wanted, one part of a selection");
	if (rc == 0 && sel.part[0].mask)
		rc = npki_load_mask(g, &sel.part[0], 0, g->info.rows, &axis.mask, err);
	if (rc == 0)
		rc = npki_axis_bind(&axis, &sel.part[0], 0, g->info.rows, err);
	for (uint64_t i = 0; i < axis.len && rc == 0; i += run) {
		row = npki_axis_at(&axis, i, &step, &run);
		if (step == 1) {
			rc = add_rows(r, g, row, run);
		} else {
			for (uint64_t k = 0; k < run && rc == 0; k++)
				rc = add_run(r, npk_gen_slot(g, row + (uint64_t)step * k), 1);
		}
		if (rc != 0)
			npk_fail(err, ENOMEM, "drop: no memory");
	}
	npki_axis_fini(&axis);
	npki_sel_fini(&sel);
	return rc;
}

int npk_array_drop(struct npk_array *a, const char *sel, uint64_t *dropped, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct runs r = {0};
	struct npki_tx tx;
	int rc = begin(&tx, a, &g, err);

	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	rc = select_runs(&r, g, sel, err);
	rc = rc == 0 ? drop_runs(&tx, a, g, &r, dropped, err) : end(&tx, g, rc, err);
	free(r.run);
	return rc;
}

static int resolve(const struct npk_gen *g, int64_t row, uint64_t *out, struct npk_err *err)
{
	uint64_t r = (uint64_t)(row < 0 ? row + (int64_t)g->info.rows : row);

	if (r >= g->info.rows)
		return npk_fail(err, ERANGE, "array '%.200s': row %" PRId64 " of %" PRIu64, g->name, row, g->info.rows);
	*out = r;
	return 0;
}

int npk_array_drop_rows(struct npk_array *a, const int64_t *rows, size_t n, uint64_t *dropped, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct runs r = {0};
	struct npki_tx tx;
	uint64_t row = 0;
	int rc = begin(&tx, a, &g, err);

	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = resolve(g, rows[i], &row, err);
		if (rc == 0 && add_run(&r, npk_gen_slot(g, row), 1) != 0)
			rc = npk_fail(err, ENOMEM, "drop: no memory");
	}
	rc = rc == 0 ? drop_runs(&tx, a, g, &r, dropped, err) : end(&tx, g, rc, err);
	free(r.run);
	return rc;
}

/* --- replace ---------------------------------------------------------------------------------------------------------- */

/* Slots that follow one another in one file, and their new bytes. */
struct piece {
	size_t seg;
	uint64_t slot, n;
	const uint8_t *bytes;
};

struct pieces {
	struct piece *p;
	size_t n;
};

static int add_piece(struct pieces *l, const struct npk_gen *g, uint64_t slot, const uint8_t *bytes)
{
	struct piece *last = l->n ? &l->p[l->n - 1] : NULL, *more;
	size_t seg = g->nsegs == 1 ? 0 : npki_segment_of(g, slot);

	if (last && last->seg == seg && last->slot + last->n == slot &&
		last->bytes + last->n * g->info.row_bytes == bytes) {
		last->n++;
		return 0;
	}
	if ((l->n & (l->n - 1)) == 0) {
		more = realloc(l->p, (l->n ? 2 * l->n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->p = more;
	}
	l->p[l->n++] = (struct piece){seg, slot, 1, bytes};
	return 0;
}

/* Where a piece lies in its file. */
static uint64_t piece_off(const struct npk_gen *g, const struct piece *p)
{
	return (p->slot - g->seg[p->seg].first) * g->info.row_bytes;
}

static bool any_unsealed(const struct npki_writer *w, const struct npk_gen *g, const struct pieces *l)
{
	for (size_t i = 0; i < l->n && w->nunsealed; i++)
		if (npki_is_unsealed(
			    w, g->seg[l->p[i].seg].file->path, piece_off(g, &l->p[i]), l->p[i].n * g->info.row_bytes))
			return true;
	return false;
}

struct copy {
	uint8_t *to;
	const uint8_t *from;
	size_t len;
};

static void do_copy(void *ctx)
{
	const struct copy *c = ctx;

	memcpy(c->to, c->from, c->len);
}

/* In place, behind the record: through the mapping, since scattered rows would cost a call each. */
static int write_piece(struct npki_tx *tx, struct npk_gen *g, const struct piece *p, struct npk_err *err)
{
	struct npki_file *f = g->seg[p->seg].file;
	uint64_t off = piece_off(g, p);
	struct copy c = {NULL, p->bytes, p->n * g->info.row_bytes};
	int fd, rc = npki_use_fd(tx->s->writer, f, &fd, err);

	if (rc == 0)
		rc = npki_wrote(fd, c.from, c.len, off, f->path, err);
	if (rc == 0)
		rc = npki_file_wmap(f, g->seg[p->seg].nslots * g->info.row_bytes, &c.to, err);
	if (rc != 0)
		return rc;
	c.to += off;
	return npki_guarded(do_copy, &c) == 0
		       ? 0
		       : npk_fail(err, EIO, "%s: byte %" PRIu64 ": cannot be written", f->path, off);
}

/* An overlap with bytes whose checksum a later recovery needs is sealed first, and for an atomic replace everything that
 * its record stands on; others may add new ones meanwhile. */
static int begin_clear(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, struct pieces *l, bool atomic,
	int (*make)(struct pieces *l, struct npk_gen *g, const void *ctx, struct npk_err *err), const void *ctx,
	struct npk_err *err)
{
	int rc;

	for (;;) {
		rc = begin(tx, a, g, err);
		if (rc == 0) {
			rc = make(l, *g, ctx, err);
			if (rc == 0 &&
				!(atomic ? a->store->writer->nunsealed > 0 : any_unsealed(a->store->writer, *g, l)))
				return 0;
			npki_tx_abort(tx);
		}
		npk_gen_put(*g);
		*g = NULL;
		free(l->p);
		*l = (struct pieces){0};
		if (rc == 0)
			rc = npki_seal(a->store, err);
		if (rc != 0)
			return rc;
	}
}

/* In a transaction the bytes go into the array's own copy, which nobody else sees: no record has to come first. */
static int replace_inside(struct npk_array *a,
	int (*make)(struct pieces *, struct npk_gen *, const void *, struct npk_err *), const void *ctx,
	struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct pieces l = {0};
	struct npki_tx tx;
	int rc = begin(&tx, a, &g, err);

	if (rc == 0) {
		rc = make(&l, g, ctx, err);
		if (rc == 0 && l.n && npki_txn_has_tail(a)) {
			rc = npki_own_files(&tx, a, &g, err);
			l.n = 0;
			if (rc == 0)
				rc = make(&l, g, ctx, err);
		}
		for (size_t i = 0; i < l.n && rc == 0; i++) {
			rc = npki_wrote_in_place(&tx, g->seg[l.p[i].seg].file->path, err);
			if (rc == 0)
				rc = write_piece(&tx, g, &l.p[i], err);
		}
		if (rc == 0 && l.n) {
			npki_tx_time(&tx, a->name, a->name_len, npki_tick(a->store->writer));
			rc = npki_tx_log(&tx, err);
		}
		npki_tx_abort(&tx);
	}
	npk_gen_put(g);
	free(l.p);
	return rc;
}

static int replace(struct npk_array *a, int (*make)(struct pieces *, struct npk_gen *, const void *, struct npk_err *),
	const void *ctx, unsigned flags, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct pieces l = {0};
	struct npki_tx tx;
	struct npk_err why;
	bool atomic = flags & NPK_REPLACE_ATOMIC;
	int rc;

	if (flags & ~NPK_REPLACE_ATOMIC)
		return npk_fail(err, EINVAL, "replace: flags 0x%x make no sense", flags);
	if (a->store->base)
		return replace_inside(a, make, ctx, err);
	rc = begin_clear(&tx, a, &g, &l, atomic, make, ctx, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < l.n && rc == 0; i++)
		rc = npki_tx_redo(&tx, g->seg[l.p[i].seg].file->path, piece_off(g, &l.p[i]), l.p[i].bytes,
			l.p[i].n * g->info.row_bytes, err);
	if (rc == 0 && l.n) {
		npki_tx_time(&tx, a->name, a->name_len, npki_tick(a->store->writer));
		rc = npki_tx_log(&tx, err);
		if (rc == 0 && atomic) /* the record comes to the disk before the bytes */
			rc = npki_tx_sync(&tx, err);
	}
	if (rc != 0) {
		npki_tx_abort(&tx);
	} else {
		for (size_t i = 0; i < l.n && rc == 0; i++)
			rc = write_piece(&tx, g, &l.p[i], &why);
		if (rc != 0) {
			npki_fail_store(a->store->writer, rc, &why);
			npk_fail(err, EIO, "%.500s", a->store->writer->why);
			rc = -EIO;
		}
		npki_tx_end(&tx);
	}
	npk_gen_put(g);
	free(l.p);
	return rc;
}

struct listed {
	const int64_t *rows;
	size_t n;
	const uint8_t *data;
};

static int listed_pieces(struct pieces *l, struct npk_gen *g, const void *ctx, struct npk_err *err)
{
	const struct listed *x = ctx;
	uint64_t row = 0;
	int rc = 0;

	for (size_t i = 0; i < x->n && rc == 0; i++) {
		rc = resolve(g, x->rows[i], &row, err);
		if (rc == 0 && g->info.row_bytes &&
			add_piece(l, g, npk_gen_slot(g, row), x->data + i * g->info.row_bytes) != 0)
			rc = npk_fail(err, ENOMEM, "replace: no memory");
	}
	return rc;
}

int npk_array_replace(
	struct npk_array *a, const int64_t *rows, size_t n, const void *data, unsigned flags, struct npk_err *err)
{
	return replace(a, listed_pieces, &(struct listed){rows, n, data}, flags, err);
}

struct ranged {
	uint64_t first, nrows;
	const uint8_t *data;
};

static int ranged_pieces(struct pieces *l, struct npk_gen *g, const void *ctx, struct npk_err *err)
{
	const struct ranged *x = ctx;
	const uint8_t *p = x->data;
	struct npk_spans it;
	uint64_t slot, n;

	if (x->first > g->info.rows || x->nrows > g->info.rows - x->first)
		return npk_fail(err, ERANGE, "array '%.200s': rows %" PRIu64 ":%" PRIu64 " of %" PRIu64, g->name,
			x->first, x->first + x->nrows, g->info.rows);
	npk_spans_init(&it, g, x->first, g->info.row_bytes ? x->nrows : 0);
	while (npk_spans_next(&it, &slot, &n))
		for (uint64_t i = 0; i < n; i++, p += g->info.row_bytes)
			if (add_piece(l, g, slot + i, p) != 0)
				return npk_fail(err, ENOMEM, "replace: no memory");
	return 0;
}

int npk_array_replace_range(
	struct npk_array *a, uint64_t first, uint64_t nrows, const void *data, unsigned flags, struct npk_err *err)
{
	return replace(a, ranged_pieces, &(struct ranged){first, nrows, data}, flags, err);
}

/* --- bytes in place --------------------------------------------------------------------------------------------------- */

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

/* --- extending -------------------------------------------------------------------------------------------------------- */

int npk_array_extend(struct npk_array *a, uint64_t nrows, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npki_tx tx;
	uint64_t bytes = 0;
	int fd, rc = begin(&tx, a, &g, err);

	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	rc = check_growth(a, g, nrows, &bytes, err);
	if (rc != 0 || nrows == 0 || npki_txn_has_tail(a)) {
		if (rc == 0 && nrows)
			rc = npki_txn_append(&tx, a, g, NULL, nrows, err);
		npki_tx_abort(&tx);
		npk_gen_put(g);
		return rc;
	}
	if (g->segmented)
		rc = npk_fail(err, ENOTSUP, "array '%.200s': a segmented array grows by append only", a->name);
	if (rc == 0)
		rc = npki_tx_intent(&tx, a->name, a->name_len, err);
	if (rc == 0)
		rc = npki_use_fd(a->store->writer, g->seg[0].file, &fd, err);
	if (rc == 0)
		rc = cut_tail(fd, g->seg[0].file, g->info.slots * g->info.row_bytes, err);
	if (rc == 0)
		rc = npki_truncate(fd, bytes, g->seg[0].file->path, err);
	if (rc == 0)
		rc = npki_tx_zero(&tx, g->seg[0].file->path, bytes, err);
	if (rc == 0)
		npki_tx_grow(
			&tx, a->name, a->name_len, g->info.slots + nrows, npki_tick(a->store->writer), a->entry->file);
	if (rc == 0 && a->pending)
		tx.grown = a;
	return end(&tx, g, rc, err);
}
