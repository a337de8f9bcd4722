/* ops.c - fuse_lowlevel_ops: each request is decoded, handed to one function, and answered exactly once.
 *
 * A reply may be followed at once by a FORGET of the node, a RELEASE of the handle: after it, only what this request holds
 * references of may be touched. */
#include "ops.h"
#include "changed.h"
#include "channel.h"
#include "dir.h"
#include "out.h"
#include "request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* --- the session ------------------------------------------------------------------------------------------------------- */

static void op_init(void *session, struct fuse_conn_info *conn)
{
	conn->max_write = NPKFS_READ_MAX; /* max_pages, and with it the size of reads, follows from it */
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	/* Pages go when the notify thread says so, not whenever a size or a time changes. */
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->want |= conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
	npkfs_channel_init_reply((conn->capable & FUSE_CAP_PARALLEL_DIROPS) != 0, npkfs_serve_ready, session);
}

/* --- names and attributes ---------------------------------------------------------------------------------------------- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct npkfs_node *child = NULL;
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_LOOKUP, parent))
		return;
	rc = r.node->type->lookup ? r.node->type->lookup(r.s, r.node, name, &r.who, &child, &r.err) : -ENOTDIR;
	if (rc != 0)
		npkfs_request_fail(&r, r.node, name, rc);
	else
		npkfs_request_reply_entry(&r, child);
	npkfs_request_end(&r);
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

/* The size is to be computed first. */
static void getattr_slowly(void *ctx)
{
	struct npkfs_request *r = ctx;
	int rc = r->node->type->measure(r->s, r->node, &r->err);

	if (rc != 0)
		npkfs_request_fail(r, r->node, NULL, rc);
	else
		npkfs_request_reply_attr(r);
	npkfs_request_end(r);
	free(r);
}

static void put_off_getattr(struct npkfs_request *r)
{
	struct npkfs_request *later = malloc(sizeof(*later));
	int rc;

	if (later == NULL) {
		rc = npk_fail(&r->err, ENOMEM, "no memory for a request");
	} else {
		*later = *r;
		rc = npkfs_slow_start(&r->s->slow, r->req, getattr_slowly, later, &r->err);
		if (rc == 0)
			return;
		free(later);
	}
	npkfs_request_fail(r, r->node, NULL, rc);
	npkfs_request_end(r);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct npkfs_request r;

	(void)fi;
	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_GETATTR, ino))
		return;
	if (r.node->type->is_unmeasured != NULL && r.node->type->is_unmeasured(r.s, r.node)) {
		put_off_getattr(&r);
		return;
	}
	npkfs_request_reply_attr(&r);
	npkfs_request_end(&r);
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
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_OPENDIR, ino))
		return;
	rc = r.node->type->lookup ? npkfs_dir_open(r.s, r.node, &d, &r.err) : -ENOTDIR;
	if (rc != 0) {
		npkfs_request_fail(&r, r.node, NULL, rc);
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
	npkfs_request_end(&r);
}

static void read_dir(
	fuse_req_t req, enum npkfs_op op, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct npkfs_out out;
	struct npkfs_request r;
	size_t used = 0;
	int rc;

	if (!npkfs_request_begin_node(&r, req, op, ino))
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
		npkfs_request_fail(&r, r.node, NULL, rc);
	else
		fuse_reply_buf(req, out.room, used);
	npkfs_request_end(&r);
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
	struct npkfs_request r;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_RELEASEDIR);
	npkfs_dir_close(dir_of(fi));
	NPKFS_ADD(r.s->stats.directories, -1);
	fuse_reply_err(req, 0);
}

/* --- the filesystem ------------------------------------------------------------------------------------------------------ */

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct npk_store_info info;
	struct statvfs st;
	struct npkfs_request r;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_STATFS);
	if (fstatvfs(npk_store_dirfd(r.s->store), &st) != 0) {
		npkfs_request_fail(
			&r, NULL, NULL, npk_fail(&r.err, errno, "%s: %s", npk_store_path(r.s->store), strerror(errno)));
		return;
	}
	npk_store_info(r.s->store, &info);
	st.f_files = info.narrays;
	st.f_ffree = st.f_favail = 0;
	st.f_namemax = 255;
	fuse_reply_statfs(req, &st);
}

static void reply_value(struct npkfs_request *r, const struct npk_text *value, size_t size)
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
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_GETXATTR, ino))
		return;
	rc = npkfs_xattr(r.s, r.node, name, &value, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, NULL, rc);
	else
		reply_value(&r, &value, size);
	npk_text_fini(&value);
	npkfs_request_end(&r);
}

/* Attributes are read by name; listing them would make cp -a and rsync -X copy them. */
static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	const struct npk_text none = {0};
	struct npkfs_request r;

	(void)ino;
	npkfs_request_begin(&r, req, NPKFS_OP_LISTXATTR);
	reply_value(&r, &none, size);
}

/* POLL stays unimplemented: Go puts every file that it opens into epoll. */
const struct fuse_lowlevel_ops npkfs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = npkfs_op_setattr,
	.mknod = npkfs_op_mknod,
	.mkdir = npkfs_op_mkdir,
	.unlink = npkfs_op_unlink,
	.rmdir = npkfs_op_rmdir,
	.symlink = npkfs_op_symlink,
	.rename = npkfs_op_rename,
	.link = npkfs_op_link,
	.create = npkfs_op_create,
	.open = npkfs_op_open,
	.read = npkfs_op_read,
	.write = npkfs_op_write,
	.flush = npkfs_op_flush,
	.release = npkfs_op_release,
	.fsync = npkfs_op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = npkfs_op_fsync,
	.statfs = op_statfs,
	.setxattr = npkfs_op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = npkfs_op_removexattr,
	.lseek = npkfs_op_lseek,
	.fallocate = npkfs_op_fallocate,
	.copy_file_range = npkfs_op_copy_file_range,
};
