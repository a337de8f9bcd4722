/* bench_write.c - what libnumpack's changes cost a C program: no interpreter, no foreign-function call between.
 *
 *   bench_write STORE
 *
 * Commands on stdin, a line each: VERB ARRAY REPEAT ROWS FIRST STEP, where VERB is append, replace or drop, and the rows are
 * FIRST, FIRST + STEP, ... (replace with STEP 0: ROWS rows together; else a little further at each call). The answer: the
 * seconds that REPEAT such calls took. */
#include <inttypes.h>
#include <numpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROWS_MAX 1000
#define SETS 100 /* lists of rows in turn, so that the same places do not stay in the first cache */
#define ROW_BYTES_MAX 4096

struct job {
	struct npk_array *a;
	uint64_t rows, first, step, turn;
	int64_t index[SETS][ROWS_MAX];
	uint8_t *data;
};

static void check(int rc, const struct npk_err *err)
{
	if (rc == 0)
		return;
	fprintf(stderr, "bench_write: %s\n", err->msg);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int append(struct job *j, struct npk_err *err)
{
	return npk_array_append(j->a, j->data, j->rows, err);
}

static int replace_together(struct job *j, struct npk_err *err)
{
	return npk_array_replace_range(j->a, j->first, j->rows, j->data, 0, err);
}

static int replace_scattered(struct job *j, struct npk_err *err)
{
	return npk_array_replace(j->a, j->index[j->turn++ % SETS], j->rows, j->data, 0, err);
}

static int drop(struct job *j, struct npk_err *err)
{
	return npk_array_drop_rows(j->a, j->index[0], j->rows, NULL, err);
}

static double run(struct npk_store *s, const char *verb, const char *name, uint64_t repeat, struct job *j)
{
	int (*call)(struct job *, struct npk_err *) = NULL;
	const struct npk_gen_info *info;
	struct npk_err err = {0};
	struct npk_gen *g;
	double start;

	check(npk_array_get(&j->a, s, name, &err), &err);
	check(npk_gen_get(&g, j->a, &err), &err);
	info = npk_gen_info(g);
	if (strcmp(verb, "append") == 0)
		call = append;
	else if (strcmp(verb, "replace") == 0)
		call = j->step ? replace_scattered : replace_together;
	else if (strcmp(verb, "drop") == 0)
		call = drop;
	if (!call || j->rows > ROWS_MAX || info->row_bytes > ROW_BYTES_MAX) {
		fprintf(stderr, "bench_write: %s, %" PRIu64 " rows of %" PRIu64 " bytes: cannot do that\n", verb,
			j->rows, info->row_bytes);
		exit(1);
	}
	npk_gen_put(g);
	for (uint64_t k = 0; k < SETS; k++)
		for (uint64_t i = 0; i < j->rows; i++)
			j->index[k][i] = (int64_t)(j->first + j->step * i + k * 41);
	start = now();
	for (uint64_t i = 0; i < repeat; i++)
		check(call(j, &err), &err);
	start = now() - start;
	npk_array_put(j->a);
	return start;
}

int main(int argc, char **argv)
{
	struct npk_err err = {0};
	struct npk_store *s;
	static struct job j;
	char line[256], verb[16], name[64];
	uint64_t repeat;

	j.data = calloc(ROWS_MAX, ROW_BYTES_MAX);
	if (argc != 2 || !j.data) {
		fprintf(stderr, "bench_write: one word: STORE\n");
		return 2;
	}
	check(npk_store_open(&s, argv[1], NPK_RDWR, &err), &err);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%15s %63s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, verb, name, &repeat, &j.rows,
			    &j.first, &j.step) != 6) {
			fprintf(stderr, "bench_write: VERB ARRAY REPEAT ROWS FIRST STEP: %s", line);
			return 2;
		}
		printf("%.9f\n", run(s, verb, name, repeat, &j));
		fflush(stdout);
	}
	check(npk_store_finish(s, &err), &err);
	free(j.data);
	return 0;
}
