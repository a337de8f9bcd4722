/* session.c - one mount: opening the store and the connection to the kernel, and closing both. serve.c runs it. */
#include "changed.h"
#include "channel.h"
#include "export.h"
#include "log.h"
#include "names.h"
#include "ops.h"
#include "package.h"
#include "sandbox.h"
#include "search.h"
#include "unmounter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- opening ------------------------------------------------------------------------------------------------------------ */

/* The last thing that libfuse said while it mounted, because its functions return no reason. */
static char fuse_said[NPK_ERR_MAX];
static _Atomic bool fuse_listening;

static void on_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[NPK_ERR_MAX];
	size_t n;

	vsnprintf(line, sizeof(line), fmt, ap);
	n = strlen(line);
	if (n > 0 && line[n - 1] == '\n')
		line[n - 1] = '\0';
	if (level <= FUSE_LOG_WARNING && atomic_load(&fuse_listening))
		memcpy(fuse_said, line, sizeof(fuse_said));
	npkfs_log(level <= FUSE_LOG_ERR ? NPKFS_DEBUG : NPKFS_TRACE, "%s", line);
}

int npkfs_session_own(struct npkfs_session *s, struct npk_err *err)
{
	char text[512];

	if (!s->rw)
		return 0;
	snprintf(text, sizeof(text), "mounted at %s", s->config->mountpoint);
	return npk_store_set_owner(s->store, text, err);
}

static int become_writer(struct npkfs_session *s, struct npk_err *err)
{
	int rc;

	npk_store_lock_timeout(s->store, s->config->lock_timeout * 1000);
	rc = npkfs_session_own(s, err);
	if (rc == 0)
		rc = npk_store_lock(s->store, err);
	if (rc == 0 && s->config->drop_if_exists)
		rc = npk_store_reset(s->store, err);
	return rc;
}

static int open_store(struct npkfs_session *s, struct npk_err *err)
{
	const struct npkfs_config *c = s->config;
	struct npk_store_info info;
	unsigned flags = c->ro ? NPK_RDONLY : c->create ? NPK_RDWR | NPK_CREATE : NPK_RDWR;
	bool package = npkfs_is_package(c->store);
	int rc = package ? npkfs_package_open(s, err) : npk_store_open(&s->store, c->store, flags, err);

	if (rc == 0)
		rc = npk_guard_install(err);
	if (rc != 0)
		return rc;
	npk_store_info(s->store, &info);
	s->rw = !c->ro && !package && !info.read_only;
	if (s->rw)
		rc = become_writer(s, err);
	if (rc == -EROFS) { /* as mount(8) does with a device that is write-protected */
		npkfs_log(NPKFS_WARN, "mounted read-only: %s", err->msg);
		err->code = 0;
		s->rw = false;
		rc = 0;
	}
	npkfs_make_printable(info.warning);
	npkfs_make_printable(info.why);
	if (info.warning[0] != '\0')
		npkfs_log(NPKFS_WARN, "%s", info.warning);
	if (info.read_only)
		npkfs_log(NPKFS_WARN, "the store can only be read: %s", info.why);
	return rc;
}

/* One -o option list. The path is escaped as libfuse's parser takes it. */
static void print_options(struct npkfs_session *s, struct npk_text *out)
{
	npk_text_printf(
		out, "-osubtype=numpackfs,default_permissions%s,fsname=", s->config->allow_other ? ",allow_other" : "");
	for (const char *p = s->config->store; *p != '\0'; p++) {
		if (*p == ',' || *p == '\\')
			npk_text_add(out, "\\", 1);
		npk_text_add(out, p, 1);
	}
}

static int make_fuse(struct npkfs_session *s, struct npk_err *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct npk_text options = {0};

	atomic_store(&fuse_listening, true);
	fuse_set_log_func(on_fuse_log);
	print_options(s, &options);
	if (!options.bad && fuse_opt_add_arg(&args, "numpackfs") == 0 && fuse_opt_add_arg(&args, options.p) == 0 &&
		(!s->config->debug || fuse_opt_add_arg(&args, "-d") == 0))
		s->fuse = fuse_session_new(&args, &npkfs_ops, sizeof(npkfs_ops), s);
	fuse_opt_free_args(&args);
	npk_text_fini(&options);
	return s->fuse != NULL ? 0 : npk_fail(err, EINVAL, "fuse: %s", fuse_said[0] ? fuse_said : "no memory");
}

static int mount_fuse(struct npkfs_session *s, struct npk_err *err)
{
	fuse_said[0] = '\0';
	if (fuse_session_mount(s->fuse, s->config->mountpoint) != 0)
		return npk_fail(err, EIO, "%s: %s", s->config->mountpoint,
			fuse_said[0] ? fuse_said : "fusermount3 could not mount, it said why above");
	atomic_store(&fuse_listening, false);
	s->mounted = true;
	return npkfs_channel_install(s->fuse, err);
}

static void init_parts(struct npkfs_session *s, const struct npkfs_config *c)
{
	s->config = c;
	s->started = time(NULL);
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->unmounter = -1;
	s->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_init(&s->epoch, 1);
	npkfs_lasterr_init(&s->lasterr);
	npkfs_staging_init(&s->staging);
	npkfs_batches_init(&s->batches);
	npkfs_slow_init(&s->slow);
	npkfs_late_init(&s->late);
	pthread_mutex_init(&s->export_lock, NULL);
	pthread_mutex_init(&s->open_lock, NULL);
}

int npkfs_session_open(
	struct npkfs_session **out, const struct npkfs_config *c, enum npkfs_exit *status, struct npk_err *err)
{
	struct npkfs_session *s = calloc(1, sizeof(*s));
	int rc;

	*status = NPKFS_EXIT_STORE;
	if (s == NULL)
		return npk_fail(err, ENOMEM, "no memory for a session");
	init_parts(s, c);
	rc = open_store(s, err);
	if (rc == -EBUSY)
		*status = NPKFS_EXIT_BUSY;
	if (rc == 0) {
		*status = NPKFS_EXIT_FUSE;
		if (s->event_fd < 0 || s->quit_fd < 0)
			rc = npk_fail(err, EMFILE, "eventfd: no descriptor left");
	}
	if (rc == 0)
		rc = npkfs_inodes_init(&s->inodes, err);
	if (rc == 0)
		rc = npkfs_search_cache_open(&s->answers, c->ctl_max, err);
	if (rc == 0)
		rc = npkfs_tree_init(s, err);
	if (rc == 0)
		rc = make_fuse(s, err);
	if (rc == 0) {
		npkfs_inval_init(&s->inval, s->fuse, &s->stats);
		rc = mount_fuse(s, err);
	}
	if (rc != 0) {
		npkfs_session_close(s);
		return rc;
	}
	*status = NPKFS_OK;
	*out = s;
	return 0;
}

int npkfs_session_confine(struct npkfs_session *s, struct npk_err *err)
{
	const struct npkfs_config *c = s->config;
	const struct npkfs_sandbox box = {
		.store = npk_store_dirfd(s->store),
		.write = s->rw,
		.log_file = c->log_file,
		.dir = s->cache_dir,
		.read_ahead = c->read_ahead_kb != 0,
	};
	bool files;
	int rc;

	s->unmounter = npkfs_unmounter_start(c->mountpoint, err);
	if (s->unmounter < 0)
		return s->unmounter;
	if (!c->sandbox)
		return 0;
	rc = npkfs_sandbox_enter(&box, &files, err);
	if (rc == 0 && !files)
		npkfs_log(NPKFS_INFO, "this kernel has no Landlock: the sandbox cannot keep files away");
	return rc;
}

int npkfs_session_finish(struct npkfs_session *s, struct npk_err *err)
{
	struct npk_store *store = s->store;

	npkfs_handles_end(s);
	npkfs_staging_end(s);
	npkfs_batches_fini(s);
	npkfs_batches_init(&s->batches);
	npkfs_staging_fini(s);
	npkfs_staging_init(&s->staging);
	npkfs_inodes_fini(&s->inodes); /* generations and staged files belong to the store */
	npkfs_search_cache_close(s->answers);
	s->answers = NULL;
	npkfs_export_put(s->export);
	s->export = NULL;
	s->store = NULL;
	return npk_store_finish(store, err);
}

void npkfs_session_abandon(struct npkfs_session *s)
{
	if (s->mounted)
		fuse_session_unmount(s->fuse);
}

/* The kernel has closed the connection. */
static bool ended(const struct npkfs_session *s)
{
	struct pollfd fd = {.fd = s->fuse != NULL ? fuse_session_fd(s->fuse) : -1};

	return poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR);
}

/* libfuse unmounts by path, unless the connection is closed already. After we detached the mount, another one may be at that
 * path: then the descriptor of the connection becomes one that polls as closed, so that libfuse only frees what it has. */
static void disconnect(struct npkfs_session *s)
{
	int ends[2];

	if (s->fuse == NULL || pipe2(ends, O_CLOEXEC) != 0)
		return;
	close(ends[0]);
	if (dup3(ends[1], fuse_session_fd(s->fuse), O_CLOEXEC) >= 0)
		fuse_session_unmount(s->fuse);
	close(ends[1]);
}

/* libfuse closes a connection that is at its end, and unmounts any other; in the sandbox it cannot. */
static void unmount(struct npkfs_session *s)
{
	struct npk_err err;

	if (s->unmounter >= 0 && !ended(s) && npkfs_unmount(s->unmounter, s->config->mountpoint, &err) != 0)
		npkfs_log(NPKFS_ERROR, "%s", err.msg);
	else
		fuse_session_unmount(s->fuse);
}

void npkfs_session_close(struct npkfs_session *s)
{
	if (s == NULL)
		return;
	if (s->mounted || ended(s))
		unmount(s);
	else
		disconnect(s);
	npkfs_inval_fini(&s->inval);
	if (s->fuse != NULL)
		fuse_session_destroy(s->fuse);
	npkfs_batches_fini(s);
	npkfs_staging_fini(s);
	npkfs_inodes_fini(&s->inodes);
	npkfs_search_cache_close(s->answers);
	npkfs_export_put(s->export);
	npk_store_close(s->store);
	npkfs_slow_fini(&s->slow);
	npkfs_late_fini(&s->late);
	npkfs_lasterr_fini(&s->lasterr);
	pthread_mutex_destroy(&s->export_lock);
	pthread_mutex_destroy(&s->open_lock);
	if (s->unmounter >= 0)
		close(s->unmounter);
	if (s->event_fd >= 0)
		close(s->event_fd);
	if (s->quit_fd >= 0)
		close(s->quit_fd);
	free(s->cache_dir);
	free(s);
}

/* --- signals ------------------------------------------------------------------------------------------------------------- */

static void drop_node(void *session, uint64_t id)
{
	npkfs_inval_node(&((struct npkfs_session *)session)->inval, id);
}

void npkfs_session_drop_caches(struct npkfs_session *s)
{
	if (npkfs_nodes_each(&s->inodes, drop_node, s) != 0)
		npkfs_log(NPKFS_WARN, "no memory to drop caches");
}

void npkfs_session_reload(struct npkfs_session *s)
{
	struct npk_err err;

	if (npkfs_refresh(s, &err) != 0)
		npkfs_log(NPKFS_WARN, "the store cannot be read now, its last state stays: %s", err.msg);
	npkfs_session_drop_caches(s);
}

void npkfs_session_log_stats(struct npkfs_session *s)
{
	struct npk_text t = {0};

	npkfs_print_stats(s, &t);
	if (!t.bad)
		npkfs_log(NPKFS_INFO, "stats: %.*s", (int)(t.len > 0 ? t.len - 1 : 0), t.p);
	npk_text_fini(&t);
}
