/* progress.h - how far a long call is, on a terminal; and its end by a signal, so that nothing half made stays behind. */
#ifndef NPKT_PROGRESS_H
#define NPKT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct npkt_progress {
	const char *what; /* "packing" */
	bool shown;       /* something is on the terminal's last line */
	int percent;
};

/* From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process. */
void npkt_progress_begin(struct npkt_progress *p, const char *what);
/* Instead of it: only the bar, and signals do what they did. `what` NULL: not even a bar. */
void npkt_progress_show(struct npkt_progress *p, const char *what);
/* As npk_pack() and its like call it. Shows a bar on stderr when that is a terminal. False: a signal came. */
bool npkt_progress(void *progress, uint64_t done, uint64_t all);
/* Takes the bar away. When a signal came, ends the process by it. */
void npkt_progress_end(struct npkt_progress *p);

#endif
