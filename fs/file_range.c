/* file_range.c - requests about a range of an open file: fallocate(2), copy_file_range(2). They do what writes would do. */
#include "changed.h"
#include "file.h"
#include "ops.h"
#include "out.h"
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COPY_MAX ((size_t)16 << 20) /* in one request, which holds a worker; the caller comes again */

static struct npkfs_handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct npkfs_handle *)(uintptr_t)fi->fh;
}

static uint64_t size_of(struct npkfs_session *s, struct npkfs_node *node)
{
	struct stat st;

	npkfs_stat(s, node, &st);
	return (uint64_t)st.st_size;
}

static bool is_file(const struct npkfs_handle *h)
{
	return h->node->type == &npkfs_array_type && h->ops->write != NULL;
}

/* --- fallocate ------------------------------------------------------------------------------------------------------------- */

/* Blocks behind the rows are nobody's: they count for the array that grows into them. Where one file does not hold all rows,
 * that there is room is all that can be said. */
static int reserve(struct npkfs_session *s, struct npkfs_node *node, uint64_t end, struct npk_err *err)
{
	int dir = npk_store_dirfd(s->store), fd = -1, rc = 0;
	struct npk_array_info info = {.damaged = true};
	struct npk_array *a;
	struct statvfs fs;
	uint64_t size = size_of(s, node);

	if ((node->number & NPKFS_STAGED_NUMBER) == 0 && npkfs_node_array(s, node, &a, NULL) == 0) {
		rc = npk_array_info(a, &info, err);
		npk_array_put(a);
	}
	/* Asked first: where there is no room, some filesystems take all there is before they say so. */
	if (rc == 0 && fstatvfs(dir, &fs) == 0 && end > size && (end - size) / fs.f_frsize >= fs.f_bavail)
		rc = npk_fail(err, ENOSPC, "%llu bytes are wanted, there is no room", (unsigned long long)end);
	if (rc == 0 && !info.damaged && info.nsegments == 0)
		fd = openat(dir, info.data_file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0) {
		if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)end) != 0 && errno != EOPNOTSUPP)
			rc = npk_fail(err, errno, "%s: reserving %llu bytes: %s", info.data_file,
				(unsigned long long)end, strerror(errno));
		close(fd);
	}
	return rc;
}

static int write_all(struct npkfs_handle *h, struct npkfs_write *w, struct npk_err *err)
{
	size_t taken;
	int rc = h->ops->write(h, w, &taken, err);

	return rc == 0 && taken != w->len ? npk_fail(err, EIO, "a write was cut short") : rc;
}

/* Zeros within the file; the header of an array is not data. */
static int zero(struct npkfs_request *r, struct npkfs_handle *h, uint64_t off, uint64_t end, struct npk_err *err)
{
	static const char zeros[1 << 16];
	struct npkfs_write w = {.buf = zeros, .who = r->who};
	int rc = 0;

	if (h->append)
		return npk_fail(err, EOPNOTSUPP, "a file that is open to append has no place for zeros");
	for (; off < end && rc == 0; off += w.len) {
		w.off = off;
		w.len = end - off < sizeof(zeros) ? (size_t)(end - off) : sizeof(zeros);
		rc = write_all(h, &w, err);
	}
	return rc;
}

static int allocate(
	struct npkfs_request *r, struct npkfs_handle *h, int mode, uint64_t off, uint64_t len, struct npk_err *err)
{
	uint64_t size = size_of(r->s, r->node), end = off + len;
	bool keep = mode & FALLOC_FL_KEEP_SIZE, zeros = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	int rc = 0;

	if (!r->s->rw)
		return npk_fail(err, EROFS, "fallocate: this mount is read-only");
	if (!is_file(h) || (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
		return npk_fail(err, EOPNOTSUPP, "fallocate: mode 0x%x of this file", mode);
	if (zeros)
		rc = zero(r, h, off, end < size ? end : size, err);
	else
		rc = reserve(r->s, r->node, end, err);
	if (rc == 0 && !keep && end > size)
		rc = npkfs_file_resize(r->s, r->node, h, end, &r->who, err);
	return rc;
}

void npkfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct npkfs_request r;
	int rc;

	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_CHANGE, ino))
		return;
	if (off < 0 || len <= 0 || off > INT64_MAX - len)
		rc = npk_fail(&r.err, EINVAL, "fallocate: %lld bytes from %lld", (long long)len, (long long)off);
	else
		rc = allocate(&r, handle_of(fi), mode, (uint64_t)off, (uint64_t)len, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, NULL, rc);
	else
		fuse_reply_err(req, 0);
	npkfs_request_end(&r);
}

/* --- copy_file_range --------------------------------------------------------------------------------------------------------- */

/* One reply's worth: *n bytes, 0 at the end of `in`. */
static int copy_piece(struct npkfs_request *r, struct npkfs_handle *in, uint64_t from, struct npkfs_handle *out,
	uint64_t to, size_t len, size_t *n, struct npk_err *err)
{
	struct npkfs_write w = {.off = to, .who = r->who};
	struct npkfs_out got;
	char *buf = NULL, *p;
	int rc = npkfs_out_init(&got, err);

	*n = 0;
	if (rc != 0)
		return rc;
	rc = in->ops->read(in, from, len < NPKFS_READ_MAX ? len : NPKFS_READ_MAX, &got, err);
	if (rc == 0 && got.len > 0) {
		p = buf = malloc(got.len);
		if (buf == NULL)
			rc = npk_fail(err, ENOMEM, "no memory to copy");
		for (int i = 0; i < got.n && rc == 0; p += got.iov[i].iov_len, i++)
			memcpy(p, got.iov[i].iov_base, got.iov[i].iov_len);
		w.buf = buf;
		w.len = got.len;
	}
	npkfs_out_done(&got);
	if (rc == 0 && w.len > 0)
		rc = write_all(out, &w, err);
	if (rc == 0)
		*n = w.len;
	free(buf);
	return rc;
}

/* A piece that fails behind others ends the count before it. */
static int copy(struct npkfs_request *r, struct npkfs_handle *in, uint64_t from, struct npkfs_handle *out, uint64_t to,
	size_t len, size_t *done, struct npk_err *err)
{
	size_t n = 1;
	int rc = 0;

	for (*done = 0; *done < len && *done < COPY_MAX && rc == 0 && n > 0; *done += n)
		rc = copy_piece(r, in, from + *done, out, to + *done, len - *done, &n, err);
	if (rc != 0 && *done > 0) {
		err->code = 0;
		rc = 0;
	}
	return rc;
}

void npkfs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
	fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct npkfs_handle *in = handle_of(fi_in), *out = handle_of(fi_out);
	struct npkfs_request r;
	size_t done = 0;
	int rc = 0;

	(void)ino_in;
	if (!npkfs_request_begin_node(&r, req, NPKFS_OP_WRITE, ino_out))
		return;
	if (flags != 0)
		rc = npk_fail(&r.err, EINVAL, "copy_file_range: flags 0x%x", flags);
	else if (!is_file(out) || in->node->type != &npkfs_array_type || out->append)
		rc = npk_fail(&r.err, EOPNOTSUPP, "copy_file_range: between arrays and scratch files only");
	else if (!npkfs_file_clone(in, (uint64_t)off_in, out, (uint64_t)off_out, len, &done, &rc, &r.err))
		rc = copy(&r, in, (uint64_t)off_in, out, (uint64_t)off_out, len, &done, &r.err);
	if (rc != 0)
		npkfs_request_fail(&r, r.node, NULL, rc);
	else
		fuse_reply_write(req, done);
	npkfs_request_end(&r);
}
