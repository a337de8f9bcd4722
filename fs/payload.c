/* payload.c - see payload.h. */
#include "payload.h"
#include "convert.h"
#include "fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_BYTES ((size_t)1 << 20)

void npkfs_payload_init(struct npkfs_payload *p, struct npkfs_session *s, struct npkfs_space *sp, bool any)
{
	*p = (struct npkfs_payload){.s = s, .space = npkfs_space_ref(sp), .any = any, .fd = -1};
}

static void forget(struct npkfs_payload *p)
{
	npk_text_fini(&p->head);
	npk_save_abort(p->save);
	if (p->fd >= 0)
		close(p->fd);
}

void npkfs_payload_clear(struct npkfs_payload *p)
{
	forget(p);
	*p = (struct npkfs_payload){.s = p->s, .space = p->space, .any = p->any, .fd = -1};
}

void npkfs_payload_fini(struct npkfs_payload *p)
{
	forget(p);
	npkfs_space_put(p->space);
	*p = (struct npkfs_payload){.fd = -1};
}

/* --- the unnamed file --------------------------------------------------------------------------------------------------- */

static int fail_io(struct npk_err *err, const char *what)
{
	return npk_fail(err, errno, "a scratch file: %s: %s", what, strerror(errno));
}

static int write_fd(int fd, uint64_t off, const char *buf, size_t len, struct npk_err *err)
{
	ssize_t n;

	for (; len > 0; buf += n, len -= (size_t)n, off += (uint64_t)n) {
		n = pwrite(fd, buf, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return fail_io(err, "pwrite");
	}
	return 0;
}

/* What lies behind the end of the file reads as zeros. */
static int read_fd(int fd, uint64_t off, char *buf, size_t len, struct npk_err *err)
{
	ssize_t n;

	for (; len > 0; buf += n, len -= (size_t)n, off += (uint64_t)n) {
		n = pread(fd, buf, len, (off_t)off);
		if (n == 0) {
			memset(buf, 0, len);
			return 0;
		}
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return fail_io(err, "pread");
	}
	return 0;
}

/* Copies bytes of the payload from `from` on to another place: a file, or a save. */
static int copy_out(struct npkfs_payload *p, uint64_t from, int fd, struct npk_save *save, struct npk_err *err)
{
	char *buf = malloc(COPY_BYTES);
	int rc = buf != NULL ? 0 : npk_fail(err, ENOMEM, "no memory to copy");
	size_t n;

	for (uint64_t at = from; at < p->size && rc == 0; at += n) {
		n = p->size - at < COPY_BYTES ? (size_t)(p->size - at) : COPY_BYTES;
		rc = npkfs_payload_read(p, at, buf, n, err);
		if (rc == 0)
			rc = fd >= 0 ? write_fd(fd, at, buf, n, err) : npk_save_pwrite(save, at - from, buf, n, err);
	}
	free(buf);
	return rc;
}

/* All bytes into the unnamed file: it is no .npy, or is written in an order that hides that it is one. */
static int spill(struct npkfs_payload *p, struct npk_err *err)
{
	int fd, rc;

	if (p->fd >= 0)
		return 0;
	fd = npk_unnamed_file(npk_store_dirfd(p->s->store));
	if (fd < 0)
		return npk_fail(err, -fd, "a scratch file: open: %s", strerror(-fd));
	rc = copy_out(p, 0, fd, NULL, err);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	forget(p);
	p->head = (struct npk_text){0};
	p->save = NULL;
	p->parsed = false;
	p->fd = fd;
	return 0;
}

/* --- the header --------------------------------------------------------------------------------------------------------- */

/* Looks for a header at the start of p->head. 0 and p->parsed unchanged: more bytes are needed. */
static int parse_head(struct npkfs_payload *p, struct npk_err *err)
{
	struct npk_npy npy;
	size_t need = 0;
	int rc = npk_npy_parse(p->head.p, p->head.len, &npy, &need, err);

	if (rc == -EAGAIN)
		return need <= NPKFS_HEAD_MAX ? 0 : npk_fail(err, EINVAL, "a .npy header of %zu bytes", need);
	if (rc != 0)
		return rc;
	rc = npkfs_save_open(p->s, p->space, npy.dtype, &npy.shape, &p->save, err);
	if (rc != 0) {
		p->save = NULL;
		return rc;
	}
	p->npy = npy;
	p->parsed = true;
	return 0;
}

/* The bytes of p->head that are data already go where data belongs. */
static int split_head(struct npkfs_payload *p, struct npk_err *err)
{
	size_t len = p->npy.header_len;
	int rc = 0;

	if (p->head.len > len)
		rc = npk_save_pwrite(p->save, 0, p->head.p + len, p->head.len - len, err);
	if (rc == 0)
		p->head.len = len;
	return rc;
}

static uint64_t promised(const struct npkfs_payload *p)
{
	return p->npy.header_len + p->npy.data_len;
}

static int too_big(const struct npkfs_payload *p, uint64_t size, struct npk_err *err)
{
	return npk_fail(err, EFBIG, "%llu bytes, the .npy header promises %llu", (unsigned long long)size,
		(unsigned long long)promised(p));
}

/* Bytes before the header is whole, in order. */
static int write_head(struct npkfs_payload *p, const char *buf, size_t len, struct npk_err *err)
{
	size_t before = p->head.len;
	int rc;

	npk_text_add(&p->head, buf, len);
	if (p->head.bad)
		return npk_fail(err, ENOMEM, "no memory for %zu bytes", len);
	rc = parse_head(p, err);
	if (rc == 0 && p->parsed && p->head.len > promised(p))
		rc = p->any ? -EINVAL : too_big(p, p->head.len, err);
	if (rc == 0 && p->parsed)
		rc = split_head(p, err);
	if (rc != 0) { /* as if nothing was written */
		npk_save_abort(p->save);
		p->save = NULL;
		p->parsed = false;
		p->head.len = before;
	}
	return rc;
}

/* --- writing ------------------------------------------------------------------------------------------------------------- */

static int write_spilled(struct npkfs_payload *p, uint64_t off, const char *buf, size_t len, struct npk_err *err)
{
	int rc = spill(p, err);

	if (rc == 0)
		rc = write_fd(p->fd, off, buf, len, err);
	if (rc == 0 && off + len > p->size)
		p->size = off + len;
	return rc;
}

/* Data behind a known header; or the header again, as it is. */
static int write_parsed(struct npkfs_payload *p, uint64_t off, const char *buf, size_t len, struct npk_err *err)
{
	size_t head = off < p->npy.header_len ? p->npy.header_len - (size_t)off : 0;
	int rc = 0;

	head = head < len ? head : len;
	if (memcmp(p->head.p + (head ? off : 0), buf, head) != 0)
		return write_spilled(p, off, buf, len, err);
	if (off + len > promised(p))
		return p->any ? write_spilled(p, off, buf, len, err) : too_big(p, off + len, err);
	if (len > head)
		rc = npk_save_pwrite(p->save, off + head - p->npy.header_len, buf + head, len - head, err);
	if (rc == 0 && off + len > p->size)
		p->size = off + len;
	return rc;
}

int npkfs_payload_write(struct npkfs_payload *p, uint64_t off, const void *buf, size_t len, struct npk_err *err)
{
	int rc;

	if (p->lost)
		return npk_fail(err, EIO, "an earlier write of this file failed");
	if (off > INT64_MAX - len)
		return npk_fail(err, EFBIG, "offset %llu", (unsigned long long)off);
	if (len == 0)
		return 0;
	if (p->parsed)
		return write_parsed(p, off, buf, len, err);
	if (p->fd >= 0 || off != p->head.len || off != p->size)
		return write_spilled(p, off, buf, len, err);
	rc = write_head(p, buf, len, err);
	if (rc == -EINVAL && p->any)
		return write_spilled(p, off, buf, len, err);
	if (rc == 0)
		p->size = off + len;
	return rc;
}

int npkfs_payload_truncate(struct npkfs_payload *p, uint64_t size, struct npk_err *err)
{
	int rc = 0;

	if (p->lost)
		return npk_fail(err, EIO, "an earlier write of this file failed");
	if (size == 0) {
		npkfs_payload_clear(p);
		return 0;
	}
	if (p->parsed && size > promised(p) && !p->any)
		return too_big(p, size, err);
	if (p->parsed && size >= p->npy.header_len && size <= promised(p)) {
		if (size < p->size && npk_save_length(p->save) > size - p->npy.header_len)
			rc = npk_save_truncate(p->save, size - p->npy.header_len, err);
	} else {
		rc = spill(p, err);
		if (rc == 0 && ftruncate(p->fd, (off_t)size) != 0)
			rc = fail_io(err, "ftruncate");
	}
	if (rc == 0)
		p->size = size;
	return rc;
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

/* Data that was not written yet is zero. */
static int read_save(struct npkfs_payload *p, uint64_t off, char *buf, size_t len, struct npk_err *err)
{
	uint64_t have = npk_save_length(p->save);
	size_t n = off < have ? (have - off < len ? (size_t)(have - off) : len) : 0;

	memset(buf + n, 0, len - n);
	return n > 0 ? npk_save_pread(p->save, off, buf, n, err) : 0;
}

int npkfs_payload_read(struct npkfs_payload *p, uint64_t off, void *to, size_t len, struct npk_err *err)
{
	char *buf = to;
	size_t n;

	if (p->lost)
		return npk_fail(err, EIO, "an earlier write of this file failed");
	if (p->fd >= 0)
		return read_fd(p->fd, off, buf, len, err);
	n = off < p->head.len ? p->head.len - (size_t)off : 0;
	n = n < len ? n : len;
	if (n > 0)
		memcpy(buf, p->head.p + off, n);
	if (n == len)
		return 0;
	if (p->parsed)
		return read_save(p, off + n - p->npy.header_len, buf + n, len - n, err);
	memset(buf + n, 0, len - n);
	return 0;
}

/* --- commit -------------------------------------------------------------------------------------------------------------- */

/* The header of a file that was spilled. */
static int parse_spilled(struct npkfs_payload *p, struct npk_npy *npy, struct npk_text *head, struct npk_err *err)
{
	size_t n = p->size < NPKFS_HEAD_MAX ? (size_t)p->size : NPKFS_HEAD_MAX;
	char *buf = malloc(n + 1);
	int rc = buf != NULL ? npkfs_payload_read(p, 0, buf, n, err) : npk_fail(err, ENOMEM, "no memory for a header");

	if (rc == 0)
		rc = npk_npy_parse(buf, n, npy, NULL, err);
	if (rc == -EAGAIN)
		rc = npk_fail(err, EINVAL, "the .npy header is cut short");
	if (rc == 0)
		npk_text_add(head, buf, npy->header_len);
	free(buf);
	return rc;
}

bool npkfs_payload_complete(struct npkfs_payload *p)
{
	struct npk_text head = {0};
	struct npk_npy npy;
	bool whole;

	if (p->lost)
		return false;
	if (p->fd < 0)
		return p->parsed && p->size == promised(p);
	whole = parse_spilled(p, &npy, &head, NULL) == 0 && npy.header_len + npy.data_len == p->size;
	npk_text_fini(&head);
	return whole;
}

/* Turns a spilled .npy into a header and a save. */
static int unspill(struct npkfs_payload *p, struct npk_err *err)
{
	struct npk_text head = {0};
	struct npk_npy npy;
	struct npk_save *save = NULL;
	int rc = parse_spilled(p, &npy, &head, err);

	if (rc == 0 && npy.header_len + npy.data_len != p->size)
		rc = npk_fail(err, EINVAL, "%llu bytes, the .npy header promises %llu", (unsigned long long)p->size,
			(unsigned long long)(npy.header_len + npy.data_len));
	if (rc == 0)
		rc = npkfs_save_open(p->s, p->space, npy.dtype, &npy.shape, &save, err);
	if (rc == 0)
		rc = copy_out(p, npy.header_len, -1, save, err);
	if (rc != 0) {
		npk_save_abort(save);
		npk_text_fini(&head);
		return rc;
	}
	close(p->fd);
	p->fd = -1;
	p->head = head;
	p->npy = npy;
	p->save = save;
	p->parsed = true;
	return 0;
}

/* C order, little-endian. */
static int normalize(struct npkfs_payload *p, struct npk_err *err)
{
	struct npk_save *plain = NULL;
	int rc = npkfs_save_open(p->s, p->space, p->npy.dtype, &p->npy.shape, &plain, err);

	if (rc == 0)
		rc = npkfs_convert(p->save, &p->npy, plain, err);
	if (rc != 0) {
		npk_save_abort(plain);
		return rc;
	}
	npk_save_abort(p->save);
	p->save = plain;
	return 0;
}

/* A dimension of at most one row or column has the same bytes in both orders. */
static bool needs_order(const struct npk_npy *npy)
{
	unsigned wide = 0;

	for (unsigned i = 0; i < npy->shape.ndim; i++)
		wide += npy->shape.dim[i] != 1;
	return npy->fortran_order && wide > 1 && npy->data_len > 0;
}

static bool needs_swap(const struct npk_npy *npy)
{
	return npy->big_endian && npk_dtype_size(npy->dtype) > 1 && npy->data_len > 0;
}

struct npk_save *npkfs_payload_take(struct npkfs_payload *p)
{
	struct npk_save *save = p->save;

	p->save = NULL;
	p->lost = true;
	return save;
}

/* Owner first: a change of it takes bits of the mode away. */
static int give(struct npk_save *save, const struct npkfs_owner *as, struct npk_err *err)
{
	int rc = npk_save_set_owner(save, as->uid, as->gid, err);

	return rc == 0 || rc == -EPERM ? npk_save_set_mode(save, as->mode, err) : rc;
}

int npkfs_payload_commit(
	struct npkfs_payload *p, const char *name, const struct npkfs_owner *as, bool *same, struct npk_err *err)
{
	char canonical[NPK_NPY_HEADER_MAX];
	int rc = 0;

	if (p->lost)
		return npk_fail(err, EIO, "an earlier write of this file failed");
	if (p->fd >= 0)
		rc = unspill(p, err);
	if (rc == 0 && !(p->parsed && p->size == promised(p)))
		rc = npk_fail(err, EINVAL, "not a complete .npy file");
	if (rc == 0)
		rc = npk_save_truncate(p->save, p->npy.data_len, err); /* what was skipped is zeros */
	*same = rc == 0 && !needs_order(&p->npy) && !needs_swap(&p->npy) &&
		p->head.len == npk_npy_header(canonical, p->npy.dtype, &p->npy.shape, 64);
	if (rc == 0 && (needs_order(&p->npy) || needs_swap(&p->npy)))
		rc = normalize(p, err);
	if (rc == 0 && as != NULL)
		rc = give(p->save, as, err);
	if (rc != 0)
		return rc;
	return npk_save_commit(npkfs_payload_take(p), name, err);
}
