/* notes.c - see notes.h. */
#include "notes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void npki_note(struct npki_notes *n, enum npk_severity severity, const char *fmt, ...)
{
	char text[NPK_ERR_MAX];
	va_list ap;

	if (!n)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (severity == NPK_DAMAGE)
		n->ndamage++;
	if (severity == NPK_WARNING && n->warning[0] == 0)
		memcpy(n->warning, text, sizeof(text));
	if (n->fn)
		n->fn(n->ctx, &(struct npk_finding){severity, n->array, text});
}
