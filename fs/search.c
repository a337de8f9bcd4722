/* search.c - see search.h. Opening checks and reads what is needed of the query; the answer is computed by the first read, so
 * that the write or the lookup that asked is quick, and nobody waits for it but who wants it.
 *
 * A .npy of scores is computed piece by piece as it is read, and costs no memory. Everything else is made once, as a whole. */
#include "search.h"
#include "cells.h"
#include "out.h"
#include "rows.h"
#include "slow.h"
#include "space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MASK_ROWS 4096u
#define BLOCK_BYTES ((uint64_t)4 << 20) /* of rows, between two looks whether somebody still waits */

struct npkfs_search {
	_Atomic unsigned refs;
	struct npkfs_session *s;
	struct npkfs_space *sp; /* counted */
	enum npkfs_search_op op;
	enum npkfs_search_format format;
	enum npk_metric metric;
	uint64_t k;             /* wanted; for op=topk at most nrows */
	uint64_t nrows;         /* searched */
	uint64_t number;        /* of the generation */
	size_t header_len;      /* of a .npy */
	uint64_t data_len;      /* behind it */
	struct npk_text answer; /* the whole of it once `made`; before, the header */
	_Atomic bool made;

	pthread_mutex_t lock; /* held while it is made; outermost */
	/* Until it is made; of .npy scores for ever. */
	struct npk_gen *gen;
	char *rows;              /* NULL: all */
	struct npk_view *picked; /* of `rows`, or NULL */
	struct npkfs_vectors vectors;
};

/* --- lifetime ------------------------------------------------------------------------------------------------------------ */

static void forget_query(struct npkfs_search *q)
{
	npk_view_close(q->picked);
	npk_gen_put(q->gen);
	npk_text_fini(&q->vectors.bytes);
	free(q->rows);
	q->picked = NULL;
	q->gen = NULL;
	q->rows = NULL;
}

struct npkfs_search *npkfs_search_ref(struct npkfs_search *q)
{
	atomic_fetch_add(&q->refs, 1);
	return q;
}

void npkfs_search_put(struct npkfs_search *q)
{
	if (q == NULL || atomic_fetch_sub(&q->refs, 1) != 1)
		return;
	forget_query(q);
	npkfs_space_put(q->sp);
	npk_text_fini(&q->answer);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

/* --- headers -------------------------------------------------------------------------------------------------------------- */

/* What np.save() writes for records: npk_npy_header() knows plain dtypes only. */
static void record_header(struct npk_text *out, uint64_t nq, uint64_t k, size_t align)
{
	char shape[64], first[24], dict[256];
	size_t len, total;

	snprintf(first, sizeof(first), "%" PRIu64, nq == 1 ? k : nq);
	if (nq == 1)
		snprintf(shape, sizeof(shape), "(%" PRIu64 ",)", k);
	else
		snprintf(shape, sizeof(shape), "(%" PRIu64 ", %" PRIu64 ")", nq, k);
	len = (size_t)snprintf(dict, sizeof(dict),
		"{'descr': [('index', '<u8'), ('score', '<f8')], 'fortran_order': False, 'shape': %s, }%*s", shape,
		(int)(21 - strlen(first)), ""); /* room to grow, as numpy leaves it */
	total = (10 + len + 1 + align - 1) / align * align;
	npk_text_add(out, "\x93NUMPY\1\0", 8);
	npk_text_printf(out, "%c%c%s%*s\n", 'x', 'x', dict, (int)(total - 10 - len - 1), "");
	if (!out->bad) {
		out->p[8] = (char)((total - 10) & 255);
		out->p[9] = (char)((total - 10) >> 8);
	}
}

static void score_header(struct npk_text *out, uint64_t nq, uint64_t n, size_t align)
{
	const struct npk_shape one = {.ndim = 1, .dim = {n}}, many = {.ndim = 2, .dim = {nq, n}};
	char header[NPK_NPY_HEADER_MAX];

	npk_text_add(out, header, npk_npy_header(header, NPK_F64, nq == 1 ? &one : &many, align));
}

/* The header of a .npy answer, and how much follows. */
static int measure(struct npkfs_search *q, struct npk_err *err)
{
	uint64_t nq = q->vectors.n, max = q->s->config->ctl_max, items;
	size_t align = q->s->config->header;

	if (q->op == NPKFS_SEARCH_PAIR)
		items = q->vectors.nfirst;
	else if (__builtin_mul_overflow(nq, q->op == NPKFS_SEARCH_TOPK ? q->k : q->nrows, &items) ||
		 items > INT64_MAX / 64)
		return npk_fail(
			err, E2BIG, "search: %" PRIu64 " queries are too many for %" PRIu64 " rows", nq, q->nrows);
	q->data_len = items * (q->op == NPKFS_SEARCH_TOPK ? 16 : 8);
	if (q->op == NPKFS_SEARCH_TOPK && q->data_len > max)
		return npk_fail(err, E2BIG,
			"search: %" PRIu64 " hits for each of %" PRIu64 " queries are more than ctl_max, %" PRIu64
			" bytes",
			q->k, nq, max);
	if (q->format != NPKFS_SEARCH_NPY)
		return 0;
	if (q->op == NPKFS_SEARCH_TOPK)
		record_header(&q->answer, nq, q->k, align);
	else if (q->op == NPKFS_SEARCH_PAIR)
		score_header(&q->answer, 1, items, align);
	else
		score_header(&q->answer, nq, q->nrows, align);
	q->header_len = q->answer.len;
	return q->answer.bad ? npk_fail(err, ENOMEM, "search: no memory") : 0;
}

/* --- open ------------------------------------------------------------------------------------------------------------------ */

static const char *vector_at(const struct npkfs_search *q, uint64_t i)
{
	size_t bytes = q->vectors.dim * npk_dtype_size(q->vectors.dtype);

	return q->vectors.bytes.p + i * bytes;
}

static struct npk_queries one_query(const struct npkfs_search *q, uint64_t i)
{
	return (struct npk_queries){.dtype = q->vectors.dtype, .data = vector_at(q, i), .nq = 1, .dim = q->vectors.dim};
}

/* The engine's own checks: metric and dtype, width, NaN. */
static int check_vectors(struct npkfs_search *q, struct npk_err *err)
{
	struct npk_queries one;
	double none;
	int rc = 0;

	for (uint64_t i = 0; i < q->vectors.n && rc == 0; i++) {
		one = one_query(q, i);
		rc = npk_scores(q->gen, &one, q->metric, 0, 0, &none, err);
	}
	return rc;
}

static int check_pairs(struct npkfs_search *q, const struct npkfs_search_words *w, struct npk_err *err)
{
	struct npkfs_vectors *v = &q->vectors;

	if (w->nsources == 1 && v->n == 2)
		v->nfirst = 1;
	if (v->n == 2 * v->nfirst)
		return 0;
	if (w->nsources == 1)
		return npk_fail(
			err, EINVAL, "search: op=pair needs two vectors, %s= gives %zu", w->source[0].key, v->n);
	return npk_fail(err, EINVAL, "search: op=pair: %zu vectors of %s= and %zu of %s=", v->nfirst, w->source[0].key,
		v->n - v->nfirst, w->source[1].key);
}

static int pick_rows(struct npkfs_search *q, const char *rows, struct npk_err *err)
{
	int rc;

	q->nrows = npk_gen_info(q->gen)->rows;
	if (rows == NULL)
		return 0;
	q->rows = strdup(rows);
	if (q->rows == NULL)
		return npk_fail(err, ENOMEM, "search: no memory");
	rc = npk_view_open(&q->picked, q->gen, rows, err);
	if (rc == 0)
		q->nrows = npk_view_info(q->picked)->rows;
	return rc == 0 ? 0 : npk_err_context(err, rc, "search: rows=");
}

int npkfs_search_open(struct npkfs_search **out, struct npkfs_session *s, struct npkfs_space *sp, struct npk_gen *g,
	const struct npkfs_search_words *w, const struct npkfs_attached *attached, struct npk_err *err)
{
	struct npkfs_search *q = calloc(1, sizeof(*q));
	int rc;

	if (q == NULL)
		return npk_fail(err, ENOMEM, "search: no memory");
	atomic_init(&q->refs, 1);
	pthread_mutex_init(&q->lock, NULL);
	q->s = s;
	q->sp = npkfs_space_ref(sp);
	q->op = w->op;
	q->format = w->format;
	q->metric = w->metric;
	q->number = npk_gen_info(g)->number;
	q->gen = npk_gen_ref(g);
	rc = npk_gen_map(g, err);
	if (rc == 0)
		rc = npkfs_search_vectors(&q->vectors, s, sp, g, w, attached, err);
	if (rc == 0)
		rc = check_vectors(q, err);
	if (rc == 0 && q->op == NPKFS_SEARCH_PAIR)
		rc = check_pairs(q, w, err);
	if (rc == 0)
		rc = pick_rows(q, w->rows, err);
	q->k = w->k < q->nrows ? w->k : q->nrows;
	if (rc == 0)
		rc = measure(q, err);
	if (rc != 0)
		npkfs_search_put(q);
	else
		*out = q;
	return rc;
}

/* --- scores ------------------------------------------------------------------------------------------------------------------ */

/* Rows [first, first + n) of those that are picked. */
static int score_picked(struct npkfs_search *q, const struct npk_queries *one, uint64_t first, uint64_t n, double *to,
	struct npk_err *err)
{
	uint64_t row_bytes = npk_view_info(q->picked)->row_bytes;
	char *rows = malloc(n * row_bytes + 1);
	int rc;

	if (rows == NULL)
		return npk_fail(err, ENOMEM, "search: no memory for %" PRIu64 " rows", n);
	rc = npk_view_read(q->picked, first * row_bytes, rows, n * row_bytes, err);
	for (uint64_t i = 0; i < n && rc == 0; i++)
		rc = npk_pair(q->metric, one->dtype, one->data, rows + i * row_bytes, one->dim, to + i, err);
	free(rows);
	return rc;
}

/* Query i against rows [first, first + n), in blocks. */
static int score_rows(struct npkfs_search *q, uint64_t i, uint64_t first, uint64_t n, double *to, struct npk_err *err)
{
	const struct npk_queries one = one_query(q, i);
	uint64_t row_bytes = npk_gen_info(q->gen)->row_bytes, block = BLOCK_BYTES / (row_bytes ? row_bytes : 1) + 1, m;
	int rc = 0;

	for (; n > 0 && rc == 0; first += m, to += m, n -= m) {
		m = n < block ? n : block;
		if (npkfs_slow_cancelled())
			return npk_fail(err, EINTR, "search: cancelled");
		rc = q->picked != NULL ? score_picked(q, &one, first, m, to, err)
				       : npk_scores(q->gen, &one, q->metric, first, m, to, err);
	}
	return rc;
}

/* Scores number `first` and on of all queries' together. */
static int score_items(struct npkfs_search *q, uint64_t first, uint64_t n, double *to, struct npk_err *err)
{
	uint64_t row, m;
	int rc = 0;

	for (; n > 0 && rc == 0; first += m, to += m, n -= m) {
		row = first % q->nrows;
		m = q->nrows - row < n ? q->nrows - row : n;
		rc = score_rows(q, first / q->nrows, row, m, to, err);
	}
	return rc;
}

/* The rows where a mask is nonzero, which must still be q->nrows many. */
static int list_block(
	const char *bytes, uint64_t size, uint64_t first, uint64_t rows, uint64_t want, uint64_t *to, uint64_t *n)
{
	for (uint64_t i = 0; i < rows; i++) {
		bool set = false;

		for (uint64_t b = 0; b < size; b++)
			set |= bytes[i * size + b] != 0;
		if (set && *n == want)
			return -ESTALE;
		if (set)
			to[(*n)++] = first + i;
	}
	return 0;
}

static int list_mask(struct npkfs_search *q, const char *name, uint64_t *to, struct npk_err *err)
{
	char bytes[MASK_ROWS * 8];
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	uint64_t all = 0, n = 0, m;
	int rc = npkfs_array_get(q->s, q->sp, name, strlen(name), &a, err);

	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0)
		all = npk_gen_info(g)->rows;
	for (uint64_t first = 0; first < all && rc == 0; first += m) {
		m = all - first < MASK_ROWS ? all - first : MASK_ROWS;
		rc = npk_gen_read_rows(g, first, m, bytes, err); /* of one integer: at most 8 bytes each */
		if (rc == 0)
			rc = list_block(bytes, npk_gen_info(g)->row_bytes, first, m, q->nrows, to, &n);
	}
	npk_gen_put(g);
	npk_array_put(a);
	if (rc == -ESTALE || (rc == 0 && n != q->nrows))
		rc = npk_fail(err, ESTALE, "search: the mask '%s' changed meanwhile", name);
	return rc;
}

/* Which rows are picked, in their order: for texts, which tell them. */
static int list_rows(struct npkfs_search *q, uint64_t **out, struct npk_err *err)
{
	const char *text = q->rows + strspn(q->rows, " \t");
	uint64_t *list = NULL;
	size_t n = q->nrows;
	int rc = 0;

	if (strncmp(text, "mask=", 5) == 0) {
		list = malloc((q->nrows + 1) * sizeof(*list));
		rc = list != NULL ? list_mask(q, text + 5, list, err) : npk_fail(err, ENOMEM, "search: no memory");
	} else {
		rc = npkfs_rows_parse(text, npk_gen_info(q->gen)->rows, q->nrows, (int64_t **)&list, &n, err);
		if (rc == 0 && n != q->nrows)
			rc = npk_fail(
				err, EINVAL, "search: rows=%s: %zu rows, %" PRIu64 " are selected", text, n, q->nrows);
	}
	if (rc != 0)
		free(list);
	else
		*out = list;
	return rc;
}

/* --- text and JSON --------------------------------------------------------------------------------------------------------- */

static void print_score(struct npk_text *out, double score, bool json)
{
	if (json && (score != score || score - score != 0))
		npk_text_printf(out, "null");
	else
		npkfs_cells_real(out, score);
}

static int check_length(const struct npkfs_search *q, const struct npk_text *out, struct npk_err *err)
{
	if (out->bad)
		return npk_fail(err, ENOMEM, "search: no memory for the answer");
	if (out->len > q->s->config->ctl_max)
		return npk_fail(err, E2BIG, "search: the text is longer than ctl_max, %" PRIu64 " bytes: use fmt=npy",
			q->s->config->ctl_max);
	return 0;
}

/* One (row, score) of query i; `at` counts within the query. */
static void print_item(
	const struct npkfs_search *q, struct npk_text *out, uint64_t i, uint64_t at, uint64_t row, double score)
{
	bool json = q->format == NPKFS_SEARCH_JSON;

	if (json)
		npk_text_printf(out, "%s{\"index\": %" PRIu64 ", \"score\": ", at > 0 ? ", " : "", row);
	else if (q->vectors.n > 1)
		npk_text_printf(out, "%" PRIu64 " %" PRIu64 " ", i, row);
	else
		npk_text_printf(out, "%" PRIu64 " ", row);
	print_score(out, score, json);
	npk_text_add(out, json ? "}" : "\n", 1);
}

static void begin_json(const struct npkfs_search *q, struct npk_text *out, const char *op, const char *what)
{
	npk_text_printf(out, "{\"op\": \"%s\", \"metric\": \"%s\", \"generation\": %" PRIu64 ", \"%s\": ", op,
		npk_metric_name(q->metric), q->number, what);
}

/* Brackets of the lists: one of hits, or one of lists of hits. */
static void bracket(const struct npkfs_search *q, struct npk_text *out, uint64_t i, bool open)
{
	if (q->format != NPKFS_SEARCH_JSON)
		return;
	if (open)
		npk_text_printf(out, "%s[", q->vectors.n == 1 ? "" : i == 0 ? "[" : ", ");
	else
		npk_text_printf(out, "]%s", q->vectors.n > 1 && i + 1 == q->vectors.n ? "]" : "");
}

static int print_hits(struct npkfs_search *q, const struct npk_hits *h, struct npk_text *out, struct npk_err *err)
{
	bool json = q->format == NPKFS_SEARCH_JSON;
	int rc = 0;

	if (json)
		begin_json(q, out, "topk", "hits");
	for (uint64_t i = 0; i < h->nq && rc == 0; i++) {
		bracket(q, out, i, true);
		for (uint64_t j = 0; j < h->k && rc == 0; j++) {
			print_item(q, out, i, j, h->row[i * h->k + j], h->score[i * h->k + j]);
			rc = check_length(q, out, err);
		}
		bracket(q, out, i, false);
	}
	if (json)
		npk_text_add(out, "}\n", 2);
	return rc == 0 ? check_length(q, out, err) : rc;
}

/* Scores of one query, printed as they are computed. */
static int print_query(
	struct npkfs_search *q, uint64_t i, const uint64_t *list, struct npk_text *out, struct npk_err *err)
{
	double block[1024];
	uint64_t m;
	int rc = 0;

	for (uint64_t first = 0; first < q->nrows && rc == 0; first += m) {
		m = q->nrows - first < 1024 ? q->nrows - first : 1024;
		rc = score_rows(q, i, first, m, block, err);
		for (uint64_t j = 0; j < m && rc == 0; j++)
			print_item(q, out, i, first + j, list != NULL ? list[first + j] : first + j, block[j]);
		if (rc == 0)
			rc = check_length(q, out, err);
	}
	return rc;
}

static int print_scores(struct npkfs_search *q, struct npk_text *out, struct npk_err *err)
{
	uint64_t *list = NULL;
	int rc = 0;

	if (q->data_len > q->s->config->ctl_max) /* a line has more than 8 bytes: told before the work is done */
		return npk_fail(err, E2BIG, "search: the text is longer than ctl_max, %" PRIu64 " bytes: use fmt=npy",
			q->s->config->ctl_max);
	if (q->rows != NULL)
		rc = list_rows(q, &list, err);
	if (q->format == NPKFS_SEARCH_JSON)
		begin_json(q, out, "scores", "scores");
	for (uint64_t i = 0; i < q->vectors.n && rc == 0; i++) {
		bracket(q, out, i, true);
		rc = print_query(q, i, list, out, err);
		bracket(q, out, i, false);
	}
	if (q->format == NPKFS_SEARCH_JSON)
		npk_text_add(out, "}\n", 2);
	free(list);
	return rc == 0 ? check_length(q, out, err) : rc;
}

/* --- making ----------------------------------------------------------------------------------------------------------------- */

static bool go_on(void *ctx, uint64_t done, uint64_t all)
{
	(void)ctx, (void)done, (void)all;
	return !npkfs_slow_cancelled();
}

static void add_records(const struct npk_hits *h, struct npk_text *out)
{
	for (size_t i = 0; i < h->nq * h->k; i++) {
		npk_text_add(out, &h->row[i], 8); /* little-endian, as every machine that this is built for */
		npk_text_add(out, &h->score[i], 8);
	}
}

static int make_hits(struct npkfs_search *q, struct npk_text *out, struct npk_err *err)
{
	const struct npkfs_vectors *v = &q->vectors;
	const struct npk_queries all = {.dtype = v->dtype, .data = v->bytes.p, .nq = v->n, .dim = v->dim};
	const struct npk_search how = {.metric = q->metric,
		.k = q->k > 0 ? q->k : 1,
		.rows = q->rows,
		.threads = npkfs_slow_share(),
		.progress = go_on};
	struct npk_hits h = {0};
	int rc = npk_search(q->gen, &all, &how, &h, err);

	if (rc == -ECANCELED)
		return npk_fail(err, EINTR, "search: cancelled");
	if (rc == 0 && q->format == NPKFS_SEARCH_NPY)
		add_records(&h, out);
	else if (rc == 0)
		rc = print_hits(q, &h, out, err);
	npk_hits_fini(&h);
	return rc;
}

static int make_pairs(struct npkfs_search *q, struct npk_text *out, struct npk_err *err)
{
	bool json = q->format == NPKFS_SEARCH_JSON;
	const struct npkfs_vectors *v = &q->vectors;
	double score;
	int rc = 0;

	if (json)
		begin_json(q, out, "pair", "scores");
	for (uint64_t i = 0; i < v->nfirst && rc == 0; i++) {
		rc = npk_pair(q->metric, v->dtype, vector_at(q, i), vector_at(q, v->nfirst + i), v->dim, &score, err);
		if (q->format == NPKFS_SEARCH_NPY) {
			npk_text_add(out, &score, sizeof(score));
			continue;
		}
		if (json)
			npk_text_printf(out, "%s", i == 0 ? "[" : ", ");
		print_score(out, score, json);
		if (!json)
			npk_text_add(out, "\n", 1);
		if (rc == 0)
			rc = check_length(q, out, err);
	}
	if (json)
		npk_text_printf(out, "]}\n");
	return rc;
}

static bool is_streamed(const struct npkfs_search *q)
{
	return q->op == NPKFS_SEARCH_SCORES && q->format == NPKFS_SEARCH_NPY;
}

static int make(struct npkfs_search *q, struct npk_err *err)
{
	struct npk_text out = {0};
	int rc;

	npk_text_add(&out, q->answer.p, q->answer.len); /* the header */
	if (npkfs_slow_cancelled())
		rc = npk_fail(err, EINTR, "search: cancelled");
	else if (q->op == NPKFS_SEARCH_TOPK)
		rc = make_hits(q, &out, err);
	else
		rc = q->op == NPKFS_SEARCH_PAIR ? make_pairs(q, &out, err) : print_scores(q, &out, err);
	if (rc == 0 && out.bad)
		rc = npk_fail(err, ENOMEM, "search: no memory for the answer");
	if (rc != 0) {
		npk_text_fini(&out);
		return rc;
	}
	npk_text_fini(&q->answer);
	q->answer = out;
	forget_query(q);
	atomic_store(&q->made, true);
	return 0;
}

int npkfs_search_make(struct npkfs_search *q, struct npk_err *err)
{
	int rc = 0;

	if (is_streamed(q) || atomic_load(&q->made))
		return 0;
	pthread_mutex_lock(&q->lock);
	if (!atomic_load(&q->made)) {
		NPKFS_COUNT(q->s->stats.searches);
		rc = make(q, err);
		if (rc != 0)
			NPKFS_COUNT(q->s->stats.searches_failed);
	}
	pthread_mutex_unlock(&q->lock);
	return rc;
}

bool npkfs_search_is_slow(struct npkfs_search *q)
{
	return is_streamed(q) || !atomic_load(&q->made);
}

bool npkfs_search_size(struct npkfs_search *q, uint64_t *size)
{
	if (q->format == NPKFS_SEARCH_NPY)
		*size = q->header_len + q->data_len;
	else if (atomic_load(&q->made))
		*size = q->answer.len;
	else
		return false;
	return true;
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */

/* Bytes [off, off + len) of the scores, which are all there. */
static int read_scores(struct npkfs_search *q, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	uint64_t first = off / 8, n = (off + len + 7) / 8 - first;
	double *scores = malloc(n * sizeof(*scores));
	int rc;

	if (scores == NULL)
		return npk_fail(err, ENOMEM, "search: no memory for %" PRIu64 " scores", n);
	rc = score_items(q, first, n, scores, err);
	if (rc == 0)
		npkfs_out_copy(out, (const char *)scores + off % 8, len);
	free(scores);
	return rc;
}

int npkfs_search_read(struct npkfs_search *q, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	int rc = npkfs_search_make(q, err);
	size_t n;

	if (rc != 0)
		return rc;
	if (off < q->answer.len) {
		n = q->answer.len - (size_t)off < len ? q->answer.len - (size_t)off : len;
		npkfs_out_borrow(out, q->answer.p + off, n);
		off += n;
		len -= n;
	}
	if (len == 0 || !is_streamed(q) || off - q->header_len >= q->data_len)
		return 0;
	off -= q->header_len;
	return read_scores(q, off, q->data_len - off < len ? (size_t)(q->data_len - off) : len, out, err);
}
