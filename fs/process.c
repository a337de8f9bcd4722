/* process.c - see process.h; /proc is the only one who knows. */
#include "process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_proc(pid_t pid, const char *file, char *buf, size_t len)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, len - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* Field 22 of stat; the name in field 2 may have blanks and parentheses. */
static bool start_time(pid_t pid, uint64_t *out)
{
	char buf[1024], *p;

	if (!read_proc(pid, "stat", buf, sizeof(buf)) || (p = strrchr(buf, ')')) == NULL)
		return false;
	for (int field = 2; field < 22; field++)
		if ((p = strchr(p + 1, ' ')) == NULL)
			return false;
	*out = strtoull(p + 1, NULL, 10);
	return true;
}

bool npkfs_process_of(pid_t tid, pid_t *tgid, uint64_t *started)
{
	char buf[2048], *p;

	if (tid <= 0 || !read_proc(tid, "status", buf, sizeof(buf)) || (p = strstr(buf, "\nTgid:")) == NULL)
		return false;
	*tgid = (pid_t)strtol(p + 6, NULL, 10);
	return start_time(*tgid, started);
}

bool npkfs_process_lives(pid_t tgid, uint64_t started)
{
	uint64_t now;

	return start_time(tgid, &now) && now == started;
}
