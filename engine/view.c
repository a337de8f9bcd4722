/* view.c - a selection over a generation, read at any byte of its C-order form.
 *
 * The trailing axes that are taken whole make a *cell*, contiguous in the data file. Where only rows are selected a cell
 * is a row, and reads go by runs of rows; else each row is walked cell by cell along the selected inner axes, the last of
 * them by runs. Nothing is expanded: positions come from the axes' ranges and masks as they are needed. */
#include "guard.h"
#include "rows.h"
#include "sel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BORROW_MAX ((uint64_t)16 << 20) /* bytes that npk_view_borrow() looks ahead for deleted rows */

struct npk_view {
	struct npk_gen *g; /* counted */
	struct npk_view_info info;
	unsigned naxes; /* axes 0 .. naxes - 1 are walked, the rest is the cell; 0 only for 0-d */
	uint64_t cell_bytes;
	struct view_axis {
		struct npki_axis at;
		uint64_t stride; /* source bytes from one position to the next */
	} axis[];                /* info.shape.ndim of them */
};

/* --- masks ------------------------------------------------------------------------------------------------------------ */

struct mask_read {
	struct npk_gen *g;
	struct npk_err *err;
};

static bool is_nonzero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return any != 0;
}

static int fill_mask(void *ctx, uint64_t first, uint64_t *words, size_t nwords)
{
	struct mask_read *m = ctx;
	const struct npk_gen_info *info = npk_gen_info(m->g);
	uint8_t values[64 * 8];
	int rc = 0;

	for (size_t w = 0; w < nwords && rc == 0; w++) {
		uint64_t at = first + 64 * w, n = info->rows - at < 64 ? info->rows - at : 64;

		rc = npk_gen_read_rows(m->g, at, n, values, m->err);
		words[w] = 0;
		for (uint64_t i = 0; i < n && rc == 0; i++)
			words[w] |= (uint64_t)is_nonzero(values + i * info->row_bytes, info->row_bytes) << i;
	}
	return rc;
}

int npki_load_mask(struct npk_gen *g, const struct npki_part *p, unsigned axis, uint64_t len, struct npki_rowmap **out,
	struct npk_err *err)
{
	struct npk_array *a = NULL;
	struct mask_read m = {.err = err};
	const struct npk_gen_info *info;
	int rc = npk_array_get_n(&a, g->store, p->mask, p->mask_len, err);

	if (rc == 0)
		rc = npk_gen_get(&m.g, a, err);
	if (rc == 0) {
		info = npk_gen_info(m.g);
		if (info->shape.ndim != 1 || info->dtype > NPK_I64)
			rc = npk_fail(err, EINVAL, "mask '%.200s' is not a 1-d array of bool or integers", p->mask);
		else if (info->rows != len)
			rc = npk_fail(err, EINVAL, "mask '%.200s' has %" PRIu64 " values, axis %u has %" PRIu64,
				p->mask, info->rows, axis, len);
	}
	if (rc == 0)
		rc = npki_rowmap_build(out, len, fill_mask, &m, NULL);
	if (rc == -ENOMEM)
		rc = npk_fail(err, ENOMEM, "mask '%.200s': no memory", p->mask);
	npk_gen_put(m.g);
	npk_array_put(a);
	return rc;
}

/* --- opening ---------------------------------------------------------------------------------------------------------- */

static int bind(struct npk_view *v, const struct npki_sel *sel, struct npk_err *err)
{
	const struct npk_shape *shape = &v->g->info.shape;
	int rc = 0;

	if (sel->nparts > shape->ndim)
		return npk_fail(err, EINVAL, "selection: %u parts for %u axes", sel->nparts, shape->ndim);
	for (unsigned i = 0; i < shape->ndim && rc == 0; i++) {
		const struct npki_part *p = i < sel->nparts ? &sel->part[i] : NULL;

		if (p && p->mask)
			rc = npki_load_mask(v->g, p, i, shape->dim[i], &v->axis[i].at.mask, err);
		if (rc == 0)
			rc = npki_axis_bind(&v->axis[i].at, p, i, shape->dim[i], err);
	}
	return rc;
}

static int measure(struct npk_view *v, struct npk_err *err)
{
	const struct npk_shape *from = &v->g->info.shape;
	size_t item = npk_dtype_size(v->g->info.dtype);
	struct npk_view_info *info = &v->info;
	uint64_t stride = item;

	info->dtype = v->g->info.dtype;
	info->shape.ndim = from->ndim;
	v->naxes = from->ndim ? 1 : 0;
	for (unsigned i = 0; i < from->ndim; i++) {
		info->shape.dim[i] = v->axis[i].at.len;
		if (i > 0 && !v->axis[i].at.full)
			v->naxes = i + 1;
	}
	if (npki_shape_bytes(&info->shape, item, &info->row_bytes, &info->bytes) != 0)
		return npk_fail(err, EINVAL, "selection: the result has 2^63 bytes or more");
	info->rows = from->ndim ? info->shape.dim[0] : 1;
	v->cell_bytes = item;
	for (unsigned i = from->ndim; i-- > v->naxes;)
		v->cell_bytes *= from->dim[i];
	for (unsigned i = from->ndim; i-- > 0; stride *= from->dim[i])
		v->axis[i].stride = stride;
	return 0;
}

int npk_view_open(struct npk_view **out, struct npk_gen *g, const char *sel, struct npk_err *err)
{
	struct npk_view *v = calloc(1, sizeof(*v) + g->info.shape.ndim * sizeof(v->axis[0]));
	struct npki_sel parsed = {0};
	int rc;

	if (!v)
		return npk_fail(err, ENOMEM, "selection: no memory");
	v->g = npk_gen_ref(g);
	rc = sel ? npki_sel_parse(sel, strlen(sel), &parsed, err) : 0;
	if (rc == 0)
		rc = bind(v, &parsed, err);
	if (rc == 0)
		rc = measure(v, err);
	npki_sel_fini(&parsed);
	if (rc != 0)
		npk_view_close(v);
	else
		*out = v;
	return rc;
}

void npk_view_close(struct npk_view *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < v->g->info.shape.ndim; i++)
		npki_axis_fini(&v->axis[i].at);
	npk_gen_put(v->g);
	free(v);
}

const struct npk_view_info *npk_view_info(const struct npk_view *v)
{
	return &v->info;
}

struct npk_gen *npk_view_gen(const struct npk_view *v)
{
	return v->g;
}

uint64_t npk_view_row(const struct npk_view *v, uint64_t row)
{
	uint64_t run;
	int64_t step;

	return v->g->info.shape.ndim ? npki_axis_at(&v->axis[0].at, row, &step, &run) : 0;
}

/* --- reading ---------------------------------------------------------------------------------------------------------- */

/* The source row of selected row `i`, and how many follow by *step. */
static uint64_t source_row(const struct npk_view *v, uint64_t i, int64_t *step, uint64_t *run)
{
	return npki_axis_at(&v->axis[0].at, i, step, run);
}

static const uint8_t *row_at(const struct npk_view *v, uint64_t i)
{
	uint64_t run, together;
	int64_t step;

	if (v->naxes == 0)
		return npki_slot_at(v->g, 0, &together);
	return npki_slot_at(v->g, npk_gen_slot(v->g, source_row(v, i, &step, &run)), &together);
}

/* Whole selected rows [i, i + n) of a view that selects only rows. Runs of equal step go by one call; single rows of a
 * list are collected, so that their look-ups overlap. */
static void copy_rows(const struct npk_view *v, uint64_t i, uint64_t n, uint8_t *out)
{
	uint64_t rows[NPKI_BATCH], row_bytes = v->info.row_bytes, row, run;
	int64_t step;
	size_t k = 0;

	for (; n > 0; i += run, n -= run) {
		row = source_row(v, i, &step, &run);
		if (run > n)
			run = n;
		if (run == 1)
			rows[k++] = row;
		if (k > 0 && (run > 1 || k == NPKI_BATCH || n == 1)) {
			npki_copy_batch(v->g, rows, k, out);
			out += k * row_bytes;
			k = 0;
		}
		if (run > 1 && step == 1)
			npki_copy_range(v->g, row, run, out);
		else if (run > 1)
			npki_copy_step(v->g, row, step, run, out);
		if (run > 1)
			out += run * row_bytes;
	}
}

/* Where cell `cell` of a row lies behind the row's start, and how many cells follow it together. */
static uint64_t cell_at(const struct npk_view *v, uint64_t cell, uint64_t *together)
{
	uint64_t at = 0, run;
	int64_t step;

	*together = 1;
	for (unsigned i = v->naxes - 1; i >= 1; i--) {
		uint64_t len = v->info.shape.dim[i], pos = npki_axis_at(&v->axis[i].at, cell % len, &step, &run);

		if (i == v->naxes - 1)
			*together = step == 1 ? run : 1;
		at += pos * v->axis[i].stride;
		cell /= len;
	}
	return at;
}

/* Up to `len` bytes of selected row `i` from byte `off` of its selected form on; cells may be cut at both ends. */
static void copy_within_row(const struct npk_view *v, uint64_t i, uint64_t off, uint64_t len, uint8_t *out)
{
	const uint8_t *row = row_at(v, i);

	while (len > 0) {
		uint64_t cell = off / v->cell_bytes, skip = off % v->cell_bytes, together = 1, n;
		const uint8_t *from = row + skip;

		if (v->naxes > 1)
			from += cell_at(v, cell, &together);
		n = together * v->cell_bytes - skip;
		if (n > len)
			n = len;
		memcpy(out, from, n);
		out += n;
		off += n;
		len -= n;
	}
}

struct view_read {
	const struct npk_view *v;
	uint64_t off;
	uint8_t *out;
	size_t len;
};

/* The piece of a row at either end, the whole rows between. */
static void read_bytes(void *ctx)
{
	struct view_read *r = ctx;
	const struct npk_view *v = r->v;
	uint64_t row_bytes = v->info.row_bytes, off = r->off, len = r->len, n;
	uint8_t *out = r->out;

	while (len > 0) {
		if (off % row_bytes != 0 || len < row_bytes || v->naxes != 1) {
			n = row_bytes - off % row_bytes;
			n = n < len ? n : len;
			copy_within_row(v, off / row_bytes, off % row_bytes, n, out);
		} else {
			n = len / row_bytes * row_bytes;
			copy_rows(v, off / row_bytes, n / row_bytes, out);
		}
		out += n;
		off += n;
		len -= n;
	}
}

int npk_view_read(struct npk_view *v, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	struct view_read r = {v, off, buf, len};
	int rc;

	if (off > v->info.bytes || len > v->info.bytes - off)
		return npk_fail(err, EINVAL, "view: bytes %" PRIu64 " + %zu of %" PRIu64, off, len, v->info.bytes);
	if (len == 0)
		return 0;
	rc = npk_gen_map(v->g, err);
	if (rc == 0 && npki_guarded(read_bytes, &r) != 0)
		rc = npki_shrank(v->g, err);
	return rc;
}

/* Of slots [first, last] from byte `skip` of the first on, to byte `end` of the last; `whole`: the page that is cut at the end
 * too. */
static void let_go(const struct npk_gen *g, uint64_t first, uint64_t skip, uint64_t last, uint64_t end, bool whole)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	for (size_t i = npki_segment_of(g, first); i < g->nsegs && g->seg[i].first <= last; i++) {
		const struct npki_seg *s = &g->seg[i];
		uint64_t stop = s->first + s->nslots - 1;
		uintptr_t base = (uintptr_t)s->base, from = base, to = base + s->nslots * g->info.row_bytes;

		if (first > s->first)
			from = base + (first - s->first) * g->info.row_bytes;
		if (first >= s->first)
			from += skip;
		if (last <= stop)
			to = base + (last - s->first) * g->info.row_bytes + end;
		to += whole || last > stop ? page - 1 : 0;
		from &= -page;
		to &= -page;
		if (to > from)
			madvise((void *)from, to - from, MADV_DONTNEED); /* a hint */
	}
}

void npk_view_let_go(struct npk_view *v, uint64_t off, uint64_t len)
{
	uint64_t row_bytes = v->info.row_bytes, first = 0, last = 0, skip, end, run;
	int64_t step;

	if (!atomic_load_explicit(&v->g->mapped, memory_order_acquire) || len == 0 || off >= v->info.bytes)
		return;
	if (len > v->info.bytes - off)
		len = v->info.bytes - off;
	skip = off % row_bytes;
	end = (off + len - 1) % row_bytes + 1;
	if (v->naxes > 0) {
		first = npk_gen_slot(v->g, source_row(v, off / row_bytes, &step, &run));
		last = npk_gen_slot(v->g, source_row(v, (off + len - 1) / row_bytes, &step, &run));
	}
	if (v->naxes > 1 || last < first) { /* bytes of the selection are not those of a row: whole rows */
		skip = 0;
		end = v->g->info.row_bytes;
	}
	if (last < first)
		let_go(v->g, last, skip, first, end, true);
	else
		let_go(v->g, first, skip, last, end, off + len == v->info.bytes);
}

size_t npk_view_borrow(struct npk_view *v, uint64_t off, const void **out)
{
	uint64_t row_bytes = v->info.row_bytes, row, slot, run, live, together, skip;
	const uint8_t *p;
	int64_t step;

	if (off >= v->info.bytes || v->naxes > 1 || npk_gen_map(v->g, NULL) != 0)
		return 0;
	if (v->naxes == 0) {
		*out = row_at(v, 0) + off;
		return (size_t)(v->info.bytes - off);
	}
	skip = off % row_bytes;
	row = source_row(v, off / row_bytes, &step, &run);
	slot = npk_gen_slot(v->g, row);
	if (step != 1)
		run = 1;
	if (run > BORROW_MAX / row_bytes + 1)
		run = BORROW_MAX / row_bytes + 1;
	if (v->g->live && npki_rowmap_run(v->g->live, &slot, run, &live))
		run = live;
	p = npki_slot_at(v->g, slot, &together);
	if (together < run)
		run = together;
	*out = p + skip;
	return (size_t)(run * row_bytes - skip);
}

void npki_view_locate(struct npk_view *v, uint64_t off, uint64_t *slot, uint64_t *in_slot, uint64_t *together)
{
	uint64_t row_bytes = v->info.row_bytes, in_row = off % row_bytes, cell, skip, run = 1, live, cells = 1, row;
	const struct npki_seg *seg;
	int64_t step = 1;

	row = v->naxes ? source_row(v, off / row_bytes, &step, &run) : 0;
	*slot = npk_gen_slot(v->g, row);
	if (v->naxes > 1) {
		cell = in_row / v->cell_bytes;
		skip = in_row % v->cell_bytes;
		*in_slot = cell_at(v, cell, &cells) + skip;
		*together = cells * v->cell_bytes - skip;
		if (*together > row_bytes - in_row)
			*together = row_bytes - in_row;
		return;
	}
	if (step != 1)
		run = 1;
	if (run > BORROW_MAX / row_bytes + 1)
		run = BORROW_MAX / row_bytes + 1;
	if (v->g->live && npki_rowmap_run(v->g->live, slot, run, &live))
		run = live;
	seg = &v->g->seg[npki_segment_of(v->g, *slot)];
	if (run > seg->first + seg->nslots - *slot)
		run = seg->first + seg->nslots - *slot;
	*in_slot = in_row;
	*together = run * row_bytes - in_row;
}
