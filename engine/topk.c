/* topk.c - the k best rows of each query. A kernel scan reports rows that may be good enough, npkv_pair() gives each its
 * score, and a heap keeps the k best with the worst of them on top: that one is the limit of the next scan. */
#include "search.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_STEP 64
#define STEP_BYTES ((size_t)2 << 20)
#define CONVERT_BYTES ((size_t)256 << 10) /* of converted rows at a time: they stay in the cache */
#define HITS_MIN 4096
#define PLAN_LOOK 65536 /* pairs after which the plan is judged */
#define PLAN_SHARE 16   /* false alarms among them, one in so many, that make the narrow plan pay */
#define SIZE_LIMIT ((size_t)1 << 40)

static void *aligned(size_t bytes)
{
	return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
}

static bool has_nan(const struct npki_query *q)
{
	const uint8_t *p = q->vectors;

	for (size_t i = 0; i < q->nq * q->dim; i++) {
		uint16_t h;
		float f;
		double d;

		switch (q->kind.dtype) {
		case NPKV_F16:
			memcpy(&h, p + 2 * i, 2);
			if ((h & 0x7FFF) > 0x7C00)
				return true;
			break;
		case NPKV_F32:
			memcpy(&f, p + 4 * i, 4);
			if (isnan(f))
				return true;
			break;
		case NPKV_F64:
			memcpy(&d, p + 8 * i, 8);
			if (isnan(d))
				return true;
			break;
		default:
			return false;
		}
	}
	return false;
}

int npki_query_plan(struct npki_query *q, struct npk_err *err)
{
	const struct npki_kind *k = &q->kind;

	if (npkv_plan_init(&q->plan[0], k->ops, k->metric, k->dtype, q->dim, q->nq) != 0 ||
		npkv_plan_init_narrow(&q->plan[1], k->ops, k->metric, k->dtype, q->dim, q->nq) != 0)
		return npk_fail(err, E2BIG, "search: %zu queries of %zu elements are too many", q->nq, q->dim);
	q->nplans = k->dtype <= NPKV_F64 && q->plan[1].kind != q->plan[0].kind ? 2 : 1;
	for (unsigned i = 0; i < q->nplans; i++) {
		q->pack[i] = aligned(q->plan[i].pack_bytes);
		if (!q->pack[i])
			return npk_fail(err, ENOMEM, "search: no memory for the queries");
		npkv_pack(&q->plan[i], q->vectors, q->row_bytes, q->pack[i]);
	}
	return 0;
}

int npki_query_init(struct npki_query *out, const struct npk_queries *q, enum npk_metric m, struct npk_err *err)
{
	struct npki_query r = {.nq = q->nq, .dim = (size_t)q->dim};
	size_t bytes;
	int rc = npki_kind(m, q->dtype, &r.kind, err);

	if (rc != 0)
		return rc;
	if (q->nq == 0)
		return npk_fail(err, EINVAL, "search: no query");
	if (__builtin_mul_overflow(r.dim, npkv_dtype_bytes(r.kind.dtype), &r.row_bytes) ||
		__builtin_mul_overflow(r.row_bytes, q->nq, &bytes) || bytes > SIZE_LIMIT)
		return npk_fail(err, E2BIG, "search: %zu queries of %zu elements are too many", q->nq, r.dim);
	r.vectors = aligned(bytes);
	if (!r.vectors)
		return npk_fail(err, ENOMEM, "search: no memory for the queries");
	npki_convert(&r.kind, q->data, q->nq * r.dim, r.vectors);
	if (has_nan(&r)) {
		npki_query_fini(&r);
		return npk_fail(err, EINVAL, "search: a query has a NaN");
	}
	*out = r;
	return 0;
}

void npki_query_fini(struct npki_query *q)
{
	free(q->vectors);
	free(q->pack[0]);
	free(q->pack[1]);
	*q = (struct npki_query){0};
}

/* The order of results: NaN behind everything, better scores first, then lower rows. */
static bool is_better(const struct npki_topk *t, const struct npki_candidate *a, const struct npki_candidate *b)
{
	bool high = npkv_is_similarity(t->q->kind.metric);

	if (isnan(a->score) || isnan(b->score))
		return isnan(a->score) == isnan(b->score) ? a->row < b->row : isnan(b->score);
	if (a->score != b->score)
		return high ? a->score > b->score : a->score < b->score;
	return a->row < b->row;
}

/* Lets heap[i] sink below those that are worse: the worst one is at the top. */
static void sink(const struct npki_topk *t, struct npki_candidate *heap, size_t n, size_t i)
{
	struct npki_candidate c = heap[i];
	size_t child;

	for (; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && is_better(t, &heap[child], &heap[child + 1]))
			child++;
		if (is_better(t, &heap[child], &c))
			break;
		heap[i] = heap[child];
	}
	heap[i] = c;
}

static void rise(const struct npki_topk *t, struct npki_candidate *heap, size_t i)
{
	struct npki_candidate c = heap[i];

	for (; i > 0 && is_better(t, &heap[(i - 1) / 2], &c); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = c;
}

/* Whether the list changed. */
static bool push(
	const struct npki_topk *t, struct npki_list *l, struct npki_candidate *heap, const struct npki_candidate *c)
{
	if (l->n < t->k) {
		heap[l->n] = *c;
		rise(t, heap, l->n++);
		return true;
	}
	if (!is_better(t, c, &heap[0]))
		return false;
	heap[0] = *c;
	sink(t, heap, l->n, 0);
	return true;
}

/* Bytes of a work area; false when they overflow. */
static bool size_of(const struct npki_topk *t, size_t *items, size_t *bytes)
{
	const struct npki_query *q = t->q;
	size_t lists, hits;

	if (__builtin_mul_overflow(q->nq, t->k, items) ||
		__builtin_mul_overflow(*items, sizeof(struct npki_candidate), bytes) ||
		__builtin_mul_overflow(q->nq, sizeof(struct npki_list), &lists) ||
		__builtin_mul_overflow(t->hits_cap, sizeof(struct npkv_hit), &hits))
		return false;
	for (unsigned i = 0; i < q->nplans; i++)
		if (__builtin_add_overflow(*bytes, q->plan[i].work_bytes, bytes))
			return false;
	return !__builtin_add_overflow(*bytes, lists, bytes) && !__builtin_add_overflow(*bytes, hits, bytes);
}

static bool allocate(struct npki_topk *t, size_t items)
{
	const struct npki_query *q = t->q;

	t->list = malloc(q->nq * sizeof(*t->list));
	t->item = malloc(items * sizeof(*t->item));
	t->hits = malloc(t->hits_cap * sizeof(*t->hits));
	if (q->kind.convert)
		t->converted = aligned(t->converted_rows * q->row_bytes);
	for (unsigned i = 0; i < q->nplans; i++) {
		t->work[i] = aligned(q->plan[i].work_bytes);
		if (!t->work[i])
			return false;
	}
	return t->list && t->item && t->hits && (t->converted || !q->kind.convert);
}

int npki_topk_init(
	struct npki_topk *t, const struct npki_query *q, size_t k, bool ordered, unsigned threads, struct npk_err *err)
{
	size_t items, bytes;

	*t = (struct npki_topk){.q = q, .k = k, .ordered = ordered, .step = FIRST_STEP, .hits_cap = HITS_MIN};
	for (unsigned i = 0; i < q->nplans; i++)
		if (t->hits_cap < q->plan[i].hits_min)
			t->hits_cap = q->plan[i].hits_min;
	t->converted_rows = CONVERT_BYTES / (q->row_bytes ? q->row_bytes : 1) + 1;
	if (!size_of(t, &items, &bytes) || bytes > SIZE_LIMIT / threads) {
		*t = (struct npki_topk){0};
		return npk_fail(err, E2BIG, "search: %zu results for each of %zu queries are too many", k, q->nq);
	}
	if (!allocate(t, items)) {
		npki_topk_fini(t);
		return npk_fail(err, ENOMEM, "search: no memory for %zu results for each of %zu queries", k, q->nq);
	}
	for (size_t i = 0; i < q->nq; i++)
		t->list[i] = (struct npki_list){.limit = (double)NAN};
	for (unsigned i = 0; i < q->nplans; i++)
		npkv_work_init(&q->plan[i], q->pack[i], t->work[i]);
	return 0;
}

void npki_topk_fini(struct npki_topk *t)
{
	free(t->list);
	free(t->item);
	free(t->hits);
	free(t->work[0]);
	free(t->work[1]);
	free(t->converted);
	*t = (struct npki_topk){0};
}

/* Tells the kernels what a full list still wants. */
static void set_limit(struct npki_topk *t, size_t query)
{
	struct npki_list *l = &t->list[query];

	if (l->n < t->k)
		return;
	l->limit = t->item[query * t->k].score;
	npkv_limit(&t->q->plan[t->plan], t->q->pack[t->plan], t->work[t->plan], query, l->limit, !t->ordered);
}

/* When many rows are reported that are worse than the limit said, the narrow plan pays. */
static void choose_plan(struct npki_topk *t)
{
	if (t->plan + 1 == t->q->nplans || t->seen < PLAN_LOOK)
		return;
	if (t->false_alarms >= t->seen / PLAN_SHARE) {
		t->plan++;
		for (size_t i = 0; i < t->q->nq; i++)
			set_limit(t, i);
	}
	t->seen = t->false_alarms = 0;
}

static bool is_worse(const struct npki_topk *t, double score, double limit)
{
	return npkv_is_similarity(t->q->kind.metric) ? score < limit : score > limit;
}

/* Scores the rows that a scan reported. */
static void take_hits(
	struct npki_topk *t, size_t n, const uint8_t *rows, size_t stride, uint64_t at, npki_row_fn *row_of, void *ctx)
{
	const struct npki_query *q = t->q;
	struct npki_candidate c;
	struct npki_list *l;
	size_t changed = 0;

	for (size_t i = 0; i < n; i++) {
		struct npkv_hit h = t->hits[i];

		if (!row_of(ctx, at + h.row, &c.row))
			continue;
		c.score = npkv_pair(q->kind.ops, q->kind.metric, q->kind.dtype, q->vectors + h.query * q->row_bytes,
			rows + h.row * stride, q->dim);
		l = &t->list[h.query];
		if (!push(t, l, t->item + h.query * t->k, &c)) {
			t->false_alarms += is_worse(t, c.score, l->limit);
		} else if (!l->changed) {
			l->changed = true;
			t->hits[changed++].query = h.query; /* this far the hits are used up */
		}
	}
	for (size_t i = 0; i < changed; i++) {
		set_limit(t, t->hits[i].query);
		t->list[t->hits[i].query].changed = false;
	}
}

/* Rows in the kernels' form; the first of them is at position `at` of the block. */
static void scan(struct npki_topk *t, const uint8_t *rows, size_t stride, size_t nrows, uint64_t at,
	npki_row_fn *row_of, void *ctx)
{
	size_t most = STEP_BYTES / (stride ? stride : 1) + FIRST_STEP, nhits, done;

	for (; nrows > 0; nrows -= done, rows += done * stride, at += done) {
		done = npkv_scan(&t->q->plan[t->plan], t->q->pack[t->plan], t->work[t->plan], rows, stride,
			nrows < t->step ? nrows : t->step, t->hits, t->hits_cap, &nhits);
		take_hits(t, nhits, rows, stride, at, row_of, ctx);
		t->seen += done * t->q->nq;
		choose_plan(t);
		if (t->step < most)
			t->step *= 2;
	}
}

void npki_topk_feed(
	struct npki_topk *t, const uint8_t *rows, size_t stride, size_t nrows, npki_row_fn *row_of, void *ctx)
{
	const struct npki_query *q = t->q;

	if (!t->converted) {
		scan(t, rows, stride, nrows, 0, row_of, ctx);
		return;
	}
	for (size_t at = 0, n; at < nrows; at += n) {
		n = nrows - at < t->converted_rows ? nrows - at : t->converted_rows;
		for (size_t i = 0; i < n; i++)
			npki_convert(&q->kind, rows + (at + i) * stride, q->dim, t->converted + i * q->row_bytes);
		scan(t, t->converted, q->row_bytes, n, at, row_of, ctx);
	}
}

void npki_topk_merge(struct npki_topk *t, const struct npki_topk *other)
{
	for (size_t i = 0; i < t->q->nq; i++)
		for (size_t j = 0; j < other->list[i].n; j++)
			push(t, &t->list[i], t->item + i * t->k, &other->item[i * t->k + j]);
}

int npki_topk_result(struct npki_topk *t, struct npk_hits *out, struct npk_err *err)
{
	struct npk_hits h = {.nq = t->q->nq, .k = t->list[0].n};
	size_t n = h.nq * h.k;

	h.row = malloc((n ? n : 1) * sizeof(*h.row));
	h.score = malloc((n ? n : 1) * sizeof(*h.score));
	if (!h.row || !h.score) {
		npk_hits_fini(&h);
		return npk_fail(err, ENOMEM, "search: no memory for the result");
	}
	for (size_t i = 0; i < h.nq; i++) {
		struct npki_candidate *heap = t->item + i * t->k;

		for (size_t left = h.k; left > 0; left--) { /* the worst one first, to the end */
			h.row[i * h.k + left - 1] = heap[0].row;
			h.score[i * h.k + left - 1] = heap[0].score;
			heap[0] = heap[left - 1];
			sink(t, heap, left - 1, 0);
		}
	}
	*out = h;
	return 0;
}

void npk_hits_fini(struct npk_hits *h)
{
	if (!h)
		return;
	free(h->row);
	free(h->score);
	*h = (struct npk_hits){0};
}
