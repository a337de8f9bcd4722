/* import.h - what the readers of foreign formats share: buffered input, and arrays that may come byte-swapped or in
 * Fortran order. */
#ifndef NPKI_IMPORT_H
#define NPKI_IMPORT_H

#include "numpack.h"

#define NPKI_IMPORT_BLOCK ((size_t)1 << 20)

/* A file that is read front to back. */
struct npki_in {
	int fd;
	const char *file; /* for messages */
	uint64_t at;      /* the byte of the file that buf[pos] is */
	size_t pos, have;
	bool ended;
	uint8_t *buf; /* NPKI_IMPORT_BLOCK bytes */
};

/* Makes `want` bytes (at most NPKI_IMPORT_BLOCK) stand at buf + pos, or as many as there are: in->have - in->pos. */
int npki_in_fill(struct npki_in *in, size_t want, struct npk_err *err);
/* Exactly len bytes; -EINVAL when the file ends before. */
int npki_in_read(struct npki_in *in, void *out, size_t len, struct npk_err *err);
/* All that is left, to an unnamed temporary file. */
int npki_in_spool(struct npki_in *in, int *fd, struct npk_err *err);

struct npki_format {
	/* 1: src->now and src->left describe the next array; 0: the end. */
	int (*next)(struct npk_source *src, struct npk_err *err);
	/* Exactly len bytes (at most src->left) of it, as the file has them. */
	int (*pull)(struct npk_source *src, void *out, size_t len, struct npk_err *err);
	/* After the last byte; may be NULL. */
	int (*check)(struct npk_source *src, struct npk_err *err);
	/* Instead of pull, when the number of rows is not known: whole elements to src->block, src->filled of them. */
	int (*more)(struct npk_source *src, struct npk_err *err);
	void (*close)(struct npk_source *src);
};

struct npk_source {
	struct npk_source_how how;
	const struct npki_format *format;
	struct npki_in in;
	struct npk_source_array now;
	uint64_t left;  /* bytes of the array that pull() has */
	bool checked;   /* check() was called */
	unsigned swap;  /* big-endian numbers of so many bytes; 0: they are little-endian */
	bool fortran;   /* the file has columns one behind the other */
	uint8_t *block; /* NPKI_IMPORT_BLOCK bytes */
	size_t filled;
	void *state; /* the format's own */
	struct {     /* a Fortran-order array: where its elements are mapped, and how far it was handed out */
		uint8_t *map;
		size_t map_len;
		const uint8_t *data;
		uint64_t element, elements, columns;
	} f;
};

extern const struct npki_format npki_import_npy, npki_import_npz, npki_import_csv, npki_import_tensors, npki_import_raw;

/* Takes over what a .npy header says. */
void npki_source_npy(struct npk_source *src, const struct npk_npy *npy);
/* "file: " before the message of a failed step. */
int npki_source_context(const struct npk_source *src, int rc, struct npk_err *err);

#endif
