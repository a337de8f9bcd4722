/* meta.h - metadata.npkm: the list of arrays (FORMAT.md, "metadata"). */
#ifndef NPKI_META_H
#define NPKI_META_H

#include "numpack.h"
#include "notes.h"

#define NPKI_META_FILE "metadata.npkm"

/* One entry. Name, file and dims point into the buffer that was parsed. */
struct npki_ameta {
	const char *name, *file; /* not NUL-terminated, UTF-8 */
	uint32_t name_len, file_len;
	const uint8_t *dims; /* ndim little-endian 64-bit numbers */
	uint32_t ndim;
	uint64_t mtime_us;
	uint64_t size_bytes; /* as the entry claims; the shape decides */
	uint8_t dtype;
	uint64_t at, len;   /* where the entry lies in the file */
	const uint8_t *raw; /* its bytes */
	int damage;         /* 0, EUCLEAN or ENOTSUP: this array alone is unusable, and: */
	char why[NPK_ERR_MAX];
};

/* What the header says, and how the list ended. */
struct npki_meta {
	uint32_t count;       /* as the header says; never used as a size */
	uint64_t total_bytes; /* likewise */
	uint64_t narrays;     /* entries that `fn` saw */
	bool cut;             /* the list broke off: the store is read-only, and: */
	char why[NPK_ERR_MAX];
};

/* Calls `fn` for each entry in the file's order; a negative return ends the parse with that code. -EUCLEAN when the
 * header is no header. Oddities that do no harm go to `notes` (may be NULL). */
typedef int npki_meta_fn(void *ctx, const struct npki_ameta *m, struct npk_err *err);
int npki_meta_parse(const void *buf, size_t len, struct npki_meta *out, npki_meta_fn *fn, void *ctx,
	struct npki_notes *notes, struct npk_err *err);

/* The other way round: the header, then one entry after the other. */
void npki_meta_write_head(struct npk_text *out, uint64_t total_bytes, uint32_t count);
void npki_meta_write_entry(struct npk_text *out, const void *name, size_t name_len, unsigned dtype,
	const struct npk_shape *shape, const char *file, uint64_t mtime_us, uint64_t size_bytes);

/* Whether a path from disk stays below the store: relative, no NUL, no component that is empty, "." or "..". */
bool npki_is_plain_path(const char *path, size_t len);
/* Whether data_<name>.npkd would: a name without '/' may be anything but contain a NUL. */
bool npki_is_legal_name(const char *name, size_t len);

/* The bytes of one row (all dimensions but the first) and of all; -1 when they reach 2^63. */
int npki_shape_bytes(const struct npk_shape *shape, size_t item, uint64_t *row_bytes, uint64_t *bytes);

#endif
