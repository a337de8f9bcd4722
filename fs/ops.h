/* ops.h - the requests of the kernel. */
#ifndef NPKFS_OPS_H
#define NPKFS_OPS_H

#include "fs.h"

extern const struct fuse_lowlevel_ops npkfs_ops; /* userdata: struct npkfs_session */

void npkfs_request_ready(void *session); /* session.c: the kernel has the reply to INIT */

#endif
