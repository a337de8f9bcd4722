/* serve.c - runs a mount until it goes.
 *
 * Threads: `threads` workers read and answer requests; one sends notifications (inval.c); one watches the store (watch.c);
 * the thread that called serve controls them: it alone starts, stops and joins. Others tell it by events, which a signal
 * handler may do. Teardown joins the notify thread while workers still run, because a notification may wait for them. */
#include "autocompact.h"
#include "changed.h"
#include "log.h"
#include "names.h"
#include "ops.h"
#include "settings.h"
#include "staged.h"
#include "unmounter.h"
#include "out.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FUSE_MAGIC 0x65735546
#define WAKE_SIGNAL SIGURG /* ends a worker's read(2); ignored by default, so nobody is killed by it */

enum event {
	EVENT_READY = 1, /* the kernel has the reply to INIT */
	EVENT_ENDED = 2, /* a worker found the connection closed */
	EVENT_STOP = 4,  /* asked to unmount */
	EVENT_KILL = 8,  /* asked again: do not wait for those who still use the mount */
};

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

void npkfs_serve_ready(void *session)
{
	raise_event(session, EVENT_READY);
}

void npkfs_session_stop(struct npkfs_session *s)
{
	raise_event(s, atomic_exchange(&s->stopping, true) ? EVENT_KILL : EVENT_STOP);
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

static void warn(struct npkfs_session *s, enum npkfs_level level, int code, const char *message)
{
	npkfs_log(level, "%s: %s", s->config->store, message);
	npkfs_lasterr_add(&s->lasterr, getuid(), getpid(), code, ".", message);
}

/* Another program that writes the store, because it knows no lock. *last: what was found the last time. */
static void check_store(struct npkfs_session *s, int *last)
{
	struct npk_err err;
	int rc = npk_store_check(s->store, &err);

	if (rc > 0)
		warn(s, NPKFS_WARN, EBUSY, "another program put earlier metadata back; ours was written again");
	else if (rc < 0 && rc != *last) {
		npkfs_make_printable(err.msg);
		warn(s, NPKFS_ERROR, -rc, err.msg);
	}
	*last = rc;
}

/* Once a second: a look at the store; files that nobody completes go; once in `commit` seconds what was acknowledged becomes durable. */
static void *timer_main(void *session)
{
	struct npkfs_session *s = session;
	struct pollfd quit = {.fd = s->quit_fd, .events = POLLIN};
	struct npk_err err;
	int rc, found = 0;

	for (unsigned second = 1; poll(&quit, 1, 1000) <= 0; second++) {
		npkfs_late_look(s);
		check_store(s, &found);
		npkfs_staging_expire(s);
		npkfs_autocompact(s);
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
	npkfs_slow_stop(&s->slow);
	npkfs_inval_stop(&s->inval);
	join_workers(s, t);
	npkfs_slow_stop(&s->slow); /* those that the workers began at the end */
}

/* --- the end of a mount -------------------------------------------------------------------------------------------------- */

/* Takes the mount out of the tree. Those who use it go on; the connection ends with the last of them. */
static void detach(struct npkfs_session *s)
{
	struct npk_err err;

	if (!s->mounted)
		return;
	if (npkfs_unmount(s->unmounter, s->config->mountpoint, &err) != 0)
		npkfs_log(NPKFS_ERROR, "%s", err.msg);
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
	if (s->rw && s->config->watch != NPKFS_WATCH_OFF && npkfs_setting_is_given(s->config, "watch"))
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
