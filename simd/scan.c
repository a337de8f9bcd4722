/* scan.c - one pass over rows for all queries of a plan: groups of rows, kernels, comparison, hits.  */
#include "plan.h"

struct scan {
	const struct npkv_plan *p;
	struct npkv_pack_map pm;
	struct npkv_work_map wm;
	const char *pack;
	char *work;
	const float *u, *w;
	float *c, *xx, *nx;
	struct npkv_hit *hits;
};

struct group {                  /* the rows in hand */
	const char *raw, *rows; /* as stored; as the kernels want them */
	size_t raw_stride, stride;
	size_t n, first;
	size_t strange;    /* rows whose nx is NaN */
	const char *ahead; /* what of the next group is not fetched yet */
};

enum {
	FETCH_BYTES = 8192 /* what is read row by row is asked for so far ahead */
};

static void fetch(const char *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch(from + at);
}

static void fill_row(const struct npkv_plan *p, const char *raw, char *to)
{
	const struct npkv_ops *o = p->ops;

	if (p->kind == KIND_INT && p->dtype == NPKV_I8)
		o->lift_i8(raw, p->dim, to);
	else if (p->kind == KIND_INT)
		o->lift_u8(raw, p->dim, to);
	else if (p->kind == KIND_AND || (p->dtype == NPKV_F32 && p->kind != KIND_KL))
		memcpy(to, raw, p->row_bytes);
	else if (p->dtype == NPKV_F16)
		o->f16_to_f32(raw, p->dim, (float *)(void *)to);
	else if (p->dtype == NPKV_F64)
		o->f64_to_f32(raw, p->dim, (float *)(void *)to);
	if (p->kind == KIND_KL)
		o->log_f32(p->dtype == NPKV_F32 ? raw : to, p->dim, (float *)(void *)to);
}

static void fill_panel(const struct scan *s, struct group *g)
{
	const struct npkv_plan *p = s->p;
	char *panel = s->work + s->wm.panel;

	g->rows = g->raw;
	g->stride = g->raw_stride;
	if (!npkv_panelled(p))
		return;
	for (size_t i = 0; i < g->n; i++) {
		if (!p->tile) /* else the tiles did it */
			fetch(g->raw + i * g->raw_stride + FETCH_BYTES, g->raw_stride);
		fill_row(p, g->raw + i * g->raw_stride, panel + i * p->panel_stride);
	}
	g->rows = panel;
	g->stride = p->panel_stride;
}

static npkv_one_fn *one_of(const struct npkv_plan *p)
{
	const struct npkv_ops *o = p->ops;

	switch (p->kind) {
	case KIND_DIFF:
		return o->l2[p->dtype];
	case KIND_KL:
		return o->dot[NPKV_F32];
	case KIND_JS:
		return o->js;
	case KIND_AND:
		return o->and_bits;
	case KIND_XOR:
		return o->xor_bits;
	default:
		return o->dot[p->dtype];
	}
}

/* x.x (or its stand-in) of every row, where the kernel that follows does not give it in passing. */
static void measure_rows(const struct scan *s, const struct group *g)
{
	const struct npkv_plan *p = s->p;
	const char *zeros = s->pack + s->pm.zeros;
	double err = ((double)p->dim + 40) * 0x1p-23; /* 2 g of plan.c, LOG_ERR in it */

	if (p->kind == KIND_JS) {
		for (size_t i = 0; i < g->n; i++) {
			float e[3];

			p->ops->entropy((const float *)(const void *)(g->rows + i * g->stride), p->dim, e);
			s->xx[i] = e[0] + (float)M_LN2 * e[2] - (float)(err * 1.25) * (e[1] + 2 * e[2]);
			if (!isfinite(s->xx[i]))
				s->xx[i] = isnan(e[2]) ? (float)NAN : INFINITY;
		}
	} else if (p->kind == KIND_INT) {
		p->ops->dot[p->dtype](zeros, g->raw, g->raw_stride, g->n, p->dim, s->c, s->xx);
	} else if (p->kind == KIND_AND) {
		p->ops->and_bits(zeros, g->raw, g->raw_stride, g->n, p->dim, s->c, s->xx);
	} else {
		p->ops->l2[NPKV_F32](zeros, g->rows, g->stride, g->n, p->dim, s->c, s->xx);
	}
}

static bool all_zero(const char *row, size_t bytes)
{
	return bytes == 0 || (row[0] == 0 && memcmp(row, row + 1, bytes - 1) == 0);
}

/* xx -> nx. A row of zeros has cosine 0, so it needs no npkv_pair(): the smallest norm with q.x = 0 says the same. */
static void finish_rows(const struct scan *s, struct group *g)
{
	const struct npkv_plan *p = s->p;

	g->strange = p->ops->norms(s->xx, g->n, p->lo, p->hi, p->root, s->nx);
	if (g->strange == 0 || p->metric != NPKV_COSINE)
		return;
	for (size_t i = 0; i < g->n; i++) {
		if (s->xx[i] < p->lo && all_zero(g->raw + i * g->raw_stride, p->row_bytes)) {
			s->nx[i] = sqrtf(p->lo);
			g->strange--;
		}
	}
}

/* Rows beyond the kernels' range are all reported; rows with a NaN only while every row is wanted. */
static struct npkv_hit *push_strange(
	const struct scan *s, const struct group *g, size_t query, size_t nq, struct npkv_hit *out)
{
	for (size_t i = 0; i < g->n && g->strange; i++) {
		if (!isnan(s->nx[i]))
			continue;
		for (size_t j = query; j < query + nq; j++)
			if (!isnan(s->xx[i]) || isinf(s->w[j]))
				*out++ = (struct npkv_hit){(uint32_t)(g->first + i), (uint32_t)j};
	}
	return out;
}

/* Whole tiles, then what is left: in a panel the tile may read rows of an earlier group, which nobody looks at; rows
 * in place must not be passed, so there it works on one row, repeated by a stride of 0. */
static struct npkv_hit *scan_tile(const struct scan *s, struct group *g, const struct npkv_tile *t, const char *qtile,
	size_t query, struct npkv_hit *out)
{
	const struct npkv_plan *p = s->p;
	size_t lanes = p->nq - query < t->width ? p->nq - query : t->width;
	/* The tiles together ask for the next group while they compute, instead of all at once when it is needed. */
	size_t pace = t->rows * g->raw_stride / (p->nwide + p->nnarrow) / p->nsteps + 1;

	for (size_t i = 0, n; i < g->n; i += n) {
		bool whole = g->n - i >= t->rows || npkv_panelled(p);
		struct npkv_hit base = {(uint32_t)(g->first + i), (uint32_t)query};

		n = !whole ? 1 : g->n - i < t->rows ? g->n - i : t->rows;
		t->run(qtile, g->rows + i * g->stride, whole ? g->stride : 0, p->nsteps, s->c, g->ahead, pace);
		g->ahead += p->nsteps * pace;
		out = p->ops->sift_tile(s->c, s->nx + i, n, t->width, lanes, s->u + query, s->w + query, base, out);
	}
	return out;
}

static struct npkv_hit *scan_singles(const struct scan *s, struct group *g, size_t query, struct npkv_hit *out)
{
	const struct npkv_plan *p = s->p;
	bool raw = p->kind != KIND_KL && p->kind != KIND_JS;
	const char *rows = raw ? g->raw : g->rows;
	size_t stride = raw ? g->raw_stride : g->stride;
	const char *q = s->pack + s->pm.single;
	bool measured = p->tile || p->kind == KIND_JS;

	for (; query < p->nq; query++, q += s->pm.single_bytes) {
		struct npkv_hit base = {(uint32_t)g->first, (uint32_t)query};

		one_of(p)(q, rows, stride, g->n, p->dim, s->c, s->xx);
		if (!measured) {
			finish_rows(s, g);
			measured = p->kind != KIND_DIFF && p->kind != KIND_XOR;
		}
		out = p->ops->sift_rows(s->c, s->nx, g->n, s->u[query], s->w[query], base, out);
		if (g->strange)
			out = push_strange(s, g, query, 1, out);
	}
	return out;
}

static struct npkv_hit *scan_group(struct scan *s, struct group *g, struct npkv_hit *out)
{
	const struct npkv_plan *p = s->p;
	const char *tile = s->pack + s->pm.wide;
	size_t query = 0;

	fill_panel(s, g);
	if (p->tile || p->kind == KIND_JS) {
		measure_rows(s, g);
		finish_rows(s, g);
	}
	for (size_t i = 0; i < p->nwide; i++, query += p->tile[0].width, tile += s->pm.wide_bytes)
		out = scan_tile(s, g, &p->tile[0], tile, query, out);
	if (p->nnarrow)
		out = scan_tile(s, g, &p->tile[1], tile, query, out);
	query = p->nq - p->nsingle;
	if (g->strange && query)
		out = push_strange(s, g, 0, query, out);
	return scan_singles(s, g, query, out);
}

/* KIND_EXACT: the kernels' bounds do not hold, so every row is scored here, and once more by the caller. */
static struct npkv_hit *scan_exact(const struct scan *s, const struct group *g, struct npkv_hit *out)
{
	const struct npkv_plan *p = s->p;
	const double *limit = (const double *)(const void *)(s->work + s->wm.limit);

	for (size_t i = 0; i < g->n; i++) {
		for (size_t j = 0; j < p->nq; j++) {
			const char *q = s->pack + s->pm.single + j * s->pm.single_bytes;
			double d = npkv_pair(p->ops, p->metric, p->dtype, q, g->raw + i * g->raw_stride, p->dim);

			if (isnan(limit[j]) || (npkv_is_similarity(p->metric) ? d >= limit[j] : d <= limit[j]))
				*out++ = (struct npkv_hit){(uint32_t)(g->first + i), (uint32_t)j};
		}
	}
	return out;
}

size_t npkv_scan(const struct npkv_plan *p, const void *pack, void *work, const void *rows, size_t stride, size_t nrows,
	struct npkv_hit *hits, size_t cap, size_t *nhits)
{
	struct scan s = {.p = p, .pack = pack, .work = work, .hits = hits};
	struct group g = {.raw_stride = stride};
	struct npkv_hit *out = hits;
	size_t done = 0;

	npkv_map_pack(p, &s.pm);
	npkv_map_work(p, &s.wm);
	s.u = (const float *)(void *)(s.work + s.wm.u);
	s.w = (const float *)(void *)(s.work + s.wm.w);
	s.c = (float *)(void *)(s.work + s.wm.c);
	s.xx = (float *)(void *)(s.work + s.wm.xx);
	s.nx = (float *)(void *)(s.work + s.wm.nx);
	if (nrows > UINT32_MAX)
		nrows = UINT32_MAX;
	while (done < nrows && cap - (size_t)(out - hits) >= p->hits_min) {
		g.raw = (const char *)rows + done * stride;
		g.n = nrows - done < p->group ? nrows - done : p->group;
		g.first = done;
		g.strange = 0;
		g.ahead = g.raw + g.n * stride;
		out = p->kind == KIND_EXACT ? scan_exact(&s, &g, out) : scan_group(&s, &g, out);
		done += g.n;
	}
	*nhits = (size_t)(out - hits);
	return done;
}
