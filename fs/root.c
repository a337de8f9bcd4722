/* root.c - see root.h. The kernel holds the directory's lock for all of these: they queue notifications, and what the request
 * itself changes in the root the kernel knows. */
#include "root.h"
#include "changed.h"
#include "file.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The array that the component names. -ENOENT: it is not an array's, or there is none. */
static int array_at(struct npkfs_session *s, struct npkfs_space *sp, const char *part, char name[NPKFS_NAME_MAX + 1],
	struct npk_array **out)
{
	size_t len;

	if (!npkfs_name_strip(part, ".npy", &len) || len > NPKFS_NAME_MAX ||
		!npkfs_name_unescape(name, &len, part, len) || strlen(name) != len)
		return -ENOENT;
	return npkfs_array_get(s, sp, name, len, out, NULL);
}

static bool has_array(struct npkfs_session *s, struct npkfs_space *sp, const char *part, char name[NPKFS_NAME_MAX + 1])
{
	struct npk_array *a;

	if (array_at(s, sp, part, name, &a) != 0)
		return false;
	npk_array_put(a);
	return true;
}

/* --- create ------------------------------------------------------------------------------------------------------------- */

static int check_name(const char *part, struct npk_err *err)
{
	char name[NPKFS_NAME_MAX + 1];
	size_t len;

	if (strlen(part) > NPKFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (!npkfs_is_array_component(part))
		return 0;
	if (!npkfs_name_strip(part, ".npy", &len) || !npkfs_name_unescape(name, &len, part, len))
		return npk_fail(err, EINVAL,
			"a %% in a name must begin %%XX for one of '/', '%%', a control byte, a leading "
			"'.' or a byte that is not UTF-8");
	return 0;
}

int npkfs_root_create(struct npkfs_session *s, struct npkfs_node *dir, const char *name, mode_t mode,
	struct npkfs_open *o, struct npkfs_node **out, struct npkfs_handle **handle, struct npk_err *err)
{
	char array[NPKFS_NAME_MAX + 1];
	int rc = check_name(name, err);

	if (rc == 0 && (o->flags & O_EXCL) &&
		(has_array(s, dir->space, name, array) || npkfs_staged_any(s, dir->space, name)))
		rc = -EEXIST;
	if (rc == 0)
		rc = npkfs_staged_new(s, dir->space, name, &o->who, false, mode, out, err);
	if (rc != 0)
		return rc;
	atomic_fetch_add(&s->epoch, 1);
	o->flags &= ~O_TRUNC;
	rc = npkfs_file_open(s, *out, o, handle, err);
	if (rc != 0)
		npkfs_node_put(&s->inodes, *out);
	return rc;
}

/* --- unlink ------------------------------------------------------------------------------------------------------------- */

/* What the caller sees under the name goes, and the array behind it with it. */
static bool unlink_staged(
	struct npkfs_session *s, struct npkfs_space *sp, const char *name, const struct npkfs_caller *who)
{
	struct npkfs_node *node = npkfs_staged_find(s, sp, name, who, false);
	struct npkfs_staged *st;

	if (node == NULL)
		node = npkfs_staged_find(s, sp, name, who, true);
	if (node == NULL)
		return false;
	st = npkfs_node_staged(node);
	if (st != NULL)
		npkfs_staged_unlist(s, st);
	npkfs_staged_put(st);
	npkfs_node_put(&s->inodes, node);
	return true;
}

int npkfs_root_unlink(struct npkfs_session *s, struct npkfs_node *dir, const char *name, const struct npkfs_caller *who,
	struct npk_err *err)
{
	char array[NPKFS_NAME_MAX + 1];
	bool staged = unlink_staged(s, dir->space, name, who);
	struct npk_store *store;
	int rc = 0;

	atomic_fetch_add(&s->epoch, 1);
	if (!has_array(s, dir->space, name, array))
		return staged ? 0 : -ENOENT;
	rc = npkfs_space_enter(s, dir->space, &store, err);
	if (rc != 0)
		return rc;
	rc = npk_store_remove(store, array, err);
	npkfs_space_leave(dir->space);
	if (rc == 0)
		npkfs_announce(s, dir->space, array, strlen(array), NPK_GONE);
	return rc == 0 ? npkfs_sync_change(s, err) : rc;
}

/* --- rename ------------------------------------------------------------------------------------------------------------- */

static int rename_array(struct npkfs_session *s, struct npkfs_space *sp, const char *from, const char *to,
	unsigned flags, struct npk_err *err)
{
	char target[NPKFS_NAME_MAX + 1];
	struct npk_store *store;
	size_t len;
	int rc;

	if (!npkfs_is_array_component(to))
		return npk_fail(err, EINVAL, "an array is only renamed to another .npy name: copy it, then remove it");
	if (!npkfs_name_strip(to, ".npy", &len) || !npkfs_name_unescape(target, &len, to, len) || strlen(target) != len)
		return npk_fail(err, EINVAL, "%s: not the name of an array", to);
	rc = npkfs_space_enter(s, sp, &store, err);
	if (rc != 0)
		return rc;
	rc = npk_store_rename(store, from, target,
		(flags & RENAME_EXCHANGE ? NPK_RENAME_EXCHANGE : 0) |
			(flags & RENAME_NOREPLACE ? NPK_RENAME_NOREPLACE : 0),
		err);
	npkfs_space_leave(sp);
	if (rc != 0)
		return rc;
	npkfs_renamed(s, sp, from, target, flags & RENAME_EXCHANGE);
	npkfs_announce(s, sp, from, strlen(from), flags & RENAME_EXCHANGE ? NPK_CHANGED : NPK_GONE);
	npkfs_announce(s, sp, target, strlen(target), flags & RENAME_EXCHANGE ? NPK_CHANGED : NPK_APPEARED);
	return npkfs_sync_change(s, err);
}

/* The array has the time of the file that it was: rsync sets it before it renames. */
static void keep_time(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st)
{
	struct npk_array *a;

	if (npkfs_node_array(s, node, &a, NULL) != 0)
		return;
	if (npk_array_set_mtime(a, atomic_load(&st->mtime_us), NULL) == 0)
		npkfs_announce_grown(s, node->space, a, NULL);
	npk_array_put(a);
}

/* A scratch file becomes an array, or another scratch file. */
static int rename_staged(
	struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, const char *to, struct npk_err *err)
{
	int rc;

	pthread_mutex_lock(&st->lock);
	if (!npkfs_is_array_component(to))
		rc = npkfs_staged_rename(s, st, to) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory for a name");
	else if ((rc = npkfs_staged_commit(s, node, st, to, true, err)) == 0)
		keep_time(s, node, st);
	pthread_mutex_unlock(&st->lock);
	return rc;
}

/* A scratch file of the name `to` is replaced. */
static void drop_target(struct npkfs_session *s, struct npkfs_node *target)
{
	struct npkfs_staged *st = target != NULL ? npkfs_node_staged(target) : NULL;

	if (st != NULL)
		npkfs_staged_unlist(s, st);
	npkfs_staged_put(st);
}

int npkfs_root_rename(struct npkfs_session *s, struct npkfs_space *sp, const char *from, const char *to, unsigned flags,
	const struct npkfs_caller *who, struct npk_err *err)
{
	char name[NPKFS_NAME_MAX + 1], other[NPKFS_NAME_MAX + 1];
	struct npkfs_node *node = npkfs_staged_find(s, sp, from, who, false), *target;
	struct npkfs_staged *st;
	bool array = has_array(s, sp, from, name);
	int rc;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return npk_fail(err, EINVAL, "rename: flags 0x%x", flags);
	if (node == NULL && !array)
		node = npkfs_staged_find(s, sp, from, who, true);
	if (node == NULL)
		return array ? rename_array(s, sp, name, to, flags, err) : -ENOENT;
	st = npkfs_node_staged(node);
	target = npkfs_staged_find(s, sp, to, who, true);
	if (flags & RENAME_EXCHANGE)
		rc = npk_fail(err, EINVAL, "only two arrays can be exchanged");
	else if ((flags & RENAME_NOREPLACE) && (target != NULL || has_array(s, sp, to, other)))
		rc = -EEXIST;
	else if (st == NULL || target == node)
		rc = st == NULL ? -ENOENT : 0;
	else
		rc = rename_staged(s, node, st, to, err);
	if (rc == 0 && target != node)
		drop_target(s, target);
	atomic_fetch_add(&s->epoch, 1);
	npkfs_staged_put(st);
	npkfs_node_put(&s->inodes, target);
	npkfs_node_put(&s->inodes, node);
	return rc;
}
