/* An array of a store from C, by libnumpack and without a mount: save, map, append, drop, search, write in place, a transaction.
 *
 *     cc -o tour contrib/examples/tour.c $(pkg-config --cflags --libs libnumpack)
 *     ./tour STORE        # made when it is not there; writes the arrays `tour` and `kept`
 *
 * Every call that changes something is one atomic change, and refuses with a sentence in `err`. */
#include <errno.h>
#include <inttypes.h>
#include <numpack.h>
#include <stdio.h>

#define COLUMNS 3

/* Rows of i, i * i and 1. */
static void fill(float (*rows)[COLUMNS], unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		rows[i][0] = (float)(first + i);
		rows[i][1] = (float)((first + i) * (first + i));
		rows[i][2] = 1;
	}
}

static int print_shape(const char *what, struct npk_array *a, struct npk_err *err)
{
	struct npk_array_info info;
	int rc = npk_array_info(a, &info, err);

	if (rc == 0)
		printf("%s %" PRIu64 " %" PRIu64 "\n", what, info.shape.dim[0], info.shape.dim[1]);
	return rc;
}

/* A generation is one layout of the array: as long as it is held, its rows neither move nor go away. */
static int print_sum(struct npk_gen *g, struct npk_err *err)
{
	uint64_t rows = npk_gen_info(g)->rows, n = 0;
	double sum = 0;

	for (uint64_t row = 0; row < rows; row += n) { /* runs of rows that lie together, right in the mapped file */
		const void *run;
		int rc = npk_gen_borrow(g, row, &run, &n, err);

		if (rc != 0)
			return rc;
		for (uint64_t i = 0; i < n * COLUMNS; i++)
			sum += ((const float *)run)[i];
	}
	printf("sum %g\n", sum);
	return 0;
}

static int print_nearest(struct npk_gen *g, struct npk_err *err)
{
	struct npk_search how = {.metric = NPK_L2SQ, .k = 2};
	struct npk_hits hits = {0};
	float query[COLUMNS];
	int rc = npk_gen_read_rows(g, 0, 1, query, err);

	if (rc == 0) {
		struct npk_queries q = {.dtype = NPK_F32, .data = query, .nq = 1, .dim = COLUMNS};

		rc = npk_search(g, &q, &how, &hits, err);
	}
	for (size_t i = 0; rc == 0 && i < hits.k; i++)
		printf("near %" PRIu64 " %g\n", hits.row[i], hits.score[i]);
	npk_hits_fini(&hits);
	return rc;
}

/* What `print` says of the array's present rows. */
static int now(struct npk_array *a, int (*print)(struct npk_gen *g, struct npk_err *err), struct npk_err *err)
{
	struct npk_gen *g = NULL;
	int rc = npk_gen_get(&g, a, err);

	if (rc == 0)
		rc = print(g, err);
	npk_gen_put(g);
	return rc;
}

static int print_first(struct npk_gen *g, struct npk_err *err)
{
	float row[COLUMNS];
	int rc = npk_gen_read_rows(g, 0, 1, row, err);

	if (rc == 0)
		printf("wrote %g\n", row[2]);
	return rc;
}

static int overwrite(struct npk_array *a, struct npk_err *err)
{
	float row[COLUMNS] = {1, 1, 100};

	return npk_array_replace_range(a, 0, 1, row, 0, err);
}

/* Two changes that become one. Nobody outside sees what is done in the transaction before its commit. */
static int keep_and_drop(struct npk_store *s, struct npk_err *err)
{
	struct npk_txn *t = NULL;
	struct npk_array *tour = NULL;
	int rc = npk_txn_begin(&t, s, err);

	if (rc == 0) {
		rc = npk_store_remove(npk_txn_store(t), "kept", err);
		rc = rc == -ENOENT ? 0 : rc; /* there was none */
	}
	if (rc == 0)
		rc = npk_store_clone(npk_txn_store(t), "tour", "kept", err);
	if (rc == 0)
		rc = npk_array_get(&tour, npk_txn_store(t), "tour", err);
	if (rc == 0)
		rc = npk_array_drop(tour, "0:2", NULL, err);
	npk_array_put(tour);
	if (rc == 0)
		rc = npk_txn_commit(t, NULL, NULL, err);
	if (rc != 0)
		npk_txn_abort(t);
	return rc;
}

static int tour(struct npk_store *s, struct npk_err *err)
{
	struct npk_shape shape = {.ndim = 2, .dim = {6, COLUMNS}};
	struct npk_array *a = NULL, *kept = NULL;
	float rows[6][COLUMNS];
	int rc;

	fill(rows, 0, 6);
	rc = npk_store_save(s, "tour", NPK_F32, &shape, rows, err);
	if (rc == 0)
		rc = npk_array_get(&a, s, "tour", err);
	if (rc == 0)
		rc = print_shape("saved", a, err);
	if (rc == 0)
		rc = now(a, print_sum, err);
	fill(rows, 6, 2);
	if (rc == 0)
		rc = npk_array_append(a, rows, 2, err);
	if (rc == 0)
		rc = print_shape("appended", a, err);
	if (rc == 0)
		rc = npk_array_drop(a, "0,-1", NULL, err);
	if (rc == 0)
		rc = print_shape("dropped", a, err);
	if (rc == 0)
		rc = now(a, print_nearest, err);
	if (rc == 0)
		rc = overwrite(a, err);
	if (rc == 0)
		rc = now(a, print_first, err);
	if (rc == 0)
		rc = keep_and_drop(s, err);
	if (rc == 0)
		rc = npk_array_get(&kept, s, "kept", err);
	if (rc == 0)
		rc = print_shape("kept", kept, err);
	if (rc == 0)
		rc = print_shape("tour", a, err);
	npk_array_put(kept);
	npk_array_put(a);
	return rc;
}

int main(int argc, char **argv)
{
	struct npk_store *s = NULL;
	struct npk_err err = {0};
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: %s STORE\n", argv[0]);
		return 2;
	}
	rc = npk_store_open(&s, argv[1], NPK_RDWR | NPK_CREATE, &err);
	if (rc == 0)
		rc = tour(s, &err);
	if (rc == 0) {
		rc = npk_store_finish(s, &err); /* now any NumPack reads it */
		s = NULL;
	}
	npk_store_close(s);
	if (rc != 0)
		fprintf(stderr, "%s\n", err.msg);
	return rc == 0 ? 0 : 1;
}
