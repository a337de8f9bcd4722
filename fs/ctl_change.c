/* ctl_change.c - the commands that change arrays or the store without bringing rows: drop, compact, clone, rename, sync,
 * reset, reload. */
#include "autocompact.h"
#include "changed.h"
#include "command.h"
#include "file.h"
#include "root.h"

#include <errno.h>
#include <string.h>

/* --- drop ------------------------------------------------------------------------------------------------------------------- */

static int check_rows(const struct npkfs_command *c, struct npk_err *err)
{
	if (strpbrk(c->rows, ";@") != NULL)
		return npk_fail(err, EINVAL, "rows are wanted, one part of a selection");
	if (strcmp(c->rows, "all") == 0)
		return npk_fail(err, EINVAL, "drop: remove the array by unlink; rows=0: hides all of its rows");
	return 0;
}

/* Whether the rows parse: opening a view tells. Rows that are not there are told when the command runs. */
int npkfs_check_drop(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_view *v = NULL;
	struct npk_gen *g;
	struct npk_array *a;
	struct npk_err why;
	int rc = check_rows(c, err);

	for (unsigned i = 0; i < c->narrays && rc == 0; i++) {
		if (npkfs_command_gen(c, c->arrays[i], &a, &g, NULL) != 0)
			continue;
		if (npk_view_open(&v, g, c->rows, &why) == 0)
			npk_view_close(v);
		else if (why.code == EINVAL)
			rc = npk_fail(err, EINVAL, "%s", why.msg);
		npk_gen_put(g);
		npk_array_put(a);
	}
	return rc;
}

static int drop_all(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_array *a;
	uint64_t dropped = 0;
	int rc = 0;

	for (unsigned i = 0; i < c->narrays && rc == 0; i++) {
		const char *name = c->arrays[i];

		rc = npkfs_array_get(c->q->s, c->space, name, strlen(name), &a, err);
		if (rc != 0)
			break;
		rc = npk_array_drop(a, c->rows, &dropped, err);
		npk_array_put(a);
		if (rc == 0)
			npkfs_announce(c->q->s, c->space, name, strlen(name), NPK_CHANGED);
	}
	return rc == 0 ? npkfs_reply_array(c, "drop", c->arrays[c->narrays - 1], &dropped, err) : rc;
}

int npkfs_run_drop(struct npkfs_command *c, struct npk_err *err)
{
	int rc = check_rows(c, err);

	return rc == 0 ? npkfs_together(c, drop_all, err) : rc;
}

/* --- compact ----------------------------------------------------------------------------------------------------------------- */

int npkfs_compact(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, bool force, struct npk_err *err)
{
	size_t len;
	const char *name = npk_array_name(a, &len);
	struct npk_gen *g;
	int rc = npk_gen_get(&g, a, err);

	if (rc != 0)
		return rc;
	if (npk_gen_info(g)->slots == npk_gen_info(g)->rows) /* nothing is deleted */
		rc = 0;
	else if (!force && npkfs_wait_for_writers(s, sp, g) != 0)
		rc = npk_fail(err, EBUSY, "the array is open for writing; 'force' compacts nevertheless");
	else if ((rc = npk_array_compact(a, err)) == 0) {
		npkfs_mark_compacted(s, sp, g);
		npkfs_announce(s, sp, name, len, NPK_CHANGED);
	}
	npk_gen_put(g);
	return rc;
}

static int compact_store(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_array **list;
	size_t n;
	int rc = npkfs_arrays(c->q->s, c->space, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = npkfs_compact(c->q->s, c->space, list[i], c->force, err);
	npk_store_list_free(list, n);
	return rc;
}

static int compact_each(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_array *a;
	int rc = 0;

	for (unsigned i = 0; i < c->narrays && rc == 0; i++) {
		rc = npkfs_array_get(c->q->s, c->space, c->arrays[i], strlen(c->arrays[i]), &a, err);
		if (rc != 0)
			break;
		rc = npkfs_compact(c->q->s, c->space, a, c->force, err);
		npk_array_put(a);
	}
	return rc;
}

/* All names are looked up before the first array is rewritten. */
int npkfs_run_compact(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_array *a;
	int rc = 0;

	if (c->narrays == 1 && strcmp(c->arrays[0], "all") == 0) {
		rc = compact_store(c, err);
		return rc == 0 ? npkfs_reply_ok(c, "compact", 0, 0, err) : rc;
	}
	for (unsigned i = 0; i < c->narrays && rc == 0; i++) {
		rc = npkfs_array_get(c->q->s, c->space, c->arrays[i], strlen(c->arrays[i]), &a, err);
		if (rc == 0)
			npk_array_put(a);
	}
	if (rc == 0)
		rc = compact_each(c, err);
	return rc == 0 ? npkfs_reply_array(c, "compact", c->arrays[c->narrays - 1], NULL, err) : rc;
}

/* --- clone, rename ------------------------------------------------------------------------------------------------------------ */

int npkfs_run_clone(struct npkfs_command *c, struct npk_err *err)
{
	const char *to = c->arrays[1];
	struct npk_store *store;
	int rc = npkfs_space_enter(c->q->s, c->space, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_store_clone(store, c->arrays[0], to, err);
	npkfs_space_leave(c->space);
	if (rc != 0)
		return rc;
	npkfs_announce(c->q->s, c->space, to, strlen(to), NPK_APPEARED);
	return npkfs_reply_array(c, "clone", to, NULL, err);
}

int npkfs_run_rename(struct npkfs_command *c, struct npk_err *err)
{
	const char *from = c->arrays[0], *to = c->arrays[1];
	struct npk_store *store;
	int rc = npkfs_space_enter(c->q->s, c->space, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_store_rename(store, from, to, NPK_RENAME_NOREPLACE, err);
	npkfs_space_leave(c->space);
	if (rc != 0)
		return rc;
	npkfs_renamed(c->q->s, c->space, from, to, false);
	npkfs_announce(c->q->s, c->space, from, strlen(from), NPK_GONE);
	npkfs_announce(c->q->s, c->space, to, strlen(to), NPK_APPEARED);
	return npkfs_reply_array(c, "rename", to, NULL, err);
}

/* --- sync, reset, reload -------------------------------------------------------------------------------------------------------- */

int npkfs_run_sync(struct npkfs_command *c, struct npk_err *err)
{
	int rc;

	if (c->space != NULL)
		return npk_fail(err, EINVAL, "sync: not in a transaction");
	rc = npk_store_sync(c->q->s->store, err);
	return rc == 0 ? npkfs_reply_ok(c, "sync", 0, 0, err) : rc;
}

int npkfs_check_reset(struct npkfs_command *c, struct npk_err *err)
{
	const char *path = c->q->s->config->store, *slash = strrchr(path, '/');
	const char *base = slash != NULL ? slash + 1 : path;

	return strcmp(c->confirm, base) == 0 ? 0
					     : npk_fail(err, EINVAL, "reset removes all arrays: say confirm=%s", base);
}

static int reset(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(c->q->s, c->space, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_store_reset(store, err);
	npkfs_space_leave(c->space);
	return rc;
}

int npkfs_run_reset(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_array **list;
	size_t n, len;
	int rc = npkfs_arrays(c->q->s, c->space, &list, &n, err);

	if (rc != 0)
		return rc;
	rc = reset(c, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		const char *gone = npk_array_name(list[i], &len);

		npkfs_announce(c->q->s, c->space, gone, len, NPK_GONE);
	}
	npk_store_list_free(list, n);
	if (rc == 0)
		rc = npkfs_sync_change(c->q->s, err);
	return rc == 0 ? npkfs_reply_ok(c, "reset", 0, 0, err) : rc;
}

int npkfs_run_reload(struct npkfs_command *c, struct npk_err *err)
{
	int rc = npkfs_refresh(c->q->s, err);

	if (rc != 0)
		return rc;
	npkfs_session_drop_caches(c->q->s);
	return npkfs_reply_ok(c, "reload", 0, 0, err);
}
