/* notes.h - where parsers leave what is odd but does no harm. Reading keeps the first warning for the user to see;
 * npk_store_verify() hands each one on. */
#ifndef NPKI_NOTES_H
#define NPKI_NOTES_H

#include "numpack.h"

struct npki_notes {
	npk_finding_fn *fn; /* NULL: only keep the first warning */
	void *ctx;
	const char *array;         /* what the notes are about; NULL: the store */
	uint64_t ndamage;          /* findings of that severity so far */
	char warning[NPK_ERR_MAX]; /* the first one, or empty */
};

/* `n` may be NULL. */
void npki_note(struct npki_notes *n, enum npk_severity severity, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
