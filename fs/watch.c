/* watch.c - follows a store that another process changes.
 *
 * The store takes a change over first, then the names are queued for the notify thread: a lookup that began before sees the
 * old generation, and its answer is forgotten by the kernel (which holds the directory's lock for either); a lookup that
 * begins later sees the new one. */
#include "changed.h"
#include "control.h"
#include "log.h"
#include "names.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#define QUIET_MS 15       /* after an event, wait until there is none for so long, */
#define AT_MOST_MS 150    /* but not longer than this */
#define RETRY_MS 100      /* after a torn state; longer each time, */
#define RETRY_MAX_MS 3200 /* up to this: it may be damaged for good */
#define FALLBACK_MS 1000  /* where inotify does not work */

/* --- taking changes over ---------------------------------------------------------------------------------------------- */

struct change {
	struct npkfs_session *s;
	unsigned n;
};

static void on_change(void *ctx, struct npk_array *a, enum npk_change what)
{
	struct change *c = ctx;
	size_t len;
	const char *name = npk_array_name(a, &len);

	c->n++;
	npkfs_announce(c->s, NULL, name, len, what);
}

/* Of a store that we write this joins what another program, which ignores its lock, changed with our changes. */
int npkfs_refresh(struct npkfs_session *s, struct npk_err *err)
{
	struct change c = {.s = s};
	int rc = npk_store_refresh(s->store, on_change, &c, err);

	if (rc != 0 && err != NULL)
		npkfs_make_printable(err->msg);
	NPKFS_COUNT(s->stats.refreshes);
	if (rc != 0)
		NPKFS_COUNT(s->stats.refresh_errors);
	if (c.n > 0)
		npkfs_log(NPKFS_INFO, "%u arrays of the store changed", c.n);
	return rc;
}

int npkfs_refresh_if_stale(struct npkfs_session *s, int rc)
{
	struct npk_err err;

	if (rc == -ESTALE && !s->rw && npkfs_refresh(s, &err) != 0)
		npkfs_log(NPKFS_WARN, "%s", err.msg);
	return rc;
}

/* --- the thread -------------------------------------------------------------------------------------------------------- */

struct watch {
	struct npkfs_session *s;
	int inotify_fd; /* -1: look at intervals only */
	int every_ms;   /* -1: wait for events only */
	int retry_ms;   /* when to look again, because the last look failed; 0: it did not */
};

bool npkfs_watch_wanted(const struct npkfs_session *s)
{
	return s->config->watch != NPKFS_WATCH_OFF && !s->rw && !npk_store_is_package(s->store);
}

static void start_watch(struct watch *w)
{
	const char *path = npk_store_path(w->s->store);

	w->inotify_fd = -1;
	w->every_ms = (int)w->s->config->watch_ms;
	if (w->s->config->watch != NPKFS_WATCH_INOTIFY)
		return;
	w->every_ms = -1;
	w->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->inotify_fd >= 0 && inotify_add_watch(w->inotify_fd, path,
					  IN_MODIFY | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
						  IN_MOVED_TO | IN_ONLYDIR) >= 0)
		return;
	npkfs_log(NPKFS_WARN, "%s: inotify: %s; looking every %d ms instead", path, strerror(errno), FALLBACK_MS);
	if (w->inotify_fd >= 0)
		close(w->inotify_fd);
	w->inotify_fd = -1;
	w->every_ms = FALLBACK_MS;
}

/* Waits at most `ms` (-1: for ever) for an event, and swallows what is there. False: the thread shall end. */
static bool wait_event(struct watch *w, int ms, bool *event)
{
	struct pollfd fds[2] = {{.fd = w->s->quit_fd, .events = POLLIN}, {.fd = w->inotify_fd, .events = POLLIN}};
	char buf[4096] __attribute__((aligned(8)));
	int n = poll(fds, 2, ms); /* a negative descriptor is ignored */

	*event = false;
	if (n < 0 && errno != EINTR) {
		npkfs_log(NPKFS_ERROR, "watching the store ends: poll: %s", strerror(errno));
		return false;
	}
	if (n > 0 && fds[0].revents != 0)
		return false;
	while (n > 0 && fds[1].revents != 0 && read(w->inotify_fd, buf, sizeof(buf)) > 0)
		*event = true;
	return true;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A writer touches several files for one change; reading them all after each is wasted. */
static bool settle(struct watch *w)
{
	int64_t end = now_ms() + AT_MOST_MS;
	bool event = true;

	while (event && now_ms() < end)
		if (!wait_event(w, QUIET_MS, &event))
			return false;
	return true;
}

/* A state that makes no sense is most often one that is being written: what was there before stays until it does. */
static void look(struct watch *w)
{
	struct npk_err err;
	int rc = npkfs_refresh(w->s, &err);

	if (rc != 0 && w->retry_ms == 0)
		npkfs_log(NPKFS_WARN, "the store cannot be read now, its last state stays: %s", err.msg);
	if (rc == 0 && w->retry_ms != 0)
		npkfs_log(NPKFS_INFO, "the store can be read again");
	if (rc == 0)
		w->retry_ms = 0;
	else
		w->retry_ms = w->retry_ms == 0 ? RETRY_MS : w->retry_ms < RETRY_MAX_MS ? 2 * w->retry_ms : RETRY_MAX_MS;
}

/* -1: until an event. */
static int wait_ms(const struct watch *w)
{
	if (w->retry_ms == 0 || (w->every_ms >= 0 && w->every_ms < w->retry_ms))
		return w->every_ms;
	return w->retry_ms;
}

void *npkfs_watch_main(void *session)
{
	struct watch w = {.s = session};
	bool event = false;

	start_watch(&w);
	look(&w); /* what changed between opening the store and watching it */
	while (wait_event(&w, wait_ms(&w), &event)) {
		if (event && !settle(&w))
			break;
		look(&w);
	}
	if (w.inotify_fd >= 0)
		close(w.inotify_fd);
	return NULL;
}
