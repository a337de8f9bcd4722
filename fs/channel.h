/* channel.h - how bytes go to and from /dev/fuse: libfuse's transport with two corrections. */
#ifndef NPKFS_CHANNEL_H
#define NPKFS_CHANNEL_H

#include <stdbool.h>

struct fuse_session;
struct npk_err;

/* After fuse_session_mount(). */
int npkfs_channel_install(struct fuse_session *fuse, struct npk_err *err);
/* Called by the INIT handler: the next reply of this thread is the one to INIT, `parallel_dirops` is to be added to it, and
 * `sent` called when the kernel has it. */
void npkfs_channel_init_reply(bool parallel_dirops, void (*sent)(void *ctx), void *ctx);

/* True when the last reply of this thread could not be copied, because the file behind a borrowed piece was cut short; the
 * kernel then answered with EIO in its place. */
bool npkfs_channel_faulted(void);

#endif
