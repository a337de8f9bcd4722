/* tensors.c - the store as one .safetensors file: 8 bytes header length, a JSON header, then the tensors without gaps
 * (the format of the safetensors project, its README "Format"). Wide elements come first, so that every tensor is aligned
 * to its own element size in a mapping. */
#include "numpack.h"
#include "text.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX ((size_t)100000000) /* the format's own limit */

struct tensor {
	struct npk_view *v;
	const char *name; /* the array's, which is held */
	size_t name_len;
	struct npk_array *a; /* counted */
	uint64_t begin;      /* of its bytes behind the header */
};

struct npk_tensors {
	struct tensor *t;
	size_t n;
	struct npk_text header;
	uint64_t data_bytes;
};

/* NULL: the format has no such type. */
static const char *tensor_dtype(unsigned dtype)
{
	static const char *const names[NPK_DTYPE_COUNT] = {[NPK_BOOL] = "BOOL",
		[NPK_U8] = "U8",
		[NPK_U16] = "U16",
		[NPK_U32] = "U32",
		[NPK_U64] = "U64",
		[NPK_I8] = "I8",
		[NPK_I16] = "I16",
		[NPK_I32] = "I32",
		[NPK_I64] = "I64",
		[NPK_F16] = "F16",
		[NPK_F32] = "F32",
		[NPK_F64] = "F64"};

	return names[dtype];
}

/* Takes the array in, or names it among those left out. */
static int add_array(struct npk_tensors *t, struct npk_array *a, struct npk_text *left_out, struct npk_err *err)
{
	struct tensor *x = &t->t[t->n];
	struct npk_gen *g = NULL;
	int rc;

	x->name = npk_array_name(a, &x->name_len);
	rc = npk_gen_get(&g, a, err);
	if (rc == 0 && (!tensor_dtype(npk_gen_info(g)->dtype) || strcmp(x->name, "__metadata__") == 0))
		rc = -ENOTSUP;
	if (rc == 0)
		rc = npk_view_open(&x->v, g, NULL, err);
	npk_gen_put(g);
	if (rc == -ENOMEM || rc == -ENOENT) /* one that has gone meanwhile is not missed */
		return rc == -ENOENT ? 0 : rc;
	if (rc != 0) {
		npk_text_add(left_out, ",", left_out->len ? 1 : 0);
		npk_text_add(left_out, x->name, x->name_len);
		return 0;
	}
	x->a = npk_array_ref(a);
	t->n++;
	return 0;
}

static int by_width(const void *p, const void *q)
{
	const struct tensor *a = p, *b = q;
	size_t x = npk_dtype_size(npk_view_info(a->v)->dtype), y = npk_dtype_size(npk_view_info(b->v)->dtype);

	return x != y ? (x < y) - (x > y) : strcmp(a->name, b->name);
}

static void add_tensor(struct npk_text *h, struct tensor *x, uint64_t *at)
{
	const struct npk_view_info *i = npk_view_info(x->v);

	npk_text_add(h, ",", 1);
	npk_text_json(h, x->name, x->name_len);
	npk_text_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", tensor_dtype(i->dtype));
	for (unsigned d = 0; d < i->shape.ndim; d++)
		npk_text_printf(h, "%s%" PRIu64, d ? "," : "", i->shape.dim[d]);
	npk_text_printf(h, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at, *at + i->bytes);
	x->begin = *at;
	*at += i->bytes;
}

static int make_header(struct npk_tensors *t, const struct npk_text *left_out, struct npk_err *err)
{
	struct npk_text *h = &t->header;

	npk_text_add(h, "\0\0\0\0\0\0\0\0", 8);
	npk_text_printf(h, "{\"__metadata__\":{\"format\":\"np\"");
	if (left_out->len) {
		npk_text_printf(h, ",\"left_out\":");
		npk_text_json(h, left_out->p, left_out->len);
	}
	npk_text_add(h, "}", 1);
	for (size_t i = 0; i < t->n; i++)
		add_tensor(h, &t->t[i], &t->data_bytes);
	npk_text_add(h, "}", 1);
	npk_text_add(h, "       ", (8 - h->len % 8) % 8);
	if (h->bad || left_out->bad)
		return npk_fail(err, ENOMEM, "safetensors: no memory for the header");
	if (h->len - 8 > HEADER_MAX)
		return npk_fail(err, E2BIG, "safetensors: a header of %zu bytes, the format allows %zu", h->len - 8,
			HEADER_MAX);
	npki_set_le((uint8_t *)h->p, h->len - 8, 8);
	return 0;
}

static int order_and_head(struct npk_tensors *t, const struct npk_text *left_out, struct npk_err *err)
{
	if (t->n > 0)
		qsort(t->t, t->n, sizeof(*t->t), by_width);
	return make_header(t, left_out, err);
}

static struct npk_tensors *new_tensors(size_t n)
{
	struct npk_tensors *t = calloc(1, sizeof(*t));

	if (t)
		t->t = calloc(n + 1, sizeof(*t->t));
	if (t && !t->t) {
		free(t);
		t = NULL;
	}
	return t;
}

int npk_tensors_open(struct npk_tensors **out, struct npk_store *s, struct npk_err *err)
{
	struct npk_tensors *t = NULL;
	struct npk_text left_out = {0};
	struct npk_array **list = NULL;
	size_t n = 0;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc == 0) {
		t = new_tensors(n);
		rc = t ? 0 : npk_fail(err, ENOMEM, "safetensors: no memory");
	}
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_array(t, list[i], &left_out, err);
	if (rc == 0)
		rc = order_and_head(t, &left_out, err);
	npk_store_list_free(list, n);
	npk_text_fini(&left_out);
	if (rc != 0)
		npk_tensors_close(t);
	else
		*out = t;
	return rc;
}

static int add_named(struct npk_tensors *t, struct npk_store *s, const char *name, struct npk_err *err)
{
	struct npk_text left_out = {0};
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	int rc = npk_array_get(&a, s, name, err);

	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0 && !tensor_dtype(npk_gen_info(g)->dtype))
		rc = npk_fail(err, EINVAL, "safetensors: array '%.200s' is %s, which the format lacks", name,
			npk_dtype_name(npk_gen_info(g)->dtype));
	if (rc == 0)
		rc = add_array(t, a, &left_out, err);
	if (rc == 0 && left_out.len > 0)
		rc = npk_fail(
			err, EINVAL, "safetensors: array '%.200s' has a name that the format keeps for itself", name);
	npk_text_fini(&left_out);
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static int by_name(const void *p, const void *q)
{
	return strcmp((*(const struct tensor *const *)p)->name, (*(const struct tensor *const *)q)->name);
}

static int check_names(const struct npk_tensors *t, struct npk_err *err)
{
	const struct tensor **x = calloc(t->n + 1, sizeof(struct tensor *));
	int rc = x ? 0 : npk_fail(err, ENOMEM, "safetensors: no memory");

	for (size_t i = 0; i < t->n && rc == 0; i++)
		x[i] = &t->t[i];
	if (rc == 0)
		qsort(x, t->n, sizeof(struct tensor *), by_name);
	for (size_t i = 1; i < t->n && rc == 0; i++)
		if (strcmp(x[i - 1]->name, x[i]->name) == 0)
			rc = npk_fail(err, EINVAL, "safetensors: array '%.200s' is named twice", x[i]->name);
	free(x);
	return rc;
}

int npk_tensors_open_list(
	struct npk_tensors **out, struct npk_store *s, const char *const *names, size_t n, struct npk_err *err)
{
	struct npk_tensors *t = new_tensors(n);
	struct npk_text left_out = {0};
	int rc = t ? 0 : npk_fail(err, ENOMEM, "safetensors: no memory");

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_named(t, s, names[i], err);
	if (rc == 0)
		rc = check_names(t, err);
	if (rc == 0)
		rc = order_and_head(t, &left_out, err);
	if (rc != 0)
		npk_tensors_close(t);
	else
		*out = t;
	return rc;
}

void npk_tensors_close(struct npk_tensors *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++) {
		npk_view_close(t->t[i].v);
		npk_array_put(t->t[i].a);
	}
	npk_text_fini(&t->header);
	free(t->t);
	free(t);
}

uint64_t npk_tensors_size(const struct npk_tensors *t)
{
	return t->header.len + t->data_bytes;
}

int npk_tensors_map(struct npk_tensors *t, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < t->n && rc == 0; i++)
		rc = npk_gen_map(npk_view_gen(t->t[i].v), err);
	return rc;
}

/* The last tensor that begins at or before byte `at` of the data; empty ones share their begin with the next. */
static struct tensor *find_tensor(const struct npk_tensors *t, uint64_t at)
{
	size_t lo = 0, hi = t->n, mid;

	while (hi - lo > 1) {
		mid = lo + (hi - lo) / 2;
		if (t->t[mid].begin <= at)
			lo = mid;
		else
			hi = mid;
	}
	return &t->t[lo];
}

int npk_tensors_read(struct npk_tensors *t, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	uint8_t *out = buf;
	int rc = 0;

	if (off > npk_tensors_size(t) || len > npk_tensors_size(t) - off)
		return npk_fail(
			err, EINVAL, "safetensors: bytes %" PRIu64 " + %zu of %" PRIu64, off, len, npk_tensors_size(t));
	while (len > 0 && rc == 0) {
		uint64_t at = off - t->header.len, left = t->header.len - off;
		struct tensor *x = off < t->header.len ? NULL : find_tensor(t, at);
		size_t n;

		if (x)
			left = npk_view_info(x->v)->bytes - (at - x->begin);
		n = left < len ? (size_t)left : len;
		if (x)
			rc = npk_view_read(x->v, at - x->begin, out, n, err);
		else
			memcpy(out, t->header.p + off, n);
		out += n;
		off += n;
		len -= n;
	}
	return rc;
}

void npk_tensors_let_go(struct npk_tensors *t, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, at;

	if (t->n == 0 || end <= t->header.len || off >= npk_tensors_size(t))
		return;
	at = off > t->header.len ? off - t->header.len : 0;
	end -= t->header.len;
	for (struct tensor *x = find_tensor(t, at); x < t->t + t->n && x->begin < end; x++) {
		uint64_t from = at > x->begin ? at - x->begin : 0;

		npk_view_let_go(x->v, from, end - x->begin - from);
	}
}

size_t npk_tensors_borrow(struct npk_tensors *t, uint64_t off, const void **out)
{
	struct tensor *x;

	if (off < t->header.len) {
		*out = t->header.p + off;
		return t->header.len - (size_t)off;
	}
	if (off >= npk_tensors_size(t))
		return 0;
	x = find_tensor(t, off - t->header.len);
	return npk_view_borrow(x->v, off - t->header.len - x->begin, out);
}
