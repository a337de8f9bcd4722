/* A moment between two steps of another process, or two moments at once, looks like damage: a reader looks again before it says
 * so. What stays is refused as ever. The other process is a hook that runs at a chosen read of the reader. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <io.h>
#include <numpack.h>

#define ROWS 100

static const struct npk_shape rows_shape = {1, {ROWS}}, one = {1, {1}};
static uint8_t bytes[ROWS];

static struct mk_array array(const char *name, uint64_t rows)
{
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(7 * i + 1);
	return (struct mk_array){
		.name = name, .dtype = NPK_U8, .ndim = 1, .dim = {rows}, .data = bytes, .mtime_us = 1000 + rows};
}

static uint64_t rows_of(struct npk_store *s, const char *name)
{
	uint8_t got[ROWS];
	struct npk_array *a;
	struct npk_gen *g;
	struct npk_err err;
	uint64_t n;

	T_CHECKF(npk_array_get(&a, s, name, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_gen_get(&g, a, &err) == 0, "%s", err.msg);
	n = npk_gen_info(g)->rows;
	T_CHECKF(npk_gen_read_rows(g, 0, n, got, &err) == 0, "%s", err.msg);
	T_CHECK(memcmp(got, bytes, n) == 0);
	npk_gen_put(g);
	npk_array_put(a);
	return n;
}

/* At the `at`-th read of `path` from its begin, what `file` was before is there again. */
struct moment {
	const char *dir, *path, *file;
	struct mk_bytes was;
	unsigned at, reads;
};

static int count_and_mend(void *ctx, const char *path, uint64_t off, uint64_t len)
{
	struct moment *m = ctx;

	(void)len;
	if (strcmp(path, m->path) == 0 && off == 0 && ++m->reads == m->at)
		mk_file(m->dir, m->file, m->was.p, m->was.len);
	return 0;
}

/* The first `left` bytes of the file are there meanwhile; none: the file is not. */
static struct moment begin(const char *dir, const char *file, size_t left, const char *path, unsigned at)
{
	struct moment m = {.dir = dir, .path = path, .file = file, .was = mk_read(dir, file), .at = at};

	if (left)
		mk_file(dir, file, m.was.p, left);
	else
		mk_remove(dir, file);
	return m;
}

/* --- the list of arrays ------------------------------------------------------------------------------------------------- */

/* The metadata is not there, or half of it is, at one look or two: neither an open nor a refresh says so. */
TEST(metadata_that_comes_back_was_never_missing)
{
	static const unsigned flags[] = {NPK_RDONLY, NPK_RDWR};
	struct mk_array all[] = {array("a", 10), array("b", 20)}, more[] = {array("a", 10), array("b", 30)};

	for (int half = 0; half < 2; half++)
		for (unsigned at = 1; at <= 2; at++)
			for (int i = 0; i < 2; i++) {
				const char *dir = mk_dir(), *read = half ? "metadata.npkm" : ".";
				struct npk_store_info info;
				struct npk_store *s;
				struct npk_err err;
				struct moment m;

				mk_store(dir, all, 2);
				m = begin(dir, "metadata.npkm", half ? 70 : 0, read, at);
				npki_io_set_hook(&(struct npki_io_hook){NULL, &m, count_and_mend});
				T_CHECKF(npk_store_open(&s, dir, flags[i], &err) == 0, "%s", err.msg);
				npki_io_set_hook(NULL);
				npk_store_info(s, &info);
				T_CHECK(m.reads >= at && info.narrays == 2 && !info.read_only);
				T_CHECK(rows_of(s, "a") == 10 && rows_of(s, "b") == 20);
				mk_free(&m.was);
				mk_store(dir, more, 2);
				m = begin(dir, "metadata.npkm", half ? 70 : 0, read, at);
				npki_io_set_hook(&(struct npki_io_hook){NULL, &m, count_and_mend});
				T_CHECKF(npk_store_refresh(s, NULL, NULL, &err) == 0, "%s", err.msg);
				npki_io_set_hook(NULL);
				T_CHECK(m.reads >= at && rows_of(s, "a") == 10 && rows_of(s, "b") == 30);
				mk_free(&m.was);
				npk_store_close(s);
			}
}

/* What stays is damage: told after one look more when nobody writes the store, after some when somebody does, and by a refresh
 * that finds it as it was, at once. */
TEST(metadata_that_stays_away_is_missing)
{
	struct mk_array a = array("a", 10);

	for (int written = 0; written < 2; written++) {
		struct npk_store *s, *writer = NULL, *none = NULL;
		const char *dir = mk_dir();
		struct npk_err err;
		struct moment m;
		unsigned looks;

		mk_store(dir, &a, 1);
		T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
		if (written) {
			T_CHECK(npk_store_open(&writer, dir, NPK_RDWR, NULL) == 0);
			T_CHECK(npk_store_save(writer, "b", NPK_U8, &one, bytes, NULL) == 0);
		}
		m = begin(dir, "metadata.npkm", 0, ".", 0);
		npki_io_set_hook(&(struct npki_io_hook){NULL, &m, count_and_mend});
		T_CHECK(npk_store_open(&none, dir, NPK_RDONLY, &err) == -EUCLEAN && none == NULL);
		T_CHECKF(strstr(err.msg, "metadata.npkm: is missing beside "), "%s", err.msg);
		looks = m.reads;
		T_CHECKF(written ? looks >= 3 : looks == 2, "%u looks", looks);
		m.reads = 0;
		T_CHECK(npk_store_refresh(s, NULL, NULL, &err) == -EUCLEAN && strstr(err.msg, "is missing"));
		T_CHECKF(written ? m.reads >= 3 : m.reads == 2, "%u looks", m.reads);
		m.reads = 0;
		T_CHECK(npk_store_refresh(s, NULL, NULL, &err) == -EUCLEAN && strstr(err.msg, "is missing"));
		T_CHECKF(m.reads == 1, "%u looks", m.reads);
		npki_io_set_hook(NULL);
		T_CHECK(rows_of(s, "a") == 10);
		mk_file(dir, "metadata.npkm", m.was.p, m.was.len);
		T_CHECKF(npk_store_refresh(s, NULL, NULL, &err) == 0, "%s", err.msg);
		T_CHECK(rows_of(s, "a") == 10);
		mk_free(&m.was);
		npk_store_close(s);
		T_CHECK(!writer || npk_store_finish(writer, NULL) == 0);
	}
}

/* --- files of an array -------------------------------------------------------------------------------------------------- */

/* A segment that is there at the second look. */
TEST(a_segment_that_comes_back_was_never_missing)
{
	static const char segment[] = "data_a_segments/seg_000001.npkd", list[] = "data_a.npkseg";
	struct mk_array a = array("a", ROWS);
	const char *dir = mk_dir();
	struct npk_store *s;
	struct moment m;

	a.segment_rows = 40;
	mk_store(dir, &a, 1);
	for (size_t left = 0; left < 40; left += 17) {
		T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
		m = begin(dir, segment, left, list, 2);
		npki_io_set_hook(&(struct npki_io_hook){NULL, &m, count_and_mend});
		T_CHECK(rows_of(s, "a") == ROWS && m.reads == 2);
		npki_io_set_hook(NULL);
		mk_free(&m.was);
		npk_store_close(s);
	}
}

/* --- metadata and journal ----------------------------------------------------------------------------------------------- */

/* When the reader has opened the metadata, the writer saves an array, makes a checkpoint, and appends to the array: the journal
 * that the reader finds then changes another metadata than the one it has read. */
struct step {
	struct npk_store *writer;
	const char *name;
	bool done;
};

static int step_in_between(void *ctx, const char *path, uint64_t off, uint64_t len)
{
	struct step *st = ctx;
	struct npk_array *a;
	struct npk_err err;

	(void)len;
	if (st->done || strcmp(path, "metadata.npkm") != 0 || off != 0)
		return 0;
	st->done = true; /* what follows reads, too */
	T_CHECKF(npk_store_save(st->writer, st->name, NPK_U8, &one, bytes, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_store_sync(st->writer, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_array_get(&a, st->writer, st->name, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_array_append(a, bytes + 1, 9, &err) == 0, "%s", err.msg);
	npk_array_put(a);
	return 0;
}

TEST(a_journal_is_not_applied_to_another_metadata)
{
	struct step st = {.name = "b"};
	const char *dir = mk_dir();
	struct npk_store *s;
	struct npk_err err;

	T_CHECK(npk_store_open(&st.writer, dir, NPK_RDWR | NPK_CREATE, NULL) == 0);
	array("a", ROWS);
	T_CHECK(npk_store_save(st.writer, "a", NPK_U8, &rows_shape, bytes, NULL) == 0);
	T_CHECK(npk_store_sync(st.writer, NULL) == 0);
	npki_io_set_hook(&(struct npki_io_hook){NULL, &st, step_in_between});
	T_CHECKF(npk_store_open(&s, dir, NPK_RDONLY, &err) == 0, "%s", err.msg);
	npki_io_set_hook(NULL);
	T_CHECK(st.done && rows_of(s, "a") == ROWS && rows_of(s, "b") == 10);
	st = (struct step){.writer = st.writer, .name = "c"};
	T_CHECK(npk_store_save(st.writer, "d", NPK_U8, &one, bytes, NULL) == 0 && npk_store_sync(st.writer, NULL) == 0);
	npki_io_set_hook(&(struct npki_io_hook){NULL, &st, step_in_between});
	T_CHECKF(npk_store_refresh(s, NULL, NULL, &err) == 0, "%s", err.msg);
	npki_io_set_hook(NULL);
	T_CHECK(st.done && rows_of(s, "c") == 10 && rows_of(s, "d") == 1 && rows_of(s, "a") == ROWS);
	npk_store_close(s);
	T_CHECK(npk_store_finish(st.writer, NULL) == 0);
}

T_MAIN()
