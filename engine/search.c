/* search.c - rows of a generation to the kernels, in one pass for all queries, by several threads.
 *
 * The rows to search are numbered by *position*; threads take blocks of positions in turn. Within a block, runs of
 * consecutive rows are scanned where they lie: if few slots between them are deleted, these are scanned too and their
 * hits thrown away, else the live rows are gathered first. Rows that do not follow one another are gathered always.
 * Data that is not in memory yet is asked for one round of blocks ahead. */
#include "search.h"
#include "cpu.h"
#include "guard.h"
#include "rows.h"
#include "sel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_BYTES ((uint64_t)4 << 20)  /* of rows that a thread takes at once, at most */
#define BLOCK_WORK ((uint64_t)256 << 20) /* the same times the queries: some tenths of a second */
#define BLOCK_LEAST ((uint64_t)1 << 20)  /* times the queries: what starting a thread for it is worth */
#define BLOCK_ROWS 256                   /* and so many more, */
#define BLOCK_ROWS_FEW 64                /* so many where all of these are too much work */
#define BLOCKS_EACH 16                   /* a thread takes so many at least, so that all end together */
#define GATHER_BYTES ((uint64_t)256 << 10)
#define GATHER_ROWS 4096
#define SHORT_RUN 32 /* rows that follow one another, but too few to be worth a scan of their own */
#define THREADS_MAX 64

struct search {
	struct npk_gen *g;
	struct npki_query q;
	struct npki_axis axis; /* positions -> rows */
	uint64_t block;        /* positions */
	unsigned threads;
	_Atomic uint64_t next; /* position that nobody has taken yet */
	_Atomic uint64_t done;
	_Atomic int rc; /* the first error of a thread */
	const struct npk_search *how;
};

struct worker {
	struct search *s;
	struct npki_topk topk;
	uint8_t *gathered; /* rows that were put together */
	uint64_t gather_rows;
	uint64_t listed[GATHER_ROWS]; /* rows that wait to be, when no rule gives them */
	size_t nlisted;
	uint64_t from, to; /* positions at work */
	pthread_t thread;
	bool is_caller;
};

/* --- which row a hit is ----------------------------------------------------------------------------------------------- */

struct slot_block {
	const struct npk_gen *g;
	uint64_t first; /* slot of position 0 of the block */
};

static bool row_of_slot(void *ctx, uint64_t at, uint64_t *row)
{
	const struct slot_block *b = ctx;

	return npk_gen_row(b->g, b->first + at, row);
}

struct row_block {
	uint64_t first;
	int64_t step;
};

static bool row_of_step(void *ctx, uint64_t at, uint64_t *row)
{
	const struct row_block *b = ctx;

	*row = b->first + (uint64_t)b->step * at;
	return true;
}

static bool row_of_list(void *ctx, uint64_t at, uint64_t *row)
{
	*row = ((const uint64_t *)ctx)[at];
	return true;
}

/* --- feeding ---------------------------------------------------------------------------------------------------------- */

static void feed_slots(struct worker *w, uint64_t slot, uint64_t n)
{
	struct slot_block b = {w->s->g, slot};
	uint64_t together;

	for (; n > 0; b.first += together, n -= together) {
		const uint8_t *rows = npki_slot_at(b.g, b.first, &together);

		if (together > n)
			together = n;
		npki_topk_feed(&w->topk, rows, b.g->info.row_bytes, together, row_of_slot, &b);
	}
}

static void feed_gathered(struct worker *w, uint64_t row, int64_t step, uint64_t n)
{
	struct row_block b = {row, step};

	for (; n > 0; n -= w->gather_rows) {
		uint64_t k = n < w->gather_rows ? n : w->gather_rows;

		if (step == 1)
			npki_copy_range(w->s->g, b.first, k, w->gathered);
		else
			npki_copy_step(w->s->g, b.first, step, k, w->gathered);
		npki_topk_feed(&w->topk, w->gathered, w->s->g->info.row_bytes, k, row_of_step, &b);
		b.first += (uint64_t)step * k;
		if (k == n)
			break;
	}
}

/* Rows [row, row + n): where they lie when most slots between the first and the last are live. */
static void feed_range(struct worker *w, uint64_t row, uint64_t n)
{
	uint64_t first = npk_gen_slot(w->s->g, row), last = npk_gen_slot(w->s->g, row + n - 1);

	if (last - first + 1 <= 2 * n)
		feed_slots(w, first, last - first + 1);
	else
		feed_gathered(w, row, 1, n);
}

static void feed_listed(struct worker *w)
{
	uint64_t rows[NPKI_BATCH];
	uint8_t *to = w->gathered;

	for (size_t i = 0, n; i < w->nlisted; i += n) {
		n = w->nlisted - i < NPKI_BATCH ? w->nlisted - i : NPKI_BATCH;
		memcpy(rows, w->listed + i, n * sizeof(rows[0]));
		npki_copy_batch(w->s->g, rows, n, to);
		to += n * w->s->g->info.row_bytes;
	}
	if (w->nlisted > 0)
		npki_topk_feed(&w->topk, w->gathered, w->s->g->info.row_bytes, w->nlisted, row_of_list, w->listed);
	w->nlisted = 0;
}

static void feed_run(struct worker *w, uint64_t row, int64_t step, uint64_t n)
{
	if (n <= SHORT_RUN) {
		for (uint64_t i = 0; i < n; i++) {
			w->listed[w->nlisted++] = row + (uint64_t)step * i;
			if (w->nlisted == w->gather_rows)
				feed_listed(w);
		}
		return;
	}
	feed_listed(w); /* earlier rows first */
	if (step == 1)
		feed_range(w, row, n);
	else
		feed_gathered(w, row, step, n);
}

/* The positions of one block. */
static void feed_block(void *ctx)
{
	struct worker *w = ctx;
	uint64_t run;
	int64_t step;

	for (uint64_t p = w->from; p < w->to; p += run) {
		uint64_t row = npki_axis_at(&w->s->axis, p, &step, &run);

		if (run > w->to - p)
			run = w->to - p;
		feed_run(w, row, step, run);
	}
	feed_listed(w);
}

/* --- reading ahead ---------------------------------------------------------------------------------------------------- */

/* Whether some of these bytes of a mapping are not in memory. A few looks: data is read in long pieces. */
static bool is_cold(uint8_t *page, uint64_t len, uint64_t page_bytes)
{
	unsigned char in_memory;

	for (uint64_t at = 0; at < len; at += (len + 3) / 4)
		if (mincore(page + at / page_bytes * page_bytes, 1, &in_memory) == 0 && !(in_memory & 1))
			return true;
	return false;
}

/* Asks for the rows at positions [from, from + n), where they lie together. It is a hint: nothing is done about errors. */
static void read_ahead(const struct search *s, uint64_t from, uint64_t n)
{
	uint64_t row_bytes = s->g->info.row_bytes, page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t slot, end, together, run;
	int64_t step;

	if (from >= s->axis.len || row_bytes == 0)
		return;
	n = n < s->axis.len - from ? n : s->axis.len - from;
	slot = npki_axis_at(&s->axis, from, &step, &run);
	if (step != 1 || run < n)
		return;
	end = npk_gen_slot(s->g, slot + n - 1) + 1;
	for (slot = npk_gen_slot(s->g, slot); slot < end; slot += together) {
		const uint8_t *p = npki_slot_at(s->g, slot, &together);
		uint8_t *page = (uint8_t *)((uintptr_t)p & (uintptr_t)-page_bytes);

		together = together < end - slot ? together : end - slot;
		if (is_cold(page, (uint64_t)(p - page) + together * row_bytes, page_bytes))
			madvise(page, (size_t)(p - page) + together * row_bytes, MADV_WILLNEED);
	}
}

/* --- threads ---------------------------------------------------------------------------------------------------------- */

static void *work(void *arg)
{
	struct worker *w = arg;
	struct search *s = w->s;

	for (bool first = true; atomic_load(&s->rc) == 0; first = false) {
		w->from = atomic_fetch_add(&s->next, s->block);
		if (w->from >= s->axis.len)
			break;
		w->to = s->axis.len - w->from < s->block ? s->axis.len : w->from + s->block;
		if (first)
			read_ahead(s, w->from, w->to - w->from);
		read_ahead(s, w->from + s->threads * s->block, s->block);
		if (npki_guarded(feed_block, w) != 0)
			atomic_store(&s->rc, -EIO);
		atomic_fetch_add(&s->done, w->to - w->from);
		if (w->is_caller && s->how->progress &&
			!s->how->progress(s->how->ctx, atomic_load(&s->done), s->axis.len))
			atomic_store(&s->rc, -ECANCELED);
	}
	return NULL;
}

static int worker_init(struct worker *w, struct search *s, uint64_t k, struct npk_err *err)
{
	bool ordered = s->axis.full || s->axis.mask || (s->axis.nranges == 1 && s->axis.range[0].step > 0);
	uint64_t row_bytes = s->g->info.row_bytes;

	w->s = s;
	w->gather_rows = GATHER_BYTES / (row_bytes ? row_bytes : 1) + 1;
	if (w->gather_rows > GATHER_ROWS)
		w->gather_rows = GATHER_ROWS;
	w->gathered = malloc(w->gather_rows * row_bytes + 1);
	if (!w->gathered)
		return npk_fail(err, ENOMEM, "search: no memory");
	return npki_topk_init(&w->topk, &s->q, k, ordered, s->threads, err);
}

/* How many threads, and how many positions one takes at a time. A search that is cancelled ends between two blocks. */
static void divide(struct search *s)
{
	uint64_t n = s->how->threads ? s->how->threads : npki_cpu_count(), nq = s->q.nq, blocks;
	uint64_t row_bytes = s->g->info.row_bytes ? s->g->info.row_bytes : 1;
	uint64_t most = BLOCK_BYTES < BLOCK_WORK / nq ? BLOCK_BYTES : BLOCK_WORK / nq, least = BLOCK_LEAST / nq;
	uint64_t more = BLOCK_WORK / nq / row_bytes;

	n = n < THREADS_MAX ? n : THREADS_MAX;
	s->block = s->axis.len / (n * BLOCKS_EACH);
	s->block = s->block > least / row_bytes ? s->block : least / row_bytes;
	s->block = s->block < most / row_bytes ? s->block : most / row_bytes;
	more = more > BLOCK_ROWS_FEW ? more : BLOCK_ROWS_FEW;
	s->block += more < BLOCK_ROWS ? more : BLOCK_ROWS;
	blocks = (s->axis.len + s->block - 1) / s->block;
	s->threads = (unsigned)(n < blocks ? n : blocks ? blocks : 1);
}

/* The calling thread works too: it is worker 0. A thread that cannot start leaves its work to the others. */
static int run(struct search *s, uint64_t k, struct npk_hits *out, struct npk_err *err)
{
	struct worker *w = calloc(s->threads, sizeof(*w));
	unsigned ready = 0, running = 1;
	int rc = w ? 0 : npk_fail(err, ENOMEM, "search: no memory");

	while (rc == 0 && ready < s->threads)
		rc = worker_init(&w[ready++], s, k, err);
	if (rc == 0) {
		w[0].is_caller = true;
		while (running < s->threads && pthread_create(&w[running].thread, NULL, work, &w[running]) == 0)
			running++;
		work(&w[0]);
		for (unsigned i = 1; i < running; i++) {
			pthread_join(w[i].thread, NULL);
			npki_topk_merge(&w[0].topk, &w[i].topk);
		}
		rc = atomic_load(&s->rc);
		if (rc == -EIO)
			npki_shrank(s->g, err);
		else if (rc == -ECANCELED)
			npk_fail(err, ECANCELED, "search: cancelled");
		else
			rc = npki_topk_result(&w[0].topk, out, err);
	}
	for (unsigned i = 0; i < ready; i++) {
		npki_topk_fini(&w[i].topk);
		free(w[i].gathered);
	}
	free(w);
	return rc;
}

/* --- the calls -------------------------------------------------------------------------------------------------------- */

static int check_queries(struct npk_gen *g, const struct npk_queries *q, struct npk_err *err)
{
	uint64_t dim = g->info.row_bytes / npk_dtype_size(g->info.dtype);

	if (g->info.shape.ndim == 0)
		return npk_fail(err, EINVAL, "search: array '%.200s' has no rows, it is a scalar", g->name);
	if (q->dtype != g->info.dtype)
		return npk_fail(err, EINVAL, "search: the query is %s, array '%.200s' is %s",
			npk_dtype_name(q->dtype) ? npk_dtype_name(q->dtype) : "of an unknown dtype", g->name,
			npk_dtype_name(g->info.dtype));
	if (q->dim != dim)
		return npk_fail(err, EINVAL,
			"search: the query has %" PRIu64 " elements, a row of array '%.200s' has %" PRIu64, q->dim,
			g->name, dim);
	return 0;
}

/* One part of a selection, bound to the rows. A mask needs the view's way of loading it. */
static int bind_rows(struct search *s, const char *rows, struct npk_err *err)
{
	struct npki_sel sel = {0};
	int rc = rows ? npki_sel_parse(rows, strlen(rows), &sel, err) : 0;

	if (rc == 0 && sel.nparts > 1)
		rc = npk_fail(err, EINVAL, "search: rows= takes rows only, not %u parts", sel.nparts);
	if (rc == 0 && sel.nparts == 1 && sel.part[0].mask)
		rc = npki_load_mask(s->g, &sel.part[0], 0, s->g->info.rows, &s->axis.mask, err);
	if (rc == 0)
		rc = npki_axis_bind(&s->axis, sel.nparts ? &sel.part[0] : NULL, 0, s->g->info.rows, err);
	npki_sel_fini(&sel);
	return rc;
}

int npk_search(struct npk_gen *g, const struct npk_queries *q, const struct npk_search *how, struct npk_hits *out,
	struct npk_err *err)
{
	struct search s = {.g = g, .how = how};
	int rc;

	if (how->k < 1)
		return npk_fail(err, EINVAL, "search: k is %" PRIu64 ", at least 1 is needed", how->k);
	rc = check_queries(g, q, err);
	if (rc == 0)
		rc = npki_query_init(&s.q, q, how->metric, err);
	if (rc == 0)
		rc = npki_query_plan(&s.q, err);
	if (rc == 0)
		rc = bind_rows(&s, how->rows, err);
	if (rc == 0)
		rc = npk_gen_map(g, err);
	if (rc == 0) {
		divide(&s);
		rc = run(&s, how->k < s.axis.len ? how->k : s.axis.len, out, err);
	}
	npki_axis_fini(&s.axis);
	npki_query_fini(&s.q);
	return rc;
}

struct scores {
	struct npk_gen *g;
	const struct npki_query *q;
	uint64_t first, nrows;
	double *out;
	uint8_t *row;
};

static void score_rows(void *ctx)
{
	struct scores *s = ctx;
	const struct npki_query *q = s->q;
	struct npk_spans it;
	uint64_t slot, n, together;

	npk_spans_init(&it, s->g, s->first, s->nrows);
	while (npk_spans_next(&it, &slot, &n))
		for (uint64_t i = 0; i < n; i++) {
			const uint8_t *row = npki_slot_at(s->g, slot + i, &together);

			if (q->kind.convert) {
				npki_convert(&q->kind, row, q->dim, s->row);
				row = s->row;
			}
			*s->out++ = npkv_pair(q->kind.ops, q->kind.metric, q->kind.dtype, q->vectors, row, q->dim);
		}
}

int npk_scores(struct npk_gen *g, const struct npk_queries *q, enum npk_metric metric, uint64_t first, uint64_t nrows,
	double *out, struct npk_err *err)
{
	struct npki_query query = {0};
	struct scores s = {.g = g, .q = &query, .first = first, .nrows = nrows, .out = out};
	int rc = check_queries(g, q, err);

	if (rc == 0 && q->nq != 1)
		rc = npk_fail(err, EINVAL, "search: scores are of one query, not %zu", q->nq);
	if (rc == 0 && (first > g->info.rows || nrows > g->info.rows - first))
		rc = npk_fail(err, ERANGE, "array '%.200s': rows %" PRIu64 ":%" PRIu64 " of %" PRIu64, g->name, first,
			first + nrows, g->info.rows);
	if (rc == 0)
		rc = npki_query_init(&query, q, metric, err);
	if (rc == 0 && nrows > 0)
		rc = npk_gen_map(g, err);
	s.row = malloc(query.row_bytes + 1);
	if (rc == 0 && !s.row)
		rc = npk_fail(err, ENOMEM, "search: no memory");
	if (rc == 0 && npki_guarded(score_rows, &s) != 0)
		rc = npki_shrank(g, err);
	free(s.row);
	npki_query_fini(&query);
	return rc;
}

int npk_pair(enum npk_metric metric, unsigned dtype, const void *a, const void *b, uint64_t dim, double *out,
	struct npk_err *err)
{
	struct npk_queries q = {dtype, a, 1, dim};
	struct npki_query query;
	uint8_t *x;
	int rc = npki_query_init(&query, &q, metric, err);

	if (rc != 0)
		return rc;
	x = malloc(query.row_bytes + 1);
	if (x) {
		npki_convert(&query.kind, b, query.dim, x);
		*out = npkv_pair(query.kind.ops, query.kind.metric, query.kind.dtype, query.vectors, x, query.dim);
	} else {
		rc = npk_fail(err, ENOMEM, "search: no memory");
	}
	free(x);
	npki_query_fini(&query);
	return rc;
}

/* --- segmented search ------------------------------------------------------------------------------------------------- */

struct npk_topk {
	struct npki_query q;
	struct npki_topk topk;
};

int npk_topk_open(
	struct npk_topk **out, const struct npk_queries *q, enum npk_metric metric, uint64_t k, struct npk_err *err)
{
	struct npk_topk *t;
	int rc;

	if (k < 1)
		return npk_fail(err, EINVAL, "search: k is %" PRIu64 ", at least 1 is needed", k);
	t = calloc(1, sizeof(*t));
	if (!t)
		return npk_fail(err, ENOMEM, "search: no memory");
	rc = npki_query_init(&t->q, q, metric, err);
	if (rc == 0)
		rc = npki_query_plan(&t->q, err);
	if (rc == 0)
		rc = npki_topk_init(&t->topk, &t->q, k, false, 1, err);
	if (rc != 0)
		npk_topk_close(t);
	else
		*out = t;
	return rc;
}

int npk_topk_feed(struct npk_topk *t, const void *rows, uint64_t nrows, uint64_t first, struct npk_err *err)
{
	struct row_block b = {first, 1};

	if (!t->topk.list)
		return npk_fail(err, EINVAL, "search: the result was taken already");
	npki_topk_feed(&t->topk, rows, t->q.dim * npk_dtype_size(t->q.kind.stored), nrows, row_of_step, &b);
	return 0;
}

int npk_topk_result(struct npk_topk *t, struct npk_hits *out, struct npk_err *err)
{
	int rc;

	if (!t->topk.list)
		return npk_fail(err, EINVAL, "search: the result was taken already");
	rc = npki_topk_result(&t->topk, out, err);
	if (rc == 0)
		npki_topk_fini(&t->topk);
	return rc;
}

void npk_topk_close(struct npk_topk *t)
{
	if (!t)
		return;
	npki_topk_fini(&t->topk);
	npki_query_fini(&t->q);
	free(t);
}
