/* log.h - the daemon's log: to stderr, syslog or a file, and the last 256 lines in memory for .numpack/log. Any thread. */
#ifndef NPKFS_LOG_H
#define NPKFS_LOG_H

#include <numpack.h>

enum npkfs_level {
	NPKFS_ERROR,
	NPKFS_WARN,
	NPKFS_INFO,
	NPKFS_DEBUG,
	NPKFS_TRACE
};

/* `file` NULL: stderr when `to_stderr`, else syslog. */
int npkfs_log_open(int level, const char *file, bool to_stderr, struct npk_err *err);
void npkfs_log_close(void);
void npkfs_log_reopen(void); /* after logrotate(8) moved the file away; without a log file it does nothing */
int npkfs_log_level(void);   /* lets a caller skip preparing text that nobody wants */
void npkfs_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void npkfs_log_recent(struct npk_text *out); /* the last 256 lines, oldest first */

#endif
