/* output.c - where results go; see struct npkt_out. */
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_BEHIND ((uint64_t)16 << 20) /* bytes after which the disk begins */

static char *volatile half_written; /* the temporary file that a signal must remove */

static void remove_and_die(int sig)
{
	if (half_written)
		unlink(half_written);
	raise(sig); /* SA_RESETHAND: now it ends the process as it would have */
}

static void watch_signals(void)
{
	static const int ending[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXCPU, SIGXFSZ};
	struct sigaction now, then = {.sa_handler = remove_and_die, .sa_flags = SA_RESETHAND | SA_NODEFER};

	for (size_t i = 0; i < sizeof(ending) / sizeof(*ending); i++)
		if (sigaction(ending[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
			sigaction(ending[i], &then, NULL); /* cannot fail: the numbers are right */
}

/* The directory of `target` with a name that mkostemp() completes. */
static char *temp_name(const char *target)
{
	static const char name[] = ".npk.XXXXXX";
	const char *slash = strrchr(target, '/');
	size_t dir = slash ? (size_t)(slash - target) + 1 : 0;
	char *out = malloc(dir + sizeof(name));

	if (out) {
		memcpy(out, target, dir);
		memcpy(out + dir, name, sizeof(name));
	}
	return out;
}

static mode_t default_mode(void)
{
	mode_t mask = umask(0);

	umask(mask);
	return 0666 & ~mask;
}

static int fail_out(const struct npkt_out *o, int code, struct npk_err *err)
{
	return npk_fail(err, code, "%.400s: %s", o->name, strerror(code));
}

/* A new file beside `target`; `old` is what is there now, or NULL. */
static int open_temp(struct npkt_out *o, const struct stat *old, struct npk_err *err)
{
	o->temp = temp_name(o->target);
	if (!o->temp)
		return fail_out(o, ENOMEM, err);
	half_written = o->temp; /* before the file is there: no moment without a remover */
	watch_signals();
	o->fd = mkostemp(o->temp, O_CLOEXEC);
	if (o->fd < 0) {
		int code = errno;

		half_written = NULL;
		free(o->temp);
		o->temp = NULL;
		o->fd = 0;
		return fail_out(o, code, err);
	}
	if (fchmod(o->fd, old ? old->st_mode & 0777 : default_mode()) != 0)
		return fail_out(o, errno, err);
	return 0;
}

static int open_path(struct npkt_out *o, const char *path, struct npk_err *err)
{
	struct stat st;
	bool exists = stat(path, &st) == 0;

	if (!exists && errno != ENOENT)
		return fail_out(o, errno, err);
	if (exists && !S_ISREG(st.st_mode)) { /* a directory gives EISDIR */
		int fd = open(path, O_WRONLY | O_CLOEXEC);

		if (fd < 0)
			return fail_out(o, errno, err);
		o->fd = fd;
		return 0;
	}
	o->target = exists ? realpath(path, NULL) : strdup(path); /* through a link, as cp does */
	if (!o->target)
		return fail_out(o, errno, err);
	return open_temp(o, exists ? &st : NULL, err);
}

int npkt_out_open(struct npkt_out *o, const char *path, bool binary, struct npk_err *err)
{
	int rc = 0;

	*o = (struct npkt_out){.name = path};
	if (strcmp(path, "-") == 0) {
		o->name = "standard output";
		o->fd = STDOUT_FILENO;
	} else {
		rc = open_path(o, path, err);
	}
	if (rc == 0 && binary && isatty(o->fd))
		rc = npk_fail(err, EINVAL,
			"%.400s is a terminal and .npy is binary: name a file with -o, or use a pipe", o->name);
	if (rc != 0)
		npkt_out_fini(o);
	return rc;
}

int npkt_out_write(struct npkt_out *o, const void *buf, size_t len, struct npk_err *err)
{
	const char *p = buf;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n, o->written += (uint64_t)n) {
		n = write(o->fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return fail_out(o, errno, err);
	}
	if (o->temp && o->written - o->begun >= WRITE_BEHIND) {
		sync_file_range(
			o->fd, (off_t)o->begun, (off_t)(o->written - o->begun), SYNC_FILE_RANGE_WRITE); /* a hint */
		o->begun = o->written;
	}
	return 0;
}

int npkt_out_commit(struct npkt_out *o, struct npk_err *err)
{
	int rc = 0;

	if (!o->temp)
		return 0;
	if (fsync(o->fd) != 0 || rename(o->temp, o->target) != 0)
		return fail_out(o, errno, err);
	half_written = NULL;
	free(o->temp);
	o->temp = NULL;
	if (close(o->fd) != 0)
		rc = fail_out(o, errno, err);
	o->fd = 0;
	return rc;
}

void npkt_out_fini(struct npkt_out *o)
{
	if (o->temp) {
		unlink(o->temp);
		half_written = NULL;
	}
	if (o->fd > STDOUT_FILENO)
		close(o->fd);
	free(o->temp);
	free(o->target);
	*o = (struct npkt_out){0};
}

int npkt_out_npy(struct npkt_out *o, struct npk_view *v, uint64_t first, uint64_t nrows, struct npkt_progress *progress,
	struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct npk_shape shape = info->shape;
	char header[NPK_NPY_HEADER_MAX], *block = malloc(NPKT_BLOCK);
	uint64_t at = first * info->row_bytes, end = at + nrows * info->row_bytes;
	size_t n;
	int rc;

	if (!block)
		return npk_fail(err, ENOMEM, "no memory");
	if (shape.ndim > 0)
		shape.dim[0] = nrows;
	rc = npkt_out_write(o, header, npk_npy_header(header, info->dtype, &shape, 64), err);
	for (; at < end && rc == 0; at += n) {
		n = end - at < NPKT_BLOCK ? (size_t)(end - at) : NPKT_BLOCK;
		rc = npk_view_read(v, at, block, n, err);
		if (rc == 0)
			rc = npkt_out_write(o, block, n, err);
		npk_view_let_go(v, at, n);
		if (rc == 0 && progress)
			npkt_progress(progress, at + n - first * info->row_bytes, nrows * info->row_bytes);
	}
	free(block);
	return rc;
}

int npkt_out_csv(
	struct npkt_out *o, struct npk_view *v, char delimiter, struct npkt_progress *progress, struct npk_err *err)
{
	char *block = malloc(NPKT_BLOCK);
	struct npk_csv *c = NULL;
	uint64_t at = 0;
	ssize_t n = 0;
	int rc = block ? npk_csv_open_view(&c, v, delimiter, err) : npk_fail(err, ENOMEM, "no memory");

	while (rc == 0 && (n = npk_csv_read(c, block, NPKT_BLOCK, err)) > 0) {
		rc = npkt_out_write(o, block, (size_t)n, err);
		npk_view_let_go(v, at, npk_csv_at(c) - at);
		at = npk_csv_at(c);
		if (rc == 0 && progress)
			npkt_progress(progress, at, npk_view_info(v)->bytes);
	}
	npk_csv_close(c);
	free(block);
	return rc == 0 ? (int)n : rc;
}
