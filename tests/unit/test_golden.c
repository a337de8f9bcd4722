/* Stores written by the real NumPack: every way of reading an array gives what numpy.save wrote of it, and every damaged
 * one gets its verdict. tests/golden says what each store is. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <json.h>
#include <numpack.h>

#define GOLDEN "tests/golden"
#define BAD "tests/golden/bad"

static void need_golden(void)
{
	T_CHECKF(mk_exists(GOLDEN, "index.json"), "run this from the top of the tree: there is no " GOLDEN);
}

/* --- the indexes ------------------------------------------------------------------------------------------------------ */

struct list {
	char *item[64];
	size_t n;
};

struct line { /* of either index */
	char *store, *array, *expected, *archive, *path, *kind;
	uint64_t physical_rows, deleted;
	bool segmented, open_fails, read_only;
	struct list damaged, usable, values; /* values: name, file, name, file ... */
};

static char *string(struct npki_json *j)
{
	char *s;

	T_CHECK(npki_json_string(j, &s, NULL) == 0);
	return s;
}

static bool boolean(struct npki_json *j)
{
	T_CHECK(npki_json_skip(j, NULL) == 0);
	return memcmp(j->p - 4, "true", 4) == 0;
}

static void strings(struct npki_json *j, struct list *l, char open, char close)
{
	T_CHECK(npki_json_take(j, open));
	if (npki_json_take(j, close))
		return;
	do {
		T_CHECK(l->n + 2 <= 64);
		l->item[l->n++] = string(j);
		if (npki_json_take(j, ':'))
			l->item[l->n++] = string(j);
	} while (npki_json_take(j, ','));
	T_CHECK(npki_json_take(j, close));
}

static void member(struct npki_json *j, struct line *l, const char *key)
{
	static const char *const texts[] = {"store", "array", "expected_npy", "archive", "path", "kind"};
	char **to[] = {&l->store, &l->array, &l->expected, &l->archive, &l->path, &l->kind};
	size_t i;

	for (i = 0; i < 6 && strcmp(key, texts[i]) != 0; i++)
		;
	if (i < 6)
		*to[i] = string(j);
	else if (strcmp(key, "physical_rows") == 0)
		T_CHECK(npki_json_uint(j, &l->physical_rows, NULL) == 0);
	else if (strcmp(key, "deleted") == 0)
		T_CHECK(npki_json_uint(j, &l->deleted, NULL) == 0);
	else if (strcmp(key, "segmented") == 0)
		l->segmented = boolean(j);
	else if (strcmp(key, "open_fails") == 0)
		l->open_fails = boolean(j);
	else if (strcmp(key, "store_read_only") == 0)
		l->read_only = boolean(j);
	else if (strcmp(key, "damaged") == 0)
		strings(j, &l->damaged, '[', ']');
	else if (strcmp(key, "usable") == 0)
		strings(j, &l->usable, '[', ']');
	else if (strcmp(key, "values") == 0)
		strings(j, &l->values, '{', '}');
	else
		T_CHECK(npki_json_skip(j, NULL) == 0);
}

static void free_list(struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->item[i]);
}

static unsigned each_line(struct npki_json *j, void (*fn)(const struct line *))
{
	unsigned n = 0;

	T_CHECK(npki_json_take(j, '['));
	do {
		struct line l = {0};

		T_CHECK(npki_json_take(j, '{'));
		do {
			char *key = string(j);

			T_CHECK(npki_json_take(j, ':'));
			member(j, &l, key);
			free(key);
		} while (npki_json_take(j, ','));
		T_CHECK(npki_json_take(j, '}'));
		fn(&l);
		n++;
		free_list(&l.damaged);
		free_list(&l.usable);
		free_list(&l.values);
		free(l.store);
		free(l.array);
		free(l.expected);
		free(l.archive);
		free(l.path);
		free(l.kind);
	} while (npki_json_take(j, ','));
	T_CHECK(npki_json_take(j, ']'));
	return n;
}

/* --- reading one array in every way ------------------------------------------------------------------------------------ */

/* What numpy.save wrote. */
struct want {
	const char *what; /* for messages */
	struct mk_bytes file;
	struct npk_npy npy;
	const uint8_t *rows;
};

static struct want want_of(const char *file, const char *what)
{
	struct want w = {.what = what, .file = mk_read(GOLDEN, file)};
	struct npk_err err;

	T_CHECKF(npk_npy_parse(w.file.p, w.file.len, &w.npy, NULL, &err) == 0, "%s: %s", file, err.msg);
	T_CHECK(w.npy.header_len + w.npy.data_len == w.file.len);
	w.rows = w.file.p + w.npy.header_len;
	return w;
}

static void check_npy_file(struct npk_gen *g, const struct want *w)
{
	const struct npk_gen_info *i = npk_gen_info(g);
	char header[NPK_NPY_HEADER_MAX];
	size_t n = npk_npy_header(header, i->dtype, &i->shape, 64);

	T_CHECKF(n == w->npy.header_len && memcmp(header, w->file.p, n) == 0, "%s: header '%.*s'", w->what, (int)n,
		header);
	T_CHECKF(i->rows * i->row_bytes == w->npy.data_len, "%s: %llu rows", w->what, (unsigned long long)i->rows);
}

static void check_view(struct npk_gen *g, const struct want *w, uint64_t *rnd)
{
	uint64_t len = w->npy.data_len, at = 0;
	uint8_t *got = malloc(len + 1);
	struct npk_view *v;
	const void *p;
	size_t n;

	T_CHECK(npk_view_open(&v, g, NULL, NULL) == 0 && npk_view_info(v)->bytes == len);
	T_CHECK(npk_view_read(v, 0, got, len, NULL) == 0);
	T_CHECKF(memcmp(got, w->rows, len) == 0, "%s: view", w->what);
	for (int i = 0; i < 20; i++) {
		uint64_t off = t_rand(rnd) % (len + 1);

		n = t_rand(rnd) % (len - off + 1);
		T_CHECK(npk_view_read(v, off, got, n, NULL) == 0);
		T_CHECKF(memcmp(got, w->rows + off, n) == 0, "%s: view bytes %llu + %zu", w->what,
			(unsigned long long)off, n);
	}
	T_CHECK(npk_view_read(v, len, got, 1, NULL) == -EINVAL && npk_view_read(v, len + 1, got, 0, NULL) == -EINVAL);
	for (; (n = npk_view_borrow(v, at, &p)) > 0; at += n)
		T_CHECKF(n <= len - at && memcmp(p, w->rows + at, n) == 0, "%s: view borrowed at %llu", w->what,
			(unsigned long long)at);
	T_CHECKF(at == len, "%s: borrowing ends at %llu", w->what, (unsigned long long)at);
	npk_view_close(v);
	free(got);
}

static void check_rows(struct npk_gen *g, const struct want *w, uint64_t *rnd)
{
	const struct npk_gen_info *i = npk_gen_info(g);
	uint64_t rows = i->rows, rb = i->row_bytes;
	uint8_t *got = malloc(rows * rb + 1);
	const void *p;
	uint64_t n;

	for (int k = 0; k < 20; k++) {
		uint64_t first = t_rand(rnd) % (rows + 1);

		n = t_rand(rnd) % (rows - first + 1);
		T_CHECK(npk_gen_read_rows(g, first, n, got, NULL) == 0);
		T_CHECKF(memcmp(got, w->rows + first * rb, n * rb) == 0, "%s: rows %llu + %llu", w->what,
			(unsigned long long)first, (unsigned long long)n);
	}
	T_CHECK(npk_gen_read_rows(g, rows, 0, got, NULL) == 0 && npk_gen_read_rows(g, rows, 1, got, NULL) == -ERANGE);
	for (uint64_t row = 0; row < rows; row += n) {
		T_CHECK(npk_gen_borrow(g, row, &p, &n, NULL) == 0 && n > 0 && n <= rows - row);
		T_CHECKF(memcmp(p, w->rows + row * rb, n * rb) == 0, "%s: row %llu borrowed", w->what,
			(unsigned long long)row);
	}
	T_CHECK(npk_gen_borrow(g, rows, &p, &n, NULL) == -ERANGE);
	free(got);
}

static void check_take(struct npk_gen *g, const struct want *w, uint64_t *rnd)
{
	uint64_t rows = npk_gen_info(g)->rows, rb = npk_gen_info(g)->row_bytes;
	int64_t list[300];
	uint8_t *got = malloc(300 * rb + 1);
	struct npk_err err;

	for (size_t n = 0; n <= 300 && rows; n += n < 3 ? 1 : 33) {
		for (size_t k = 0; k < n; k++)
			list[k] = (int64_t)(t_rand(rnd) % (2 * rows)) - (int64_t)rows;
		T_CHECK(npk_gen_take(g, list, n, got, NULL) == 0);
		for (size_t k = 0; k < n; k++) {
			uint64_t row = (uint64_t)(list[k] < 0 ? list[k] + (int64_t)rows : list[k]);

			T_CHECKF(memcmp(got + k * rb, w->rows + row * rb, rb) == 0, "%s: taken row %lld", w->what,
				(long long)list[k]);
		}
	}
	list[0] = (int64_t)rows;
	T_CHECK(npk_gen_take(g, list, 1, got, &err) == -ERANGE && err.code == ERANGE);
	list[0] = -(int64_t)rows - 1;
	T_CHECK(npk_gen_take(g, list, 1, got, NULL) == -ERANGE);
	free(got);
}

static void check_step(struct npk_gen *g, const struct want *w, uint64_t *rnd)
{
	uint64_t rows = npk_gen_info(g)->rows, rb = npk_gen_info(g)->row_bytes;
	uint8_t *got = malloc(rows * rb + 1);

	for (int k = 0; k < 20 && rows; k++) {
		uint64_t first = t_rand(rnd) % rows, span, n;
		int64_t step = (int64_t)(t_rand(rnd) % 9) - 4;

		step = step ? step : -(int64_t)rows;
		span = (step > 0 ? rows - 1 - first : first) / (uint64_t)(step < 0 ? -step : step) + 1;
		n = t_rand(rnd) % (span + 1);
		T_CHECK(npk_gen_read_step(g, first, step, n, got, NULL) == 0);
		for (uint64_t i = 0; i < n; i++)
			T_CHECKF(memcmp(got + i * rb, w->rows + (first + (uint64_t)step * i) * rb, rb) == 0,
				"%s: row %llu by %lld", w->what, (unsigned long long)first, (long long)step);
		T_CHECK(npk_gen_read_step(g, first, step, span + 1, got, NULL) == -ERANGE);
	}
	T_CHECK(npk_gen_read_step(g, 0, 0, 1, got, NULL) == -EINVAL);
	free(got);
}

/* Spans, slots, rows and the list of deleted slots tell the same story. */
static void check_slots(struct npk_gen *g, const char *what)
{
	const struct npk_gen_info *i = npk_gen_info(g);
	uint64_t slot, n, row = 0, back, next = 0, gone = 0, ndead = i->slots - i->rows, *dead = calloc(ndead + 1, 8);
	struct npk_spans it;

	npk_gen_deleted(g, 0, ndead, dead);
	npk_spans_init(&it, g, 0, i->rows);
	while (npk_spans_next(&it, &slot, &n)) {
		for (; next < slot; next++)
			T_CHECKF(!npk_gen_row(g, next, &back) && dead[gone++] == next, "%s: slot %llu is deleted", what,
				(unsigned long long)next);
		for (uint64_t k = 0; k < n; k++, row++)
			T_CHECKF(npk_gen_slot(g, row) == slot + k && npk_gen_row(g, slot + k, &back) && back == row,
				"%s: row %llu", what, (unsigned long long)row);
		next = slot + n;
	}
	for (; next < i->slots; next++)
		T_CHECK(!npk_gen_row(g, next, &back) && dead[gone++] == next);
	T_CHECKF(row == i->rows && gone == ndead, "%s: %llu rows", what, (unsigned long long)row);
	for (uint64_t from = 0; from < ndead; from += ndead / 3 + 1) {
		uint64_t some[8] = {0}, k = ndead - from < 8 ? ndead - from : 8;

		npk_gen_deleted(g, from, k, some);
		T_CHECK(memcmp(some, dead + from, k * 8) == 0);
	}
	free(dead);
}

static void check_array(struct npk_store *s, const char *name, size_t len, const char *npy, const char *what)
{
	struct want w = want_of(npy, what);
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	struct npk_err err;
	uint64_t rnd = t_seed();

	T_CHECKF(npk_array_get_n(&a, s, name, len, &err) == 0, "%s: %s", what, err.msg);
	T_CHECKF(npk_gen_get(&g, a, &err) == 0, "%s: %s", what, err.msg);
	check_npy_file(g, &w);
	check_view(g, &w, &rnd);
	check_rows(g, &w, &rnd);
	check_take(g, &w, &rnd);
	check_step(g, &w, &rnd);
	check_slots(g, what);
	npk_gen_put(g);
	npk_array_put(a);
	mk_free(&w.file);
}

/* --- the good stores --------------------------------------------------------------------------------------------------- */

static const char *store_path(const struct line *l)
{
	static char path[4200], command[9000];
	static const char *extracted;

	if (!l->archive) {
		snprintf(path, sizeof(path), GOLDEN "/%s", l->store);
		return path;
	}
	if (!extracted) {
		extracted = mk_dir();
		snprintf(command, sizeof(command), "tar xf " GOLDEN "/%s -C %s", l->archive, extracted);
		T_CHECK(system(command) == 0);
	}
	snprintf(path, sizeof(path), "%s/%s", extracted, l->store);
	return path;
}

static void check_info(struct npk_store *s, const struct line *l)
{
	struct npk_array_info i;
	struct npk_array *a;

	T_CHECK(npk_array_get(&a, s, l->array, NULL) == 0 && npk_array_info(a, &i, NULL) == 0);
	T_CHECKF(!i.damaged && i.physical_rows == l->physical_rows && i.deleted == l->deleted &&
			 i.rows == i.physical_rows - i.deleted && i.size_bytes == i.rows * i.row_bytes,
		"%s %s: %llu rows, %llu deleted", l->store, l->array, (unsigned long long)i.physical_rows,
		(unsigned long long)i.deleted);
	T_CHECK((i.nsegments > 0) == l->segmented);
	npk_array_put(a);
}

static void check_good(const struct line *l)
{
	struct npk_store *s = NULL;
	struct npk_err err;
	char what[1000];

	snprintf(what, sizeof(what), "%s %s", l->store, l->array);
	T_CHECKF(npk_store_open(&s, store_path(l), NPK_RDONLY, &err) == 0, "%s", err.msg);
	check_array(s, l->array, strlen(l->array), l->expected, what);
	check_info(s, l);
	npk_store_close(s);
}

TEST(every_array_reads_as_numpy_saved_it)
{
	struct mk_bytes index;
	struct npki_json j;
	uint64_t before;
	char *key;

	need_golden();
	before = mk_tree_sum(GOLDEN);
	index = mk_read(GOLDEN, "index.json");
	j = npki_json_init(index.p, index.len, "index.json");
	T_CHECK(npki_json_take(&j, '{'));
	key = string(&j);
	T_CHECK(strcmp(key, "arrays") == 0 && npki_json_take(&j, ':'));
	T_CHECK(each_line(&j, check_good) > 200);
	T_CHECKF(mk_tree_sum(GOLDEN) == before, "reading changed a file");
	free(key);
	mk_free(&index);
}

/* --- verify ------------------------------------------------------------------------------------------------------------ */

struct findings {
	uint64_t damage;
	char text[NPK_ERR_MAX]; /* of the last damage */
};

static void count_finding(void *ctx, const struct npk_finding *f)
{
	struct findings *n = ctx;

	if (f->severity != NPK_DAMAGE)
		return;
	n->damage++;
	snprintf(n->text, sizeof(n->text), "%s", f->text);
}

static struct findings verify(const char *path)
{
	struct findings f = {0};
	struct npk_err err;
	uint64_t n;

	T_CHECKF(npk_store_verify(path, count_finding, &f, &n, &err) == 0, "%s: %s", path, err.msg);
	T_CHECK(n == f.damage);
	return f;
}

TEST(verify_finds_no_damage_in_good_stores)
{
	static const char *const stores[] = {"append_after_drop", "append_same_word", "deletions", "digits", "dropped",
		"dtypes", "empty", "fresh", "names", "ndim", "packed", "scalar", "segmented", "slash", "v050"};
	char path[100];

	need_golden();
	for (size_t i = 0; i < sizeof(stores) / sizeof(stores[0]); i++) {
		struct findings f;

		snprintf(path, sizeof(path), GOLDEN "/%s.npk", stores[i]);
		f = verify(path);
		/* The library itself left a wrong bitmap count in one of them: a warning. */
		T_CHECKF(f.damage == 0, "%s: %s", stores[i], f.text);
	}
}

TEST(stores_without_arrays_are_empty)
{
	struct npk_store_info i;
	struct npk_store *s;

	need_golden();
	T_CHECK(npk_store_open(&s, GOLDEN "/fresh.npk", NPK_RDONLY, NULL) == 0);
	npk_store_info(s, &i);
	T_CHECK(i.narrays == 0 && !i.read_only && i.warning[0] == 0);
	npk_store_close(s);
	T_CHECK(npk_store_open(&s, mk_dir(), NPK_RDONLY, NULL) == 0); /* a new store */
	npk_store_close(s);
}

/* --- the damaged ones -------------------------------------------------------------------------------------------------- */

/* What a message about each case must hold besides the file's name. */
static const struct {
	const char *path, *file, *detail;
	int code;
} messages[] = {
	{"meta_empty", "metadata.npkm", "byte 0", EUCLEAN},
	{"meta_header_cut", "metadata.npkm", "byte 0", EUCLEAN},
	{"meta_entry_cut", "metadata.npkm", "byte ", EUCLEAN},
	{"meta_missing", "metadata.npkm", "missing", EUCLEAN},
	{"meta_wrong_magic", "metadata.npkm", "byte 0", EUCLEAN},
	{"meta_version2", "metadata.npkm", "byte 4: version 2", EUCLEAN},
	{"meta_version0", "metadata.npkm", "byte 4: version 0", EUCLEAN},
	{"meta_huge_count", "metadata.npkm", "byte ", EUCLEAN},
	{"meta_huge_name", "metadata.npkm", "byte ", EUCLEAN},
	{"meta_huge_ndim", "metadata.npkm", "byte ", EUCLEAN},
	{"meta_huge_shape", "metadata.npkm", "byte ", EUCLEAN},
	{"meta_duplicate", "metadata.npkm", "byte ", EUCLEAN},
	{"name_dotdot", "metadata.npkm", "byte ", EUCLEAN},
	{"datafile_dotdot", "metadata.npkm", "outside.npkd' leaves the store", EUCLEAN},
	{"datafile_absolute", "metadata.npkm", "byte ", EUCLEAN},
	{"name_not_utf8", "metadata.npkm", "byte ", EUCLEAN},
	{"name_nul", "metadata.npkm", "byte ", EUCLEAN},
	{"dtype_200", "metadata.npkm", "dtype 200", ENOTSUP},
	{"compression_set", "metadata.npkm", "compression 1", ENOTSUP},
	{"block_flag", "metadata.npkm", "block flag 1", ENOTSUP},
	{"data_short", "data_victim.npkd", "byte 199", EUCLEAN},
	{"data_missing", "data_victim.npkd", "No such file", EUCLEAN},
	{"bitmap_short", "deleted_victim.npkb", "byte 0: covers 50 rows, the array has 100", EUCLEAN},
	{"bitmap_empty", "deleted_victim.npkb", "byte 0", EUCLEAN},
	{"bitmap_17_bytes", "deleted_victim.npkb", "byte 17", EUCLEAN},
	{"bitmap_wrong_words", "deleted_victim.npkb", "byte 0", EUCLEAN},
	{"bitmap_stale", "deleted_victim.npkb", "byte 0: covers 120 rows", EUCLEAN},
	{"bitmap_huge_rows", "deleted_victim.npkb", "byte 0", EUCLEAN},
	{"seg_bad_json", "data_victim.npkseg", "byte ", EUCLEAN},
	{"seg_version2", "data_victim.npkseg", "version 2", EUCLEAN},
	{"seg_missing", "data_victim_segments/seg_", "No such file", EUCLEAN},
	{"seg_short", "data_victim_segments/seg_", "byte ", EUCLEAN},
	{"seg_rows_short", "data_victim.npkseg", "of 100 rows", EUCLEAN},
	{"seg_bytes_wrong", "data_victim.npkseg", "segment ", EUCLEAN},
	{"seg_traversal", "data_victim.npkseg", "byte ", EUCLEAN},
	{"seg_manifest_missing", "data_victim.npkseg", "No such file", EUCLEAN},
};

static void check_message(const char *path, int code, const char *msg)
{
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
		if (strcmp(messages[i].path, path) == 0) {
			T_CHECKF(code == messages[i].code, "%s: code %d: %s", path, code, msg);
			T_CHECKF(strstr(msg, messages[i].file) && strstr(msg, messages[i].detail), "%s: %s", path, msg);
			T_CHECKF(!strchr(msg, '\n'), "%s: %s", path, msg);
			return;
		}
	T_CHECKF(false, "%s: no message was expected: %s", path, msg);
}

/* "\1" stands for the NUL that a JSON string of ours cannot hold. */
static size_t unmask(char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (name[i] == 1)
			name[i] = 0;
	return n;
}

static void check_damaged(struct npk_store *s, const struct line *l)
{
	struct npk_array_info info;
	struct npk_err err;

	for (size_t i = 0; i < l->damaged.n; i++) {
		struct npk_array *a = NULL;
		struct npk_gen *g;
		int rc;

		T_CHECKF(npk_array_get_n(&a, s, l->damaged.item[i], unmask(l->damaged.item[i]), NULL) == 0, "%s",
			l->path);
		rc = npk_gen_get(&g, a, &err);
		T_CHECKF(rc < 0 && rc == -err.code, "%s: %d", l->path, rc);
		check_message(l->path, err.code, err.msg);
		T_CHECK(npk_array_info(a, &info, NULL) == 0);
		T_CHECK(info.damaged && info.code == err.code && strcmp(info.why, err.msg) == 0);
		npk_array_put(a);
	}
}

static void check_usable(struct npk_store *s, const struct line *l)
{
	char npy[300], what[300];

	T_CHECK(l->values.n == 2 * l->usable.n);
	for (size_t i = 0; i < l->values.n; i += 2) {
		snprintf(npy, sizeof(npy), "bad/%s", l->values.item[i + 1]);
		snprintf(what, sizeof(what), "%s %s", l->path, l->values.item[i]);
		check_array(s, l->values.item[i], strlen(l->values.item[i]), npy, what);
	}
}

static void check_bad(const struct line *l)
{
	struct npk_store_info info;
	struct npk_store *s = NULL;
	struct findings f;
	struct npk_err err;
	char path[300];
	int rc;

	if (strcmp(l->kind, "store") != 0)
		return;
	snprintf(path, sizeof(path), BAD "/%s", l->path);
	f = verify(path);
	T_CHECKF((f.damage > 0) == (l->open_fails || l->read_only || l->damaged.n > 0), "%s: %llu damages: %s", l->path,
		(unsigned long long)f.damage, f.text);
	rc = npk_store_open(&s, path, NPK_RDONLY, &err);
	T_CHECKF((rc != 0) == l->open_fails, "%s: %d", l->path, rc);
	if (rc != 0) {
		T_CHECK(rc == -err.code && s == NULL);
		check_message(l->path, err.code, err.msg);
		T_CHECKF(strstr(err.msg, path), "%s", err.msg);
		return;
	}
	npk_store_info(s, &info);
	T_CHECKF(info.read_only == l->read_only && info.narrays == l->damaged.n + l->usable.n, "%s", l->path);
	if (info.read_only)
		check_message(l->path, EUCLEAN, info.why);
	check_damaged(s, l);
	check_usable(s, l);
	npk_store_close(s);
}

TEST(every_damaged_store_gets_its_verdict)
{
	struct mk_bytes index;
	struct npki_json j;
	uint64_t before;

	need_golden();
	before = mk_tree_sum(BAD);
	index = mk_read(BAD, "index.json");
	for (char *p = (char *)index.p; (p = strstr(p, "\\u0000")) != NULL;)
		p[5] = '1';
	j = npki_json_init(index.p, index.len, "index.json");
	T_CHECK(each_line(&j, check_bad) > 50);
	T_CHECKF(mk_tree_sum(BAD) == before, "looking at damaged stores changed a file");
	mk_free(&index);
}

/* Odd but harmless: the store works, and says what it saw. */
TEST(oddities_are_warnings)
{
	static const struct {
		const char *path, *in_store, *in_array;
	} odd[] = {
		{"meta_trailing", "follow the last entry", NULL},
		{"bitmap_count_lies", NULL, "deleted_victim.npkb: byte 8"},
		{"bitmap_padding_set", NULL, "bits beyond the last row"},
		{"interrupted_append", NULL, "interrupted"},
	};
	struct npk_store_info si;
	struct npk_array_info ai;
	char path[100];

	need_golden();
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		struct npk_store *s;
		struct npk_array *a;

		snprintf(path, sizeof(path), BAD "/%s", odd[i].path);
		T_CHECK(npk_store_open(&s, path, NPK_RDONLY, NULL) == 0);
		T_CHECK(npk_array_get(&a, s, "victim", NULL) == 0 && npk_array_info(a, &ai, NULL) == 0);
		npk_store_info(s, &si);
		T_CHECKF(!odd[i].in_store || strstr(si.warning, odd[i].in_store), "%s: %s", path, si.warning);
		T_CHECKF(!odd[i].in_array || strstr(ai.warning, odd[i].in_array), "%s: %s", path, ai.warning);
		npk_array_put(a);
		npk_store_close(s);
	}
}

T_MAIN()
