/* ctl.h - what a command of a conversation sees: the words of its line, and where its reply goes. */
#ifndef NPKFS_CTL_H
#define NPKFS_CTL_H

#include "control.h"

struct npkfs_reply;

struct npkfs_query {
	struct npkfs_session *s;
	const struct npkfs_node *node; /* its name says which array */
	struct npkfs_caller who;
	struct npkfs_words words;
	bool several; /* the line is one of several in its write */
	struct npkfs_reply *reply;
};

/* Each adds to the reply of the line's write. At most config ctl_max bytes of text: else -E2BIG. */
int npkfs_reply_text(struct npkfs_query *q, struct npk_text *t, struct npk_err *err); /* takes the text over */
/* The .npy stream of a view, read while the client reads: costs no memory. Takes the view and a reference of its
 * generation over, also when it fails. */
int npkfs_reply_view(struct npkfs_query *q, struct npk_view *v, struct npk_gen *g, struct npk_err *err);

/* ctl_change.c: files that are named as their verb; and .numpack/ctl. */
int npkfs_check_change(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_change(struct npkfs_query *q, struct npk_err *err);
int npkfs_check_ctl(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_ctl(struct npkfs_query *q, struct npk_err *err);

int npkfs_check_getitem(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_getitem(struct npkfs_query *q, struct npk_err *err);

#endif
