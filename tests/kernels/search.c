/* search.c - see search.h.  */
#include <math.h>
#include <stdlib.h>

#include "search.h"

bool t_before(enum npkv_metric m, double a, uint64_t row_a, double b, uint64_t row_b)
{
	if (isnan(a) != isnan(b))
		return !isnan(a);
	if (isnan(a) || a == b)
		return row_a < row_b;
	return npkv_is_similarity(m) ? a > b : a < b;
}

/* Inserts into a sorted list of at most k; returns whether it changed. */
static bool keep(const struct t_problem *p, uint64_t *ids, double *scores, size_t *n, uint64_t row, double score)
{
	size_t at = *n;

	while (at > 0 && t_before(p->metric, score, row, scores[at - 1], ids[at - 1]))
		at--;
	if (at == p->k)
		return false;
	if (*n < p->k)
		++*n;
	for (size_t i = *n - 1; i > at; i--) {
		ids[i] = ids[i - 1];
		scores[i] = scores[i - 1];
	}
	ids[at] = row;
	scores[at] = score;
	return true;
}

struct state {
	struct npkv_plan plan;
	struct npkv_hit *hits;
	size_t cap;
	size_t *have;
	char *pack, *work;
};

static size_t take_hits(const struct npkv_ops *o, const struct t_problem *p, struct state *s, size_t nhits,
	size_t first, uint64_t *ids, double *scores)
{
	size_t bytes = p->dim * npkv_dtype_bytes(p->dtype);

	for (size_t i = 0; i < nhits; i++) {
		size_t q = s->hits[i].query, row = first + s->hits[i].row;
		double score = npkv_pair(o, p->metric, p->dtype, (const char *)p->queries + q * bytes,
			(const char *)p->rows + row * bytes, p->dim);

		if (keep(p, ids + q * p->k, scores + q * p->k, &s->have[q], row, score) && s->have[q] == p->k)
			npkv_limit(&s->plan, s->pack, s->work, q, scores[q * p->k + p->k - 1], false);
	}
	return nhits;
}

size_t t_search(const struct npkv_ops *o, const struct t_problem *p, uint64_t *ids, double *scores)
{
	size_t bytes = p->dim * npkv_dtype_bytes(p->dtype), block = 64, looked = 0;
	size_t most = ((size_t)1 << 20) / (bytes + 1) + 64;
	struct state s = {0};

	if ((p->narrow ? npkv_plan_init_narrow : npkv_plan_init)(&s.plan, o, p->metric, p->dtype, p->dim, p->nq) != 0)
		return SIZE_MAX;
	s.cap = 4 * s.plan.hits_min;
	s.hits = malloc(s.cap * sizeof(s.hits[0]));
	s.have = calloc(p->nq, sizeof(s.have[0]));
	s.pack = aligned_alloc(64, (s.plan.pack_bytes + 63) / 64 * 64);
	s.work = aligned_alloc(64, (s.plan.work_bytes + 63) / 64 * 64);
	if (!s.hits || !s.have || !s.pack || !s.work)
		looked = SIZE_MAX;
	if (looked == 0) {
		npkv_pack(&s.plan, p->queries, bytes, s.pack);
		npkv_work_init(&s.plan, s.pack, s.work);
	}
	for (size_t done = 0; looked != SIZE_MAX && done < p->nrows;) {
		size_t n = p->nrows - done < block ? p->nrows - done : block, nhits, step;

		step = npkv_scan(
			&s.plan, s.pack, s.work, (const char *)p->rows + done * bytes, bytes, n, s.hits, s.cap, &nhits);
		looked += take_hits(o, p, &s, nhits, done, ids, scores);
		done += step;
		block = 2 * block < most ? 2 * block : most;
	}
	free(s.work);
	free(s.pack);
	free(s.have);
	free(s.hits);
	return looked;
}
