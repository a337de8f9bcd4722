/* log.c - see log.h. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define KEPT_LINES 256
#define LINE_MAX_LEN 640 /* a message of struct npk_err and its surroundings */

static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_DEBUG};

static _Atomic int wanted = NPKFS_INFO;

static struct {
	pthread_mutex_t lock;
	bool to_syslog;
	int fd;        /* of the file, or a copy of stderr; -1: none */
	char *file;    /* NULL: stderr or syslog */
	uint64_t seen; /* lines since the start; the last KEPT_LINES are in line[] */
	char line[KEPT_LINES][LINE_MAX_LEN];
} lg = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

static int open_file(const char *file)
{
	return open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0640);
}

/* stderr is copied, so that lines keep coming out while main() catches what fusermount3 says on fd 2. */
int npkfs_log_open(int level, const char *file, bool to_stderr, struct npk_err *err)
{
	int fd = -1;

	if (file != NULL)
		fd = open_file(file);
	else if (to_stderr)
		fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (file != NULL && fd < 0)
		return npk_fail(err, errno, "log_file %s: %s", file, strerror(errno));
	pthread_mutex_lock(&lg.lock);
	lg.fd = fd;
	lg.file = file != NULL ? strdup(file) : NULL;
	lg.to_syslog = file == NULL && !to_stderr;
	if (lg.to_syslog)
		openlog("numpackfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	pthread_mutex_unlock(&lg.lock);
	atomic_store(&wanted, level);
	return 0;
}

void npkfs_log_close(void)
{
	pthread_mutex_lock(&lg.lock);
	if (lg.fd >= 0)
		close(lg.fd);
	if (lg.to_syslog)
		closelog();
	free(lg.file);
	lg.fd = -1;
	lg.file = NULL;
	lg.to_syslog = false;
	pthread_mutex_unlock(&lg.lock);
}

void npkfs_log_reopen(void)
{
	int fd;

	pthread_mutex_lock(&lg.lock);
	fd = lg.file != NULL ? open_file(lg.file) : -1;
	if (fd >= 0) {
		close(lg.fd);
		lg.fd = fd;
	}
	pthread_mutex_unlock(&lg.lock);
}

int npkfs_log_level(void)
{
	return atomic_load_explicit(&wanted, memory_order_relaxed);
}

/* Names of arrays come from the disk and may hold any byte: one message stays one line. */
static void make_one_line(char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = ' ';
}

static size_t stamp(char *out, size_t cap)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(out, cap, "%Y-%m-%dT%H:%M:%S", &tm);
	return n + (size_t)snprintf(out + n, cap - n, ".%03ldZ ", now.tv_nsec / 1000000);
}

static void write_out(int level, const char *stamped, const char *message)
{
	if (lg.to_syslog)
		syslog(priorities[level], "%s: %s", names[level], message);
	else if (lg.file != NULL)
		dprintf(lg.fd, "%s\n", stamped);
	else if (lg.fd >= 0)
		dprintf(lg.fd, "numpackfs: %s: %s\n", names[level], message);
}

void npkfs_log(int level, const char *fmt, ...)
{
	char text[LINE_MAX_LEN];
	int saved = errno;
	size_t at;
	va_list ap;

	if (level < NPKFS_ERROR || level > npkfs_log_level())
		return;
	at = stamp(text, sizeof text);
	at += (size_t)snprintf(text + at, sizeof text - at, "%-5s ", names[level]);
	va_start(ap, fmt);
	vsnprintf(text + at, sizeof text - at, fmt, ap);
	va_end(ap);
	make_one_line(text);
	pthread_mutex_lock(&lg.lock);
	memcpy(lg.line[lg.seen++ % KEPT_LINES], text, sizeof text);
	write_out(level, text, text + at);
	pthread_mutex_unlock(&lg.lock);
	errno = saved;
}

void npkfs_log_recent(struct npk_text *out)
{
	pthread_mutex_lock(&lg.lock);
	for (uint64_t i = lg.seen > KEPT_LINES ? lg.seen - KEPT_LINES : 0; i < lg.seen; i++)
		npk_text_printf(out, "%s\n", lg.line[i % KEPT_LINES]);
	pthread_mutex_unlock(&lg.lock);
}
