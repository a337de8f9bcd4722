/* replace.c - new bytes for rows that are there, as pieces of files. */
#include "change.h"
#include "guard.h"
#include "rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int add_piece(struct npki_pieces *l, size_t seg, const uint8_t *bytes)
{
	struct npki_piece *more;

	if ((l->n & (l->n - 1)) == 0) {
		more = realloc(l->p, (l->n ? 2 * l->n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->p = more;
	}
	l->p[l->n++] = (struct npki_piece){seg, l->nat, 0, bytes};
	return 0;
}

static int add_room(struct npki_pieces *l, size_t room)
{
	struct npki_span *more = realloc(l->at, room * sizeof(*more));

	if (!more)
		return -ENOMEM;
	l->at = more;
	l->room = room;
	return 0;
}

/* The new bytes of `len` bytes from `off` on in the file of a segment. They follow those that were added before. */
static inline int add_place(struct npki_pieces *l, size_t seg, uint64_t off, uint64_t len, const uint8_t *bytes)
{
	struct npki_piece *p = l->n ? &l->p[l->n - 1] : NULL;
	struct npki_span *last;

	if (!p || p->seg != seg) {
		if (add_piece(l, seg, bytes) != 0)
			return -ENOMEM;
		p = &l->p[l->n - 1];
	} else {
		last = &l->at[l->nat - 1];
		if (last->off + last->len == off) {
			last->len += len;
			return 0;
		}
	}
	if (l->nat == l->room && add_room(l, l->room ? 2 * l->room : 16) != 0)
		return -ENOMEM;
	l->at[l->nat++] = (struct npki_span){off, len};
	p->n++;
	return 0;
}

bool npki_any_unsealed(const struct npki_writer *w, const struct npk_gen *g, const struct npki_pieces *l)
{
	for (size_t i = 0; i < l->n && w->nunsealed; i++) {
		const struct npki_piece *p = &l->p[i];

		for (size_t k = p->first; k < p->first + p->n; k++)
			if (npki_is_unsealed(w, g->seg[p->seg].file->path, l->at[k].off, l->at[k].len))
				return true;
	}
	return false;
}

struct copy {
	const char *path;
	const struct npki_span *at;
	size_t n, done;
	const uint8_t *from;
	uint8_t *base; /* of the file */
	int fd, rc;
	struct npk_err *err;
};

static void do_copy(void *ctx)
{
	struct copy *c = ctx;

	for (; c->done < c->n; c->done++) {
		const struct npki_span *at = &c->at[c->done];

		c->rc = npki_wrote(c->fd, c->from, at->len, at->off, c->path, c->err);
		if (c->rc != 0)
			return;
		memcpy(c->base + at->off, c->from, at->len);
		c->from += at->len;
	}
}

/* In place, behind the record: through the mapping, since scattered rows would cost a call each. */
static int write_piece(struct npki_tx *tx, struct npk_gen *g, const struct npki_pieces *l, const struct npki_piece *p,
	struct npk_err *err)
{
	struct npki_file *f = g->seg[p->seg].file;
	struct copy c = {.path = f->path, .at = l->at + p->first, .n = p->n, .from = p->bytes, .err = err};
	int rc = npki_wrote_in_place(tx, f->path, err);

	if (rc == 0)
		rc = npki_use_fd(tx->s->writer, f, &c.fd, err);
	if (rc == 0)
		rc = npki_file_wmap(f, g->seg[p->seg].nslots * g->info.row_bytes, &c.base, err);
	if (rc != 0)
		return rc;
	if (npki_guarded(do_copy, &c) != 0)
		return npk_fail(err, EIO, "%s: byte %" PRIu64 ": cannot be written", f->path, c.at[c.done].off);
	return c.rc;
}

/* Rows first, first + 1, ... */
static int pieces_of_range(struct npki_pieces *l, const struct npk_gen *g, uint64_t first, uint64_t nrows,
	const uint8_t *p, struct npk_err *err)
{
	uint64_t row_bytes = g->info.row_bytes, slot, n;
	struct npk_spans it;

	if (first > g->info.rows || nrows > g->info.rows - first)
		return npk_fail(err, ERANGE, "array '%.200s': rows %" PRIu64 ":%" PRIu64 " of %" PRIu64, g->name, first,
			first + nrows, g->info.rows);
	npk_spans_init(&it, g, first, row_bytes ? nrows : 0);
	while (npk_spans_next(&it, &slot, &n))
		for (uint64_t k; n > 0; slot += k, n -= k, p += k * row_bytes) {
			size_t i = npki_segment_of(g, slot);
			uint64_t in_seg = slot - g->seg[i].first, room = g->seg[i].nslots - in_seg;

			k = n < room ? n : room;
			if (add_place(l, i, in_seg * row_bytes, k * row_bytes, p) != 0)
				return npk_fail(err, ENOMEM, "replace: no memory");
		}
	return 0;
}

static int pieces_of_list(struct npki_pieces *l, const struct npk_gen *g, const int64_t *rows, uint64_t n,
	const uint8_t *p, struct npk_err *err)
{
	uint64_t row_bytes = g->info.row_bytes, total = g->info.rows, slot;
	size_t seg = 0;
	int rc = 0;

	if (n > SIZE_MAX / sizeof(*l->at) || (n > l->room && add_room(l, n) != 0))
		return npk_fail(err, ENOMEM, "replace: no memory");
	for (uint64_t i = 0; i < n && rc == 0; i++, p += row_bytes) {
		slot = (uint64_t)rows[i];
		if (slot >= total)
			rc = npki_resolve(g, rows[i], &slot, err);
		if (rc != 0 || row_bytes == 0)
			continue;
		if (g->live)
			slot = npk_gen_slot(g, slot);
		if (g->nsegs > 1)
			seg = npki_segment_of(g, slot);
		if (add_place(l, seg, (slot - g->seg[seg].first) * row_bytes, row_bytes, p) != 0)
			rc = npk_fail(err, ENOMEM, "replace: no memory");
	}
	return rc;
}

int npki_pieces_of(struct npki_pieces *l, const struct npk_gen *g, const int64_t *rows, uint64_t first, uint64_t n,
	const void *data, struct npk_err *err)
{
	return rows ? pieces_of_list(l, g, rows, n, data, err) : pieces_of_range(l, g, first, n, data, err);
}

int npki_log_pieces(struct npki_tx *tx, const struct npk_gen *g, const struct npki_pieces *l, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++)
		rc = npki_tx_redo(
			tx, g->seg[l->p[i].seg].file->path, l->at + l->p[i].first, l->p[i].n, l->p[i].bytes, err);
	return rc;
}

int npki_write_pieces(struct npki_tx *tx, struct npk_gen *g, const struct npki_pieces *l, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++)
		rc = write_piece(tx, g, l, &l->p[i], err);
	return rc;
}
