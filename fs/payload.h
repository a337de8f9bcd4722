/* payload.h - the bytes of a file that is no array yet. As soon as a .npy header is known, what follows goes straight into
 * what will be the array's data file; anything else goes into an unnamed file of the store. One thread at a time. */
#ifndef NPKFS_PAYLOAD_H
#define NPKFS_PAYLOAD_H

#include "space.h"

#define NPKFS_HEAD_MAX (64u << 10) /* a longer .npy header is refused */

struct npkfs_payload {
	struct npkfs_session *s;
	struct npkfs_space *space; /* counted */
	bool any;                  /* may be anything, as scratch files may; else only a .npy */
	struct npk_text head;      /* the first bytes, up to the end of the header once it is known */
	struct npk_npy npy;        /* when `parsed` */
	bool parsed;
	struct npk_save *save; /* the bytes behind the header; NULL while !parsed */
	int fd;                /* all bytes, when they are no plain .npy; -1 */
	uint64_t size;
	bool lost; /* a commit failed half-way: the bytes are gone */
};

void npkfs_payload_init(struct npkfs_payload *p, struct npkfs_session *s, struct npkfs_space *sp, bool any);
void npkfs_payload_fini(struct npkfs_payload *p);
void npkfs_payload_clear(struct npkfs_payload *p); /* as it was after init */
/* -EINVAL: not a .npy, or a dtype that NumPack cannot store; -EFBIG: more than the header promises. */
int npkfs_payload_write(struct npkfs_payload *p, uint64_t off, const void *buf, size_t len, struct npk_err *err);
int npkfs_payload_truncate(struct npkfs_payload *p, uint64_t size, struct npk_err *err);
/* off + len <= size */
int npkfs_payload_read(struct npkfs_payload *p, uint64_t off, void *buf, size_t len, struct npk_err *err);
/* It has as many bytes as its header promises. */
bool npkfs_payload_complete(struct npkfs_payload *p);
/* The bytes behind the header, which are the caller's now; the payload takes no more. */
struct npk_save *npkfs_payload_take(struct npkfs_payload *p);

struct npkfs_owner {
	mode_t mode;
	uid_t uid;
	gid_t gid;
};

/* Makes it the array `name`, with that mode and, as far as we may give files away, that owner; `as` NULL: with those of the
 * array that it replaces. *same: the array's bytes are those that were written, header length included, so that whoever has
 * the file open may go on with the array. -EINVAL: not complete. */
int npkfs_payload_commit(
	struct npkfs_payload *p, const char *name, const struct npkfs_owner *as, bool *same, struct npk_err *err);

#endif
