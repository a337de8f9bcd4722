/* mkstore.h - stores for tests, written from the description of the format alone: nothing is shared with the engine.
 * Every file is written whole and renamed into place, as a careful foreign process does; a failure ends the program. */
#ifndef MKSTORE_H
#define MKSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MK_ROWS_MAX 100000

struct mk_array {
	const char *name;
	const char *file; /* NULL: data_<name>.npkd or .npkseg */
	unsigned dtype, ndim;
	uint64_t dim[32];
	const void *data;       /* dim[0] * row bytes, C order */
	const uint8_t *deleted; /* one byte a row, 1 = deleted; NULL: no bitmap */
	bool headerless;        /* the old form of the bitmap */
	uint64_t segment_rows;  /* 0: one data file */
	uint64_t mtime_us;
};

/* A growing buffer of bytes. */
struct mk_bytes {
	uint8_t *p;
	size_t len, cap;
};

void mk_put(struct mk_bytes *b, const void *bytes, size_t len);
void mk_le(struct mk_bytes *b, uint64_t value, unsigned bytes);
void mk_text(struct mk_bytes *b, const char *text);
void mk_free(struct mk_bytes *b);

uint64_t mk_row_bytes(const struct mk_array *a);
uint64_t mk_rows(const struct mk_array *a); /* the first dimension; 1 for none */

/* One entry of the metadata as bytes, and the header before `n` of them. */
void mk_entry(struct mk_bytes *b, const struct mk_array *a);
void mk_header(struct mk_bytes *b, uint64_t total_bytes, uint32_t n);

void mk_data(const char *dir, const struct mk_array *a);   /* data file, or manifest and segments */
void mk_bitmap(const char *dir, const struct mk_array *a); /* without a->deleted: removes the file */
void mk_metadata(const char *dir, const struct mk_array *a, size_t n);
void mk_store(const char *dir, const struct mk_array *a, size_t n); /* all of that; makes the directory */

void mk_file(const char *dir, const char *file, const void *bytes, size_t len);
bool mk_exists(const char *dir, const char *file);
void mk_remove(const char *dir, const char *file);
struct mk_bytes mk_read(const char *dir, const char *file); /* a NUL follows the bytes */

/* A new directory, removed with all in it when the program ends. */
const char *mk_dir(void);
/* A number that changes when any name, content, mode or modification time below `dir` does. */
uint64_t mk_tree_sum(const char *dir);

#endif
