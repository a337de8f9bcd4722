/* change.h - changes of rows: what is checked and found out first, then written, then told to the journal as one. */
#ifndef NPKI_CHANGE_H
#define NPKI_CHANGE_H

#include "txn.h"

struct npki_runs { /* of slots */
	struct npki_run *run;
	size_t n;
};

/* Places in one file, and their new bytes, one after another. */
struct npki_piece {
	size_t seg, first, n; /* of the places */
	const uint8_t *bytes; /* borrowed */
};

struct npki_pieces {
	struct npki_piece *p;
	size_t n;
	struct npki_span *at;
	size_t nat, room;
};

/* One step of a change, ready to be written. */
struct npki_ready {
	struct npk_gen *g; /* counted; what it builds on */
	struct npki_runs runs;
	struct npki_pieces pieces;
};

/* Under the writer's lock: opens a change of one array. A scalar has no rows. */
int npki_begin(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, struct npk_err *err);
int npki_rows_of(struct npk_array *a, struct npk_gen **g, struct npk_err *err);
/* Row `row`, negative from the end. */
int npki_resolve(const struct npk_gen *g, int64_t row, uint64_t *out, struct npk_err *err);

/* append.c. Whether `nrows` more rows can be; *bytes: of all rows then. */
int npki_check_growth(
	const struct npk_array *a, const struct npk_gen *g, uint64_t nrows, uint64_t *bytes, struct npk_err *err);

/* drop.c: what a selection, or a list, names; ascending, disjoint. *total: how many slots. */
int npki_runs_of_sel(struct npki_runs *r, struct npk_gen *g, const char *sel, uint64_t *total, struct npk_err *err);
int npki_runs_of_rows(struct npki_runs *r, const struct npk_gen *g, const int64_t *rows, size_t n, uint64_t *total,
	struct npk_err *err);

/* replace.c: `rows` NULL: rows first, first + 1, ... */
int npki_pieces_of(struct npki_pieces *l, const struct npk_gen *g, const int64_t *rows, uint64_t first, uint64_t n,
	const void *data, struct npk_err *err);
/* Whether a checksum that recovery needs covers bytes that will be written. */
bool npki_any_unsealed(const struct npki_writer *w, const struct npk_gen *g, const struct npki_pieces *l);
int npki_log_pieces(struct npki_tx *tx, const struct npk_gen *g, const struct npki_pieces *l, struct npk_err *err);
int npki_write_pieces(struct npki_tx *tx, struct npk_gen *g, const struct npki_pieces *l, struct npk_err *err);

/* save.c: the file of a save in pieces and its checksum; and that the file is the store's from now on. */
struct npki_source_file {
	struct npk_store *store;
	const char *path; /* borrowed */
	int fd;
	uint64_t len;
	uint32_t crc;
};
int npki_save_source(struct npk_save *w, struct npki_source_file *out, struct npk_err *err);
void npki_save_give(struct npk_save *w);

/* owner.c: the files that `tx` made after the first `from`, or one, get the mode, and as far as we may the owner, that an array had. */
int npki_same_owner(struct npki_tx *tx, size_t from, const struct npk_gen_info *as, struct npk_err *err);
int npki_same_owner_fd(int fd, const char *path, const struct npk_gen_info *as, struct npk_err *err);

#endif
