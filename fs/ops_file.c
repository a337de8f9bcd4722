/* ops_file.c - requests on open files. */
#include "channel.h"
#include "ops.h"
#include "out.h"
#include "request.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

static struct npkfs_handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct npkfs_handle *)(uintptr_t)fi->fh;
}

static void put_handle(struct npkfs_handle *h)
{
	struct npkfs_session *s = h->s;
	struct npkfs_node *node = h->node;

	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	h->ops->close(h);
	npkfs_node_put(&s->inodes, node);
	NPKFS_ADD(s->stats.handles, -1);
}

void npkfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct npkfs_open o = {.flags = fi->flags};
	struct npkfs_handle *h;
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_OPEN, ino))
		return;
	o.who = r.who;
	rc = r.node->type->open ? r.node->type->open(r.s, r.node, &o, &h, &r.err) : -EISDIR;
	if (rc != 0) {
		npkfs_request_fail(&r, r.node, NULL, rc);
	} else {
		h->node = npkfs_node_ref(&r.s->inodes, r.node);
		atomic_init(&h->refs, 1);
		NPKFS_COUNT(r.s->stats.handles);
		fi->fh = (uintptr_t)h;
		fi->direct_io = o.direct_io;
		fi->keep_cache = o.keep_cache;
		fi->noflush = h->ops->flush == NULL;
		if (fuse_reply_open(req, fi) != 0)
			put_handle(h);
	}
	npkfs_request_end(&r);
}

void npkfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct npkfs_request r;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_RELEASE);
	put_handle(handle_of(fi));
	fuse_reply_err(req, 0);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void reply_out(struct npkfs_request *r, const struct npkfs_node *node, const struct npkfs_out *out)
{
	int rc = out->n > 1 ? fuse_reply_iov(r->req, out->iov, out->n)
			    : fuse_reply_buf(r->req, out->n ? out->iov[0].iov_base : NULL, out->len);

	if (rc == 0 || !npkfs_channel_faulted())
		return;
	NPKFS_COUNT(r->s->stats.errors[r->op]);
	npkfs_request_note(r, node, NULL, npk_fail(&r->err, EIO, "a data file was cut short while it was read"));
}

void npkfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_handle *h = handle_of(fi);
	uint64_t start = now_ns();
	struct npkfs_out out;
	struct npkfs_request r;
	int rc;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_READ);
	atomic_fetch_add(&h->refs, 1);
	rc = npkfs_out_init(&out, &r.err);
	if (rc == 0)
		rc = h->ops->read(h, (uint64_t)off, size < NPKFS_READ_MAX ? size : NPKFS_READ_MAX, &out, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, h->node, NULL, rc);
	else
		reply_out(&r, h->node, &out);
	npkfs_out_done(&out);
	put_handle(h);
	npkfs_stats_read(&r.s->stats, rc == 0 ? out.len : 0, rc == 0 ? out.borrowed : 0, now_ns() - start);
}

void npkfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_write w = {.buf = buf, .len = size, .off = (uint64_t)off, .owner = fi->lock_owner};
	struct npkfs_handle *h = handle_of(fi);
	struct npkfs_request r;
	size_t taken = 0;
	int rc = -EBADF;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_WRITE);
	w.who = r.who;
	if (h->ops->write != NULL)
		rc = h->ops->write(h, &w, &taken, &r.err);
	if (rc != 0) {
		npkfs_request_fail(&r, h->node, NULL, rc);
		return;
	}
	NPKFS_ADD(r.s->stats.written_bytes, taken);
	fuse_reply_write(req, taken);
}

void npkfs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct npkfs_handle *h = handle_of(fi);
	struct npkfs_request r;
	int rc = 0;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_FLUSH);
	if (h->ops->flush != NULL)
		rc = h->ops->flush(h, fi->lock_owner, r.who, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, h->node, NULL, rc);
	else
		fuse_reply_err(req, 0);
}

/* There is nothing to make durable, and a program that asks need not fail. */
void npkfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* No file has holes. */
void npkfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct npkfs_request r;
	struct stat st;

	(void)fi;
	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_LSEEK, ino))
		return;
	npkfs_stat(r.s, r.node, &st);
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		npkfs_request_fail(&r, r.node, NULL, -EINVAL);
	else if (off < 0 || off >= st.st_size)
		npkfs_request_fail(&r, r.node, NULL, -ENXIO);
	else
		fuse_reply_lseek(req, whence == SEEK_DATA ? off : st.st_size);
	npkfs_request_end(&r);
}
