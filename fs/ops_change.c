/* ops_change.c - changes of names and attributes. A read-only mount refuses them. */
#include "changed.h"
#include "dir.h"
#include "file.h"
#include "layout.h"
#include "ops.h"
#include "request.h"
#include "root.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void refuse(fuse_req_t req, fuse_ino_t ino, const char *name, const char *what)
{
	struct npkfs_request r;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	if (r.s->rw)
		npkfs_request_fail(&r, r.node, name, -EPERM);
	else
		npkfs_request_fail(&r, r.node, name, npk_fail(&r.err, EROFS, "%s: this mount is read-only", what));
	npkfs_request_end(&r);
}

static int may_change(struct npkfs_request *r, bool possible, const char *what)
{
	if (!r->s->rw)
		return npk_fail(&r->err, EROFS, "%s: this mount is read-only", what);
	return possible ? 0 : -EPERM;
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

static int set_array(struct npkfs_request *r, const struct stat *attr, int to_set)
{
	struct npk_array *a;
	int rc = npkfs_node_array(r->s, r->node, &a, &r->err);

	if (rc != 0)
		return rc;
	if (to_set & FUSE_SET_ATTR_MODE)
		rc = npk_array_set_mode(a, attr->st_mode & 0777, &r->err);
	if (rc == 0 && (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		rc = npk_array_set_owner(a, to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
			to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1, &r->err);
	if (rc == 0 && (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)))
		rc = npk_array_set_mtime(a, to_us(attr, to_set), &r->err);
	if (rc == 0)
		rc = npkfs_announce_grown(r->s, r->node->space, a, &r->err);
	npk_array_put(a);
	return rc;
}

/* Time, mode and owner of the store's directory. */
static int set_store(struct npkfs_request *r, const struct stat *attr, int to_set)
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
static int set_file(struct npkfs_request *r, const struct stat *attr, int to_set, struct npkfs_handle *h)
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
static int set_attr(struct npkfs_request *r, const struct stat *attr, int to_set, struct npkfs_handle *h)
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

void npkfs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	rc = set_attr(&r, attr, to_set, fi != NULL ? handle_of(fi) : NULL);
	if (rc == 0) /* the kernel takes the size of this answer without asking how old it is */
		npkfs_node_show_size(r.node, NULL);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, NULL, rc);
	else
		npkfs_request_reply_attr(&r);
	npkfs_request_end(&r);
}

void npkfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)mode;
	(void)rdev;
	refuse(req, parent, name, "mknod");
}

void npkfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct npkfs_node *child = NULL;
	struct npkfs_request r;
	int rc;

	(void)mode;
	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	rc = may_change(&r, r.node->type->mkdir != NULL, "mkdir");
	if (rc == 0)
		rc = r.node->type->mkdir(r.s, r.node, name, &child, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, name, rc);
	else
		npkfs_request_reply_entry(&r, child);
	npkfs_request_end(&r);
}

void npkfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	if (!r.s->rw)
		rc = npk_fail(&r.err, EROFS, "unlink: this mount is read-only");
	else
		rc = r.node->type->unlink ? r.node->type->unlink(r.s, r.node, name, &r.who, &r.err) : -EPERM;
	if (rc == 0 && r.node->type == &npkfs_view_dir_type) { /* what it changed has a name elsewhere */
		npkfs_late_done(&r);
		return;
	}
	if (rc != 0)
		npkfs_request_fail(&r, r.node, name, rc);
	else
		fuse_reply_err(req, 0);
	npkfs_request_end(&r);
}

void npkfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	rc = may_change(&r, r.node->type->rmdir != NULL, "rmdir");
	if (rc == 0)
		rc = r.node->type->rmdir(r.s, r.node, name, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, name, rc);
	else
		fuse_reply_err(req, 0);
	npkfs_request_end(&r);
}

void npkfs_op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	refuse(req, parent, name, "symlink");
}

void npkfs_op_rename(
	fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	struct npkfs_node *to = NULL;
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, parent))
		return;
	to = npkfs_node_by_id(&r.s->inodes, newparent);
	rc = may_change(&r, npkfs_is_root(r.node) && to != NULL && npkfs_is_root(to), "rename");
	if (rc == 0 && to != r.node)
		rc = npk_fail(&r.err, EXDEV, "a transaction and what is outside are as two filesystems");
	if (rc == 0)
		rc = npkfs_root_rename(r.s, r.node->space, name, newname, flags, &r.who, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, name, rc);
	else
		fuse_reply_err(req, 0);
	npkfs_node_put(&r.s->inodes, to);
	npkfs_request_end(&r);
}

void npkfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino;
	refuse(req, newparent, newname, "link");
}

/* Attributes of others have no place here; cp -p and rsync -X accept that. */
void npkfs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
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

void npkfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)name;
	refuse(req, ino, NULL, "removexattr");
}
