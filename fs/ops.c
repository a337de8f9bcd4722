/* ops.c - fuse_lowlevel_ops: each request is decoded, handed to one function, and answered exactly once.
 *
 * A reply may be followed at once by a FORGET of the node, a RELEASE of the handle: after it, only what this request holds
 * references of may be touched. */
#include "ops.h"
#include "changed.h"
#include "channel.h"
#include "dir.h"
#include "file.h"
#include "log.h"
#include "names.h"
#include "out.h"
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

struct request {
	fuse_req_t req;
	struct npkfs_session *s;
	struct npkfs_node *node; /* a reference, or NULL */
	enum npkfs_op op;
	struct npkfs_caller who;
	struct npk_err err;
};

static void begin(struct request *r, fuse_req_t req, enum npkfs_op op)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	r->req = req;
	r->s = fuse_req_userdata(req);
	r->node = NULL;
	r->op = op;
	r->who = (struct npkfs_caller){.uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid};
	r->err.code = 0;
	r->err.msg[0] = '\0';
	NPKFS_COUNT(r->s->stats.ops[op]);
}

/* The same with the node; false: there is none, and the request is answered. */
static bool begin_node(struct request *r, fuse_req_t req, enum npkfs_op op, fuse_ino_t ino)
{
	begin(r, req, op);
	r->node = npkfs_node_by_id(&r->s->inodes, ino);
	if (r->node != NULL)
		return true;
	NPKFS_COUNT(r->s->stats.errors[op]);
	fuse_reply_err(req, ESTALE);
	return false;
}

static void end(struct request *r)
{
	npkfs_node_put(&r->s->inodes, r->node);
}

/* What has a message goes to last_error and the log. ESTALE makes the kernel try again, nobody has seen it yet. */
static void note(struct request *r, const struct npkfs_node *node, const char *name, int rc)
{
	struct npk_text path = {0};

	if (r->err.code == 0)
		return;
	npkfs_make_printable(r->err.msg);
	if (node != NULL)
		node->type->path(node, &path);
	if (name != NULL)
		npk_text_printf(&path, "%s%s", path.len ? "/" : "", name);
	if (rc != -ESTALE)
		npkfs_lasterr_add(&r->s->lasterr, r->who.uid, r->who.pid, -rc, path.p ? path.p : "", r->err.msg);
	npkfs_log(rc == -EIO || rc == -EUCLEAN || rc == -ESTALE ? NPKFS_WARN : NPKFS_DEBUG, "%s %s: %s: %s",
		npkfs_op_name(r->op), path.p ? path.p : "", strerror(-rc), r->err.msg);
	npk_text_fini(&path);
}

/* Answers with the error `rc` (negative). `name` is the child that was asked for, or NULL. */
static void fail(struct request *r, const struct npkfs_node *node, const char *name, int rc)
{
	NPKFS_COUNT(r->s->stats.errors[r->op]);
	note(r, node, name, rc);
	fuse_reply_err(r->req, -rc);
}

/* --- the session ------------------------------------------------------------------------------------------------------- */

static void op_init(void *session, struct fuse_conn_info *conn)
{
	conn->max_write = NPKFS_READ_MAX; /* max_pages, and with it the size of reads, follows from it */
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	/* Pages go when the notify thread says so, not whenever a size or a time changes. */
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->want |= conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
	npkfs_channel_init_reply((conn->capable & FUSE_CAP_PARALLEL_DIROPS) != 0, npkfs_request_ready, session);
}

/* --- names and attributes ---------------------------------------------------------------------------------------------- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	struct npkfs_node *child = NULL;
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_LOOKUP, parent))
		return;
	rc = r.node->type->lookup ? r.node->type->lookup(r.s, r.node, name, &r.who, &child, &r.err) : -ENOTDIR;
	if (rc != 0) {
		fail(&r, r.node, name, rc);
	} else {
		npkfs_entry_fill(r.s, child, &e);
		if (fuse_reply_entry(req, &e) != 0)
			npkfs_node_forget(&r.s->inodes, e.ino, 1);
		npkfs_node_put(&r.s->inodes, child);
	}
	end(&r);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct npkfs_session *s = fuse_req_userdata(req);

	NPKFS_COUNT(s->stats.ops[NPKFS_OP_FORGET]);
	npkfs_node_forget(&s->inodes, ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct npkfs_session *s = fuse_req_userdata(req);

	NPKFS_ADD(s->stats.ops[NPKFS_OP_FORGET], count);
	for (size_t i = 0; i < count; i++)
		npkfs_node_forget(&s->inodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void reply_attr(struct request *r)
{
	struct stat st;

	npkfs_stat(r->s, r->node, &st);
	fuse_reply_attr(r->req, &st, npkfs_attr_timeout(r->s, r->node));
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct request r;

	(void)fi;
	if (!begin_node(&r, req, NPKFS_OP_GETATTR, ino))
		return;
	reply_attr(&r);
	end(&r);
}

/* --- changes of names and attributes ---------------------------------------------------------------------------------------- */

static void refuse(fuse_req_t req, fuse_ino_t ino, const char *name, const char *what)
{
	struct request r;

	if (!begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	if (r.s->rw)
		fail(&r, r.node, name, -EPERM);
	else
		fail(&r, r.node, name, npk_fail(&r.err, EROFS, "%s: this mount is read-only", what));
	end(&r);
}

static struct npkfs_handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct npkfs_handle *)(uintptr_t)fi->fh;
}

static uint64_t to_us(const struct stat *attr, int to_set)
{
	struct timespec t = attr->st_mtim;

	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec < 0 ? 0 : (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int set_staged(struct npkfs_staged *st, const struct stat *attr, int to_set)
{
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		atomic_store(&st->mtime_us, to_us(attr, to_set));
	if (to_set & FUSE_SET_ATTR_MODE)
		st->mode = attr->st_mode & 0777;
	if (to_set & FUSE_SET_ATTR_UID)
		st->uid = attr->st_uid;
	if (to_set & FUSE_SET_ATTR_GID)
		st->gid = attr->st_gid;
	return 0;
}

static int set_array(struct request *r, const struct stat *attr, int to_set)
{
	struct npk_array *a;
	int rc = npkfs_node_array(r->s, r->node, &a, &r->err);

	if (rc != 0)
		return rc;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		rc = npk_array_set_mtime(a, to_us(attr, to_set), &r->err);
	if (rc == 0)
		rc = npkfs_announce_grown(r->s, a, &r->err);
	npk_array_put(a);
	return rc;
}

/* Time, mode and owner of the store's directory. */
static int set_store(struct request *r, const struct stat *attr, int to_set)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
		to_set & FUSE_SET_ATTR_MTIME_NOW ? (struct timespec){.tv_nsec = UTIME_NOW} : attr->st_mtim};
	int fd = npk_store_dirfd(r->s->store), rc = 0;

	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		rc = futimens(fd, times);
	if (rc == 0 && (to_set & FUSE_SET_ATTR_MODE))
		rc = fchmod(fd, attr->st_mode & 07777);
	if (rc == 0 && (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		rc = fchown(fd, to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
			to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1);
	return rc == 0 ? 0 : npk_fail(&r->err, errno, "%s: %s", npk_store_path(r->s->store), strerror(errno));
}

/* Size first: it may end in another node. */
static int set_file(struct request *r, const struct stat *attr, int to_set, struct npkfs_handle *h)
{
	struct npkfs_staged *st;
	int rc = 0;

	if (to_set & FUSE_SET_ATTR_SIZE)
		rc = npkfs_file_resize(r->s, r->node, h, (uint64_t)attr->st_size, &r->who, &r->err);
	to_set &= FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID |
		  FUSE_SET_ATTR_GID;
	if (rc != 0 || to_set == 0)
		return rc;
	st = (r->node->number & NPKFS_STAGED_NUMBER) != 0 ? npkfs_node_staged(r->node) : NULL;
	rc = st != NULL && !st->committed ? set_staged(st, attr, to_set) : set_array(r, attr, to_set);
	npkfs_staged_put(st);
	return rc;
}

/* Truncating a conversation, as `>` does, is accepted and means nothing. */
static int set_attr(struct request *r, const struct stat *attr, int to_set, struct npkfs_handle *h)
{
	const int times = FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME;

	if (r->node->type->conversation && (to_set & FUSE_SET_ATTR_SIZE) && !(to_set & ~(FUSE_SET_ATTR_SIZE | times)))
		return 0;
	if (!r->s->rw)
		return npk_fail(&r->err, EROFS, "changing attributes: this mount is read-only");
	if (r->node->type == &npkfs_array_type)
		return set_file(r, attr, to_set, h);
	if (r->node->type == &npkfs_root_type)
		return set_store(r, attr, to_set);
	return -EPERM;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	rc = set_attr(&r, attr, to_set, fi != NULL ? handle_of(fi) : NULL);
	if (rc != 0)
		fail(&r, r.node, NULL, rc);
	else
		reply_attr(&r);
	end(&r);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)mode;
	(void)rdev;
	refuse(req, parent, name, "mknod");
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)mode;
	refuse(req, parent, name, "mkdir");
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	if (!r.s->rw)
		rc = npk_fail(&r.err, EROFS, "unlink: this mount is read-only");
	else
		rc = r.node->type->unlink ? r.node->type->unlink(r.s, r.node, name, &r.who, &r.err) : -EPERM;
	if (rc != 0)
		fail(&r, r.node, name, rc);
	else
		fuse_reply_err(req, 0);
	end(&r);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse(req, parent, name, "rmdir");
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	refuse(req, parent, name, "symlink");
}

static void op_rename(
	fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	if (!r.s->rw)
		rc = npk_fail(&r.err, EROFS, "rename: this mount is read-only");
	else if (parent != NPKFS_ROOT_ID || newparent != NPKFS_ROOT_ID)
		rc = -EPERM;
	else
		rc = npkfs_root_rename(r.s, name, newname, flags, &r.who, &r.err);
	if (rc != 0)
		fail(&r, r.node, name, rc);
	else
		fuse_reply_err(req, 0);
	end(&r);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino;
	refuse(req, newparent, newname, "link");
}

/* Attributes of others have no place here; cp -p and rsync -X accept that. */
static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct npkfs_session *s = fuse_req_userdata(req);

	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	if (s->rw)
		fuse_reply_err(req, EOPNOTSUPP);
	else
		refuse(req, ino, NULL, "setxattr");
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)name;
	refuse(req, ino, NULL, "removexattr");
}

/* --- files -------------------------------------------------------------------------------------------------------------- */

static void close_handle(struct npkfs_handle *h)
{
	struct npkfs_session *s = h->s;
	struct npkfs_node *node = h->node;

	h->ops->close(h);
	npkfs_node_put(&s->inodes, node);
	NPKFS_ADD(s->stats.handles, -1);
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
	struct request r;
	struct fuse_file_info fi;
	struct npkfs_handle *h;
	size_t taken;
};

static struct parked *park(const struct request *r, npkfs_inval_fn *fn)
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

static void finish_open(struct request *r, struct fuse_file_info *fi)
{
	struct npkfs_open o = {.flags = fi->flags, .who = r->who};
	struct npkfs_handle *h;
	int rc = r->node->type->open ? r->node->type->open(r->s, r->node, &o, &h, &r->err) : -EISDIR;

	if (rc != 0) {
		fail(r, r->node, NULL, rc);
	} else {
		h->node = npkfs_node_ref(&r->s->inodes, r->node);
		NPKFS_COUNT(r->s->stats.handles);
		describe(fi, &o, h);
		if (fuse_reply_open(r->req, fi) != 0)
			close_handle(h);
	}
	end(r);
}

static void open_parked(void *ctx)
{
	struct parked *p = ctx;

	finish_open(&p->r, &p->fi);
	free(p);
}

/* Whoever opens another file with the rows of a writable map must see what was written to the map; and what is announced of an
 * array must have reached the kernel. */
static bool open_must_wait(struct request *r)
{
	struct npkfs_node *node = r->node;
	char *called;
	size_t len;
	bool wait;

	if (!r->s->rw || node->type->kind == S_IFDIR || (node->name_len == 0 && node->type != &npkfs_array_type))
		return false;
	if (atomic_load(&r->s->writable) > 0 && atomic_load(&node->writable) == 0) {
		called = npkfs_node_called(node, &len);
		wait = called != NULL && npkfs_flush_maps(r->s, called, len);
		free(called);
		if (wait)
			return true;
	}
	return !npkfs_inval_idle(&r->s->inval);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct parked *p;
	struct request r;

	if (!begin_node(&r, req, NPKFS_OP_OPEN, ino))
		return;
	if (!open_must_wait(&r)) {
		finish_open(&r, fi);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (p != NULL) {
		p->r = r;
		p->fi = *fi;
		if (npkfs_inval_call(&r.s->inval, open_parked, p) == 0)
			return;
		free(p);
	}
	fail(&r, r.node, NULL, npk_fail(&r.err, ENOMEM, "no memory to open a file"));
	end(&r);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct npkfs_open o = {.flags = fi->flags};
	struct npkfs_node *node = NULL;
	struct fuse_entry_param e;
	struct npkfs_handle *h;
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	o.who = r.who;
	if (!r.s->rw)
		rc = npk_fail(&r.err, EROFS, "create: this mount is read-only");
	else
		rc = r.node->type->create ? r.node->type->create(r.s, r.node, name, mode, &o, &node, &h, &r.err)
					  : -EPERM;
	if (rc != 0) {
		fail(&r, r.node, name, rc);
	} else {
		h->node = node; /* the reference goes over */
		NPKFS_COUNT(r.s->stats.handles);
		npkfs_entry_fill(r.s, node, &e);
		describe(fi, &o, h);
		if (fuse_reply_create(req, &e, fi) != 0) {
			npkfs_node_forget(&r.s->inodes, e.ino, 1);
			close_handle(h);
		}
	}
	end(&r);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct request r;

	(void)ino;
	begin(&r, req, NPKFS_OP_RELEASE);
	close_handle(handle_of(fi));
	fuse_reply_err(req, 0);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* After the reply the handle may be gone, so the node is found anew for the message. */
static void reply_out(struct request *r, fuse_ino_t ino, const struct npkfs_out *out)
{
	int rc = out->n > 1 ? fuse_reply_iov(r->req, out->iov, out->n)
			    : fuse_reply_buf(r->req, out->n ? out->iov[0].iov_base : NULL, out->len);

	if (rc == 0 || !npkfs_channel_faulted())
		return;
	NPKFS_COUNT(r->s->stats.errors[r->op]);
	r->node = npkfs_node_by_id(&r->s->inodes, ino);
	note(r, r->node, NULL, npk_fail(&r->err, EIO, "a data file was cut short while it was read"));
	end(r);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_handle *h = handle_of(fi);
	uint64_t start = now_ns();
	struct npkfs_out out;
	struct request r;
	int rc;

	begin(&r, req, NPKFS_OP_READ);
	rc = npkfs_out_init(&out, &r.err);
	if (rc == 0)
		rc = h->ops->read(h, (uint64_t)off, size < NPKFS_READ_MAX ? size : NPKFS_READ_MAX, &out, &r.err);
	if (rc != 0)
		fail(&r, h->node, NULL, rc);
	else
		reply_out(&r, ino, &out);
	npkfs_out_done(&out);
	npkfs_stats_read(&r.s->stats, rc == 0 ? out.len : 0, rc == 0 ? out.borrowed : 0, now_ns() - start);
}

static void write_parked(void *ctx)
{
	struct parked *p = ctx;

	fuse_reply_write(p->r.req, p->taken);
	free(p);
}

/* A direct-I/O write is answered when others see what it did; who holds a page of the file must not wait. */
static void reply_write(struct request *r, struct npkfs_handle *h, const struct npkfs_write *w, size_t taken)
{
	struct parked *p = h->direct && w->announced ? calloc(1, sizeof(*p)) : NULL;

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

static void finish_write(struct request *r, struct npkfs_handle *h, struct npkfs_write *w)
{
	size_t taken = 0;
	int rc = h->ops->write != NULL ? h->ops->write(h, w, &taken, &r->err) : -EBADF;

	if (rc != 0)
		fail(r, h->node, NULL, rc);
	else
		reply_write(r, h, w, taken);
}

/* A command that must see the pages of writable maps runs when they are written out. */
struct parked_write {
	struct request r;
	struct npkfs_handle *h;
	struct npkfs_write w;
	char buf[];
};

static void command_parked(void *ctx)
{
	struct parked_write *p = ctx;

	finish_write(&p->r, p->h, &p->w);
	free(p);
}

static bool write_must_wait(struct request *r, struct npkfs_handle *h)
{
	const struct npkfs_node *node = h->node;

	return r->s->rw && node->control != NULL && atomic_load(&r->s->writable) > 0 &&
	       npkfs_flush_maps(r->s, node->name_len > 0 ? node->name : NULL, node->name_len);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_write w = {.buf = buf, .len = size, .off = (uint64_t)off, .owner = fi->lock_owner};
	struct npkfs_handle *h = handle_of(fi);
	struct parked_write *p;
	struct request r;

	(void)ino;
	begin(&r, req, NPKFS_OP_WRITE);
	w.who = r.who;
	if (!write_must_wait(&r, h)) {
		finish_write(&r, h, &w);
		return;
	}
	p = malloc(sizeof(*p) + size);
	if (p != NULL) {
		p->r = r;
		p->h = h;
		p->w = w;
		p->w.buf = memcpy(p->buf, buf, size);
		if (npkfs_inval_call(&r.s->inval, command_parked, p) == 0)
			return;
		free(p);
	}
	fail(&r, h->node, NULL, npk_fail(&r.err, ENOMEM, "no memory for %zu bytes", size));
}

static void flush_parked(void *ctx)
{
	struct parked *p = ctx;

	fuse_reply_err(p->r.req, 0);
	free(p);
}

/* Answered behind what earlier writes of the handle announced. */
static void reply_flushed(struct request *r)
{
	if (!r->s->rw || npkfs_inval_idle(&r->s->inval) || park(r, flush_parked) == NULL)
		fuse_reply_err(r->req, 0);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct npkfs_handle *h = handle_of(fi);
	struct request r;
	int rc = 0;

	(void)ino;
	begin(&r, req, NPKFS_OP_FLUSH);
	if (h->ops->flush != NULL)
		rc = h->ops->flush(h, fi->lock_owner, r.who, &r.err);
	if (rc != 0)
		fail(&r, h->node, NULL, rc);
	else
		reply_flushed(&r);
}

/* All that was acknowledged becomes durable, whichever file it was asked for. */
static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct request r;
	int rc;

	(void)datasync;
	(void)fi;
	if (!begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	rc = r.s->rw ? npk_store_fsync(r.s->store, &r.err) : 0;
	if (rc != 0)
		fail(&r, r.node, NULL, rc);
	else
		reply_flushed(&r);
	end(&r);
}

/* No file has holes. */
static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct request r;
	struct stat st;

	(void)fi;
	if (!begin_node(&r, req, NPKFS_OP_LSEEK, ino))
		return;
	npkfs_stat(r.s, r.node, &st);
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		fail(&r, r.node, NULL, -EINVAL);
	else if (off < 0 || off >= st.st_size)
		fail(&r, r.node, NULL, -ENXIO);
	else
		fuse_reply_lseek(req, whence == SEEK_DATA ? off : st.st_size);
	end(&r);
}

/* --- directories --------------------------------------------------------------------------------------------------------- */

static struct npkfs_dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct npkfs_dir *)(uintptr_t)fi->fh;
}

/* The kernel may keep the listing of the root, and use it again as long as it is the one of the store's present epoch. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct npkfs_dir *d;
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_OPENDIR, ino))
		return;
	rc = r.node->type->lookup ? npkfs_dir_open(r.s, r.node, &d, &r.err) : -ENOTDIR;
	if (rc != 0) {
		fail(&r, r.node, NULL, rc);
	} else {
		NPKFS_COUNT(r.s->stats.directories);
		fi->fh = (uintptr_t)d;
		fi->cache_readdir = ino == NPKFS_ROOT_ID;
		fi->keep_cache = ino == NPKFS_ROOT_ID && atomic_load(&r.s->listed_epoch) == atomic_load(&r.s->epoch);
		if (fuse_reply_open(req, fi) != 0) {
			NPKFS_ADD(r.s->stats.directories, -1);
			npkfs_dir_close(d);
		}
	}
	end(&r);
}

static void read_dir(
	fuse_req_t req, enum npkfs_op op, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_out out;
	struct request r;
	size_t used = 0;
	int rc;

	if (!begin_node(&r, req, op, ino))
		return;
	rc = npkfs_out_init(&out, &r.err);
	if (size > NPKFS_READ_MAX)
		size = NPKFS_READ_MAX;
	if (rc == 0)
		rc = npkfs_dir_read(
			dir_of(fi), req, out.room, size, (uint64_t)off, op == NPKFS_OP_READDIRPLUS, &used, &r.err);
	if (rc == 0 && ino == NPKFS_ROOT_ID && npkfs_dir_finished(dir_of(fi)) != 0)
		atomic_store(&r.s->listed_epoch, npkfs_dir_finished(dir_of(fi)));
	if (rc != 0)
		fail(&r, r.node, NULL, rc);
	else
		fuse_reply_buf(req, out.room, used);
	end(&r);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, NPKFS_OP_READDIR, ino, size, off, fi);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, NPKFS_OP_READDIRPLUS, ino, size, off, fi);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct request r;

	(void)ino;
	begin(&r, req, NPKFS_OP_RELEASEDIR);
	npkfs_dir_close(dir_of(fi));
	NPKFS_ADD(r.s->stats.directories, -1);
	fuse_reply_err(req, 0);
}

/* --- the filesystem ------------------------------------------------------------------------------------------------------ */

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct npk_store_info info;
	struct statvfs st;
	struct request r;

	(void)ino;
	begin(&r, req, NPKFS_OP_STATFS);
	if (fstatvfs(npk_store_dirfd(r.s->store), &st) != 0) {
		fail(&r, NULL, NULL, npk_fail(&r.err, errno, "%s: %s", npk_store_path(r.s->store), strerror(errno)));
		return;
	}
	npk_store_info(r.s->store, &info);
	st.f_files = info.narrays;
	st.f_ffree = st.f_favail = 0;
	st.f_namemax = 255;
	fuse_reply_statfs(req, &st);
}

static void reply_value(struct request *r, const struct npk_text *value, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(r->req, value->len);
	else if (size < value->len)
		fuse_reply_err(r->req, ERANGE);
	else
		fuse_reply_buf(r->req, value->p, value->len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct npk_text value = {0};
	struct request r;
	int rc;

	if (!begin_node(&r, req, NPKFS_OP_GETXATTR, ino))
		return;
	rc = npkfs_xattr(r.s, r.node, name, &value, &r.err);
	if (rc != 0)
		fail(&r, r.node, NULL, rc);
	else
		reply_value(&r, &value, size);
	npk_text_fini(&value);
	end(&r);
}

/* Attributes are read by name; listing them would make cp -a and rsync -X copy them. */
static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	const struct npk_text none = {0};
	struct request r;

	(void)ino;
	begin(&r, req, NPKFS_OP_LISTXATTR);
	reply_value(&r, &none, size);
}

/* POLL stays unimplemented: Go puts every file that it opens into epoll. */
const struct fuse_lowlevel_ops npkfs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsync,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.lseek = op_lseek,
};
