/* inode.h - node ids, lookup counts, forget: the only place that knows which objects the kernel refers to.
 *
 * A node is one object that the kernel may hold: a directory, a control file, an array *of one generation*, a view. Its
 * id is never given to another object, so that a page cache or a file handle never changes its meaning. A node lives
 * while the kernel counts lookups of it or a request holds a reference. */
#ifndef NPKFS_INODE_H
#define NPKFS_INODE_H

#include <numpack.h>
#include <pthread.h>
#include <stdatomic.h>

struct npkfs_type;
struct npkfs_control;
struct npkfs_export;
struct npkfs_layout;
struct npkfs_space;
struct npkfs_staged;

#define NPKFS_ROOT_ID 1

struct npkfs_node {
	/* The key. Two live nodes never have the same one. */
	const struct npkfs_type *type;
	const struct npkfs_control *control; /* the table row of a control file */
	struct npkfs_space *space;           /* counted; NULL: the store's own arrays */
	_Atomic uint64_t
		number;  /* the generation's number, or what the type says; an array's may change: npkfs_node_rekey() */
	uint64_t detail; /* rows of a batch, epoch of a mask */
	const char *name; /* the array's name, NUL-terminated; in the node's own memory */
	const char *sel;  /* the selection's text, likewise */
	size_t name_len;

	/* Set before the node is published, constant then. */
	uint64_t id;
	struct npk_gen *gen;         /* NULL for what is not bound to a generation, and for arrays */
	struct npkfs_export *export; /* of export/store.safetensors */
	uint64_t bytes;              /* behind the .npy header */
	_Atomic uint64_t measured;   /* of an answer: its size once it was computed; 0: it never was */
	uint32_t header_len;         /* 0 when there is no header */

	_Atomic(struct npk_view *) view; /* set once, by the first open that needs it; owned */

	/* Of arrays. */
	pthread_mutex_t lock;        /* memory only; no other lock is taken under it */
	struct npkfs_layout *layout; /* lock; NULL: damaged or staged */
	struct npkfs_layout *shown;  /* lock; the shorter one that the kernel was last told; counted. NULL: `layout` */
	uint64_t shown_bytes;        /* lock; behind the header, as stat(2) tells; while `shown` is set */
	bool publishing;             /* lock; the notify thread has been asked to tell the kernel of `layout` */
	struct npkfs_staged *staged; /* lock; what is being written; counted */
	char *called;                /* lock: the array's name now, after renames; NULL: as in `name` */
	size_t called_len;           /* lock */
	_Atomic unsigned handles;    /* open now */
	_Atomic unsigned writers;    /* of these, those that may write; also of views */
	_Atomic unsigned writable;   /* of these, O_RDWR: there may be dirty pages of a map */
	_Atomic uint64_t
		guarded; /* where rows begin of which the kernel is being told, beside writable maps: changed.c. 0: no */
	_Atomic bool known;     /* the kernel has asked by its id: notifications reach it */
	_Atomic bool compacted; /* the slots are gone: no more in-place writes */
	_Atomic bool converted; /* what was written is not what the array has: likewise */

	/* inode_table.lock */
	uint64_t nlookup; /* the kernel's references */
	uint64_t refs;    /* ours */
	struct npkfs_node *id_next, *key_next;
	uint64_t hash;
};

struct npkfs_inodes {
	pthread_mutex_t lock; /* no engine call under it */
	struct npkfs_node **by_id, **by_key;
	size_t nbuckets, nnodes;
	uint64_t next_id;
};

int npkfs_inodes_init(struct npkfs_inodes *t, struct npk_err *err);
/* Frees every node; nothing may use one any more. */
void npkfs_inodes_fini(struct npkfs_inodes *t);
/* How many nodes live; of these, in *of_type, those of that type. */
size_t npkfs_inodes_count(struct npkfs_inodes *t, const struct npkfs_type *type, size_t *of_type);

/* What a node is found by; also what a new one is made from. NULL texts are empty ones. */
struct npkfs_key {
	const struct npkfs_type *type;
	const struct npkfs_control *control;
	struct npkfs_space *space; /* NULL: the store's own arrays */
	uint64_t number, detail;
	const char *name;
	size_t name_len;
	const char *sel;
};

/* Take a reference: by id, by key, one more. NULL when there is no such node. */
struct npkfs_node *npkfs_node_by_id(struct npkfs_inodes *t, uint64_t id);
struct npkfs_node *npkfs_node_by_key(struct npkfs_inodes *t, const struct npkfs_key *key);
struct npkfs_node *npkfs_node_ref(struct npkfs_inodes *t, struct npkfs_node *node);
void npkfs_node_put(struct npkfs_inodes *t, struct npkfs_node *node); /* NULL is fine */

/* A node that nobody can find yet; the caller fills the rest in, then publishes it, or discards it. */
int npkfs_node_new(struct npkfs_node **out, const struct npkfs_key *key, struct npk_err *err);
void npkfs_node_discard(struct npkfs_node *node);
/* Gives it an id and a reference. When another thread published the same key first, that node is returned and `node` is
 * discarded. */
struct npkfs_node *npkfs_node_publish(struct npkfs_inodes *t, struct npkfs_node *node);

/* The node is found by another number from now on. False, and nothing changes, when another node has that key. */
bool npkfs_node_rekey(struct npkfs_inodes *t, struct npkfs_node *node, uint64_t number);
/* Calls `fn` for each live node of `type`, which holds a reference during the call; no lock is held. */
int npkfs_nodes_of_type(struct npkfs_inodes *t, const struct npkfs_type *type,
	void (*fn)(void *ctx, struct npkfs_node *node), void *ctx);

/* The kernel learns of the node (before the reply says so), and forgets `n` of its lookups. */
void npkfs_node_remember(struct npkfs_inodes *t, struct npkfs_node *node);
void npkfs_node_forget(struct npkfs_inodes *t, uint64_t id, uint64_t n);

/* Calls `fn` for each live node's id, with no lock held. For dropping the kernel's caches. */
int npkfs_nodes_each(struct npkfs_inodes *t, void (*fn)(void *ctx, uint64_t id), void *ctx);

#endif
