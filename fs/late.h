/* late.h - replies that wait until the kernel was told what a request changed, though the kernel holds a directory's lock for it.
 *
 * The notification needs the lock of another directory. Whoever holds both (a rename between the two) would wait for the
 * request, and the notification for him: so the reply is sent when the notifications are, or when it has waited a second. */
#ifndef NPKFS_LATE_H
#define NPKFS_LATE_H

#include <pthread.h>

struct npkfs_late_reply;
struct npkfs_request;
struct npkfs_session;

struct npkfs_late {
	pthread_mutex_t lock;
	struct npkfs_late_reply *first; /* lock */
};

void npkfs_late_init(struct npkfs_late *l);
void npkfs_late_fini(struct npkfs_late *l);
/* Replies that the request was done, behind all notifications that are queued now, and ends it. */
void npkfs_late_done(struct npkfs_request *r);
/* Called once a second: replies to those that have waited long enough. */
void npkfs_late_look(struct npkfs_session *s);

#endif
