/* store.h - what the engine's files share of a store, its arrays and their generations.
 *
 * Locks, outermost first. Never take a lower number while you hold a higher one.
 *   2  store->table_lock   which arrays exist (rwlock)
 *   3  store->refresh_lock one refresh at a time; held across its stats and reads, never while calling back
 *   4  array->lock         the entry and the current generation; held across the load of a layout
 *   5  gen->map_lock       one thread maps the data files
 * (1 is the mount's table of nodes: no engine call is made under it.) refresh_lock is taken before table_lock only by
 * npk_store_refresh(), which holds no other then. */
#ifndef NPKI_STORE_H
#define NPKI_STORE_H

#include "io.h"
#include "meta.h"
#include "notes.h"
#include "numpack.h"
#include "rowmap.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the metadata says of an array; never written after it was made. */
struct npki_entry {
	uint8_t dtype;
	uint64_t mtime_us;
	int damage; /* 0, EUCLEAN or ENOTSUP, then `why` */
	const char *file, *why;
	struct npk_shape shape; /* physical; ndim 0 when damaged beyond use */
};

struct npk_array {
	_Atomic uint32_t refs;
	struct npk_store *store; /* counted */
	pthread_mutex_t lock;
	struct npki_entry *entry;  /* lock */
	struct npk_gen *cur;       /* lock; NULL until somebody needs it */
	bool stale;                /* lock: cur is of an entry before; it stays while the new state cannot be loaded */
	bool gone;                 /* lock */
	char warning[NPK_ERR_MAX]; /* lock; of the last load */

	struct npk_array *next; /* table_lock: the chain of its hash bucket */
	uint32_t hash;
	uint32_t seen; /* refresh_lock: the round that last found it */
	size_t name_len;
	char name[];
};

struct npk_store {
	_Atomic uint32_t refs;
	char *path;
	int dirfd;
	_Atomic uint64_t next_gen;
	pthread_mutex_t refresh_lock;
	uint32_t round; /* refresh_lock */

	pthread_rwlock_t table_lock;
	struct npk_array **bucket; /* table_lock, as all below */
	size_t nbuckets, narrays;
	struct npki_file_id meta_id;
	bool read_only;
	char why[NPK_ERR_MAX], warning[NPK_ERR_MAX];
};

/* A data file of a generation. A generation of one file has one segment. */
struct npki_seg {
	uint64_t first, nslots; /* slots it holds */
	const uint8_t *base;    /* the mapping; set once, before gen->mapped */
	size_t map_len;
};

/* A file a generation was loaded from, and how it looked then. */
struct npki_source {
	char *path;
	struct npki_file_id id;
};

struct npk_gen {
	_Atomic uint32_t refs;
	struct npk_store *store; /* counted */
	struct npk_gen_info info;
	struct npki_rowmap *live; /* NULL: every slot is live */
	size_t nsegs;
	struct npki_seg *seg;
	struct npki_source *source; /* nsegs data files, then bitmap, then manifest if there is one */
	size_t nsources;
	pthread_mutex_t map_lock;
	_Atomic bool mapped;
	char name[]; /* for messages */
};

struct npki_entry *npki_entry_new(const struct npki_ameta *m);
bool npki_entry_same(const struct npki_entry *a, const struct npki_entry *b);

/* Loads the layout that `e` and the files beside it describe. Called under the array's lock; `notes` may be NULL. */
int npki_gen_load(struct npk_gen **out, struct npk_store *s, const char *name, size_t name_len,
	const struct npki_entry *e, struct npki_notes *notes, struct npk_err *err);
/* Whether the files of a generation are still those it was loaded from. */
bool npki_gen_is_current(struct npk_gen *g);

void npki_store_ref(struct npk_store *s);
void npki_store_put(struct npk_store *s);

/* The parts of opening that npk_store_verify() also needs. */
int npki_read_metadata(int dirfd, uint8_t **buf, size_t *len, struct npki_file_id *id, struct npk_err *err);
/* Whether a file name is one that NumPack gives to data, bitmaps or manifests. */
bool npki_is_store_file(const char *file);

#endif
