/* replace.c - new bytes for rows that are there, as pieces of files. */
#include "change.h"
#include "guard.h"
#include "rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int add_piece(struct npki_pieces *l, const struct npk_gen *g, uint64_t slot, const uint8_t *bytes)
{
	struct npki_piece *last = l->n ? &l->p[l->n - 1] : NULL, *more;
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
	l->p[l->n++] = (struct npki_piece){seg, slot, 1, bytes};
	return 0;
}

/* Where a piece lies in its file. */
static uint64_t piece_off(const struct npk_gen *g, const struct npki_piece *p)
{
	return (p->slot - g->seg[p->seg].first) * g->info.row_bytes;
}

bool npki_any_unsealed(const struct npki_writer *w, const struct npk_gen *g, const struct npki_pieces *l)
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
static int write_piece(struct npki_tx *tx, struct npk_gen *g, const struct npki_piece *p, struct npk_err *err)
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

/* Rows first, first + 1, ... */
static int pieces_of_range(struct npki_pieces *l, const struct npk_gen *g, uint64_t first, uint64_t nrows,
	const uint8_t *p, struct npk_err *err)
{
	struct npk_spans it;
	uint64_t slot, n;

	if (first > g->info.rows || nrows > g->info.rows - first)
		return npk_fail(err, ERANGE, "array '%.200s': rows %" PRIu64 ":%" PRIu64 " of %" PRIu64, g->name, first,
			first + nrows, g->info.rows);
	npk_spans_init(&it, g, first, g->info.row_bytes ? nrows : 0);
	while (npk_spans_next(&it, &slot, &n))
		for (uint64_t i = 0; i < n; i++, p += g->info.row_bytes)
			if (add_piece(l, g, slot + i, p) != 0)
				return npk_fail(err, ENOMEM, "replace: no memory");
	return 0;
}

int npki_pieces_of(struct npki_pieces *l, const struct npk_gen *g, const int64_t *rows, uint64_t first, uint64_t n,
	const void *data, struct npk_err *err)
{
	uint64_t row = 0;
	int rc = 0;

	if (!rows)
		return pieces_of_range(l, g, first, n, data, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = npki_resolve(g, rows[i], &row, err);
		if (rc == 0 && g->info.row_bytes &&
			add_piece(l, g, npk_gen_slot(g, row), (const uint8_t *)data + i * g->info.row_bytes) != 0)
			rc = npk_fail(err, ENOMEM, "replace: no memory");
	}
	return rc;
}

int npki_log_pieces(struct npki_tx *tx, const struct npk_gen *g, const struct npki_pieces *l, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++)
		rc = npki_tx_redo(tx, g->seg[l->p[i].seg].file->path, piece_off(g, &l->p[i]), l->p[i].bytes,
			l->p[i].n * g->info.row_bytes, err);
	return rc;
}

int npki_write_pieces(struct npki_tx *tx, struct npk_gen *g, const struct npki_pieces *l, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++) {
		rc = npki_wrote_in_place(tx, g->seg[l->p[i].seg].file->path, err);
		if (rc == 0)
			rc = write_piece(tx, g, &l->p[i], err);
	}
	return rc;
}
