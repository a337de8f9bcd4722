/* staged.h - files of the root that are no arrays (yet): a new .npy while it is written, scratch files, and the private file
 * that a program writes which opened an array with O_TRUNC. Each belongs to a node; the table finds them by name.
 *
 * A private file is first the thread's that asked for it, until it opens it; then the process's. Others go on seeing the array
 * of that name. Where there is no such array, everybody sees the newest staged file. */
#ifndef NPKFS_STAGED_H
#define NPKFS_STAGED_H

#include "payload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

struct npkfs_node;
struct npkfs_session;
struct npkfs_caller;

#define NPKFS_STAGED_NUMBER (1ull << 63) /* in the number of a staged node's key */

struct npkfs_staged {
	_Atomic unsigned refs;
	pthread_mutex_t
		lock; /* held across the I/O of the payload and its commit; no other lock under it but lower ones */
	struct npkfs_payload payload; /* lock */
	bool committed;               /* lock: the node has a layout from then on */
	bool scratch;                 /* its name is not an array's, now; staging->lock */
	_Atomic mode_t mode;
	_Atomic uid_t uid;
	_Atomic gid_t gid;
	_Atomic uint64_t mtime_us;
	_Atomic uint64_t size; /* of the payload, for stat(2) */

	/* staging->lock */
	struct npkfs_staged *next; /* newest first */
	struct npkfs_node *node;   /* a reference while listed */
	bool listed;
	struct npkfs_space *space; /* counted; constant */
	char *name;                /* a component of the root */
	bool pending;              /* nobody opened it yet */
	pid_t tid, tgid;
	uint64_t started;       /* of the process */
	struct timespec minted; /* or of the last close */
};

struct npkfs_staging {
	pthread_mutex_t lock;
	struct npkfs_staged *first; /* lock */
	_Atomic unsigned n;
	_Atomic uint64_t next_number;
};

void npkfs_staging_init(struct npkfs_staging *t);
/* Drops all references of nodes; before the table of nodes goes. */
void npkfs_staging_fini(struct npkfs_session *s);

/* Makes a node with a staged file called `name`. `pending`: for the thread who->pid only, until npkfs_staged_open(). */
int npkfs_staged_new(struct npkfs_session *s, struct npkfs_space *sp, const char *name, const struct npkfs_caller *who,
	bool pending, mode_t mode, struct npkfs_node **out, struct npk_err *err);
void npkfs_staged_put(struct npkfs_staged *st); /* NULL is fine */
/* The node's staged file with a reference, or NULL. */
struct npkfs_staged *npkfs_node_staged(struct npkfs_node *node);

/* The newest file of that name that `who` wrote, or with `anybody` the newest one that is open to all; with a reference. */
struct npkfs_node *npkfs_staged_find(struct npkfs_session *s, struct npkfs_space *sp, const char *name,
	const struct npkfs_caller *who, bool anybody);
/* Whether any staged file has that name. */
bool npkfs_staged_any(struct npkfs_session *s, struct npkfs_space *sp, const char *name);
bool npkfs_staged_is_mine(struct npkfs_session *s, struct npkfs_staged *st, const struct npkfs_caller *who);
/* The thread's file becomes the process's. */
void npkfs_staged_open(struct npkfs_session *s, struct npkfs_staged *st, const struct npkfs_caller *who);
/* It is found no more: committed, removed, or replaced. */
void npkfs_staged_unlist(struct npkfs_session *s, struct npkfs_staged *st);
/* -ENOMEM */
int npkfs_staged_rename(struct npkfs_session *s, struct npkfs_staged *st, const char *name);
/* Adds the names of scratch files and of arrays that are being made. */
void npkfs_staged_list(struct npkfs_session *s, struct npkfs_space *sp, struct npk_text *names);
/* Drops all files of a transaction that has ended; those that are open go on, and nobody finds them. */
void npkfs_staging_drop(struct npkfs_session *s, struct npkfs_space *sp);
/* Drops what nobody will complete. */
void npkfs_staging_expire(struct npkfs_session *s);
/* A line in the log and in last_error for each file that the end of the mount drops. */
void npkfs_staging_end(struct npkfs_session *s);

/* Whether a component of the root is an array's name, "<name>.npy" without a leading dot. */
bool npkfs_is_array_component(const char *name);

#endif
