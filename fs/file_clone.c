/* file_clone.c - copy_file_range(2) of a whole array to a new file: the array is cloned. */
#include "changed.h"
#include "file_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE_MIN ((size_t)1 << 30) /* a piece as long as that is cut off something longer */

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
	int rc = source != NULL ? npkfs_component_array(st->name, name, err)
				: npk_fail(err, ENOMEM, "no memory for a name");

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
	rc = npkfs_show_array(s, to, name, &head, true, err);
	return rc == 0 ? npkfs_sync_change(s, err) : rc;
}

/* Whether the layout is what the array is now, and `size` bytes from 0 on are all of it. */
static bool is_whole(struct npkfs_handle *in, struct npkfs_layout *l, size_t len)
{
	struct npk_array *a;
	bool same;

	if (len < l->header_len + l->bytes && len < WHOLE_MIN)
		return false;
	if (npkfs_node_array(in->s, in->node, &a, NULL) != 0)
		return false;
	same = npkfs_is_current(a, l);
	npk_array_put(a);
	return same;
}

static bool clone_whole(
	struct npkfs_file *f, struct npkfs_handle *in, struct npkfs_layout *l, int *rc, struct npk_err *err)
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
	struct npkfs_file *f = (struct npkfs_file *)out;
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
