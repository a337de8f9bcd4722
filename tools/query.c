/* query.c - see query.h. */
#include "query.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the command line ---------------------------------------------------------------------------------------------------- */

int npkt_check_query(const char *row, const char *from, int nfiles)
{
	int n = (row != NULL) + (from != NULL) + nfiles;

	if (n == 1)
		return NPKT_OK;
	npkt_complain(
		n == 0 ? "there is no query: FILE, --row or --from" : "more than one query: FILE, --row or --from");
	return NPKT_USAGE;
}

int npkt_count(const char *option, const char *text, uint64_t *out)
{
	char *end;
	uint64_t n;

	if (!text)
		return NPKT_OK;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && *end == 0 && errno == 0 && n > 0) {
		*out = n;
		return NPKT_OK;
	}
	npkt_complain("%s %s: a number from 1 on is needed", option, text);
	return NPKT_USAGE;
}

int npkt_form(const char *json, const char *npy, enum npkt_form *out)
{
	if (json && npy) {
		npkt_complain("--json and --npy are both given");
		return NPKT_USAGE;
	}
	*out = json ? NPKT_JSON : npy ? NPKT_NPY : NPKT_TEXT;
	return NPKT_OK;
}

/* --- vectors -------------------------------------------------------------------------------------------------------------- */

/* How many vectors elements of that shape are: one, or one a row. */
static int count_vectors(struct npkt_vectors *v, const char *what, const struct npk_shape *shape, struct npk_err *err)
{
	uint64_t inner = 1, all;

	for (unsigned i = 1; i < shape->ndim; i++)
		inner *= shape->dim[i]; /* cannot overflow: whoever made the shape checked it */
	all = shape->ndim > 0 ? inner * shape->dim[0] : 1;
	if (shape->ndim > 1 && inner == v->q.dim)
		v->q.nq = shape->dim[0];
	else if (all == v->q.dim)
		v->q.nq = 1;
	else if (shape->ndim == 1 && v->q.dim == 1)
		v->q.nq = shape->dim[0];
	else
		return npk_fail(err, EINVAL, "%.300s: vectors of %" PRIu64 " elements, a row of the array has %" PRIu64,
			what, shape->ndim > 1 ? inner : all, v->q.dim);
	return v->q.nq > 0 ? 0 : npk_fail(err, EINVAL, "%.300s: there is no vector in it", what);
}

static int check_dtype(const struct npkt_vectors *v, const char *what, unsigned dtype, struct npk_err *err)
{
	if (dtype == v->q.dtype)
		return 0;
	return npk_fail(
		err, EINVAL, "%.300s is %s, the array is %s", what, npk_dtype_name(dtype), npk_dtype_name(v->q.dtype));
}

static int take_row(struct npkt_vectors *v, struct npk_gen *g, const char *text, struct npk_err *err)
{
	char *end;
	int64_t row;

	errno = 0;
	row = strtoll(text, &end, 10);
	if (end == text || *end != 0 || errno != 0)
		return npk_fail(err, EINVAL, "--row %.100s: not the number of a row", text);
	v->copied = malloc(npk_gen_info(g)->row_bytes + 1);
	if (!v->copied)
		return npk_fail(err, ENOMEM, "no memory for a row");
	v->q.nq = 1;
	v->q.data = v->copied;
	return npk_gen_take(g, &row, 1, v->copied, err);
}

static int take_view(struct npkt_vectors *v, const char *what, struct npk_view *view, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(view);
	int rc = check_dtype(v, what, info->dtype, err);

	if (rc == 0)
		rc = count_vectors(v, what, &info->shape, err);
	if (rc != 0)
		return rc;
	v->copied = malloc(info->bytes + 1);
	if (!v->copied)
		return npk_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes of queries", info->bytes);
	v->q.data = v->copied;
	return npk_view_read(view, 0, v->copied, info->bytes, err);
}

/* "ARRAY", "ARRAY[SEL]"; a name that there is may have brackets itself. */
static int take_from(struct npkt_vectors *v, struct npk_store *s, const char *text, struct npk_err *err)
{
	char *name = strdup(text), *open;
	size_t len = strlen(text);
	struct npk_gen *g = NULL;
	struct npk_view *view = NULL;
	const char *sel = NULL;
	int rc = name ? npkt_gen(&g, s, name, err) : npk_fail(err, ENOMEM, "no memory");

	if (rc == -ENOENT && len > 0 && name[len - 1] == ']' && (open = strrchr(name, '[')) != NULL) {
		name[len - 1] = 0;
		*open = 0;
		sel = open + 1;
		rc = npkt_gen(&g, s, name, err);
	}
	if (rc == 0)
		rc = npk_view_open(&view, g, sel, err);
	if (rc == 0)
		rc = take_view(v, text, view, err);
	npk_view_close(view);
	npk_gen_put(g);
	free(name);
	return rc;
}

static int take_file(struct npkt_vectors *v, const char *file, struct npk_err *err)
{
	struct npk_source_how how = {.format = NPK_FORMAT_NPY, .dtype = -1};
	struct npk_source_array a;
	struct npkt_input in;
	int rc = npkt_input_open(&in, file, &how, err);

	if (rc != 0)
		return rc;
	rc = npkt_input_only(&in, &a, err);
	if (rc == 0)
		rc = check_dtype(v, in.file, a.dtype, err);
	if (rc == 0)
		rc = count_vectors(v, in.file, &a.shape, err);
	if (rc == 0)
		rc = npkt_rows_map(&v->mapped, in.src, err);
	if (rc == 0)
		rc = npkt_input_no_more(&in, err);
	v->q.data = v->mapped.p ? v->mapped.p : "";
	npkt_input_close(&in);
	return rc;
}

int npkt_vectors_open(struct npkt_vectors *v, struct npk_store *s, struct npk_gen *g, const char *row, const char *from,
	const char *file, struct npk_err *err)
{
	const struct npk_gen_info *info = npk_gen_info(g);
	int rc;

	*v = (struct npkt_vectors){.q.dtype = info->dtype};
	if (info->shape.ndim == 0)
		return npk_fail(err, EINVAL, "the array has no rows, it is a scalar");
	v->q.dim = info->row_bytes / npk_dtype_size(info->dtype);
	rc = row ? take_row(v, g, row, err) : from ? take_from(v, s, from, err) : take_file(v, file, err);
	if (rc != 0)
		npkt_vectors_close(v);
	return rc;
}

void npkt_vectors_close(struct npkt_vectors *v)
{
	npkt_rows_unmap(&v->mapped);
	free(v->copied);
	*v = (struct npkt_vectors){0};
}

/* --- hits ----------------------------------------------------------------------------------------------------------------- */

void npkt_add_score(struct npk_text *t, double score, bool json)
{
	char text[NPK_ELEMENT_MAX];

	if (json && !isfinite(score))
		npk_text_printf(t, "null");
	else
		npk_text_add(t, text, npk_element_text(text, NPK_F64, &score));
}

/* Writes what was gathered when it is much, or the last. */
static int drain(struct npkt_out *o, struct npk_text *t, bool last, struct npk_err *err)
{
	int rc;

	if (t->bad)
		return npk_fail(err, ENOMEM, "no memory to print");
	if (t->len < NPKT_BLOCK && !last)
		return 0;
	rc = npkt_out_write(o, t->p, t->len, err);
	t->len = 0;
	return rc;
}

static int put_text(struct npkt_out *o, const struct npk_hits *h, struct npk_text *t, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < h->nq * h->k && rc == 0; i++) {
		if (h->nq > 1)
			npk_text_printf(t, "%zu ", i / h->k);
		npk_text_printf(t, "%" PRIu64 " ", h->row[i]);
		npkt_add_score(t, h->score[i], false);
		npk_text_add(t, "\n", 1);
		rc = drain(o, t, false, err);
	}
	return rc;
}

/* As the mount's: a list of hits, or of lists of them. */
static int put_json(
	struct npkt_out *o, const struct npk_hits *h, enum npk_metric metric, struct npk_text *t, struct npk_err *err)
{
	int rc = 0;

	npk_text_printf(t, "{\"op\": \"topk\", \"metric\": \"%s\", \"hits\": %s", npk_metric_name(metric),
		h->nq > 1 ? "[" : "");
	for (size_t q = 0; q < h->nq && rc == 0; q++) {
		npk_text_printf(t, "%s[", q > 0 ? ", " : "");
		for (size_t i = 0; i < h->k && rc == 0; i++) {
			npk_text_printf(
				t, "%s{\"index\": %" PRIu64 ", \"score\": ", i > 0 ? ", " : "", h->row[q * h->k + i]);
			npkt_add_score(t, h->score[q * h->k + i], true);
			npk_text_add(t, "}", 1);
			rc = drain(o, t, false, err);
		}
		npk_text_add(t, "]", 1);
	}
	npk_text_printf(t, "%s}\n", h->nq > 1 ? "]" : "");
	return rc;
}

/* The header that np.save() writes for records: npk_npy_header() knows plain dtypes only. */
static void add_header(struct npk_text *t, const struct npk_hits *h)
{
	char shape[64], first[24], dict[192];
	size_t len, total;

	snprintf(first, sizeof(first), "%zu", h->nq == 1 ? h->k : h->nq);
	if (h->nq == 1)
		snprintf(shape, sizeof(shape), "(%zu,)", h->k);
	else
		snprintf(shape, sizeof(shape), "(%zu, %zu)", h->nq, h->k);
	len = (size_t)snprintf(dict, sizeof(dict),
		"{'descr': [('index', '<u8'), ('score', '<f8')], 'fortran_order': False, 'shape': %s, }%*s", shape,
		(int)(21 - strlen(first)), "");
	total = (10 + len + 1 + 63) / 64 * 64;
	npk_text_add(t, "\x93NUMPY\1\0", 8);
	npk_text_printf(t, "%c%c%s%*s\n", 'x', 'x', dict, (int)(total - 10 - len - 1), "");
	if (!t->bad) {
		t->p[8] = (char)((total - 10) & 255);
		t->p[9] = (char)((total - 10) >> 8);
	}
}

static int put_npy(struct npkt_out *o, const struct npk_hits *h, struct npk_text *t, struct npk_err *err)
{
	int rc = 0;

	add_header(t, h);
	for (size_t i = 0; i < h->nq * h->k && rc == 0; i++) {
		npk_text_add(t, &h->row[i], 8);
		npk_text_add(t, &h->score[i], 8);
		rc = drain(o, t, false, err);
	}
	return rc;
}

int npkt_out_hits(
	struct npkt_out *o, const struct npk_hits *h, enum npk_metric metric, enum npkt_form form, struct npk_err *err)
{
	struct npk_text t = {0};
	int rc;

	if (form == NPKT_NPY)
		rc = put_npy(o, h, &t, err);
	else
		rc = form == NPKT_JSON ? put_json(o, h, metric, &t, err) : put_text(o, h, &t, err);
	if (rc == 0)
		rc = drain(o, &t, true, err);
	npk_text_fini(&t);
	return rc;
}
