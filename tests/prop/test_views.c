/* Random selections of random stores, read at random bytes, against a list of elements written out the obvious way. */
#include "../t.h"
#include "../unit/mkstore.h"

#include <errno.h>
#include <inttypes.h>
#include <numpack.h>

#define STORES 250
#define SELECTIONS 30
#define ELEMENTS_MAX 60000 /* of a selection's result */

/* An array "x" of up to 4 axes, and one mask for each axis. */
struct model {
	struct mk_array x, mask[4];
	uint64_t live[50000], rows; /* slots of the rows that are not deleted */
	uint64_t axis[4];           /* logical lengths */
	bool on[4][50000];          /* what the masks select */
	size_t item;
	const char *dir;
};

static struct model m;

/* --- stores ------------------------------------------------------------------------------------------------------------ */

static void *random_bytes(uint64_t *rnd, size_t len)
{
	uint8_t *p = malloc(len + 8);

	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = t_rand(rnd);

		memcpy(p + i, &v, 8);
	}
	return p;
}

static uint8_t *random_deletions(uint64_t *rnd, uint64_t rows)
{
	uint64_t percent = t_rand(rnd) % 4 ? t_rand(rnd) % 101 : 100 * (t_rand(rnd) % 2), run = 0;
	bool clustered = t_rand(rnd) % 2;
	uint8_t *gone = calloc(rows + 1, 1);

	for (uint64_t i = 0; i < rows; i++) {
		if (run-- == 0) {
			run = clustered ? t_rand(rnd) % 90 : 0;
			gone[i] = t_rand(rnd) % 100 < percent;
		} else {
			gone[i] = gone[i - 1];
		}
	}
	return gone;
}

static void random_array(uint64_t *rnd)
{
	static const size_t items[14] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16};
	struct mk_array *x = &m.x;
	bool small = t_rand(rnd) % 20 != 0;

	*x = (struct mk_array){
		.name = "x", .dtype = (unsigned)(t_rand(rnd) % 14), .ndim = 1 + (unsigned)(t_rand(rnd) % 4)};
	m.item = items[x->dtype];
	if (!small)
		x->ndim = 1 + x->ndim % 2;
	x->dim[0] = t_rand(rnd) % (small ? 300 : 50000);
	for (unsigned i = 1; i < x->ndim; i++)
		x->dim[i] = t_rand(rnd) % 30 ? 1 + t_rand(rnd) % (small ? 6 : 2) : 0;
	x->data = random_bytes(rnd, mk_rows(x) * mk_row_bytes(x));
	x->deleted = t_rand(rnd) % 4 ? random_deletions(rnd, x->dim[0]) : NULL;
	/* A first word that could be a row count may look like a header: such a bitmap is damaged, see unit/test_bitmap.c. */
	x->headerless = t_rand(rnd) % 4 == 0 && (x->dim[0] <= 64 || (x->deleted && !x->deleted[63]));
	x->segment_rows = t_rand(rnd) % 2 ? 1 + t_rand(rnd) % (x->dim[0] / (1 + t_rand(rnd) % 8) + 1) : 0;
	if (x->segment_rows && x->dim[0] / x->segment_rows > 40)
		x->segment_rows = x->dim[0] / 40 + 1;
	m.rows = 0;
	for (uint64_t r = 0; r < x->dim[0]; r++)
		if (!x->deleted || !x->deleted[r])
			m.live[m.rows++] = r;
	for (unsigned i = 0; i < x->ndim; i++)
		m.axis[i] = i ? x->dim[i] : m.rows;
}

/* A 1-d array as long as the axis, after its own deletions; values are nonzero in any one byte. */
static void random_mask(uint64_t *rnd, unsigned axis)
{
	static const char *const names[] = {"m0", "m 1,x", "m;@2", "\"\\3"};
	struct mk_array *a = &m.mask[axis];
	uint64_t rows = m.axis[axis], extra = t_rand(rnd) % 2 ? t_rand(rnd) % 5 : 0, k = 0;
	uint8_t *gone = calloc(rows + extra + 1, 1), *data;
	size_t size;

	*a = (struct mk_array){
		.name = names[axis], .dtype = (unsigned)(t_rand(rnd) % 9), .ndim = 1, .dim = {rows + extra}};
	size = mk_row_bytes(a);
	data = calloc(rows + extra + 1, size);
	for (uint64_t i = 0; i < extra; i++)
		gone[t_rand(rnd) % (rows + extra)] = 1;
	for (uint64_t i = 0; i < rows + extra; i++) {
		bool on = t_rand(rnd) % 2;

		if (on)
			data[i * size + t_rand(rnd) % size] = a->dtype == 0 ? 1 : (uint8_t)(1 + t_rand(rnd) % 255);
		if (k < rows && !gone[i])
			m.on[axis][k++] = on;
		else
			gone[i] = 1;
	}
	while (k < rows) /* the same slot was deleted twice: others come back */
		for (uint64_t i = 0; i < rows + extra && k < rows; i++)
			if (gone[i])
				gone[i] = 0, k++;
	k = 0;
	for (uint64_t i = 0; i < rows + extra; i++)
		if (!gone[i]) {
			m.on[axis][k] = false;
			for (size_t b = 0; b < size; b++)
				m.on[axis][k] |= data[i * size + b] != 0;
			k++;
		}
	T_CHECK(k == rows);
	a->data = data;
	a->deleted = gone;
}

static void random_store(uint64_t *rnd)
{
	struct mk_array all[5];

	random_array(rnd);
	all[0] = m.x;
	for (unsigned i = 0; i < m.x.ndim; i++) {
		random_mask(rnd, i);
		all[1 + i] = m.mask[i];
	}
	if (!m.dir)
		m.dir = mk_dir();
	mk_store(m.dir, all, 1 + m.x.ndim);
}

static void free_store(void)
{
	free((void *)m.x.data);
	free((void *)m.x.deleted);
	for (unsigned i = 0; i < m.x.ndim; i++) {
		free((void *)m.mask[i].data);
		free((void *)m.mask[i].deleted);
	}
}

/* --- selections -------------------------------------------------------------------------------------------------------- */

struct list {
	uint64_t at[ELEMENTS_MAX];
	uint64_t n;
	bool full;
};

static struct list want[4];

static void add(struct list *l, uint64_t at)
{
	if (l->n < ELEMENTS_MAX)
		l->at[l->n++] = at;
	else
		l->full = true;
}

/* A bound of a slice as Python takes it. */
static int64_t bound(int64_t v, int64_t len, bool back)
{
	if (v < 0)
		v += len;
	if (v < 0)
		v = back ? -1 : 0;
	if (v >= len)
		v = back ? len - 1 : len;
	return v;
}

static int add_slice(uint64_t *rnd, char *text, struct list *l, int64_t len)
{
	bool has_start = t_rand(rnd) % 2, has_stop = t_rand(rnd) % 2, has_step = t_rand(rnd) % 2;
	int64_t wide = 2 * len + 6, start = (int64_t)(t_rand(rnd) % (uint64_t)wide) - len - 3;
	int64_t stop = (int64_t)(t_rand(rnd) % (uint64_t)wide) - len - 3, step = (int64_t)(t_rand(rnd) % 11) - 5;
	int n = 0;

	step = has_step ? (step ? step : len + 1) : 1;
	if (has_start)
		n += sprintf(text + n, "%" PRId64, start);
	n += sprintf(text + n, ":");
	if (has_stop)
		n += sprintf(text + n, "%" PRId64, stop);
	if (has_step)
		n += sprintf(text + n, ":%" PRId64, step);
	else if (t_rand(rnd) % 4 == 0)
		n += sprintf(text + n, ":");
	if (step > 0) {
		stop = has_stop ? bound(stop, len, false) : len;
		for (int64_t i = has_start ? bound(start, len, false) : 0; i < stop; i += step)
			add(l, (uint64_t)i);
	} else {
		stop = has_stop ? bound(stop, len, true) : -1;
		for (int64_t i = has_start ? bound(start, len, true) : len - 1; i > stop; i += step)
			add(l, (uint64_t)i);
	}
	return n;
}

/* Writes one part; *bad is set when it names a row that is not there. */
static int random_part(uint64_t *rnd, char *text, unsigned axis, bool *bad)
{
	static const char *const gaps[] = {",", "+", " ", ", ", " +  "};
	static const char *const masks[] = {"mask=m0", "mask=m 1,x", "mask=\"m;@2\"", "mask=\"\\\"\\\\3\""};
	struct list *l = &want[axis];
	int64_t len = (int64_t)m.axis[axis];
	uint64_t kind = t_rand(rnd) % 10, items = kind < 4 ? 1 : 1 + t_rand(rnd) % (t_rand(rnd) % 6 ? 6 : 300);
	int n = 0;

	l->n = 0;
	l->full = false;
	if (kind == 8 || kind == 9) {
		for (int64_t i = 0; i < len; i++)
			if (kind == 8 || m.on[axis][i])
				add(l, (uint64_t)i);
		return sprintf(text, "%s", kind == 8 ? "all" : masks[axis]);
	}
	for (uint64_t i = 0; i < items; i++) {
		int64_t at = len ? (int64_t)(t_rand(rnd) % (uint64_t)(2 * len)) - len : 0;

		n += sprintf(text + n, "%s", i ? gaps[t_rand(rnd) % 5] : "");
		if (kind % 2 || len == 0) {
			n += add_slice(rnd, text + n, l, len);
			continue;
		}
		if (t_rand(rnd) % (40 * items) == 0) {
			at = t_rand(rnd) % 2 ? len : -len - 1;
			*bad = true;
		}
		n += sprintf(text + n, "%" PRId64, at);
		add(l, (uint64_t)(at < 0 ? at + len : at));
	}
	return n;
}

static char text[100000];

/* Writes a selection to `text`; returns the elements of its result, or -ERANGE, -EINVAL, or 1 + ELEMENTS_MAX when that
 * would be too many to write out. */
static int64_t random_selection(uint64_t *rnd)
{
	unsigned parts = (unsigned)(t_rand(rnd) % (m.x.ndim + 1));
	uint64_t elements = 1;
	bool bad = false, full = false;
	int n = 0;

	for (unsigned i = 0; i < m.x.ndim; i++) {
		if (i < parts) {
			n += sprintf(text + n, "%s", i == 0 ? "" : t_rand(rnd) % 2 ? ";" : "@ ");
			n += random_part(rnd, text + n, i, &bad);
		} else {
			want[i].n = 0;
			want[i].full = false;
			for (uint64_t k = 0; k < m.axis[i]; k++)
				add(&want[i], k);
		}
		full |= want[i].full;
		elements =
			want[i].n > ELEMENTS_MAX / (elements ? elements : 1) ? ELEMENTS_MAX + 1 : elements * want[i].n;
		full |= elements > ELEMENTS_MAX;
	}
	text[n] = 0;
	return bad ? -ERANGE : full ? ELEMENTS_MAX + 1 : (int64_t)elements;
}

/* The selected elements one after the other. */
static uint8_t *write_out(uint64_t elements)
{
	uint8_t *out = malloc(elements * m.item + 1), *p = out;
	uint64_t i[4] = {0};

	for (uint64_t e = 0; e < elements; e++) {
		uint64_t at = m.live[want[0].at[i[0]]];

		for (unsigned a = 1; a < m.x.ndim; a++)
			at = at * m.x.dim[a] + want[a].at[i[a]];
		memcpy(p, (const uint8_t *)m.x.data + at * m.item, m.item);
		p += m.item;
		for (unsigned a = m.x.ndim; a-- > 0;) {
			if (++i[a] < want[a].n)
				break;
			i[a] = 0;
		}
	}
	return out;
}

/* --- the test ---------------------------------------------------------------------------------------------------------- */

static void check_bytes(struct npk_view *v, const uint8_t *all, uint64_t len, uint64_t *rnd, uint64_t seed)
{
	uint8_t *got = malloc(len + 1);

	for (int i = 0; i < 12; i++) {
		uint64_t off = i ? t_rand(rnd) % (len + 1) : 0, n = i ? t_rand(rnd) % (len - off + 1) : len;
		const void *p;
		size_t k;

		if (i > 6 && n > 100)
			n = t_rand(rnd) % 100;
		got[n] = 0xA5;
		T_CHECKF(npk_view_read(v, off, got, n, NULL) == 0, "seed %#" PRIx64 ": '%s'", seed, text);
		T_CHECKF(memcmp(got, all + off, n) == 0, "seed %#" PRIx64 ": '%s': bytes %" PRIu64 " + %" PRIu64, seed,
			text, off, n);
		T_CHECKF(got[n] == 0xA5, "seed %#" PRIx64 ": '%s': written past the end", seed, text);
		k = npk_view_borrow(v, off, &p);
		T_CHECKF(k <= len - off && (k == 0 || memcmp(p, all + off, k) == 0),
			"seed %#" PRIx64 ": '%s': %zu bytes borrowed at %" PRIu64, seed, text, k, off);
	}
	free(got);
}

static void check_selection(struct npk_gen *g, uint64_t *rnd, uint64_t seed)
{
	int64_t elements = random_selection(rnd);
	struct npk_view *v = NULL;
	struct npk_err err = {0};
	const struct npk_view_info *i;
	uint8_t *all;
	int rc;

	if (elements > ELEMENTS_MAX)
		return;
	rc = npk_view_open(&v, g, text, &err);
	T_CHECKF(rc == (elements < 0 ? elements : 0), "seed %#" PRIx64 ": '%s': %d: %s", seed, text, rc, err.msg);
	if (rc != 0)
		return;
	i = npk_view_info(v);
	T_CHECKF(i->bytes == (uint64_t)elements * m.item && i->shape.ndim == m.x.ndim && i->rows == want[0].n &&
			 i->rows * i->row_bytes == i->bytes,
		"seed %#" PRIx64 ": '%s': %" PRIu64 " bytes", seed, text, i->bytes);
	for (unsigned a = 0; a < m.x.ndim; a++)
		T_CHECKF(i->shape.dim[a] == want[a].n, "seed %#" PRIx64 ": '%s': axis %u", seed, text, a);
	all = write_out((uint64_t)elements);
	check_bytes(v, all, i->bytes, rnd, seed);
	free(all);
	npk_view_close(v);
}

TEST(any_selection_reads_what_python_would)
{
	uint64_t rnd = t_seed();
	const char *scale = getenv("NPK_SCALE");
	int stores = (int)(STORES * (scale ? strtod(scale, NULL) : 1));

	for (int i = 0; i < stores; i++) {
		uint64_t seed = rnd;
		struct npk_store *s;
		struct npk_array *a;
		struct npk_gen *g;
		struct npk_err err;

		random_store(&rnd);
		T_CHECKF(npk_store_open(&s, m.dir, NPK_RDONLY, &err) == 0, "seed %#" PRIx64 ": %s", seed, err.msg);
		T_CHECK(npk_array_get(&a, s, "x", NULL) == 0);
		T_CHECKF(npk_gen_get(&g, a, &err) == 0, "seed %#" PRIx64 ": %s", seed, err.msg);
		T_CHECKF(npk_gen_info(g)->rows == m.rows, "seed %#" PRIx64, seed);
		for (int k = 0; k < SELECTIONS; k++)
			check_selection(g, &rnd, seed);
		npk_gen_put(g);
		npk_array_put(a);
		npk_store_close(s);
		free_store();
	}
}

/* A mask must be a 1-d array of bools or integers as long as the axis. */
TEST(arrays_that_cannot_be_masks)
{
	static const uint8_t bytes[64];
	const struct mk_array all[] = {{.name = "x", .dtype = NPK_U8, .ndim = 2, .dim = {4, 3}, .data = bytes},
		{.name = "short", .dtype = NPK_BOOL, .ndim = 1, .dim = {3}, .data = bytes},
		{.name = "two", .dtype = NPK_BOOL, .ndim = 2, .dim = {4, 1}, .data = bytes},
		{.name = "real", .dtype = NPK_F32, .ndim = 1, .dim = {4}, .data = bytes}};
	static const struct {
		const char *sel;
		int code;
		const char *msg;
	} cases[] = {{"mask=short", EINVAL, "mask 'short' has 3 values, axis 0 has 4"},
		{"mask=two", EINVAL, "mask 'two' is not a 1-d array"}, {"mask=real", EINVAL, "mask 'real' is not"},
		{"mask=none", ENOENT, "'none'"}, {"all;mask=two", EINVAL, "mask 'two'"},
		{"0;0;0", EINVAL, "3 parts for 2 axes"}, {"all;mask=short", 0, ""}};
	const char *dir = mk_dir();
	struct npk_store *s = NULL;
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;

	mk_store(dir, all, 4);
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0 && npk_array_get(&a, s, "x", NULL) == 0);
	T_CHECK(npk_gen_get(&g, a, NULL) == 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct npk_view *v = NULL;
		struct npk_err err = {0};
		int rc = npk_view_open(&v, g, cases[i].sel, &err);

		T_CHECKF(
			rc == -cases[i].code && strstr(err.msg, cases[i].msg), "%s: %d: %s", cases[i].sel, rc, err.msg);
		npk_view_close(v);
	}
	npk_gen_put(g);
	npk_array_put(a);
	npk_store_close(s);
}

T_MAIN()
