/* fuzz_selection.c - any text as a selection, bound to axes of several lengths. Each position it gives is the one that
 * Python's rules give, worked out one by one; a text written from what was understood is understood the same. */
#include "fuzz.h"

#include "sel.h"

#include <errno.h>

#define EXPAND_MAX 96
#define ITEMS_MAX 24 /* longer lists are parsed and written only */

/* Axes are this long; the short ones are compared position by position. */
static const uint64_t lengths[] = {0, 1, 7, 64, INT64_MAX};

/* The positions of one item by Python's rules; false for an integer out of range. */
static bool expand_item(const struct npki_item *t, int64_t len, int64_t *out, size_t *n)
{
	__int128 start = t->start, stop = t->stop, low = t->step < 0 ? -1 : 0, high = t->step < 0 ? len - 1 : len;

	if (!t->is_slice) {
		start += start < 0 ? len : 0;
		if (start < 0 || start >= len)
			return false;
		if (*n < EXPAND_MAX)
			out[(*n)++] = (int64_t)start;
		return true;
	}
	start += t->has_start && start < 0 ? len : 0;
	stop += t->has_stop && stop < 0 ? len : 0;
	start = start < low ? low : start > high ? high : start;
	stop = stop < low ? low : stop > high ? high : stop;
	if (!t->has_start)
		start = t->step < 0 ? high : low;
	if (!t->has_stop)
		stop = t->step < 0 ? low : high;
	for (__int128 i = start; (t->step < 0 ? i > stop : i < stop) && *n < EXPAND_MAX; i += t->step)
		out[(*n)++] = (int64_t)i;
	return true;
}

/* The first positions of a part; false when it must be out of range. */
static bool expand(const struct npki_part *p, int64_t len, int64_t *out, size_t *n)
{
	struct npki_item everything = {.is_slice = true, .step = 1};

	*n = 0;
	if (p->all)
		return expand_item(&everything, len, out, n);
	for (size_t i = 0; i < p->nitems; i++)
		if (!expand_item(&p->item[i], len, out, n))
			return false;
	return true;
}

static void check_positions(const struct npki_axis *a, uint64_t len, const int64_t *want, size_t n)
{
	uint64_t run, last;
	int64_t step;

	CHECK(n < EXPAND_MAX ? a->len == n : a->len >= n);
	CHECK(!a->full || a->len == len);
	for (size_t i = 0; i < n; i++) {
		CHECK(npki_axis_at(a, i, &step, &run) == (uint64_t)want[i]);
		CHECK(run >= 1 && run <= a->len - i);
		if (run > 1 && i + 1 < n)
			CHECK(want[i + 1] == want[i] + step);
	}
	if (a->len > 0) {
		last = npki_axis_at(a, a->len - 1, &step, &run);
		CHECK(last < len && run == 1);
	}
}

static void check_part(const struct npki_part *p)
{
	int64_t want[EXPAND_MAX];
	struct npk_err err;
	size_t n;

	CHECK(p->all + (p->mask != NULL) + (p->nitems > 0) == 1);
	if (p->mask) {
		CHECK(p->mask[p->mask_len] == 0);
		return;
	}
	if (p->nitems > ITEMS_MAX)
		return;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		struct npki_axis a = {0};
		bool fits = expand(p, (int64_t)lengths[i], want, &n);
		int rc = npki_axis_bind(&a, p, 3, lengths[i], &err);

		if (rc == 0) {
			CHECK(fits);
			check_positions(&a, lengths[i], want, n);
		} else {
			CHECK(rc == -ERANGE ? !fits : rc == -EINVAL && lengths[i] == INT64_MAX);
			check_err(rc, &err);
		}
		npki_axis_fini(&a);
	}
}

static void write_item(struct npk_text *t, const struct npki_item *item)
{
	if (item->has_start)
		npk_text_printf(t, "%" PRId64, item->start);
	if (!item->is_slice)
		return;
	npk_text_printf(t, ":");
	if (item->has_stop)
		npk_text_printf(t, "%" PRId64, item->stop);
	npk_text_printf(t, ":%" PRId64, item->step);
}

static void write_mask(struct npk_text *t, const struct npki_part *p)
{
	npk_text_printf(t, "mask=\"");
	for (size_t i = 0; i < p->mask_len; i++) {
		if (p->mask[i] == '"' || p->mask[i] == '\\')
			npk_text_add(t, "\\", 1);
		npk_text_add(t, p->mask + i, 1);
	}
	npk_text_add(t, "\"", 1);
}

static void write_sel(struct npk_text *t, const struct npki_sel *s)
{
	for (unsigned k = 0; k < s->nparts; k++) {
		const struct npki_part *p = &s->part[k];

		npk_text_add(t, k ? ";" : "", k > 0);
		if (p->all)
			npk_text_add(t, "all", 3);
		if (p->mask)
			write_mask(t, p);
		for (size_t i = 0; i < p->nitems; i++) {
			npk_text_add(t, i ? "+" : "", i > 0);
			write_item(t, &p->item[i]);
		}
	}
}

static bool same_item(const struct npki_item *a, const struct npki_item *b)
{
	return a->is_slice == b->is_slice && a->has_start == b->has_start && a->has_stop == b->has_stop &&
	       a->start == b->start && a->stop == b->stop && a->step == b->step;
}

static void check_same(const struct npki_sel *a, const struct npki_sel *b)
{
	CHECK(a->nparts == b->nparts);
	for (unsigned k = 0; k < a->nparts; k++) {
		const struct npki_part *p = &a->part[k], *q = &b->part[k];

		CHECK(p->all == q->all && !p->mask == !q->mask && p->nitems == q->nitems);
		CHECK(!p->mask || (p->mask_len == q->mask_len && memcmp(p->mask, q->mask, p->mask_len) == 0));
		for (size_t i = 0; i < p->nitems; i++)
			CHECK(same_item(&p->item[i], &q->item[i]));
	}
}

static void check_round_trip(const struct npki_sel *s)
{
	struct npki_sel again = {0};
	struct npk_text t = {0};
	struct npk_err err;

	write_sel(&t, s);
	CHECK(!t.bad);
	CHECK(npki_sel_parse(t.p ? t.p : "", t.len, &again, &err) == 0);
	check_same(s, &again);
	npki_sel_fini(&again);
	npk_text_fini(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct npki_sel s = {0};
	struct npk_err err;
	int rc = npki_sel_parse((const char *)data, size, &s, &err);

	if (rc != 0) {
		CHECK(rc == -EINVAL && s.nparts == 0);
		check_err(rc, &err);
		return 0;
	}
	CHECK(s.nparts <= NPK_MAX_NDIM);
	for (unsigned k = 0; k < s.nparts && k < 4; k++)
		check_part(&s.part[k]);
	check_round_trip(&s);
	npki_sel_fini(&s);
	return 0;
}
