/* drop.c - the rows that are to be deleted, as runs of slots. */
#include "change.h"
#include "sel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int add_run(struct npki_runs *r, uint64_t slot, uint64_t n)
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
static int add_rows(struct npki_runs *r, const struct npk_gen *g, uint64_t first, uint64_t n)
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

static bool is_ascending(const struct npki_runs *r)
{
	for (size_t i = 1; i < r->n; i++)
		if (r->run[i].slot < r->run[i - 1].slot)
			return false;
	return true;
}

/* Ascending, disjoint; returns the number of slots. */
static uint64_t normalize(struct npki_runs *r)
{
	uint64_t total = 0, stop = 0;
	size_t n = 0;

	if (!is_ascending(r))
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

static int select_runs(struct npki_runs *r, struct npk_gen *g, const char *text, struct npk_err *err)
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

int npki_runs_of_sel(struct npki_runs *r, struct npk_gen *g, const char *sel, uint64_t *total, struct npk_err *err)
{
	int rc = select_runs(r, g, sel, err);

	if (rc == 0)
		*total = normalize(r);
	return rc;
}

int npki_runs_of_rows(struct npki_runs *r, const struct npk_gen *g, const int64_t *rows, size_t n, uint64_t *total,
	struct npk_err *err)
{
	uint64_t row = 0;
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = npki_resolve(g, rows[i], &row, err);
		if (rc == 0 && add_run(r, npk_gen_slot(g, row), 1) != 0)
			rc = npk_fail(err, ENOMEM, "drop: no memory");
	}
	if (rc == 0)
		*total = normalize(r);
	return rc;
}
