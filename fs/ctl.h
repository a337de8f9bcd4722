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
	struct npkfs_space *space; /* between begin and commit: that transaction, with a reference */
	bool in_block;             /* while lines are checked: likewise */
	bool json;                 /* fmt=json: errors are told in that way too */
	struct npkfs_reply *reply;
};

/* Whose arrays the line is about. */
struct npkfs_space *npkfs_query_space(const struct npkfs_query *q);

/* Each adds to the reply of the line's write. At most config ctl_max bytes of text: else -E2BIG. */
int npkfs_reply_text(struct npkfs_query *q, struct npk_text *t, struct npk_err *err); /* takes the text over */
/* The .npy stream of a view, read while the client reads: costs no memory. Takes the view and a reference of its
 * generation over, also when it fails. */
int npkfs_reply_view(struct npkfs_query *q, struct npk_view *v, struct npk_gen *g, struct npk_err *err);

/* The .npy streams of `rows` rows of the view each (0: a single one), likewise. */
int npkfs_reply_blocks(
	struct npkfs_query *q, struct npk_view *v, struct npk_gen *g, uint64_t rows, struct npk_err *err);

/* The answer of a search, computed when the client reads. Takes the reference over, also when it fails. */
int npkfs_reply_search(struct npkfs_query *q, struct npkfs_search *search, struct npk_err *err);

/* ctl_search.c: "search", and the verb of .numpack/ctl, whose first two words are the verb and the array. */
int npkfs_check_search(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_search(struct npkfs_query *q, struct npk_err *err);
int npkfs_check_ctl_search(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_ctl_search(struct npkfs_query *q, struct npk_err *err);

/* command.c: files that are named as their verb; and .numpack/ctl. */
int npkfs_check_change(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_change(struct npkfs_query *q, struct npk_err *err);
int npkfs_check_ctl(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_ctl(struct npkfs_query *q, struct npk_err *err);

int npkfs_check_getitem(struct npkfs_query *q, struct npk_err *err);
int npkfs_run_getitem(struct npkfs_query *q, struct npk_err *err);

#endif
