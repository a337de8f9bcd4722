/* root.h - changes of the names in the root: create, unlink, rename, and the attributes that can be set. */
#ifndef NPKFS_ROOT_H
#define NPKFS_ROOT_H

#include "fs.h"

int npkfs_root_create(struct npkfs_session *s, struct npkfs_node *dir, const char *name, mode_t mode,
	struct npkfs_open *o, struct npkfs_node **out, struct npkfs_handle **handle, struct npk_err *err);
int npkfs_root_unlink(struct npkfs_session *s, struct npkfs_node *dir, const char *name, const struct npkfs_caller *who,
	struct npk_err *err);
/* `flags` as renameat2(2) has them. */
int npkfs_root_rename(struct npkfs_session *s, struct npkfs_space *sp, const char *from, const char *to, unsigned flags,
	const struct npkfs_caller *who, struct npk_err *err);

#endif
