/* command.h - one command of a conversation, as its words say it: the verbs of .numpack/ctl, and the files that are named as
 * their verb. */
#ifndef NPKFS_COMMAND_H
#define NPKFS_COMMAND_H

#include "ctl.h"

struct npkfs_command {
	struct npkfs_query *q;
	struct npkfs_space *space;           /* whose arrays it is about; NULL: the store's */
	const char *arrays[NPKFS_WORDS_MAX]; /* the names that came behind the verb */
	unsigned narrays;
	const char *rows; /* "rows=..." as one part of a selection; NULL: not said */
	const char *sel, *fmt, *confirm;
	bool atomic, force, json;
	struct npk_text row_words; /* what `rows` points to */
};

typedef int npkfs_command_fn(struct npkfs_command *c, struct npk_err *err);

/* What a verb takes beside its arrays. */
enum {
	NPKFS_TAKES_ROWS = 1,
	NPKFS_NEEDS_ROWS = 2,
	NPKFS_TAKES_SEL = 4,
	NPKFS_TAKES_ATOMIC = 8,
	NPKFS_TAKES_FORCE = 16,
	NPKFS_TAKES_CONFIRM = 32,
	NPKFS_TAKES_BYTES = 64, /* one payload for each array */
	NPKFS_READS = 128,      /* changes nothing: a read-only mount has it too; fmt= is that of its answer */
};

struct npkfs_verb {
	const char *name;
	unsigned min, max; /* arrays */
	unsigned takes;
	const char *usage;
	npkfs_command_fn *check; /* must not change anything; NULL: nothing more to check */
	npkfs_command_fn *run;
};

/* "OK verb rows=... generation=...", or the same as JSON. */
int npkfs_reply_ok(struct npkfs_command *c, const char *verb, uint64_t rows, uint64_t generation, struct npk_err *err);
/* The same about what the array is now; `rows` NULL: its rows. */
int npkfs_reply_array(
	struct npkfs_command *c, const char *verb, const char *name, const uint64_t *rows, struct npk_err *err);
/* Runs fn in a transaction when the command is about several arrays and is in none yet: all or nothing. */
int npkfs_together(struct npkfs_command *c, npkfs_command_fn *fn, struct npk_err *err);
/* The array's generation now. */
int npkfs_command_gen(
	struct npkfs_command *c, const char *name, struct npk_array **a, struct npk_gen **g, struct npk_err *err);

/* ctl_change.c */
npkfs_command_fn npkfs_check_drop, npkfs_run_drop, npkfs_run_compact, npkfs_run_clone, npkfs_run_rename, npkfs_run_sync,
	npkfs_check_reset, npkfs_run_reset, npkfs_run_reload;
/* ctl_rows.c */
npkfs_command_fn npkfs_check_bytes, npkfs_run_save, npkfs_run_append, npkfs_check_replace, npkfs_run_replace;
/* ctl_get.c */
npkfs_command_fn npkfs_check_get, npkfs_run_get, npkfs_run_has, npkfs_check_stream, npkfs_run_stream;
/* ctl_batch.c */
npkfs_command_fn npkfs_check_begin, npkfs_run_begin, npkfs_check_commit, npkfs_run_commit, npkfs_run_abort;
/* ctl_getitem.c */
npkfs_command_fn npkfs_check_ctl_getitem, npkfs_run_ctl_getitem;

#endif
