/* bench_read.c - what libnumpack's reading calls cost a C program: no interpreter, no foreign-function call between.
 *
 *   bench_read store STORE ARRAY      open + close of the store with one array taken and mapped, and a lazy view
 *   bench_read open STORE             opening and closing the store, nothing else
 *   bench_read rows STORE ARRAY...    reading rows of each array, interleaved, beside the floor: the same copies with the
 *                                     slots known beforehand and no library between
 *
 * One JSON object a line on stdout: name, array, rows, and "ns": nanoseconds per call, one figure a round. */
#include <inttypes.h>
#include <math.h>
#include <numpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 15
#define TRIES 3 /* of which a round keeps the least: somebody else may have had the processor */
#define SETS 16 /* index lists in turn, so that the same rows do not stay in the first cache */
#define MANY 10000
#define ARRAYS_MAX 8
#define TASKS_MAX 2

struct array {
	const char *name;
	struct npk_gen *g;
	const struct npk_gen_info *info;
	const uint8_t *base;
	int64_t *rows;   /* SETS * MANY */
	uint64_t *slots; /* the same, looked up */
};

struct bench {
	struct array a[ARRAYS_MAX];
	int narrays;
	uint8_t *out;
	const char *store;
	unsigned turn;
};

static void check(int rc, const struct npk_err *err)
{
	if (rc == 0)
		return;
	fprintf(stderr, "bench_read: %s\n", err->msg);
	exit(1);
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void report(const char *name, const char *array, size_t rows, const double *ns)
{
	printf("{\"name\": \"%s\", \"array\": \"%s\", \"rows\": %zu, \"ns\": [", name, array, rows);
	for (int i = 0; i < ROUNDS; i++)
		printf("%s%.1f", i ? ", " : "", ns[i]);
	printf("]}\n");
}

typedef void bench_fn(struct bench *b, struct array *a, size_t n);

struct task {
	const char *name;
	bench_fn *fn;
};

static double time_calls(struct bench *b, const struct task *t, struct array *a, size_t n, unsigned calls)
{
	double start = now_ns();

	for (unsigned c = 0; c < calls; c++, b->turn++)
		t->fn(b, a, n);
	return (now_ns() - start) / calls;
}

/* Every round times each task on each array; the first rounds only warm up. */
static void run(struct bench *b, const struct task *task, int ntasks, size_t n, unsigned calls)
{
	static double ns[TASKS_MAX][ARRAYS_MAX][ROUNDS];

	for (int round = -2; round < ROUNDS; round++)
		for (int k = 0; k < ntasks * b->narrays; k++) {
			int t = k % ntasks, i = k / ntasks;
			double least = time_calls(b, &task[t], &b->a[i], n, calls);

			for (int again = 1; again < TRIES; again++)
				least = fmin(least, time_calls(b, &task[t], &b->a[i], n, calls));
			if (round >= 0)
				ns[t][i][round] = least;
		}
	for (int k = 0; k < ntasks * b->narrays; k++)
		report(task[k % ntasks].name, b->a[k / ntasks].name, n, ns[k % ntasks][k / ntasks]);
}

static void take(struct bench *b, struct array *a, size_t n)
{
	struct npk_err err;

	check(npk_gen_take(a->g, a->rows + b->turn % SETS * MANY, n, b->out, &err), &err);
}

static void take_floor(struct bench *b, struct array *a, size_t n)
{
	const uint64_t *slots = a->slots + b->turn % SETS * MANY;
	size_t len = a->info->row_bytes;

	for (size_t i = 0; i < n; i++)
		memcpy(b->out + i * len, a->base + slots[i] * len, len);
}

static void slot_of(struct bench *b, struct array *a, size_t n)
{
	const int64_t *rows = a->rows + b->turn % SETS * MANY;
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += npk_gen_slot(a->g, (uint64_t)rows[i]);
	memcpy(b->out, &sum, sizeof(sum));
}

static uint64_t somewhere(const struct bench *b, const struct array *a, size_t n)
{
	return n < a->info->rows ? (uint64_t)a->rows[b->turn % (SETS * MANY)] % (a->info->rows - n) : 0;
}

static void slice(struct bench *b, struct array *a, size_t n)
{
	struct npk_err err;
	uint64_t rows = n < a->info->rows ? n : a->info->rows;

	check(npk_gen_read_rows(a->g, somewhere(b, a, n), rows, b->out, &err), &err);
}

static void scan(struct bench *b, struct array *a, size_t n)
{
	struct npk_err err;

	for (uint64_t at = 0; at < a->info->rows; at += n)
		check(npk_gen_read_rows(a->g, at, a->info->rows - at < n ? a->info->rows - at : n, b->out, &err), &err);
}

/* Opening and closing, each by itself. */
static void bench_open(const char *path)
{
	static double open_ns[ROUNDS], close_ns[ROUNDS];
	struct npk_store *s;
	struct npk_err err;

	for (int round = -2; round < ROUNDS; round++) {
		double start = now_ns(), middle;

		check(npk_store_open(&s, path, NPK_RDONLY, &err), &err);
		middle = now_ns();
		npk_store_close(s);
		if (round >= 0) {
			open_ns[round] = middle - start;
			close_ns[round] = now_ns() - middle;
		}
	}
	report("open", "", 0, open_ns);
	report("close", "", 0, close_ns);
}

static void take_array(struct npk_store *s, const char *name)
{
	struct npk_array *a;
	struct npk_gen *g;
	struct npk_err err;
	const void *p;
	uint64_t n;

	check(npk_array_get(&a, s, name, &err), &err);
	check(npk_gen_get(&g, a, &err), &err);
	if (npk_gen_info(g)->rows)
		check(npk_gen_borrow(g, 0, &p, &n, &err), &err);
	npk_gen_put(g);
	npk_array_put(a);
}

static void open_view_close(struct bench *b, struct array *a, size_t n)
{
	struct npk_store *s;
	struct npk_err err;

	(void)n;
	check(npk_store_open(&s, b->store, NPK_RDONLY, &err), &err);
	take_array(s, a->name);
	npk_store_close(s);
}

static struct npk_store *opened;

static void lazy_view(struct bench *b, struct array *a, size_t n)
{
	(void)b;
	(void)n;
	take_array(opened, a->name);
}

static void load_array(struct array *a, struct npk_store *s, uint64_t *seed)
{
	struct npk_array *named;
	struct npk_err err;
	const void *first;
	uint64_t together;

	check(npk_array_get(&named, s, a->name, &err), &err);
	check(npk_gen_get(&a->g, named, &err), &err);
	npk_array_put(named);
	a->info = npk_gen_info(a->g);
	a->rows = calloc(SETS * MANY, sizeof(*a->rows));
	a->slots = calloc(SETS * MANY, sizeof(*a->slots));
	if (!a->rows || !a->slots || a->info->rows == 0)
		exit(1);
	for (size_t i = 0; i < SETS * MANY; i++) {
		a->rows[i] = (int64_t)(next_random(seed) % a->info->rows);
		a->slots[i] = npk_gen_slot(a->g, (uint64_t)a->rows[i]);
	}
	check(npk_gen_borrow(a->g, 0, &first, &together, &err), &err); /* one data file: a borrow gives its place */
	a->base = (const uint8_t *)first - npk_gen_slot(a->g, 0) * a->info->row_bytes;
}

static void bench_rows(struct bench *b)
{
	static const struct task takes[] = {{"take", take}, {"take_floor", take_floor}};
	static const struct task slots[] = {{"slot", slot_of}}, slices[] = {{"slice", slice}},
				 scans[] = {{"scan", scan}};

	for (unsigned n = 100; n <= MANY; n *= 10)
		run(b, takes, 2, n, 4 * MANY / n);
	run(b, slots, 1, MANY, 4);
	for (unsigned n = 1000; n <= MANY; n *= 10)
		run(b, slices, 1, n, 16 * MANY / n);
	run(b, scans, 1, MANY, 1);
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	uint64_t seed = 88172645463325252u;
	struct npk_err err;

	if (argc < 3 || argc - 3 > ARRAYS_MAX)
		return 2;
	b.store = argv[2];
	b.out = malloc((size_t)64 << 20);
	if (!b.out)
		return 1;
	if (strcmp(argv[1], "open") == 0) {
		bench_open(b.store);
		return 0;
	}
	check(npk_store_open(&opened, b.store, NPK_RDONLY, &err), &err);
	for (b.narrays = 0; b.narrays < argc - 3; b.narrays++) {
		b.a[b.narrays].name = argv[3 + b.narrays];
		load_array(&b.a[b.narrays], opened, &seed);
	}
	if (strcmp(argv[1], "store") == 0) {
		run(&b, (struct task[]){{"lazy view", lazy_view}}, 1, 0, 10000);
		run(&b, (struct task[]){{"open+view+close", open_view_close}}, 1, 0, 100);
	} else {
		bench_rows(&b);
	}
	for (int i = 0; i < b.narrays; i++) {
		npk_gen_put(b.a[i].g);
		free(b.a[i].rows);
		free(b.a[i].slots);
	}
	npk_store_close(opened);
	free(b.out);
	return 0;
}
