/* bench.c - npk bench: how fast this machine reads and changes a store, beside plain file calls on the same bytes.
 *
 * Each round does every operation on both sides, one right after the other and in turns first, so that what else the machine does
 * meets both. The first round is not counted. */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define SIZE_DEFAULT ((uint64_t)64 << 20)
#define SIZE_MAX_BYTES ((uint64_t)1 << 40)
#define WIDTH_DEFAULT 128
#define COUNT_DEFAULT 1000
#define COUNT_MAX 100000
#define ROUNDS_DEFAULT 5
#define ROUNDS_MAX 1000
#define RANDOM_BYTES_MAX ((uint64_t)64 << 20) /* of one random operation */
#define SLICE_ROWS 10000

enum {
	SIZE,
	WIDTH,
	COUNT,
	ROUNDS,
	WRITE,
	SYNC,
	JSON
};

static const struct npkt_opt opts[] = {
	[SIZE] = {"size", "BYTES", 's', "of the scratch array; k, M, G are understood; 64M by default"},
	[WIDTH] = {"width", "N", 'w', "float32 numbers in one of its rows; 128 by default"},
	[COUNT] = {"count", "N", 'c', "rows of one random operation; 1000 by default"},
	[ROUNDS] = {"rounds", "N", 'n', "how often everything is measured; 5 by default"},
	[WRITE] = {"write", NULL, 'W', "a mount: also measure changes, on an array that is removed again"},
	[SYNC] = {"sync", NULL, 'S', "changes are on the disk before their time is taken"},
	[JSON] = {"json", NULL, 'j', "one JSON object with all numbers"},
	{0},
};

static const struct {
	const char *name, *plain;
	bool change;
} ops[NPKT_OPS] = {
	[NPKT_SAVE] = {"save", "write", true},
	[NPKT_LOAD] = {"load", "pread", false},
	[NPKT_SCAN] = {"scan", "mmap", false},
	[NPKT_ROWS] = {"rows", "pread of each", false},
	[NPKT_SLICE] = {"slice", "pread", false},
	[NPKT_APPEND] = {"append", "write", true},
	[NPKT_REPLACE] = {"replace", "pwrite of each", true},
	[NPKT_SEARCH] = {"search", "pread of all", false},
	[NPKT_DROP] = {"drop", "copy of the rest", true},
	[NPKT_COMPACT] = {"compact", "copy of the rest", true},
};

struct numbers {
	double npk[ROUNDS_MAX], plain[ROUNDS_MAX], ratio[ROUNDS_MAX]; /* seconds; npk / plain */
	char why[NPK_ERR_MAX]; /* it cannot be done with this array; else empty */
};

struct run {
	struct npkt_bench b;
	uint64_t size, width, count, rounds;
	bool write, json;
	const char *kind; /* "scratch", "store", "mount" */
	char *where, *array, *scratch;
	struct npkt_side *npk, *plain; /* plain may be NULL */
	struct numbers numbers[NPKT_OPS];
};

/* --- what both sides use ----------------------------------------------------------------------------------------------- */

int npkt_bench_go_on(struct npkt_bench *b, struct npk_err *err)
{
	return npkt_progress(&b->progress, b->done, b->all) ? 0 : npk_fail(err, ECANCELED, "was stopped");
}

uint64_t npkt_bench_sum(const void *bytes, size_t len)
{
	const char *p = bytes;
	uint64_t sum = 0, word = 0;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum += word;
	}
	word = 0;
	memcpy(&word, p, len);
	return sum + word;
}

/* xorshift64*: the same rows in every run. */
static uint64_t next_random(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	return x * 2685821657736338717u;
}

static void fill_block(struct npkt_bench *b)
{
	for (size_t i = 0; i < NPKT_BLOCK; i += sizeof(float)) {
		float x = (float)(next_random() >> 40) / (float)(1 << 24);

		memcpy(b->block + i, &x, sizeof(x));
	}
}

static void choose_rows(struct npkt_bench *b)
{
	for (uint64_t i = 0; i < b->nrandom; i++)
		b->random[i] = (int64_t)(next_random() % b->rows);
	for (int i = 0; i < NPKT_SLICES; i++)
		b->slice[i] = next_random() % (b->rows - b->nslice + 1);
}

/* --- measuring --------------------------------------------------------------------------------------------------------- */

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int measure(struct npkt_side *side, struct run *r, enum npkt_op op, double *seconds, struct npk_err *err)
{
	double begin = now_s();
	int rc = side->run(side, &r->b, op, err);

	*seconds = now_s() - begin;
	if (rc == 0)
		rc = npkt_bench_go_on(&r->b, err);
	return rc ? npk_err_context(err, rc, "%s", ops[op].name) : 0;
}

/* Both sides, in turns first. Where both have the same bytes they must have read the same. */
static int measure_both(struct run *r, enum npkt_op op, bool plain_first, double seconds[2], struct npk_err *err)
{
	uint64_t sum[2] = {0, 0};
	int rc = 0;

	for (int i = 0; i < 2 && rc == 0; i++) {
		int which = (i == 0) == plain_first;
		struct npkt_side *side = which ? r->plain : r->npk;

		if (side)
			rc = measure(side, r, op, &seconds[which], err);
		sum[which] = r->b.sum;
	}
	if (rc == 0 && op == NPKT_SCAN && r->write && sum[0] != sum[1])
		rc = npk_fail(err, EIO,
			"scan: the words of %.300s add up to %" PRIx64 ", those of the plain file to %" PRIx64,
			r->where, sum[0], sum[1]);
	return rc;
}

/* Round 0 is not counted. */
static int measure_op(struct run *r, enum npkt_op op, uint64_t round, struct npk_err *err)
{
	struct numbers *n = &r->numbers[op];
	double seconds[2] = {0, 0};
	int rc;

	if (n->why[0] || (ops[op].change && !r->write))
		return 0;
	choose_rows(&r->b);
	rc = measure_both(r, op, round & 1, seconds, err);
	r->b.done++;
	if (rc == -EINVAL && op == NPKT_SEARCH) { /* no numbers that have a distance */
		snprintf(n->why, sizeof(n->why), "%s", err->msg);
		return 0;
	}
	if (rc == 0 && round > 0) {
		n->npk[round - 1] = seconds[0];
		n->plain[round - 1] = seconds[1];
		n->ratio[round - 1] = seconds[1] > 0 ? seconds[0] / seconds[1] : 0;
	}
	return rc;
}

static int measure_all(struct run *r, struct npk_err *err)
{
	int rc = 0;

	for (uint64_t round = 0; round <= r->rounds && rc == 0; round++)
		for (int op = 0; op < NPKT_OPS && rc == 0; op++)
			rc = measure_op(r, (enum npkt_op)op, round, err);
	return rc;
}

/* --- the table --------------------------------------------------------------------------------------------------------- */

static int by_value(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return a < b ? -1 : a > b;
}

struct spread {
	double median, min, max;
};

static struct spread spread_of(const double *values, uint64_t n)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_value);
	return (struct spread){(sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sorted[0], sorted[n - 1]};
}

/* Bytes that an operation moves; 0: it is told in microseconds. */
static uint64_t bytes_of(const struct run *r, enum npkt_op op)
{
	switch (op) {
	case NPKT_SAVE:
	case NPKT_LOAD:
	case NPKT_SCAN:
		return r->b.rows * r->b.row_bytes;
	case NPKT_SLICE:
		return NPKT_SLICES * r->b.nslice * r->b.row_bytes;
	default:
		return 0;
	}
}

/* How many of what is told there are in one measured operation. */
static uint64_t pieces_of(const struct run *r, enum npkt_op op)
{
	switch (op) {
	case NPKT_ROWS:
	case NPKT_REPLACE:
		return r->b.nrandom;
	case NPKT_APPEND:
		return NPKT_APPENDS;
	default:
		return 1;
	}
}

static const char *unit_of(const struct run *r, enum npkt_op op)
{
	return bytes_of(r, op) ? "MB/s" : op == NPKT_ROWS || op == NPKT_REPLACE ? "us/row" : "us";
}

/* From seconds to the operation's unit; more seconds are fewer MB/s. */
static struct spread in_units(const struct run *r, enum npkt_op op, const double *seconds)
{
	struct spread s = spread_of(seconds, r->rounds);
	double bytes = (double)bytes_of(r, op), pieces = (double)pieces_of(r, op);

	if (bytes > 0)
		return (struct spread){bytes / s.median / 1e6, bytes / s.max / 1e6, bytes / s.min / 1e6};
	return (struct spread){s.median / pieces * 1e6, s.min / pieces * 1e6, s.max / pieces * 1e6};
}

static bool is_measured(const struct run *r, enum npkt_op op)
{
	return !r->numbers[op].why[0] && (!ops[op].change || r->write);
}

static const char *number_text(char out[48], const struct spread *s)
{
	const char *form = s->median < 100 ? "%.2f (%.2f - %.2f)" : "%.0f (%.0f - %.0f)";

	snprintf(out, 48, form, s->median, s->min, s->max);
	return out;
}

static void put_row(const struct run *r, enum npkt_op op)
{
	const struct numbers *n = &r->numbers[op];
	struct spread npk, plain, ratio;
	char text[48];

	if (n->why[0]) {
		printf("%-9s", ops[op].name);
		npkt_put_escaped(stdout, n->why, strlen(n->why));
		putchar('\n');
		return;
	}
	npk = in_units(r, op, n->npk);
	printf("%-9s%-8s%-28s", ops[op].name, unit_of(r, op), number_text(text, &npk));
	if (r->plain) {
		plain = in_units(r, op, n->plain);
		ratio = spread_of(n->ratio, r->rounds);
		printf("%-28s", number_text(text, &plain));
		printf("%-8.3g%s", ratio.median, ops[op].plain);
	} else {
		printf("-");
	}
	putchar('\n');
}

static void put_table(const struct run *r)
{
	const char *level = "none";

	npk_search_level(&level, NULL, NULL);
	printf("%s%s ", r->kind, strcmp(r->kind, "scratch") == 0 ? " store in" : "");
	npkt_put_escaped(stdout, r->where, strlen(r->where));
	printf(": %s ", npk_dtype_name(r->b.dtype));
	npkt_put_escaped(stdout, r->array, strlen(r->array));
	printf(", %" PRIu64 " rows of %" PRIu64 " bytes; rounds %" PRIu64 ", %s, search by %s\n", r->b.rows,
		r->b.row_bytes, r->rounds, r->b.sync ? "synced" : "not synced", level);
	printf("%-9s%-8s%-28s%-28s%-8s%s\n", "WHAT", "UNIT", "NPK (MIN - MAX)", "PLAIN (MIN - MAX)", "RATIO",
		"PLAIN IS");
	for (int op = 0; op < NPKT_OPS; op++)
		if (is_measured(r, (enum npkt_op)op) || r->numbers[op].why[0])
			put_row(r, (enum npkt_op)op);
}

static void add_spread(struct npk_text *t, const char *key, const struct spread *s)
{
	npk_text_printf(
		t, ", \"%s\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g}", key, s->median, s->min, s->max);
}

static void add_op(struct npk_text *t, const struct run *r, enum npkt_op op, bool first)
{
	const struct numbers *n = &r->numbers[op];
	struct spread s;

	npk_text_printf(
		t, "%s{\"name\": \"%s\", \"unit\": \"%s\"", first ? "\n  " : ",\n  ", ops[op].name, unit_of(r, op));
	if (n->why[0]) {
		npk_text_printf(t, ", \"npk\": null, \"plain\": null, \"ratio\": null, \"why\": ");
		npk_text_json(t, n->why, strlen(n->why));
		npk_text_printf(t, "}");
		return;
	}
	s = in_units(r, op, n->npk);
	add_spread(t, "npk", &s);
	if (r->plain) {
		s = in_units(r, op, n->plain);
		add_spread(t, "plain", &s);
		s = spread_of(n->ratio, r->rounds);
		add_spread(t, "ratio", &s);
		npk_text_printf(t, ", \"plain_is\": \"%s\"}", ops[op].plain);
	} else {
		npk_text_printf(t, ", \"plain\": null, \"ratio\": null}");
	}
}

static void put_json(const struct run *r)
{
	const char *level = NULL;
	struct npk_text t = {0};
	bool first = true;

	npk_text_printf(&t, "{\"version\": \"%s\", \"kind\": \"%s\", \"path\": ", npk_version(), r->kind);
	npk_text_json(&t, r->where, strlen(r->where));
	npk_text_printf(&t, ", \"array\": ");
	npk_text_json(&t, r->array, strlen(r->array));
	npk_text_printf(&t,
		", \"dtype\": \"%s\", \"rows\": %" PRIu64 ", \"row_bytes\": %" PRIu64 ", \"rounds\": %" PRIu64
		", \"random_rows\": %" PRIu64 ", \"sync\": %s, \"level\": ",
		npk_dtype_name(r->b.dtype), r->b.rows, r->b.row_bytes, r->rounds, r->b.nrandom,
		r->b.sync ? "true" : "false");
	if (npk_search_level(&level, NULL, NULL) == 0)
		npk_text_json(&t, level, strlen(level));
	else
		npk_text_printf(&t, "null");
	npk_text_printf(&t, ",\n \"operations\": [");
	for (int op = 0; op < NPKT_OPS; op++)
		if (is_measured(r, (enum npkt_op)op) || r->numbers[op].why[0]) {
			add_op(&t, r, (enum npkt_op)op, first);
			first = false;
		}
	npk_text_printf(&t, "]}\n");
	npkt_put_text(stdout, &t);
}

/* --- what is measured -------------------------------------------------------------------------------------------------- */

/* A directory that nobody else has, in `in`; malloc'd. */
static int make_scratch(struct run *r, const char *in, struct npk_err *err)
{
	if (asprintf(&r->scratch, "%s/npk-bench.XXXXXX", in) < 0) {
		r->scratch = NULL;
		return npk_fail(err, ENOMEM, "no memory");
	}
	if (mkdtemp(r->scratch))
		return 0;
	npk_fail(err, errno, "%.400s: %s", in, strerror(errno));
	free(r->scratch);
	r->scratch = NULL;
	return -err->code;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

static int remove_scratch(const char *scratch, struct npk_err *err)
{
	if (nftw(scratch, remove_entry, 8, FTW_DEPTH | FTW_PHYS) == 0)
		return 0;
	return npk_fail(err, errno, "%.400s: cannot be removed: %s", scratch, strerror(errno));
}

static void shape_scratch(struct run *r)
{
	struct npkt_bench *b = &r->b;

	b->dtype = NPK_F32;
	b->row_bytes = r->width * sizeof(float);
	b->rows = r->size / b->row_bytes;
	b->shape = (struct npk_shape){2, {b->rows, r->width}};
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int get_memory(struct run *r, struct npk_err *err)
{
	struct npkt_bench *b = &r->b;
	uint64_t random_bytes;

	if (b->rows == 0 || b->row_bytes == 0)
		return npk_fail(err, EINVAL, "array '%.200s' has nothing to read", r->array);
	if (b->row_bytes > RANDOM_BYTES_MAX)
		return npk_fail(err, EINVAL, "array '%.200s' has rows of %" PRIu64 " bytes, more than %" PRIu64,
			r->array, b->row_bytes, RANDOM_BYTES_MAX);
	b->nrandom = at_most(at_most(r->count, RANDOM_BYTES_MAX / b->row_bytes), (b->rows + 1) / 2);
	b->nslice = at_most(SLICE_ROWS, b->rows);
	b->nappend = at_most(100, at_most(b->rows, NPKT_BLOCK / at_most(b->row_bytes, NPKT_BLOCK)));
	random_bytes = b->nrandom * b->row_bytes;
	b->block = malloc(NPKT_BLOCK);
	b->out = calloc(1, random_bytes > NPKT_BLOCK ? (size_t)random_bytes : NPKT_BLOCK);
	b->random = calloc(b->nrandom, sizeof(*b->random));
	if (!b->block || !b->out || !b->random)
		return npk_fail(err, ENOMEM, "no memory");
	fill_block(b);
	return 0;
}

/* A file in the scratch directory. */
static int plain_in_scratch(struct run *r, struct npk_err *err)
{
	char *path;
	int rc;

	if (asprintf(&path, "%s/plain", r->scratch) < 0)
		return npk_fail(err, ENOMEM, "no memory");
	rc = npkt_side_plain(&r->plain, path, true, err);
	free(path);
	return rc;
}

static int set_up_scratch(struct run *r, struct npk_err *err)
{
	char *path;
	int rc;

	r->kind = "scratch";
	r->write = true;
	shape_scratch(r);
	rc = make_scratch(r, r->where, err);
	if (rc != 0)
		return rc;
	if (!(r->array = strdup("x")) || asprintf(&path, "%s/store.npk", r->scratch) < 0)
		return npk_fail(err, ENOMEM, "no memory");
	rc = npkt_side_store(&r->npk, path, r->array, NPK_RDWR | NPK_CREATE, &r->b, err);
	free(path);
	return rc == 0 ? plain_in_scratch(r, err) : rc;
}

static int set_up_store(struct run *r, const char *array, struct npk_err *err)
{
	char *data_file = NULL;
	int rc = npkt_bench_pick(r->where, array, &r->array, &data_file, err);

	r->kind = "store";
	if (rc == 0)
		rc = npkt_side_store(&r->npk, r->where, r->array, NPK_RDONLY, &r->b, err);
	if (rc == 0 && data_file)
		rc = npkt_side_plain(&r->plain, data_file, false, err);
	free(data_file);
	return rc;
}

/* --- a mount ----------------------------------------------------------------------------------------------------------- */

/* The largest file that a name of an array, without its .npy. */
static int pick_in_mount(const char *mountpoint, char **picked, struct npk_err *err)
{
	DIR *d = opendir(mountpoint);
	struct dirent *e;
	struct stat st;
	off_t best = -1;
	size_t n;

	*picked = NULL;
	while (d && (e = readdir(d)) != NULL) {
		n = strlen(e->d_name);
		if (n <= 4 || strcmp(e->d_name + n - 4, ".npy") != 0 || e->d_name[0] == '.' ||
			fstatat(dirfd(d), e->d_name, &st, 0) != 0 || st.st_size <= best)
			continue;
		free(*picked);
		*picked = strndup(e->d_name, n - 4);
		best = st.st_size;
	}
	if (!d)
		return npk_fail(err, errno, "%.400s: %s", mountpoint, strerror(errno));
	closedir(d);
	return *picked ? 0 : npk_fail(err, ENOENT, "%.400s: there is no array to read", mountpoint);
}

/* Beside the store, so that both are on one filesystem; else where temporary files go. */
static int scratch_beside(struct run *r, const char *store, struct npk_err *err)
{
	const char *temp = getenv("TMPDIR"), *slash = strrchr(store, '/');
	char *parent = slash > store ? strndup(store, (size_t)(slash - store)) : strdup("/");
	int rc = parent ? make_scratch(r, parent, err) : npk_fail(err, ENOMEM, "no memory");

	if (rc == -EACCES || rc == -EROFS || rc == -ENOENT)
		rc = make_scratch(r, temp && *temp ? temp : "/tmp", err);
	free(parent);
	return rc;
}

/* Where the rows lie in one piece in the store, if it can be read from here: that is what plain reads are of. */
static int plain_of_mount(struct run *r, const char *store, struct npk_err *err)
{
	char path[2 * NPKT_PATH_MAX], file[256];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s.npy", r->where, r->array);
	n = getxattr(path, "user.numpack.data_file", file, sizeof(file) - 1);
	if (n < 5 || memcmp(file + n - 5, ".npkd", 5) != 0)
		return 0;
	snprintf(path, sizeof(path), "%s/%.*s", store, (int)n, file);
	return access(path, R_OK) == 0 ? npkt_side_plain(&r->plain, path, false, err) : 0;
}

static int set_up_mount(struct run *r, const char *array, const char *store, struct npk_err *err)
{
	int rc = 0;

	r->kind = "mount";
	if (r->write)
		r->array = asprintf(&r->array, "npk-bench-%d", (int)getpid()) < 0 ? NULL : r->array;
	else if (array)
		r->array = strdup(array);
	else
		rc = pick_in_mount(r->where, &r->array, err);
	if (rc == 0 && !r->array)
		rc = npk_fail(err, ENOMEM, "no memory");
	if (rc == 0 && r->write) {
		shape_scratch(r);
		rc = scratch_beside(r, store, err);
	}
	if (rc == 0)
		rc = npkt_side_mount(&r->npk, r->where, r->array, r->write, &r->b, err);
	if (rc == 0)
		rc = r->write ? plain_in_scratch(r, err) : plain_of_mount(r, store, err);
	return rc;
}

/* --- the command ------------------------------------------------------------------------------------------------------- */

static bool is_store(const char *path)
{
	char file[NPKT_PATH_MAX];
	struct stat st;

	if (stat(path, &st) != 0)
		return false;
	snprintf(file, sizeof(file), "%s/metadata.npkm", path);
	return !S_ISDIR(st.st_mode) || access(file, F_OK) == 0;
}

/* NPKT_OK, or NPKT_USAGE after a complaint. */
static int set_up(struct run *r, const char *where, const char *array, int *rc, struct npk_err *err)
{
	char wanted[NPKT_PATH_MAX], point[NPKT_PATH_MAX], store[NPKT_PATH_MAX];
	bool mounted = npkt_resolve(where, wanted) && npkt_find_mount(wanted, NULL, point, store);

	if (r->write && !mounted) {
		npkt_complain("--write is for a mount, and %s is none; npk bench DIR changes a scratch store", where);
		return NPKT_USAGE;
	}
	if (array && (r->write || (!mounted && !is_store(where)))) {
		npkt_complain(r->write ? "--write makes an array of its own: '%s' is one operand too many"
				       : "array '%s' is one operand too many: what is named before it is no store and "
					 "no mount",
			array);
		return NPKT_USAGE;
	}
	r->where = strdup(mounted ? point : where);
	if (!r->where)
		*rc = npk_fail(err, ENOMEM, "no memory");
	else if (mounted)
		*rc = set_up_mount(r, array, store, err);
	else
		*rc = is_store(where) ? set_up_store(r, array, err) : set_up_scratch(r, err);
	if (*rc == 0)
		*rc = get_memory(r, err);
	return NPKT_OK;
}

static int tear_down(struct run *r, int rc, struct npk_err *err)
{
	struct npk_err why;

	if (r->plain)
		r->plain->close(r->plain);
	if (r->npk)
		r->npk->close(r->npk);
	if (r->scratch && remove_scratch(r->scratch, &why) != 0 && rc == 0) {
		*err = why;
		rc = -why.code;
	}
	free(r->b.block);
	free(r->b.out);
	free(r->b.random);
	free(r->where);
	free(r->array);
	free(r->scratch);
	return rc;
}

/* A number with k, M or G behind it where `suffix`. */
static bool take_number(const char *name, const char *text, bool suffix, uint64_t least, uint64_t most, uint64_t *out)
{
	static const char units[] = "kMG";
	const char *unit;
	char *end;
	bool ok;

	if (!text)
		return true;
	errno = 0;
	*out = strtoull(text, &end, 10);
	ok = errno == 0 && *text >= '0' && *text <= '9';
	unit = suffix && *end ? strchr(units, *end) : NULL;
	if (unit && ok) {
		ok = *out <= UINT64_MAX >> 10 * (unit - units + 1);
		*out <<= 10 * (unit - units + 1);
		end++;
	}
	if (ok && *end == 0 && *out >= least && *out <= most)
		return true;
	npkt_complain("--%s '%s' is not a number from %" PRIu64 " to %" PRIu64, name, text, least, most);
	return false;
}

static bool take_options(struct run *r, const struct npkt_args *args)
{
	r->size = SIZE_DEFAULT;
	r->width = WIDTH_DEFAULT;
	r->count = COUNT_DEFAULT;
	r->rounds = ROUNDS_DEFAULT;
	r->write = args->opt[WRITE];
	r->json = args->opt[JSON];
	r->b.sync = args->opt[SYNC];
	return take_number("width", args->opt[WIDTH], false, 1, NPKT_BLOCK / sizeof(float), &r->width) &&
	       take_number("size", args->opt[SIZE], true, 2 * r->width * sizeof(float), SIZE_MAX_BYTES, &r->size) &&
	       take_number("count", args->opt[COUNT], false, 1, COUNT_MAX, &r->count) &&
	       take_number("rounds", args->opt[ROUNDS], false, 1, ROUNDS_MAX, &r->rounds);
}

static int run_bench(struct run *r, const char *where, const char *array)
{
	struct npk_err err = {0};
	int rc = 0, status;

	npkt_progress_begin(&r->b.progress, "measuring");
	r->b.all = (r->rounds + 1) * NPKT_OPS;
	status = set_up(r, where, array, &rc, &err);
	if (status == NPKT_OK && rc == 0)
		rc = measure_all(r, &err);
	if (rc == 0 && status == NPKT_OK) {
		r->b.progress.what = NULL;
		if (r->json)
			put_json(r);
		else
			put_table(r);
	}
	rc = tear_down(r, rc, &err);
	npkt_progress_end(&r->b.progress); /* ends the process when a signal came */
	if (rc != 0)
		status = npkt_failed(&err);
	return npkt_flush(status);
}

static int run(const struct npkt_args *args)
{
	const char *where = args->noperands > 0 ? args->operand[0] : ".";
	const char *array = args->noperands > 1 ? args->operand[1] : NULL;
	struct run *r = calloc(1, sizeof(*r));
	int status = NPKT_USAGE;

	if (!r) {
		npkt_complain("no memory");
		return NPKT_FAILED;
	}
	if (take_options(r, args))
		status = run_bench(r, where, array);
	free(r);
	return status;
}

const struct npkt_cmd npkt_bench = {
	.name = "bench",
	.operands = "[DIR|STORE|MOUNTPOINT [ARRAY]]",
	.min = 0,
	.max = 2,
	.help = "measure how fast a store is here, beside plain files",
	.more = "In a directory a scratch store is made, measured and removed, also when a signal ends npk; the "
		"current "
		"directory\n"
		"without an operand. A store is only read: ARRAY, or the largest. So is a mount, through the mount's "
		"files, "
		"unless\n"
		"--write is given. Each operation is measured beside plain file calls on as many bytes, one right "
		"after "
		"the other\n"
		"in every round, after a round that is not counted. RATIO is the median of npk's time over the plain "
		"one: "
		"below 1\n"
		"npk is faster. A plain file cannot search, drop rows or compact: beside these stands what a program "
		"does "
		"instead.\n"
		"What is read comes from memory (the page cache), as far as it fits there.\n"
		"\n"
		"Examples:\n"
		"  npk bench -s 1M -n 2\n"
		"  npk bench --json -n 2 digits.npk pixels\n"
		"  mkdir mnt && numpackfs digits.npk mnt && npk bench -s 1M -n 2 --write mnt && npk umount mnt\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
