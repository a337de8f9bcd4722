/* signals.c - see signals.h. */
#include "signals.h"
#include "log.h"
#include "notify.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static pthread_t thread;
static atomic_bool ending;

static sigset_t handled(void)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		sigaddset(&set, signals[i]);
	return set;
}

void npkfs_signals_block(void)
{
	sigset_t set = handled();

	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void npkfs_signals_unblock(void)
{
	sigset_t set = handled();

	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void act(struct npkfs_session *s, int sig)
{
	if (sig == SIGTERM || sig == SIGINT) {
		npkfs_log(NPKFS_INFO, "%s: unmounting", sig == SIGTERM ? "SIGTERM" : "SIGINT");
		npkfs_notify("STOPPING=1");
		npkfs_session_stop(s);
	} else if (sig == SIGHUP) {
		npkfs_log_reopen();
		npkfs_log(NPKFS_INFO, "SIGHUP: looking at the store anew");
		npkfs_session_reload(s);
	} else if (sig == SIGUSR1) {
		npkfs_session_log_stats(s);
	}
}

/* SIGUSR2 only ends the wait; SIGPIPE is nothing to us. */
static void *wait_for_signals(void *ctx)
{
	sigset_t set = handled();
	int sig;

	while (!atomic_load(&ending))
		if (sigwait(&set, &sig) == 0)
			act(ctx, sig);
	return NULL;
}

int npkfs_signals_start(struct npkfs_session *s, struct npk_err *err)
{
	int rc = pthread_create(&thread, NULL, wait_for_signals, s);

	return rc == 0 ? 0 : npk_fail(err, rc, "signal thread: %s", strerror(rc));
}

void npkfs_signals_end(void)
{
	atomic_store(&ending, true);
	pthread_kill(thread, SIGUSR2);
	pthread_join(thread, NULL);
}
