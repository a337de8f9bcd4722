/* ops_change.c - what would change the store: a read-only mount refuses it. */
#include "ops.h"
#include "request.h"

#include <errno.h>

static void refuse(fuse_req_t req, fuse_ino_t ino, const char *name, const char *what)
{
	struct npkfs_request r;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	npkfs_request_fail(&r, r.node, name, npk_fail(&r.err, EROFS, "%s: this mount is read-only", what));
	npkfs_request_end(&r);
}

/* Truncating a conversation, as `>` does, is accepted and means nothing. */
void npkfs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	const int times = FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME;
	struct npkfs_request r;

	(void)attr;
	(void)fi;
	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	if (r.node->type->conversation && (to_set & FUSE_SET_ATTR_SIZE) && !(to_set & ~(FUSE_SET_ATTR_SIZE | times)))
		npkfs_request_reply_attr(&r);
	else
		npkfs_request_fail(
			&r, r.node, NULL, npk_fail(&r.err, EROFS, "changing attributes: this mount is read-only"));
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
	(void)mode;
	refuse(req, parent, name, "mkdir");
}

void npkfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse(req, parent, name, "unlink");
}

void npkfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse(req, parent, name, "rmdir");
}

void npkfs_op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	refuse(req, parent, name, "symlink");
}

void npkfs_op_rename(
	fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	(void)newparent;
	(void)newname;
	(void)flags;
	refuse(req, parent, name, "rename");
}

void npkfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino;
	refuse(req, newparent, newname, "link");
}

void npkfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)mode;
	(void)fi;
	refuse(req, parent, name, "create");
}

void npkfs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	refuse(req, ino, NULL, "setxattr");
}

void npkfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)name;
	refuse(req, ino, NULL, "removexattr");
}
