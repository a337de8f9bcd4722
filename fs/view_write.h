/* view_write.h - writing to view/<selection>.npy replaces the selected elements. */
#ifndef NPKFS_VIEW_WRITE_H
#define NPKFS_VIEW_WRITE_H

#include "fs.h"

/* In the detail of a private node's key: the thread that asked for it with O_TRUNC. */
#define NPKFS_VIEW_PRIVATE (1ull << 63)

/* The private node that this thread is about to open, or NULL; with a reference. */
struct npkfs_node *npkfs_view_private(
	struct npkfs_session *s, const struct npkfs_key *shown, const struct npkfs_caller *who);
/* Opens a view for writing. -ESTALE: the kernel is to look the name up again, and gets a private node. */
int npkfs_view_open_write(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o,
	struct npkfs_handle **out, struct npk_err *err);

#endif
