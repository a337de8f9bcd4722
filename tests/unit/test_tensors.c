/* The store as one .safetensors file: a JSON header that agrees with what follows it, byte for byte, at any offset. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <numpack.h>

#define N_MAX 64

/* A tensor as the header describes it. */
struct tensor {
	char *name, *dtype;
	uint64_t dim[32], begin, end;
	unsigned ndim;
};

struct header {
	struct tensor t[N_MAX];
	size_t n;
	char *format, *left_out;
	uint64_t data_at;
};

static char *string(struct npki_json *j)
{
	char *s;
	struct npk_err err;

	T_CHECKF(npki_json_string(j, &s, &err) == 0, "%s", err.msg);
	return s;
}

static uint64_t number(struct npki_json *j)
{
	uint64_t v;

	T_CHECK(npki_json_uint(j, &v, NULL) == 0);
	return v;
}

static void parse_metadata(struct npki_json *j, struct header *h)
{
	T_CHECK(npki_json_take(j, '{'));
	do {
		char *key = string(j);

		T_CHECK(npki_json_take(j, ':'));
		*(strcmp(key, "format") == 0 ? &h->format : &h->left_out) = string(j);
		free(key);
	} while (npki_json_take(j, ','));
	T_CHECK(npki_json_take(j, '}'));
}

static void parse_tensor(struct npki_json *j, struct tensor *t)
{
	T_CHECK(npki_json_take(j, '{'));
	do {
		char *key = string(j);

		T_CHECK(npki_json_take(j, ':'));
		if (strcmp(key, "dtype") == 0) {
			t->dtype = string(j);
		} else if (strcmp(key, "shape") == 0) {
			T_CHECK(npki_json_take(j, '['));
			if (!npki_json_take(j, ']')) {
				do
					t->dim[t->ndim++] = number(j);
				while (npki_json_take(j, ','));
				T_CHECK(npki_json_take(j, ']'));
			}
		} else {
			T_CHECK(strcmp(key, "data_offsets") == 0 && npki_json_take(j, '['));
			t->begin = number(j);
			T_CHECK(npki_json_take(j, ','));
			t->end = number(j);
			T_CHECK(npki_json_take(j, ']'));
		}
		free(key);
	} while (npki_json_take(j, ','));
	T_CHECK(npki_json_take(j, '}'));
}

static struct header parse(const uint8_t *file, uint64_t len)
{
	struct header h = {0};
	struct npki_json j;
	uint64_t n = 0;

	T_CHECK(len >= 8);
	for (int i = 0; i < 8; i++)
		n |= (uint64_t)file[i] << 8 * i;
	T_CHECKF(n <= len - 8 && n % 8 == 0 && file[8] == '{', "a header of %" PRIu64 " bytes", n);
	h.data_at = 8 + n;
	j = npki_json_init(file + 8, n, "header");
	T_CHECK(npki_json_take(&j, '{'));
	do {
		char *key = string(&j);

		T_CHECK(npki_json_take(&j, ':') && h.n < N_MAX);
		if (strcmp(key, "__metadata__") == 0) {
			parse_metadata(&j, &h);
			free(key);
		} else {
			h.t[h.n].name = key;
			parse_tensor(&j, &h.t[h.n++]);
		}
	} while (npki_json_take(&j, ','));
	T_CHECK(npki_json_take(&j, '}') && npki_json_at_end(&j));
	return h;
}

static void free_header(struct header *h)
{
	for (size_t i = 0; i < h->n; i++) {
		free(h->t[i].name);
		free(h->t[i].dtype);
	}
	free(h->format);
	free(h->left_out);
}

/* The rules of the safetensors format: no gap, no overlap, sizes that follow from shape and type. */
static void check_layout(const struct header *h, uint64_t len)
{
	uint64_t at = 0;

	T_CHECK(h->format && strcmp(h->format, "np") == 0);
	for (size_t i = 0; i < h->n; i++) {
		const struct tensor *t = &h->t[i];
		const char *digits = t->dtype + strcspn(t->dtype, "0123456789");
		uint64_t item = *digits ? strtoull(digits, NULL, 10) / 8 : 1, bytes = item;

		for (unsigned d = 0; d < t->ndim; d++)
			bytes *= t->dim[d];
		T_CHECKF(t->begin == at && t->end - t->begin == bytes, "%s: %" PRIu64 " to %" PRIu64, t->name, t->begin,
			t->end);
		T_CHECKF((h->data_at + t->begin) % item == 0, "%s: not aligned", t->name);
		at = t->end;
	}
	T_CHECK(h->data_at + at == len);
}

static struct npk_tensors *open_tensors(const char *dir, struct npk_store **s)
{
	struct npk_tensors *t = NULL;
	struct npk_err err;

	T_CHECKF(npk_store_open(s, dir, NPK_RDONLY, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_tensors_open(&t, *s, &err) == 0, "%s", err.msg);
	return t;
}

/* The whole file, and then any part of it again, copied and borrowed. */
static uint8_t *read_all(struct npk_tensors *t, uint64_t *rnd)
{
	uint64_t len = npk_tensors_size(t), at = 0;
	uint8_t *all = malloc(len), *part = malloc(len + 1);
	const void *p;
	size_t n;

	T_CHECK(npk_tensors_read(t, 0, all, len, NULL) == 0);
	for (int i = 0; i < 400; i++) {
		uint64_t off = t_rand(rnd) % (len + 1), k = t_rand(rnd) % (len - off + 1);

		part[k] = 0xA5;
		T_CHECK(npk_tensors_read(t, off, part, k, NULL) == 0);
		T_CHECKF(memcmp(part, all + off, k) == 0 && part[k] == 0xA5, "bytes %" PRIu64 " + %" PRIu64, off, k);
	}
	while ((n = npk_tensors_borrow(t, at, &p)) > 0) {
		T_CHECKF(n <= len - at && memcmp(p, all + at, n) == 0, "%zu bytes borrowed at %" PRIu64, n, at);
		at += n;
	}
	T_CHECK(at == len);
	T_CHECK(npk_tensors_read(t, len, part, 1, NULL) == -EINVAL &&
		npk_tensors_read(t, len + 1, part, 0, NULL) == -EINVAL);
	T_CHECK(npk_tensors_borrow(t, len + 5, &p) == 0);
	free(part);
	return all;
}

static uint8_t bytes[4000], gone[250];

/* The live rows of an array lie where the header says. */
static void check_tensor(const struct header *h, const uint8_t *file, const struct mk_array *a, const char *dtype)
{
	uint64_t rb = mk_row_bytes(a), at = 0;

	for (size_t i = 0; i < h->n; i++)
		if (strcmp(h->t[i].name, a->name) == 0) {
			const struct tensor *t = &h->t[i];

			T_CHECKF(strcmp(t->dtype, dtype) == 0 && t->ndim == a->ndim, "%s: %s", a->name, t->dtype);
			for (uint64_t r = 0; r < mk_rows(a); r++)
				if (!a->deleted || !a->deleted[r]) {
					T_CHECKF(memcmp(file + h->data_at + t->begin + at, bytes + r * rb, rb) == 0,
						"%s: row %" PRIu64, a->name, r);
					at += rb;
				}
			T_CHECKF(at == t->end - t->begin, "%s: %" PRIu64 " bytes", a->name, at);
			return;
		}
	T_CHECKF(false, "%s is not there", a->name);
}

TEST(a_store_of_every_type)
{
	static const char *const types[] = {
		"BOOL", "U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "F16", "F32", "F64"};
	struct mk_array all[20] = {0};
	char names[12][16];
	uint64_t rnd = t_seed();
	struct npk_tensors *t;
	struct npk_store *s;
	struct header h;
	uint8_t *file;
	const char *dir = mk_dir();

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)t_rand(&rnd);
	for (size_t i = 0; i < sizeof(gone); i++)
		gone[i] = t_rand(&rnd) % 3 == 0;
	for (unsigned i = 0; i < 12; i++) {
		snprintf(names[i], sizeof(names[i]), "t%u \"\\\n\xC3\xA9", i);
		all[i] = (struct mk_array){.name = names[i],
			.dtype = i,
			.ndim = 2,
			.dim = {51 + i, 3},
			.data = bytes,
			.deleted = i % 2 ? gone : NULL,
			.segment_rows = i % 3 ? 0 : 7};
	}
	all[12] = (struct mk_array){.name = "none", .dtype = NPK_F32, .ndim = 2, .dim = {0, 3}, .data = bytes};
	all[13] = (struct mk_array){.name = "flat", .dtype = NPK_F64, .ndim = 2, .dim = {3, 0}, .data = bytes};
	all[14] = (struct mk_array){.name = "scalar", .dtype = NPK_U16, .data = bytes};
	all[15] = (struct mk_array){.name = "", .dtype = NPK_U8, .ndim = 1, .dim = {0}, .data = bytes};
	all[16] = (struct mk_array){.name = "c", .dtype = NPK_C64, .ndim = 1, .dim = {5}, .data = bytes};
	all[17] = (struct mk_array){.name = "__metadata__", .dtype = NPK_U8, .ndim = 1, .dim = {5}, .data = bytes};
	all[18] = (struct mk_array){.name = "lost", .dtype = NPK_U8, .ndim = 1, .dim = {5}, .data = bytes};
	all[19] = (struct mk_array){.name = "z", .dtype = NPK_C128, .ndim = 1, .dim = {5}, .data = bytes};
	mk_store(dir, all, 20);
	mk_remove(dir, "data_lost.npkd");

	t = open_tensors(dir, &s);
	file = read_all(t, &rnd);
	h = parse(file, npk_tensors_size(t));
	T_CHECKF(h.n == 16, "%zu tensors", h.n);
	check_layout(&h, npk_tensors_size(t));
	for (unsigned i = 0; i < 12; i++)
		check_tensor(&h, file, &all[i], types[i]);
	check_tensor(&h, file, &all[12], "F32");
	check_tensor(&h, file, &all[13], "F64");
	check_tensor(&h, file, &all[14], "U16");
	check_tensor(&h, file, &all[15], "U8");
	T_CHECKF(h.left_out && strcmp(h.left_out, "__metadata__,c,lost,z") == 0, "left out: %s",
		h.left_out ? h.left_out : "nothing");
	free_header(&h);
	free(file);
	npk_tensors_close(t);
	npk_store_close(s);
}

TEST(a_store_of_nothing)
{
	uint64_t rnd = t_seed();
	struct npk_store *s;
	struct npk_tensors *t = open_tensors(mk_dir(), &s);
	uint8_t *file = read_all(t, &rnd);
	struct header h = parse(file, npk_tensors_size(t));

	T_CHECK(h.n == 0 && !h.left_out);
	check_layout(&h, npk_tensors_size(t));
	free_header(&h);
	free(file);
	npk_tensors_close(t);
	npk_tensors_close(NULL);
	npk_store_close(s);
}

/* What is open keeps its bytes when the store goes on. */
TEST(an_open_file_does_not_follow_the_store)
{
	struct mk_array a = {.name = "a", .dtype = NPK_U8, .ndim = 1, .dim = {100}, .data = bytes};
	const char *dir = mk_dir();
	uint64_t rnd = t_seed(), len;
	struct npk_store *s;
	struct npk_tensors *t;
	uint8_t *before, *after;

	mk_store(dir, &a, 1);
	t = open_tensors(dir, &s);
	len = npk_tensors_size(t);
	before = read_all(t, &rnd);
	a.dim[0] = 200;
	a.mtime_us = 7;
	a.data = bytes + 1;
	mk_store(dir, &a, 1);
	T_CHECK(npk_store_refresh(s, NULL, NULL, NULL) == 0);
	after = read_all(t, &rnd);
	T_CHECK(npk_tensors_size(t) == len && memcmp(before, after, len) == 0);
	free(before);
	free(after);
	npk_tensors_close(t);
	npk_store_close(s);
}

T_MAIN()
