/* search_vectors.c - the vectors that a query names: a row, rows of another array, numbers, bytes that came along. */
#include "convert.h"
#include "search.h"
#include "space.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct loader {
	struct npkfs_session *s;
	struct npkfs_space *sp;
	struct npk_gen *g;
	struct npkfs_vectors *v;
	size_t size; /* of an element */
	uint64_t max;
};

/* Room for `bytes` more; NULL with the error in *rc. */
static char *grow(struct loader *l, uint64_t bytes, int *rc, struct npk_err *err)
{
	struct npk_text *t = &l->v->bytes;
	char *p;

	if (bytes > l->max || t->len > l->max - bytes) {
		*rc = npk_fail(err, E2BIG, "search: a query of more than ctl_max, %" PRIu64 " bytes", l->max);
		return NULL;
	}
	if (t->cap - t->len < bytes + 1) {
		p = realloc(t->p, t->len + bytes + 1);
		if (p == NULL) {
			*rc = npk_fail(err, ENOMEM, "search: no memory for a query of %" PRIu64 " bytes", bytes);
			return NULL;
		}
		t->p = p;
		t->cap = t->len + bytes + 1;
	}
	p = t->p + t->len;
	t->len += bytes;
	return p;
}

static int wrong_dtype(const struct loader *l, unsigned dtype, struct npk_err *err)
{
	return npk_fail(err, EINVAL, "search: the query is %s, the array is %s", npk_dtype_name(dtype),
		npk_dtype_name(l->v->dtype));
}

/* How many vectors elements of that shape are: one, or one a row. */
static int count_vectors(const struct loader *l, const struct npk_shape *shape, uint64_t *n, struct npk_err *err)
{
	uint64_t inner = 1, dim = l->v->dim;

	for (unsigned i = 1; i < shape->ndim; i++)
		inner *= shape->dim[i]; /* cannot overflow: whoever made the shape checked it */
	if (shape->ndim > 1 && inner == dim) {
		*n = shape->dim[0];
	} else if (shape->ndim == 0 ? dim == 1 : inner * shape->dim[0] == dim) {
		*n = 1;
	} else if (inner == dim) { /* numbers, of which each is a row of its own */
		*n = shape->dim[0];
	} else {
		return npk_fail(err, EINVAL, "search: vectors of %" PRIu64 " elements, a row of the array has %" PRIu64,
			shape->ndim > 1 || shape->ndim == 0 ? inner : shape->dim[0], dim);
	}
	return *n > 0 ? 0 : npk_fail(err, EINVAL, "search: no query, the vectors are 0");
}

/* --- row=, from= -------------------------------------------------------------------------------------------------------- */

static int take_row(struct loader *l, const char *value, struct npk_err *err)
{
	uint64_t rows = npk_gen_info(l->g)->rows;
	char *end, *to;
	int64_t row;
	int rc = 0;

	errno = 0;
	row = strtoll(value, &end, 10);
	if (end == value || *end != '\0' || isspace((unsigned char)*value) || errno != 0)
		return npk_fail(err, EINVAL, "search: row=%s: not a row's number", value);
	if (row >= 0 ? (uint64_t)row >= rows : (uint64_t) - (row + 1) >= rows)
		return npk_fail(err, ERANGE, "search: row=%s: the array has %" PRIu64 " rows", value, rows);
	to = grow(l, npk_gen_info(l->g)->row_bytes, &rc, err);
	if (rc == 0)
		rc = npk_gen_read_rows(l->g, row >= 0 ? (uint64_t)row : rows + (uint64_t)row, 1, to, err);
	l->v->n += rc == 0;
	return rc;
}

static int take_view(struct loader *l, struct npk_view *view, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(view);
	uint64_t n = 0;
	char *to;
	int rc;

	if (info->dtype != l->v->dtype)
		return wrong_dtype(l, info->dtype, err);
	rc = count_vectors(l, &info->shape, &n, err);
	if (rc != 0)
		return rc;
	to = grow(l, info->bytes, &rc, err);
	if (rc == 0)
		rc = npk_view_read(view, 0, to, info->bytes, err);
	if (rc == 0)
		l->v->n += n;
	return rc;
}

/* "queries", "queries[0:10]": a name that there is may have brackets itself. */
static int split_name(struct loader *l, char *name, struct npk_array **a, const char **sel, struct npk_err *err)
{
	size_t len = strlen(name);
	char *open;
	int rc = npkfs_array_get(l->s, l->sp, name, strlen(name), a, err);

	*sel = NULL;
	if (rc != -ENOENT || len == 0 || name[len - 1] != ']' || (open = strrchr(name, '[')) == NULL)
		return rc;
	name[len - 1] = '\0';
	*open = '\0';
	*sel = open + 1;
	return npkfs_array_get(l->s, l->sp, name, strlen(name), a, err);
}

static int take_array(struct loader *l, const char *value, struct npk_err *err)
{
	char *name = strdup(value);
	struct npk_array *a = NULL;
	struct npk_view *v = NULL;
	struct npk_gen *g = NULL;
	const char *sel = NULL;
	int rc = name != NULL ? split_name(l, name, &a, &sel, err) : npk_fail(err, ENOMEM, "search: no memory");

	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0)
		rc = npk_view_open(&v, g, sel, err);
	if (rc == 0)
		rc = npk_gen_map(g, err);
	if (rc == 0)
		rc = take_view(l, v, err);
	npk_view_close(v);
	npk_gen_put(g);
	npk_array_put(a);
	free(name);
	return rc;
}

/* --- q= ------------------------------------------------------------------------------------------------------------------ */

static int take_numbers(struct loader *l, const char *value, struct npk_err *err)
{
	uint64_t n = 1;
	const char *p = value;
	size_t len;
	char *to;
	int rc = 0;

	for (const char *c = value; *c != '\0'; c++)
		n += *c == ',';
	if (n != l->v->dim)
		return npk_fail(err, EINVAL, "search: q= has %" PRIu64 " numbers, a row of the array has %" PRIu64, n,
			l->v->dim);
	to = grow(l, n * l->size, &rc, err);
	for (uint64_t i = 0; i < n && rc == 0; i++, to += l->size, p += len + 1) {
		len = strcspn(p, ",");
		if (npk_element_parse(to, l->v->dtype, p, len) != 0)
			return npk_fail(err, EINVAL, "search: q=: number %" PRIu64 ", '%.*s', is none that %s holds",
				i + 1, (int)(len < 40 ? len : 40), p, npk_dtype_name(l->v->dtype));
	}
	l->v->n += rc == 0;
	return rc;
}

/* --- npy=, raw= ----------------------------------------------------------------------------------------------------------- */

static int take_npy(struct loader *l, const struct npkfs_attached *a, struct npk_err *err)
{
	struct npk_npy npy;
	uint64_t n = 0;
	char *to;
	int rc = npk_npy_parse(a->data, a->len, &npy, NULL, err);

	if (rc == -EAGAIN)
		return npk_fail(err, EINVAL, "search: the header of the .npy is cut short");
	if (rc != 0)
		return npk_err_context(err, rc, "search");
	if (a->len - npy.header_len != npy.data_len)
		return npk_fail(err, EINVAL, "search: the .npy has %" PRIu64 " bytes of data, its header says %" PRIu64,
			a->len - npy.header_len, npy.data_len);
	if (npy.dtype != l->v->dtype)
		return wrong_dtype(l, npy.dtype, err);
	rc = count_vectors(l, &npy.shape, &n, err);
	if (rc != 0)
		return rc;
	to = grow(l, npy.data_len, &rc, err);
	if (rc != 0)
		return rc;
	npkfs_convert_memory(a->data + npy.header_len, &npy, to);
	l->v->n += n;
	return 0;
}

static int take_raw(struct loader *l, const struct npkfs_attached *a, struct npk_err *err)
{
	uint64_t row_bytes = l->v->dim * l->size;
	char *to;
	int rc = 0;

	if (row_bytes == 0 || a->len == 0 || a->len % row_bytes != 0)
		return npk_fail(err, EINVAL, "search: raw=%" PRIu64 ": a row of the array has %" PRIu64 " bytes",
			a->len, row_bytes);
	to = grow(l, a->len, &rc, err);
	if (rc != 0)
		return rc;
	memcpy(to, a->data, a->len);
	l->v->n += a->len / row_bytes;
	return 0;
}

/* --- all of them ------------------------------------------------------------------------------------------------------------ */

static int take_source(struct loader *l, const struct npkfs_search_source *from, const struct npkfs_attached *attached,
	struct npk_err *err)
{
	if (strcmp(from->key, "row") == 0)
		return take_row(l, from->value, err);
	if (strcmp(from->key, "from") == 0)
		return take_array(l, from->value, err);
	if (strcmp(from->key, "q") == 0)
		return take_numbers(l, from->value, err);
	if (attached == NULL || attached[from->attached].data == NULL)
		return npk_fail(err, EINVAL, "search: %s= announces bytes, and none can come here", from->key);
	return strcmp(from->key, "npy") == 0 ? take_npy(l, &attached[from->attached], err)
					     : take_raw(l, &attached[from->attached], err);
}

int npkfs_search_vectors(struct npkfs_vectors *out, struct npkfs_session *s, struct npkfs_space *sp, struct npk_gen *g,
	const struct npkfs_search_words *w, const struct npkfs_attached *attached, struct npk_err *err)
{
	const struct npk_gen_info *info = npk_gen_info(g);
	struct npkfs_vectors v = {.dtype = info->dtype};
	struct loader l = {
		.s = s, .sp = sp, .g = g, .v = &v, .size = npk_dtype_size(info->dtype), .max = s->config->ctl_max};
	int rc = 0;

	if (info->shape.ndim == 0)
		return npk_fail(err, EINVAL, "search: the array has no rows, it is a scalar");
	v.dim = info->row_bytes / l.size;
	for (unsigned i = 0; i < w->nsources && rc == 0; i++) {
		rc = take_source(&l, &w->source[i], attached, err);
		if (i == 0)
			v.nfirst = v.n;
	}
	if (rc == 0)
		*out = v;
	else
		npk_text_fini(&v.bytes);
	return rc;
}
