/* check_tiles.c - tiles of queries against rows: the same sums as one query at a time, from the packed form that
 * npkv_pack() writes, with rows that end at an unmapped page.  */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kern.h"
#include "plan.h"

struct job {
	const struct k_level *l;
	const struct npkv_tile *tile;
	enum npkv_metric m;
	enum npkv_dtype t;
	size_t dim;
	bool narrow;
};

static unsigned and_count(const unsigned char *a, const unsigned char *b, size_t n)
{
	unsigned c = 0;

	for (size_t k = 0; k < n; k++)
		c += (unsigned)__builtin_popcount(a[k] & b[k]);
	return c;
}

static void compare(const struct job *j, const float *c, const char *queries, const char *rows)
{
	size_t bytes = j->dim * npkv_dtype_bytes(j->t);

	for (size_t r = 0; r < j->tile->rows; r++) {
		for (size_t q = 0; q < j->tile->width; q++) {
			double want = 0, scale = 0, got = (double)c[r * j->tile->width + q];
			const char *a = queries + q * bytes, *b = rows + r * bytes;

			for (size_t k = 0; k < j->dim && j->m != NPKV_JACCARD; k++) {
				want += k_get(j->t, a, k) * k_get(j->t, b, k);
				scale += fabs(k_get(j->t, a, k) * k_get(j->t, b, k));
			}
			if (j->m == NPKV_JACCARD)
				want = and_count((const unsigned char *)a, (const unsigned char *)b, j->dim);
			if (!(fabs(got - want) <= scale * (j->t == NPKV_F32 ? (double)j->dim + 2 : 1) * 0x1p-24))
				k_fail("%s tile %ux%u type %d dim %zu row %zu query %zu: %.9g, want %.9g", j->l->name,
					j->tile->rows, j->tile->width, j->t, j->dim, r, q, got, want);
		}
	}
}

/* Rows as the tile wants them, ending at the guard. */
static char *form_of(const struct job *j, const struct npkv_plan *p, const char *rows)
{
	size_t bytes = p->row_bytes, width = p->nsteps * (p->kind == KIND_AND ? 8 : 4);
	char *form = k_guarded(1, width * j->tile->rows);

	for (size_t r = 0; r < j->tile->rows; r++) {
		if (p->kind == KIND_INT) {
			(j->t == NPKV_I8 ? j->l->ops.lift_i8 : j->l->ops.lift_u8)(
				rows + r * bytes, j->dim, form + r * width);
			continue;
		}
		memset(form + r * width, 0, width);
		memcpy(form + r * width, rows + r * bytes, bytes);
	}
	return form;
}

static void run(const struct job *j, uint64_t *rng)
{
	size_t bytes = j->dim * npkv_dtype_bytes(j->t), width = j->tile->width;
	char *queries = malloc(width * bytes + 1), *rows = malloc(j->tile->rows * bytes + 1), *pack;
	float *c = malloc(j->tile->rows * width * sizeof(*c));
	struct npkv_pack_map map;
	struct npkv_plan p;

	k_fill(j->t, K_PLAIN, rng, width * j->dim, queries);
	k_fill(j->t, K_PLAIN, rng, j->tile->rows * j->dim, rows);
	if (npkv_plan_init(&p, &j->l->ops, j->m, j->t, j->dim, width) != 0 || p.nwide + p.nnarrow != 1)
		k_fail("%s: %zu queries are no tile", j->l->name, width);
	pack = aligned_alloc(64, p.pack_bytes);
	npkv_pack(&p, queries, bytes, pack);
	npkv_map_pack(&p, &map);
	j->tile->run(pack + (p.nnarrow ? map.narrow : map.wide), form_of(j, &p, rows),
		p.nsteps * (p.kind == KIND_AND ? 8 : 4), p.nsteps, c, queries, 0);
	compare(j, c, queries, rows);
	free(pack);
	free(c);
	free(rows);
	free(queries);
}

static void run_tiles(struct job *j, const struct npkv_tile *tiles, size_t n, uint64_t *rng)
{
	for (size_t i = 0; i < n; i++) {
		j->tile = &tiles[i];
		if (tiles[i].run && tiles[i].width > 4 && k_take()) /* fewer queries are taken one by one */
			run(j, rng);
	}
}

void check_tiles(const struct k_level *l)
{
	static const size_t large[] = {512, 768, 1000, 1025, 4099};
	struct job j = {.l = l};
	uint64_t rng = 2;

	for (size_t d = 1; d < 261 + 5; d++) {
		j.dim = d < 261 ? d : large[d - 261];
		j.m = NPKV_DOT;
		j.t = NPKV_F32;
		run_tiles(&j, l->ops.tile_f32, 2, &rng);
		j.t = NPKV_I8;
		run_tiles(&j, l->ops.tile_i8, 2, &rng);
		j.t = NPKV_U8;
		run_tiles(&j, l->ops.tile_u8, 2, &rng);
		j.m = NPKV_JACCARD;
		run_tiles(&j, l->ops.tile_bits, 1, &rng);
	}
}
