/* store.h - what the engine's files share of a store, its arrays and their generations.
 *
 * Locks, outermost first. Never take a lower number while you hold a higher one.
 *   1  the mount's table of nodes: no engine call is made under it
 *   2  writer->name_lock   one sync at a time gives names back
 *   3  writer->sync_lock   one seal or checkpoint at a time; held across its fsyncs
 *   4  writer->lock        one change at a time; held across its writes, never across an fsync, but for the first change and
 *                          when what another program did to the metadata is undone
 *   5  store->refresh_lock one refresh at a time; held across its stats and reads, never while calling back
 *   6  store->table_lock   which arrays exist (rwlock)
 *   7  array->lock         the entry and the current generation; held across the load of a layout
 *   8  gen->map_lock, file->lock   one thread maps the data files */
#ifndef NPKI_STORE_H
#define NPKI_STORE_H

#include "file.h"
#include "journal.h"
#include "meta.h"
#include "notes.h"
#include "numpack.h"
#include "rowmap.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the metadata says of an array; never written after it was made. */
struct npki_entry {
	_Atomic uint32_t refs;
	uint8_t dtype;
	uint64_t mtime_us;
	int damage; /* 0, EUCLEAN or ENOTSUP, then `why` */
	const char *file, *why;
	const uint8_t *raw; /* the bytes on disk, kept for an entry that we do not understand; else NULL */
	size_t raw_len;
	struct npk_shape shape; /* physical; ndim 0 when damaged beyond use */
};

struct npk_array {
	_Atomic uint32_t refs;
	struct npk_store *store; /* counted */
	pthread_mutex_t lock;
	struct npki_entry *entry;  /* lock; counted */
	struct npki_rowmap *live;  /* lock; counted; which slots are live, when `known`: changes are not on disk yet */
	bool known;                /* lock */
	struct npk_gen *cur;       /* lock; NULL until somebody needs it, and after a change */
	bool stale;                /* lock: cur is of an entry before; it stays while the new state cannot be loaded */
	bool gone;                 /* lock */
	char warning[NPK_ERR_MAX]; /* lock; of the last load */

	uint64_t touched_round; /* writer->lock: the checkpoint round in which touched_at holds */
	uint64_t intent_round;  /* writer->lock: likewise, an intent to append is in the journal */
	size_t touched_at;      /* writer->lock: its place in writer->touched */
	uint64_t version;       /* writer->lock: counts changes, rows written in place included */
	bool bitmap_noted;      /* writer->lock: the bitmap on disk is the one noted here, as we read or wrote it */
	struct npki_file_id bitmap;
	/* Of a transaction's array, under writer->lock: the store's array whose rows it shows (counted; NULL: its rows were
	 * made inside), that one's version at the begin, and what became of its files (the transaction's, NULL: nothing). */
	struct npk_array *origin;
	uint64_t origin_version;
	struct npki_pending *pending;
	struct npk_array *next; /* table_lock: the chain of its hash bucket */
	uint32_t hash;
	uint32_t seen; /* refresh_lock: the round that last found it */
	uint32_t told; /* refresh_lock: the refresh that last told of it, counted from 1 */
	size_t name_len;
	char name[];
};

/* Changes that a refresh found, told to the caller when no lock is held any more. */
struct npki_changes {
	struct npki_change {
		struct npk_array *a; /* counted */
		enum npk_change what;
	} * list;
	size_t n;
};

/* What shows that somebody changes a store. */
struct npki_marks {
	struct npki_file_id dir, meta, journal, next;
};

struct npk_store {
	_Atomic uint32_t refs;
	char *path;
	int dirfd;
	unsigned flags;
	struct npki_packed *packed; /* a package; NULL: a directory. dirfd is then a descriptor of the file */
	struct npki_writer *writer; /* NULL in a store that was opened to read; that of `base` in a transaction's */
	struct npk_store *base;     /* counted: this is the inside of a transaction on it; else NULL */
	struct npk_txn *txn;        /* then that; its users hold it */
	_Atomic uint64_t next_gen;
	pthread_mutex_t refresh_lock;
	uint32_t round;               /* refresh_lock */
	struct npki_changes missed;   /* refresh_lock: found while nobody could be told; the next refresh does */
	uint32_t refreshes;           /* refresh_lock: how many there were */
	struct npki_changes *telling; /* refresh_lock: of the refresh that runs; NULL: none does */
	struct npki_jplace followed;  /* refresh_lock: how far the journal of the writer is in the table */

	pthread_rwlock_t table_lock;
	struct npk_array **bucket; /* table_lock, as all below */
	size_t nbuckets, narrays;
	struct npki_file_id meta_id, journal_id;
	bool half;                  /* refreshing broke off between the two: the table is neither */
	struct npki_marks believed; /* as it was when a look at damage was the last one */
	bool read_only;
	char why[NPK_ERR_MAX], warning[NPK_ERR_MAX];
};

/* A data file of a generation. A generation of one file has one segment. */
struct npki_seg {
	uint64_t first, nslots; /* slots it holds */
	const uint8_t *base;    /* the mapping; set once, before gen->mapped */
	struct npki_file *file; /* counted */
};

/* A file beside the data that a generation was loaded from, and how it looked then. */
struct npki_source {
	char *path;
	struct npki_file_id id;
};

struct npk_gen {
	_Atomic uint32_t refs;
	struct npk_store *store; /* counted */
	struct npk_gen_info info;
	struct npki_rowmap *live; /* counted; NULL: every slot is live */
	size_t nsegs;
	struct npki_seg *seg;
	struct npki_source source[2]; /* bitmap and manifest, as far as they were read */
	size_t nsources;
	bool segmented;
	uint64_t rows_id; /* the number of the first generation that had these slots; stays while no row moves */
	pthread_mutex_t map_lock;
	_Atomic bool mapped;
	char name[]; /* for messages */
};

struct npki_entry *npki_entry_new(const struct npki_ameta *m);
/* A changed copy: `shape`, `file` may be NULL for those of `e`. */
struct npki_entry *npki_entry_with(
	const struct npki_entry *e, const struct npk_shape *shape, const char *file, uint64_t mtime_us);
struct npki_entry *npki_entry_make(
	unsigned dtype, const struct npk_shape *shape, const char *file, size_t file_len, uint64_t mtime_us);
struct npki_entry *npki_entry_ref(struct npki_entry *e); /* may be NULL */
void npki_entry_put(struct npki_entry *e);
bool npki_entry_same(const struct npki_entry *a, const struct npki_entry *b);

/* Loads the layout that `e` and the files beside it describe. Called under the array's lock; `notes` may be NULL. */
struct npki_layout {
	const struct npki_entry *entry;
	struct npki_rowmap *live; /* when `known`, instead of the bitmap file */
	bool known;
};
int npki_gen_load(struct npk_gen **out, struct npk_store *s, const char *name, size_t name_len,
	const struct npki_layout *from, struct npki_notes *notes, struct npk_err *err);
/* The generation that `old` becomes by a change that moves no row: rows deleted, or (in one data file) appended, when the
 * number stays. NULL when memory is short or the files differ: then it is loaded anew. */
struct npk_gen *npki_gen_derive(struct npk_gen *old, const struct npki_layout *to, bool same_number);
/* The same rows in a file that has got another name; NULL as above, or when it is another file. */
struct npk_gen *npki_gen_refile(struct npk_gen *old, const struct npki_layout *to);
/* The rows of `old` and more, which lie in a file of their own: it holds the slots from `first` on. -ENOMEM gives NULL. */
struct npk_gen *npki_gen_with_tail(
	struct npk_gen *old, const struct npki_layout *to, struct npki_file *tail, uint64_t first);
bool npki_is_manifest(const char *file);
/* Whether the files of a generation are still those it was loaded from. */
bool npki_gen_is_current(struct npk_gen *g);
/* The bitmap that it was loaded with, which may not exist; NULL: it was not read from a file. */
const struct npki_file_id *npki_gen_bitmap_id(const struct npk_gen *g);

/* --- looking at what another process may be changing (refresh.c) -------------------------------------------------------- */

/* Opening: the metadata, and what a writer that is alive, or died, has changed since it was written. */
#define NPKI_LOOK_METADATA 1u
#define NPKI_LOOK_JOURNAL 2u
int npki_first_look(struct npk_store *s, unsigned at, struct npk_err *err);
/* How often a reader has looked at what seems to be damaged. Zeroed: once. */
struct npki_looks {
	unsigned n;
	int64_t since_ms;
	bool cached;
	struct npki_marks marks; /* of the last time */
};
/* After a look that gave `rc`. True: it may have met a moment between two steps of another process (or two moments at once, where
 * names and sizes are cached); a pause is over, and the caller looks again. A store that nobody changes is told damaged
 * after a millisecond, one that somebody writes after 50, one on a network filesystem after three seconds; and at once as
 * long as it stays as it was then. With no lock held but refresh_lock. */
bool npki_may_pass(struct npk_store *s, int rc, struct npki_looks *l);
bool npki_look_again(struct npk_store *s);
bool npki_is_refreshing(const struct npk_store *s); /* by this thread */
void npki_store_ref(struct npk_store *s);
void npki_store_put(struct npk_store *s);

/* The parts of opening that npk_verify() and npk_repair() also need. bare(): the directory alone, nothing of it is read. */
int npki_store_bare(struct npk_store **out, const char *path, struct npk_err *err);
int npki_read_metadata(int dirfd, uint8_t **buf, size_t *len, struct npki_file_id *id, struct npk_err *err);
/* Changes of the table, by changes of our own. put() takes over the references; `cur` may be NULL. */
struct npk_array *npki_table_find(struct npk_store *s, const void *name, size_t len); /* counted, or NULL */
int npki_table_put(struct npk_store *s, const void *name, size_t len, struct npki_entry *e, struct npki_rowmap *live,
	struct npk_gen *cur);
/* Likewise what another program made of an array: its files are read when somebody asks. */
int npki_table_take(struct npk_store *s, const void *name, size_t len, struct npki_entry *e);
int npki_table_del(struct npk_store *s, const void *name, size_t len);
/* Makes the table what `buf` says (NULL: a new store). A header that is no header leaves the table as it was; so does,
 * once the store is open, a list that breaks off: what it lacks may be on its way to the disk. `c` is NULL the first time. */
int npki_take_metadata(struct npk_store *s, const uint8_t *buf, size_t len, const struct npki_file_id *id,
	struct npki_changes *c, struct npk_err *err);
/* Notes a change in `c` (may be NULL), once per array and refresh. -ENOMEM has no message. */
int npki_add_change(struct npki_changes *c, struct npk_array *a, enum npk_change what);
/* Tells them to `fn` (may be NULL), and frees the list. With no lock held. */
void npki_tell_changes(struct npki_changes *c, npk_change_fn *fn, void *ctx);
/* The arrays of `from` as they are now, in the empty table of `to`, which is a transaction on it. Under writer->lock. */
int npki_table_copy(struct npk_store *to, struct npk_store *from, struct npk_err *err);
/* An empty store for a transaction on `s`, and its end. */
struct npk_store *npki_store_inside(struct npk_store *s);
void npki_store_empty(struct npk_store *s);

/* Whether a file name is one that NumPack gives to data, bitmaps or manifests. */
bool npki_is_store_file(const char *file);
/* Whether it is one that interrupted work of NumPack leaves behind, and readers ignore. */
bool npki_is_leftover(const char *file);
#define NPKI_REPAIRED                                                                                                  \
	".numpackfs.repair-" /* begins the names of the directories where npk_repair() keeps what it replaces */

#endif
