/* ops_file.c - requests on open files. */
#include "changed.h"
#include "dir.h"
#include "channel.h"
#include "control.h"
#include "ops.h"
#include "out.h"
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct npkfs_handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct npkfs_handle *)(uintptr_t)fi->fh;
}

/* --- open handles ------------------------------------------------------------------------------------------------------- */

static void enlist(struct npkfs_handle *h)
{
	struct npkfs_session *s = h->s;

	pthread_mutex_lock(&s->open_lock);
	h->prev = NULL;
	h->next = s->open;
	if (h->next != NULL)
		h->next->prev = h;
	s->open = h;
	pthread_mutex_unlock(&s->open_lock);
	NPKFS_COUNT(s->stats.handles);
}

static void delist(struct npkfs_handle *h)
{
	struct npkfs_session *s = h->s;

	pthread_mutex_lock(&s->open_lock);
	if (h->prev != NULL)
		h->prev->next = h->next;
	else
		s->open = h->next;
	if (h->next != NULL)
		h->next->prev = h->prev;
	pthread_mutex_unlock(&s->open_lock);
	NPKFS_ADD(s->stats.handles, -1);
}

static void put_handle(struct npkfs_handle *h)
{
	struct npkfs_session *s = h->s;
	struct npkfs_node *node = h->node;

	if (atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	delist(h);
	h->ops->close(h);
	npkfs_node_put(&s->inodes, node);
}

void npkfs_handles_end(struct npkfs_session *s)
{
	while (s->open != NULL) {
		atomic_store(&s->open->refs, 1);
		put_handle(s->open);
	}
	npkfs_dirs_end(s);
}

/* What the kernel is told of an open handle. */
static void describe(struct fuse_file_info *fi, const struct npkfs_open *o, struct npkfs_handle *h)
{
	fi->fh = (uintptr_t)h;
	fi->direct_io = o->direct_io;
	fi->keep_cache = o->keep_cache;
	fi->noflush = h->ops->flush == NULL;
}

/* A request whose reply waits for notifications, or for dirty pages to be written out. */
struct parked {
	struct npkfs_request r;
	struct fuse_file_info fi;
	struct npkfs_handle *h;
	size_t taken;
};

static struct parked *park(const struct npkfs_request *r, npkfs_inval_fn *fn)
{
	struct parked *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->r = *r;
	p->fi = (struct fuse_file_info){0};
	if (npkfs_inval_call(&r->s->inval, fn, p) == 0)
		return p;
	free(p);
	return NULL;
}

/* Gives the handle back when the opener is gone. */
static void reply_open(fuse_req_t req, const struct fuse_file_info *fi, struct npkfs_handle *h)
{
	if (fuse_reply_open(req, fi) != 0)
		put_handle(h);
}

static void opened_parked(void *ctx)
{
	struct parked *p = ctx;

	reply_open(p->r.req, &p->fi, p->h);
	free(p);
}

/* Who may map the array for writing gets it when no byte is pushed into its pages any more: see changed.c. */
static bool park_opened(const struct npkfs_request *r, const struct fuse_file_info *fi, struct npkfs_handle *h)
{
	struct parked *p;

	if (r->node->type != &npkfs_array_type || (fi->flags & O_ACCMODE) != O_RDWR || npkfs_inval_idle(&r->s->inval))
		return false;
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return false;
	p->r = *r;
	p->fi = *fi;
	p->h = h;
	if (npkfs_inval_call(&r->s->inval, opened_parked, p) == 0)
		return true;
	free(p);
	return false;
}

static void answer_open(struct npkfs_request *r, struct fuse_file_info *fi)
{
	struct npkfs_open o = {.flags = fi->flags, .who = r->who};
	struct npkfs_handle *h;
	int rc = r->node->type->open ? r->node->type->open(r->s, r->node, &o, &h, &r->err) : -EISDIR;

	if (rc != 0) {
		npkfs_request_fail(r, r->node, NULL, rc);
	} else {
		h->node = npkfs_node_ref(&r->s->inodes, r->node);
		atomic_init(&h->refs, 1);
		enlist(h);
		describe(fi, &o, h);
		if (!park_opened(r, fi, h))
			reply_open(r->req, fi, h);
	}
	npkfs_request_end(r);
}

static void open_slowly(void *ctx)
{
	struct parked *p = ctx;

	answer_open(&p->r, &p->fi);
	free(p);
}

/* Opening may compute what the file has: then not here, for others wait for this thread. */
static void finish_open(struct npkfs_request *r, struct fuse_file_info *fi)
{
	struct parked *p;
	int rc;

	if (!r->node->type->slow_open) {
		answer_open(r, fi);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (p == NULL) {
		rc = npk_fail(&r->err, ENOMEM, "no memory to open a file");
	} else {
		p->r = *r;
		p->fi = *fi;
		rc = npkfs_slow_start(&r->s->slow, r->req, open_slowly, p, &r->err);
		if (rc == 0)
			return;
		free(p);
	}
	npkfs_request_fail(r, r->node, NULL, rc);
	npkfs_request_end(r);
}

static void open_parked(void *ctx)
{
	struct parked *p = ctx;

	finish_open(&p->r, &p->fi);
	free(p);
}

/* The dirty pages that were written out before this call have announced themselves behind it. */
static void open_flushed(void *ctx)
{
	struct parked *p = ctx;

	if (npkfs_inval_call(&p->r.s->inval, open_parked, p) != 0)
		open_parked(p);
}

/* Whoever opens another file with the rows of a writable map must see what was written to the map; and what is announced of an
 * array must have reached the kernel. */
static bool open_must_wait(struct npkfs_request *r)
{
	struct npkfs_node *node = r->node;
	char *called;
	size_t len;
	bool wait;

	if (!r->s->rw || node->type->kind == S_IFDIR || (node->name_len == 0 && node->type != &npkfs_array_type))
		return false;
	if (atomic_load(&r->s->writable) > 0 && atomic_load(&node->writable) == 0) {
		if (node->type->slow_open) /* it may look at other arrays as well */
			return npkfs_flush_maps(r->s, NULL, 0) || !npkfs_inval_idle(&r->s->inval);
		called = npkfs_node_called(node, &len);
		wait = called != NULL && npkfs_flush_maps(r->s, called, len);
		free(called);
		if (wait)
			return true;
	}
	return !npkfs_inval_idle(&r->s->inval);
}

void npkfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct parked *p;
	struct npkfs_request r;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_OPEN, ino))
		return;
	if (!open_must_wait(&r)) {
		finish_open(&r, fi);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (p != NULL) {
		p->r = r;
		p->fi = *fi;
		if (npkfs_inval_call(&r.s->inval, open_flushed, p) == 0)
			return;
		free(p);
	}
	npkfs_request_fail(&r, r.node, NULL, npk_fail(&r.err, ENOMEM, "no memory to open a file"));
	npkfs_request_end(&r);
}

void npkfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct npkfs_open o = {.flags = fi->flags};
	struct npkfs_node *node = NULL;
	struct fuse_entry_param e;
	struct npkfs_handle *h;
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	o.who = r.who;
	if (!r.s->rw)
		rc = npk_fail(&r.err, EROFS, "create: this mount is read-only");
	else
		rc = r.node->type->create ? r.node->type->create(r.s, r.node, name, mode, &o, &node, &h, &r.err)
					  : -EPERM;
	if (rc != 0) {
		npkfs_request_fail(&r, r.node, name, rc);
	} else {
		h->node = node; /* the reference goes over */
		atomic_init(&h->refs, 1);
		enlist(h);
		npkfs_entry_fill(r.s, node, &e);
		describe(fi, &o, h);
		if (fuse_reply_create(req, &e, fi) != 0) {
			npkfs_node_forget(&r.s->inodes, e.ino, 1);
			put_handle(h);
		}
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

/* Gives the handle's reference back. */
static void answer_read(struct npkfs_request *r, struct npkfs_handle *h, uint64_t off, size_t size)
{
	uint64_t start = now_ns();
	struct npkfs_out out;
	int rc = npkfs_out_init(&out, &r->err);

	if (rc == 0)
		rc = h->ops->read(h, off, size < NPKFS_READ_MAX ? size : NPKFS_READ_MAX, &out, &r->err);
	if (rc != 0)
		npkfs_request_fail(r, h->node, NULL, rc);
	else
		reply_out(r, h->node, &out);
	npkfs_out_done(&out);
	npkfs_stats_read(&r->s->stats, rc == 0 ? out.len : 0, rc == 0 ? out.borrowed : 0, now_ns() - start);
	put_handle(h);
}

struct slow_read {
	struct npkfs_request r;
	struct npkfs_handle *h;
	uint64_t off;
	size_t size;
};

static void read_slowly(void *ctx)
{
	struct slow_read *p = ctx;

	answer_read(&p->r, p->h, p->off, p->size);
	free(p);
}

/* In a thread of its own; when there is none, an error is the answer. */
static void put_off_read(struct npkfs_request *r, struct npkfs_handle *h, uint64_t off, size_t size)
{
	struct slow_read *p = malloc(sizeof(*p));
	int rc;

	if (p == NULL) {
		rc = npk_fail(&r->err, ENOMEM, "no memory to read");
	} else {
		*p = (struct slow_read){.r = *r, .h = h, .off = off, .size = size};
		rc = npkfs_slow_start(&r->s->slow, r->req, read_slowly, p, &r->err);
		if (rc == 0)
			return;
		free(p);
	}
	npkfs_request_fail(r, h->node, NULL, rc);
	put_handle(h);
}

void npkfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_handle *h = handle_of(fi);
	struct npkfs_request r;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_READ);
	atomic_fetch_add(&h->refs, 1);
	if (h->ops->is_slow != NULL && h->ops->is_slow(h))
		put_off_read(&r, h, (uint64_t)off, size);
	else
		answer_read(&r, h, (uint64_t)off, size);
}

static void write_parked(void *ctx)
{
	struct parked *p = ctx;

	fuse_reply_write(p->r.req, p->taken);
	free(p);
}

/* A direct-I/O write is answered when others see what it did; who holds a page of the file must not wait. */
static void reply_write(struct npkfs_request *r, struct npkfs_handle *h, const struct npkfs_write *w, size_t taken)
{
	bool wait = h->direct && w->announced && !npkfs_inval_idle(&r->s->inval);
	struct parked *p = wait ? calloc(1, sizeof(*p)) : NULL;

	NPKFS_ADD(r->s->stats.written_bytes, taken);
	if (p != NULL) {
		p->r = *r;
		p->taken = taken;
		if (npkfs_inval_call(&r->s->inval, write_parked, p) == 0)
			return;
		free(p);
	}
	fuse_reply_write(r->req, taken);
}

static void finish_write(struct npkfs_request *r, struct npkfs_handle *h, struct npkfs_write *w)
{
	size_t taken = 0;
	int rc = h->ops->write != NULL ? h->ops->write(h, w, &taken, &r->err) : -EBADF;

	if (rc != 0)
		npkfs_request_fail(r, h->node, NULL, rc);
	else
		reply_write(r, h, w, taken);
}

/* A command that must see the pages of writable maps runs when they are written out. */
struct parked_write {
	struct npkfs_request r;
	struct npkfs_handle *h;
	struct npkfs_write w;
	char buf[];
};

static void run_parked(void *ctx)
{
	struct parked_write *p = ctx;

	finish_write(&p->r, p->h, &p->w);
	free(p);
}

/* Commands that copy data, or wait until a RELEASE has come, must not hold a worker. */
static bool is_long(const struct npkfs_handle *h, const char *buf, size_t size)
{
	static const char *const verbs[] = {"compact", "commit", "clone", "sync", "reset"};
	const struct npkfs_control *row = h->node->control;

	if (row == NULL || row->type != &npkfs_query_type || !row->changes)
		return false;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(row->name, verbs[i]) == 0 || memmem(buf, size, verbs[i], strlen(verbs[i])) != NULL)
			return true;
	return false;
}

static void start_long(struct parked_write *p)
{
	int rc = npkfs_slow_start(&p->r.s->slow, p->r.req, run_parked, p, &p->r.err);

	if (rc == 0)
		return;
	npkfs_request_fail(&p->r, p->h->node, NULL, rc);
	free(p);
}

static void command_parked(void *ctx)
{
	struct parked_write *p = ctx;

	if (is_long(p->h, p->buf, p->w.len))
		start_long(p);
	else
		run_parked(p);
}

static bool write_must_wait(struct npkfs_request *r, struct npkfs_handle *h)
{
	const struct npkfs_node *node = h->node;

	return r->s->rw && node->control != NULL && atomic_load(&r->s->writable) > 0 &&
	       npkfs_flush_maps(r->s, node->name_len > 0 && !node->control->others ? node->name : NULL, node->name_len);
}

void npkfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_write w = {
		.buf = buf, .len = size, .off = (uint64_t)off, .owner = fi->lock_owner, .page = fi->writepage};
	struct npkfs_handle *h = handle_of(fi);
	struct parked_write *p;
	struct npkfs_request r;
	bool wait, slow;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_WRITE);
	w.who = r.who;
	wait = write_must_wait(&r, h);
	slow = r.s->rw && is_long(h, buf, size);
	if (!wait && !slow) {
		finish_write(&r, h, &w);
		return;
	}
	p = malloc(sizeof(*p) + size);
	if (p != NULL) {
		p->r = r;
		p->h = h;
		p->w = w;
		p->w.buf = memcpy(p->buf, buf, size);
		if (!wait) {
			start_long(p);
			return;
		}
		if (npkfs_inval_call(&r.s->inval, command_parked, p) == 0)
			return;
		free(p);
	}
	npkfs_request_fail(&r, h->node, NULL, npk_fail(&r.err, ENOMEM, "no memory for %zu bytes", size));
}

static void flush_parked(void *ctx)
{
	struct parked *p = ctx;

	fuse_reply_err(p->r.req, 0);
	free(p);
}

/* Answered behind what earlier writes of the handle announced. */
static void reply_flushed(struct npkfs_request *r)
{
	if (!r->s->rw || npkfs_inval_idle(&r->s->inval) || park(r, flush_parked) == NULL)
		fuse_reply_err(r->req, 0);
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
		reply_flushed(&r);
}

/* All that was acknowledged becomes durable, whichever file it was asked for. */
void npkfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct npkfs_request r;
	int rc;

	(void)datasync;
	(void)fi;
	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	rc = r.s->rw ? npk_store_fsync(r.s->store, &r.err) : 0;
	if (rc != 0)
		npkfs_request_fail(&r, r.node, NULL, rc);
	else
		reply_flushed(&r);
	npkfs_request_end(&r);
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
