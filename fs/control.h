/* control.h - the tables of control files: one row per name, from which listing, usage texts and permissions come. */
#ifndef NPKFS_CONTROL_H
#define NPKFS_CONTROL_H

#include "fs.h"
#include "words.h"

struct npkfs_query;

struct npkfs_control {
	const char *name;
	const struct npkfs_type *type;

	/* Text files: the content at open. `node->name` says which array. */
	int (*render)(struct npkfs_session *s, const struct npkfs_node *node, const struct npkfs_caller *who,
		struct npk_text *out, struct npk_err *err);
	bool owner_only; /* tells of other users: readable by the daemon's user alone */

	/* Conversations: what a line may look like, and what it does. `check` sees every line of a write before `run`
	 * sees the first one; it must not change anything. */
	bool inside;   /* of .numpack: a transaction has it too */
	bool changes;  /* what it does changes the store */
	bool attaches; /* words npy=BYTES and raw=BYTES announce bytes that follow the line */
	bool others;   /* it reads other arrays than the one of its directory */
	int argc_min, argc_max;
	const char *usage;
	int (*check)(struct npkfs_query *q, struct npk_err *err); /* NULL: counting the words is enough */
	int (*run)(struct npkfs_query *q, struct npk_err *err);
};

/* Both end with a row without a name. */
extern const struct npkfs_control npkfs_store_controls[]; /* .numpack/ */
extern const struct npkfs_control npkfs_array_controls[]; /* .numpack/arrays/<name>/ */

/* The row called `name`, or NULL. */
const struct npkfs_control *npkfs_control_find(const struct npkfs_control *table, const char *name);

/* The path of a node that has a table row. */
void npkfs_control_path(const struct npkfs_node *node, struct npk_text *out);

#endif
