/* score.c - npk score: the metric of a query and every row. */
#include "progress.h"
#include "query.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ROWS 4096

enum {
	METRIC,
	ROW,
	FROM,
	ROWS,
	JSON,
	NPY,
	OUTPUT
};

static const struct npkt_opt opts[] = {
	[METRIC] = NPKT_METRIC_OPT,
	[ROW] = NPKT_ROW_OPT,
	[FROM] = NPKT_FROM_OPT,
	[ROWS] = {"rows", "SEL", 'r', "only these rows"},
	[JSON] = {"json", NULL, 'j', "as a JSON list, with several queries a list of lists"},
	[NPY] = {"npy", NULL, 'n', "as a .npy file of float64"},
	[OUTPUT] = {"output", "FILE", 'o', "where the scores go; - is standard output, as without this option"},
	{0},
};

struct scoring {
	struct npk_gen *g;
	struct npk_view *v; /* of --rows, or NULL */
	uint64_t nrows;
	struct npkt_vectors query;
	enum npk_metric metric;
	enum npkt_form form;
	struct npkt_out out;
	struct npkt_progress progress;
	uint64_t done;
	double score[BLOCK_ROWS];
};

static int score_view(struct scoring *s, const struct npk_queries *q, uint64_t first, uint64_t n, struct npk_err *err)
{
	uint64_t row_bytes = npk_view_info(s->v)->row_bytes;
	char *rows = malloc(n * row_bytes + 1);
	int rc;

	if (!rows)
		return npk_fail(err, ENOMEM, "no memory for %" PRIu64 " rows", n);
	rc = npk_view_read(s->v, first * row_bytes, rows, n * row_bytes, err);
	for (uint64_t i = 0; i < n && rc == 0; i++)
		rc = npk_pair(s->metric, q->dtype, q->data, rows + i * row_bytes, q->dim, &s->score[i], err);
	free(rows);
	return rc;
}

static int put_block(struct scoring *s, uint64_t first, uint64_t n, struct npk_err *err)
{
	struct npk_text t = {0};
	int rc;

	if (s->form == NPKT_NPY)
		return npkt_out_write(&s->out, s->score, n * sizeof(s->score[0]), err);
	for (uint64_t i = 0; i < n; i++) {
		if (s->form == NPKT_JSON && first + i > 0)
			npk_text_add(&t, ", ", 2);
		npkt_add_score(&t, s->score[i], s->form == NPKT_JSON);
		if (s->form == NPKT_TEXT)
			npk_text_add(&t, "\n", 1);
	}
	rc = t.bad ? npk_fail(err, ENOMEM, "no memory to print") : npkt_out_write(&s->out, t.p, t.len, err);
	npk_text_fini(&t);
	return rc;
}

static int put_word(struct scoring *s, const char *word, struct npk_err *err)
{
	return s->form == NPKT_JSON ? npkt_out_write(&s->out, word, strlen(word), err) : 0;
}

static int score_query(struct scoring *s, uint64_t i, struct npk_err *err)
{
	const struct npk_queries *all = &s->query.q;
	size_t bytes = all->dim * npk_dtype_size(all->dtype);
	const struct npk_queries one = {
		.dtype = all->dtype, .data = (const char *)all->data + i * bytes, .nq = 1, .dim = all->dim};
	int rc = put_word(s, i > 0 ? ", [" : "[", err);
	uint64_t n;

	if (rc == 0) /* what is wrong with the query, also when there are no rows */
		rc = npk_scores(s->g, &one, s->metric, 0, 0, s->score, err);
	for (uint64_t first = 0; first < s->nrows && rc == 0; first += n) {
		n = s->nrows - first < BLOCK_ROWS ? s->nrows - first : BLOCK_ROWS;
		rc = s->v ? score_view(s, &one, first, n, err)
			  : npk_scores(s->g, &one, s->metric, first, n, s->score, err);
		if (rc == 0)
			rc = put_block(s, first, n, err);
		s->done += n;
		if (!npkt_progress(&s->progress, s->done, s->nrows * all->nq) && rc == 0)
			rc = npk_fail(err, ECANCELED, "score: cancelled");
	}
	return rc == 0 ? put_word(s, "]", err) : rc;
}

static int put_header(struct scoring *s, struct npk_err *err)
{
	const struct npk_shape one = {.ndim = 1, .dim = {s->nrows}};
	const struct npk_shape many = {.ndim = 2, .dim = {s->query.q.nq, s->nrows}};
	char header[NPK_NPY_HEADER_MAX];

	if (s->form == NPKT_JSON)
		return s->query.q.nq > 1 ? put_word(s, "[", err) : 0;
	if (s->form == NPKT_TEXT)
		return 0;
	return npkt_out_write(
		&s->out, header, npk_npy_header(header, NPK_F64, s->query.q.nq > 1 ? &many : &one, 64), err);
}

static int score_all(struct scoring *s, const char *path, struct npk_err *err)
{
	int rc;

	npkt_progress_begin(&s->progress, "score");
	rc = npkt_out_open(&s->out, path, s->form == NPKT_NPY, err);

	if (rc == 0)
		rc = put_header(s, err);
	for (uint64_t i = 0; i < s->query.q.nq && rc == 0; i++)
		rc = score_query(s, i, err);
	if (rc == 0)
		rc = put_word(s, s->query.q.nq > 1 ? "]\n" : "\n", err);
	if (rc == 0)
		rc = npkt_out_commit(&s->out, err);
	npkt_out_fini(&s->out);
	npkt_progress_end(&s->progress);
	return rc;
}

static int score(const struct npkt_args *args, struct npk_store *store, struct scoring *s, struct npk_err *err)
{
	int rc = npkt_gen(&s->g, store, args->operand[1], err);

	if (rc == 0)
		rc = npkt_vectors_open(&s->query, store, s->g, args->opt[ROW], args->opt[FROM], args->operand[2], err);
	if (rc == 0 && args->opt[ROWS])
		rc = npk_view_open(&s->v, s->g, args->opt[ROWS], err);
	if (rc == 0) {
		s->nrows = s->v ? npk_view_info(s->v)->rows : npk_gen_info(s->g)->rows;
		rc = score_all(s, args->opt[OUTPUT] ? args->opt[OUTPUT] : "-", err);
	}
	npk_view_close(s->v);
	npkt_vectors_close(&s->query);
	npk_gen_put(s->g);
	return rc;
}

static int run(const struct npkt_args *args)
{
	struct scoring s = {.g = NULL};
	struct npk_store *store;
	struct npk_err err;
	int rc;

	if (npkt_check_query(args->opt[ROW], args->opt[FROM], args->noperands - 2) != NPKT_OK ||
		npkt_check_rows(args->opt[ROWS], NULL) != NPKT_OK ||
		npkt_form(args->opt[JSON], args->opt[NPY], &s.form) != NPKT_OK)
		return NPKT_USAGE;
	if (npk_metric_parse(args->opt[METRIC] ? args->opt[METRIC] : "cosine", &s.metric, &err) != 0) {
		npkt_failed(&err);
		return NPKT_USAGE;
	}
	store = npkt_open(args->operand[0]);
	if (!store)
		return NPKT_FAILED;
	rc = score(args, store, &s, &err);
	npk_store_close(store);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

const struct npkt_cmd npkt_score = {
	.name = "score",
	.operands = "STORE ARRAY [FILE]",
	.min = 2,
	.max = 3,
	.help = "print the metric of a query and every row",
	.more = NPKT_ABOUT_QUERY NPKT_ABOUT_METRIC
	"Prints one score a line, in the order of the rows; with several queries, those of the first, then of the "
	"second,\n"
	"and so on. A long run tells on a terminal how far it is. --rows takes a selection as npk get does.\n"
	"\n"
	"Examples:\n"
	"  npk score digits.npk pixels --row 17 --rows 0:10\n"
	"  npk score digits.npk pixels --row 0 -m l2 --npy -o scores.npy\n"
	"  npk get digits.npk pixels --rows 3 | npk score digits.npk pixels -m l2 --json --rows 0:3 -\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
