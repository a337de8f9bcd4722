/* guard.c - see guard.h and npk_guard_install(). */
#include "guard.h"
#include "numpack.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

static _Atomic int installed;
static struct sigaction before;
static _Thread_local sigjmp_buf *volatile resume; /* where this thread goes on, NULL outside npki_guarded() */

/* Who calls this may have blocked the signal in spite of SA_NODEFER (ThreadSanitizer does), and the jump leaves it so:
 * the next one would end the process. */
static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	sigset_t again;

	if (resume) {
		sigemptyset(&again);
		sigaddset(&again, sig);
		pthread_sigmask(SIG_UNBLOCK, &again, NULL);
		siglongjmp(*resume, 1);
	}
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, si, uc);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
	} else { /* the access is repeated and ends the process as it would have */
		signal(sig, SIG_DFL);
	}
}

int npk_guard_install(struct npk_err *err)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
	int expected = 0;

	if (!atomic_compare_exchange_strong(&installed, &expected, 1))
		return 0;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGBUS, &sa, &before) == 0)
		return 0;
	atomic_store(&installed, 0);
	return npk_fail(err, errno, "SIGBUS handler: %s", strerror(errno));
}

int npki_guarded(void (*fn)(void *ctx), void *ctx)
{
	sigjmp_buf here, *outer = resume;

	if (!atomic_load_explicit(&installed, memory_order_relaxed)) {
		fn(ctx);
		return 0;
	}
	if (sigsetjmp(here, 0) != 0) {
		resume = outer;
		return -EIO;
	}
	resume = &here;
	fn(ctx);
	resume = outer;
	return 0;
}
