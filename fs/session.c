/* session.c - one mount from the open store to its end.
 *
 * Threads: `threads` workers read and answer requests; one sends notifications (inval.c); one watches the store (watch.c);
 * the thread that called serve controls them: it alone starts, stops and joins. Others tell it by events, which a signal
 * handler may do. Teardown joins the notify thread while workers still run, because a notification may wait for them. */
#include "ops.h"
#include "changed.h"
#include "channel.h"
#include "export.h"
#include "log.h"
#include "names.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546
#define WAKE_SIGNAL SIGURG /* ends a worker's read(2); ignored by default, so nobody is killed by it */

enum event {
	EVENT_READY = 1, /* the kernel has the reply to INIT */
	EVENT_ENDED = 2, /* a worker found the connection closed */
	EVENT_STOP = 4,  /* asked to unmount */
	EVENT_KILL = 8,  /* asked again: do not wait for those who still use the mount */
};

extern char **environ;

/* --- events ------------------------------------------------------------------------------------------------------------ */

/* Async-signal-safe. The eventfd's counter cannot overflow: the reader empties it. */
static void raise_event(struct npkfs_session *s, unsigned event)
{
	const uint64_t one = 1;
	int saved = errno;

	atomic_fetch_or(&s->events, event);
	while (write(s->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	errno = saved;
}

/* Waits for events, at most `ms` (-1: for ever), and takes them. */
static unsigned take_events(struct npkfs_session *s, int ms)
{
	struct pollfd fd = {.fd = s->event_fd, .events = POLLIN};
	uint64_t count;

	if (poll(&fd, 1, ms) > 0 && read(s->event_fd, &count, sizeof(count)) < 0 && errno != EINTR && errno != EAGAIN)
		npkfs_log(NPKFS_ERROR, "eventfd: %s", strerror(errno));
	return atomic_exchange(&s->events, 0);
}

void npkfs_request_ready(void *session)
{
	raise_event(session, EVENT_READY);
}

void npkfs_session_stop(struct npkfs_session *s)
{
	raise_event(s, atomic_exchange(&s->stopping, true) ? EVENT_KILL : EVENT_STOP);
}

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

/* The owner's text is what others are told who find the store locked. */
static int become_writer(struct npkfs_session *s, struct npk_err *err)
{
	char text[512];
	int rc;

	snprintf(text, sizeof(text), "mounted at %s", s->config->mountpoint);
	npk_store_lock_timeout(s->store, s->config->lock_timeout * 1000);
	rc = npk_store_set_owner(s->store, text, err);
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
	int rc = npk_store_open(&s->store, c->store, flags, err);

	if (rc == 0)
		rc = npk_guard_install(err);
	if (rc != 0)
		return rc;
	npk_store_info(s->store, &info);
	s->rw = !c->ro && !info.read_only;
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
	s->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_init(&s->epoch, 1);
	npkfs_lasterr_init(&s->lasterr);
	npkfs_staging_init(&s->staging);
	pthread_mutex_init(&s->export_lock, NULL);
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

int npkfs_session_finish(struct npkfs_session *s, struct npk_err *err)
{
	struct npk_store *store = s->store;

	npkfs_staging_end(s);
	npkfs_staging_fini(s);
	npkfs_staging_init(&s->staging);
	npkfs_inodes_fini(&s->inodes); /* generations and staged files belong to the store */
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

void npkfs_session_close(struct npkfs_session *s)
{
	if (s == NULL)
		return;
	if (s->mounted)
		fuse_session_unmount(s->fuse);
	npkfs_inval_fini(&s->inval);
	if (s->fuse != NULL)
		fuse_session_destroy(s->fuse);
	npkfs_staging_fini(s);
	npkfs_inodes_fini(&s->inodes);
	npkfs_export_put(s->export);
	npk_store_close(s->store);
	npkfs_lasterr_fini(&s->lasterr);
	pthread_mutex_destroy(&s->export_lock);
	if (s->event_fd >= 0)
		close(s->event_fd);
	if (s->quit_fd >= 0)
		close(s->quit_fd);
	free(s);
}

/* --- threads ------------------------------------------------------------------------------------------------------------ */

struct threads {
	pthread_t *workers, watch, timer;
	unsigned nworkers;
	bool watching, timing;
};

/* libfuse's own multi-threaded loop ends its threads by cancelling them and starts them by need; ours are few and stay. */
static void *worker_main(void *session)
{
	struct npkfs_session *s = session;
	struct fuse_buf buf = {0};
	int n = 0, none = 0;

	while (!fuse_session_exited(s->fuse)) {
		n = fuse_session_receive_buf(s->fuse, &buf);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			break;
		fuse_session_process_buf(s->fuse, &buf);
	}
	if (n < 0 && n != -EINTR && n != -EAGAIN)
		atomic_compare_exchange_strong(&s->error, &none, n);
	fuse_session_exit(s->fuse);
	free(buf.mem);
	npkfs_out_thread_fini();
	atomic_fetch_sub(&s->nworkers, 1);
	raise_event(s, EVENT_ENDED);
	return NULL;
}

static void on_wake(int sig)
{
	(void)sig;
}

/* Once a second: files that nobody completes go; once in `commit` seconds what was acknowledged becomes durable. */
static void *timer_main(void *session)
{
	struct npkfs_session *s = session;
	struct pollfd quit = {.fd = s->quit_fd, .events = POLLIN};
	struct npk_err err;
	int rc;

	for (unsigned second = 1; poll(&quit, 1, 1000) <= 0; second++) {
		npkfs_staging_expire(s);
		if (s->config->sync != NPKFS_SYNC_COMMIT || second % s->config->commit != 0)
			continue;
		rc = npk_store_fsync(s->store, &err);
		if (rc != 0)
			npkfs_log(NPKFS_ERROR, "sealing what was written: %s", err.msg);
	}
	return NULL;
}

/* All signals but those of faults and WAKE_SIGNAL are left to the thread that waits for them. */
static int start_threads(struct npkfs_session *s, struct threads *t, struct npk_err *err)
{
	const struct sigaction wake = {.sa_handler = on_wake}; /* without SA_RESTART */
	sigset_t mask, old;
	int rc = 0;

	sigaction(WAKE_SIGNAL, &wake, NULL);
	sigfillset(&mask);
	sigdelset(&mask, SIGBUS);
	sigdelset(&mask, SIGSEGV);
	sigdelset(&mask, SIGFPE);
	sigdelset(&mask, SIGILL);
	sigdelset(&mask, SIGABRT);
	sigdelset(&mask, WAKE_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	rc = npkfs_inval_start(&s->inval, err);
	while (rc == 0 && t->nworkers < s->config->threads) {
		atomic_fetch_add(&s->nworkers, 1);
		rc = -pthread_create(&t->workers[t->nworkers], NULL, worker_main, s);
		if (rc == 0)
			t->nworkers++;
		else
			atomic_fetch_sub(&s->nworkers, 1);
	}
	if (rc == 0 && npkfs_watch_wanted(s)) {
		rc = -pthread_create(&t->watch, NULL, npkfs_watch_main, s);
		t->watching = rc == 0;
	}
	if (rc == 0 && s->rw) {
		rc = -pthread_create(&t->timer, NULL, timer_main, s);
		t->timing = rc == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc == 0 || (err != NULL && err->code != 0) ? rc
							  : npk_fail(err, -rc, "starting threads: %s", strerror(-rc));
}

/* A worker may be about to read(2) when the signal comes, hence again and again. */
static void join_workers(struct npkfs_session *s, struct threads *t)
{
	fuse_session_exit(s->fuse);
	while (atomic_load(&s->nworkers) > 0) {
		for (unsigned i = 0; i < t->nworkers; i++)
			pthread_kill(t->workers[i], WAKE_SIGNAL);
		take_events(s, 10);
	}
	for (unsigned i = 0; i < t->nworkers; i++)
		pthread_join(t->workers[i], NULL);
}

static void stop_threads(struct npkfs_session *s, struct threads *t)
{
	const uint64_t one = 1;

	if ((t->watching || t->timing) && write(s->quit_fd, &one, sizeof(one)) == sizeof(one)) {
		if (t->watching)
			pthread_join(t->watch, NULL);
		if (t->timing)
			pthread_join(t->timer, NULL);
	}
	npkfs_inval_stop(&s->inval);
	join_workers(s, t);
}

/* --- the end of a mount -------------------------------------------------------------------------------------------------- */

static void run_fusermount(struct npkfs_session *s)
{
	char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", s->config->mountpoint, NULL};
	pid_t pid;
	int rc = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), status;

	if (rc == 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	if (rc != 0)
		npkfs_log(NPKFS_ERROR, "unmounting %s: fusermount3: %s", s->config->mountpoint, strerror(rc));
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		npkfs_log(NPKFS_ERROR, "unmounting %s: fusermount3 failed", s->config->mountpoint);
}

/* Takes the mount out of the tree. Those who use it go on; the connection ends with the last of them. */
static void detach(struct npkfs_session *s)
{
	if (!s->mounted)
		return;
	if (umount2(s->config->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
		run_fusermount(s);
	s->mounted = false;
}

/* Dirty pages of maps come in while the loop still serves. */
static void end_mount(struct npkfs_session *s)
{
	npkfs_flush_maps(s, NULL, 0);
	detach(s);
}

/* --- serving ------------------------------------------------------------------------------------------------------------- */

/* The read-ahead of the mount, as an administrator may set it; needs the right to write to sysfs. */
static void set_read_ahead(struct npkfs_session *s)
{
	char path[80];
	struct statfs fs;
	struct stat st;
	FILE *f;

	if (s->config->read_ahead_kb == 0)
		return;
	if (stat(s->config->mountpoint, &st) != 0 || statfs(s->config->mountpoint, &fs) != 0 || fs.f_type != FUSE_MAGIC)
		return; /* unmounted again already */
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev), minor(st.st_dev));
	f = fopen(path, "we");
	if (f == NULL || fprintf(f, "%u\n", s->config->read_ahead_kb) < 0 || fflush(f) != 0)
		npkfs_log(NPKFS_WARN, "read_ahead_kb: %s: %s", path, strerror(errno));
	if (f != NULL)
		fclose(f);
}

static void log_start(struct npkfs_session *s)
{
	struct npk_store_info info;

	npk_store_info(s->store, &info);
	npkfs_log(NPKFS_INFO, "%s: %llu arrays, %s, at %s", s->config->store, (unsigned long long)info.narrays,
		s->rw ? "read-write" : "read-only", s->config->mountpoint);
	if (s->rw && s->config->watch != NPKFS_WATCH_OFF)
		npkfs_log(NPKFS_WARN, "watch= is for read-only mounts: nobody else writes to this store now");
}

int npkfs_session_serve(struct npkfs_session *s, void (*ready)(void *ctx), void *ctx, struct npk_err *err)
{
	struct threads t = {.nworkers = 0};
	unsigned events = 0;
	int rc;

	if (err != NULL)
		err->code = 0;
	t.workers = calloc(s->config->threads, sizeof(*t.workers));
	if (t.workers == NULL)
		return npk_fail(err, ENOMEM, "no memory for threads");
	log_start(s);
	rc = start_threads(s, &t, err);
	while (rc == 0 && !(events & (EVENT_ENDED | EVENT_KILL))) {
		events = take_events(s, -1);
		if (events & EVENT_READY) {
			set_read_ahead(s);
			if (ready != NULL)
				ready(ctx);
		}
		if (events & (EVENT_STOP | EVENT_KILL))
			end_mount(s);
	}
	stop_threads(s, &t);
	free(t.workers);
	if (rc == 0 && atomic_load(&s->error) != 0)
		rc = npk_fail(err, -atomic_load(&s->error), "the connection to the kernel: %s",
			strerror(-atomic_load(&s->error)));
	npkfs_log(NPKFS_INFO, "%s: unmounted", s->config->mountpoint);
	return rc;
}

/* --- signals ------------------------------------------------------------------------------------------------------------- */

static void drop_node(void *session, uint64_t id)
{
	npkfs_inval_node(&((struct npkfs_session *)session)->inval, id);
}

void npkfs_session_reload(struct npkfs_session *s)
{
	struct npk_err err;

	if (npkfs_refresh(s, &err) != 0)
		npkfs_log(NPKFS_WARN, "the store cannot be read now, its last state stays: %s", err.msg);
	if (npkfs_nodes_each(&s->inodes, drop_node, s) != 0)
		npkfs_log(NPKFS_WARN, "no memory to drop caches");
}

void npkfs_session_log_stats(struct npkfs_session *s)
{
	struct npk_text t = {0};

	npkfs_print_stats(s, &t);
	if (!t.bad)
		npkfs_log(NPKFS_INFO, "stats: %.*s", (int)(t.len > 0 ? t.len - 1 : 0), t.p);
	npk_text_fini(&t);
}
