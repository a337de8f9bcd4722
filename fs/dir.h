/* dir.h - open directories: a listing taken when reading starts, and the replies made from it. */
#ifndef NPKFS_DIR_H
#define NPKFS_DIR_H

#include "fs.h"

struct npkfs_dir;

/* Adds a name to a listing. */
void npkfs_dir_add(struct npk_text *names, const char *name, mode_t kind);

int npkfs_dir_open(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_dir **out, struct npk_err *err);
void npkfs_dir_close(struct npkfs_dir *d);
/* Closes all of the session. */
void npkfs_dirs_end(struct npkfs_session *s);
/* Fills buf with entries from the cookie `off` on; *used says how much. With `plus`, entries carry their nodes, and the
 * kernel's lookup count of each was raised. */
int npkfs_dir_read(struct npkfs_dir *d, fuse_req_t req, char *buf, size_t size, uint64_t off, bool plus, size_t *used,
	struct npk_err *err);
/* The epoch of the store when the listing was taken, once it was read to its end; else 0. */
uint64_t npkfs_dir_finished(struct npkfs_dir *d);
/* What ops.c answers to a LOOKUP, and what READDIRPLUS puts into an entry. Counts the lookup. */
void npkfs_entry_fill(struct npkfs_session *s, struct npkfs_node *node, struct fuse_entry_param *e);
double npkfs_attr_timeout(struct npkfs_session *s, const struct npkfs_node *node);

#endif
