/* What stands where a file of the store should: other kinds of files, names at the limits, flags; and that a refusal says why
 * and touches nothing else. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <numpack.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t bytes[4096];

static struct mk_array array(const char *name, uint64_t rows)
{
	return (struct mk_array){.name = name, .dtype = NPK_U8, .ndim = 1, .dim = {rows}, .data = bytes};
}

static const char *path_of(const char *dir, const char *file)
{
	static char path[4200];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return path;
}

/* npk_gen_get() of one array of a store opened anew. */
static int load(const char *dir, const char *name, struct npk_err *err)
{
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	struct npk_store *s = NULL;
	int rc;

	*err = (struct npk_err){0};
	T_CHECKF(npk_store_open(&s, dir, NPK_RDONLY, err) == 0, "%s", err->msg);
	T_CHECKF(npk_array_get(&a, s, name, err) == 0, "%s", err->msg);
	rc = npk_gen_get(&g, a, err);
	npk_gen_put(g);
	npk_array_put(a);
	npk_store_close(s);
	return rc;
}

enum kind {
	LINK,
	LINK_OUT,
	DIRECTORY,
	FIFO
};

static void put_in_place(const char *dir, const char *file, enum kind kind)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s", path_of(dir, file));
	T_CHECK(rename(path, path_of(dir, "elsewhere")) == 0);
	if (kind == LINK)
		T_CHECK(symlink("elsewhere", path) == 0);
	else if (kind == LINK_OUT)
		T_CHECK(symlink("/etc/passwd", path) == 0);
	else if (kind == DIRECTORY)
		T_CHECK(mkdir(path, 0755) == 0);
	else
		T_CHECK(mkfifo(path, 0644) == 0);
}

/* None of them is followed, waited for or read; the array beside it works. */
TEST(only_regular_files_count)
{
	static const char *const files[] = {
		"data_a.npkd", "deleted_a.npkb", "data_s.npkseg", "data_s_segments/seg_000001.npkd", "metadata.npkm"};
	static const char *const arrays[] = {"a", "a", "s", "s", NULL};
	static const char *const what[] = {"symbolic link", "symbolic link", "directory", "FIFO"};
	static const uint8_t gone[10] = {1};

	alarm(20); /* a FIFO must not be waited for */
	for (size_t f = 0; f < 5; f++)
		for (enum kind k = LINK; k <= FIFO; k++) {
			struct mk_array all[] = {array("a", 10), array("s", 10), array("fine", 10)};
			const char *dir = mk_dir();
			struct npk_store *s = NULL;
			struct npk_err err;
			uint64_t damages;

			all[0].deleted = gone;
			all[1].segment_rows = 4;
			mk_store(dir, all, 3);
			put_in_place(dir, files[f], k);
			T_CHECK(npk_store_verify(dir, NULL, NULL, &damages, NULL) == 0);
			T_CHECKF(damages > 0, "%s: %s", files[f], what[k]);
			if (arrays[f]) {
				T_CHECKF(load(dir, arrays[f], &err) == -EUCLEAN, "%s: %s", files[f], what[k]);
				T_CHECK(load(dir, "fine", &(struct npk_err){0}) == 0);
			} else {
				T_CHECKF(npk_store_open(&s, dir, NPK_RDONLY, &err) == -EUCLEAN, "%s", what[k]);
			}
			T_CHECKF(strstr(err.msg, files[f]) && strstr(err.msg, what[k]), "%s", err.msg);
		}
	alarm(0);
}

TEST(a_linked_directory_leaves_the_store)
{
	const char *dir = mk_dir(), *other = mk_dir();
	struct mk_array a = array("s", 10);
	char path[4200];
	struct npk_err err;

	a.segment_rows = 4;
	mk_store(dir, &a, 1);
	mk_store(other, &a, 1);
	snprintf(path, sizeof(path), "%s", path_of(dir, "data_s_segments"));
	T_CHECK(rename(path, path_of(dir, "moved")) == 0 && symlink(path_of(other, "data_s_segments"), path) == 0);
	T_CHECKF(load(dir, "s", &err) == -EUCLEAN && strstr(err.msg, "symbolic link"), "%s", err.msg);
}

/* A data file's name has room for 245 bytes of the array's, a bitmap's for 242: beyond, there cannot be one. */
TEST(names_up_to_the_limit_of_a_file_name)
{
	const char *dir = mk_dir();
	static char names[20][300];
	struct mk_array all[20];
	struct npk_store *s;
	size_t n = 0;

	for (size_t len = 230; len <= 245; len++, n++) {
		memset(names[n], 'n', len);
		all[n] = array(names[n], 10 + len);
	}
	mk_store(dir, all, 0);
	for (size_t i = 0; i < n; i++)
		mk_data(dir, &all[i]);
	mk_metadata(dir, all, n);
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
	for (size_t i = 0; i < n; i++) {
		struct npk_err err = {0};
		struct npk_array *a;
		struct npk_gen *g = NULL, *same = NULL;

		T_CHECK(npk_array_get(&a, s, names[i], NULL) == 0);
		T_CHECKF(npk_gen_get(&g, a, &err) == 0, "%zu bytes: %s", strlen(names[i]), err.msg);
		T_CHECK(npk_gen_info(g)->rows == 10 + strlen(names[i]));
		T_CHECK(npk_store_refresh(s, NULL, NULL, NULL) == 0 && npk_gen_get(&same, a, NULL) == 0);
		T_CHECKF(g == same, "%zu bytes: a refresh took it for another", strlen(names[i]));
		npk_gen_put(g);
		npk_gen_put(same);
		npk_array_put(a);
	}
	npk_store_close(s);
}

/* A name whose files cannot exist damages its array, and only it. */
TEST(names_beyond_the_limit)
{
	const char *dir = mk_dir();
	static char longer[300], path[400];
	struct mk_array all[] = {array(longer, 5), array("fine", 5), array("deep", 5)};
	struct npk_err err;

	memset(longer, 'n', 246);
	memset(path, 'd', 300);
	strcpy(path + 300, "/x.npkd");
	all[2].file = path;
	mk_store(dir, &all[1], 1);
	mk_metadata(dir, all, 3);
	T_CHECKF(load(dir, longer, &err) == -EUCLEAN && err.code == EUCLEAN, "%s", err.msg);
	T_CHECKF(load(dir, "deep", &err) == -EUCLEAN && err.code == EUCLEAN, "%s", err.msg);
	T_CHECK(load(dir, "fine", &err) == 0);
}

/* Messages are one line, also about names that are not. */
TEST(messages_are_one_line)
{
	const char *dir = mk_dir();
	struct mk_array a = array("two\nlines\x1B", 5);
	struct npk_store *s = NULL;
	struct npk_array *h = NULL;
	struct npk_gen *g = NULL;
	struct npk_err err;
	uint8_t out[2];

	mk_store(dir, &a, 1);
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
	T_CHECK(npk_array_get(&h, s, "no\nne", &err) == -ENOENT && !strpbrk(err.msg, "\n\x1B"));
	T_CHECK(npk_array_get(&h, s, a.name, NULL) == 0 && npk_gen_get(&g, h, NULL) == 0);
	T_CHECK(npk_gen_read_rows(g, 5, 1, out, &err) == -ERANGE && !strpbrk(err.msg, "\n\x1B"));
	npk_gen_put(g);
	npk_array_put(h);
	npk_store_close(s);
	mk_remove(dir, "data_two\nlines\x1B.npkd");
	T_CHECK(load(dir, a.name, &err) == -EUCLEAN && !strpbrk(err.msg, "\n\x1B"));
}

TEST(what_cannot_be_opened)
{
	const char *dir = mk_dir();
	struct npk_store *s = NULL;
	struct npk_err err;

	T_CHECK(npk_store_open(&s, dir, 0, &err) == -EINVAL && err.code == EINVAL);
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY | 64, NULL) == -EINVAL);
	T_CHECK(npk_store_open(&s, path_of(dir, "none"), NPK_RDONLY, &err) == -ENOENT);
	T_CHECKF(strstr(err.msg, dir), "%s", err.msg);
	mk_file(dir, "file", "x", 1);
	T_CHECK(npk_store_open(&s, path_of(dir, "file"), NPK_RDONLY, &err) == -EUCLEAN && s == NULL);
}

/* Data files without metadata are never taken for an empty store. */
TEST(any_file_of_a_store_makes_missing_metadata_damage)
{
	static const struct {
		const char *file;
		bool ours;
	} cases[] = {{"data_a.npkd", true}, {"data_.npkd", true}, {"data_a.npkseg", true}, {"deleted_a.npkb", true},
		{"data_a.npkd.tmp", false}, {"temp_1_data_a.npkd", false}, {"metadata.npkm.tmp.1_2_3", false},
		{"README", false}, {"data_a.txt", false}, {"xdata_a.npkd", false}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *dir = mk_dir();
		struct npk_store *s = NULL;
		struct npk_err err = {0};
		int rc;

		mk_file(dir, cases[i].file, "", 0);
		rc = npk_store_open(&s, dir, NPK_RDONLY, &err);
		T_CHECKF(rc == (cases[i].ours ? -EUCLEAN : 0), "%s: %d", cases[i].file, rc);
		T_CHECK(!cases[i].ours || strstr(err.msg, cases[i].file));
		npk_store_close(s);
	}
}

T_MAIN()
