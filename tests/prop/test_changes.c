/* Random changes of a store, of transactions on it, and of generations that are held meanwhile, against a plain model in
 * memory. After each the store shows what the model says, so does every open transaction, so does a reader beside us; a
 * copy of the directory taken at that moment, which is what kill -9 leaves, recovers to it without a file too many; and
 * after a clean end so does the store opened again. A failure prints the seed and the last operations. */
#include "../t.h"
#include "../tree.h"
#include "../unit/mkstore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <numpack.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES 6
#define TXNS 2
#define HELD 3
#define LOG 24

static const char *const names[NAMES] = {"a", "b", "x.npkd", "\xC3\xBC", "e", "f"};

/* --- the model -------------------------------------------------------------------------------------------------------- */

struct rows {
	int there;
	uint32_t width, n, dead; /* dead: deleted rows that no compact has taken yet */
	uint8_t *data;
	int shared; /* in a transaction: rows that are the store's own, writes outside may show */
};

struct world {
	struct rows a[NAMES];
	uint64_t version[NAMES]; /* counts changes under a name */
};

static void rows_copy(struct rows *to, const struct rows *from)
{
	uint8_t *data = malloc((size_t)from->n * from->width + 1);

	if (from->data)
		memcpy(data, from->data, (size_t)from->n * from->width);
	free(to->data);
	*to = *from;
	to->data = data;
}

static void rows_drop_all(struct rows *r)
{
	free(r->data);
	*r = (struct rows){0};
}

static void world_fini(struct world *w)
{
	for (int i = 0; i < NAMES; i++)
		rows_drop_all(&w->a[i]);
}

struct inside {
	struct npk_txn *t; /* NULL: none */
	struct world w;
	uint64_t begin[NAMES]; /* versions outside at the begin */
	int there[NAMES];
	int touched[NAMES];
};

struct held {
	struct npk_gen *g;
	struct rows r;
};

struct test {
	uint64_t seed, rnd;
	int segmented;
	char path[128], copy[128];
	struct npk_store *s;
	struct world w;
	struct inside in[TXNS];
	struct held held[HELD];
	char log[LOG][96];
	size_t nlog;
};

static void say(struct test *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct test *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->log[t->nlog++ % LOG], sizeof(t->log[0]), fmt, ap);
	va_end(ap);
}

static void give_up(struct test *t, const char *what)
{
	print_error("seed %" PRIu64 ": %s; the last operations:\n", t->seed, what);
	for (size_t i = t->nlog > LOG ? t->nlog - LOG : 0; i < t->nlog; i++)
		print_error("  %zu %s\n", i, t->log[i % LOG]);
	fail_msg("T_SEED=%" PRIu64, t->seed);
}

#define WANT(COND)                                                                                                     \
	do {                                                                                                           \
		if (!(COND))                                                                                           \
			give_up(t, #COND);                                                                             \
	} while (0)

/* `rc` must be 0 and tells why it is not. */
static void ok(struct test *t, int rc, const struct npk_err *err)
{
	if (rc != 0)
		give_up(t, err->msg);
}

static uint64_t pick(struct test *t, uint64_t n)
{
	return t_rand(&t->rnd) % n;
}

/* --- reading ---------------------------------------------------------------------------------------------------------- */

static struct npk_gen *gen_of(struct test *t, struct npk_store *s, int i)
{
	struct npk_array *a;
	struct npk_gen *g = NULL;
	struct npk_err err;

	ok(t, npk_array_get(&a, s, names[i], &err), &err);
	ok(t, npk_gen_get(&g, a, &err), &err);
	npk_array_put(a);
	return g;
}

static uint8_t *read_gen(struct test *t, struct npk_gen *g, const struct rows *r)
{
	const struct npk_gen_info *info = npk_gen_info(g);
	uint8_t *data = malloc((size_t)r->n * r->width + 1);
	struct npk_err err;

	WANT(info->rows == r->n && info->row_bytes == r->width && info->slots == r->n + r->dead);
	ok(t, npk_gen_read_rows(g, 0, r->n, data, &err), &err);
	return data;
}

static void check_gen(struct test *t, struct npk_gen *g, const struct rows *r)
{
	uint8_t *data = read_gen(t, g, r);

	WANT(memcmp(data, r->data, (size_t)r->n * r->width) == 0);
	free(data);
}

static void check_store(struct test *t, struct npk_store *s, const struct world *w)
{
	struct npk_store_info info;
	uint64_t n = 0;

	for (int i = 0; i < NAMES; i++) {
		struct npk_array *a = NULL;
		struct npk_gen *g;

		n += (uint64_t)w->a[i].there;
		if (!w->a[i].there) {
			WANT(npk_array_get(&a, s, names[i], NULL) == -ENOENT);
			continue;
		}
		g = gen_of(t, s, i);
		check_gen(t, g, &w->a[i]);
		npk_gen_put(g);
	}
	npk_store_info(s, &info);
	WANT(info.narrays == n);
}

/* --- the directory ---------------------------------------------------------------------------------------------------- */

static void copy_file(struct test *t, const char *from, const char *to)
{
	static uint8_t buf[1 << 16];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0666);
	ssize_t n;

	WANT(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		WANT(write(out, buf, (size_t)n) == n);
	WANT(n == 0);
	close(in);
	close(out);
}

static void copy_dir(struct test *t, const char *path, const char *copy)
{
	char from[1024], to[1024];
	DIR *d = opendir(path);
	struct dirent *e;

	WANT(d && mkdir(copy, 0777) == 0);
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(from, sizeof(from), "%s/%s", path, e->d_name);
		snprintf(to, sizeof(to), "%s/%s", copy, e->d_name);
		if (e->d_type == DT_DIR)
			copy_dir(t, from, to);
		else
			copy_file(t, from, to);
	}
	closedir(d);
}

/* What the arrays of a store name: their data files, and all that a list of segments says. */
static struct mk_bytes named_files(struct test *t, const char *path)
{
	struct mk_bytes named = {0};
	struct npk_array **list;
	struct npk_store *s;
	struct npk_err err;
	size_t n;

	ok(t, npk_store_open(&s, path, NPK_RDONLY, &err), &err);
	ok(t, npk_store_list(s, &list, &n, &err), &err);
	for (size_t i = 0; i < n; i++) {
		struct npk_array_info info;

		ok(t, npk_array_info(list[i], &info, &err), &err);
		mk_text(&named, info.data_file);
		mk_text(&named, "\n");
		if (strstr(info.data_file, ".npkseg")) {
			struct mk_bytes m = mk_read(path, info.data_file);

			mk_put(&named, m.p, m.len);
			mk_free(&m);
		}
	}
	mk_put(&named, "", 1);
	npk_store_list_free(list, n);
	npk_store_close(s);
	return named;
}

/* After a clean end there are only the files that NumPack knows, under its names, and the lock. A segmented array has
 * files of other names. */
static void check_files(struct test *t, const char *path, const struct world *w)
{
	struct mk_bytes named = t->segmented ? named_files(t, path) : (struct mk_bytes){0};
	DIR *d = opendir(path);
	struct dirent *e;

	WANT(d != NULL);
	while ((e = readdir(d)) != NULL) {
		int known = e->d_name[0] == '.' && (e->d_name[1] == 0 || strcmp(e->d_name, "..") == 0 ||
							   strcmp(e->d_name, ".numpackfs.lock") == 0);

		known |= strcmp(e->d_name, "metadata.npkm") == 0;
		known |= t->segmented && strncmp(e->d_name, "data_", 5) == 0 &&
			 (e->d_type == DT_DIR || strstr((char *)named.p, e->d_name));
		for (int i = 0; i < NAMES && !known; i++) {
			char data[64], bits[64];

			snprintf(data, sizeof(data), "data_%s.npkd", names[i]);
			snprintf(bits, sizeof(bits), "deleted_%s.npkb", names[i]);
			known = (w->a[i].there && strcmp(e->d_name, data) == 0) ||
				(w->a[i].there && w->a[i].dead && strcmp(e->d_name, bits) == 0);
		}
		if (!known)
			say(t, "left over: %s", e->d_name);
		WANT(known);
	}
	closedir(d);
	mk_free(&named);
}

/* --- one change, of a store and of its model ---------------------------------------------------------------------------- */

/* Where a change is made: the store itself (in NULL), or a transaction. */
struct place {
	struct npk_store *s;
	struct world *w;
	struct inside *in;
};

static void changed(const struct place *p, int i)
{
	p->w->version[i]++;
	if (p->in)
		p->in->touched[i] = 1;
}

static uint8_t *random_bytes(struct test *t, size_t n)
{
	uint8_t *p = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)t_rand(&t->rnd);
	return p;
}

static struct npk_array *array(struct test *t, const struct place *p, int i)
{
	struct npk_array *a;
	struct npk_err err;

	ok(t, npk_array_get(&a, p->s, names[i], &err), &err);
	return a;
}

static void do_save(struct test *t, const struct place *p, int i)
{
	static const uint32_t counts[] = {0, 1, 5, 40, 300}, widths[] = {1, 4, 4, 24, 0};
	struct rows *r = &p->w->a[i];
	uint32_t n = counts[pick(t, 5)], width = widths[pick(t, 5)];
	struct npk_shape shape = {2, {n, width}};
	struct npk_save *w;
	struct npk_err err;
	uint8_t *data = random_bytes(t, (size_t)n * width);
	size_t half = (size_t)n * width / 2;

	say(t, "save %s %u x %u", names[i], n, width);
	if (pick(t, 2) || !width) {
		ok(t, npk_store_save(p->s, names[i], NPK_U8, &shape, data, &err), &err);
	} else { /* in pieces, the second one first */
		shape.dim[0] = 0;
		ok(t, npk_save_open(&w, p->s, NPK_U8, &shape, &err), &err);
		ok(t, npk_save_pwrite(w, half, data + half, (size_t)n * width - half, &err), &err);
		ok(t, npk_save_pwrite(w, 0, data, half, &err), &err);
		ok(t, npk_save_commit(w, names[i], &err), &err);
	}
	rows_drop_all(r);
	*r = (struct rows){1, width, n, 0, data, 0};
	changed(p, i);
}

static void add_rows(struct rows *r, const uint8_t *data, uint32_t n)
{
	r->data = realloc(r->data, (size_t)(r->n + n) * r->width + 1);
	memcpy(r->data + (size_t)r->n * r->width, data, (size_t)n * r->width);
	r->n += n;
}

static void do_append(struct test *t, const struct place *p, int i)
{
	struct rows *r = &p->w->a[i];
	struct npk_array *a = array(t, p, i);
	struct npk_err err;
	uint32_t n = (uint32_t)pick(t, 30);
	int zeros = pick(t, 5) == 0 && !t->segmented;
	uint8_t *data = zeros ? calloc(1, (size_t)n * r->width + 1) : random_bytes(t, (size_t)n * r->width);

	say(t, "%s %s %u rows", zeros ? "extend" : "append", names[i], n);
	ok(t, zeros ? npk_array_extend(a, n, &err) : npk_array_append(a, data, n, &err), &err);
	if (n) {
		add_rows(r, data, n);
		changed(p, i);
	}
	npk_array_put(a);
	free(data);
}

static void do_drop(struct test *t, const struct place *p, int i)
{
	struct rows *r = &p->w->a[i];
	struct npk_array *a = array(t, p, i);
	struct npk_err err;
	uint8_t *gone = calloc(1, r->n + 1);
	uint64_t dropped = 0;
	uint32_t kept = 0, n = 0;

	if (pick(t, 2)) {
		uint64_t from = pick(t, r->n + 1), to = from + pick(t, 9), step = 1 + pick(t, 3);
		char sel[80];

		snprintf(sel, sizeof(sel), "%" PRIu64 ":%" PRIu64 ":%" PRIu64, from, to, step);
		for (uint64_t k = from; k < to && k < r->n; k += step)
			gone[k] = 1;
		say(t, "drop %s %s", names[i], sel);
		ok(t, npk_array_drop(a, sel, &dropped, &err), &err);
	} else {
		int64_t rows[6];
		size_t nrows = r->n ? pick(t, 7) : 0;

		for (size_t k = 0; k < nrows; k++) {
			rows[k] = (int64_t)pick(t, 2 * (uint64_t)r->n) - r->n;
			gone[rows[k] < 0 ? rows[k] + r->n : rows[k]] = 1;
		}
		say(t, "drop %s, a list of %zu", names[i], nrows);
		ok(t, npk_array_drop_rows(a, rows, nrows, &dropped, &err), &err);
	}
	for (uint32_t k = 0; k < r->n; k++) {
		if (gone[k])
			n++;
		else
			memmove(r->data + (size_t)kept++ * r->width, r->data + (size_t)k * r->width, r->width);
	}
	WANT(n == 0 || dropped == n);
	r->n = kept;
	r->dead += n;
	if (n)
		changed(p, i);
	npk_array_put(a);
	free(gone);
}

/* What was written outside may show inside as long as the rows are the store's: a row is the model's or a new one. */
static void show_inside(struct test *t, const uint8_t *written, size_t n, uint32_t width)
{
	for (int k = 0; k < TXNS; k++)
		for (int i = 0; i < NAMES && t->in[k].t; i++) {
			struct rows *r = &t->in[k].w.a[i];
			struct npk_gen *g;
			uint8_t *data;

			if (!r->there || !r->shared || r->width != width)
				continue;
			g = gen_of(t, npk_txn_store(t->in[k].t), i);
			data = read_gen(t, g, r);
			for (size_t row = 0; row < r->n; row++) {
				const uint8_t *now = data + row * width;
				int known = memcmp(now, r->data + row * width, width) == 0;

				for (size_t m = 0; m < n && !known; m++)
					known = memcmp(now, written + m * width, width) == 0;
				WANT(known);
			}
			free(r->data);
			r->data = data;
			npk_gen_put(g);
		}
}

static void let_go(struct test *t)
{
	for (int k = 0; k < HELD; k++) {
		npk_gen_put(t->held[k].g);
		t->held[k].g = NULL;
		rows_drop_all(&t->held[k].r);
	}
}

/* Some columns of rows `first` to `first + n` by a save that is put in their place; the rest of each row stays. */
static void replace_block(struct test *t, const struct place *p, int i, uint64_t first, uint64_t n, uint8_t *data)
{
	const struct rows *r = &p->w->a[i];
	uint64_t from = pick(t, r->width), cols = 1 + pick(t, r->width - from);
	struct npk_array *a = array(t, p, i);
	struct npk_gen *g = gen_of(t, p->s, i);
	struct npk_shape shape = {2, {0, cols}};
	struct npk_view *v;
	struct npk_save *w;
	struct npk_err err;
	char sel[128];

	snprintf(sel, sizeof(sel), "%" PRIu64 ":%" PRIu64 ";%" PRIu64 ":%" PRIu64, first, first + n, from, from + cols);
	say(t, "block %s", sel);
	ok(t, npk_view_open(&v, g, sel, &err), &err);
	ok(t, npk_save_open(&w, p->s, NPK_U8, &shape, &err), &err);
	for (uint64_t k = 0; k < n; k++)
		ok(t, npk_save_write(w, data + k * r->width + from, cols, &err), &err);
	ok(t, npk_save_replace(w, v, a, pick(t, 2) ? NPK_REPLACE_ATOMIC : 0, &err), &err);
	for (uint64_t k = 0; k < n; k++) { /* what the rows are now */
		memcpy(data + k * r->width, r->data + (first + k) * r->width, from);
		memcpy(data + k * r->width + from + cols, r->data + (first + k) * r->width + from + cols,
			r->width - from - cols);
	}
	npk_view_close(v);
	npk_gen_put(g);
	npk_array_put(a);
}

/* Whole rows in place, by four calls. */
static void do_replace(struct test *t, const struct place *p, int i)
{
	struct rows *r = &p->w->a[i];
	struct npk_array *a = array(t, p, i);
	struct npk_view *v;
	struct npk_err err;
	uint64_t how = pick(t, 4), n = 1 + pick(t, 5), first = r->n ? pick(t, r->n) : 0;
	uint8_t *data;
	int64_t rows[6];

	if (r->n == 0 || r->width == 0) {
		npk_array_put(a);
		return;
	}
	if (n > r->n - first)
		n = r->n - first;
	data = random_bytes(t, n * r->width);
	for (uint64_t k = 0; k < n; k++)
		rows[k] = how ? (int64_t)(first + k) : (int64_t)pick(t, r->n);
	say(t, "%s %s %" PRIu64 " rows from %" PRIu64,
		how == 0   ? "scatter"
		: how == 1 ? "replace"
			   : "pwrite",
		names[i], n, first);
	let_go(t);
	if (how == 0) {
		ok(t, npk_array_replace(a, rows, n, data, pick(t, 2) ? NPK_REPLACE_ATOMIC : 0, &err), &err);
	} else if (how == 1) {
		ok(t, npk_array_replace_range(a, first, n, data, 0, &err), &err);
	} else if (how == 3) {
		replace_block(t, p, i, first, n, data);
	} else {
		struct npk_gen *g = gen_of(t, p->s, i);

		ok(t, npk_view_open(&v, g, NULL, &err), &err);
		ok(t, npk_view_pwrite(v, a, first * r->width, data, n * r->width, &err), &err);
		npk_view_close(v);
		npk_gen_put(g);
	}
	for (uint64_t k = 0; k < n; k++)
		memcpy(r->data + (size_t)rows[k] * r->width, data + k * r->width, r->width);
	r->shared = 0;
	changed(p, i);
	if (!p->in)
		show_inside(t, data, n, r->width);
	npk_array_put(a);
	free(data);
}

static void do_compact(struct test *t, const struct place *p, int i)
{
	struct rows *r = &p->w->a[i];
	struct npk_array *a = array(t, p, i);
	struct npk_err err;

	say(t, "compact %s", names[i]);
	ok(t, npk_array_compact(a, &err), &err);
	npk_array_put(a);
	if (!r->dead)
		return;
	r->dead = 0;
	r->shared = 0;
	changed(p, i);
}

static void do_clone(struct test *t, const struct place *p, int i, int j)
{
	struct npk_err err;
	int rc = npk_store_clone(p->s, names[i], names[j], &err);

	say(t, "clone %s %s", names[i], names[j]);
	if (p->w->a[j].there) {
		WANT(rc == -EEXIST);
		return;
	}
	ok(t, rc, &err);
	rows_copy(&p->w->a[j], &p->w->a[i]);
	p->w->a[j].dead = 0;
	p->w->a[j].shared = 0;
	changed(p, j);
}

static void do_rename(struct test *t, const struct place *p, int i, int j)
{
	struct rows *from = &p->w->a[i], *to = &p->w->a[j], swap;
	unsigned flags = (unsigned)pick(t, 3);
	struct npk_err err;
	int rc;

	say(t, "rename %s %s %u", names[i], names[j], flags);
	rc = npk_store_rename(p->s, names[i], names[j], flags, &err);
	if (flags == NPK_RENAME_EXCHANGE && !to->there) {
		WANT(rc == -ENOENT);
		return;
	}
	if (flags == NPK_RENAME_NOREPLACE && to->there) {
		WANT(rc == -EEXIST);
		return;
	}
	ok(t, rc, &err);
	if (i == j)
		return;
	if (flags == NPK_RENAME_EXCHANGE) {
		swap = *from;
		*from = *to;
		*to = swap;
	} else {
		rows_drop_all(to);
		*to = *from;
		*from = (struct rows){0};
	}
	changed(p, i);
	changed(p, j);
}

static void do_remove(struct test *t, const struct place *p, int i)
{
	struct npk_err err;

	say(t, "remove %s", names[i]);
	ok(t, npk_store_remove(p->s, names[i], &err), &err);
	rows_drop_all(&p->w->a[i]);
	changed(p, i);
}

/* Appends, drops and replaces of several arrays in one call. With a step that cannot be, none of them is done. */
static void do_together(struct test *t, const struct place *p)
{
	struct npk_step st[NAMES] = {{0}};
	int64_t rows[NAMES][4];
	uint8_t *data[NAMES] = {NULL};
	int at[NAMES], bad = pick(t, 4) == 0;
	struct npk_err err;
	size_t n = 0;
	int rc;

	for (int i = 0; i < NAMES; i++) {
		struct rows *r = &p->w->a[i];
		uint64_t first = r->n >= 4 ? pick(t, r->n - 3) : 0;

		if (!r->there || r->n < 4 || r->width == 0 || pick(t, 2))
			continue;
		data[n] = random_bytes(t, 4 * r->width);
		for (int k = 0; k < 4; k++)
			rows[n][k] = (int64_t)first + k;
		st[n] = (struct npk_step){.verb = (enum npk_verb)(1 + pick(t, 3)),
			.array = array(t, p, i),
			.rows = rows[n],
			.first = first,
			.nrows = 4,
			.data = data[n]};
		if (st[n].verb == NPK_REPLACE && pick(t, 2))
			st[n].rows = NULL;
		at[n++] = i;
	}
	bad = bad && n > 1;
	if (bad) {
		rows[n - 1][2] = p->w->a[at[n - 1]].n;
		st[n - 1].verb = NPK_DROP;
		st[n - 1].rows = rows[n - 1];
	}
	say(t, "together, %zu arrays%s", n, bad ? ", one of them cannot be" : "");
	let_go(t);
	rc = npk_store_change(p->s, st, n, bad ? 0 : (unsigned)pick(t, 2), &err);
	if (bad)
		WANT(rc == -ERANGE);
	else
		ok(t, rc, &err);
	for (size_t k = 0; k < n; k++) {
		struct rows *r = &p->w->a[at[k]];
		uint64_t first = st[k].first;

		if (!bad && st[k].verb == NPK_APPEND) {
			add_rows(r, data[k], 4);
		} else if (!bad && st[k].verb == NPK_REPLACE) {
			memcpy(r->data + first * r->width, data[k], 4 * r->width);
			r->shared = 0;
		} else if (!bad) {
			memmove(r->data + first * r->width, r->data + (first + 4) * r->width,
				(r->n - first - 4) * r->width);
			r->n -= 4;
			r->dead += 4;
		}
		if (!bad) {
			WANT(st[k].done == 4);
			changed(p, at[k]);
		}
	}
	for (size_t k = 0; k < n; k++) { /* all that was written in rows of one width may show now */
		uint32_t width = p->w->a[at[k]].width;
		uint8_t *all = malloc(n * 4 * width);
		size_t rows_written = 0;

		for (size_t m = 0; m < n; m++)
			if (p->w->a[at[m]].width == width && st[m].verb == NPK_REPLACE) {
				memcpy(all + rows_written * width, data[m], 4 * width);
				rows_written += 4;
			}
		if (!bad && !p->in)
			show_inside(t, all, rows_written, width);
		free(all);
	}
	for (size_t k = 0; k < n; k++) {
		npk_array_put(st[k].array);
		free(data[k]);
	}
}

static void change(struct test *t, const struct place *p)
{
	int i = (int)pick(t, NAMES), j = (int)pick(t, NAMES);
	uint64_t kind = pick(t, 15);

	if (kind == 14) {
		do_together(t, p);
		return;
	}

	if (!p->w->a[i].there || kind < 2) {
		do_save(t, p, i);
		return;
	}
	if (kind < 5)
		do_append(t, p, i);
	else if (kind < 7)
		do_drop(t, p, i);
	else if (kind < 9)
		do_replace(t, p, i);
	else if (kind == 9)
		do_compact(t, p, i);
	else if (kind == 10)
		do_clone(t, p, i, j);
	else if (kind < 13)
		do_rename(t, p, i, j);
	else
		do_remove(t, p, i);
}

/* --- transactions ------------------------------------------------------------------------------------------------------ */

static void txn_begin(struct test *t, struct inside *in)
{
	struct npk_err err;

	say(t, "begin %td", in - t->in);
	*in = (struct inside){0};
	ok(t, npk_txn_begin(&in->t, t->s, &err), &err);
	for (int i = 0; i < NAMES; i++) {
		rows_copy(&in->w.a[i], &t->w.a[i]);
		in->w.a[i].shared = 1;
		in->begin[i] = t->w.version[i];
		in->there[i] = t->w.a[i].there;
	}
}

static void txn_forget(struct inside *in)
{
	world_fini(&in->w);
	*in = (struct inside){0};
}

static void count_change(void *ctx, struct npk_array *a, enum npk_change what)
{
	struct inside *in = ctx;
	size_t len;
	int i = 0;

	while (i < NAMES && strcmp(names[i], npk_array_name(a, &len)) != 0)
		i++;
	T_CHECK(i < NAMES && in->touched[i]);
	T_CHECK((what == NPK_GONE) == !in->w.a[i].there &&
		(what == NPK_APPEARED) == (in->w.a[i].there && !in->there[i]));
	in->touched[i] = 2;
}

static void txn_commit(struct test *t, struct inside *in)
{
	struct npk_err err;
	int rc, conflict = 0;

	for (int i = 0; i < NAMES; i++)
		conflict |= in->touched[i] && in->begin[i] != t->w.version[i] && (in->there[i] || t->w.a[i].there);
	say(t, "commit %td%s", in - t->in, conflict ? ", in conflict" : "");
	rc = npk_txn_commit(in->t, count_change, in, &err);
	if (conflict) {
		WANT(rc == -EBUSY);
		return;
	}
	ok(t, rc, &err);
	let_go(t); /* their rows may have been written to */
	for (int i = 0; i < NAMES; i++) {
		if (!in->touched[i])
			continue;
		WANT(in->touched[i] == 2 || (!in->there[i] && !in->w.a[i].there));
		rows_copy(&t->w.a[i], &in->w.a[i]);
		t->w.a[i].shared = 0;
		t->w.version[i]++;
	}
	txn_forget(in);
}

static void txn_step(struct test *t)
{
	struct inside *in = &t->in[pick(t, TXNS)];
	uint64_t kind = pick(t, 10);

	if (!in->t) {
		txn_begin(t, in);
	} else if (kind < 8) {
		say(t, "inside %td:", in - t->in);
		change(t, &(struct place){npk_txn_store(in->t), &in->w, in});
	} else if (kind == 8) {
		txn_commit(t, in);
	} else {
		say(t, "abort %td", in - t->in);
		npk_txn_abort(in->t);
		txn_forget(in);
	}
}

/* --- the end, and what comes after it ------------------------------------------------------------------------------------ */

static void hold(struct test *t)
{
	struct held *h = &t->held[pick(t, HELD)];
	struct npk_err err;
	int i = (int)pick(t, NAMES);

	if (!t->w.a[i].there)
		return;
	say(t, "hold %s", names[i]);
	npk_gen_put(h->g);
	h->g = gen_of(t, t->s, i);
	if (pick(t, 2))
		ok(t, npk_gen_map(h->g, &err), &err);
	rows_copy(&h->r, &t->w.a[i]);
}

static void reopen(struct test *t)
{
	struct npk_err err;

	say(t, "reopen");
	ok(t, npk_store_finish(t->s, &err), &err);
	for (int k = 0; k < TXNS; k++)
		if (t->in[k].t) { /* it never was; nothing in it can be changed or committed any more */
			struct npk_store *s = npk_txn_store(t->in[k].t);

			WANT(npk_store_reset(s, &err) == -ESTALE);
			WANT(npk_txn_commit(t->in[k].t, NULL, NULL, &err) != 0);
			npk_txn_abort(t->in[k].t);
			txn_forget(&t->in[k]);
		}
	let_go(t);
	check_files(t, t->path, &t->w);
	ok(t, npk_store_open(&t->s, t->path, NPK_RDWR, &err), &err);
}

static void kill_copy(struct test *t)
{
	struct npk_shape shape = {1, {3}};
	struct npk_store *s;
	struct npk_err err;

	say(t, "kill a copy");
	ok(t, npk_store_open(&s, t->path, NPK_RDONLY, &err), &err);
	check_store(t, s, &t->w);
	npk_store_close(s);
	copy_dir(t, t->path, t->copy);
	ok(t, npk_store_open(&s, t->copy, NPK_RDWR, &err), &err);
	check_store(t, s, &t->w);
	ok(t, npk_store_save(s, "zz", NPK_U8, &shape, "abc", &err), &err);
	ok(t, npk_store_remove(s, "zz", &err), &err);
	ok(t, npk_store_finish(s, &err), &err);
	check_files(t, t->copy, &t->w);
	ok(t, npk_store_open(&s, t->copy, NPK_RDONLY, &err), &err);
	check_store(t, s, &t->w);
	npk_store_close(s);
	t_remove_tree(t->copy);
}

static void step(struct test *t)
{
	uint64_t kind = pick(t, 40);
	struct npk_err err;

	if (kind < 14) {
		change(t, &(struct place){t->s, &t->w, NULL});
	} else if (kind < 31) {
		txn_step(t);
	} else if (kind < 33) {
		hold(t);
	} else if (kind < 35) {
		say(t, "fsync");
		ok(t, npk_store_fsync(t->s, &err), &err);
	} else if (kind < 37) {
		say(t, "sync");
		ok(t, npk_store_sync(t->s, &err), &err);
	} else if (kind < 39) {
		kill_copy(t);
	} else {
		reopen(t);
	}
	check_store(t, t->s, &t->w);
	for (int k = 0; k < TXNS; k++)
		if (t->in[k].t)
			check_store(t, npk_txn_store(t->in[k].t), &t->in[k].w);
	for (int k = 0; k < HELD; k++)
		if (t->held[k].g && pick(t, 4) == 0)
			check_gen(t, t->held[k].g, &t->held[k].r);
}

/* A store of three arrays, two of them in segments of 7 rows. */
static void make_segmented(struct test *t)
{
	struct mk_array a[3] = {{0}};
	uint8_t deleted[40] = {0};

	deleted[3] = deleted[20] = 1;
	for (int i = 0; i < 3; i++) {
		uint8_t *data = random_bytes(t, 40 * 9);

		a[i] = (struct mk_array){.name = names[i],
			.dtype = NPK_U8,
			.ndim = 2,
			.dim = {40, 9},
			.data = data,
			.deleted = i == 1 ? deleted : NULL,
			.segment_rows = i < 2 ? 7 : 0,
			.mtime_us = 1};
		t->w.a[i] = (struct rows){1, 9, 0, 0, NULL, 0};
		for (int k = 0; k < 40; k++) {
			if (a[i].deleted && deleted[k])
				t->w.a[i].dead++;
			else
				add_rows(&t->w.a[i], data + 9 * k, 1);
		}
	}
	mk_store(t->path, a, 3);
	for (int i = 0; i < 3; i++)
		free((void *)a[i].data);
}

static void run(uint64_t seed, const char *dir, int steps, int segmented)
{
	struct test *t = calloc(1, sizeof(*t));
	struct npk_err err;

	t->seed = t->rnd = seed;
	snprintf(t->path, sizeof(t->path), "%s/s", dir);
	snprintf(t->copy, sizeof(t->copy), "%s/killed", dir);
	t->segmented = segmented;
	if (segmented)
		make_segmented(t);
	ok(t, npk_store_open(&t->s, t->path, NPK_RDWR | NPK_CREATE, &err), &err);
	for (int i = 0; i < steps; i++)
		step(t);
	reopen(t);
	check_store(t, t->s, &t->w);
	npk_store_close(t->s);
	world_fini(&t->w);
	t_remove_tree(t->path);
	free(t);
}

static void run_all(int segmented)
{
	const char *text = getenv("T_RUNS");
	int runs = text ? atoi(text) : 60;
	const char *dir;

	setenv("TMPDIR", "/dev/shm", 0); /* nothing here is about what a disk keeps */
	dir = mk_dir();

	for (int i = 0; i < runs; i++)
		run(t_seed() + (uint64_t)i, dir, 120, segmented);
}

TEST(a_store_is_what_was_done_to_it)
{
	run_all(0);
}

TEST(segments_change_like_any_array)
{
	setenv("NUMPACK_SEGMENT_TARGET_BYTES", "63", 1);
	run_all(1);
	unsetenv("NUMPACK_SEGMENT_TARGET_BYTES");
}

T_MAIN()
