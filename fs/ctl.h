/* ctl.h - what a command of a conversation sees: the words of its line, and where its reply goes. */
#ifndef NPKFS_CTL_H
#define NPKFS_CTL_H

#include "control.h"
#include "search.h"

struct npkfs_reply;

struct npkfs_query {
	struct npkfs_session *s;
	const struct npkfs_node *node; /* its name says which array */
	struct npkfs_caller who;
	struct npkfs_words words;
	bool several;                                       /* the line is one of several in its write */
	struct npkfs_attached attached[NPKFS_ATTACHED_MAX]; /* what follows the line, in the order of its words */
	unsigned nattached;
	struct npkfs_reply *reply;
};

/* Each adds to the reply of the line's write. At most config ctl_max bytes of text: else -E2BIG. */
int npkfs_reply_text(struct npkfs_query *q, struct npk_text *t, struct npk_err *err); /* takes the text over */
/* The .npy stream of a view, read while the client reads: costs no memory. Takes the view and a reference of its
 * generation over, also when it fails. */
int npkfs_reply_view(struct npkfs_query *q, struct npk_view *v, struct npk_gen *g, struct npk_err *err);

/* The answer of a search, computed when the client reads. Takes the reference over, also when it fails. */
int npkfs_reply_search(struct npkfs_query *q, struct npkfs_search *search, struct npk_err *err);

/* ctl_search.c: "search", and the verb of .numpack/ctl, whose first two words are the verb and the array. */
int npkfs_check_search(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_search(struct npkfs_query *q, struct npk_err *err);
int npkfs_check_ctl_search(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_ctl_search(struct npkfs_query *q, struct npk_err *err);

/* ctl_change.c: files that are named as their verb; and .numpack/ctl. */
int npkfs_check_change(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_change(struct npkfs_query *q, struct npk_err *err);
int npkfs_check_ctl(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_ctl(struct npkfs_query *q, struct npk_err *err);

int npkfs_check_getitem(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_getitem(struct npkfs_query *q, struct npk_err *err);

#endif
