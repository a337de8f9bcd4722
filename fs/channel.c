/* channel.c - see channel.h.
 *
 * INIT: libfuse 3.14 takes FUSE_CAP_PARALLEL_DIROPS but does not pass it on to the kernel; lookups in one directory then
 * wait for each other. The flag is added here.
 *
 * EFAULT: a reply may point into the mapping of a data file that another process truncates. Linux ends the request with
 * EIO then (fuse_dev_do_write(); seen on 6.18), and libfuse prints to stderr and frees it. So that no reader ever waits for
 * a kernel that would not, the error is sent as well; where the request is over already that is ENOENT, and means nothing. */
#include "channel.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <numpack.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static __thread struct {
	bool pending, parallel_dirops;
	void (*sent)(void *ctx);
	void *ctx;
} init_reply;

void npkfs_channel_init_reply(bool parallel_dirops, void (*sent)(void *ctx), void *ctx)
{
	init_reply.pending = true;
	init_reply.parallel_dirops = parallel_dirops;
	init_reply.sent = sent;
	init_reply.ctx = ctx;
}

/* The payload lies behind the header, as libfuse lays it out: iov[0] the header, iov[1] a struct fuse_init_out. */
static void add_init_flags(const struct iovec *iov, int count)
{
	uint32_t flags;
	char *at;

	if (!init_reply.parallel_dirops || count != 2 ||
		iov[1].iov_len < offsetof(struct fuse_init_out, flags) + sizeof(flags))
		return;
	at = (char *)iov[1].iov_base + offsetof(struct fuse_init_out, flags);
	memcpy(&flags, at, sizeof(flags));
	flags |= FUSE_PARALLEL_DIROPS;
	memcpy(at, &flags, sizeof(flags));
}

static __thread bool faulted;

bool npkfs_channel_faulted(void)
{
	return faulted;
}

/* libfuse takes ENOENT as "interrupted" and is silent. */
static ssize_t send_eio(int fd, const struct fuse_out_header *lost)
{
	struct fuse_out_header out = {.len = sizeof(out), .error = -EIO, .unique = lost->unique};
	ssize_t n = write(fd, &out, sizeof(out));

	faulted = true;
	if (n >= 0)
		errno = ENOENT;
	return -1;
}

static ssize_t channel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	bool init = init_reply.pending;
	ssize_t n;

	(void)userdata;
	if (init)
		add_init_flags(iov, count);
	faulted = false;
	n = writev(fd, iov, count);
	if (n < 0 && errno == EFAULT)
		n = send_eio(fd, iov[0].iov_base);
	if (init) {
		init_reply.pending = false;
		if (n >= 0)
			init_reply.sent(init_reply.ctx);
	}
	return n;
}

static ssize_t channel_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

int npkfs_channel_install(struct fuse_session *fuse, struct npk_err *err)
{
	/* Without splice functions libfuse does not offer splicing to the kernel, which is what we want: it is slower here. */
	static const struct fuse_custom_io io = {.writev = channel_writev, .read = channel_read};
	int rc = fuse_session_custom_io(fuse, &io, fuse_session_fd(fuse));

	return rc == 0 ? 0 : npk_fail(err, -rc, "cannot use the connection to the kernel: %s", strerror(-rc));
}
