/* fs.h - what the daemon's files share: the session, types of nodes, open handles, the caller of a request.
 *
 * ops.c decodes a request, finds its node and calls one function of the node's type or the handle's kind; these return 0
 * or -errno and a message, ops.c replies. Locks: the order is that of style.md; here only inode_table.lock and the
 * locks of single handles exist, and none is held across a reply or a notification. */
#ifndef NPKFS_FS_H
#define NPKFS_FS_H

#include "batch.h"
#include "config.h"
#include "inode.h"
#include "inval.h"
#include "lasterr.h"
#include "late.h"
#include "session.h"
#include "slow.h"
#include "space.h"
#include "staged.h"
#include "stats.h"

#include <fuse_lowlevel.h>
#include <sys/stat.h>

struct npkfs_dir;
struct npkfs_out;
struct npkfs_search_cache;

struct npkfs_session {
	const struct npkfs_config *config;
	struct npk_store *store;
	char *cache_dir; /* of a package: where its arrays are unpacked; else NULL */
	struct fuse_session *fuse;
	time_t started;

	struct npkfs_inodes inodes;
	struct npkfs_inval inval;
	struct npkfs_stats stats;
	struct npkfs_lasterr lasterr;
	struct npkfs_staging staging;
	struct npkfs_batches batches;
	struct npkfs_slow slow;
	struct npkfs_late late;
	struct npkfs_search_cache *answers;

	pthread_mutex_t open_lock;   /* memory only */
	struct npkfs_handle *open;   /* open_lock: all handles */
	struct npkfs_dir *open_dirs; /* open_lock: all directory handles */

	bool rw;                   /* the store may be changed: constant while serving */
	_Atomic unsigned writable; /* handles of arrays that are O_RDWR */
	uint64_t tidied;           /* the epoch that autocompact.c last looked at; its thread's own */
	_Atomic uint64_t content;  /* raised by every in-place write */

	_Atomic uint64_t epoch;        /* raised by every change of the store, after it is taken over */
	_Atomic uint64_t listed_epoch; /* of the root listing that the kernel has; 0: none */

	pthread_mutex_t export_lock;
	struct npkfs_export *export; /* the latest one; export_lock */

	_Atomic unsigned events;   /* bits of serve.c's enum event */
	_Atomic int error;         /* what ended the request loop, 0 or negative */
	_Atomic unsigned nworkers; /* that still run */
	_Atomic bool stopping;     /* npkfs_session_stop() was called */
	int event_fd, quit_fd;     /* eventfds: wakes the controlling thread; ends the watch thread */
	bool mounted;              /* until we detached the mount ourselves */
	int unmounter;             /* socket of the process that unmounts for us; -1: we do it */
};

/* Who asks. */
struct npkfs_caller {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};

/* --- open files ---------------------------------------------------------------------------------------------------- */

struct npkfs_handle;

struct npkfs_write {
	const char *buf;
	size_t len;
	uint64_t off, owner; /* the owner tells processes apart: WRITE and FLUSH of one process have the same */
	struct npkfs_caller who;
	bool page;      /* dirty pages of a map, written out by the kernel */
	bool announced; /* result: notifications were queued that concern others; a direct-I/O write waits for them */
};

struct npkfs_handle_ops {
	/* Puts at most `len` bytes from `off` on into *out; fewer only at the end of the file. */
	int (*read)(struct npkfs_handle *h, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err);
	/* *taken <= w->len bytes were consumed. NULL: the file cannot be written. */
	int (*write)(struct npkfs_handle *h, struct npkfs_write *w, size_t *taken, struct npk_err *err);
	int (*flush)(
		struct npkfs_handle *h, uint64_t owner, struct npkfs_caller who, struct npk_err *err); /* or NULL */
	void (*close)(struct npkfs_handle *h); /* frees it, not the node's reference */
	/* A read will compute for long: it gets a thread of its own. NULL: never. */
	bool (*is_slow)(struct npkfs_handle *h);
};

/* The first member of every kind of handle. A READ holds a reference until its reply is sent: the kernel may release the
 * file as soon as it has the bytes. */
struct npkfs_handle {
	const struct npkfs_handle_ops *ops;
	struct npkfs_session *s;
	struct npkfs_node *node;          /* a reference of the handle's own */
	_Atomic unsigned refs;            /* set by op_open() */
	struct npkfs_handle *prev, *next; /* of the session's list */
	bool append;                      /* O_APPEND: offsets of writes mean nothing */
	bool direct;                      /* FOPEN_DIRECT_IO: nobody holds a page of it while it writes */
};

/* ops_file.c: closes what the kernel did not release, when the connection has ended. */
void npkfs_handles_end(struct npkfs_session *s);

struct npkfs_open {
	int flags; /* of open(2) */
	struct npkfs_caller who;
	bool direct_io, keep_cache; /* results */
};

/* --- types of nodes ------------------------------------------------------------------------------------------------- */

struct npkfs_type {
	mode_t kind;       /* S_IFDIR or S_IFREG */
	bool name_ttl;     /* the kernel may keep the name for attr_ttl: the notify thread tells when it changes */
	bool attr_ttl;     /* the same for attributes */
	bool plus;         /* READDIRPLUS gives the nodes of its entries; worth it where their names may be kept */
	bool conversation; /* may be opened for writing; truncating it is accepted and ignored */
	bool changes;      /* who writes to it changes the store */
	void (*path)(const struct npkfs_node *node, struct npk_text *out); /* below the mountpoint, for messages */
	void (*stat)(
		struct npkfs_session *s, const struct npkfs_node *node, struct stat *st); /* all but ino and nlink */

	/* Directories. lookup gives *out with a reference. -ENOENT without a message: no such name. */
	int (*lookup)(struct npkfs_session *s, struct npkfs_node *dir, const char *name, const struct npkfs_caller *who,
		struct npkfs_node **out, struct npk_err *err);
	/* Adds the names with npkfs_dir_add(); or, where they can be counted off, `nth` writes the i-th one (at most
	 * NPKFS_NAME_MAX bytes) and returns false after the last. */
	int (*list)(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err);
	bool (*nth)(const struct npkfs_node *dir, uint64_t i, char *name);

	/* Changes of the names in a directory; NULL: EPERM. create gives a node and opens it. */
	int (*create)(struct npkfs_session *s, struct npkfs_node *dir, const char *name, mode_t mode,
		struct npkfs_open *o, struct npkfs_node **out, struct npkfs_handle **handle, struct npk_err *err);
	int (*unlink)(struct npkfs_session *s, struct npkfs_node *dir, const char *name, const struct npkfs_caller *who,
		struct npk_err *err);

	int (*mkdir)(struct npkfs_session *s, struct npkfs_node *dir, const char *name, struct npkfs_node **out,
		struct npk_err *err);
	int (*rmdir)(struct npkfs_session *s, struct npkfs_node *dir, const char *name, struct npk_err *err);

	/* Files. */
	int (*open)(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
		struct npk_err *err);
	bool slow_open; /* open computes for long: it gets a thread of its own */
	/* stat cannot tell the size before measure() has computed it; NULL: it always can. */
	bool (*is_unmeasured)(struct npkfs_session *s, struct npkfs_node *node);
	int (*measure)(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err);
};

extern const struct npkfs_type npkfs_root_type, npkfs_control_dir_type, npkfs_arrays_dir_type, npkfs_array_dir_type;
extern const struct npkfs_type npkfs_view_type, npkfs_batch_dir_type, npkfs_batch_type;
extern const struct npkfs_type npkfs_export_dir_type, npkfs_view_dir_type, npkfs_batches_dir_type;
extern const struct npkfs_type npkfs_stream_type;
extern const struct npkfs_type npkfs_search_dir_type, npkfs_scores_dir_type;
extern const struct npkfs_type npkfs_text_type, npkfs_query_type, npkfs_csv_type, npkfs_deleted_type, npkfs_array_type;

/* --- tree.c -------------------------------------------------------------------------------------------------------- */

int npkfs_tree_init(struct npkfs_session *s, struct npk_err *err); /* makes the root node */
/* The node of `key`, made now when it is not there, with a reference. For nodes that have nothing but their key. */
int npkfs_plain_node(
	struct npkfs_session *s, const struct npkfs_key *key, struct npkfs_node **out, struct npk_err *err);
/* The array that a node's name means now. */
int npkfs_node_array(
	struct npkfs_session *s, const struct npkfs_node *node, struct npk_array **out, struct npk_err *err);
/* Whether `rc` of that says: there is no such array any more, or its transaction was discarded; open files of it go on. */
bool npkfs_is_left(const struct npkfs_node *node, int rc);
/* A row of the table of .numpack, which may be seen in other places too. */
int npkfs_control_lookup(struct npkfs_session *s, struct npkfs_node *dir, const char *name, struct npkfs_node **out,
	struct npk_err *err);
/* The names of the arrays, as the root lists them. */
int npkfs_list_arrays(struct npkfs_session *s, struct npkfs_space *sp, struct npk_text *names, struct npk_err *err);
/* Whether names of arrays are made in it: the root, or that of a transaction. */
bool npkfs_is_root(const struct npkfs_node *node);
/* "arrays/<name>/" below the mountpoint, then `tail`. */
void npkfs_array_path(const struct npkfs_node *node, const char *tail, struct npk_text *out);

/* --- array.c, deleted.c ------------------------------------------------------------------------------------------------ */

/* The node of the array's current generation; of a damaged array, a node that has no generation. */
int npkfs_array_node(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npkfs_node **out,
	struct npk_err *err);
/* What the array of the node is called now; the caller frees it, NULL: no memory. And from now on. */
char *npkfs_node_called(struct npkfs_node *node, size_t *len);
void npkfs_node_call(struct npkfs_node *node, const char *name, size_t len);
/* Why a damaged array cannot be opened; -ESTALE when it can be meanwhile. */
int npkfs_open_damaged(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err);
/* -EROFS with a message when `flags` ask for writing. For files that never are. */
int npkfs_refuse_writing(int flags, struct npk_err *err);
/* deleted.npy of the array's current generation. */
int npkfs_deleted_node(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npkfs_node **out,
	struct npk_err *err);

/* --- attr.c -------------------------------------------------------------------------------------------------------- */

void npkfs_stat_dir(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st);
void npkfs_stat_text(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st);
void npkfs_stat_gen(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st); /* of node->gen */
void npkfs_stat_array(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st);
void npkfs_stat_array_text(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st);
void npkfs_stat_query(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st);
/* Everything that stat(2) shows of a node, with the uid=, gid= and umask= options. */
void npkfs_stat(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st);

/* --- watch.c ------------------------------------------------------------------------------------------------------- */

/* Takes over what other processes changed and queues the invalidations. Any thread, no lock held. */
int npkfs_refresh(struct npkfs_session *s, struct npk_err *err);
/* When `rc` is -ESTALE: refreshes, so that the kernel's second try finds the new state. Returns rc. */
int npkfs_refresh_if_stale(struct npkfs_session *s, int rc);
bool npkfs_watch_wanted(const struct npkfs_session *s);
void *npkfs_watch_main(void *session); /* the thread; ends when quit_fd is written */

/* --- texts --------------------------------------------------------------------------------------------------------- */

void npkfs_print_stats(struct npkfs_session *s, struct npk_text *out);   /* JSON */
void npkfs_print_metrics(struct npkfs_session *s, struct npk_text *out); /* Prometheus */

/* One line about the array ("shape", "dtype", "rows", ...) without a newline. -ENODATA: no such fact. */
int npkfs_fact(const char *name, const struct npk_array_info *info, struct npk_text *out, struct npk_err *err);
/* The value of the extended attribute `name` of `node`. -ENODATA: it has none. */
int npkfs_xattr(
	struct npkfs_session *s, struct npkfs_node *node, const char *name, struct npk_text *out, struct npk_err *err);

#endif
