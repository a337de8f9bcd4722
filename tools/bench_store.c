/* bench_store.c - the operations of npk bench by the library. */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct store_side {
	struct npkt_side side;
	struct npk_store *s;
	char *name;
};

static int get(struct store_side *t, struct npk_array **a, struct npk_gen **g, struct npk_err *err)
{
	int rc = npk_array_get(a, t->s, t->name, err);

	if (rc == 0)
		rc = npk_gen_get(g, *a, err);
	return rc;
}

/* --- reading ----------------------------------------------------------------------------------------------------------- */

static int read_view(struct npk_gen *g, const char *sel, struct npkt_bench *b, struct npk_err *err)
{
	struct npk_view *v = NULL;
	int rc = npk_view_open(&v, g, sel, err);
	uint64_t bytes = rc == 0 ? npk_view_info(v)->bytes : 0;
	size_t n;

	for (uint64_t at = 0; rc == 0 && at < bytes; at += n) {
		n = bytes - at < NPKT_BLOCK ? (size_t)(bytes - at) : NPKT_BLOCK;
		rc = npk_view_read(v, at, b->out, n, err);
		if (rc == 0)
			rc = npkt_bench_go_on(b, err);
	}
	npk_view_close(v);
	return rc;
}

/* Where the rows lie, without a copy. */
static int scan(struct npk_gen *g, struct npkt_bench *b, struct npk_err *err)
{
	uint64_t row_bytes = npk_gen_info(g)->row_bytes, rows = npk_gen_info(g)->rows, n;
	const void *p;
	int rc = 0;

	b->sum = 0;
	for (uint64_t row = 0; rc == 0 && row < rows; row += n) {
		rc = npk_gen_borrow(g, row, &p, &n, err);
		for (uint64_t at = 0, len = rc == 0 ? n * row_bytes : 0; rc == 0 && at < len; at += NPKT_BLOCK) {
			b->sum += npkt_bench_sum(
				(const char *)p + at, len - at < NPKT_BLOCK ? (size_t)(len - at) : NPKT_BLOCK);
			rc = npkt_bench_go_on(b, err);
		}
	}
	return rc;
}

static int slices(struct npk_gen *g, struct npkt_bench *b, struct npk_err *err)
{
	char sel[64];
	int rc = 0;

	for (int i = 0; i < NPKT_SLICES && rc == 0; i++) {
		snprintf(sel, sizeof(sel), "%" PRIu64 ":%" PRIu64, b->slice[i], b->slice[i] + b->nslice);
		rc = read_view(g, sel, b, err);
	}
	return rc;
}

static bool go_on(void *ctx, uint64_t done, uint64_t all)
{
	(void)done, (void)all;
	return npkt_bench_go_on(ctx, NULL) == 0;
}

/* The nearest of a row of the array. */
static int search(struct npk_gen *g, struct npkt_bench *b, struct npk_err *err)
{
	struct npk_search how = {.metric = NPK_L2, .k = NPKT_HITS, .progress = go_on, .ctx = b};
	struct npk_queries q = {npk_gen_info(g)->dtype, b->out, 1, 0};
	struct npk_hits hits = {0};
	int rc = npk_gen_read_rows(g, (uint64_t)b->random[0], 1, b->out, err);

	q.dim = npk_gen_info(g)->row_bytes / npk_dtype_size(q.dtype);
	if (rc == 0)
		rc = npk_search(g, &q, &how, &hits, err);
	npk_hits_fini(&hits);
	return rc;
}

/* --- writing ----------------------------------------------------------------------------------------------------------- */

static int save(struct store_side *t, struct npkt_bench *b, struct npk_err *err)
{
	uint64_t bytes = b->rows * b->row_bytes;
	struct npk_save *w = NULL;
	int rc = npk_save_open(&w, t->s, b->dtype, &b->shape, err);
	size_t n;

	for (uint64_t at = 0; rc == 0 && at < bytes; at += n) {
		n = bytes - at < NPKT_BLOCK ? (size_t)(bytes - at) : NPKT_BLOCK;
		rc = npk_save_write(w, b->block, n, err);
		if (rc == 0)
			rc = npkt_bench_go_on(b, err);
	}
	if (rc == 0)
		return npk_save_commit(w, t->name, err);
	npk_save_abort(w);
	return rc;
}

static int append(struct npk_array *a, struct npkt_bench *b, struct npk_err *err)
{
	int rc = 0;

	for (int i = 0; i < NPKT_APPENDS && rc == 0; i++)
		rc = npk_array_append(a, b->block, b->nappend, err);
	return rc;
}

/* --- the side ---------------------------------------------------------------------------------------------------------- */

static int run_op(struct store_side *t, struct npkt_bench *b, enum npkt_op op, struct npk_array *a, struct npk_gen *g,
	struct npk_err *err)
{
	switch (op) {
	case NPKT_LOAD:
		return read_view(g, NULL, b, err);
	case NPKT_SCAN:
		return scan(g, b, err);
	case NPKT_ROWS:
		return npk_gen_take(g, b->random, b->nrandom, b->out, err);
	case NPKT_SLICE:
		return slices(g, b, err);
	case NPKT_APPEND:
		return append(a, b, err);
	case NPKT_REPLACE:
		return npk_array_replace(a, b->random, b->nrandom, b->out, 0, err);
	case NPKT_SEARCH:
		return search(g, b, err);
	case NPKT_DROP:
		return npk_array_drop_rows(a, b->random, b->nrandom, NULL, err);
	case NPKT_COMPACT:
		return npk_array_compact(a, err);
	case NPKT_SAVE:
	case NPKT_OPS:
		break;
	}
	return save(t, b, err);
}

static bool changes(enum npkt_op op)
{
	return op == NPKT_SAVE || op == NPKT_APPEND || op == NPKT_REPLACE || op == NPKT_DROP || op == NPKT_COMPACT;
}

static int run(struct npkt_side *side, struct npkt_bench *b, enum npkt_op op, struct npk_err *err)
{
	struct store_side *t = (struct store_side *)side;
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	int rc = op == NPKT_SAVE ? 0 : get(t, &a, &g, err);

	if (rc == 0)
		rc = run_op(t, b, op, a, g, err);
	npk_gen_put(g);
	npk_array_put(a);
	return rc == 0 && b->sync && changes(op) ? npk_store_fsync(t->s, err) : rc;
}

static void close_side(struct npkt_side *side)
{
	struct store_side *t = (struct store_side *)side;

	npk_store_close(t->s);
	free(t->name);
	free(t);
}

/* What is there decides. */
static int take_shape(struct store_side *t, struct npkt_bench *b, struct npk_err *err)
{
	const struct npk_gen_info *info;
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	int rc = get(t, &a, &g, err);

	if (rc == 0) {
		info = npk_gen_info(g);
		b->dtype = info->dtype;
		b->shape = info->shape;
		b->rows = info->rows;
		b->row_bytes = info->row_bytes;
	}
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

int npkt_side_store(struct npkt_side **out, const char *path, const char *name, unsigned flags, struct npkt_bench *b,
	struct npk_err *err)
{
	struct store_side *t = calloc(1, sizeof(*t));
	int rc = 0;

	if (!t || !(t->name = strdup(name))) {
		free(t);
		return npk_fail(err, ENOMEM, "no memory");
	}
	t->side = (struct npkt_side){run, close_side};
	rc = npk_store_open(&t->s, path, flags, err);
	if (rc == 0 && !(flags & NPK_RDWR))
		rc = take_shape(t, b, err);
	if (rc != 0) {
		close_side(&t->side);
		return rc;
	}
	*out = &t->side;
	return 0;
}

/* --- which array ------------------------------------------------------------------------------------------------------- */

static int pick(struct npk_store *s, const char *name, struct npk_array_info *info, char **picked, struct npk_err *err)
{
	struct npk_array_info next;
	struct npk_array **list;
	const char *best = NULL;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (name && strcmp(npk_array_name(list[i], NULL), name) != 0)
			continue;
		rc = npk_array_info(list[i], &next, err);
		if (rc == 0 && name && next.damaged)
			rc = npk_fail(err, next.code, "%s", next.why);
		if (rc == 0 && !next.damaged && next.size_bytes > 0 && (!best || next.size_bytes > info->size_bytes)) {
			*info = next;
			best = npk_array_name(list[i], NULL);
		}
	}
	if (rc == 0 && !best)
		rc = name ? npk_fail(err, ENOENT, "no array '%.200s' with anything in it", name)
			  : npk_fail(err, ENOENT, "there is no array with anything in it to read");
	if (rc == 0 && !(*picked = strdup(best)))
		rc = npk_fail(err, ENOMEM, "no memory");
	npk_store_list_free(list, n);
	return rc;
}

int npkt_bench_pick(const char *store, const char *name, char **picked, char **data_file, struct npk_err *err)
{
	struct npk_array_info info;
	struct npk_store *s;
	int rc = npk_store_open(&s, store, NPK_RDONLY, err);

	if (rc != 0)
		return rc;
	*data_file = NULL;
	rc = pick(s, name, &info, picked, err);
	if (rc == 0 && info.nsegments == 0 && !npk_store_is_package(s) &&
		asprintf(data_file, "%s/%s", store, info.data_file) < 0) {
		*data_file = NULL;
		rc = npk_fail(err, ENOMEM, "no memory");
	}
	npk_store_close(s);
	return rc;
}
