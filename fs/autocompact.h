/* autocompact.h - compacts arrays by themselves once enough of their rows are deleted (-o autocompact). */
#ifndef NPKFS_AUTOCOMPACT_H
#define NPKFS_AUTOCOMPACT_H

#include "fs.h"

/* Looks at all arrays if anything changed since the last call. Always from the same thread, with no lock held. */
void npkfs_autocompact(struct npkfs_session *s);

/* Rewrites the array without its deleted rows and tells the kernel. -EBUSY: it is open for writing and not `force`. In
 * ctl_change.c. */
int npkfs_compact(
	struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, bool force, struct npk_err *err);

#endif
