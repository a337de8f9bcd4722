/* test_search.c - searching from C, where sanitizers see everything: random stores against sorting all scores, and what no
 * result shows: memory, the plan in use, the thread that progress is told on. */
#include "t.h"
#include "unit/mkstore.h"

#include <errno.h>
#include <pthread.h>

#include "search.h"

static int scaled(int n)
{
	const char *scale = getenv("NPK_SCALE");
	double v = scale ? n * atof(scale) : n;

	return v < 1 ? 1 : (int)v;
}

struct opened {
	struct npk_store *store;
	struct npk_array *array;
	struct npk_gen *gen;
};

static void open_array(struct opened *o, const struct mk_array *a)
{
	const char *dir = mk_dir();

	mk_store(dir, a, 1);
	*o = (struct opened){0};
	T_CHECK(npk_store_open(&o->store, dir, NPK_RDONLY, NULL) == 0);
	T_CHECK(npk_array_get(&o->array, o->store, a->name, NULL) == 0);
	T_CHECK(npk_gen_get(&o->gen, o->array, NULL) == 0);
}

static void close_array(struct opened *o)
{
	npk_gen_put(o->gen);
	npk_array_put(o->array);
	npk_store_close(o->store);
}

static float any_float(uint64_t *seed, double shift)
{
	return (float)((double)(t_rand(seed) >> 40) / (1 << 23) - 1 + shift);
}

static void any_bytes(uint64_t *seed, unsigned dtype, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n; i++) {
		float f = any_float(seed, 0);

		if (dtype == NPK_F32)
			memcpy(out + 4 * i, &f, 4);
		else
			out[i] = (uint8_t)t_rand(seed);
	}
}

/* --- results ---------------------------------------------------------------------------------------------------------- */

struct scored {
	double score;
	uint64_t row;
	bool high;
};

static int by_rank(const void *pa, const void *pb)
{
	const struct scored *a = pa, *b = pb;

	if (a->score != b->score)
		return (a->high ? a->score > b->score : a->score < b->score) ? -1 : 1;
	return a->row < b->row ? -1 : a->row > b->row;
}

static void check_against_sorting(
	struct npk_gen *g, const struct npk_queries *q, enum npk_metric metric, const struct npk_hits *h, uint64_t k)
{
	uint64_t rows = npk_gen_info(g)->rows;
	double *scores = malloc(rows * sizeof(*scores));
	struct scored *all = malloc(rows * sizeof(*all));
	size_t width = (size_t)q->dim * npk_dtype_size(q->dtype);

	T_CHECK(h->nq == q->nq && h->k == (k < rows ? k : rows));
	for (size_t i = 0; i < q->nq; i++) {
		struct npk_queries one = {q->dtype, (const uint8_t *)q->data + i * width, 1, q->dim};

		T_CHECK(npk_scores(g, &one, metric, 0, rows, scores, NULL) == 0);
		for (uint64_t r = 0; r < rows; r++)
			all[r] = (struct scored){scores[r], r, npk_metric_is_similarity(metric)};
		qsort(all, rows, sizeof(*all), by_rank);
		for (size_t j = 0; j < h->k; j++)
			T_CHECKF(h->row[i * h->k + j] == all[j].row && h->score[i * h->k + j] == all[j].score,
				"query %zu hit %zu: row %llu, not %llu", i, j, (unsigned long long)h->row[i * h->k + j],
				(unsigned long long)all[j].row);
	}
	free(scores);
	free(all);
}

TEST(random_stores_against_sorting)
{
	static const unsigned dtypes[] = {NPK_F32, NPK_U8, NPK_I8, NPK_BOOL};

	for (int i = 0; i < scaled(60); i++) {
		uint64_t seed = t_seed() * 1000 + (uint64_t)i;
		unsigned dtype = dtypes[t_rand(&seed) % 4];
		enum npk_metric metric = (enum npk_metric)(t_rand(&seed) % (dtype == NPK_F32 ? NPK_HAMMING : NPK_KL));
		size_t rows = 1 + t_rand(&seed) % 3000, dim = 1 + t_rand(&seed) % 80, nq = 1 + t_rand(&seed) % 30;
		size_t width = dim * npk_dtype_size(dtype), k = 1 + t_rand(&seed) % 40, share = t_rand(&seed) % 10;
		uint8_t *data = malloc(rows * width), *dead = calloc(1, rows), *query = malloc(nq * width);
		struct mk_array a = {.name = "x", .dtype = dtype, .ndim = 2, .dim = {rows, dim}, .data = data};
		struct npk_queries q = {dtype, query, nq, dim};
		struct opened o;

		metric = dtype == NPK_I8 && metric >= NPK_HAMMING ? NPK_DOT : metric;
		any_bytes(&seed, dtype, rows * dim, data);
		any_bytes(&seed, dtype, nq * dim, query);
		for (size_t r = 0; r < rows; r++) {
			dead[r] = t_rand(&seed) % 10 < share;
			if (r > 0 && t_rand(&seed) % 3 == 0)
				memcpy(data + r * width, data + t_rand(&seed) % r * width, width);
		}
		a.deleted = share ? dead : NULL;
		a.segment_rows = t_rand(&seed) % 2 ? 1 + rows / (1 + t_rand(&seed) % 5) : 0;
		open_array(&o, &a);
		for (unsigned threads = 0; threads < 5; threads += 2) {
			struct npk_search how = {.metric = metric, .k = k, .threads = threads};
			struct npk_hits h;

			T_CHECK(npk_search(o.gen, &q, &how, &h, NULL) == 0);
			check_against_sorting(o.gen, &q, metric, &h, k);
			npk_hits_fini(&h);
		}
		close_array(&o);
		free(data);
		free(dead);
		free(query);
	}
}

/* --- threads ---------------------------------------------------------------------------------------------------------- */

struct told {
	pthread_t caller;
	unsigned calls, stop_at;
	bool elsewhere;
};

static bool tell(void *ctx, uint64_t done, uint64_t all)
{
	struct told *t = ctx;

	t->elsewhere |= !pthread_equal(pthread_self(), t->caller) || done > all;
	return ++t->calls != t->stop_at;
}

static void *search_zeros(void *ctx)
{
	struct opened *o = ctx;
	float query[16] = {0};
	struct npk_queries q = {NPK_F32, query, 1, 16};

	for (int i = 0; i < 5; i++) {
		struct told told = {.caller = pthread_self(), .stop_at = i % 2 ? 2 : 0};
		struct npk_search how = {.metric = NPK_L2, .k = 3, .threads = 4, .progress = tell, .ctx = &told};
		struct npk_hits h;
		int rc = npk_search(o->gen, &q, &how, &h, NULL);

		if (told.elsewhere || (rc != 0 && rc != -ECANCELED) || (rc != 0 && !told.stop_at))
			return (void *)"wrong";
		if (rc == 0) {
			if (h.row[0] != 0 || h.row[2] != 2)
				return (void *)"wrong";
			npk_hits_fini(&h);
		}
	}
	return NULL;
}

TEST(progress_is_told_on_the_callers_thread_and_searches_do_not_disturb_each_other)
{
	size_t rows = 100000;
	float *data = calloc(rows, 16 * sizeof(*data));
	struct mk_array a = {.name = "x", .dtype = NPK_F32, .ndim = 2, .dim = {rows, 16}, .data = data};
	pthread_t thread[4];
	struct opened o;

	open_array(&o, &a);
	for (int i = 0; i < 4; i++)
		T_CHECK(pthread_create(&thread[i], NULL, search_zeros, &o) == 0);
	for (int i = 0; i < 4; i++) {
		void *said;

		T_CHECK(pthread_join(thread[i], &said) == 0);
		T_CHECK(said == NULL);
	}
	close_array(&o);
	free(data);
}

/* --- what no result shows --------------------------------------------------------------------------------------------- */

static bool row_is(void *ctx, uint64_t at, uint64_t *row)
{
	(void)ctx;
	*row = at;
	return true;
}

/* The plan in use after a search of random rows around `shift`. */
static unsigned plan_after(enum npk_metric metric, size_t nq, size_t k, double shift)
{
	size_t dim = 24, rows = 6000;
	uint64_t seed = t_seed();
	float *query = malloc(nq * dim * sizeof(*query)), *data = malloc(rows * dim * sizeof(*data));
	struct npk_queries q = {NPK_F32, query, nq, dim};
	struct npki_query ready;
	struct npki_topk t;
	unsigned plan;

	for (size_t i = 0; i < nq * dim; i++)
		query[i] = any_float(&seed, shift);
	for (size_t i = 0; i < rows * dim; i++)
		data[i] = any_float(&seed, shift);
	T_CHECK(npki_query_init(&ready, &q, metric, NULL) == 0 && npki_query_plan(&ready, NULL) == 0);
	T_CHECK(npki_topk_init(&t, &ready, k, true, 1, NULL) == 0);
	npki_topk_feed(&t, (const uint8_t *)data, dim * sizeof(*data), rows, row_is, NULL);
	plan = t.plan;
	npki_topk_fini(&t);
	npki_query_fini(&ready);
	free(query);
	free(data);
	return plan;
}

TEST(the_narrow_plan_is_taken_for_false_alarms_only)
{
	T_CHECK(plan_after(NPK_L2SQ, 100, 10, 0) == 0);
	T_CHECK(plan_after(NPK_L2SQ, 100, 100, 0) == 0); /* many are reported and displaced again: no false alarms */
	T_CHECK(plan_after(NPK_L2SQ, 100, 2000, 0) == 0);
	T_CHECK(plan_after(NPK_L2SQ, 100, 10, 30000) == 1);
	T_CHECK(plan_after(NPK_L2, 100, 10, 30000) == 1);
	T_CHECK(plan_after(NPK_DOT, 100, 10, 30000) == 0); /* has one form only */
}

TEST(wide_rows_do_not_multiply_the_memory)
{
	size_t dim = (size_t)1 << 22; /* 32 MiB a row as float64 */
	int32_t *query = calloc(dim, sizeof(*query));
	struct npk_queries q = {NPK_I32, query, 1, dim};
	struct npki_query ready;
	struct npki_topk t;

	T_CHECK(npki_query_init(&ready, &q, NPK_DOT, NULL) == 0 && npki_query_plan(&ready, NULL) == 0);
	T_CHECK(npki_topk_init(&t, &ready, 1, true, 1, NULL) == 0);
	T_CHECK(t.converted_rows == 1);
	npki_topk_fini(&t);
	npki_query_fini(&ready);
	free(query);
}

TEST(the_threads_share_one_bound_on_memory)
{
	float query[8] = {0};
	struct npk_queries q = {NPK_F32, query, 2, 4};
	struct npki_query ready;
	struct npki_topk t;
	struct npk_err err = {0};

	T_CHECK(npki_query_init(&ready, &q, NPK_DOT, NULL) == 0 && npki_query_plan(&ready, NULL) == 0);
	T_CHECK(npki_topk_init(&t, &ready, (size_t)1 << 33, true, 4, &err) == -E2BIG);
	T_CHECK(err.code == E2BIG && t.item == NULL);
	npki_query_fini(&ready);
}

T_MAIN()
