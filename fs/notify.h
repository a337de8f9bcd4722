/* notify.h - tells systemd (Type=notify) how far the mount is. Without NOTIFY_SOCKET in the environment: nothing. */
#ifndef NPKFS_NOTIFY_H
#define NPKFS_NOTIFY_H

/* Opens the socket that NOTIFY_SOCKET names: in the sandbox it is too late. */
void npkfs_notify_open(void);
void npkfs_notify(const char *state); /* "READY=1", as in sd_notify(3) */

#endif
