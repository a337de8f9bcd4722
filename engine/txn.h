/* txn.h - transactions: a second table of arrays over the same directory, and the items of the one record to come.
 *
 * What is done inside goes the same way as any change, but for its end: npki_tx_log() keeps the record's items and applies
 * them to the transaction's own table. New files are the transaction's alone. Appended rows wait in a file of their own (a
 * *tail*) until the commit puts them behind the array's last row; an array that is written in place is copied first. All
 * of it is guarded by writer->lock. */
#ifndef NPKI_TXN_H
#define NPKI_TXN_H

#include "writer.h"

/* What became inside of the files of an array that is the store's: either rows wait in a tail, or there is a copy. */
struct npki_pending {
	struct npk_array *origin; /* counted */
	uint64_t slots;           /* now */
	uint64_t from;            /* the store's slots, where the tail begins */
	uint64_t mtime_us;
	struct npki_file *tail; /* counted; NULL: there is a copy */
	char *copy;             /* its entry's data file; NULL: there is a tail */
	struct npki_pending *next;
};

/* -ESTALE: it has ended; -EBUSY: it is being committed; -EIO: it is half changed. */
int npki_txn_may_change(const struct npk_txn *t, struct npk_err *err);
int npki_txn_log(struct npki_tx *tx, struct npk_err *err);
/* All of the store's, at its end. Takes writer->lock. */
void npki_txn_end_all(struct npk_store *s);

/* Called while items are applied, inside: an array is about to change (`a` NULL: to appear), its rows are replaced as a
 * whole, `from` has become `to`. */
int npki_txn_touch(struct npk_txn *t, const void *name, size_t len, struct npk_array *a);
void npki_txn_detach(struct npk_array *a);
int npki_txn_move(struct npk_store *s, struct npk_array *from, const void *to, size_t len);
/* And outside: `a` is about to change for the first time since its bitmap, which says `live`, was read. Transactions that
 * have not looked yet will not find it any more. */
void npki_txn_keep(struct npki_writer *w, struct npk_array *a, struct npki_rowmap *live);

/* Whether appended rows must wait in a tail. */
bool npki_txn_has_tail(const struct npk_array *a);
/* The append of such rows; `rows` NULL: zeros. Logs nothing: the tx is left to npki_tx_abort(). */
int npki_txn_append(struct npki_tx *tx, struct npk_array *a, struct npk_gen *g, const void *rows, uint64_t nrows,
	struct npk_err *err);
/* Before bytes are written in place: the array's files become the transaction's own, and *g the generation that shows
 * them. Does nothing for an array of the store itself, but counts the change. */
int npki_own_files(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, struct npk_err *err);
/* Bytes of that file were written, or are about to be. */
int npki_wrote_in_place(struct npki_tx *tx, const char *path, struct npk_err *err);

#endif
