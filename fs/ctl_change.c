/* ctl_change.c - the commands that change an array or the store: drop, compact, clone, rename, sync, reset; in files of their
 * own and as lines of .numpack/ctl.
 *
 * Names in commands are the arrays' own, in double quotes where they have blanks. */
#include "autocompact.h"
#include "changed.h"
#include "ctl.h"
#include "file.h"
#include "names.h"
#include "root.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define WRITERS_MS 500 /* RELEASE comes after close(2): a handle that is still there then is really open */

/* --- replies ---------------------------------------------------------------------------------------------------------------- */

static int reply_ok(struct npkfs_query *q, const char *verb, uint64_t rows, uint64_t generation, struct npk_err *err)
{
	struct npk_text t = {0};

	npk_text_printf(&t, "OK %s rows=%" PRIu64 " generation=%" PRIu64 "\n", verb, rows, generation);
	return npkfs_reply_text(q, &t, err);
}

/* The end of every command about an array: what it is now. */
static int reply_array(
	struct npkfs_query *q, const char *verb, const char *name, const uint64_t *rows, struct npk_err *err)
{
	struct npk_array *a;
	struct npk_gen *g;
	int rc = npkfs_sync_change(q->s, err);

	if (rc == 0)
		rc = npkfs_array_get(q->s, q->node->space, name, strlen(name), &a, err);
	if (rc != 0)
		return rc;
	rc = npk_gen_get(&g, a, err);
	npk_array_put(a);
	if (rc != 0)
		return rc;
	rc = reply_ok(q, verb, rows != NULL ? *rows : npk_gen_info(g)->rows, npk_gen_info(g)->number, err);
	npk_gen_put(g);
	return rc;
}

/* --- drop ------------------------------------------------------------------------------------------------------------------- */

/* The words as one part of a selection; "rows=" before them is fine. */
static int join_rows(int argc, char **argv, struct npk_text *out, struct npk_err *err)
{
	for (int i = 0; i < argc; i++)
		npk_text_printf(out, "%s%s", i > 0 ? " " : "",
			i == 0 && strncmp(argv[0], "rows=", 5) == 0 ? argv[0] + 5 : argv[i]);
	if (out->bad)
		return npk_fail(err, ENOMEM, "no memory for a selection");
	if (strpbrk(out->p, ";@") != NULL)
		return npk_fail(err, EINVAL, "drop: rows are wanted, one part of a selection");
	if (strcmp(out->p, "all") == 0)
		return npk_fail(err, EINVAL, "drop: remove the array by unlink; rows=0: hides all of its rows");
	return 0;
}

/* Whether the rows parse: opening a view tells. Rows that are not there are told when the command runs. */
static int check_drop(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	struct npk_text sel = {0};
	struct npk_view *v = NULL;
	struct npk_gen *g = NULL;
	struct npk_array *a = NULL;
	struct npk_err why;
	int rc = join_rows(argc, argv, &sel, err), parsed = 0;

	if (rc == 0 && npkfs_array_get(q->s, q->node->space, name, strlen(name), &a, NULL) == 0 &&
		npk_gen_get(&g, a, NULL) == 0)
		parsed = npk_view_open(&v, g, sel.p, &why);
	if (parsed == -EINVAL)
		rc = npk_fail(err, EINVAL, "%s", why.msg);
	npk_view_close(v);
	npk_gen_put(g);
	npk_array_put(a);
	npk_text_fini(&sel);
	return rc;
}

static int run_drop(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	struct npk_text sel = {0};
	struct npk_array *a = NULL;
	uint64_t dropped = 0;
	int rc = join_rows(argc, argv, &sel, err);

	if (rc == 0)
		rc = npkfs_array_get(q->s, q->node->space, name, strlen(name), &a, err);
	if (rc == 0)
		rc = npk_array_drop(a, sel.p, &dropped, err);
	npk_array_put(a);
	npk_text_fini(&sel);
	if (rc != 0)
		return rc;
	npkfs_announce(q->s, q->node->space, name, strlen(name), NPK_CHANGED);
	return reply_array(q, "drop", name, &dropped, err);
}

/* --- compact ----------------------------------------------------------------------------------------------------------------- */

static int wait_for_writers(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npk_err *err)
{
	size_t len;
	const char *name = npk_array_name(a, &len);

	for (int ms = 0; npkfs_has_writer(s, sp, name, len); ms += 10) {
		if (ms >= WRITERS_MS)
			return npk_fail(err, EBUSY, "the array is open for writing; 'force' compacts nevertheless");
		usleep(10000);
	}
	return 0;
}

int npkfs_compact(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, bool force, struct npk_err *err)
{
	size_t len;
	const char *name = npk_array_name(a, &len);
	struct npk_gen *g;
	int rc = npk_gen_get(&g, a, err);

	if (rc != 0)
		return rc;
	if (npk_gen_info(g)->slots == npk_gen_info(g)->rows) { /* nothing is deleted */
		npk_gen_put(g);
		return 0;
	}
	npk_gen_put(g);
	if (!force)
		rc = wait_for_writers(s, sp, a, err);
	if (rc == 0)
		rc = npk_array_compact(a, err);
	if (rc != 0)
		return rc;
	npkfs_mark_compacted(s, sp, name, len);
	npkfs_announce(s, sp, name, len, NPK_CHANGED);
	return 0;
}

static int compact_all(struct npkfs_session *s, struct npkfs_space *sp, bool force, struct npk_err *err)
{
	struct npk_array **list;
	size_t n;
	int rc = npkfs_arrays(s, sp, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = npkfs_compact(s, sp, list[i], force, err);
	npk_store_list_free(list, n);
	return rc;
}

static int check_compact(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	(void)q, (void)name;
	for (int i = 0; i < argc; i++)
		if (strcmp(argv[i], "1") != 0 && strcmp(argv[i], "force") != 0)
			return npk_fail(err, EINVAL, "compact: '%s' is neither 1 nor force", argv[i]);
	return 0;
}

static bool is_forced(int argc, char **argv)
{
	return argc > 0 && strcmp(argv[argc - 1], "force") == 0;
}

static int run_compact(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	struct npk_array *a;
	int rc;

	if (name == NULL || strcmp(name, "all") == 0) {
		rc = compact_all(q->s, q->node->space, is_forced(argc, argv), err);
		return rc != 0 ? rc : reply_ok(q, "compact", 0, 0, err);
	}
	rc = npkfs_array_get(q->s, q->node->space, name, strlen(name), &a, err);
	if (rc != 0)
		return rc;
	rc = npkfs_compact(q->s, q->node->space, a, is_forced(argc, argv), err);
	npk_array_put(a);
	return rc != 0 ? rc : reply_array(q, "compact", name, NULL, err);
}

/* --- clone, rename ------------------------------------------------------------------------------------------------------------ */

static int run_clone(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(q->s, q->node->space, &store, err);

	(void)argc;
	if (rc != 0)
		return rc;
	rc = npk_store_clone(store, name, argv[0], err);
	npkfs_space_leave(q->node->space);
	if (rc != 0)
		return rc;
	npkfs_announce(q->s, q->node->space, argv[0], strlen(argv[0]), NPK_APPEARED);
	return reply_array(q, "clone", argv[0], NULL, err);
}

static int run_rename(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(q->s, q->node->space, &store, err);

	(void)argc;
	if (rc != 0)
		return rc;
	rc = npk_store_rename(store, name, argv[0], NPK_RENAME_NOREPLACE, err);
	npkfs_space_leave(q->node->space);
	if (rc != 0)
		return rc;
	npkfs_renamed(q->s, q->node->space, name, argv[0], false);
	npkfs_announce(q->s, q->node->space, name, strlen(name), NPK_GONE);
	npkfs_announce(q->s, q->node->space, argv[0], strlen(argv[0]), NPK_APPEARED);
	return reply_array(q, "rename", argv[0], NULL, err);
}

/* --- sync, reset --------------------------------------------------------------------------------------------------------------- */

static int check_one(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	(void)q, (void)name;
	return argc == 0 || strcmp(argv[0], "1") == 0 ? 0 : npk_fail(err, EINVAL, "sync: '%s' is not 1", argv[0]);
}

static int run_sync(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	int rc = npk_store_sync(q->s->store, err);

	(void)name, (void)argc, (void)argv;
	return rc != 0 ? rc : reply_ok(q, "sync", 0, 0, err);
}

static int check_reset(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	const char *path = q->s->config->store, *slash = strrchr(path, '/');
	const char *base = slash != NULL ? slash + 1 : path;

	(void)name, (void)argc;
	if (strncmp(argv[0], "confirm=", 8) == 0 && strcmp(argv[0] + 8, base) == 0)
		return 0;
	return npk_fail(err, EINVAL, "reset removes all arrays: say confirm=%s", base);
}

static int run_reset(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err)
{
	struct npk_array **list;
	struct npk_store *store;
	size_t n, len;
	int rc = npkfs_arrays(q->s, q->node->space, &list, &n, err);

	(void)name, (void)argc, (void)argv;
	if (rc != 0)
		return rc;
	rc = npkfs_space_enter(q->s, q->node->space, &store, err);
	if (rc == 0) {
		rc = npk_store_reset(store, err);
		npkfs_space_leave(q->node->space);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		const char *gone = npk_array_name(list[i], &len);

		npkfs_announce(q->s, q->node->space, gone, len, NPK_GONE);
	}
	npk_store_list_free(list, n);
	if (rc == 0)
		rc = npkfs_sync_change(q->s, err);
	return rc != 0 ? rc : reply_ok(q, "reset", 0, 0, err);
}

/* --- the table ------------------------------------------------------------------------------------------------------------------ */

typedef int verb_fn(struct npkfs_query *q, const char *name, int argc, char **argv, struct npk_err *err);

static const struct verb {
	const char *name;
	bool array; /* in ctl, an array's name comes first */
	int argc_min, argc_max;
	const char *usage; /* in ctl */
	verb_fn *check, *run;
} verbs[] = {
	{"drop", true, 1, NPKFS_WORDS_MAX, "drop ARRAY rows=ROWS", check_drop, run_drop},
	{"compact", true, 0, 2, "compact ARRAY|all [force]", check_compact, run_compact},
	{"clone", true, 1, 1, "clone ARRAY NEW", NULL, run_clone},
	{"rename", true, 1, 1, "rename ARRAY NEW", NULL, run_rename},
	{"sync", false, 0, 1, "sync", check_one, run_sync},
	{"reset", false, 1, 1, "reset confirm=STORE", check_reset, run_reset},
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static int may_change(struct npkfs_query *q, struct npk_err *err)
{
	if (q->s->rw)
		return 0;
	return npk_fail(err, EROFS, "this mount is read-only");
}

/* The verb is the file's name, the array the directory's. */
static int call_file(struct npkfs_query *q, bool check, struct npk_err *err)
{
	const struct verb *v = find_verb(q->node->control->name);
	verb_fn *fn = check ? v->check : v->run;
	int rc = may_change(q, err);

	if (rc == 0 && fn != NULL)
		rc = fn(q, q->node->name_len > 0 ? q->node->name : NULL, q->words.argc, q->words.argv, err);
	return rc;
}

int npkfs_check_change(struct npkfs_query *q, struct npk_err *err)
{
	return call_file(q, true, err);
}

int npkfs_run_change(struct npkfs_query *q, struct npk_err *err)
{
	return call_file(q, false, err);
}

/* A line of ctl: verb, array, arguments. */
static int call_line(struct npkfs_query *q, bool check, struct npk_err *err)
{
	const struct verb *v = find_verb(q->words.argv[0]);
	int used = v != NULL && v->array ? 2 : 1, argc = q->words.argc - used;
	verb_fn *fn;
	int rc = may_change(q, err);

	if (rc != 0)
		return rc;
	if (v == NULL)
		return npk_fail(err, EINVAL,
			"%s: unknown; ctl knows drop, compact, clone, rename, sync, reset and search",
			q->words.argv[0]);
	if (argc < v->argc_min || argc > v->argc_max)
		return npk_fail(err, EINVAL, "usage: %s", v->usage);
	fn = check ? v->check : v->run;
	return fn != NULL ? fn(q, v->array ? q->words.argv[1] : NULL, argc, q->words.argv + used, err) : 0;
}

static bool is_search(const struct npkfs_query *q)
{
	return strcmp(q->words.argv[0], "search") == 0;
}

int npkfs_check_ctl(struct npkfs_query *q, struct npk_err *err)
{
	if (is_search(q))
		return npkfs_check_ctl_search(q, err);
	return call_line(q, true, err);
}

int npkfs_run_ctl(struct npkfs_query *q, struct npk_err *err)
{
	if (is_search(q))
		return npkfs_run_ctl_search(q, err);
	return call_line(q, false, err);
}
