/* sel.c - see sel.h. */
#include "sel.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	const char *start, *p, *end;
	struct npk_err *err;
};

static int fail_at(const struct reader *r, const char *want)
{
	char shown[NPKI_SHOW_MAX];

	if (r->p == r->end)
		return npk_fail(r->err, EINVAL, "selection: %s is missing at its end", want);
	return npk_fail(r->err, EINVAL, "selection: byte %zu: '%s' is not %s", (size_t)(r->p - r->start),
		npki_show(shown, r->p, (size_t)(r->end - r->p)), want);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(struct reader *r)
{
	while (r->p < r->end && is_blank(*r->p))
		r->p++;
}

static bool ends_part(const struct reader *r)
{
	return r->p == r->end || *r->p == ';' || *r->p == '@';
}

static bool take_word(struct reader *r, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
		return false;
	r->p += n;
	return true;
}

/* An integer if one is there: *has tells. */
static int take_int(struct reader *r, int64_t *out, bool *has)
{
	bool negative = r->p < r->end && *r->p == '-';
	const char *from;
	int64_t v = 0;

	*has = false;
	if (r->p < r->end && (*r->p == '-'))
		r->p++;
	for (from = r->p; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *r->p - '0', &v))
			return fail_at(r, "a number below 2^63");
	if (r->p == from)
		return negative ? fail_at(r, "a number") : 0;
	*has = true;
	*out = negative ? -v : v;
	return 0;
}

static int take_item(struct reader *r, struct npki_item *item)
{
	bool has;
	int rc;

	*item = (struct npki_item){.step = 1};
	rc = take_int(r, &item->start, &item->has_start);
	if (rc != 0)
		return rc;
	if (r->p == r->end || *r->p != ':')
		return item->has_start ? 0 : fail_at(r, "a row, a slice, 'all' or 'mask='");
	r->p++;
	item->is_slice = true;
	rc = take_int(r, &item->stop, &item->has_stop);
	if (rc == 0 && r->p < r->end && *r->p == ':') {
		r->p++;
		rc = take_int(r, &item->step, &has);
		if (rc == 0 && item->step == 0)
			rc = npk_fail(r->err, EINVAL, "selection: byte %zu: a step of 0", (size_t)(r->p - r->start));
	}
	return rc;
}

static int add_item(struct reader *r, struct npki_part *p, const struct npki_item *item)
{
	struct npki_item *more;

	if ((p->nitems & (p->nitems - 1)) == 0) { /* room doubles at every power of two */
		more = realloc(p->item, (p->nitems ? 2 * p->nitems : 1) * sizeof(*more));
		if (!more)
			return npk_fail(r->err, ENOMEM, "selection: no memory");
		p->item = more;
	}
	p->item[p->nitems++] = *item;
	return 0;
}

static int take_items(struct reader *r, struct npki_part *p)
{
	struct npki_item item;
	bool again = true;
	int rc = 0;

	for (skip_blanks(r); rc == 0 && again;) {
		const char *gap;

		rc = take_item(r, &item);
		if (rc == 0)
			rc = add_item(r, p, &item);
		gap = r->p;
		skip_blanks(r);
		again = r->p > gap && !ends_part(r);
		if (r->p < r->end && (*r->p == ',' || *r->p == '+')) {
			r->p++;
			skip_blanks(r);
			again = true;
		}
	}
	return rc;
}

/* The name of a mask array, quoted when it holds what would end it. */
static int take_mask(struct reader *r, struct npki_part *p)
{
	bool quoted = r->p < r->end && *r->p == '"';
	size_t n = 0;

	p->mask = malloc((size_t)(r->end - r->p) + 1);
	if (!p->mask)
		return npk_fail(r->err, ENOMEM, "selection: no memory");
	r->p += quoted;
	while (quoted ? r->p < r->end && *r->p != '"' : !ends_part(r)) {
		if (quoted && *r->p == '\\' && r->p + 1 < r->end)
			r->p++;
		p->mask[n++] = *r->p++;
	}
	p->mask[n] = 0;
	p->mask_len = n;
	if (quoted && r->p == r->end)
		return fail_at(r, "'\"'");
	r->p += quoted;
	return 0;
}

static int take_part(struct reader *r, struct npki_part *p)
{
	int rc = 0;

	skip_blanks(r);
	if (take_word(r, "mask="))
		rc = take_mask(r, p);
	else if (take_word(r, "all"))
		p->all = true;
	else
		rc = take_items(r, p);
	skip_blanks(r);
	if (rc == 0 && !ends_part(r))
		rc = fail_at(r, "',', '+', ';' or the end");
	return rc;
}

int npki_sel_parse(const char *text, size_t len, struct npki_sel *out, struct npk_err *err)
{
	struct reader r = {text, text, text + len, err};
	struct npki_sel s = {0};
	bool again = true;
	int rc = 0;

	skip_blanks(&r);
	if (r.p == r.end) { /* nothing said: everything */
		*out = s;
		return 0;
	}
	while (rc == 0 && again) {
		if (s.nparts == NPK_MAX_NDIM) {
			rc = npk_fail(err, EINVAL, "selection: more than %d parts", NPK_MAX_NDIM);
			break;
		}
		rc = take_part(&r, &s.part[s.nparts++]);
		again = r.p < r.end;
		r.p += rc == 0 && again;
	}
	if (rc != 0)
		npki_sel_fini(&s);
	else
		*out = s;
	return rc;
}

void npki_sel_fini(struct npki_sel *s)
{
	for (unsigned i = 0; i < s->nparts; i++) {
		free(s->part[i].mask);
		free(s->part[i].item);
	}
	s->nparts = 0;
}

/* Where Python's slice.indices() clips a bound: to [lo, hi]. */
static int64_t clip(int64_t v, int64_t len, int64_t lo, int64_t hi)
{
	if (v < 0)
		v = v < -len ? lo : v + len;
	return v < lo ? lo : v > hi ? hi : v;
}

static struct npki_range bind_slice(const struct npki_item *t, int64_t len)
{
	bool back = t->step < 0;
	int64_t lo = back ? -1 : 0, hi = back ? len - 1 : len;
	int64_t start = t->has_start ? clip(t->start, len, lo, hi) : back ? hi : lo;
	int64_t stop = t->has_stop ? clip(t->stop, len, lo, hi) : back ? lo : hi;
	uint64_t dist = back           ? (start > stop ? (uint64_t)(start - stop) : 0)
			: stop > start ? (uint64_t)(stop - start)
				       : 0;
	uint64_t by = back ? -(uint64_t)t->step : (uint64_t)t->step;

	return (struct npki_range){(uint64_t)start, t->step, 0, dist / by + (dist % by != 0)};
}

static int bind_item(
	const struct npki_item *t, unsigned axis, uint64_t len, struct npki_range *out, struct npk_err *err)
{
	int64_t at = t->start < 0 ? t->start + (int64_t)len : t->start;

	if (t->is_slice) {
		*out = bind_slice(t, (int64_t)len);
		return 0;
	}
	if (at < 0 || (uint64_t)at >= len)
		return npk_fail(err, ERANGE, "selection: %" PRId64 " is out of range: axis %u has %" PRIu64, t->start,
			axis, len);
	*out = (struct npki_range){(uint64_t)at, 1, 0, 1};
	return 0;
}

static void bind_all(struct npki_axis *a, uint64_t len)
{
	a->full = true;
	a->len = len;
}

/* Neighbours that go on where the last one ended become one range, and empty ones none. */
static void join(struct npki_axis *a, const struct npki_range *r)
{
	struct npki_range *last = a->nranges ? &a->range[a->nranges - 1] : NULL;

	if (r->count == 0)
		return;
	if (last && last->step == 1 && r->step == 1 && last->first + last->count == r->first)
		last->count += r->count;
	else
		a->range[a->nranges++] = *r;
	a->range[a->nranges - 1].before = a->len - (a->range[a->nranges - 1].count - r->count);
	a->len += r->count;
}

int npki_axis_bind(struct npki_axis *a, const struct npki_part *p, unsigned axis, uint64_t len, struct npk_err *err)
{
	struct npki_range r;
	int rc = 0;

	if (!p || p->all) {
		bind_all(a, len);
		return 0;
	}
	if (p->mask) {
		a->len = a->mask->nlive;
		return 0;
	}
	a->range = malloc(p->nitems * sizeof(*a->range));
	if (!a->range)
		return npk_fail(err, ENOMEM, "selection: no memory");
	for (size_t i = 0; i < p->nitems && rc == 0; i++) {
		rc = bind_item(&p->item[i], axis, len, &r, err);
		if (rc == 0 && a->len > INT64_MAX - r.count)
			rc = npk_fail(err, EINVAL, "selection: axis %u has too many positions", axis);
		if (rc == 0)
			join(a, &r);
	}
	if (rc == 0 && a->nranges == 1 && a->range[0].first == 0 && a->range[0].step == 1 && a->len == len)
		a->full = true;
	return rc;
}

void npki_axis_fini(struct npki_axis *a)
{
	free(a->range);
	npki_rowmap_put(a->mask);
	*a = (struct npki_axis){0};
}

uint64_t npki_axis_at(const struct npki_axis *a, uint64_t i, int64_t *step, uint64_t *run)
{
	size_t lo = 0, hi = a->nranges, mid;
	const struct npki_range *r;
	uint64_t slot;

	*step = 1;
	if (a->full) {
		*run = a->len - i;
		return i;
	}
	if (a->mask) {
		slot = npki_rowmap_select(a->mask, i);
		npki_rowmap_run(a->mask, &slot, a->len - i, run);
		return slot;
	}
	while (hi - lo > 1) {
		mid = lo + (hi - lo) / 2;
		if (a->range[mid].before <= i)
			lo = mid;
		else
			hi = mid;
	}
	r = &a->range[lo];
	*step = r->step;
	*run = r->count - (i - r->before);
	return r->first + (uint64_t)r->step * (i - r->before);
}
