/* file.c - open files of the root: reading, writing in place, appending, staging.
 *
 * A node shows an array's layout, or is staged. Whatever a handle does, it asks the node anew: a write may turn the node from
 * staged into an array. The writers' rules are those of interface.md section 3. */
#include "file.h"
#include "changed.h"
#include "layout.h"
#include "names.h"
#include "npyfile.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE_MIN ((size_t)1 << 30) /* a piece as long as that is cut off something longer */

struct file {
	struct npkfs_handle h;
	int flags;
	pthread_mutex_t lock; /* one write of a handle at a time; outermost */
	struct npk_text tail; /* lock: bytes of a row that is not whole yet */
	uint64_t tail_at;     /* lock: where they are to go in the file; without O_APPEND */
	uint64_t tail_owner;  /* lock: who wrote them */
	struct npk_text head; /* lock: a header that is being written over ours */
	int sticky;           /* lock: the error of a write, returned again by every FLUSH */
	uint64_t clone_of;    /* lock: the generation that copy_file_range() made this array of; 0: none */
	struct npk_gen *kept; /* lock: the generation whose files stay open for this writer; NULL: none */
	struct npkfs_caller who;
};

int npkfs_sync_change(struct npkfs_session *s, struct npk_err *err)
{
	return s->config->sync == NPKFS_SYNC_ALWAYS ? npk_store_fsync(s->store, err) : 0;
}

/* --- staged files become arrays ---------------------------------------------------------------------------------------------- */

/* The array's name behind a component of the root. */
static int array_name(const char *component, char name[NPKFS_NAME_MAX + 1], struct npk_err *err)
{
	size_t len;

	if (!npkfs_is_array_component(component) || !npkfs_name_strip(component, ".npy", &len) ||
		!npkfs_name_unescape(name, &len, component, len))
		return npk_fail(err, EINVAL, "%.200s: not the name of an array", component);
	return strlen(name) == len ? 0 : npk_fail(err, EINVAL, "%.200s: NumPack has no such names", component);
}

/* The node goes on as the array's. With the canonical header it is the array's node for everybody; else only for those who
 * have it open. */
static int show_array(struct npkfs_session *s, struct npkfs_node *node, const char *name, const struct npk_text *head,
	bool same, struct npk_err *err)
{
	struct npkfs_layout *l = NULL;
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	const struct npk_gen_info *info;
	bool usual = false;
	int rc = npkfs_array_get(s, node->space, name, strlen(name), &a, err);

	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0) {
		info = npk_gen_info(g);
		usual = same && head->len == npkfs_npy_header_len(s, info->dtype, &info->shape);
		rc = same && !usual ? npkfs_layout_new(&l, s, g, head->p, head->len, err)
				    : npkfs_layout_new(&l, s, g, NULL, 0, err);
	}
	if (rc == 0) {
		npkfs_node_call(node, name, strlen(name));
		atomic_store(&node->converted, !same);
		npkfs_node_set_layout(node, l);
		if (usual && npkfs_node_rekey(&s->inodes, node, npk_gen_info(g)->number))
			npkfs_inval_range(&s->inval, node->id, 0, head->len);
	}
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static bool has_array(struct npkfs_session *s, struct npkfs_space *sp, const char *name)
{
	struct npk_array *a;

	if (npkfs_array_get(s, sp, name, strlen(name), &a, NULL) != 0)
		return false;
	npk_array_put(a);
	return true;
}

int npkfs_staged_commit(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const char *component, bool renamed, struct npk_err *err)
{
	const struct npkfs_owner own = {st->mode, st->uid, st->gid};
	char name[NPKFS_NAME_MAX + 1];
	bool same;
	int rc = array_name(component, name, err);

	if (rc == 0)
		rc = npkfs_payload_commit(
			&st->payload, name, renamed || !has_array(s, node->space, name) ? &own : NULL, &same, err);
	if (rc == 0)
		rc = show_array(s, node, name, &st->payload.head, same, err);
	if (rc != 0)
		return rc;
	st->committed = true;
	npkfs_staged_unlist(s, st);
	npkfs_announce(s, node->space, name, strlen(name), NPK_APPEARED);
	return npkfs_sync_change(s, err);
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* What every change of a payload ends with. Needs st->lock. */
static int staged_changed(
	struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, struct npk_err *err)
{
	atomic_store(&st->size, st->payload.size);
	atomic_store(&st->mtime_us, now_us());
	if (st->scratch || !st->listed || !npkfs_payload_complete(&st->payload))
		return 0;
	return npkfs_staged_commit(s, node, st, st->name, false, err);
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static void put_layout(void *layout)
{
	npkfs_layout_put(layout);
}

/* The header never promises rows that the kernel does not know the size of: that of the layout which is shown. */
static int read_layout(struct npkfs_layout *l, struct npkfs_layout *shown, uint64_t off, size_t len,
	struct npkfs_out *out, struct npk_err *err)
{
	int rc;

	out->done = put_layout;
	out->ctx = l;
	rc = npkfs_npy_read(shown->header_len == l->header_len ? shown->header : l->header, l->header_len, l->view, off,
		len, out, err);
	npkfs_layout_put(shown);
	return rc;
}

static int read_staged(struct npkfs_staged *st, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	int rc = 0;

	pthread_mutex_lock(&st->lock);
	if (!st->committed && off < st->payload.size) {
		if (len > st->payload.size - off)
			len = (size_t)(st->payload.size - off);
		rc = npkfs_payload_read(&st->payload, off, npkfs_out_room(out, len), len, err);
	}
	pthread_mutex_unlock(&st->lock);
	return rc;
}

static int read_file(struct npkfs_handle *h, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	struct npkfs_layout *shown, *l = npkfs_node_layouts(h->node, &shown);
	struct npkfs_staged *st;
	int rc;

	if (l != NULL)
		return read_layout(l, shown, off, len, out, err);
	st = npkfs_node_staged(h->node);
	if (st == NULL)
		return npk_fail(err, EIO, "an array that cannot be read");
	rc = read_staged(st, off, len, out, err);
	npkfs_staged_put(st);
	return rc;
}

/* --- writing: an array ----------------------------------------------------------------------------------------------------- */

/* One write to an array: what it needs, taken once. */
struct writing {
	struct file *f;
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

static bool is_current(struct writing *w)
{
	struct npk_gen *g = NULL;
	bool same = w->a != NULL && npk_gen_get(&g, w->a, NULL) == 0 &&
		    npk_gen_info(g)->number == npk_gen_info(w->l->gen)->number;

	npk_gen_put(g);
	return same;
}

static int keep_tail(
	struct file *f, uint64_t at, size_t zeros, const char *buf, size_t len, uint64_t owner, struct npk_err *err)
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

	if (!is_current(w))
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

static int write_array(struct file *f, struct npkfs_layout *l, struct npkfs_write *q, struct npk_err *err)
{
	struct writing w = {.f = f, .l = l};
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
	if (rc == 0)
		rc = write_joined(&w, q->off, q->buf, q->len, q->owner, err);
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

/* --- writing ---------------------------------------------------------------------------------------------------------------- */

/* False: it became an array meanwhile. */
static bool write_staged(
	struct file *f, struct npkfs_staged *st, const struct npkfs_write *q, int *rc, struct npk_err *err)
{
	uint64_t off;
	bool staged;

	pthread_mutex_lock(&st->lock);
	staged = !st->committed;
	if (staged) {
		off = f->flags & O_APPEND ? st->payload.size : q->off;
		*rc = npkfs_payload_write(&st->payload, off, q->buf, q->len, err);
		if (*rc == 0)
			*rc = staged_changed(f->h.s, f->h.node, st, err);
	}
	pthread_mutex_unlock(&st->lock);
	return staged;
}

static int write_either(struct file *f, struct npkfs_write *q, struct npk_err *err)
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

/* An array that is saved over or removed lives on for its writers. Needs f->lock, or that nobody has `f` yet. */
static void keep_files(struct file *f)
{
	struct npkfs_layout *l = npkfs_node_layout(f->h.node);

	if (l != NULL && l->gen != f->kept) {
		npk_gen_keep(l->gen);
		npk_gen_unkeep(f->kept);
		f->kept = l->gen;
	}
	npkfs_layout_put(l);
}

static int write_file(struct npkfs_handle *h, struct npkfs_write *q, size_t *taken, struct npk_err *err)
{
	struct file *f = (struct file *)h;
	int rc;

	if ((f->flags & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	pthread_mutex_lock(&f->lock);
	rc = write_either(f, q, err);
	if (rc != 0)
		f->sticky = rc;
	else
		keep_files(f);
	f->clone_of = 0;
	pthread_mutex_unlock(&f->lock);
	*taken = rc == 0 ? q->len : 0;
	return rc;
}

/* --- FLUSH, RELEASE ------------------------------------------------------------------------------------------------------------ */

static int flush_file(struct npkfs_handle *h, uint64_t owner, struct npkfs_caller who, struct npk_err *err)
{
	struct file *f = (struct file *)h;
	int rc;

	(void)who;
	pthread_mutex_lock(&f->lock);
	rc = f->sticky;
	if (rc == 0 && f->tail.len > 0 && f->tail_owner == owner)
		rc = npk_fail(err, EINVAL, "%zu bytes behind the last row are no whole row", f->tail.len);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static void say_dropped(struct file *f)
{
	struct npk_text path = {0};

	f->h.node->type->path(f->h.node, &path);
	npkfs_lasterr_add(&f->h.s->lasterr, f->who.uid, f->who.pid, EINVAL, path.p ? path.p : "",
		"bytes behind the last row that are no whole row were dropped");
	npk_text_fini(&path);
}

static void close_file(struct npkfs_handle *h)
{
	struct file *f = (struct file *)h;
	struct npkfs_staged *st = npkfs_node_staged(h->node);

	if (f->tail.len > 0)
		say_dropped(f);
	if (st != NULL) {
		pthread_mutex_lock(&h->s->staging.lock);
		clock_gettime(CLOCK_MONOTONIC, &st->minted);
		pthread_mutex_unlock(&h->s->staging.lock);
	}
	npkfs_staged_put(st);
	atomic_fetch_sub(&h->node->handles, 1);
	if ((f->flags & O_ACCMODE) != O_RDONLY)
		atomic_fetch_sub(&h->node->writers, 1);
	if ((f->flags & O_ACCMODE) == O_RDWR) {
		atomic_fetch_sub(&h->node->writable, 1);
		atomic_fetch_sub(&h->s->writable, 1);
	}
	npk_text_fini(&f->tail);
	npk_text_fini(&f->head);
	npk_gen_unkeep(f->kept);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct npkfs_handle_ops handle_ops = {
	.read = read_file,
	.write = write_file,
	.flush = flush_file,
	.close = close_file,
};

/* A reader's handle has nothing to flush. */
static const struct npkfs_handle_ops reader_ops = {.read = read_file, .close = close_file};

/* --- open ------------------------------------------------------------------------------------------------------------------------ */

/* The component of the root under which the node is known. */
static int component_of(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	char part[NPKFS_NAME_MAX + 1], struct npk_err *err)
{
	char *called;
	size_t len;
	bool ok;

	if (st != NULL) {
		pthread_mutex_lock(&s->staging.lock);
		ok = strlen(st->name) <= NPKFS_NAME_MAX;
		strcpy(part, ok ? st->name : "");
		pthread_mutex_unlock(&s->staging.lock);
		return ok ? 0 : npk_fail(err, ENAMETOOLONG, "the name is too long");
	}
	called = npkfs_node_called(node, &len);
	ok = called != NULL && npkfs_name_escape(part, called, len, ".npy");
	free(called);
	return ok ? 0 : npk_fail(err, ENOMEM, "no memory for a name");
}

/* A private file for this thread under the node's name; the kernel, told ESTALE, looks the name up again and finds it. Readers
 * of the node itself notice nothing. */
static int mint(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const struct npkfs_caller *who, struct npk_err *err)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npkfs_node *fresh;
	struct stat attr;
	int rc = component_of(s, node, st, part, err);

	if (rc != 0)
		return rc;
	npkfs_stat_array(s, node, &attr);
	rc = npkfs_staged_new(s, node->space, part, who, true, attr.st_mode, &fresh, err);
	if (rc != 0)
		return rc;
	npkfs_node_put(&s->inodes, fresh);
	return -ESTALE;
}

static int empty_staged(struct npkfs_staged *st, struct npk_err *err)
{
	int rc = -ESTALE;

	pthread_mutex_lock(&st->lock);
	if (!st->committed) {
		rc = npkfs_payload_truncate(&st->payload, 0, err);
		atomic_store(&st->size, 0);
	}
	pthread_mutex_unlock(&st->lock);
	return rc;
}

/* 0: the node is this opener's to write from the start. */
static int open_truncated(
	struct npkfs_session *s, struct npkfs_node *node, const struct npkfs_caller *who, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(node);
	struct npkfs_staged *st = l == NULL ? npkfs_node_staged(node) : NULL;
	int rc;

	npkfs_layout_put(l);
	if (st != NULL && (st->scratch || (npkfs_staged_is_mine(s, st, who) && (st->pending || node->handles == 0))))
		rc = empty_staged(st, err);
	else
		rc = mint(s, node, st, who, err);
	if (rc == 0)
		npkfs_staged_open(s, st, who);
	npkfs_staged_put(st);
	return rc;
}

/* The node's layout is mapped, also when it gets another one meanwhile. */
static int map_layout(struct npkfs_node *node, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(node), *now;
	int rc = 0;

	while (l != NULL && rc == 0) {
		rc = npk_gen_map(l->gen, err);
		now = npkfs_node_layout(node);
		npkfs_layout_put(l);
		if (now != l) {
			l = now;
			continue;
		}
		l = NULL;
		npkfs_layout_put(now);
	}
	npkfs_layout_put(l);
	return rc;
}

static int open_layout(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(node);
	struct npkfs_staged *st = l == NULL ? npkfs_node_staged(node) : NULL;
	int rc;

	if (l != NULL)
		rc = map_layout(node, err);
	else
		rc = st != NULL ? 0 : npkfs_open_damaged(s, node, err);
	npkfs_staged_put(st);
	npkfs_layout_put(l);
	return npkfs_refresh_if_stale(s, rc);
}

int npkfs_file_open(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err)
{
	int mode = o->flags & O_ACCMODE, rc = s->rw ? 0 : npkfs_refuse_writing(o->flags, err);
	struct file *f;

	if (rc == 0 && (o->flags & O_TRUNC))
		rc = open_truncated(s, node, &o->who, err);
	if (rc != 0)
		return rc;
	atomic_fetch_add(&node->handles, 1); /* from here on what the node gets to show is mapped at once */
	if (!(o->flags & O_TRUNC))
		rc = open_layout(s, node, err);
	f = rc == 0 ? calloc(1, sizeof(*f)) : NULL;
	if (f == NULL) {
		atomic_fetch_sub(&node->handles, 1);
		return rc != 0 ? rc : npk_fail(err, ENOMEM, "no memory for an open file");
	}
	pthread_mutex_init(&f->lock, NULL);
	f->h = (struct npkfs_handle){.ops = mode == O_RDONLY ? &reader_ops : &handle_ops, .s = s, .node = node};
	f->h.append = (o->flags & O_APPEND) != 0;
	f->h.direct = mode == O_WRONLY;
	f->flags = o->flags;
	f->who = o->who;
	o->direct_io = f->h.direct;
	o->keep_cache = !f->h.direct;
	if (mode != O_RDONLY) {
		atomic_fetch_add(&node->writers, 1);
		keep_files(f);
	}
	if (mode == O_RDWR) {
		atomic_fetch_add(&node->writable, 1);
		atomic_fetch_add(&s->writable, 1);
	}
	*out = &f->h;
	return 0;
}

/* --- ftruncate, truncate ------------------------------------------------------------------------------------------------------------ */

static int resize_staged(
	struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, uint64_t size, struct npk_err *err)
{
	int rc = -ESTALE;

	pthread_mutex_lock(&st->lock);
	if (!st->committed) {
		rc = npkfs_payload_truncate(&st->payload, size, err);
		if (rc == 0)
			rc = staged_changed(s, node, st, err);
	}
	pthread_mutex_unlock(&st->lock);
	return rc;
}

static int extend_array(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npkfs_layout *l,
	uint64_t rows, struct npk_err *err)
{
	int rc = npk_array_extend(a, rows - npk_gen_info(l->gen)->rows, err);

	return rc == 0 ? npkfs_announce_grown(s, sp, a, err) : rc;
}

/* The rows from `rows` on go: a new generation, which the node shows when its one handle asked for it. */
static int cut_array(struct npkfs_session *s, struct npkfs_node *node, bool mine, struct npk_array *a, uint64_t rows,
	struct npk_err *err)
{
	struct npkfs_layout *l = NULL;
	struct npk_gen *g = NULL;
	const char *name;
	char sel[32];
	size_t len;
	int rc;

	snprintf(sel, sizeof(sel), "%llu:", (unsigned long long)rows);
	rc = npk_array_drop(a, sel, NULL, err);
	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0 && mine)
		rc = npkfs_layout_new(&l, s, g, NULL, 0, err);
	if (rc == 0 && mine) {
		npkfs_node_set_layout(node, l);
		npkfs_node_rekey(&s->inodes, node, npk_gen_info(g)->number);
		npkfs_inval_node(&s->inval, node->id);
	}
	name = npk_array_name(a, &len);
	if (rc == 0)
		npkfs_announce(s, node->space, name, len, NPK_CHANGED);
	npk_gen_put(g);
	return rc;
}

static int resize_array(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_layout *l, bool handle,
	uint64_t size, struct npk_err *err)
{
	const struct npk_gen_info *info = npk_gen_info(l->gen);
	struct writing w = {.l = l};
	uint64_t rows;
	int rc;

	if (size == l->header_len + l->bytes)
		return 0;
	if (size < l->header_len || info->row_bytes == 0 || (size - l->header_len) % info->row_bytes != 0)
		return npk_fail(err, EINVAL, "a size of %llu is no header and whole rows", (unsigned long long)size);
	rows = (size - l->header_len) / info->row_bytes;
	rc = npkfs_node_array(s, node, &w.a, err);
	if (rc != 0)
		return rc;
	if (!is_current(&w))
		rc = handle ? npk_fail(err, ESTALE, "this file is an older generation of the array") : -ESTALE;
	else if (rows > info->rows)
		rc = extend_array(s, node->space, w.a, l, rows, err);
	else if (handle && atomic_load(&node->handles) > 1)
		rc = npk_fail(err, EBUSY, "others have the file open: it cannot shrink under them");
	else
		rc = cut_array(s, node, handle, w.a, rows, err);
	if (rc == 0)
		rc = npkfs_sync_change(s, err);
	if (rc == 0 && !handle && rows < info->rows)
		rc = -ESTALE; /* the name leads to the new generation, which has that size */
	npk_array_put(w.a);
	return rc;
}

/* The handle's node becomes a staged file; the array gets a fresh node at the next lookup. */
static int restart(
	struct npkfs_session *s, struct npkfs_node *node, const struct npkfs_caller *who, struct npk_err *err)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npkfs_node *fresh;
	struct npkfs_staged *st;
	struct stat attr;
	int rc;

	if (atomic_load(&node->handles) > 1)
		return npk_fail(err, EBUSY, "others have the file open: it cannot shrink under them");
	rc = component_of(s, node, NULL, part, err);
	if (rc != 0)
		return rc;
	npkfs_stat_array(s, node, &attr);
	rc = npkfs_staged_new(s, node->space, part, who, false, attr.st_mode, &fresh, err);
	if (rc != 0)
		return rc;
	/* The staged file moves over to this node; the one made for it goes. */
	st = npkfs_node_staged(fresh);
	pthread_mutex_lock(&s->staging.lock);
	st->node = npkfs_node_ref(&s->inodes, node);
	pthread_mutex_unlock(&s->staging.lock);
	pthread_mutex_lock(&node->lock);
	npkfs_staged_put(node->staged);
	node->staged = st;
	pthread_mutex_unlock(&node->lock);
	npkfs_node_set_layout(node, NULL);
	npkfs_node_rekey(&s->inodes, node, NPKFS_STAGED_NUMBER | atomic_fetch_add(&s->staging.next_number, 1));
	npkfs_node_put(&s->inodes, fresh);
	npkfs_node_put(&s->inodes, fresh); /* that of the table */
	if (node->space == NULL)
		npkfs_inval_entry(&s->inval, NPKFS_ROOT_ID, part);
	return 0;
}

int npkfs_file_resize(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_handle *h, uint64_t size,
	const struct npkfs_caller *who, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(node);
	struct npkfs_staged *st = l == NULL ? npkfs_node_staged(node) : NULL;
	int rc;

	if (st != NULL)
		rc = h == NULL && !st->scratch && !npkfs_staged_is_mine(s, st, who)
			     ? mint(s, node, st, who, err)
			     : resize_staged(s, node, st, size, err);
	else if (l == NULL)
		rc = npk_fail(err, EIO, "an array that cannot be written");
	else if (size == 0)
		rc = h == NULL ? mint(s, node, NULL, who, err) : restart(s, node, who, err);
	else
		rc = resize_array(s, node, l, h != NULL, size, err);
	npkfs_staged_put(st);
	npkfs_layout_put(l);
	return rc;
}

/* --- copies inside the mount ---------------------------------------------------------------------------------------------------------- */

/* The new array has the file's mode, and as far as we may its owner. */
static int own_clone(struct npkfs_session *s, struct npkfs_space *sp, const char *name, const struct npkfs_staged *st,
	struct npk_err *err)
{
	struct npk_array *a;
	int rc = npkfs_array_get(s, sp, name, strlen(name), &a, err);

	if (rc != 0)
		return rc;
	rc = npk_array_set_owner(a, st->uid, st->gid, err);
	if (rc == 0 || rc == -EPERM)
		rc = npk_array_set_mode(a, st->mode, err);
	npk_array_put(a);
	return rc;
}

/* Makes the array that the staged file is to become, out of the one that `l` shows. -EEXIST: there is one of that name. */
static int clone_array(struct npkfs_session *s, struct npkfs_node *from, struct npkfs_node *to, struct npkfs_staged *st,
	struct npkfs_layout *l, struct npk_err *err)
{
	const struct npk_text head = {.p = l->header, .len = l->header_len};
	char name[NPKFS_NAME_MAX + 1];
	struct npk_store *store;
	size_t len;
	char *source = npkfs_node_called(from, &len);
	int rc = source != NULL ? array_name(st->name, name, err) : npk_fail(err, ENOMEM, "no memory for a name");

	if (rc == 0)
		rc = npkfs_space_enter(s, to->space, &store, err);
	if (rc == 0) {
		rc = npk_store_clone(store, source, name, err);
		npkfs_space_leave(to->space);
	}
	free(source);
	if (rc == 0)
		rc = own_clone(s, to->space, name, st, err);
	if (rc != 0)
		return rc;
	st->committed = true;
	npkfs_staged_unlist(s, st);
	npkfs_announce(s, to->space, name, strlen(name), NPK_APPEARED);
	rc = show_array(s, to, name, &head, true, err);
	return rc == 0 ? npkfs_sync_change(s, err) : rc;
}

/* Whether the layout is what the array is now, and `size` bytes from 0 on are all of it. */
static bool is_whole(struct npkfs_handle *in, struct npkfs_layout *l, size_t len)
{
	struct writing w = {.l = l};
	bool same;

	if (len < l->header_len + l->bytes && len < WHOLE_MIN)
		return false;
	if (npkfs_node_array(in->s, in->node, &w.a, NULL) != 0)
		return false;
	same = is_current(&w);
	npk_array_put(w.a);
	return same;
}

static bool clone_whole(struct file *f, struct npkfs_handle *in, struct npkfs_layout *l, int *rc, struct npk_err *err)
{
	struct npkfs_staged *st = npkfs_node_staged(f->h.node);
	struct npk_err why;
	bool cloned = false;

	if (st == NULL)
		return false;
	pthread_mutex_lock(&st->lock);
	if (!st->committed && !st->scratch && st->listed && st->payload.size == 0) {
		*rc = clone_array(f->h.s, in->node, f->h.node, st, l, &why);
		cloned = *rc == 0 || st->committed;
		if (*rc != 0 && cloned)
			npk_fail(err, why.code, "%s", why.msg);
	}
	pthread_mutex_unlock(&st->lock);
	npkfs_staged_put(st);
	return cloned;
}

bool npkfs_file_clone(struct npkfs_handle *in, uint64_t off_in, struct npkfs_handle *out, uint64_t off_out, size_t len,
	size_t *done, int *rc, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(in->node);
	struct file *f = (struct file *)out;
	uint64_t size, number;
	bool cloned = false;

	if (l == NULL)
		return false;
	size = l->header_len + l->bytes;
	number = npk_gen_info(l->gen)->number;
	pthread_mutex_lock(&f->lock);
	*rc = 0;
	if (f->clone_of == number && off_in == off_out && off_in <= size)
		cloned = true;
	else if (off_in == 0 && off_out == 0 && in->node->space == out->node->space && is_whole(in, l, len))
		cloned = clone_whole(f, in, l, rc, err);
	if (cloned && *rc == 0) {
		f->clone_of = number;
		*done = size - off_in < len ? (size_t)(size - off_in) : len;
	}
	pthread_mutex_unlock(&f->lock);
	npkfs_layout_put(l);
	return cloned;
}
