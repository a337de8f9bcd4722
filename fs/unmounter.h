/* unmounter.h - a process of few words that unmounts for the daemon.
 *
 * The sandbox forbids mounts to be changed and programs to be run, so whoever takes the mount away must be there before it.
 * It holds no descriptor but its end of a socket, ignores the signals that end the daemon, and goes when the daemon goes. When
 * the daemon is killed and cannot go, because the kernel waits for it in one of its own threads, it ends the connection. */
#ifndef NPKFS_UNMOUNTER_H
#define NPKFS_UNMOUNTER_H

#include <numpack.h>

/* Starts it; no other thread may run yet. Returns its socket, to be closed, or -errno. */
int npkfs_unmounter_start(const char *mountpoint, struct npk_err *err);
/* Takes the mount out of the tree by way of `socket`, or itself when that is -1. 0, or -errno with the cause. */
int npkfs_unmount(int socket, const char *mountpoint, struct npk_err *err);

#endif
