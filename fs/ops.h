/* ops.h - the requests of the kernel. */
#ifndef NPKFS_OPS_H
#define NPKFS_OPS_H

#include "fs.h"

extern const struct fuse_lowlevel_ops npkfs_ops; /* userdata: struct npkfs_session */

void npkfs_serve_ready(void *session); /* serve.c: the kernel has the reply to INIT */

/* ops_file.c */
void npkfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void npkfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void npkfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void npkfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void npkfs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void npkfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void npkfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);

/* ops_change.c */
void npkfs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void npkfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void npkfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void npkfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void npkfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void npkfs_op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void npkfs_op_rename(
	fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags);
void npkfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void npkfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void npkfs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void npkfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* file_range.c */
void npkfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void npkfs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
	fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);

#endif
