/* Another program, which knows no lock, changes a store that this process writes: the two sides are joined or refused, array by
 * array. And the journal of a writer that lives long stays short. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <inttypes.h>
#include <numpack.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROWS 50

static struct npk_store *open_store(const char *dir)
{
	struct npk_store *s = NULL;
	struct npk_err err;

	T_CHECKF(npk_store_open(&s, dir, NPK_RDWR, &err) == 0, "%s", err.msg);
	return s;
}

static struct npk_array *get(struct npk_store *s, const char *name)
{
	struct npk_array *a = NULL;
	struct npk_err err;

	T_CHECKF(npk_array_get(&a, s, name, &err) == 0, "%s", err.msg);
	return a;
}

/* --- what an array holds ---------------------------------------------------------------------------------------------- */

/* Rows are single numbers; -1 ends them. NULL: there is no such array. */
static const int32_t *content(const int32_t *first, int n)
{
	static int32_t rows[8][ROWS + 20];
	static int turn;

	turn = (turn + 1) % 8;
	memcpy(rows[turn], first, (size_t)n * sizeof(int32_t));
	rows[turn][n] = -1;
	return rows[turn];
}

static int length(const int32_t *rows)
{
	int n = 0;

	while (rows[n] != -1)
		n++;
	return n;
}

static int holds(struct npk_store *s, const char *name, const int32_t *want)
{
	int32_t got[ROWS + 20];
	struct npk_array *a;
	struct npk_gen *g;
	int same;

	if (npk_array_get(&a, s, name, NULL) != 0)
		return want == NULL;
	T_CHECK(npk_gen_get(&g, a, NULL) == 0);
	same = want && npk_gen_info(g)->rows == (uint64_t)length(want) &&
	       npk_gen_read_rows(g, 0, npk_gen_info(g)->rows, got, NULL) == 0 &&
	       memcmp(got, want, (size_t)length(want) * sizeof(int32_t)) == 0;
	npk_gen_put(g);
	npk_array_put(a);
	return same;
}

/* --- the two sides ---------------------------------------------------------------------------------------------------- */

enum op {
	NOTHING,
	SAVE,
	DROP,
	REMOVE,
	APPEND /* ours only: what a stale append makes of a file is the other program's own affair */
};

static const char *const op_name[] = {"nothing", "save", "drop", "remove", "append"};

enum when {
	UNSYNCED, /* they read the store before us, and what we did is in the journal only */
	FRESH,    /* they opened the store after we had synced */
	STALE     /* they had opened it before we changed it, and change it after we synced */
};

static int32_t first_rows[ROWS];

/* Makes the change; returns what the array holds then. */
static const int32_t *ours(struct npk_store *s, enum op op)
{
	const struct npk_shape shape = {1, {7}};
	const int32_t rows[] = {900, 901, 902, 903, 904, 905, 906}, *was = content(first_rows, ROWS);
	struct npk_array *a = get(s, "a");
	int32_t next[ROWS + 10];
	struct npk_err err = {0};
	int rc = 0;

	memcpy(next, first_rows, sizeof(first_rows));
	memcpy(next + ROWS, rows, sizeof(rows));
	if (op == SAVE) {
		rc = npk_store_save(s, "a", NPK_I32, &shape, rows, &err);
		was = content(rows, 7);
	} else if (op == APPEND) {
		rc = npk_array_append(a, rows, 7, &err);
		was = content(next, ROWS + 7);
	} else if (op == DROP) {
		rc = npk_array_drop(a, "0:10", NULL, &err);
		was = content(first_rows + 10, ROWS - 10);
	} else if (op == REMOVE) {
		rc = npk_store_remove(s, "a", &err);
		was = NULL;
	}
	T_CHECKF(rc == 0, "%s", err.msg);
	npk_array_put(a);
	return was;
}

static struct mk_array an_array(const char *name, const int32_t *rows, uint64_t n, uint64_t mtime_us)
{
	return (struct mk_array){
		.name = name, .dtype = NPK_I32, .ndim = 1, .dim = {n}, .data = rows, .mtime_us = mtime_us};
}

/* The time that the metadata on disk gives `a`, through an opener of its own; 0: it is not there. */
static uint64_t time_of(const char *dir, const char *name)
{
	struct npk_array_info info;
	struct npk_store *s;
	struct npk_array *a;
	uint64_t t = 0;

	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
	if (npk_array_get(&a, s, name, NULL) == 0) {
		T_CHECK(npk_array_info(a, &info, NULL) == 0);
		t = info.mtime_us;
		npk_array_put(a);
	}
	npk_store_close(s);
	return t;
}

/* Writes what a program writes that has read `a` as `seen` (NULL: it was not there) with that time, changes it, makes the array
 * `new`, and closes. `b` it has seen, too. Returns what it left in `a`. */
static const int32_t *theirs(const char *dir, enum op op, const int32_t *seen, uint64_t seen_us, struct mk_array b)
{
	static uint8_t deleted[ROWS + 20];
	static const int32_t saved[] = {70, 71, 72};
	struct mk_array all[3] = {b, an_array("new", saved, 3, 5000)};
	const int32_t *left = seen;
	size_t n = 2;

	mk_data(dir, &all[1]);
	if (seen)
		all[n++] = an_array("a", seen, (uint64_t)length(seen), seen_us);
	if (op == SAVE) {
		all[2] = an_array("a", saved, 3, UINT64_C(4000000000000000));
		n = 3;
		mk_remove(dir, "deleted_a.npkb");
		mk_data(dir, &all[2]);
		left = content(saved, 3);
	} else if (op == DROP && seen) {
		memset(deleted, 0, sizeof(deleted));
		deleted[length(seen) - 1] = 1;
		all[2].deleted = deleted;
		mk_bitmap(dir, &all[2]);
		left = content(seen, length(seen) - 1);
	} else if (op == REMOVE && seen) {
		mk_remove(dir, "data_a.npkd");
		mk_remove(dir, "deleted_a.npkb");
		left = NULL;
		n = 2;
	}
	mk_metadata(dir, all, n);
	return left;
}

/* What must be there after the two: REFUSED, or an array's content. */
static const int32_t refused[] = {-1};

static const int32_t *expected(
	enum when when, enum op our, enum op their, const int32_t *our_rows, const int32_t *their_rows)
{
	if (their == NOTHING)
		return our_rows;
	if (our == NOTHING || when == FRESH)
		return their_rows;
	if (our == REMOVE && their != SAVE) /* rows that are hidden in what is gone */
		return NULL;
	if (when == UNSYNCED)
		return refused;
	if (their == SAVE || their == REMOVE) /* as a whole: nothing of what they had read goes into it */
		return their_rows;
	return our == REMOVE ? NULL
			     : refused; /* their bitmap is one of rows that are gone, or brings deleted ones back */
}

static void check_pair(enum when when, enum op our, enum op their)
{
	const char *dir = mk_dir();
	struct mk_array a = an_array("a", first_rows, ROWS, 1000), b = an_array("b", first_rows, 5, 1001);
	const int32_t *our_rows, *their_rows, *seen, *want, b_rows[] = {0, 1, 2, 3, 4, 33};
	struct npk_array *b_array;
	struct npk_store *s;
	struct npk_err err = {0};
	uint64_t seen_us = 1000;
	int rc;

	mk_store(dir, (struct mk_array[]){a, b}, 2);
	s = open_store(dir);
	T_CHECK(holds(s, "a", content(first_rows, ROWS)));
	our_rows = ours(s, our);
	if (when != UNSYNCED)
		T_CHECKF(npk_store_sync(s, &err) == 0, "%s", err.msg);
	seen = when == FRESH ? our_rows : content(first_rows, ROWS);
	if (when == FRESH)
		seen_us = time_of(dir, "a");
	if (when == FRESH &&
		our == DROP) { /* by its slots; their drop is of the same array with a bitmap: not made here */
		npk_store_close(s);
		return;
	}
	b_array = get(s, "b"); /* so that there is something of ours in the journal in any case */
	T_CHECK(npk_array_append(b_array, &b_rows[5], 1, NULL) == 0);
	T_CHECK(holds(s, "a", our_rows));
	their_rows = theirs(dir, their, seen, seen_us, b);
	want = expected(when, our, their, our_rows, their_rows);
	T_CHECK(npk_store_check(s, &err) == -EBUSY && npk_array_append(b_array, b_rows, 1, &err) == -EBUSY &&
		npk_store_sync(s, &err) == -EBUSY);
	T_CHECKF(holds(s, "a", our_rows), "%d: %s, %s: taken over before anybody asked", when, op_name[our],
		op_name[their]);
	rc = npk_store_refresh(s, NULL, NULL, &err);
	T_CHECKF(rc == (want == refused ? -EBUSY : 0), "%d: %s, %s: %d %s", when, op_name[our], op_name[their], rc,
		rc ? err.msg : "");
	if (want == refused) {
		T_CHECKF(strstr(err.msg, "'a'") != NULL, "%s", err.msg);
		T_CHECK(npk_array_append(b_array, b_rows, 1, NULL) == -EBUSY);
		want = our_rows;
	} else {
		T_CHECK(holds(s, "new", content((int32_t[]){70, 71, 72}, 3)));
		T_CHECKF(npk_store_check(s, &err) == 0, "%s", err.msg);
	}
	T_CHECKF(holds(s, "a", want), "%d: %s, %s: another content", when, op_name[our], op_name[their]);
	T_CHECK(holds(s, "b", content(b_rows, 6)));
	npk_array_put(b_array);
	rc = npk_store_finish(s, &err);
	T_CHECKF((rc == -EBUSY) == (want == our_rows && mk_exists(dir, "numpackfs.journal")), "%d: %s", rc, err.msg);
	if (rc != 0)
		return;
	s = open_store(dir);
	T_CHECKF(holds(s, "a", want) && holds(s, "b", content(b_rows, 6)), "%d: %s, %s: another content on disk", when,
		op_name[our], op_name[their]);
	npk_store_close(s);
}

TEST(two_sides_are_joined_or_refused)
{
	for (int i = 0; i < ROWS; i++)
		first_rows[i] = i;
	for (int when = UNSYNCED; when <= STALE; when++)
		for (int our = NOTHING; our <= APPEND; our++)
			for (int their = NOTHING; their <= REMOVE; their++)
				check_pair(when, our, their);
}

/* --- metadata that says nothing new ----------------------------------------------------------------------------------- */

TEST(the_same_entries_are_accepted_and_earlier_ones_undone)
{
	const char *dir = mk_dir();
	struct mk_array all[] = {an_array("a", first_rows, ROWS, 1000), an_array("b", first_rows, 5, 1001)};
	const struct npk_shape shape = {1, {3}};
	struct npk_store *s;
	struct npk_err err;

	mk_store(dir, all, 2);
	s = open_store(dir);
	T_CHECK(npk_store_check(s, &err) == 0); /* not the writer yet */
	T_CHECK(npk_store_save(s, "n", NPK_I32, &shape, first_rows, &err) == 0);
	mk_metadata(dir, (struct mk_array[]){all[1], all[0]}, 2);
	T_CHECKF(npk_store_check(s, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_store_sync(s, &err) == 0, "%s", err.msg);
	for (int i = 0; i < 3; i++) {
		T_CHECK(time_of(dir, "n") != 0);
		mk_metadata(dir, all, 2);
		T_CHECKF(npk_store_check(s, &err) == 1, "%s", err.msg);
		T_CHECK(npk_store_check(s, &err) == 0);
	}
	mk_metadata(dir, all, 2); /* and without anybody looking: the checkpoint does, and the next look tells */
	T_CHECK(npk_store_save(s, "m", NPK_I32, &shape, first_rows, &err) == 0 && npk_store_sync(s, &err) == 0);
	T_CHECK(npk_store_check(s, &err) == 1);
	mk_metadata(dir, all, 2); /* nor at the end */
	T_CHECKF(npk_store_finish(s, &err) == 0, "%s", err.msg);
	T_CHECK(time_of(dir, "n") != 0 && time_of(dir, "m") != 0 && !mk_exists(dir, "numpackfs.base"));
}

/* --- checkpoints ------------------------------------------------------------------------------------------------------- */

static uint64_t size_of(const char *dir, const char *file)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* A backup that makes links, chown -R: the files are what they were. */
TEST(who_changes_only_what_is_said_about_files_is_no_writer)
{
	static const char *const files[] = {"metadata.npkm", "data_a.npkd", "deleted_a.npkb"};
	const char *dir = mk_dir();
	struct mk_array a = an_array("a", first_rows, ROWS, 1000);
	char path[512], other[512];
	struct npk_store *s;
	struct npk_array *x;
	struct npk_err err;

	mk_store(dir, &a, 1);
	s = open_store(dir);
	x = get(s, "a");
	for (int i = 0; i < 3; i++) {
		T_CHECKF(npk_array_drop(x, "0", NULL, &err) == 0, "%s", err.msg);
		if (i == 1)
			T_CHECKF(npk_store_sync(s, &err) == 0, "%s", err.msg);
		for (int k = 0; k < 3 && i > 0; k++) {
			snprintf(path, sizeof(path), "%s/%s", dir, files[k]);
			snprintf(other, sizeof(other), "%s/link-%d-%s", dir, i, files[k]);
			T_CHECK(chmod(path, 0600) == 0 && link(path, other) == 0);
		}
		T_CHECKF(npk_store_check(s, &err) == 0, "%s", err.msg);
		T_CHECKF(npk_store_sync(s, &err) == 0, "%s", err.msg);
	}
	npk_array_put(x);
	T_CHECKF(npk_store_finish(s, &err) == 0, "%s", err.msg);
}

TEST(a_long_lived_writers_journal_stays_short)
{
	static uint8_t bytes[1 << 20];
	const char *dir = mk_dir();
	struct mk_array big = {.name = "big", .dtype = NPK_U8, .ndim = 2, .dim = {4, sizeof(bytes) / 4}, .data = bytes};
	struct npk_store *s;
	struct npk_array *a;
	struct npk_err err;

	mk_store(dir, &big, 1);
	s = open_store(dir);
	a = get(s, "big");
	for (int i = 0; i < 40; i++) { /* a replace has its bytes in the journal */
		bytes[0] = (uint8_t)i;
		T_CHECKF(npk_array_replace_range(a, 0, 4, bytes, 0, &err) == 0, "%s", err.msg);
		T_CHECKF(size_of(dir, "numpackfs.journal") < UINT64_C(18) << 20, "%" PRIu64 " bytes after %d changes",
			size_of(dir, "numpackfs.journal"), i + 1);
	}
	T_CHECK(npk_store_set_checkpoints(s, 0, 0, &err) == -EINVAL);
	T_CHECK(npk_store_set_checkpoints(s, 4096, 0, &err) == 0);
	for (int i = 0; i < 2000; i++) {
		T_CHECKF(npk_array_set_mtime(a, (uint64_t)i + 1, &err) == 0, "%s", err.msg);
		T_CHECKF(i == 0 || size_of(dir, "numpackfs.journal") < 4096 + 200, "%" PRIu64 " bytes after %d changes",
			size_of(dir, "numpackfs.journal"), i + 1);
	}
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, &err) == 0);
	T_CHECK(time_of(dir, "big") == 2000);
}

/* What makes the checkpoint fail goes away: the changes before it, meanwhile and after it are there. */
TEST(a_checkpoint_that_cannot_be_made_harms_nothing)
{
	const char *dir = mk_dir();
	struct mk_array one = an_array("a", first_rows, ROWS, 1000);
	struct npk_store *s;
	struct npk_array *a;
	struct npk_err err;
	char path[512];

	mk_store(dir, &one, 1);
	snprintf(path, sizeof(path), "%s/numpackfs.journal.next", dir);
	s = open_store(dir);
	a = get(s, "a");
	T_CHECK(npk_store_lock(s, &err) == 0 && npk_store_set_checkpoints(s, 1000, 0, &err) == 0);
	T_CHECK(mkdir(path, 0777) == 0);
	for (int i = 0; i < 200; i++)
		T_CHECKF(npk_array_set_mtime(a, (uint64_t)i + 1, &err) == 0, "%s", err.msg);
	T_CHECK(size_of(dir, "numpackfs.journal") > 4000);
	T_CHECK(rmdir(path) == 0);
	for (int i = 0; i < 200; i++)
		T_CHECKF(npk_array_set_mtime(a, (uint64_t)i + 1, &err) == 0, "%s", err.msg);
	T_CHECKF(size_of(dir, "numpackfs.journal") < 2000, "%" PRIu64, size_of(dir, "numpackfs.journal"));
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, &err) == 0);
	T_CHECK(time_of(dir, "a") == 200);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A checkpoint is what changes the metadata's inode. */
static uint64_t metadata_inode(const char *dir)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/metadata.npkm", dir);
	T_CHECK(stat(path, &st) == 0);
	return st.st_ino;
}

TEST(an_old_journal_is_checkpointed)
{
	const char *dir = mk_dir();
	struct mk_array one = an_array("a", first_rows, ROWS, 1000);
	struct npk_store *s;
	struct npk_array *a;
	struct npk_err err;
	double end = now() + 60;
	uint64_t before;

	mk_store(dir, &one, 1);
	s = open_store(dir);
	a = get(s, "a");
	T_CHECK(npk_store_set_checkpoints(s, UINT64_C(1) << 40, 1, &err) == 0);
	before = metadata_inode(dir);
	while (metadata_inode(dir) == before && now() < end) /* by the changes themselves */
		T_CHECKF(npk_array_set_mtime(a, 77, &err) == 0, "%s", err.msg);
	T_CHECK(metadata_inode(dir) != before);
	before = metadata_inode(dir);
	T_CHECKF(npk_array_set_mtime(a, 78, &err) == 0, "%s", err.msg);
	while (metadata_inode(dir) == before && now() < end) { /* and by who looks once in a while */
		T_CHECK(npk_store_check(s, &err) == 0);
		usleep(10000);
	}
	T_CHECK(metadata_inode(dir) != before);
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, &err) == 0);
}

/* --- who reads beside us ----------------------------------------------------------------------------------------------- */

#define NAMES 4

/* What a history has done to an array since a reader last looked. */
struct seen {
	uint64_t number; /* of the generation that the reader had then; 0: none */
	bool changed, renamed;
	unsigned told;
	struct npk_text rows;
};

static struct seen seen[NAMES];
static char names[NAMES][2] = {"a", "b", "c", "d"};

static void count_told(void *ctx, struct npk_array *a, enum npk_change what)
{
	const char *name = npk_array_name(a, NULL);

	(void)ctx;
	(void)what;
	T_CHECKF(name[0] >= 'a' && name[0] < 'a' + NAMES && !name[1], "told of '%s', which never was there", name);
	seen[name[0] - 'a'].told++;
}

/* All rows of an array as bytes; false: there is no such array. */
static bool rows_of(struct npk_store *s, const char *name, struct npk_text *out, uint64_t *number)
{
	struct npk_array *a;
	struct npk_gen *g;
	struct npk_err err;
	uint8_t *rows;

	*number = 0;
	if (npk_array_get(&a, s, name, NULL) != 0)
		return false;
	T_CHECKF(npk_gen_get(&g, a, &err) == 0, "%s", err.msg);
	*number = npk_gen_info(g)->number;
	rows = malloc(npk_gen_info(g)->rows * 4 + 1);
	T_CHECK(npk_gen_read_rows(g, 0, npk_gen_info(g)->rows, rows, NULL) == 0);
	npk_text_add(out, rows, npk_gen_info(g)->rows * 4);
	free(rows);
	npk_gen_put(g);
	npk_array_put(a);
	return true;
}

static bool same_text(const struct npk_text *a, const struct npk_text *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->p, b->p, a->len) == 0);
}

static void check_reader(struct npk_store *w, struct npk_store *r, uint64_t seed, int step)
{
	struct npk_err err;

	T_CHECKF(
		npk_store_refresh(r, count_told, NULL, &err) == 0, "seed %" PRIu64 " step %d: %s", seed, step, err.msg);
	for (int i = 0; i < NAMES; i++) {
		struct npk_text ours = {0}, theirs = {0};
		uint64_t number, writers;
		bool there = rows_of(w, names[i], &ours, &writers);

		T_CHECKF(rows_of(r, names[i], &theirs, &number) == there && same_text(&ours, &theirs),
			"seed %" PRIu64 " step %d: %s is another one", seed, step, names[i]);
		if (seen[i].number && !seen[i].changed && !seen[i].renamed)
			T_CHECKF(number == seen[i].number && seen[i].told == 0,
				"seed %" PRIu64 " step %d: %s did not change: generation %" PRIu64 " is now %" PRIu64
				", told %u times",
				seed, step, names[i], seen[i].number, number, seen[i].told);
		if (seen[i].number && number && !same_text(&seen[i].rows, &theirs))
			T_CHECKF(number != seen[i].number && seen[i].told > 0,
				"seed %" PRIu64 " step %d: %s changed, and nobody was told", seed, step, names[i]);
		npk_text_fini(&seen[i].rows);
		seen[i] = (struct seen){.number = number, .rows = theirs};
		npk_text_fini(&ours);
	}
}

/* *i becomes another array that changed, too; a sync changes file names only, of those that were made since the last. */
static void change_something(struct npk_store *w, uint64_t *rnd, bool made[NAMES])
{
	int32_t rows[30];
	int i = (int)(t_rand(rnd) % NAMES), k = (int)(t_rand(rnd) % NAMES);
	const struct npk_shape shape = {1, {t_rand(rnd) % 20 + 10}};
	struct npk_array *a = NULL;
	int64_t at = (int64_t)(t_rand(rnd) % 5);
	struct npk_err err = {0};
	int rc = 0;

	for (int j = 0; j < 30; j++)
		rows[j] = (int32_t)t_rand(rnd);
	if (npk_array_get(&a, w, names[i], NULL) != 0 || t_rand(rnd) % 8 == 0) {
		rc = npk_store_save(w, names[i], NPK_I32, &shape, rows, &err);
		made[i] = true;
	} else {
		switch (t_rand(rnd) % 8) {
		case 0:
		case 1:
			rc = npk_array_append(a, rows, t_rand(rnd) % 20 + 1, &err);
			break;
		case 2:
			rc = npk_array_drop(a, "0", NULL, &err);
			break;
		case 3:
			rc = npk_array_replace(a, &at, 1, rows, 0, &err);
			break;
		case 4:
			rc = npk_array_compact(a, &err);
			made[i] = true;
			break;
		case 5:
			rc = i == k ? -ENOENT : npk_store_rename(w, names[i], names[k], NPK_RENAME_EXCHANGE, &err);
			if (rc == 0)
				seen[k].changed = made[i] = made[k] = true;
			break;
		case 6:
			rc = npk_store_remove(w, names[i], &err);
			break;
		default:
			rc = npk_store_sync(w, &err);
			for (int j = 0; j < NAMES; j++) {
				seen[j].renamed |= made[j];
				made[j] = false;
			}
			npk_array_put(a);
			T_CHECKF(rc == 0, "%s", err.msg);
			return;
		}
	}
	T_CHECKF(rc == 0 || rc == -ERANGE || rc == -ENOENT, "%s", err.msg); /* no such row, or array, is no change */
	if (rc == 0)
		seen[i].changed = true;
	npk_array_put(a);
}

/* What is added to the journal is applied by itself: arrays that did not change keep their generation, over a checkpoint too. */
TEST(a_reader_follows_the_journal)
{
	const char *text = getenv("T_STATES");
	uint64_t from = t_seed(), n = text ? strtoull(text, NULL, 0) / 100 + 1 : 20;

	for (uint64_t seed = from; seed < from + n; seed++) {
		const char *dir = mk_dir();
		struct mk_array first[] = {an_array("a", first_rows, ROWS, 1000), an_array("b", first_rows, 5, 1001)};
		struct npk_store *w, *r;
		bool made[NAMES] = {0};
		uint64_t rnd = seed;
		struct npk_err err;

		mk_store(dir, first, 2);
		w = open_store(dir);
		T_CHECK(npk_store_open(&r, dir, NPK_RDONLY, &err) == 0);
		if (seed % 3 == 0) /* checkpoints that nobody asked for, which give no names */
			T_CHECK(npk_store_set_checkpoints(w, 500, 0, &err) == 0);
		for (int step = 0; step < 60; step++) {
			if (t_rand(&rnd) % 3 == 0)
				check_reader(w, r, seed, step);
			change_something(w, &rnd, made);
		}
		check_reader(w, r, seed, 60);
		T_CHECKF(npk_store_finish(w, &err) == 0, "%s", err.msg);
		npk_store_close(r);
		for (int i = 0; i < NAMES; i++)
			npk_text_fini(&seen[i].rows);
		memset(seen, 0, sizeof(seen));
	}
}

T_MAIN()
