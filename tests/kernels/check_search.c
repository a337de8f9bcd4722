/* check_search.c - the result of a search is what sorting all npkv_pair() scores gives, ids and bits of the scores:
 * whatever the level, the number of queries, the values, and the buffers' ends.  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern.h"
#include "search.h"

struct entry {
	double score;
	uint64_t row;
};

static enum npkv_metric sort_metric;

static int by_rank(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->row == y->row)
		return 0;
	return t_before(sort_metric, x->score, x->row, y->score, y->row) ? -1 : 1;
}

static void compare(const struct k_level *l, const struct t_problem *p, enum k_values v)
{
	size_t bytes = p->dim * npkv_dtype_bytes(p->dtype), best = p->k < p->nrows ? p->k : p->nrows;
	struct entry *all = malloc((p->nrows + 1) * sizeof(*all));
	uint64_t *ids = malloc(p->nq * p->k * sizeof(*ids));
	double *scores = malloc(p->nq * p->k * sizeof(*scores));

	if (t_search(&l->ops, p, ids, scores) == SIZE_MAX)
		k_fail("%s: metric %d type %d dim %zu: refused", l->name, p->metric, p->dtype, p->dim);
	for (size_t q = 0; q < p->nq; q++) {
		for (size_t i = 0; i < p->nrows; i++)
			all[i] = (struct entry){
				npkv_pair(&l->ops, p->metric, p->dtype, (const char *)p->queries + q * bytes,
					(const char *)p->rows + i * bytes, p->dim),
				i};
		sort_metric = p->metric;
		qsort(all, p->nrows, sizeof(*all), by_rank);
		for (size_t i = 0; i < best; i++) {
			if (ids[q * p->k + i] == all[i].row &&
				memcmp(&scores[q * p->k + i], &all[i].score, sizeof(double)) == 0)
				continue;
			k_fail("%s metric %d type %d values %d dim %zu query %zu/%zu rows %zu k %zu%s: place %zu is "
			       "row %llu "
			       "%.17g, want %llu %.17g",
				l->name, p->metric, p->dtype, v, p->dim, q, p->nq, p->nrows, p->k,
				p->narrow ? " narrow" : "", i, (unsigned long long)ids[q * p->k + i],
				scores[q * p->k + i], (unsigned long long)all[i].row, all[i].score);
			break;
		}
	}
	free(scores);
	free(ids);
	free(all);
}

void check_search(const struct k_level *l)
{
	static const size_t dims[] = {0, 1, 2, 3, 7, 8, 10, 15, 17, 31, 33, 64, 96, 100, 128, 257, 512, 40000};
	static const size_t nqs[] = {1, 2, 4, 5, 8, 9, 16, 17, 33, 45};
	static const size_t nrows[] = {0, 1, 5, 13, 14, 15, 100, 333};
	static const size_t ks[] = {1, 3, 10, 400};
	uint64_t rng = 3;

	for (unsigned n = 0; n < 9 * 6 * K_VALUES * 8; n++) {
		struct t_problem p = {.metric = n % 9, .dtype = n / 9 % 6};
		enum k_values v = n / 54 % K_VALUES;
		size_t bytes;
		char *q, *x;

		if (!npkv_supported(p.metric, p.dtype) || !k_take())
			continue;
		if ((p.metric == NPKV_KL || p.metric == NPKV_JS) && (v == K_PLAIN || v == K_OFFSET))
			v = K_PROBABILITIES;
		p.dim = dims[k_rand(&rng) % (n % 97 == 0 ? 18 : 17)];
		p.nq = p.dim > 1000 ? 2 : nqs[k_rand(&rng) % 10];
		p.nrows = p.dim > 1000 ? 14 : nrows[k_rand(&rng) % 8];
		p.k = ks[k_rand(&rng) % 4];
		p.narrow = k_rand(&rng) % 5 == 0;
		bytes = p.dim * npkv_dtype_bytes(p.dtype);
		p.queries = q = k_guarded(2, p.nq * bytes);
		p.rows = x = k_guarded(3, p.nrows * bytes);
		k_fill(p.dtype, v == K_SPECIAL || v == K_HUGE ? K_PROBABILITIES : v, &rng, p.nq * p.dim, q);
		k_fill(p.dtype, v, &rng, p.nrows * p.dim, x);
		if (p.nrows > 20 && bytes > 0) { /* a row of zeros, and a query's twins */
			memset(x + 7 * bytes, 0, bytes);
			memcpy(x + 9 * bytes, q, bytes);
			memcpy(x + 12 * bytes, q, bytes);
		}
		compare(l, &p, v);
	}
}
