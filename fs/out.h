/* out.h - the bytes of one READ reply, collected as pieces so that they are copied at most once. */
#ifndef NPKFS_OUT_H
#define NPKFS_OUT_H

#include <numpack.h>
#include <sys/uio.h>

#define NPKFS_OUT_PIECES 32
#define NPKFS_READ_MAX (1u << 20) /* what the kernel asks for at most: max_pages, which follows from max_write */

/* The pieces are borrowed until the reply is sent, then `done` is called. */
struct npkfs_out {
	struct iovec iov[NPKFS_OUT_PIECES];
	int n;
	size_t len, borrowed; /* bytes in all pieces; of these, straight from a mapping */
	char *room;           /* the thread's buffer, NPKFS_READ_MAX bytes; used from the start */
	size_t used;
	void (*done)(void *ctx);
	void *ctx;
};

/* -ENOMEM when the thread has no buffer and cannot get one. */
int npkfs_out_init(struct npkfs_out *out, struct npk_err *err);
/* Adds a piece that stays where it is. There must be a place for it: npkfs_out_full(). */
void npkfs_out_borrow(struct npkfs_out *out, const void *p, size_t len);
/* Adds a piece of the thread's buffer, to be filled by the caller. All such pieces together fit NPKFS_READ_MAX. */
void *npkfs_out_room(struct npkfs_out *out, size_t len);
/* A copy of `len` bytes. */
void npkfs_out_copy(struct npkfs_out *out, const void *p, size_t len);
/* Two more pieces would be too many. */
bool npkfs_out_full(const struct npkfs_out *out);
void npkfs_out_done(struct npkfs_out *out);
/* Frees the calling thread's buffer. */
void npkfs_out_thread_fini(void);

#endif
