/* names.h - file names: those of an array, and lists of them. */
#ifndef NPKI_NAMES_H
#define NPKI_NAMES_H

#include "numpack.h"

/* data_<array>.npkd and deleted_<array>.npkb, as NumPack names the files of an array. The caller frees; NULL: no memory. */
char *npki_data_file(const char *array);
char *npki_bitmap_file(const char *array);

/* A list; zeroed storage is an empty one. */
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
