/* pkg_moment.h - a store at one moment, as the files that a package of it has. */
#ifndef NPKI_PKG_MOMENT_H
#define NPKI_PKG_MOMENT_H

#include "numpack.h"

/* One file of the package to be. */
struct npki_part {
	char *name;
	uint64_t len;
	struct npk_gen *g; /* counted; NULL: the metadata */
	bool bitmap;
};

struct npki_moment {
	struct npki_part *part; /* sorted by name */
	size_t n;
	struct npk_text meta;
	uint64_t bytes;
};

/* Zeroed storage is empty, and so is what fails. -EBUSY: the store changes too fast; -EINVAL: a name that no package can hold;
 * -EUCLEAN: what is in a damaged list of arrays would be lost. */
int npki_moment_take(struct npk_store *s, struct npki_moment *m, struct npk_err *err);
void npki_moment_fini(struct npki_moment *m);

/* `len` bytes of the part from `off` on, all within it. Any thread. */
int npki_part_read(const struct npki_moment *m, const struct npki_part *p, uint64_t off, uint8_t *out, size_t len,
	struct npk_err *err);

#endif
