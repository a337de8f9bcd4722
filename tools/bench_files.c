/* bench_files.c - the operations of npk bench by file calls: on a plain file, and on a mount. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_side {
	struct npkt_side side;
	char *path, *temp; /* temp: what a plain file is written to before it takes the other's place */
	char *control;     /* of the array in a mount; NULL: a plain file */
	uint64_t offset;   /* of the first row */
	bool made;
};

static int fail(const char *path, struct npk_err *err)
{
	return npk_fail(err, errno ? errno : EIO, "%.400s: %s", path, strerror(errno ? errno : EIO));
}

static int open_path(const char *path, int flags, int *fd, struct npk_err *err)
{
	*fd = open(path, flags | O_CLOEXEC, 0666);
	return *fd < 0 ? fail(path, err) : 0;
}

/* The end of a change: what close() says counts as well. */
static int end(const char *path, int fd, bool sync, int rc, struct npk_err *err)
{
	if (rc == 0 && sync && fsync(fd) != 0)
		rc = fail(path, err);
	if (close(fd) != 0 && rc == 0)
		rc = fail(path, err);
	return rc;
}

static int write_all(const char *path, int fd, const char *p, size_t len, struct npk_err *err)
{
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		if (n < 0)
			return fail(path, err);
	}
	return 0;
}

/* --- reading ----------------------------------------------------------------------------------------------------------- */

/* Bytes [at, at + len) behind the header, block by block. */
static int read_range(
	const struct file_side *t, int fd, uint64_t at, uint64_t len, struct npkt_bench *b, struct npk_err *err)
{
	int rc = 0;
	ssize_t n;

	for (uint64_t end = at + len; rc == 0 && at < end; at += (uint64_t)n) {
		size_t want = end - at < NPKT_BLOCK ? (size_t)(end - at) : NPKT_BLOCK;

		errno = 0;
		n = pread(fd, b->out, want, (off_t)(t->offset + at));
		if (n <= 0)
			return fail(t->path, err);
		rc = npkt_bench_go_on(b, err);
	}
	return rc;
}

static int load(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int fd, rc = open_path(t->path, O_RDONLY, &fd, err);

	return rc ? rc : end(t->path, fd, false, read_range(t, fd, 0, b->rows * b->row_bytes, b, err), err);
}

static int scan(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	uint64_t len = t->offset + b->rows * b->row_bytes, n;
	int fd, rc = open_path(t->path, O_RDONLY, &fd, err);
	const char *p;

	if (rc != 0)
		return rc;
	p = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return end(t->path, fd, false, fail(t->path, err), err);
	b->sum = 0;
	for (uint64_t at = t->offset; rc == 0 && at < len; at += n) {
		n = len - at < NPKT_BLOCK ? len - at : NPKT_BLOCK;
		b->sum += npkt_bench_sum(p + at, (size_t)n);
		rc = npkt_bench_go_on(b, err);
	}
	munmap((void *)p, (size_t)len);
	return end(t->path, fd, false, rc, err);
}

static int rows(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int fd, rc = open_path(t->path, O_RDONLY, &fd, err);

	if (rc != 0)
		return rc;
	for (uint64_t i = 0; i < b->nrandom && rc == 0; i++) {
		errno = 0;
		if (pread(fd, b->out + i * b->row_bytes, b->row_bytes,
			    (off_t)(t->offset + (uint64_t)b->random[i] * b->row_bytes)) != (ssize_t)b->row_bytes)
			rc = fail(t->path, err);
	}
	return end(t->path, fd, false, rc, err);
}

static int slices(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int fd, rc = open_path(t->path, O_RDONLY, &fd, err);

	if (rc != 0)
		return rc;
	for (int i = 0; i < NPKT_SLICES && rc == 0; i++)
		rc = read_range(t, fd, b->slice[i] * b->row_bytes, b->nslice * b->row_bytes, b, err);
	return end(t->path, fd, false, rc, err);
}

/* --- writing ----------------------------------------------------------------------------------------------------------- */

static int write_blocks(const char *path, int fd, uint64_t bytes, struct npkt_bench *b, struct npk_err *err)
{
	int rc = 0;
	size_t n;

	for (uint64_t at = 0; rc == 0 && at < bytes; at += n) {
		n = bytes - at < NPKT_BLOCK ? (size_t)(bytes - at) : NPKT_BLOCK;
		rc = write_all(path, fd, b->block, n, err);
		if (rc == 0)
			rc = npkt_bench_go_on(b, err);
	}
	return rc;
}

static int take_place(const struct file_side *t, int rc, struct npk_err *err)
{
	return rc == 0 && rename(t->temp, t->path) != 0 ? fail(t->path, err) : rc;
}

static int save_plain(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int fd, rc = open_path(t->temp, O_WRONLY | O_CREAT | O_TRUNC, &fd, err);

	if (rc == 0)
		rc = end(t->temp, fd, b->sync, write_blocks(t->temp, fd, b->rows * b->row_bytes, b, err), err);
	return take_place(t, rc, err);
}

/* A plain file loses rows when it is written anew without them. */
static int rewrite(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	uint64_t bytes = (b->rows - b->nrandom) * b->row_bytes;
	int from, to = -1, rc = open_path(t->path, O_RDONLY, &from, err);
	ssize_t n;

	if (rc != 0)
		return rc;
	rc = open_path(t->temp, O_WRONLY | O_CREAT | O_TRUNC, &to, err);
	for (uint64_t at = 0; rc == 0 && at < bytes; at += (uint64_t)n) {
		size_t want = bytes - at < NPKT_BLOCK ? (size_t)(bytes - at) : NPKT_BLOCK;

		errno = 0;
		n = pread(from, b->out, want, (off_t)at);
		if (n <= 0)
			rc = fail(t->path, err);
		else
			rc = write_all(t->temp, to, b->out, (size_t)n, err);
		if (rc == 0)
			rc = npkt_bench_go_on(b, err);
	}
	close(from);
	if (to >= 0)
		rc = end(t->temp, to, b->sync, rc, err);
	return take_place(t, rc, err);
}

static int append(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int fd, rc = open_path(t->path, O_WRONLY | O_APPEND, &fd, err);

	if (rc != 0)
		return rc;
	for (int i = 0; i < NPKT_APPENDS && rc == 0; i++)
		rc = write_all(t->path, fd, b->block, b->nappend * b->row_bytes, err);
	return end(t->path, fd, b->sync, rc, err);
}

static int replace(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int fd, rc = open_path(t->path, O_WRONLY, &fd, err);

	if (rc != 0)
		return rc;
	for (uint64_t i = 0; i < b->nrandom && rc == 0; i++) {
		errno = 0;
		if (pwrite(fd, b->out + i * b->row_bytes, b->row_bytes,
			    (off_t)(t->offset + (uint64_t)b->random[i] * b->row_bytes)) != (ssize_t)b->row_bytes)
			rc = fail(t->path, err);
	}
	return end(t->path, fd, b->sync, rc, err);
}

/* --- a mount ----------------------------------------------------------------------------------------------------------- */

static int find_offset(struct file_side *t, struct npk_npy *npy, struct npk_err *err)
{
	char head[NPK_NPY_HEADER_MAX];
	int fd, rc = open_path(t->path, O_RDONLY, &fd, err);
	ssize_t n = 0;

	if (rc == 0 && (n = pread(fd, head, sizeof(head), 0)) < 0)
		rc = fail(t->path, err);
	if (fd >= 0)
		close(fd);
	if (rc == 0)
		rc = npk_npy_parse(head, (size_t)n, npy, NULL, err);
	if (rc == 0)
		t->offset = npy->header_len;
	return rc;
}

static int save_mount(struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	char head[NPK_NPY_HEADER_MAX];
	size_t n = npk_npy_header(head, b->dtype, &b->shape, 64);
	int fd, rc = open_path(t->path, O_WRONLY | O_CREAT | O_TRUNC, &fd, err);
	struct npk_npy npy;

	if (rc != 0)
		return rc;
	t->made = true;
	rc = write_all(t->path, fd, head, n, err);
	if (rc == 0)
		rc = write_blocks(t->path, fd, b->rows * b->row_bytes, b, err);
	rc = end(t->path, fd, b->sync, rc, err);
	return rc == 0 ? find_offset(t, &npy, err) : rc; /* -o header= may make it longer than what was written */
}

/* Writes a line to a control file of the array and reads the answer, if it has one. */
static int command(const struct file_side *t, const char *name, const char *line, size_t len, struct npkt_bench *b,
	struct npk_err *err)
{
	char path[NPKT_PATH_MAX];
	ssize_t n = 1;
	int fd, rc;

	if (snprintf(path, sizeof(path), "%s/%s", t->control, name) >= (int)sizeof(path))
		return npk_fail(err, ENAMETOOLONG, "%.400s/%s: %s", t->control, name, strerror(ENAMETOOLONG));
	rc = open_path(path, O_RDWR, &fd, err);
	if (rc != 0)
		return rc;
	if (write(fd, line, len) != (ssize_t)len) {
		int code = errno;

		n = read(fd, b->out, 400);
		rc = npk_fail(err, code ? code : EIO, "%.300s: %.*s", path, n > 0 ? (int)n - 1 : 0, b->out);
	}
	while (rc == 0 && n > 0)
		if ((n = read(fd, b->out, NPKT_BLOCK)) < 0)
			rc = fail(path, err);
	return end(path, fd, false, rc, err);
}

static int search_mount(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	char line[96];
	int n = snprintf(line, sizeof(line), "k=%d metric=l2 row=%" PRId64 "\n", NPKT_HITS, b->random[0]);

	return command(t, "search", line, (size_t)n, b, err);
}

static int drop_mount(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	struct npk_text line = {0};
	int rc;

	for (uint64_t i = 0; i < b->nrandom; i++)
		npk_text_printf(&line, "%s%" PRId64, i ? "," : "", b->random[i]);
	npk_text_printf(&line, "\n");
	rc = line.bad ? npk_fail(err, ENOMEM, "no memory") : command(t, "drop", line.p, line.len, b, err);
	npk_text_fini(&line);
	if (rc == 0 && b->sync)
		rc = command(t, "sync", "1\n", 2, b, err);
	return rc;
}

static int compact_mount(const struct file_side *t, struct npkt_bench *b, struct npk_err *err)
{
	int rc = command(t, "compact", "1\n", 2, b, err);

	return rc == 0 && b->sync ? command(t, "sync", "1\n", 2, b, err) : rc;
}

/* --- the sides --------------------------------------------------------------------------------------------------------- */

static int run(struct npkt_side *side, struct npkt_bench *b, enum npkt_op op, struct npk_err *err)
{
	struct file_side *t = (struct file_side *)side;

	switch (op) {
	case NPKT_SAVE:
		return t->control ? save_mount(t, b, err) : save_plain(t, b, err);
	case NPKT_LOAD:
		return load(t, b, err);
	case NPKT_SCAN:
		return scan(t, b, err);
	case NPKT_ROWS:
		return rows(t, b, err);
	case NPKT_SLICE:
		return slices(t, b, err);
	case NPKT_APPEND:
		return append(t, b, err);
	case NPKT_REPLACE:
		return replace(t, b, err);
	case NPKT_SEARCH:
		return t->control ? search_mount(t, b, err) : load(t, b, err);
	case NPKT_DROP:
		return t->control ? drop_mount(t, b, err) : rewrite(t, b, err);
	case NPKT_COMPACT:
		return t->control ? compact_mount(t, b, err) : rewrite(t, b, err);
	case NPKT_OPS:
		break;
	}
	return npk_fail(err, EINVAL, "operation %d is unknown", (int)op);
}

static void close_side(struct npkt_side *side)
{
	struct file_side *t = (struct file_side *)side;

	if (t->temp)
		unlink(t->temp);
	if (t->made)
		unlink(t->path);
	free(t->path);
	free(t->temp);
	free(t->control);
	free(t);
}

int npkt_side_plain(struct npkt_side **out, const char *path, bool make, struct npk_err *err)
{
	struct file_side *t = calloc(1, sizeof(*t));

	if (!t || !(t->path = strdup(path)) || (make && asprintf(&t->temp, "%s.new", path) < 0)) {
		if (t)
			free(t->path);
		free(t);
		return npk_fail(err, ENOMEM, "no memory");
	}
	t->side = (struct npkt_side){run, close_side};
	t->made = make;
	*out = &t->side;
	return 0;
}

int npkt_side_mount(struct npkt_side **out, const char *mountpoint, const char *name, bool make, struct npkt_bench *b,
	struct npk_err *err)
{
	struct file_side *t = calloc(1, sizeof(*t));
	struct npk_npy npy;
	int rc = 0;

	if (!t)
		return npk_fail(err, ENOMEM, "no memory");
	t->side = (struct npkt_side){run, close_side};
	if (asprintf(&t->path, "%s/%s.npy", mountpoint, name) < 0)
		t->path = NULL;
	if (asprintf(&t->control, "%s/.numpack/arrays/%s", mountpoint, name) < 0)
		t->control = NULL;
	if (!t->path || !t->control) {
		close_side(&t->side);
		return npk_fail(err, ENOMEM, "no memory");
	}
	if (make && access(t->path, F_OK) == 0)
		rc = npk_fail(err, EEXIST, "%.400s: is there already", t->path);
	if (!make)
		rc = find_offset(t, &npy, err);
	if (!make && rc == 0) {
		b->dtype = npy.dtype;
		b->shape = npy.shape;
		b->rows = npy.shape.ndim ? npy.shape.dim[0] : 1;
		b->row_bytes = b->rows ? npy.data_len / b->rows : 0;
	}
	if (rc != 0) {
		close_side(&t->side);
		return rc;
	}
	*out = &t->side;
	return 0;
}
