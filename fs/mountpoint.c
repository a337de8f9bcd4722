/* mountpoint.c - see mountpoint.h. */
#include "mountpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- before the mount --------------------------------------------------------------------------------------------- */

/* Is `inner` the directory `st`, or below it? Compares inodes on the way up, so that bind mounts do not deceive. */
static bool is_within(const char *inner, const struct stat *st)
{
	char *path = strdup(inner);
	bool found = false;
	struct stat here;

	while (path != NULL && !found) {
		char *slash = strrchr(path, '/');

		found = stat(path[0] != '\0' ? path : "/", &here) == 0 && here.st_dev == st->st_dev &&
			here.st_ino == st->st_ino;
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	free(path);
	return found;
}

/* mountinfo writes blank, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text != '\0'; text++) {
		unsigned code;

		if (text[0] == '\\' && sscanf(text + 1, "%3o", &code) == 1) {
			*to++ = (char)code;
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* The source of the numpackfs mount on top of `mountpoint`, the caller frees it; NULL when another filesystem or none
 * is there. Lines look like "36 35 0:52 / /mnt rw,nosuid - fuse.numpackfs /data/x.npk ro,...". */
static char *mounted_here(const char *mountpoint)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *source = NULL;
	size_t cap = 0;

	while (f != NULL && getline(&line, &cap, f) > 0) {
		char *dash = strstr(line, " - "), *where = NULL, type[64] = "", *from = NULL;

		if (sscanf(line, "%*s %*s %*s %*s %ms", &where) == 1 && dash != NULL &&
			sscanf(dash, " - %63s %ms", type, &from) == 2) {
			unescape(where);
			unescape(from);
		}
		if (where != NULL && strcmp(where, mountpoint) == 0) { /* the last line is the topmost mount */
			free(source);
			source = strcmp(type, "fuse.numpackfs") == 0 ? from : NULL;
			from = source != NULL ? NULL : from;
		}
		free(where);
		free(from);
	}
	free(line);
	if (f != NULL)
		fclose(f);
	return source;
}

static int check_place(const char *mnt, struct stat *st, struct npk_err *err)
{
	if (stat(mnt, st) == 0)
		return S_ISDIR(st->st_mode) ? 0 : npk_fail(err, EINVAL, "mountpoint %s: not a directory", mnt);
	if (errno == ENOTCONN || errno == ECONNABORTED)
		return npk_fail(err, EINVAL,
			"mountpoint %s: a dead mount, its daemon has ended; detach it with 'fusermount3 -u %s' or, as "
			"root, 'umount -l %s'",
			mnt, mnt, mnt);
	return npk_fail(err, EINVAL, "mountpoint %s: %s", mnt, strerror(errno));
}

int npkfs_mountpoint_check(const struct npkfs_config *c, struct npk_err *err)
{
	struct stat mnt, store;
	char *source;
	int rc;

	rc = check_place(c->mountpoint, &mnt, err);
	if (rc != 0)
		return rc;
	source = mounted_here(c->mountpoint);
	if (source != NULL) {
		rc = npk_fail(err, EINVAL,
			"mountpoint %s: %s is already mounted there; unmount it with 'fusermount3 -u %s'",
			c->mountpoint, source, c->mountpoint);
		free(source);
		return rc;
	}
	if (stat(c->store, &store) != 0)
		return 0; /* opening it will tell */
	if (is_within(c->mountpoint, &store))
		return npk_fail(err, EINVAL, "mountpoint %s: lies in the store %s itself", c->mountpoint, c->store);
	if (is_within(c->store, &mnt))
		return npk_fail(err, EINVAL, "mountpoint %s: would hide the store %s, which lies below it",
			c->mountpoint, c->store);
	return 0;
}

/* --- after a mount that failed ------------------------------------------------------------------------------------ */

int npkfs_stderr_catch(int *saved)
{
	int fd = memfd_create("stderr", MFD_CLOEXEC);

	*saved = dup(STDERR_FILENO);
	if (fd < 0 || *saved < 0 || dup2(fd, STDERR_FILENO) < 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

void npkfs_stderr_end(int caught, int saved, struct npk_text *out)
{
	char part[512];
	ssize_t n;
	off_t at = 0;

	if (caught >= 0)
		dup2(saved, STDERR_FILENO);
	if (saved >= 0)
		close(saved);
	while (caught >= 0 && (n = pread(caught, part, sizeof part, at)) > 0) {
		npk_text_add(out, part, (size_t)n);
		at += n;
	}
	if (caught >= 0)
		close(caught);
}

struct cause {
	const char *needle;
	enum npkfs_exit status;
	const char *sentence; /* NULL: what they said is clear enough */
};

/* What fusermount3 and libfuse say, in the order in which one failure leads to the next. */
static const struct cause causes[] = {
	{"user_allow_other", NPKFS_EXIT_FUSE,
		"allow_other: only root may, unless /etc/fuse.conf holds a line 'user_allow_other'"},
	{"failed to exec fusermount3", NPKFS_EXIT_FUSE,
		"fusermount3 is not installed, and only root can mount without it"},
	{"fusermount3: not found", NPKFS_EXIT_FUSE, "fusermount3 is not installed, and only root can mount without it"},
	{"device not found", NPKFS_EXIT_FUSE,
		"/dev/fuse is missing: 'modprobe fuse', or give the container the device"},
	{"failed to open /dev/fuse", NPKFS_EXIT_FUSE, "/dev/fuse: permission denied"},
	{"has no write access to mountpoint", NPKFS_EXIT_MOUNTPOINT,
		"a normal user can only mount on a directory that he may write"},
	{"not owned by user", NPKFS_EXIT_MOUNTPOINT, "a normal user can only mount on a directory of his own"},
	{"failed to access mountpoint", NPKFS_EXIT_MOUNTPOINT, NULL},
	{"mounting over filesystem type", NPKFS_EXIT_MOUNTPOINT, NULL},
	{"too many FUSE filesystems", NPKFS_EXIT_FUSE, NULL},
	{"Operation not permitted", NPKFS_EXIT_FUSE,
		"mounting is not permitted here; a container needs the capability SYS_ADMIN"},
	{"fusermount3: ", NPKFS_EXIT_FUSE, NULL},
	{"fuse: ", NPKFS_EXIT_FUSE, NULL},
};

/* The line around `at`, from its "fuse...: " on. */
static int line_length(const char *text, const char **at)
{
	while (*at > text && (*at)[-1] != '\n')
		(*at)--;
	return (int)strcspn(*at, "\n");
}

void npkfs_mount_cause(const struct npkfs_config *c, const char *said, enum npkfs_exit *status, struct npk_err *err)
{
	for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++) {
		const char *at = strstr(said, causes[i].needle);
		int len;

		if (at == NULL)
			continue;
		*status = causes[i].status;
		len = line_length(said, &at);
		if (causes[i].sentence != NULL)
			npk_fail(err, EIO, "mountpoint %s: %s", c->mountpoint, causes[i].sentence);
		else
			npk_fail(err, EIO, "mountpoint %s: %.*s", c->mountpoint, len, at);
		return;
	}
}
