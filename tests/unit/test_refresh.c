/* Another process changes the store: a refresh tells what changed, a new generation has the new rows, one that is held
 * keeps its own. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <inttypes.h>
#include <numpack.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROWS_MAX 2000

/* Row i of a version of an array is { version, i }: rows of two versions cannot be taken for one another. */
static const int32_t *rows_of(int32_t version)
{
	static int32_t rows[8][ROWS_MAX][2]; /* a test holds fewer */
	static int turn;

	turn = (turn + 1) % 8;
	for (int32_t i = 0; i < ROWS_MAX; i++) {
		rows[turn][i][0] = version;
		rows[turn][i][1] = i;
	}
	return &rows[turn][0][0];
}

static struct mk_array array(const char *name, int32_t version, uint64_t rows)
{
	return (struct mk_array){.name = name,
		.dtype = NPK_I32,
		.ndim = 2,
		.dim = {rows, 2},
		.data = rows_of(version),
		.mtime_us = 1000 + (uint64_t)version};
}

/* The changes of one refresh, as "!changed +new -gone", sorted; names have one letter. */
struct told {
	char text[200];
	int calls;
};

static void tell(void *ctx, struct npk_array *a, enum npk_change what)
{
	struct told *t = ctx;
	size_t n = strlen(t->text);

	snprintf(t->text + n, sizeof(t->text) - n, "%s%c%s", n ? " " : "",
		what == NPK_APPEARED ? '+'
		: what == NPK_GONE   ? '-'
				     : '!',
		npk_array_name(a, NULL));
	t->calls++;
}

static int by_record(const void *a, const void *b)
{
	return memcmp(a, b, 2);
}

static void check_refresh(struct npk_store *s, const char *want)
{
	struct told t = {0};
	struct npk_err err;

	T_CHECKF(npk_store_refresh(s, tell, &t, &err) == 0, "%s", err.msg);
	if (t.calls)
		t.text[3 * t.calls - 1] = ' '; /* records of three bytes, sorted, then a text again */
	qsort(t.text, (size_t)t.calls, 3, by_record);
	t.text[t.calls ? 3 * t.calls - 1 : 0] = 0;
	T_CHECKF(strcmp(t.text, want) == 0, "told '%s', not '%s'", t.text, want);
}

/* A refresh that cannot load an array says which file is the matter. */
static void check_unreadable(struct npk_store *s, const char *file)
{
	struct npk_err err;

	T_CHECK(npk_store_refresh(s, NULL, NULL, &err) == -EUCLEAN);
	T_CHECKF(strstr(err.msg, file), "%s", err.msg);
}

static struct npk_gen *gen_of(struct npk_store *s, const char *name)
{
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	struct npk_err err;

	T_CHECKF(npk_array_get(&a, s, name, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_gen_get(&g, a, &err) == 0, "%s", err.msg);
	npk_array_put(a);
	return g;
}

/* The generation holds these slots of this version, all of them read. */
static void check_gen(struct npk_gen *g, int32_t version, const uint8_t *deleted, uint64_t slots)
{
	int32_t got[ROWS_MAX][2];
	uint64_t k = 0, rows = npk_gen_info(g)->rows;
	struct npk_err err;

	T_CHECKF(npk_gen_read_rows(g, 0, rows, got, &err) == 0, "%s", err.msg);
	for (uint64_t i = 0; i < slots; i++)
		if (!deleted || !deleted[i]) {
			T_CHECKF(k < rows && got[k][0] == version && got[k][1] == (int32_t)i,
				"row %" PRIu64 ": version %d slot %d, not version %d slot %" PRIu64, k, got[k][0],
				got[k][1], version, i);
			k++;
		}
	T_CHECKF(k == rows, "%" PRIu64 " rows, not %" PRIu64, rows, k);
}

static void check_now(struct npk_store *s, const char *name, int32_t version, const uint8_t *deleted, uint64_t slots)
{
	struct npk_gen *g = gen_of(s, name);

	check_gen(g, version, deleted, slots);
	npk_gen_put(g);
}

static struct npk_store *open_store(const char *dir)
{
	struct npk_store *s = NULL;
	struct npk_err err;

	T_CHECKF(npk_store_open(&s, dir, NPK_RDONLY, &err) == 0, "%s", err.msg);
	return s;
}

/* --- what another process of ours does ---------------------------------------------------------------------------------- */

/* Saves rows of a version over an array, and `appended` more; with `finish` the store is closed in the end, else it is left as
 * kill -9 leaves it. */
static void in_another_process(const char *dir, const char *name, int32_t version, uint64_t rows, bool finish)
{
	int status;
	pid_t pid = fork();

	T_CHECK(pid >= 0);
	if (pid == 0) {
		struct npk_shape shape = {2, {rows, 2}};
		struct npk_store *s = NULL;
		bool ok = npk_store_open(&s, dir, NPK_RDWR, NULL) == 0 &&
			  npk_store_save(s, name, NPK_I32, &shape, rows_of(version), NULL) == 0 &&
			  (!finish || npk_store_finish(s, NULL) == 0);

		_exit(ok ? 0 : 1);
	}
	T_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A writer that lives on: each byte it gets is one more append of ten rows and a drop of the first one. */
static pid_t appender(const char *dir, const char *name, int order[2], int done[2])
{
	pid_t pid;

	T_CHECK(pipe(order) == 0 && pipe(done) == 0);
	pid = fork();
	T_CHECK(pid >= 0);
	if (pid == 0) {
		struct npk_store *s = NULL;
		struct npk_array *a = NULL;
		uint64_t dropped;
		char c;

		close(order[1]);
		if (npk_store_open(&s, dir, NPK_RDWR, NULL) != 0 || npk_array_get(&a, s, name, NULL) != 0)
			_exit(1);
		while (read(order[0], &c, 1) == 1)
			if (npk_array_append(a, rows_of(1) + 20, 10, NULL) != 0 ||
				npk_array_drop(a, "0", &dropped, NULL) != 0 || write(done[1], &c, 1) != 1)
				_exit(1);
		_exit(0);
	}
	close(order[0]);
	close(done[1]);
	return pid;
}

/* What is in the journal only is applied to what is in the metadata, not to what an earlier look made of it. */
TEST(a_living_writers_journal_is_read_again_and_again)
{
	const char *dir = mk_dir();
	struct mk_array all[] = {array("a", 1, 10), array("b", 1, 20)};
	int order[2], done[2], status;
	struct npk_store *s;
	char c = 0;
	pid_t pid;

	mk_store(dir, all, 2);
	s = open_store(dir);
	pid = appender(dir, "a", order, done);
	for (uint64_t i = 1; i <= 5; i++) {
		struct npk_gen *g = gen_of(s, "a");

		T_CHECKF(npk_gen_info(g)->rows == 9 * i + 1, "%" PRIu64 " rows", npk_gen_info(g)->rows);
		T_CHECK(npk_gen_map(g, NULL) == 0);
		npk_gen_put(g);
		T_CHECK(write(order[1], &c, 1) == 1 && read(done[0], &c, 1) == 1);
		check_refresh(s, "!a");
		check_refresh(s, "");
	}
	check_now(s, "b", 1, NULL, 20);
	close(order[1]);
	T_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(done[0]);
	npk_store_close(s);
}

/* Nobody called refresh, and yet a generation is of one state: rows of the old shape from the new file are of none. */
TEST(a_first_look_after_a_change_is_no_mixture)
{
	for (int finish = 0; finish < 2; finish++) {
		const char *dir = mk_dir();
		struct mk_array all[] = {array("a", 1, 10), array("b", 1, 20), array("c", 1, 5)};
		struct npk_gen *held;
		struct npk_store *s;

		mk_store(dir, all, 3);
		s = open_store(dir);
		held = gen_of(s, "c");
		T_CHECK(npk_gen_map(held, NULL) == 0);
		in_another_process(dir, "a", 2, 30, finish);
		in_another_process(dir, "c", 2, 50, finish);
		check_now(s, "a", 2, NULL, 30);
		check_now(s, "b", 1, NULL, 20);
		check_now(s, "c", 2, NULL, 50);
		check_gen(held, 1, NULL, 5);
		npk_gen_put(held);
		check_refresh(s, "!a !c");
		check_refresh(s, "");
		npk_store_close(s);
	}
}

/* --- what a foreign process does --------------------------------------------------------------------------------------- */

TEST(nothing_changed_nothing_told)
{
	const char *dir = mk_dir();
	struct mk_array all[] = {array("a", 1, 10), array("b", 1, 20)};
	struct npk_gen *before, *after;
	struct npk_store *s;

	mk_store(dir, all, 2);
	s = open_store(dir);
	check_refresh(s, "");
	before = gen_of(s, "a");
	check_refresh(s, "");
	mk_metadata(dir, all, 2); /* the library rewrites it at every close, in another order */
	check_refresh(s, "");
	mk_metadata(dir, (struct mk_array[]){all[1], all[0]}, 2);
	check_refresh(s, "");
	after = gen_of(s, "a");
	T_CHECK(before == after && npk_gen_info(before)->number == npk_gen_info(after)->number);
	npk_gen_put(before);
	npk_gen_put(after);
	npk_store_close(s);
}

/* Rows are appended to the file in place, as the library does; then the metadata follows. */
TEST(an_append_is_seen_and_old_generations_keep_their_length)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 10);
	struct npk_gen *old, *older;
	struct npk_store *s;
	char path[4200];
	FILE *f;

	mk_store(dir, &a, 1);
	s = open_store(dir);
	old = gen_of(s, "a");
	check_gen(old, 1, NULL, 10);
	snprintf(path, sizeof(path), "%s/data_a.npkd", dir);
	f = fopen(path, "ab");
	T_CHECK(f && fwrite((const char *)a.data + 10 * 8, 8, 15, f) == 15 && fclose(f) == 0);
	check_refresh(s, "!a"); /* the file changed, its rows do not count yet */
	older = old;
	old = gen_of(s, "a");
	check_gen(old, 1, NULL, 10);
	a.dim[0] = 25;
	a.mtime_us++;
	mk_metadata(dir, &a, 1);
	check_refresh(s, "!a");
	check_now(s, "a", 1, NULL, 25);
	check_gen(old, 1, NULL, 10);
	check_gen(older, 1, NULL, 10);
	npk_gen_put(old);
	npk_gen_put(older);
	npk_store_close(s);
}

TEST(a_drop_a_second_one_and_a_compaction)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 200), compact = array("a", 2, 150);
	uint8_t first[200] = {[3] = 1, [199] = 1}, second[200] = {[3] = 1, [70] = 1, [199] = 1};
	struct npk_gen *all, *one, *two;
	struct npk_store *s;

	mk_store(dir, &a, 1);
	s = open_store(dir);
	all = gen_of(s, "a");
	T_CHECK(npk_gen_map(all, NULL) == 0);
	a.deleted = first;
	mk_bitmap(dir, &a);
	check_refresh(s, "!a");
	one = gen_of(s, "a");
	T_CHECK(npk_gen_map(one, NULL) == 0);
	a.deleted = second;
	mk_bitmap(dir, &a);
	check_refresh(s, "!a");
	two = gen_of(s, "a");
	check_gen(all, 1, NULL, 200);
	check_gen(one, 1, first, 200);
	check_gen(two, 1, second, 200);
	mk_store(dir, &compact, 1); /* new data, no bitmap, new shape */
	check_refresh(s, "!a");
	check_now(s, "a", 2, NULL, 150);
	check_gen(all, 1, NULL, 200); /* the old file lives on in their mappings */
	check_gen(one, 1, first, 200);
	check_gen(two, 1, second, 200);
	npk_gen_put(all);
	npk_gen_put(one);
	npk_gen_put(two);
	npk_store_close(s);
}

TEST(a_generation_not_yet_mapped_is_stale_after_a_replacement)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 10), b = array("a", 2, 10);
	struct npk_gen *g;
	struct npk_store *s;
	struct npk_err err;
	int32_t row[2];

	mk_store(dir, &a, 1);
	s = open_store(dir);
	g = gen_of(s, "a");
	mk_data(dir, &b);
	T_CHECK(npk_gen_read_rows(g, 0, 1, row, &err) == -ESTALE && strstr(err.msg, "data_a.npkd: was replaced"));
	T_CHECK(npk_gen_map(g, NULL) == -ESTALE);
	mk_remove(dir, "data_a.npkd");
	T_CHECK(npk_gen_map(g, &err) == -ESTALE && strstr(err.msg, "was removed"));
	npk_gen_put(g);
	npk_store_close(s);
}

TEST(arrays_come_go_and_come_again)
{
	const char *dir = mk_dir();
	struct mk_array all[] = {array("a", 1, 10), array("b", 1, 20), array("c", 1, 30)};
	struct npk_array *b;
	struct npk_gen *old, *g;
	struct npk_store_info info;
	struct npk_array_info ai;
	struct npk_store *s;
	struct npk_err err;

	mk_store(dir, all, 2);
	s = open_store(dir);
	T_CHECK(npk_array_get(&b, s, "b", NULL) == 0);
	old = gen_of(s, "b");
	check_gen(old, 1, NULL, 20);
	mk_store(dir, (struct mk_array[]){all[0], all[2]}, 2);
	mk_remove(dir, "data_b.npkd");
	check_refresh(s, "+c -b");
	T_CHECK(npk_gen_get(&g, b, &err) == -ENOENT && strstr(err.msg, "'b'"));
	T_CHECK(npk_array_info(b, &ai, NULL) == -ENOENT);
	check_gen(old, 1, NULL, 20);
	npk_store_info(s, &info);
	T_CHECK(info.narrays == 2);
	check_now(s, "c", 1, NULL, 30);

	all[1] = array("b", 5, 7); /* re-created: an array of its own, the old handle stays gone */
	mk_data(dir, &all[1]);
	mk_metadata(dir, all, 3);
	check_refresh(s, "+b");
	check_now(s, "b", 5, NULL, 7);
	T_CHECK(npk_gen_get(&g, b, NULL) == -ENOENT);
	check_gen(old, 1, NULL, 20);

	mk_store(dir, all, 0);
	check_refresh(s, "-a -b -c");
	npk_gen_put(old);
	npk_array_put(b);
	npk_store_close(s);
}

TEST(segments_are_watched_like_files)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 100);
	uint8_t gone[100] = {[64] = 1};
	struct npk_gen *old;
	struct npk_store *s;

	a.segment_rows = 30;
	mk_store(dir, &a, 1);
	s = open_store(dir);
	old = gen_of(s, "a");
	check_gen(old, 1, NULL, 100);
	check_refresh(s, "");
	a.data = rows_of(2);
	mk_data(dir, &a); /* new segments under the same names, the manifest too */
	check_refresh(s, "!a");
	check_now(s, "a", 2, NULL, 100);
	a.deleted = gone;
	mk_bitmap(dir, &a);
	check_refresh(s, "!a");
	check_now(s, "a", 2, gone, 100);
	check_gen(old, 1, NULL, 100);
	mk_remove(dir, "data_a_segments/seg_000003.npkd"); /* somebody may be writing: the rows of before stay */
	check_unreadable(s, "data_a_segments/seg_000003.npkd");
	check_now(s, "a", 2, gone, 100);
	npk_gen_put(old);
	npk_store_close(s);
}

TEST(another_type_or_shape_is_a_change)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 10), flat = a;
	struct npk_gen *g;
	struct npk_store *s;

	mk_store(dir, &a, 1);
	s = open_store(dir);
	flat.ndim = 1;
	flat.dtype = NPK_I64;
	mk_metadata(dir, &flat, 1); /* nobody holds a generation: told all the same */
	check_refresh(s, "!a");
	g = gen_of(s, "a");
	T_CHECK(npk_gen_info(g)->shape.ndim == 1 && npk_gen_info(g)->dtype == NPK_I64);
	npk_gen_put(g);
	npk_store_close(s);
}

TEST(an_array_is_damaged_and_well_again)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 10), b = a;
	struct npk_array *h;
	struct npk_gen *g;
	struct npk_store *s;
	struct npk_err err;

	mk_store(dir, &a, 1);
	s = open_store(dir);
	T_CHECK(npk_array_get(&h, s, "a", NULL) == 0);
	b.dtype = 99;
	mk_metadata(dir, &b, 1);
	check_refresh(s, "!a");
	T_CHECK(npk_gen_get(&g, h, &err) == -ENOTSUP && strstr(err.msg, "dtype 99"));
	mk_metadata(dir, &a, 1);
	check_refresh(s, "!a");
	check_now(s, "a", 1, NULL, 10);
	mk_remove(dir, "data_a.npkd");
	check_unreadable(s, "data_a.npkd");
	check_now(s, "a", 1, NULL, 10); /* as it was, since it was in use */
	a.data = rows_of(2);
	mk_data(dir, &a);
	check_refresh(s, "!a");
	check_now(s, "a", 2, NULL, 10);
	npk_array_put(h);
	npk_store_close(s);
}

/* An entry that is there twice is one array, told once; the last one counts, then as before. */
TEST(a_double_entry_is_told_once)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 10), b = array("a", 1, 5);
	struct npk_store_info info;
	struct npk_gen *g, *same;
	struct npk_store *s;

	mk_store(dir, &a, 1);
	s = open_store(dir);
	mk_metadata(dir, (struct mk_array[]){a, b}, 2);
	check_refresh(s, "!a");
	npk_store_info(s, &info);
	T_CHECK(info.read_only && strstr(info.why, "'a' is there twice") && info.narrays == 1);
	check_now(s, "a", 1, NULL, 5);
	g = gen_of(s, "a");
	mk_metadata(dir, (struct mk_array[]){a, b}, 2);
	check_refresh(s, "");
	same = gen_of(s, "a");
	T_CHECK(g == same);
	npk_gen_put(g);
	npk_gen_put(same);
	mk_metadata(dir, (struct mk_array[]){a, b, array("n", 1, 5), array("n", 2, 5)}, 4);
	check_refresh(s, "+n");
	npk_store_close(s);
}

/* --- errors ------------------------------------------------------------------------------------------------------------ */

/* Metadata that is no metadata, at any place it can be cut: an error, and everything as it was. */
TEST(torn_metadata_changes_nothing)
{
	const char *dir = mk_dir();
	struct mk_array all[] = {array("a", 1, 10), array("b", 1, 20)}, more[] = {array("a", 9, 3), array("z", 1, 1)};
	struct npk_store_info info;
	struct mk_bytes whole;
	struct npk_store *s;
	struct told t = {0};
	struct npk_err err;

	mk_store(dir, all, 2);
	s = open_store(dir);
	check_now(s, "a", 1, NULL, 10);
	mk_metadata(dir, more, 2);
	whole = mk_read(dir, "metadata.npkm");
	for (size_t len = 0; len < whole.len; len++) {
		mk_file(dir, "metadata.npkm", whole.p, len);
		T_CHECKF(npk_store_refresh(s, tell, &t, &err) == -EUCLEAN, "%zu bytes", len);
		T_CHECKF(strstr(err.msg, "metadata.npkm: byte "), "%zu bytes: %s", len, err.msg);
		T_CHECKF(t.calls == 0, "%zu bytes: told '%s'", len, t.text);
	}
	mk_remove(dir, "metadata.npkm");
	T_CHECK(npk_store_refresh(s, tell, &t, &err) == -EUCLEAN && strstr(err.msg, "is missing") && t.calls == 0);
	npk_store_info(s, &info);
	T_CHECK(info.narrays == 2 && !info.read_only);
	check_now(s, "a", 1, NULL, 10);
	check_now(s, "b", 1, NULL, 20);
	mk_metadata(dir, all, 2);
	check_refresh(s, "");
	mk_free(&whole);
	npk_store_close(s);
}

/* A handle, a generation and a view outlive the store they came from. */
TEST(references_outlive_the_store)
{
	const char *dir = mk_dir();
	struct mk_array a = array("a", 1, 10);
	struct npk_array *h;
	struct npk_gen *g, *again;
	struct npk_view *v;
	struct npk_store *s;
	int32_t row[2];

	mk_store(dir, &a, 1);
	s = open_store(dir);
	T_CHECK(npk_array_get(&h, s, "a", NULL) == 0);
	g = gen_of(s, "a");
	T_CHECK(npk_view_open(&v, g, "::-1", NULL) == 0);
	npk_gen_put(g);
	npk_store_close(s);
	T_CHECK(npk_view_read(v, 0, row, 8, NULL) == 0 && row[0] == 1 && row[1] == 9);
	T_CHECK(npk_gen_get(&again, h, NULL) == 0);
	check_gen(again, 1, NULL, 10);
	npk_gen_put(again);
	npk_view_close(v);
	npk_array_put(h);
	npk_store_close(NULL);
	npk_array_put(NULL);
	npk_gen_put(NULL);
	npk_view_close(NULL);
}

/* --- threads ----------------------------------------------------------------------------------------------------------- */

struct race {
	struct npk_store *s;
	const char *dir;
	_Atomic bool stop;
	_Atomic unsigned reads, stale, versions;
	_Atomic int bad; /* line of a failed check: cmocka's asserts belong to the main thread */
};

#define RACE_CHECK(R, COND)                                                                                            \
	do {                                                                                                           \
		int zero = 0;                                                                                          \
		if (!(COND))                                                                                           \
			atomic_compare_exchange_strong(&(R)->bad, &zero, __LINE__);                                    \
	} while (0)

/* Rows of a generation are all of one version and ascend; a second reading of it gives the same. */
static void read_once(struct race *r, unsigned char name)
{
	int32_t got[ROWS_MAX][2], again[2];
	char text[2] = {(char)name, 0};
	struct npk_array *a;
	struct npk_gen *g;
	uint64_t rows;
	int rc = npk_array_get(&a, r->s, text, NULL);

	RACE_CHECK(r, rc == 0);
	if (rc != 0)
		return;
	rc = npk_gen_get(&g, a, NULL);
	npk_array_put(a);
	RACE_CHECK(r, rc == 0 || rc == -EUCLEAN); /* between two renames: the shape is newer than the file */
	if (rc != 0)
		return;
	rows = npk_gen_info(g)->rows;
	rc = npk_gen_read_rows(g, 0, rows, got, NULL);
	RACE_CHECK(r, rc == 0 || rc == -ESTALE);
	if (rc == -ESTALE)
		r->stale++;
	for (uint64_t i = 1; rc == 0 && i < rows; i++)
		RACE_CHECK(r, got[i][0] == got[0][0] && got[i][1] > got[i - 1][1]);
	for (uint64_t i = 0; rc == 0 && i < rows; i += 1 + rows / 7) {
		RACE_CHECK(r, npk_gen_take(g, &(int64_t){(int64_t)i}, 1, again, NULL) == 0);
		RACE_CHECK(r, memcmp(again, got[i], 8) == 0);
		RACE_CHECK(r, (uint64_t)got[i][1] == npk_gen_slot(g, i));
	}
	r->reads += rc == 0;
	npk_gen_put(g);
}

static void *reader(void *arg)
{
	struct race *r = arg;

	while (!r->stop) {
		read_once(r, 'a');
		read_once(r, 's');
	}
	return NULL;
}

static void count_version(void *ctx, struct npk_array *a, enum npk_change what)
{
	struct race *r = ctx;

	(void)a;
	RACE_CHECK(r, what == NPK_CHANGED);
	r->versions++;
}

TEST(rows_of_two_versions_never_mix)
{
	static uint8_t gone[2][ROWS_MAX];
	uint64_t rnd = t_seed();
	struct race r = {.dir = mk_dir()};
	struct mk_array all[] = {array("a", 0, 100), array("s", 0, 100)};
	struct timespec from, now;
	pthread_t t[2];

	all[1].segment_rows = 40;
	mk_store(r.dir, all, 2);
	r.s = open_store(r.dir);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < 2; i++)
		T_CHECK(pthread_create(&t[i], NULL, reader, &r) == 0);
	for (int32_t version = 1;; version++) {
		struct npk_err err;

		for (int i = 0; i < 2; i++) {
			for (size_t k = 0; k < ROWS_MAX; k++)
				gone[i][k] = t_rand(&rnd) % 3 == 0;
			all[i] = array(i ? "s" : "a", version, 1 + t_rand(&rnd) % (i ? 200 : ROWS_MAX));
			all[i].segment_rows = i ? ROWS_MAX : 0; /* several files could not be replaced in one step */
			all[i].deleted = version % 3 ? gone[i] : NULL;
		}
		mk_data(r.dir, &all[0]);
		mk_bitmap(r.dir, &all[0]);
		mk_data(r.dir, &all[1]);
		mk_bitmap(r.dir, &all[1]);
		mk_metadata(r.dir, all, 2);
		T_CHECKF(npk_store_refresh(r.s, count_version, &r, &err) == 0, "%s", err.msg);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (r.bad || now.tv_sec - from.tv_sec >= 3)
			break;
	}
	r.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	T_CHECKF(r.bad == 0, "seed %#" PRIx64 ": the check of line %d failed", t_seed(), (int)r.bad);
	T_CHECKF(r.reads > 10 && r.versions > 10, "%u reads, %u versions, %u stale", r.reads, r.versions, r.stale);
	npk_store_close(r.s);
}

/* Refreshes, listings and closings from many threads at once. */
static void *lister(void *arg)
{
	struct race *r = arg;

	while (!r->stop) {
		struct npk_array **list;
		struct npk_array_info info;
		struct npk_text t = {0};
		size_t n;

		RACE_CHECK(r, npk_store_refresh(r->s, NULL, NULL, NULL) == 0);
		RACE_CHECK(r, npk_store_list(r->s, &list, &n, NULL) == 0);
		for (size_t i = 0; i < n; i++)
			(void)npk_array_info(list[i], &info, NULL);
		npk_store_list_free(list, n);
		RACE_CHECK(r, npk_store_metadata_json(r->s, &t, NULL) == 0);
		npk_text_fini(&t);
		r->reads++;
	}
	return NULL;
}

TEST(arrays_come_and_go_under_listings)
{
	struct race r = {.dir = mk_dir()};
	struct mk_array all[] = {array("a", 0, 10), array("b", 0, 20), array("c", 0, 30)};
	struct timespec from, now;
	pthread_t t[2];

	mk_store(r.dir, all, 3);
	r.s = open_store(r.dir);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < 2; i++)
		T_CHECK(pthread_create(&t[i], NULL, lister, &r) == 0);
	for (uint64_t i = 1;; i++) {
		for (int k = 0; k < 3; k++)
			all[k].mtime_us = i;
		mk_metadata(r.dir, all + i % 2, 1 + i % 3 % 2);
		T_CHECK(npk_store_refresh(r.s, NULL, NULL, NULL) == 0);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (r.bad || now.tv_sec - from.tv_sec >= 2)
			break;
	}
	r.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	T_CHECKF(r.bad == 0, "the check of line %d failed", (int)r.bad);
	T_CHECK(r.reads > 10);
	npk_store_close(r.s);
}

T_MAIN()
