/* file_size.c - ftruncate(2) and truncate(2) of files of the root. */
#include "changed.h"
#include "file_parts.h"

#include <errno.h>
#include <stdio.h>

static int resize_staged(
	struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, uint64_t size, struct npk_err *err)
{
	int rc = -ESTALE;

	pthread_mutex_lock(&st->lock);
	if (!st->committed) {
		rc = npkfs_payload_truncate(&st->payload, size, err);
		if (rc == 0)
			rc = npkfs_staged_changed(s, node, st, err);
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
	struct npk_array *a = NULL;
	uint64_t rows;
	int rc;

	if (size == l->header_len + l->bytes)
		return 0;
	if (size < l->header_len || info->row_bytes == 0 || (size - l->header_len) % info->row_bytes != 0)
		return npk_fail(err, EINVAL, "a size of %llu is no header and whole rows", (unsigned long long)size);
	rows = (size - l->header_len) / info->row_bytes;
	rc = npkfs_node_array(s, node, &a, err);
	if (rc != 0)
		return rc;
	if (!npkfs_is_current(a, l))
		rc = handle ? npk_fail(err, ESTALE, "this file is an older generation of the array") : -ESTALE;
	else if (rows > info->rows)
		rc = extend_array(s, node->space, a, l, rows, err);
	else if (handle && atomic_load(&node->handles) > 1)
		rc = npk_fail(err, EBUSY, "others have the file open: it cannot shrink under them");
	else
		rc = cut_array(s, node, handle, a, rows, err);
	if (rc == 0)
		rc = npkfs_sync_change(s, err);
	if (rc == 0 && !handle && rows < info->rows)
		rc = -ESTALE; /* the name leads to the new generation, which has that size */
	npk_array_put(a);
	return rc;
}

/* The handle's node becomes a staged file; the array gets a fresh node at the next lookup. */
static int restart(
	struct npkfs_session *s, struct npkfs_node *node, const struct npkfs_caller *who, struct npk_err *err)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npkfs_node *fresh;
	struct npkfs_staged *st;
	int rc;

	if (atomic_load(&node->handles) > 1)
		return npk_fail(err, EBUSY, "others have the file open: it cannot shrink under them");
	rc = npkfs_file_stage(s, node, NULL, who, false, part, &fresh, err);
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
			     ? npkfs_file_mint(s, node, st, who, err)
			     : resize_staged(s, node, st, size, err);
	else if (l == NULL)
		rc = npk_fail(err, EIO, "an array that cannot be written");
	else if (size == 0)
		rc = h == NULL ? npkfs_file_mint(s, node, NULL, who, err) : restart(s, node, who, err);
	else
		rc = resize_array(s, node, l, h != NULL, size, err);
	npkfs_staged_put(st);
	npkfs_layout_put(l);
	return rc;
}
