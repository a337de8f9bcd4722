/* request.h - one request of the kernel, from its arrival to its one answer. */
#ifndef NPKFS_REQUEST_H
#define NPKFS_REQUEST_H

#include "fs.h"

struct npkfs_request {
	fuse_req_t req;
	struct npkfs_session *s;
	struct npkfs_node *node; /* a reference, or NULL */
	enum npkfs_op op;
	struct npkfs_caller who;
	struct npk_err err;
};

/* Fills *r and counts the request. */
void npkfs_request_begin(struct npkfs_request *r, fuse_req_t req, enum npkfs_op op);
/* The same with the node; false: there is none, and the request is answered. */
bool npkfs_request_begin_node(struct npkfs_request *r, fuse_req_t req, enum npkfs_op op, fuse_ino_t ino);
void npkfs_request_end(struct npkfs_request *r); /* gives the node back */

/* Answers with the error `rc` (negative). `name` is the child of `node` that was asked for; both may be NULL. */
void npkfs_request_fail(struct npkfs_request *r, const struct npkfs_node *node, const char *name, int rc);
/* What has a message goes to last_error and the log. */
void npkfs_request_note(struct npkfs_request *r, const struct npkfs_node *node, const char *name, int rc);
/* Answers with the attributes of r->node. */
void npkfs_request_reply_attr(struct npkfs_request *r);
/* Answers with `child`, which was looked up or made below r->node, and gives it back. */
void npkfs_request_reply_entry(struct npkfs_request *r, struct npkfs_node *child);

#endif
