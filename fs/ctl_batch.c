/* ctl_batch.c - begin, commit and abort as commands: a block of lines in ctl, or the end of a transaction's directory. */
#include "command.h"

#include <errno.h>

int npkfs_check_begin(struct npkfs_command *c, struct npk_err *err)
{
	if (c->q->in_block || c->q->node->space != NULL)
		return npk_fail(err, EINVAL, "begin: this is in a transaction already");
	c->q->in_block = true;
	return 0;
}

int npkfs_check_commit(struct npkfs_command *c, struct npk_err *err)
{
	if (!c->q->in_block && c->q->node->space == NULL)
		return npk_fail(err, EINVAL, "commit and abort end a transaction, there is none");
	c->q->in_block = false;
	return 0;
}

int npkfs_run_begin(struct npkfs_command *c, struct npk_err *err)
{
	int rc = npkfs_batch_begin(c->q->s, NULL, &c->q->space, err);

	return rc == 0 ? npkfs_reply_ok(c, "begin", 0, 0, err) : rc;
}

/* The end of a block. */
static void leave(struct npkfs_command *c)
{
	npkfs_space_put(c->q->space);
	c->q->space = NULL;
}

int npkfs_run_commit(struct npkfs_command *c, struct npk_err *err)
{
	int rc = npkfs_batch_commit(c->q->s, c->space, err);

	if (rc != 0)
		return rc; /* ctl.c ends a block that failed; a directory stays */
	leave(c);
	return npkfs_reply_ok(c, "commit", 0, 0, err);
}

int npkfs_run_abort(struct npkfs_command *c, struct npk_err *err)
{
	int rc = npkfs_batch_abort(c->q->s, c->space, err);

	if (rc != 0)
		return rc;
	leave(c);
	return npkfs_reply_ok(c, "abort", 0, 0, err);
}
