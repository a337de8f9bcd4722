/* names.h - lists of file names. */
#ifndef NPKI_NAMES_H
#define NPKI_NAMES_H

#include "numpack.h"

/* Zeroed storage is an empty one. */
struct npki_names {
	char **path;
	size_t n;
};

int npki_names_add(struct npki_names *l, const char *path);
void npki_names_sort(struct npki_names *l);                        /* and drops repeats */
bool npki_names_has(const struct npki_names *l, const char *path); /* of a sorted list */
void npki_names_fini(struct npki_names *l);
/* Adds what is in the directory `path` below dirfd, and sorts. */
int npki_list_dir(int dirfd, const char *path, struct npki_names *out, struct npk_err *err);

#endif
