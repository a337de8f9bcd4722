/* background.h - the daemon leaves its terminal; the command waits until the mount answers. */
#ifndef NPKFS_BACKGROUND_H
#define NPKFS_BACKGROUND_H

#include "session.h"

/* Forks. In the child it returns 0 and *report is where the outcome goes: / is its directory, 0, 1 and 2 are /dev/null.
 * In the parent it returns the child's id and *report is where the outcome comes from. -errno on failure. */
pid_t npkfs_background_fork(int *report, struct npk_err *err);
/* The child's outcome, told once: it also leaves its parent's session, closes *report and sets it to -1. Does nothing
 * when it is -1 already. */
void npkfs_background_tell(int *report, enum npkfs_exit status, const struct npk_err *err);
/* Waits for the outcome. *died: the child ended and told none, so that nobody serves or removes the mount. */
enum npkfs_exit npkfs_background_wait(int report, bool *died, struct npk_err *err);

#endif
