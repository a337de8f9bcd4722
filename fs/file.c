/* file.c - open files of the root: opening, reading, closing.
 *
 * A node shows an array's layout, or is staged. Whatever a handle does, it asks the node anew: a write may turn the node from
 * staged into an array. The writers' rules are those of interface.md section 3. */
#include "file_parts.h"
#include "npyfile.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int npkfs_sync_change(struct npkfs_session *s, struct npk_err *err)
{
	return s->config->sync == NPKFS_SYNC_ALWAYS ? npk_store_fsync(s->store, err) : 0;
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

/* --- FLUSH, RELEASE ------------------------------------------------------------------------------------------------------------ */

static int flush_file(struct npkfs_handle *h, uint64_t owner, struct npkfs_caller who, struct npk_err *err)
{
	struct npkfs_file *f = (struct npkfs_file *)h;
	int rc;

	(void)who;
	pthread_mutex_lock(&f->lock);
	rc = f->sticky;
	if (rc == 0 && f->tail.len > 0 && f->tail_owner == owner)
		rc = npk_fail(err, EINVAL, "%zu bytes behind the last row are no whole row", f->tail.len);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static void say_dropped(struct npkfs_file *f)
{
	struct npk_text path = {0};

	f->h.node->type->path(f->h.node, &path);
	npkfs_lasterr_add(&f->h.s->lasterr, f->who.uid, f->who.pid, EINVAL, path.p ? path.p : "",
		"bytes behind the last row that are no whole row were dropped");
	npk_text_fini(&path);
}

static void close_file(struct npkfs_handle *h)
{
	struct npkfs_file *f = (struct npkfs_file *)h;
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
	.write = npkfs_file_write,
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

int npkfs_file_stage(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const struct npkfs_caller *who, bool pending, char part[NPKFS_NAME_MAX + 1], struct npkfs_node **fresh,
	struct npk_err *err)
{
	struct stat attr;
	int rc = component_of(s, node, st, part, err);

	if (rc != 0)
		return rc;
	npkfs_stat_array(s, node, &attr);
	return npkfs_staged_new(s, node->space, part, who, pending, attr.st_mode, fresh, err);
}

int npkfs_file_mint(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const struct npkfs_caller *who, struct npk_err *err)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npkfs_node *fresh;
	int rc = npkfs_file_stage(s, node, st, who, true, part, &fresh, err);

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
		rc = npkfs_file_mint(s, node, st, who, err);
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
	struct npkfs_file *f;

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
		npkfs_file_keep(f);
	}
	if (mode == O_RDWR) {
		atomic_fetch_add(&node->writable, 1);
		atomic_fetch_add(&s->writable, 1);
	}
	*out = &f->h;
	return 0;
}
