/* out.c - READ replies as pieces, and the buffer that each worker thread keeps for gathering rows. */
#include "out.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static __thread char *thread_room;

int npkfs_out_init(struct npkfs_out *out, struct npk_err *err)
{
	out->n = 0;
	out->len = out->borrowed = out->used = 0;
	out->done = NULL;
	if (thread_room == NULL)
		thread_room = aligned_alloc(4096, NPKFS_READ_MAX);
	out->room = thread_room;
	return out->room != NULL ? 0 : npk_fail(err, ENOMEM, "no memory for a read buffer");
}

static void add(struct npkfs_out *out, const void *p, size_t len)
{
	assert(out->n < NPKFS_OUT_PIECES);
	out->iov[out->n].iov_base = (void *)p;
	out->iov[out->n++].iov_len = len;
	out->len += len;
}

void npkfs_out_borrow(struct npkfs_out *out, const void *p, size_t len)
{
	add(out, p, len);
	out->borrowed += len;
}

void *npkfs_out_room(struct npkfs_out *out, size_t len)
{
	char *p = out->room + out->used;

	assert(len <= NPKFS_READ_MAX - out->used);
	out->used += len;
	add(out, p, len);
	return p;
}

void npkfs_out_copy(struct npkfs_out *out, const void *p, size_t len)
{
	if (len != 0)
		memcpy(npkfs_out_room(out, len), p, len);
}

bool npkfs_out_full(const struct npkfs_out *out)
{
	return out->n + 2 > NPKFS_OUT_PIECES;
}

void npkfs_out_done(struct npkfs_out *out)
{
	if (out->done != NULL)
		out->done(out->ctx);
	out->done = NULL;
}

void npkfs_out_thread_fini(void)
{
	free(thread_room);
	thread_room = NULL;
}
