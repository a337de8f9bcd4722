/* tree.h - the end of a directory that a test made. */
#ifndef TREE_H
#define TREE_H

#include <ftw.h>
#include <stdio.h>

static inline int t_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

/* With all that is in it; symlinks are not followed. Nothing there is fine. */
static inline void t_remove_tree(const char *path)
{
	nftw(path, t_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
