/* doctor.h - what the parts of npk doctor share: one line for each thing that was looked at. */
#ifndef NPKT_DOCTOR_H
#define NPKT_DOCTOR_H

#include "tool.h"

enum npkt_health {
	NPKT_SOUND,
	NPKT_ODD, /* works, but perhaps not as somebody expects */
	NPKT_BAD, /* something does not work */
	NPKT_HEALTH_COUNT
};

/* Zeroed storage is an empty report as text. */
struct npkt_report {
	bool json, coloured;
	const char *part; /* "machine", "store", "mount" */
	uint64_t count[NPKT_HEALTH_COUNT];
};

/* `what` was looked at, `fmt` is what was found. `advice`: what to do, or NULL. */
void npkt_report(struct npkt_report *r, enum npkt_health health, const char *what, const char *advice, const char *fmt,
	...) __attribute__((format(printf, 5, 6)));

/* What a program prints on both of its outputs, cut to `cap` with a NUL at the end. Its exit status; -1: it could not be run, was
 * killed, or did not end in time, and `out` says which. */
int npkt_listen(char *const argv[], char *out, size_t cap);
/* Likewise what `speak` writes to `fd`, in a process of its own, before it calls _exit(). */
int npkt_listen_to(void (*speak)(const void *ctx, int fd), const void *ctx, char *out, size_t cap);

/* "a\nb\n" to "a; b", cut to `cap`. */
void npkt_one_line(char *text, size_t cap);

void npkt_check_machine(struct npkt_report *r);
void npkt_check_store(struct npkt_report *r, const char *path);
void npkt_check_mount(struct npkt_report *r, const char *mountpoint, const char *store);

#endif
