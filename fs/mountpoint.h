/* mountpoint.h - may we mount there, and why a mount did not come up. */
#ifndef NPKFS_MOUNTPOINT_H
#define NPKFS_MOUNTPOINT_H

#include "session.h"

/* Looks at c->mountpoint before anything is opened. -EINVAL with the sentence for the user: missing, no directory, a
 * dead mount, a mount of ours, inside the store or around it. */
int npkfs_mountpoint_check(const struct npkfs_config *c, struct npk_err *err);

/* Catches what libfuse and fusermount3 print on fd 2; no other thread may run. -1 when that is impossible, which `end`
 * accepts. `end` puts fd 2 back and appends the text. */
int npkfs_stderr_catch(int *saved);
void npkfs_stderr_end(int caught, int saved, struct npk_text *out);

/* Makes one sentence of `said`, the text of libfuse and fusermount3 about a mount that failed, and the exit status that
 * fits. Leaves *err and *status alone when it finds nothing better than what is there. */
void npkfs_mount_cause(const struct npkfs_config *c, const char *said, enum npkfs_exit *status, struct npk_err *err);

#endif
