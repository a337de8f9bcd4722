/* request.c - what all requests have in common. */
#include "request.h"
#include "dir.h"
#include "log.h"
#include "names.h"

#include <errno.h>
#include <string.h>

void npkfs_request_begin(struct npkfs_request *r, fuse_req_t req, enum npkfs_op op)
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

bool npkfs_request_begin_node(struct npkfs_request *r, fuse_req_t req, enum npkfs_op op, fuse_ino_t ino)
{
	npkfs_request_begin(r, req, op);
	r->node = npkfs_node_by_id(&r->s->inodes, ino);
	if (r->node != NULL) {
		if (!atomic_load(&r->node->known))
			atomic_store(&r->node->known, true);
		return true;
	}
	NPKFS_COUNT(r->s->stats.errors[op]);
	fuse_reply_err(req, ESTALE);
	return false;
}

void npkfs_request_end(struct npkfs_request *r)
{
	npkfs_node_put(&r->s->inodes, r->node);
}

/* ESTALE makes the kernel try again, nobody has seen it yet. */
void npkfs_request_note(struct npkfs_request *r, const struct npkfs_node *node, const char *name, int rc)
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
	if (path.p != NULL)
		npkfs_make_printable(path.p);
	npkfs_log(rc == -EIO || rc == -EUCLEAN || rc == -ESTALE ? NPKFS_WARN : NPKFS_DEBUG, "%s %s: %s: %s",
		npkfs_op_name(r->op), path.p ? path.p : "", strerror(-rc), r->err.msg);
	npk_text_fini(&path);
}

void npkfs_request_fail(struct npkfs_request *r, const struct npkfs_node *node, const char *name, int rc)
{
	NPKFS_COUNT(r->s->stats.errors[r->op]);
	npkfs_request_note(r, node, name, rc);
	fuse_reply_err(r->req, -rc);
}

void npkfs_request_reply_attr(struct npkfs_request *r)
{
	struct stat st;

	npkfs_stat(r->s, r->node, &st);
	fuse_reply_attr(r->req, &st, npkfs_attr_timeout(r->s, r->node));
}

void npkfs_request_reply_entry(struct npkfs_request *r, struct npkfs_node *child)
{
	struct fuse_entry_param e;

	npkfs_entry_fill(r->s, child, &e);
	if (fuse_reply_entry(r->req, &e) != 0)
		npkfs_node_forget(&r->s->inodes, e.ino, 1);
	npkfs_node_put(&r->s->inodes, child);
}
