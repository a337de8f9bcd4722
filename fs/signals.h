/* signals.h - one thread that waits for signals and calls the session: TERM and INT end the mount, HUP reloads, USR1
 * logs statistics. */
#ifndef NPKFS_SIGNALS_H
#define NPKFS_SIGNALS_H

#include "session.h"

void npkfs_signals_block(void);   /* before any thread starts: threads inherit the mask */
void npkfs_signals_unblock(void); /* a process that will not call start() */
int npkfs_signals_start(struct npkfs_session *s, struct npk_err *err);
void npkfs_signals_end(void); /* ends the thread of start() */

#endif
