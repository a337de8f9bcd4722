/* file.h - open files of the root: arrays, and what is not one yet. */
#ifndef NPKFS_FILE_H
#define NPKFS_FILE_H

#include "fs.h"

int npkfs_file_open(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err);
/* Makes an array of a staged file, under the name it has or `name`, which must be an array's component. Its node then shows
 * that array. An array of that name is replaced, and gives mode and owner on, unless the file is `renamed` to it. Needs
 * st->lock. */
int npkfs_staged_commit(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, const char *name,
	bool renamed, struct npk_err *err);
/* ftruncate(2) and truncate(2): `h` is NULL for the latter. -ESTALE: look the name up again. */
int npkfs_file_resize(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_handle *h, uint64_t size,
	const struct npkfs_caller *who, struct npk_err *err);
/* copy_file_range(2) of a whole array to an empty file that becomes another array: a clone, recognised from the first piece;
 * the following pieces are then there already. False: not such a case, *rc is not set. */
bool npkfs_file_clone(struct npkfs_handle *in, uint64_t off_in, struct npkfs_handle *out, uint64_t off_out, size_t len,
	size_t *done, int *rc, struct npk_err *err);
/* Before an acknowledged change is answered: makes it durable with sync=always. */
int npkfs_sync_change(struct npkfs_session *s, struct npk_err *err);

#endif
