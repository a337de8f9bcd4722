/* writer.h - what a store needs to be changed: the lock against other writers, the journal, and what is not durable yet.
 *
 * A change is one record in the journal. Its bytes go into the data files first, then the record with their checksums is
 * written in one write(2), then the record is applied to the table in memory - by the same code that recovery runs.
 * A *seal* makes everything before it durable; a *checkpoint* brings metadata and bitmaps up to date and starts a new
 * journal. The order of steps is that of the design's section "Atomicity, durability, recovery". */
#ifndef NPKI_WRITER_H
#define NPKI_WRITER_H

#include "dict.h"
#include "lock.h"
#include "names.h"
#include "store.h"

/* Bytes that a record relies on, and no seal has covered. */
struct npki_extent {
	char *path;
	uint64_t seq, off, len;
	uint32_t crc; /* in a transaction only */
	bool zero;    /* likewise: the file was grown to `len` */
};

/* Bytes that a record has and that are written in place behind it. Likewise. */
struct npki_redo {
	char *path;
	uint64_t seq;
	struct npki_span *at;
	size_t n;
	uint64_t from, to; /* all of `at` lies between */
};

/* How an array stands in the metadata and bitmap on disk, noted at its first change since. */
struct npki_touched {
	char *name;
	size_t name_len;
	struct npki_entry *entry; /* NULL: it is not there */
	struct npki_rowmap *live; /* NULL: no deleted rows, or not known */
	bool moved;               /* rows were replaced as a whole: not only deleted or appended */
};

struct npki_touched_list {
	struct npki_touched *t;
	size_t n;
	struct npki_dict place; /* of a name in `t`, until the list is sorted for a checkpoint */
};

struct npki_writer {
	pthread_mutex_t name_lock; /* 2 */
	pthread_mutex_t sync_lock; /* 3 */
	pthread_mutex_t lock;      /* 4; guards all that follows */
	int lock_fd;               /* -1: not the writer yet */
	int jfd;                   /* -1: no journal yet */
	int prev_fd;               /* the journal that a running checkpoint closes; -1: none */
	uint64_t jpos;
	uint64_t seq;
	uint32_t chain;
	uint64_t nonce;
	_Atomic uint32_t counter; /* of file names; 24 bits are used */
	uint64_t records;         /* in the journal */
	uint64_t clock_us;
	uint64_t hash, disk_hash; /* of the entries as they are, and as the metadata on disk has them */
	bool new_names;           /* names that no fsync of the directory has covered */
	bool closed;              /* the store was: what is left of it can be read */
	bool failed;              /* the outcome of a change is unknown: read-only from now on */
	bool foreign; /* another program changed the store: nothing is changed until its changes are taken over */
	bool rebased; /* they were, and the journal still names the metadata of before: a checkpoint is due */
	bool crowded; /* `retired` is more than the disk had room for: a checkpoint is due */
	bool undone;  /* the metadata was put right behind another program, and nobody was told yet */
	char why[NPK_ERR_MAX]; /* of `failed` or `foreign` */
	_Atomic bool writing;  /* the store is ours to write, and what is above is set; never reset */
	uint64_t *past;        /* sync_lock: a ring of hashes, of metadata and of entries that were on disk */
	uint64_t npast;        /* sync_lock: how many there ever were */
	uint64_t limit_bytes;  /* of the journal; a checkpoint follows the change that goes beyond it */
	unsigned limit_s;      /* likewise, of its first record's age; 0: none */
	uint64_t due_bytes;    /* limit_bytes, or more: a checkpoint did not work, or the metadata is big */
	int64_t begun_s;       /* when the journal got its first record */
	struct npki_extent *unsealed;
	size_t nunsealed;
	struct npki_redo *redo; /* they may be written over in turn: replay is in order */
	size_t nredo, redo_spans;
	struct npki_names dirty;   /* files with bytes that are not synced */
	size_t dirty_sorted;       /* how many there were when repeats were last dropped */
	struct npki_names retired; /* files that no array has any more; go at the next checkpoint */
	size_t weighed;            /* so many of them are in retired_bytes */
	uint64_t retired_bytes;
	struct npki_touched_list touched;
	uint64_t round; /* counts checkpoints from 1 */
#define NPKI_OPEN_FILES 64
	struct npki_file *open_file[NPKI_OPEN_FILES]; /* counted; those whose descriptor stays open */
	size_t open_next;
	int lock_timeout_ms;
	char *owner;          /* what the lock file says of us, beside the process */
	struct npk_txn *txns; /* those that are open */
	bool replay_anyway;   /* recovery takes the metadata for the journal's, whoever wrote it */
	bool cannot_share;    /* the filesystem has no copies that share blocks */
};

int npki_writer_new(struct npk_store *s, struct npk_err *err);
void npki_writer_free(struct npk_store *s);
void npki_release_lock(struct npki_writer *w); /* no matter who inherited its descriptor */

/* --- one change ------------------------------------------------------------------------------------------------------- */

struct npki_tx {
	struct npk_store *s;
	struct npk_text payload;
	struct npki_names created; /* files to remove if nothing comes of it */
	struct npki_extent *ext;
	size_t next;
	bool logged; /* a record was written */
	struct npki_redo *redo;
	size_t nredo;
	struct npk_array
		*grown; /* in a transaction: appended to its copy of a file, which its commit tells by itself */
};

/* Takes the writer's lock; the first change of a store also takes the lock file and makes the journal. -EBUSY: another
 * process writes; -EROFS: the store cannot be written. */
int npki_tx_begin(struct npki_tx *tx, struct npk_store *s, struct npk_err *err);
/* Writes the record and applies it. The lock is released either way. */
int npki_tx_commit(struct npki_tx *tx, struct npk_err *err);
/* The two halves of it: log() keeps the lock, so that bytes can be written in place behind the record. */
int npki_tx_log(struct npki_tx *tx, struct npk_err *err);
void npki_extents_fini(struct npki_extent *ext, size_t n);
void npki_redo_fini(struct npki_redo *redo, size_t n);
int npki_tx_sync(struct npki_tx *tx, struct npk_err *err); /* between them: the record becomes durable */
void npki_tx_end(struct npki_tx *tx);
/* A descriptor of a data file, one of a bounded number that stay open. */
int npki_use_fd(struct npki_writer *w, struct npki_file *f, int *fd, struct npk_err *err);
/* Undoes what was made; nothing has changed. NULL-safe after a failed begin. */
void npki_tx_abort(struct npki_tx *tx);

int64_t npki_now_s(void);                  /* by a clock that nobody sets */
uint64_t npki_tick(struct npki_writer *w); /* a last-modified time above all before */
/* A new data file of ours: its name in path[64], created and open in *fd. */
int npki_tx_create(struct npki_tx *tx, const char *suffix, char path[64], int *fd, struct npk_err *err);
int npki_tx_set(struct npki_tx *tx, const void *name, size_t len, unsigned dtype, const struct npk_shape *shape,
	const char *file, uint64_t mtime_us);
void npki_tx_del(struct npki_tx *tx, const void *name, size_t len);
void npki_tx_move(struct npki_tx *tx, const void *from, size_t from_len, const void *to, size_t to_len);
void npki_tx_clear(
	struct npki_tx *tx, const void *name, size_t len, const struct npki_run *run, size_t nruns, uint64_t mtime_us);
void npki_tx_grow(
	struct npki_tx *tx, const void *name, size_t len, uint64_t nslots, uint64_t mtime_us, const char *file);
void npki_tx_file(struct npki_tx *tx, const void *name, size_t len, const char *file);
void npki_tx_time(struct npki_tx *tx, const void *name, size_t len, uint64_t mtime_us);
int npki_tx_extent(struct npki_tx *tx, const char *file, uint64_t off, uint64_t len, uint32_t crc, struct npk_err *err);
int npki_tx_zero(struct npki_tx *tx, const char *file, uint64_t len, struct npk_err *err);
/* `bytes` lie one after another and go to these places, behind the record. */
int npki_tx_redo(struct npki_tx *tx, const char *file, const struct npki_span *at, size_t n, const void *bytes,
	struct npk_err *err);
/* `len` bytes of `source` from `from` on go to `file`, behind the record. */
int npki_tx_copy(struct npki_tx *tx, const char *file, uint64_t off, uint64_t len, const char *source, uint64_t from,
	struct npk_err *err);
/* A record that says bytes will be written behind the array's last row; once per array and journal. */
int npki_tx_intent(struct npki_tx *tx, const void *name, size_t len, struct npk_err *err);
/* Appends `nrows` > 0 rows to the array's files and says so in the record. (In append.c.) */
int npki_append_rows(struct npki_tx *tx, struct npk_array *a, struct npk_gen *g, const void *rows, uint64_t nrows,
	uint64_t mtime_us, struct npk_err *err);
int npki_mark_dirty(struct npki_writer *w, const char *path);
/* Names that stay ours although a checkpoint has forgotten their records. Under w->lock. */
int npki_own_retired(struct npk_store *s, struct npk_err *err);

/* Whether [off, off + len) of a file lies in an unsealed extent, or in an unsealed redo: the replay of the latter would undo a
 * write that has no record. One that has a record is replayed behind it. Under w->lock. */
bool npki_is_unsealed(const struct npki_writer *w, const char *path, uint64_t off, uint64_t len);
bool npki_is_redone(const struct npki_writer *w, const char *path, uint64_t off, uint64_t len);

/* --- applying --------------------------------------------------------------------------------------------------------- */

/* Changes the table by the payload of one record. `w` of the store may be NULL (reading a live store): nothing is noted
 * for a checkpoint then. An error leaves the table half changed: the caller gives the store up. */
int npki_apply(struct npk_store *s, const void *payload, size_t len, struct npk_err *err);
uint64_t npki_entry_hash(const void *name, size_t len, const struct npki_entry *e);
void npki_touched_fini(struct npki_touched_list *l);

/* --- durability ------------------------------------------------------------------------------------------------------- */

int npki_seal(struct npk_store *s, struct npk_err *err);
int npki_checkpoint(struct npk_store *s, struct npk_err *err);
/* What closing has to do, if this process is the writer, once; lets the lock file go, whatever comes of it. */
int npki_finish(struct npk_store *s, struct npk_err *err);
/* Parts of both. drop_sealed() and take_dirty() under w->lock: what is dirty is taken out of the writer, and all up to
 * *upto relies on it. */
void npki_drop_sealed(struct npki_writer *w, uint64_t upto);
void npki_take_dirty(struct npki_writer *w, struct npki_names *dirty, bool *new_names, uint64_t *upto);
int npki_sync_dirty(struct npk_store *s, struct npki_names *dirty, bool new_names, struct npk_err *err);
/* The hash of the entries that the metadata on disk has. */
int npki_disk_hash(struct npk_store *s, uint64_t *hash, struct npk_err *err);
/* If the journal has grown long or old; not while a seal or checkpoint runs. With no lock held. What keeps it from being
 * done is told by the next change, or is tried again later. */
void npki_checkpoint_if_due(struct npk_store *s);
bool npki_is_due(struct npk_store *s); /* under w->lock */

/* --- a disk that gets full (room.c) ----------------------------------------------------------------------------------- */

/* The retired files have more bytes than the disk has room for. Under w->lock, as the next two. */
bool npki_is_crowded(struct npk_store *s);
void npki_crowded_no_more(
	struct npki_writer *w); /* they are gone, or are to be looked at again only when there are more */
/* -ENOSPC: a checkpoint might fail half-way. */
int npki_checkpoint_has_room(struct npk_store *s, struct npk_err *err);
/* After a change came back with `rc`, and took its bytes off the disk again: whether it was for want of room and a checkpoint has
 * made some, so that it should be tried once more; *err is cleared then. With no lock held. */
bool npki_make_room(struct npk_store *s, int rc, struct npk_err *err);

/* The metadata as the last checkpoint wrote it, again. Under w->sync_lock and w->lock. */
int npki_rewrite_metadata(struct npk_store *s, struct npk_err *err);

/* --- other programs, which know no lock (foreign.c) ------------------------------------------------------------------- */

/* A second name of the metadata that the journal is based on: what another program puts in its place does not take it away. */
#define NPKI_BASE "numpackfs.base"
int npki_keep_base(struct npk_store *s, struct npk_err *err);

/* A state that was on disk, of the metadata as a whole or of one entry. */
void npki_remember(struct npki_writer *w, uint64_t hash);
/* Looks whether the metadata on disk is what we wrote last, and the files of touched arrays what we left. 0: yes; 1: it was
 * an earlier state of ours, and the last one was written again; -EBUSY: another program changed the store, which is noted;
 * other errors: nobody knows. Under w->sync_lock and w->lock. */
int npki_check_foreign(struct npk_store *s, struct npk_err *err);
/* Notes it; returns -EBUSY. Under w->lock. */
int npki_found_foreign(struct npki_writer *w, struct npk_err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Takes over what another program changed, unless we changed the same array: -EBUSY, and nothing is taken. s->telling hears
 * of it. 1: a checkpoint must follow. Under w->sync_lock, w->lock and s->refresh_lock. */
int npki_take_foreign(struct npk_store *s, struct npk_err *err);

/* The metadata on disk is ours: a later look finds it unchanged. Under w->lock. */
void npki_note_metadata(struct npk_store *s);
/* The table anew from the metadata on disk, whatever it was. */
int npki_reload_metadata(struct npk_store *s, struct npk_err *err);
/* Opens the way: replays what a dead process left. Called once, with the lock file held, before anything else. */
int npki_recover(struct npk_store *s, struct npk_err *err);
/* At the open of a store for writing: if a dead process left a journal, and no living one holds the lock. */
int npki_recover_at_open(struct npk_store *s, struct npk_err *err);
/* -EBUSY: the metadata on disk is not the one that the journal changes. */
int npki_journal_fits(struct npk_store *s, struct npk_err *err);
/* Whether the bytes that a record relies on are there. */
bool npki_jrec_holds(struct npk_store *s, const struct npki_jrec *rec);
/* Applies a live or left journal in memory, for a store that is only read. */
int npki_replay_readonly(struct npk_store *s, struct npk_err *err);
/* Applies what was added to the journal since. 1: done; 0: it is another one, or cannot be followed: replay it anew. Under
 * s->refresh_lock. */
int npki_follow_journal(struct npk_store *s, struct npk_err *err);

/* The steps that bring metadata and bitmaps from `old` to what the table says. Used by checkpoint and recovery. */
struct npki_snapshot {
	struct npk_array **list; /* all arrays */
	struct npki_entry **entry;
	struct npki_rowmap **live; /* of those that are touched */
	size_t n;
	struct npki_touched_list touched;
	struct npki_names unlink;
	struct npki_file_id *bitmap; /* of those that are touched, after the checkpoint */
	uint64_t old_hash, new_hash;
};

int npki_snapshot_take(struct npk_store *s, struct npki_snapshot *out, struct npk_err *err); /* under w->lock */
void npki_snapshot_fini(struct npki_snapshot *n);
/* Writes the temp images, durable; the payload of the CHECKPOINT record goes to `out`. */
int npki_images(struct npk_store *s, struct npki_snapshot *n, struct npk_text *out, struct npk_err *err);
/* Carries the steps of a CHECKPOINT payload out; may be repeated. */
int npki_redo_checkpoint(struct npk_store *s, const void *payload, size_t len, struct npk_err *err);
/* A name of ours for a temporary file. */
void npki_temp_name(struct npki_writer *w, char path[64]);
/* And for a data file, which nobody has. */
void npki_fresh_name(struct npki_writer *w, const char *suffix, char path[64]);
int npki_fail_store(struct npki_writer *w, int rc, const struct npk_err *err); /* read-only from now on; returns rc */

#endif
