/* pkg_io.h - files and directories that are made beside their target and take its place when they are whole. */
#ifndef NPKI_PKG_IO_H
#define NPKI_PKG_IO_H

#include "numpack.h"

/* What is being made. Zeroed storage is empty. */
struct npki_beside {
	char *target; /* through links, when it is there */
	char *temp;   /* NULL: not made yet, or committed */
	bool exists;  /* there was a target */
};

/* Looks at the target. -EEXIST: there is one and `overwrite` is false. */
int npki_beside_init(struct npki_beside *b, const char *target, bool overwrite, struct npk_err *err);
/* Makes the temporary file (*fd is open for writing) or directory (opened). */
int npki_beside_file(struct npki_beside *b, int *fd, struct npk_err *err);
int npki_beside_dir(struct npki_beside *b, int *fd, struct npk_err *err);
/* The temporary file takes the target's place, durably; its own bytes must be synced. */
int npki_beside_commit_file(struct npki_beside *b, struct npk_err *err);
/* Likewise a directory. What was in its place is b->temp afterwards (`exists` tells whether there was something). */
int npki_beside_commit_dir(struct npki_beside *b, struct npk_err *err);
/* Frees; what was not committed must have been removed. */
void npki_beside_fini(struct npki_beside *b);

/* Calls ask(ctx, done, all) once in a while: -ECANCELED when it wants no more. */
struct npki_progress {
	bool (*ask)(void *ctx, uint64_t done, uint64_t all);
	void *ctx;
	uint64_t done, all;
};
int npki_progress_add(struct npki_progress *p, uint64_t bytes, struct npk_err *err);

#endif
