/* notify.c - see notify.h. The protocol is one datagram to an AF_UNIX socket, sd_notify(3). */
#include "notify.h"
#include "log.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct {
	int fd; /* -1: nobody asked to be told */
	struct sockaddr_un to;
	socklen_t len;
} notify = {.fd = -1};

void npkfs_notify_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path != NULL ? strlen(path) : 0;

	if (len == 0)
		return;
	if ((path[0] != '/' && path[0] != '@') || len >= sizeof(notify.to.sun_path)) {
		npkfs_log(NPKFS_WARN, "NOTIFY_SOCKET=%s: neither a path nor an abstract name", path);
		return;
	}
	notify.to.sun_family = AF_UNIX;
	memcpy(notify.to.sun_path, path, len);
	if (path[0] == '@')
		notify.to.sun_path[0] = '\0'; /* an abstract name has no NUL at its end: the length counts */
	notify.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify.fd < 0)
		npkfs_log(NPKFS_WARN, "NOTIFY_SOCKET=%s: %s", path, strerror(errno));
}

void npkfs_notify(const char *state)
{
	if (notify.fd >= 0 && sendto(notify.fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&notify.to,
				      notify.len) < 0)
		npkfs_log(NPKFS_WARN, "NOTIFY_SOCKET: %s", strerror(errno));
}
