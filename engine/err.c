/* err.c - messages are written once, where the fact is known; callers may put context before them. */
#include "numpack.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *npk_version(void)
{
	return NPK_VERSION;
}

/* A message is one line whatever a name, a path or a file brought into it. */
static void one_line(char *msg)
{
	for (; *msg; msg++)
		if ((unsigned char)*msg < 0x20 || *msg == 0x7F)
			*msg = '?';
}

int npk_fail(struct npk_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
		one_line(err->msg);
	}
	return -code;
}

int npk_err_context(struct npk_err *err, int rc, const char *fmt, ...)
{
	char old[NPK_ERR_MAX];
	va_list ap;
	size_t n;

	if (!err)
		return rc;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", old);
	one_line(err->msg);
	return -err->code;
}
