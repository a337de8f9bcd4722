/* sel.h - the selection grammar: text -> one list of items per axis, and a list bound to an axis of a given length.
 *
 *     sel  = part { (";" | "@") part }       part = "all" | "mask=" name | item { ("," | "+" | blank) item }
 *     item = int | [int] ":" [int] [":" [int]]     name = bare | '"' { char | "\" char } '"'
 *
 * Python's rules hold: a slice is clipped, an integer is not; negative ones count from the end. */
#ifndef NPKI_SEL_H
#define NPKI_SEL_H

#include "numpack.h"
#include "rowmap.h"

struct npki_item {
	bool is_slice, has_start, has_stop;
	int64_t start, stop, step; /* an integer is `start` */
};

struct npki_part {
	bool all;
	char *mask; /* NULL: no mask */
	size_t mask_len;
	struct npki_item *item;
	size_t nitems;
};

struct npki_sel {
	unsigned nparts;
	struct npki_part part[NPK_MAX_NDIM];
};

/* -EINVAL names the byte and what stands there. The caller ends *out with npki_sel_fini(). */
int npki_sel_parse(const char *text, size_t len, struct npki_sel *out, struct npk_err *err);
void npki_sel_fini(struct npki_sel *s);

/* A part bound to an axis: selected position -> source position. */
struct npki_range {
	uint64_t first; /* source position of its first element */
	int64_t step;
	uint64_t before; /* selected positions before it */
	uint64_t count;
};

struct npki_axis {
	uint64_t len; /* selected positions */
	bool full;    /* everything, in order */
	struct npki_range *range;
	size_t nranges;
	struct npki_rowmap *mask; /* instead of ranges; owned */
};

/* `len` is the axis' length. A mask part needs a->mask set by the caller instead. -ERANGE: an integer out of range. */
int npki_axis_bind(struct npki_axis *a, const struct npki_part *p, unsigned axis, uint64_t len, struct npk_err *err);
void npki_axis_fini(struct npki_axis *a);

/* The mask that part `p` names, from the store of `g`: where that 1-d bool or integer array of `len` values is nonzero.
 * (In view.c: it reads an array.) */
int npki_load_mask(struct npk_gen *g, const struct npki_part *p, unsigned axis, uint64_t len, struct npki_rowmap **out,
	struct npk_err *err);

/* The source position of selected position `i`, and how many follow it with the same *step, itself included (1 is
 * always a right answer for that). */
uint64_t npki_axis_at(const struct npki_axis *a, uint64_t i, int64_t *step, uint64_t *run);

#endif
