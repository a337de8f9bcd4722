/* file_write.c - writing to open files of the root: in place, behind the last row, and to what is not an array yet. */
#include "changed.h"
#include "file_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* --- an array ---------------------------------------------------------------------------------------------------------- */

/* One write to an array: what it needs, taken once. */
struct writing {
	struct npkfs_file *f;
	struct npk_array *a;
	struct npkfs_layout *l;
	bool grown, written;
};

static bool is_same_array(const struct npk_npy *npy, const struct npk_gen_info *info)
{
	if (npy->dtype != info->dtype || npy->big_endian || npy->fortran_order || npy->shape.ndim != info->shape.ndim)
		return false;
	for (unsigned i = 1; i < info->shape.ndim; i++)
		if (npy->shape.dim[i] != info->shape.dim[i])
			return false;
	return true;
}

/* Bytes of a header over ours, `off + len` within it: they must say the same, once they are all there. */
static int write_header(struct writing *w, uint64_t off, const char *buf, size_t len, struct npk_err *err)
{
	struct npk_text *head = &w->f->head;
	struct npk_npy npy;
	int rc;

	if (head->len != w->l->header_len) {
		npk_text_fini(head);
		npk_text_add(head, w->l->header, w->l->header_len);
	}
	if (head->bad)
		return npk_fail(err, ENOMEM, "no memory for a header");
	memcpy(head->p + off, buf, len);
	if (off + len < w->l->header_len)
		return 0;
	rc = npk_npy_parse(head->p, head->len, &npy, NULL, err);
	if (rc == 0 && (npy.header_len != w->l->header_len || !is_same_array(&npy, npk_gen_info(w->l->gen))))
		rc = -EINVAL;
	npk_text_fini(head);
	return rc == 0 ? 0 : npk_fail(err, EINVAL, "this header is not the array's: another dtype, order or width");
}

/* The array's present layout, after it grew. */
static int take_grown(struct writing *w, struct npk_err *err)
{
	int rc = npkfs_announce_grown(w->f->h.s, w->f->h.node->space, w->a, err);

	npkfs_layout_put(w->l);
	w->l = npkfs_node_layout(w->f->h.node);
	w->grown = true;
	return rc;
}

bool npkfs_is_current(struct npk_array *a, const struct npkfs_layout *l)
{
	struct npk_gen *g = NULL;
	bool same =
		a != NULL && npk_gen_get(&g, a, NULL) == 0 && npk_gen_info(g)->number == npk_gen_info(l->gen)->number;

	npk_gen_put(g);
	return same;
}

static int keep_tail(struct npkfs_file *f, uint64_t at, size_t zeros, const char *buf, size_t len, uint64_t owner,
	struct npk_err *err)
{
	npk_text_fini(&f->tail);
	for (; zeros > 0; zeros--)
		npk_text_add(&f->tail, "", 1);
	npk_text_add(&f->tail, buf, len);
	f->tail_at = at;
	f->tail_owner = owner;
	return f->tail.bad ? npk_fail(err, ENOMEM, "no memory for a row") : 0;
}

/* Whole rows at the end of the array; what is left waits in the handle. */
static int append_rows(struct writing *w, uint64_t at, const char *buf, size_t len, uint64_t owner, struct npk_err *err)
{
	uint64_t row_bytes = npk_gen_info(w->l->gen)->row_bytes, rows;
	int rc = 0;

	if (row_bytes == 0)
		return npk_fail(err, EINVAL, "rows of no bytes cannot be appended");
	rows = len / row_bytes;
	if (rows > 0) {
		rc = npk_array_append(w->a, buf, rows, err);
		if (rc == 0)
			rc = take_grown(w, err);
	}
	return rc != 0 ? rc
		       : keep_tail(w->f, at + rows * row_bytes, 0, buf + rows * row_bytes, len - rows * row_bytes,
				 owner, err);
}

static int write_bytes(struct writing *w, uint64_t off, const char *buf, size_t len, struct npk_err *err)
{
	w->written = true;
	return npk_view_pwrite(w->l->view, w->a, off - w->l->header_len, buf, len, err);
}

/* Behind a gap: rows of zeros, then the bytes. `off` is beyond the end. */
static int write_far(struct writing *w, uint64_t off, const char *buf, size_t len, uint64_t owner, struct npk_err *err)
{
	uint64_t row_bytes = npk_gen_info(w->l->gen)->row_bytes, head = w->l->header_len, rows, whole;
	size_t n;
	int rc = 0;

	if (row_bytes == 0 || off > INT64_MAX - len)
		return npk_fail(err, EINVAL, "offset %llu", (unsigned long long)off);
	rows = (off + len - head) / row_bytes;
	whole = head + rows * row_bytes;
	if (rows * row_bytes > w->l->bytes) {
		rc = npk_array_extend(w->a, rows - w->l->bytes / row_bytes, err);
		if (rc == 0)
			rc = take_grown(w, err);
	}
	n = off < whole ? (size_t)(whole - off) : 0;
	if (rc == 0 && n > 0)
		rc = write_bytes(w, off, buf, n, err);
	return rc != 0 || n == len
		       ? rc
		       : keep_tail(w->f, whole, n > 0 ? 0 : (size_t)(off - whole), buf + n, len - n, owner, err);
}

/* Behind the present end. */
static int write_end(struct writing *w, uint64_t off, const char *buf, size_t len, uint64_t owner, struct npk_err *err)
{
	uint64_t end = w->l->header_len + w->l->bytes;

	if (!npkfs_is_current(w->a, w->l))
		return npk_fail(
			err, ESTALE, "rows are added to the present generation only; this file is an older one");
	return off == end ? append_rows(w, off, buf, len, owner, err) : write_far(w, off, buf, len, owner, err);
}

/* Header, rows in place, rows behind. */
static int write_spread(
	struct writing *w, uint64_t off, const char *buf, size_t len, uint64_t owner, struct npk_err *err)
{
	uint64_t end = w->l->header_len + w->l->bytes;
	size_t n = off < w->l->header_len ? w->l->header_len - (size_t)off : 0;
	int rc = 0;

	n = n < len ? n : len;
	if (n > 0)
		rc = write_header(w, off, buf, n, err);
	off += n;
	buf += n;
	len -= n;
	n = off < end ? (end - off < len ? (size_t)(end - off) : len) : 0;
	if (rc == 0 && n > 0)
		rc = write_bytes(w, off, buf, n, err);
	if (rc == 0 && len > n)
		rc = write_end(w, off + n, buf + n, len - n, owner, err);
	return rc;
}

/* Bytes that go on where a row was left open are put together with it. */
static int write_joined(
	struct writing *w, uint64_t off, const char *buf, size_t len, uint64_t owner, struct npk_err *err)
{
	bool append = (w->f->flags & O_APPEND) != 0;
	struct npk_text all = {0};
	uint64_t at = w->f->tail_at;
	int rc;

	if (w->f->tail.len == 0 || (!append && off != at + w->f->tail.len))
		return append ? append_rows(w, 0, buf, len, owner, err) : write_spread(w, off, buf, len, owner, err);
	npk_text_add(&all, w->f->tail.p, w->f->tail.len);
	npk_text_add(&all, buf, len);
	if (all.bad)
		rc = npk_fail(err, ENOMEM, "no memory for a row");
	else
		rc = append ? append_rows(w, 0, all.p, all.len, owner, err)
			    : write_spread(w, at, all.p, all.len, owner, err);
	if (rc == 0 && !append && w->f->tail.len == all.len) /* taken in nowhere else */
		w->f->tail_at = at;
	npk_text_fini(&all);
	return rc;
}

/* With O_APPEND the rows go to what the array is now, even when this file shows an older generation. */
static int take_current(struct writing *w, struct npk_err *err)
{
	struct npkfs_layout *l;
	struct npk_gen *g;
	int rc = npk_gen_get(&g, w->a, err);

	if (rc != 0)
		return rc;
	rc = npkfs_layout_new(&l, w->f->h.s, g, NULL, 0, err);
	npk_gen_put(g);
	if (rc == 0) {
		npkfs_layout_put(w->l);
		w->l = l;
	}
	return rc;
}

static void announce_written(struct writing *w)
{
	struct npkfs_session *s = w->f->h.s;
	struct npkfs_node *node = w->f->h.node;
	size_t len;
	char *called = npkfs_node_called(node, &len);

	npkfs_announce_written(s, node, called, called != NULL ? len : 0);
	free(called);
	if (w->a != NULL)
		npkfs_announce_grown(s, node->space, w->a, NULL); /* its time */
}

/* How many bytes of a write are the writer's: in pages that the kernel is just being told rows of, what lies there is not. */
static size_t bytes_meant(const struct npkfs_node *node, const struct npkfs_write *q)
{
	uint64_t guarded = q->page ? atomic_load(&node->guarded) : 0;

	if (guarded == 0 || q->off + q->len <= guarded)
		return q->len;
	return q->off < guarded ? (size_t)(guarded - q->off) : 0;
}

static int write_array(struct npkfs_file *f, struct npkfs_layout *l, struct npkfs_write *q, struct npk_err *err)
{
	struct writing w = {.f = f, .l = l};
	size_t len = bytes_meant(f->h.node, q);
	struct npkfs_session *s = f->h.s;
	struct npk_err why = {0};
	int rc;

	if (atomic_load(&f->h.node->converted))
		rc = npk_fail(err, EINVAL, "the array was converted when it was complete: open it anew to change it");
	else if (atomic_load(&f->h.node->compacted) && !(f->flags & O_APPEND))
		rc = npk_fail(err, ESTALE, "the array was compacted: open it anew");
	else if (npkfs_is_left(f->h.node, rc = npkfs_node_array(s, f->h.node, &w.a, &why)) && !(f->flags & O_APPEND))
		rc = 0; /* the file lives on for who has it open */
	else if (rc != 0)
		rc = npk_fail(err, -rc, "%s", why.msg);
	if (rc == 0 && (f->flags & O_APPEND))
		rc = take_current(&w, err);
	if (rc == 0 && (len > 0 || q->len == 0))
		rc = write_joined(&w, q->off, q->buf, len, q->owner, err);
	if (w.written)
		announce_written(&w);
	if (rc == 0)
		rc = npkfs_sync_change(s, err);
	if (w.grown && !f->h.direct) /* answered at once, and the kernel goes by what it has written */
		npkfs_node_show_size(f->h.node, NULL);
	q->announced = w.written || w.grown;
	npk_array_put(w.a);
	npkfs_layout_put(w.l);
	return rc;
}

/* --- whatever the node shows ------------------------------------------------------------------------------------------- */

/* False: it became an array meanwhile. */
static bool write_staged(
	struct npkfs_file *f, struct npkfs_staged *st, const struct npkfs_write *q, int *rc, struct npk_err *err)
{
	uint64_t off;
	bool staged;

	pthread_mutex_lock(&st->lock);
	staged = !st->committed;
	if (staged) {
		off = f->flags & O_APPEND ? st->payload.size : q->off;
		*rc = npkfs_payload_write(&st->payload, off, q->buf, q->len, err);
		if (*rc == 0)
			*rc = npkfs_staged_changed(f->h.s, f->h.node, st, err);
	}
	pthread_mutex_unlock(&st->lock);
	return staged;
}

static int write_either(struct npkfs_file *f, struct npkfs_write *q, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(f->h.node);
	struct npkfs_staged *st = l == NULL ? npkfs_node_staged(f->h.node) : NULL;
	int rc = 0;

	if (st != NULL && !write_staged(f, st, q, &rc, err))
		l = npkfs_node_layout(f->h.node);
	npkfs_staged_put(st);
	if (l != NULL)
		return write_array(f, l, q, err);
	return st != NULL ? rc : npk_fail(err, EIO, "an array that cannot be written");
}

void npkfs_file_keep(struct npkfs_file *f)
{
	struct npkfs_layout *l = npkfs_node_layout(f->h.node);

	if (l != NULL && l->gen != f->kept) {
		npk_gen_keep(l->gen);
		npk_gen_unkeep(f->kept);
		f->kept = l->gen;
	}
	npkfs_layout_put(l);
}

int npkfs_file_write(struct npkfs_handle *h, struct npkfs_write *q, size_t *taken, struct npk_err *err)
{
	struct npkfs_file *f = (struct npkfs_file *)h;
	int rc;

	if ((f->flags & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	pthread_mutex_lock(&f->lock);
	rc = write_either(f, q, err);
	if (rc != 0)
		f->sticky = rc;
	else
		npkfs_file_keep(f);
	f->clone_of = 0;
	pthread_mutex_unlock(&f->lock);
	*taken = rc == 0 ? q->len : 0;
	return rc;
}
