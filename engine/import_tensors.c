/* import_tensors.c - .safetensors: 8 bytes header length, a JSON header, then the tensors without gaps (the format of the
 * safetensors project, its README "Format"). The header is checked as a whole before the first tensor is told; tensors come
 * in the order of their bytes, so that a pipe will do. */
#include "import.h"
#include "json.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX ((uint64_t)100000000) /* the format's own limit */

struct tensor {
	char *name;
	unsigned dtype;
	struct npk_shape shape;
	uint64_t begin, end;
	bool has_dtype, has_shape, has_offsets;
};

struct tensors {
	struct tensor *t;
	size_t n, cap, next;
	char *header;
};

static int bad(const struct npk_source *src, const struct tensor *t, struct npk_err *err, const char *what)
{
	return npk_fail(err, EINVAL, "%.200s: tensor '%.200s': %s", src->how.file, t->name, what);
}

static int take_dtype(struct npk_source *src, struct npki_json *j, struct tensor *t, struct npk_err *err)
{
	static const struct {
		const char *name;
		unsigned dtype;
	} known[] = {{"BOOL", NPK_BOOL}, {"U8", NPK_U8}, {"U16", NPK_U16}, {"U32", NPK_U32}, {"U64", NPK_U64},
		{"I8", NPK_I8}, {"I16", NPK_I16}, {"I32", NPK_I32}, {"I64", NPK_I64}, {"F16", NPK_F16},
		{"F32", NPK_F32}, {"F64", NPK_F64}, {"C64", NPK_C64}};
	char *word = NULL;
	int rc = npki_json_string(j, &word, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known) && !t->has_dtype; i++)
		if (strcmp(word, known[i].name) == 0) {
			t->dtype = known[i].dtype;
			t->has_dtype = true;
		}
	if (!t->has_dtype)
		rc = npk_fail(err, EINVAL, "%.200s: tensor '%.200s': NumPack has no dtype %.20s", src->how.file,
			t->name, word);
	free(word);
	return rc;
}

static int take_numbers(struct npki_json *j, uint64_t *out, unsigned max, unsigned *n, struct npk_err *err)
{
	*n = 0;
	if (!npki_json_take(j, '['))
		return npki_json_fail(j, err, "'['");
	if (npki_json_take(j, ']'))
		return 0;
	do {
		int rc = *n < max ? npki_json_uint(j, &out[*n], err) : npki_json_fail(j, err, "fewer numbers");

		if (rc != 0)
			return rc;
		++*n;
	} while (npki_json_take(j, ','));
	return npki_json_take(j, ']') ? 0 : npki_json_fail(j, err, "']'");
}

static int take_field(struct npk_source *src, struct npki_json *j, struct tensor *t, struct npk_err *err)
{
	uint64_t offsets[2] = {0};
	unsigned n = 0;
	char *key = NULL;
	int rc = npki_json_string(j, &key, err);

	if (rc == 0 && !npki_json_take(j, ':'))
		rc = npki_json_fail(j, err, "':'");
	if (rc == 0 && strcmp(key, "dtype") == 0 && !t->has_dtype) {
		rc = take_dtype(src, j, t, err);
	} else if (rc == 0 && strcmp(key, "shape") == 0 && !t->has_shape) {
		rc = take_numbers(j, t->shape.dim, NPK_MAX_NDIM, &t->shape.ndim, err);
		t->has_shape = true;
	} else if (rc == 0 && strcmp(key, "data_offsets") == 0 && !t->has_offsets) {
		rc = take_numbers(j, offsets, 2, &n, err);
		t->has_offsets = rc == 0 && n == 2;
		t->begin = offsets[0];
		t->end = offsets[1];
	} else if (rc == 0) {
		rc = npki_json_fail(j, err, "dtype, shape or data_offsets, each once");
	}
	free(key);
	return rc;
}

static int check_tensor(struct npk_source *src, const struct tensor *t, struct npk_err *err)
{
	uint64_t bytes = npk_dtype_size(t->dtype), nonzero = bytes;

	if (!t->has_dtype || !t->has_shape || !t->has_offsets)
		return bad(src, t, err, "dtype, shape or data_offsets is missing");
	for (unsigned i = 0; i < t->shape.ndim; i++) {
		uint64_t d = t->shape.dim[i];

		if (__builtin_mul_overflow(nonzero, d ? d : 1, &nonzero))
			return bad(src, t, err, "the shape overflows");
		bytes *= d;
	}
	if (t->begin > t->end || t->end - t->begin != bytes)
		return npk_fail(err, EINVAL,
			"%.200s: tensor '%.200s': bytes %" PRIu64 " to %" PRIu64 ", its shape wants %" PRIu64,
			src->how.file, t->name, t->begin, t->end, bytes);
	return 0;
}

static int take_tensor(struct npk_source *src, struct npki_json *j, struct tensor *t, struct npk_err *err)
{
	int rc = 0;

	if (!npki_json_take(j, '{'))
		return npki_json_fail(j, err, "'{'");
	if (!npki_json_take(j, '}')) {
		do
			rc = take_field(src, j, t, err);
		while (rc == 0 && npki_json_take(j, ','));
		if (rc == 0 && !npki_json_take(j, '}'))
			rc = npki_json_fail(j, err, "'}'");
	}
	return rc == 0 ? check_tensor(src, t, err) : rc;
}

static int add_member(struct npk_source *src, struct npki_json *j, struct npk_err *err)
{
	struct tensors *x = src->state;
	struct tensor *more;
	char *name = NULL;
	int rc = npki_json_string(j, &name, err);

	if (rc == 0 && !npki_json_take(j, ':'))
		rc = npki_json_fail(j, err, "':'");
	if (rc == 0 && strcmp(name, "__metadata__") == 0) {
		free(name);
		return npki_json_skip(j, err);
	}
	if (rc == 0 && x->n == x->cap) {
		more = reallocarray(x->t, 2 * x->cap + 16, sizeof(*x->t));
		if (more) {
			x->t = more;
			x->cap = 2 * x->cap + 16;
		} else {
			rc = npk_fail(err, ENOMEM, "no memory");
		}
	}
	if (rc != 0) {
		free(name);
		return rc;
	}
	x->t[x->n] = (struct tensor){.name = name};
	return take_tensor(src, j, &x->t[x->n++], err);
}

static int by_place(const void *p, const void *q)
{
	const struct tensor *a = p, *b = q;

	if (a->begin != b->begin)
		return a->begin < b->begin ? -1 : 1;
	return a->end != b->end ? (a->end < b->end ? -1 : 1) : strcmp(a->name, b->name);
}

static int by_name(const void *p, const void *q)
{
	return strcmp((*(const struct tensor *const *)p)->name, (*(const struct tensor *const *)q)->name);
}

static int check_all(struct npk_source *src, struct npk_err *err)
{
	struct tensors *x = src->state;
	const struct tensor **t = calloc(x->n + 1, sizeof(*t));
	uint64_t end = 0;
	int rc = t ? 0 : npk_fail(err, ENOMEM, "no memory");

	if (rc == 0 && x->n > 0)
		qsort(x->t, x->n, sizeof(*x->t), by_place);
	for (size_t i = 0; i < x->n && rc == 0; i++) {
		t[i] = &x->t[i];
		if (x->t[i].begin != end)
			rc = bad(src, t[i], err, "its bytes do not begin where those of the one before end");
		end = x->t[i].end;
	}
	if (rc == 0)
		qsort(t, x->n, sizeof(*t), by_name);
	for (size_t i = 1; i < x->n && rc == 0; i++)
		if (strcmp(t[i - 1]->name, t[i]->name) == 0)
			rc = bad(src, t[i], err, "is there twice");
	free(t);
	return rc;
}

static int parse_header(struct npk_source *src, uint64_t len, struct npk_err *err)
{
	struct tensors *x = src->state;
	struct npki_json j = npki_json_init(x->header, (size_t)len, src->how.file);
	int rc = 0;

	if (!npki_json_take(&j, '{'))
		return npki_json_fail(&j, err, "'{'");
	if (!npki_json_take(&j, '}')) {
		do
			rc = add_member(src, &j, err);
		while (rc == 0 && npki_json_take(&j, ','));
		if (rc == 0 && !npki_json_take(&j, '}'))
			rc = npki_json_fail(&j, err, "'}'");
	}
	if (rc == 0 && !npki_json_at_end(&j))
		rc = npki_json_fail(&j, err, "the end of the header");
	return rc == 0 ? check_all(src, err) : rc;
}

static int read_header(struct npk_source *src, struct npk_err *err)
{
	struct tensors *x;
	uint8_t lead[8];
	uint64_t len, have = 0;
	int rc = npki_in_read(&src->in, lead, sizeof(lead), err);

	if (rc != 0)
		return rc;
	len = npki_le(lead, 8);
	if (len > HEADER_MAX)
		return npk_fail(err, EINVAL,
			"%.200s: byte 0: a header of %" PRIu64 " bytes, the format allows %" PRIu64, src->how.file, len,
			HEADER_MAX);
	if (len == 0)
		return npk_fail(err, EINVAL, "%.200s: byte 0: a header of 0 bytes", src->how.file);
	x = calloc(1, sizeof(*x));
	if (!x)
		return npk_fail(err, ENOMEM, "no memory");
	src->state = x;
	while (have < len && rc == 0) { /* memory only for bytes that are there */
		size_t n = len - have < NPKI_IMPORT_BLOCK ? (size_t)(len - have) : NPKI_IMPORT_BLOCK;
		char *more = realloc(x->header, (size_t)have + n);

		if (!more)
			return npk_fail(err, ENOMEM, "no memory");
		x->header = more;
		rc = npki_in_read(&src->in, more + have, n, err);
		have += n;
	}
	return rc == 0 ? parse_header(src, len, err) : rc;
}

static int at_the_end(struct npk_source *src, struct npk_err *err)
{
	int rc = npki_in_fill(&src->in, 1, err);

	if (rc == 0 && src->in.have > src->in.pos)
		rc = npk_fail(err, EINVAL, "%.200s: byte %" PRIu64 ": bytes that belong to no tensor", src->how.file,
			src->in.at);
	return rc;
}

static int next(struct npk_source *src, struct npk_err *err)
{
	struct tensors *x = src->state;
	const struct tensor *t;
	int rc = x ? 0 : read_header(src, err);

	x = src->state;
	if (rc == -EUCLEAN) /* a broken header is the file's fault, not the store's */
		rc = npk_fail(err, EINVAL, "%s", err ? strdupa(err->msg) : "");
	if (rc != 0)
		return rc;
	if (x->next == x->n)
		return at_the_end(src, err);
	t = &x->t[x->next++];
	src->now = (struct npk_source_array){.name = t->name, .dtype = t->dtype, .shape = t->shape, .rows_known = true};
	src->left = t->end - t->begin;
	return 1;
}

static int pull(struct npk_source *src, void *out, size_t len, struct npk_err *err)
{
	return npki_in_read(&src->in, out, len, err);
}

static void close_tensors(struct npk_source *src)
{
	struct tensors *x = src->state;

	if (!x)
		return;
	for (size_t i = 0; i < x->n; i++)
		free(x->t[i].name);
	free(x->t);
	free(x->header);
	free(x);
}

const struct npki_format npki_import_tensors = {.next = next, .pull = pull, .close = close_tensors};
