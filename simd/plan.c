/* plan.c - how one search is laid out: kernels, sizes, packed queries, and limits as the kernels compare them.
 *
 * A limit is turned into two floats per query, u and w, so that every metric asks one question of a pair:
 *
 *	nx * u - c <= w          nx = xx, or sqrt(xx) where p->root;  c = q.x or what stands for it
 *
 * and "no" proves that npkv_pair() is worse than the limit. Rounding: with e = 2^-24 and a chain of n additions
 * |c - q.x| <= g |q||x| and |xx - x.x| <= g x.x, where g = (n + 16) e / (1 - (n + 16) e); the 16 takes in the
 * narrowing of f64 to float (2 e a product) and the comparison itself (Higham, Accuracy and Stability, 3.1).
 * Underflow adds at most n 2^-149 to a sum, and sqrt(n) 2^-149 to |q| or |x|. Integers: g = 8 e for any n.  */
#include <float.h>
#include <limits.h>

#include "plan.h"

static const double E = 0x1p-24;
static const double TINY = 0x1p-149;
static const double LOG_ERR = 0x1p-20; /* twice log_f32's 2^-21: its error, and that of its argument */

enum {
	SINGLE_MAX = 4
}; /* fewer queries than this do not pay for a tile */

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

size_t npkv_dtype_bytes(enum npkv_dtype t)
{
	static const unsigned char bytes[NPKV_DTYPES] = {2, 4, 8, 1, 1, 1};

	return bytes[t];
}

bool npkv_supported(enum npkv_metric m, enum npkv_dtype t)
{
	if ((unsigned)m >= NPKV_METRICS || (unsigned)t >= NPKV_DTYPES)
		return false;
	if (m == NPKV_HAMMING || m == NPKV_JACCARD)
		return t == NPKV_U8 || t == NPKV_BOOL;
	if (m == NPKV_KL || m == NPKV_JS)
		return t <= NPKV_F64;
	return t != NPKV_BOOL;
}

static unsigned kind_of(enum npkv_metric m, enum npkv_dtype t, size_t dim, bool one_by_one)
{
	bool bits = t == NPKV_U8 && (m == NPKV_HAMMING || m == NPKV_JACCARD);

	if (dim == 0 || dim > (bits ? 1u << 20 : t <= NPKV_F64 ? 1u << 21 : 1u << 15))
		return KIND_EXACT; /* counts stay below 2^24, g below 1/7, int32 sums below 2^31 */
	if (bits)
		return m == NPKV_HAMMING && one_by_one ? KIND_XOR : KIND_AND;
	if (m == NPKV_KL)
		return KIND_KL;
	if (m == NPKV_JS)
		return KIND_JS;
	if (t > NPKV_F64)
		return KIND_INT;
	return (m == NPKV_L2 || m == NPKV_L2SQ) && one_by_one ? KIND_DIFF : KIND_DOT;
}

static const struct npkv_tile *tiles_of(const struct npkv_ops *o, unsigned kind, enum npkv_dtype t)
{
	switch (kind) {
	case KIND_DOT:
	case KIND_KL:
		return o->tile_f32;
	case KIND_INT:
		return t == NPKV_I8 ? o->tile_i8 : o->tile_u8;
	case KIND_AND:
		return o->tile_bits;
	default:
		return NULL;
	}
}

/* Cuts nq queries into wide tiles, at most one narrow tile, and single ones. */
static void cut_queries(struct npkv_plan *p)
{
	size_t rest;

	p->nsingle = p->nq;
	if (!p->tile)
		return;
	p->nwide = p->nq / p->tile[0].width;
	rest = p->nq - p->nwide * p->tile[0].width;
	p->nsingle = rest <= SINGLE_MAX ? rest : 0;
	if (rest > SINGLE_MAX) {
		if (p->kind != KIND_AND && p->tile[1].run && rest <= p->tile[1].width)
			p->nnarrow = 1;
		else
			p->nwide++;
	}
	if (p->nwide + p->nnarrow == 0)
		p->tile = NULL;
}

/* Panel rows never lie 2 KiB apart, where the rows of a tile would fight for the same few cache sets. */
static size_t panel_stride_of(const struct npkv_plan *p)
{
	size_t bytes = 4 * p->dim;
	bool needed;

	if (p->kind == KIND_AND) {
		bytes = p->row_bytes;
		needed = p->tile && (bytes % 8 != 0 || bytes % 2048 == 0);
	} else if (p->kind == KIND_INT) {
		bytes = 4 * p->nsteps;
		needed = p->tile;
	} else if (p->kind == KIND_KL || p->kind == KIND_JS) {
		needed = true;
	} else {
		needed = p->tile && (p->dtype != NPKV_F32 || bytes % 2048 == 0);
	}
	return needed ? round_up(bytes, NPKV_PAD) + 64 : 0;
}

static unsigned group_of(const struct npkv_plan *p)
{
	size_t bytes = p->panel_stride ? p->panel_stride : p->row_bytes + 1;
	size_t n;

	if (p->tile) {
		n = ((size_t)96 << 10) / bytes / p->tile[0].rows;
		return (unsigned)(n < 1 ? 1 : n > 8 ? 8 : n) * p->tile[0].rows;
	}
	n = ((size_t)128 << 10) / bytes / 16 * 16; /* four streams of some pages each */
	return (unsigned)(n < 16 ? 16 : n > 1024 ? 1024 : n);
}

static void set_bounds(struct npkv_plan *p)
{
	p->root = false;
	p->lo = 0;
	p->hi = 1e36f; /* then neither q.x nor a threshold can overflow */
	switch (p->metric) {
	case NPKV_COSINE:
		p->lo = p->kind == KIND_INT ? 0.5f : 0x1p-64f * (float)p->dim;
		p->root = true;
		break;
	case NPKV_DOT:
	case NPKV_INNER:
	case NPKV_KL:
		p->root = true;
		break;
	case NPKV_JS:
		p->lo = -1e36f;
		break;
	default:
		break;
	}
}

static int plan_init(struct npkv_plan *p, const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, size_t dim,
	size_t nq, bool one_by_one)
{
	struct npkv_pack_map pack;
	struct npkv_work_map work;
	size_t room;

	/* 16 x the padded query and 300 x a panel row bound every product below. */
	if (!npkv_supported(m, t) || nq == 0 || nq > (size_t)1 << 31 || dim > SIZE_MAX / 1024 / 16)
		return -1;
	if (__builtin_mul_overflow(nq + 64, 8 * dim + 1024, &room) || room > SIZE_MAX / 16)
		return -1;
	memset(p, 0, sizeof(*p));
	p->ops = o;
	p->metric = m;
	p->dtype = t;
	p->dim = dim;
	p->nq = nq;
	p->row_bytes = dim * npkv_dtype_bytes(t);
	p->kind = kind_of(m, t, dim, one_by_one || nq <= SINGLE_MAX);
	p->tile = one_by_one ? NULL : tiles_of(o, p->kind, t);
	cut_queries(p);
	p->nsteps = p->kind == KIND_AND          ? (dim + 7) / 8
		    : p->kind != KIND_INT        ? dim
		    : o->int_form == NPKV_PAIR16 ? (dim + 1) / 2
						 : (dim + 3) / 4;
	p->panel_stride = panel_stride_of(p);
	p->group = group_of(p);
	p->hits_min = p->group * nq;
	set_bounds(p);
	npkv_map_pack(p, &pack);
	npkv_map_work(p, &work);
	p->pack_bytes = pack.total;
	p->work_bytes = work.total;
	return 0;
}

int npkv_plan_init(
	struct npkv_plan *p, const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, size_t dim, size_t nq)
{
	return plan_init(p, o, m, t, dim, nq, false);
}

int npkv_plan_init_narrow(
	struct npkv_plan *p, const struct npkv_ops *o, enum npkv_metric m, enum npkv_dtype t, size_t dim, size_t nq)
{
	return plan_init(p, o, m, t, dim, nq, true);
}

static size_t single_bytes(const struct npkv_plan *p)
{
	switch (p->kind) {
	case KIND_DOT:
	case KIND_DIFF:
		return p->dim * (p->dtype == NPKV_F64 ? 8 : 4);
	case KIND_INT:
		return p->dim * 2;
	case KIND_KL:
	case KIND_JS:
		return p->dim * 4;
	default:
		return p->row_bytes;
	}
}

void npkv_map_pack(const struct npkv_plan *p, struct npkv_pack_map *m)
{
	size_t step = p->kind == KIND_AND ? 8 : 4;

	memset(m, 0, sizeof(*m));
	m->single_bytes = round_up(single_bytes(p) + NPKV_PAD, 64);
	m->zeros = round_up(p->nq * sizeof(struct npkv_qstat), 64);
	m->wide = m->zeros + m->single_bytes;
	if (p->tile) {
		m->wide_bytes = round_up((p->nsteps + 1) * p->tile[0].width * step, 64);
		if (p->nnarrow)
			m->narrow_bytes = round_up((p->nsteps + 1) * p->tile[1].width * step, 64);
	}
	m->narrow = m->wide + p->nwide * m->wide_bytes;
	m->single = m->narrow + p->nnarrow * m->narrow_bytes;
	m->total = m->single + p->nsingle * m->single_bytes;
}

void npkv_map_work(const struct npkv_plan *p, struct npkv_work_map *m)
{
	size_t lanes = round_up(4 * npkv_lanes(p), 64);
	size_t group = round_up(4 * (size_t)p->group, 64);
	size_t c = p->tile ? round_up(4 * (size_t)p->tile[0].rows * p->tile[0].width, 64) : 0;

	m->u = 0;
	m->w = lanes;
	m->limit = 2 * lanes;
	m->c = m->limit + (p->kind == KIND_EXACT ? round_up(8 * p->nq, 64) : 0);
	m->xx = m->c + (c > group ? c : group);
	m->nx = m->xx + group;
	m->panel = m->nx + group;
	m->total = m->panel + round_up(p->group * p->panel_stride, 64);
}

static float f16_at(const struct npkv_plan *p, const char *q, size_t k)
{
	float v;

	p->ops->f16_to_f32(q + 2 * k, 1, &v);
	return v;
}

static double element(const struct npkv_plan *p, const char *q, size_t k)
{
	double d;

	switch (p->dtype) {
	case NPKV_F16:
		return (double)f16_at(p, q, k);
	case NPKV_F32:
		return (double)load_f32(q + 4 * k);
	case NPKV_F64:
		memcpy(&d, q + 8 * k, sizeof(d));
		return d;
	case NPKV_I8:
		return (double)((const int8_t *)q)[k];
	default:
		return (double)((const uint8_t *)q)[k];
	}
}

static void measure(const struct npkv_plan *p, const char *q, struct npkv_qstat *s)
{
	bool entropies = p->kind == KIND_KL || p->kind == KIND_JS;
	bool negative = false;

	memset(s, 0, sizeof(*s));
	if (p->kind == KIND_AND || p->kind == KIND_XOR) {
		for (size_t k = 0; k < p->dim; k++)
			s->norm2 += __builtin_popcount((uint8_t)q[k]);
		return;
	}
	for (size_t k = 0; k < p->dim && p->kind != KIND_EXACT; k++) {
		double v = element(p, q, k);

		s->norm2 += v * v;
		s->sum += v;
		negative |= v < 0;
		if (entropies && v > 0) {
			s->xlogx += v * log(v);
			s->abs_xlogx += fabs(v * log(v));
		}
	}
	s->wild = !(s->norm2 <= 1e36) || (entropies && negative);
}

/* Cosine works with q / |q| wherever the form of the query has fractions. */
static double scale_of(const struct npkv_plan *p, const struct npkv_qstat *s)
{
	if (p->metric != NPKV_COSINE || p->kind == KIND_INT || s->norm2 == 0)
		return 1;
	return 1 / sqrt(s->norm2);
}

static void pack_single(const struct npkv_plan *p, const char *q, double scale, char *to)
{
	size_t bytes = single_bytes(p);

	if (p->kind == KIND_AND || p->kind == KIND_XOR || p->kind == KIND_EXACT) {
		memcpy(to, q, bytes);
		return;
	}
	for (size_t k = 0; k < p->dim; k++) {
		double d = element(p, q, k) * scale;
		int16_t i = p->kind == KIND_INT ? (int16_t)d : 0;
		float f = (float)d;

		if (p->kind == KIND_INT)
			memcpy(to + 2 * k, &i, sizeof(i));
		else if (bytes == 8 * p->dim)
			memcpy(to + 8 * k, &d, sizeof(d));
		else
			memcpy(to + 4 * k, &f, sizeof(f));
	}
}

/* One lane of a tile of bytes: the same steps as the lifted rows, with the bias undone by the initial value. */
static void pack_quads(const struct npkv_plan *p, const char *q, size_t lane_stride, char *to)
{
	int32_t sum = 0;

	for (size_t k = 0; k < p->dim; k++) {
		to[(k / 4 + 1) * lane_stride + k % 4] = q[k];
		sum += p->dtype == NPKV_I8 ? (int8_t)q[k] : (uint8_t)q[k];
	}
	if (p->ops->int_form == NPKV_QUAD_BIAS) {
		sum *= p->dtype == NPKV_I8 ? -128 : 128;
		memcpy(to, &sum, sizeof(sum));
	}
}

static void pack_lane(const struct npkv_plan *p, const char *q, double scale, size_t width, char *to)
{
	size_t lane_stride = width * (p->kind == KIND_AND ? 8 : 4);

	if (p->kind == KIND_INT && p->ops->int_form != NPKV_PAIR16) {
		pack_quads(p, q, lane_stride, to);
		return;
	}
	for (size_t k = 0; k < p->dim; k++) {
		if (p->kind == KIND_AND) {
			to[(k / 8 + 1) * lane_stride + k % 8] = q[k];
		} else if (p->kind == KIND_INT) {
			int16_t v = (int16_t)element(p, q, k);

			memcpy(to + (k / 2 + 1) * lane_stride + 2 * (k % 2), &v, sizeof(v));
		} else {
			float v = (float)(element(p, q, k) * scale);

			memcpy(to + (k + 1) * lane_stride, &v, sizeof(v));
		}
	}
}

void npkv_pack(const struct npkv_plan *p, const void *queries, size_t query_stride, void *pack)
{
	struct npkv_pack_map m;
	struct npkv_qstat *stats = pack;
	size_t in_wide, in_tiles;

	npkv_map_pack(p, &m);
	memset(pack, 0, m.total);
	in_wide = p->tile ? p->nwide * p->tile[0].width : 0;
	in_tiles = p->nq - p->nsingle;
	for (size_t i = 0; i < p->nq; i++) {
		const char *q = (const char *)queries + i * query_stride;
		char *to = pack;
		double scale;

		measure(p, q, &stats[i]);
		scale = stats[i].wild ? 0 : scale_of(p, &stats[i]);
		if (stats[i].wild) /* decided by npkv_pair(): the kernels see zeros */
			continue;
		if (i < in_wide) {
			size_t width = p->tile[0].width;

			to += m.wide + i / width * m.wide_bytes + i % width * (p->kind == KIND_AND ? 8 : 4);
			pack_lane(p, q, scale, width, to);
		} else if (i < in_tiles) {
			pack_lane(p, q, scale, p->tile[1].width, to + m.narrow + (i - in_wide) * 4);
		} else {
			pack_single(p, q, scale, to + m.single + (i - in_tiles) * m.single_bytes);
		}
	}
}

static float up(double v)
{
	if (!(v < (double)FLT_MAX))
		return INFINITY;
	if (v < -(double)FLT_MAX)
		return -FLT_MAX;
	return nextafterf((float)v, INFINITY);
}

static float down(double v)
{
	return -up(-v);
}

/* The limit of a dot product d >= t as u, w; see the top of the file for g and the underflow terms. */
static void at_least(const struct npkv_plan *p, const struct npkv_qstat *s, double g, double t, double *u, double *w)
{
	double n = (double)p->dim, norm = sqrt(s->norm2);

	*u = -(g * (1 + g) + 4 * E) * norm - sqrt(n) * TINY;
	*w = -t + 4 * E * fabs(t) + n * TINY + sqrt(n) * norm * (TINY + g * 0x1p-74);
}

static void limit_of(
	const struct npkv_plan *p, const struct npkv_qstat *s, double score, bool ties, double *u, double *w)
{
	double n = (double)p->dim;
	double g = p->kind == KIND_INT ? 8 * E : (n + 16) * E / (1 - (n + 16) * E);
	double t2 = p->metric == NPKV_L2 ? score * score * (1 + 4 * DBL_EPSILON) : score;
	double norm = sqrt(s->norm2), r;

	switch (p->metric) {
	case NPKV_COSINE:
		*u = score - 2 * g * (1 + fabs(score)) - 8 * E;
		if (p->kind == KIND_INT)
			*u *= norm;
		*w = 0;
		break;
	case NPKV_DOT:
	case NPKV_INNER:
		at_least(p, s, g, score, u, w);
		break;
	case NPKV_KL: /* q log q - q.log x <= score; log x is known to LOG_ERR */
		at_least(p, s, g + LOG_ERR, s->xlogx - score, u, w);
		*w += s->sum * LOG_ERR + s->abs_xlogx * 4 * E;
		break;
	case NPKV_JS: /* 2 js^2 = Q + X + log2 (Sq + Sx) - sum t log t */
		g += LOG_ERR;
		*u = 1;
		*w = 2 * score * score - s->xlogx - M_LN2 * s->sum + 2 * g * (s->abs_xlogx + 2 * s->sum) + n * 0x1p-118;
		break;
	case NPKV_L2:
	case NPKV_L2SQ:
		if (p->kind == KIND_DIFF) {
			*u = 0;
			*w = t2 * (1 + g) + n * TINY;
		} else { /* x.x / 2 - q.x <= (t2 - q.q) / 2 */
			*u = (1 - g) * (1 - g) / 2 - 4 * E;
			*w = (t2 - s->norm2 * (1 - g - 4 * E)) / 2 + n * TINY + sqrt(n) * norm * TINY;
		}
		break;
	case NPKV_HAMMING: /* whole numbers: without ties half a step less will do */
		t2 = ties ? score : score - 0.5;
		if (p->kind == KIND_XOR) {
			*u = 0;
			*w = t2;
		} else {
			r = p->kind == KIND_INT ? 8 * E : 0;
			*u = (1 - r) / 2;
			*w = (t2 - s->norm2 * (1 - r)) / 2;
		}
		break;
	default: /* jaccard: c >= r (|q| + |x|) */
		r = (1 - score) / (2 - score);
		r -= 16 * E * fabs(r);
		*u = r;
		*w = -r * s->norm2;
		break;
	}
}

void npkv_limit(const struct npkv_plan *p, const void *pack, void *work, size_t query, double score, bool ties)
{
	const struct npkv_qstat *s = (const struct npkv_qstat *)pack + query;
	struct npkv_work_map m;
	double u = 0, w = INFINITY;

	npkv_map_work(p, &m);
	if (p->kind == KIND_EXACT) {
		((double *)((char *)work + m.limit))[query] = score;
		return;
	}
	if (!isnan(score) && !s->wild)
		limit_of(p, s, score, ties, &u, &w);
	if (!(fabs(u) < (double)FLT_MAX) || !(w < (double)FLT_MAX)) {
		u = 0;
		w = INFINITY;
	}
	((float *)((char *)work + m.u))[query] = u == 0 ? 0 : down(u);
	((float *)((char *)work + m.w))[query] = w == 0 ? 0 : up(w);
}

void npkv_work_init(const struct npkv_plan *p, const void *pack, void *work)
{
	size_t lanes = npkv_lanes(p);
	struct npkv_work_map m;
	float *w;

	npkv_map_work(p, &m);
	memset(work, 0, m.total);
	w = (float *)((char *)work + m.w);
	for (size_t i = p->nq; i < lanes; i++)
		w[i] = -INFINITY; /* the lanes that fill up the last tile */
	for (size_t i = 0; i < p->nq; i++)
		npkv_limit(p, pack, work, i, (double)NAN, true);
}
