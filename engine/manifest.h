/* manifest.h - data_<name>.npkseg: the list of a segmented array's files (FORMAT.md, "segments"). */
#ifndef NPKI_MANIFEST_H
#define NPKI_MANIFEST_H

#include "notes.h"

struct npki_mseg {
	char *file; /* NUL-terminated, a plain path */
	uint64_t rows, bytes;
};

struct npki_manifest {
	struct npki_mseg *seg;
	size_t nsegs;
};

/* Any JSON with the keys version (1) and segments (file, rows, bytes), unknown keys are passed over. -EUCLEAN: it is
 * something else; the message names `path` and the byte. The caller ends *out with npki_manifest_fini(). */
int npki_manifest_parse(const void *buf, size_t len, const char *path, struct npki_manifest *out, struct npk_err *err);
/* The segments against the array: bytes = rows * row_bytes, together at least nslots rows. */
int npki_manifest_check(const struct npki_manifest *m, const char *path, uint64_t nslots, uint64_t row_bytes,
	uint64_t *rows_held, struct npk_err *err);
/* As NumPack writes it. */
void npki_manifest_text(struct npk_text *t, const struct npki_manifest *m);
void npki_manifest_fini(struct npki_manifest *m);

#endif
