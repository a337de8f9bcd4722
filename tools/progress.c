/* progress.c - see progress.h. */
#include "progress.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define WIDTH 40

static volatile sig_atomic_t caught;

static const int ending[] = {SIGHUP, SIGINT, SIGTERM};

static void remember(int sig)
{
	caught = sig;
}

void npkt_progress_show(struct npkt_progress *p, const char *what)
{
	*p = (struct npkt_progress){.what = what, .percent = -1};
}

/* Signals that are ignored, as by nohup, stay so. */
void npkt_progress_begin(struct npkt_progress *p, const char *what)
{
	struct sigaction now, then = {.sa_handler = remember, .sa_flags = SA_RESETHAND};

	npkt_progress_show(p, what);
	for (size_t i = 0; i < sizeof(ending) / sizeof(*ending); i++)
		if (sigaction(ending[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
			sigaction(ending[i], &then, NULL); /* cannot fail: the numbers are right */
}

static void draw(struct npkt_progress *p, int percent)
{
	int full = percent * WIDTH / 100;

	fprintf(stderr, "\r%s [%.*s%*s] %3d %%", p->what, full, "########################################",
		WIDTH - full, "", percent);
	fflush(stderr);
	p->percent = percent;
	p->shown = true;
}

bool npkt_progress(void *progress, uint64_t done, uint64_t all)
{
	struct npkt_progress *p = progress;
	int percent = done < all ? (int)((double)done / (double)all * 100) : 100;

	if (p->what && percent != p->percent && isatty(STDERR_FILENO))
		draw(p, percent);
	return caught == 0;
}

void npkt_progress_end(struct npkt_progress *p)
{
	if (p->shown)
		fprintf(stderr, "\r\033[K");
	p->shown = false;
	if (caught) {
		signal(caught, SIG_DFL);
		raise(caught);
	}
}
