/* check_one.c - one query against rows: every element type, dimension, row count and kind of value, against sums in
 * double (exact for integers). Rows end at an unmapped page and lie at odd strides.  */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kern.h"

enum {
	MAX_DIM = 4099,
	MAX_ROWS = 19
};

struct job {
	const struct k_level *l;
	const char *kernel;
	enum npkv_dtype t;
	enum k_values v;
	size_t dim, nrows, stride;
	char *rows;
	_Alignas(64) char stored[8 * MAX_DIM];     /* the query as an array holds it */
	_Alignas(64) char form[8 * MAX_DIM + 512]; /* as the kernel wants it, zeros behind */
};

struct sums {
	double qx, xx, dd, abs_qx;
};

static struct sums reference(const struct job *j, size_t row)
{
	struct sums s = {0};
	const char *x = j->rows + row * j->stride;

	for (size_t k = 0; k < j->dim; k++) {
		double a = k_get(j->t, j->stored, k), b = k_get(j->t, x, k);

		s.qx += a * b;
		s.abs_qx += fabs(a * b);
		s.xx += b * b;
		s.dd += (a - b) * (a - b);
	}
	return s;
}

/* Beyond float's range the kernel may say infinite or, where infinities of both signs meet, NaN. */
static void near(const struct job *j, size_t row, const char *what, float got, double want, double scale)
{
	double n = (double)j->dim, e = j->t <= NPKV_F64 ? (n + 2) * 0x1p-24 : 0x1p-24;
	double bound = scale * e + (n + 1) * 0x1p-149;

	if (isnan(want) ? isnan(got) : fabs((double)got - want) <= bound || (double)got == want)
		return;
	if (scale > 1e38 && !isfinite(got))
		return;
	k_fail("%s %s type %d values %d dim %zu row %zu of %zu: %s is %.9g, want %.17g +- %.3g", j->l->name, j->kernel,
		j->t, j->v, j->dim, row, j->nrows, what, (double)got, want, bound);
}

static void run(struct job *j, bool diff)
{
	float c[MAX_ROWS + 16], xx[MAX_ROWS + 16];

	(diff ? j->l->ops.l2 : j->l->ops.dot)[j->t](j->form, j->rows, j->stride, j->nrows, j->dim, c, xx);
	j->kernel = diff ? "l2" : "dot";
	for (size_t i = 0; i < j->nrows; i++) {
		struct sums s = reference(j, i);

		if (diff) {
			near(j, i, "s", xx[i], s.dd, s.dd);
			near(j, i, "-s", -c[i], s.dd, s.dd);
		} else {
			near(j, i, "q.x", c[i], s.qx, s.abs_qx);
			near(j, i, "x.x", xx[i], s.xx, s.xx);
		}
	}
}

static void set_query(struct job *j)
{
	memset(j->form, 0, sizeof(j->form));
	for (size_t k = 0; k < j->dim; k++) {
		double d = k_get(j->t, j->stored, k);
		float f = (float)d;
		int16_t i = j->t > NPKV_F64 ? (int16_t)d : 0;

		if (j->t == NPKV_F64)
			memcpy(j->form + 8 * k, &d, sizeof(d));
		else if (j->t <= NPKV_F32)
			memcpy(j->form + 4 * k, &f, sizeof(f));
		else
			memcpy(j->form + 2 * k, &i, sizeof(i));
	}
}

static unsigned bits_of(unsigned char b)
{
	return (unsigned)__builtin_popcount(b);
}

static void run_bits(struct job *j)
{
	float c[MAX_ROWS + 16], xx[MAX_ROWS + 16], d[MAX_ROWS + 16], s[MAX_ROWS + 16];

	memset(j->form, 0, sizeof(j->form));
	memcpy(j->form, j->stored, j->dim);
	j->l->ops.and_bits(j->form, j->rows, j->stride, j->nrows, j->dim, c, xx);
	j->l->ops.xor_bits(j->form, j->rows, j->stride, j->nrows, j->dim, d, s);
	for (size_t i = 0; i < j->nrows; i++) {
		const unsigned char *x = (const unsigned char *)j->rows + i * j->stride;
		unsigned both = 0, ones = 0, differ = 0;

		for (size_t k = 0; k < j->dim; k++) {
			both += bits_of(x[k] & (unsigned char)j->stored[k]);
			ones += bits_of(x[k]);
			differ += bits_of(x[k] ^ (unsigned char)j->stored[k]);
		}
		if (c[i] != (float)both || xx[i] != (float)ones || s[i] != (float)differ || d[i] != -(float)differ)
			k_fail("%s bits dim %zu row %zu: and %g of %g, xor %g; want %u %u %u", j->l->name, j->dim, i,
				(double)c[i], (double)xx[i], (double)s[i], both, ones, differ);
	}
}

static void run_js(struct job *j)
{
	float c[MAX_ROWS + 16];

	j->l->ops.js(j->form, j->rows, j->stride, j->nrows, j->dim, c, NULL);
	for (size_t i = 0; i < j->nrows; i++) {
		double want = 0, scale = 0;

		for (size_t k = 0; k < j->dim; k++) {
			double t = k_get(j->t, j->stored, k) + k_get(j->t, j->rows + i * j->stride, k);

			want += t > 0 ? t * log(t) : 0;
			scale += t > 0 ? fabs(t * log(t)) + 2 * t : 0;
		}
		if (!(fabs((double)c[i] - want) <= scale * ((double)j->dim * 0x1p-24 + 0x1p-21) + 1e-36))
			k_fail("%s js dim %zu row %zu: %.9g, want %.9g", j->l->name, j->dim, i, (double)c[i], want);
	}
}

static void run_type(struct job *j, enum npkv_dtype t, enum k_values v, size_t dim, size_t nrows, uint64_t *rng)
{
	size_t width = npkv_dtype_bytes(t);

	j->t = t;
	j->v = v;
	j->dim = dim;
	j->nrows = nrows;
	j->stride = dim * width + (nrows % 2 ? 0 : 3);
	j->rows = k_guarded(0, (nrows - 1) * j->stride + dim * width);
	for (size_t i = 0; i < nrows; i++)
		k_fill(t, v, rng, dim, j->rows + i * j->stride);
	k_fill(t, v, rng, dim, j->stored);
	set_query(j);
	run(j, false);
	if (t <= NPKV_F64)
		run(j, true);
	if (t == NPKV_U8)
		run_bits(j);
	if (t == NPKV_F32 && v == K_PROBABILITIES)
		run_js(j);
}

void check_one(const struct k_level *l)
{
	static const size_t large[] = {511, 512, 768, 1000, 1025, MAX_DIM};
	static const enum k_values values[] = {K_PLAIN, K_PROBABILITIES, K_SPECIAL, K_HUGE, K_TINY};
	static struct job j;
	uint64_t rng = 1;

	j.l = l;
	for (size_t d = 0; d < 261 + 6; d++) {
		size_t dim = d < 261 ? d : large[d - 261];

		for (enum npkv_dtype t = NPKV_F16; t < NPKV_DTYPES; t++)
			for (size_t v = 0; v < 5; v++)
				if (k_take())
					run_type(&j, t, values[v], dim, 1 + (d * 5 + v) % MAX_ROWS, &rng);
	}
}
