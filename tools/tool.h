/* tool.h - what the subcommands of npk share: their table, how they talk, where their output goes. */
#ifndef NPKT_TOOL_H
#define NPKT_TOOL_H

#include "numpack.h"

#include <stdio.h>

enum { /* exit statuses; "Exit status" of npk.1 */
	NPKT_OK = 0,
	NPKT_USAGE = 1,  /* the command line makes no sense */
	NPKT_FAILED = 2, /* the store, an array or the output */
	NPKT_BUSY = 3,   /* another process writes the store */
};

#define NPKT_BLOCK (1u << 20) /* bytes that are read and written at once */
#define NPKT_OPTS_MAX 16

/* --- the table ------------------------------------------------------------------------------------------------------ */

struct npkt_opt {
	const char *name, *arg; /* arg NULL: a flag */
	char key;
	const char *help;
};

/* What was said: opt[i] belongs to entry i of the command's options: its value ("" for a flag), or NULL. */
struct npkt_args {
	const char *opt[NPKT_OPTS_MAX];
	char **operand;
	int noperands;
};

/* Parsing, --help, completion and the man page's test go by this. */
struct npkt_cmd {
	const char *name, *operands; /* operands as in the usage line */
	int min, max;                /* how many operands; max -1: any number */
	const char *help;            /* one line */
	const char *more;            /* the rest of --help: rules, then "Examples:" */
	const struct npkt_opt *opts; /* ends with a NULL name */
	int usage_status;            /* exit status for nonsense on the command line */
	int (*run)(const struct npkt_args *args);
};

extern const struct npkt_cmd npkt_create;
extern const struct npkt_cmd npkt_ls;
extern const struct npkt_cmd npkt_info;
extern const struct npkt_cmd npkt_get;
extern const struct npkt_cmd npkt_cat;
extern const struct npkt_cmd npkt_save;
extern const struct npkt_cmd npkt_append;
extern const struct npkt_cmd npkt_replace;
extern const struct npkt_cmd npkt_drop;
extern const struct npkt_cmd npkt_compact;
extern const struct npkt_cmd npkt_clone;
extern const struct npkt_cmd npkt_rename;
extern const struct npkt_cmd npkt_reset;
extern const struct npkt_cmd npkt_pack;
extern const struct npkt_cmd npkt_unpack;
extern const struct npkt_cmd npkt_pkginfo;
extern const struct npkt_cmd npkt_import;
extern const struct npkt_cmd npkt_export;
extern const struct npkt_cmd npkt_search;
extern const struct npkt_cmd npkt_score;
extern const struct npkt_cmd npkt_merge;
extern const struct npkt_cmd npkt_verify;
extern const struct npkt_cmd npkt_repair;
extern const struct npkt_cmd npkt_batch;
extern const struct npkt_cmd npkt_stats;
extern const struct npkt_cmd npkt_top;
extern const struct npkt_cmd npkt_umount;
extern const struct npkt_cmd npkt_doctor;
extern const struct npkt_cmd npkt_bench;

/* --- talking -------------------------------------------------------------------------------------------------------- */

void npkt_say_as(const char *cmd); /* messages begin with "npk CMD: " from now on; NULL: with "npk: " */
/* One line on stderr. */
void npkt_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int npkt_failed(const struct npk_err *err); /* complains, returns NPKT_FAILED */
/* Likewise, with the store's path before it unless it is there. */
int npkt_failed_store(const char *path, const struct npk_err *err);
/* Text from disk with control characters, those that turn the direction of writing, and what is not UTF-8 as \xNN. */
void npkt_put_escaped(FILE *out, const char *bytes, size_t len);
/* An array's name: as it is into a pipe or file, escaped on a terminal. */
void npkt_put_name(FILE *out, const char *name, size_t len);
size_t npkt_name_width(FILE *out, const char *name, size_t len); /* how many characters that prints */
/* Takes a newline off the end, for more to come on the same line. */
void npkt_chop(struct npk_text *text);
/* Prints the text and empties it; without memory for it the error is told at npkt_flush(). */
void npkt_put_text(FILE *out, struct npk_text *text);
/* The last step of what printed on stdout: `status`, or NPKT_FAILED when not all of it could be written. */
int npkt_flush(int status);

/* --- stores --------------------------------------------------------------------------------------------------------- */

/* Opens, or complains and returns NULL. */
struct npk_store *npkt_open(const char *path);
/* Complains when the store's list of arrays is not all there: NPKT_FAILED then. */
int npkt_check_list(struct npk_store *s);
/* NPKT_USAGE with a complaint when both are given, or `rows` speaks of more than one axis. Either may be NULL. */
int npkt_check_rows(const char *rows, const char *sel);
#define NPKT_ABOUT_SEL                                                                                                 \
	"SEL is a list of rows (negative from the end) and slices a:b:c as in Python, joined by ',', '+' or blanks;\n" \
	"or \"all\"; or mask=NAME: the rows where that array of the store is nonzero. --sel takes one such list for\n" \
	"each axis, separated by ';' or '@'; parts that are missing at the end mean everything. A selection never\n"   \
	"removes an axis.\n"                                                                                           \
	"\n"

/* The current generation of an array; its name is looked up. */
int npkt_gen(struct npk_gen **out, struct npk_store *s, const char *name, struct npk_err *err);

/* --- changing a store ------------------------------------------------------------------------------------------------ */

/* What one run of npk changes: all of it or, after an error, nothing. */
struct npkt_change {
	const char *path;
	struct npk_store *store;
	struct npk_txn *txn;
	struct npk_store *s; /* of the transaction: what is to be changed */
};

#define NPKT_WAIT_OPT                                                                                                  \
	{                                                                                                              \
		"wait", "SECONDS", 'w', "how long to wait for another writer to finish; 2 by default"                  \
	}
#define NPKT_ABOUT_WRITING                                                                                             \
	"When another process has the store open for writing, a mount for example, the exit status is 3 and the "      \
	"message\n"                                                                                                    \
	"names it. What is changed is on disk, as any version of NumPack reads it, when npk ends.\n"

/* Opens `path` with `flags` (NPK_RDWR and more) and becomes its writer; `wait` is the value of --wait, may be NULL. NPKT_OK,
 * or the exit status after a complaint. */
int npkt_change_begin(struct npkt_change *c, const char *path, unsigned flags, const char *wait);
/* Ends what begin() began. `rc` and `err` are the outcome of the changes; returns the exit status. */
int npkt_change_end(struct npkt_change *c, int rc, struct npk_err *err);
/* A whole command: `one` is called with each operand after the store; without any, once with NULL. Returns the exit status. */
int npkt_change_each(const struct npkt_args *args, const char *wait,
	int (*one)(struct npk_store *s, const char *word, struct npk_err *err));
/* The end of a path, as a store is called; malloc'd. */
char *npkt_base_name(const char *path);

/* --- mounts ----------------------------------------------------------------------------------------------------------- */

#define NPKT_PATH_MAX 4096
/* The topmost mount of ours at `mountpoint`, or of the store with the path `store`; either may be NULL. Paths as the kernel
 * has them, without links. */
bool npkt_find_mount(const char *mountpoint, const char *store, char point[NPKT_PATH_MAX], char of[NPKT_PATH_MAX]);
/* The mount that PATH is, or the store that is mounted; complains when there is none. */
bool npkt_mount_of(const char *path, char point[NPKT_PATH_MAX], char of[NPKT_PATH_MAX]);
/* The path without links, resolved in its parent: the mount itself may be dead. */
bool npkt_resolve(const char *path, char out[NPKT_PATH_MAX]);
/* mountinfo writes blanks, tabs, newlines and backslashes as \ooo. */
void npkt_unescape(char *text);
/* "sync=always,ro": the options of a mount that are not the built-in ones, cut to `cap`. */
int npkt_mount_options(const char *mountpoint, char *out, size_t cap, struct npk_err *err);
/* Whether npk was called by the name that umount(8) looks for, and then what it does; returns umount(8)'s exit status. */
bool npkt_is_umount_helper(const char *program);
int npkt_umount_helper(int argc, char **argv);

/* --- input ---------------------------------------------------------------------------------------------------------- */

/* A file of another format, or "-", standard input. Zeroed storage is empty. */
struct npkt_input {
	int fd;
	const char *file;
	struct npk_source *src;
	uint64_t bytes; /* of the file, from where it is read; 0: not known */
};

int npkt_input_open(struct npkt_input *in, const char *file, struct npk_source_how *how, struct npk_err *err);
void npkt_input_close(struct npkt_input *in);
/* The one array of a .npy file; it is an error when there is none, or more than one. */
int npkt_input_only(struct npkt_input *in, struct npk_source_array *a, struct npk_err *err);
int npkt_input_no_more(struct npkt_input *in, struct npk_err *err);
struct npkt_progress;
/* What the next array of the input holds, as one new array of the store. `progress` may be NULL. */
int npkt_save_input(struct npk_store *s, const char *name, struct npkt_input *in, const struct npk_source_array *a,
	struct npkt_progress *progress, struct npk_err *err);

/* The rows of the current array of the source in a mapping, for calls that want them in one piece. Its memory is that of
 * a temporary file. Zeroed storage is empty. */
struct npkt_rows {
	void *p;
	size_t len;
};

int npkt_rows_map(struct npkt_rows *r, struct npk_source *src, struct npk_err *err);
void npkt_rows_unmap(struct npkt_rows *r);

/* -EINVAL when the dtype or the shape of a row of `a` is not that of the array. */
int npkt_same_rows(
	const char *file, const struct npk_source_array *a, const struct npk_gen_info *g, struct npk_err *err);

/* Adds the rows of every stream that is left in the input. */
int npkt_append_source(struct npk_store *s, struct npkt_input *in, const char *name, struct npk_err *err);
/* The rows that `sel` names (NULL: all) get those of the input's only array. */
int npkt_replace_source(
	struct npk_array *array, struct npkt_input *in, const char *sel, bool atomic, struct npk_err *err);

/* "NAME=FILE", or "FILE.npy" for an array of that name. *name is malloc'd. */
int npkt_take_word(const char *word, const char *suffix, char **name, const char **file, struct npk_err *err);

/* --- output --------------------------------------------------------------------------------------------------------- */

/* A file that appears whole or not at all: written beside its target, which it replaces at the end. A target that is no
 * regular file (a pipe, /dev/null), and "-", standard output, are written as they are. Zeroed storage is empty. One at a
 * time, because a signal removes what is half written. */
struct npkt_out {
	int fd;                  /* 0: none */
	uint64_t written, begun; /* bytes of npkt_out_write(); so far the disk was told to begin */
	char *temp, *target;
	const char *name; /* for messages */
};

/* -EINVAL: `binary` output to a terminal. */
int npkt_out_open(struct npkt_out *o, const char *path, bool binary, struct npk_err *err);
int npkt_out_write(struct npkt_out *o, const void *buf, size_t len, struct npk_err *err);
int npkt_out_commit(struct npkt_out *o, struct npk_err *err);
void npkt_out_fini(struct npkt_out *o); /* removes what was not committed */

/* Rows [first, first + nrows) of a view as one .npy stream, in blocks. `progress`, here and below, may be NULL. */
int npkt_out_npy(struct npkt_out *o, struct npk_view *v, uint64_t first, uint64_t nrows, struct npkt_progress *progress,
	struct npk_err *err);

/* A view as lines of text, see npk_csv_open_view(). */
int npkt_out_csv(
	struct npkt_out *o, struct npk_view *v, char delimiter, struct npkt_progress *progress, struct npk_err *err);

#endif
