/* rows.c - copying rows out of a generation. Runs of live slots are copied as one; scattered rows are looked up in
 * batches, so that the look-ups overlap and each row's memory is on its way before it is needed. */
#include "rows.h"
#include "guard.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

uint64_t npk_gen_slot(const struct npk_gen *g, uint64_t row)
{
	return g->live ? npki_rowmap_select(g->live, row) : row;
}

bool npk_gen_row(const struct npk_gen *g, uint64_t slot, uint64_t *row)
{
	if (g->live && !npki_rowmap_live(g->live, slot))
		return false;
	*row = g->live ? npki_rowmap_rank(g->live, slot) : slot;
	return true;
}

void npk_gen_deleted(const struct npk_gen *g, uint64_t first, uint64_t n, uint64_t *out)
{
	uint64_t slot, run;

	if (n == 0)
		return;
	for (slot = npki_rowmap_select_dead(g->live, first);; slot += run) { /* dead slots up to the next live run */
		uint64_t live = slot;

		if (!npki_rowmap_run(g->live, &live, UINT64_MAX, &run)) {
			live = g->live->nslots;
			run = 0;
		}
		for (; slot < live; slot++) {
			*out++ = slot;
			if (--n == 0)
				return;
		}
	}
}

void npk_spans_init(struct npk_spans *it, const struct npk_gen *g, uint64_t first, uint64_t nrows)
{
	*it = (struct npk_spans){g, 0, 0};
	if (first >= g->info.rows)
		return;
	it->slot = npk_gen_slot(g, first);
	it->left = nrows < g->info.rows - first ? nrows : g->info.rows - first;
}

bool npk_spans_next(struct npk_spans *it, uint64_t *slot, uint64_t *nslots)
{
	if (it->left == 0)
		return false;
	if (!it->g->live) {
		*slot = it->slot;
		*nslots = it->left;
	} else {
		*slot = it->slot;
		if (!npki_rowmap_run(it->g->live, slot, it->left, nslots))
			return false;
	}
	it->slot = *slot + *nslots;
	it->left -= *nslots;
	return true;
}

size_t npki_segment_of(const struct npk_gen *g, uint64_t slot)
{
	size_t lo = 0, hi = g->nsegs, mid;

	while (hi - lo > 1) {
		mid = lo + (hi - lo) / 2;
		if (g->seg[mid].first <= slot)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

const uint8_t *npki_slot_at(const struct npk_gen *g, uint64_t slot, uint64_t *together)
{
	const struct npki_seg *s = &g->seg[npki_segment_of(g, slot)];

	*together = s->first + s->nslots - slot;
	return s->base + (slot - s->first) * g->info.row_bytes;
}

/* The file that is short now is the one to name; the first when that cannot be told any more. */
int npki_shrank(const struct npk_gen *g, struct npk_err *err)
{
	struct npki_file_id id;
	size_t i;

	for (i = 0; i < g->nsegs; i++)
		if (npki_stat_file(g->store->dirfd, g->seg[i].file->path, &id, NULL) == 0 &&
			id.size < g->seg[i].nslots * g->info.row_bytes)
			break;
	return npk_fail(err, EIO, "%.300s: the file was cut short while array '%.100s' was read",
		g->seg[i < g->nsegs ? i : 0].file->path, g->name);
}

/* Slots [slot, slot + n), which may cross from one file into the next. */
static uint8_t *copy_slots(const struct npk_gen *g, uint64_t slot, uint64_t n, uint8_t *out)
{
	while (n > 0) {
		uint64_t together;
		const uint8_t *from = npki_slot_at(g, slot, &together);
		uint64_t k = n < together ? n : together;

		memcpy(out, from, k * g->info.row_bytes);
		out += k * g->info.row_bytes;
		slot += k;
		n -= k;
	}
	return out;
}

/* One short row: whole 16-byte pieces and one that overlaps them, instead of a call for a variable length. */
static inline void copy_row(uint8_t *out, const uint8_t *from, size_t len)
{
	size_t i;

	if (len > 256 || len < 16) {
		memcpy(out, from, len);
		return;
	}
	for (i = 0; i + 16 <= len; i += 16)
		memcpy(out + i, from + i, 16);
	memcpy(out + len - 16, from + len - 16, 16);
}

/* Common row sizes get a copy of fixed length; the compiler turns each into a few moves. */
#define GATHER(LEN)                                                                                                    \
	for (size_t i = 0; i < n; i++)                                                                                 \
	memcpy(out + i * (LEN), from[i], (LEN))

static void gather(const uint8_t *const *from, size_t n, size_t row_bytes, uint8_t *out)
{
	switch (row_bytes) {
	case 1:
		GATHER(1);
		break;
	case 2:
		GATHER(2);
		break;
	case 4:
		GATHER(4);
		break;
	case 8:
		GATHER(8);
		break;
	case 16:
		GATHER(16);
		break;
	case 40:
		GATHER(40);
		break;
	default:
		for (size_t i = 0; i < n; i++)
			copy_row(out + i * row_bytes, from[i], row_bytes);
	}
}

#define SHORT_RUN 1024     /* bytes: shorter runs are copied row by row */
#define LISTED_ROW_MAX 256 /* bytes: but not rows that are a run by themselves */

/* Rows from `slot` on whose runs are short: row by row costs less than run by run, whose lengths nobody foresees.
 * Returns the slot after them. */
static uint64_t copy_listed(const struct npk_gen *g, uint64_t slot, size_t n, uint8_t *out)
{
	const uint8_t *from[NPKI_BATCH], *base;
	uint64_t slots[NPKI_BATCH], together;

	npki_rowmap_list(g->live, slot, slots, n);
	base = npki_slot_at(g, slot, &together);
	for (size_t i = 0; i < n; i++) {
		if (slots[i] - slot >= together) { /* the next file */
			slot = slots[i];
			base = npki_slot_at(g, slot, &together);
		}
		from[i] = base + (slots[i] - slot) * g->info.row_bytes;
	}
	gather(from, n, g->info.row_bytes, out);
	return slots[n - 1] + 1;
}

void npki_copy_range(const struct npk_gen *g, uint64_t first, uint64_t nrows, uint8_t *out)
{
	size_t row_bytes = g->info.row_bytes;
	struct npk_spans it;
	uint64_t slot, n;

	npk_spans_init(&it, g, first, nrows);
	while (npk_spans_next(&it, &slot, &n)) {
		if (it.left > 0 && n * row_bytes < SHORT_RUN && row_bytes <= LISTED_ROW_MAX) {
			it.left += n;
			n = it.left < NPKI_BATCH ? it.left : NPKI_BATCH;
			it.slot = copy_listed(g, slot, (size_t)n, out);
			it.left -= n;
			out += n * row_bytes;
		} else {
			out = copy_slots(g, slot, n, out);
		}
	}
}

void npki_copy_batch(const struct npk_gen *g, uint64_t *rows, size_t n, uint8_t *out)
{
	size_t row_bytes = g->info.row_bytes;
	const struct npki_data data = {g->seg[0].base, row_bytes};
	const uint8_t *from[NPKI_BATCH];
	bool sent_for = g->live && g->nsegs == 1 && row_bytes > 0;
	uint64_t together;

	if (g->live)
		npki_rowmap_select_many(g->live, rows, n, sent_for ? &data : NULL);
	for (size_t i = 0; i < n; i++) {
		from[i] = g->nsegs == 1 ? data.base + rows[i] * row_bytes : npki_slot_at(g, rows[i], &together);
		if (sent_for)
			continue;
		__builtin_prefetch(from[i]);
		if (row_bytes > 32)
			__builtin_prefetch(from[i] + row_bytes - 1);
	}
	gather(from, n, row_bytes, out);
}

void npki_copy_step(const struct npk_gen *g, uint64_t first, int64_t step, uint64_t nrows, uint8_t *out)
{
	uint64_t rows[NPKI_BATCH];

	while (nrows > 0) {
		size_t n = nrows < NPKI_BATCH ? (size_t)nrows : NPKI_BATCH;

		for (size_t i = 0; i < n; i++)
			rows[i] = first + (uint64_t)step * i;
		npki_copy_batch(g, rows, n, out);
		out += n * g->info.row_bytes;
		first += (uint64_t)step * n;
		nrows -= n;
	}
}

struct read_rows {
	struct npk_gen *g;
	uint64_t first, nrows;
	int64_t step;
	uint8_t *out;
};

static void read_range(void *ctx)
{
	struct read_rows *r = ctx;

	npki_copy_range(r->g, r->first, r->nrows, r->out);
}

static void read_step(void *ctx)
{
	struct read_rows *r = ctx;

	npki_copy_step(r->g, r->first, r->step, r->nrows, r->out);
}

static int run(struct npk_gen *g, void (*fn)(void *), void *ctx, struct npk_err *err)
{
	int rc = npk_gen_map(g, err);

	if (rc == 0 && npki_guarded(fn, ctx) != 0)
		rc = npki_shrank(g, err);
	return rc;
}

int npk_gen_read_rows(struct npk_gen *g, uint64_t first, uint64_t nrows, void *out, struct npk_err *err)
{
	struct read_rows r = {g, first, nrows, 1, out};

	if (first > g->info.rows || nrows > g->info.rows - first)
		return npk_fail(err, ERANGE, "array '%.200s': rows %" PRIu64 ":%" PRIu64 " of %" PRIu64, g->name, first,
			first + nrows, g->info.rows);
	return nrows ? run(g, read_range, &r, err) : 0;
}

int npk_gen_read_step(struct npk_gen *g, uint64_t first, int64_t step, uint64_t nrows, void *out, struct npk_err *err)
{
	struct read_rows r = {g, first, nrows, step, out};
	int64_t last;

	if (step == 0)
		return npk_fail(err, EINVAL, "array '%.200s': a step of 0", g->name);
	if (nrows == 0)
		return 0;
	if (first >= g->info.rows || __builtin_mul_overflow((int64_t)(nrows - 1), step, &last) ||
		nrows > g->info.rows || __builtin_add_overflow(last, (int64_t)first, &last) || last < 0 ||
		(uint64_t)last >= g->info.rows)
		return npk_fail(err, ERANGE,
			"array '%.200s': %" PRIu64 " rows from %" PRIu64 " by %" PRId64 " leave its %" PRIu64, g->name,
			nrows, first, step, g->info.rows);
	return run(g, read_step, &r, err);
}

struct take {
	struct npk_gen *g;
	const int64_t *rows;
	size_t n;
	uint8_t *out;
	size_t bad; /* the first row out of range, or n */
};

static void take_rows(void *ctx)
{
	struct take *t = ctx;
	uint64_t rows[NPKI_BATCH], count = t->g->info.rows;

	for (size_t done = 0; done < t->n;) {
		size_t k = t->n - done < NPKI_BATCH ? t->n - done : NPKI_BATCH;

		for (size_t i = 0; i < k; i++) {
			int64_t r = t->rows[done + i];

			rows[i] = (uint64_t)(r < 0 ? r + (int64_t)count : r);
			if (rows[i] >= count) { /* a negative one too far back has become huge */
				t->bad = done + i;
				return;
			}
		}
		npki_copy_batch(t->g, rows, k, t->out + done * t->g->info.row_bytes);
		done += k;
	}
}

int npk_gen_take(struct npk_gen *g, const int64_t *rows, size_t n, void *out, struct npk_err *err)
{
	struct take t = {g, rows, n, out, n};
	int rc = n ? run(g, take_rows, &t, err) : 0;

	if (rc == 0 && t.bad < n)
		rc = npk_fail(
			err, ERANGE, "array '%.200s': row %" PRId64 " of %" PRIu64, g->name, rows[t.bad], g->info.rows);
	return rc;
}

int npk_gen_borrow(struct npk_gen *g, uint64_t row, const void **out, uint64_t *nrows, struct npk_err *err)
{
	uint64_t slot, run_len, together;
	int rc;

	if (row >= g->info.rows)
		return npk_fail(err, ERANGE, "array '%.200s': row %" PRIu64 " of %" PRIu64, g->name, row, g->info.rows);
	rc = npk_gen_map(g, err);
	if (rc != 0)
		return rc;
	slot = npk_gen_slot(g, row);
	run_len = g->info.slots - slot;
	if (g->live)
		npki_rowmap_run(g->live, &slot, run_len, &run_len);
	*out = npki_slot_at(g, slot, &together);
	*nrows = run_len < together ? run_len : together;
	return 0;
}
