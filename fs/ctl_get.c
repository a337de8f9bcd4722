/* ctl_get.c - the commands of ctl that tell something: get, has, stream. */
#include "command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- get ------------------------------------------------------------------------------------------------------------------- */

/* What is told of one array; the other subjects are texts of .numpack. */
static bool is_fact(const char *what)
{
	static const char *const facts[] = {"shape", "dtype", "info", "mtime", "rows", "deleted", "generation"};

	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
		if (strcmp(what, facts[i]) == 0)
			return true;
	return false;
}

static bool is_text(const char *what)
{
	return strcmp(what, "members") == 0 || strcmp(what, "metadata") == 0 || strcmp(what, "stats") == 0;
}

int npkfs_check_get(struct npkfs_command *c, struct npk_err *err)
{
	const char *what = c->arrays[0];

	if (is_fact(what) && c->narrays == 2)
		return 0;
	if (is_text(what) && c->narrays == 1)
		return 0;
	return npk_fail(err, EINVAL,
		"get: shape, dtype, info, mtime, rows, deleted or generation of an ARRAY, or members, metadata, stats");
}

static int add_fact(struct npk_array *a, const char *what, struct npk_text *t, struct npk_err *err)
{
	struct npk_array_info info;
	int rc;

	if (strcmp(what, "info") == 0)
		return npk_array_info_json(a, t, err);
	rc = npk_array_info(a, &info, err);
	return rc == 0 ? npkfs_fact(what, &info, t, err) : rc;
}

static int get_fact(struct npkfs_command *c, struct npk_text *t, struct npk_err *err)
{
	struct npk_array *a;
	int rc = npkfs_array_get(c->q->s, c->space, c->arrays[1], strlen(c->arrays[1]), &a, err);

	if (rc != 0)
		return rc;
	rc = add_fact(a, c->arrays[0], t, err);
	if (rc == 0 && (t->len == 0 || t->p[t->len - 1] != '\n'))
		npk_text_add(t, "\n", 1);
	npk_array_put(a);
	return rc;
}

int npkfs_run_get(struct npkfs_command *c, struct npk_err *err)
{
	const struct npkfs_control *row;
	struct npk_text t = {0};
	int rc = npkfs_check_get(c, err);

	if (rc == 0 && c->narrays == 2) {
		rc = get_fact(c, &t, err);
	} else if (rc == 0) {
		row = npkfs_control_find(npkfs_store_controls, c->arrays[0]);
		rc = row->render(c->q->s, c->q->node, &c->q->who, &t, err);
	}
	if (rc == 0)
		return npkfs_reply_text(c->q, &t, err);
	npk_text_fini(&t);
	return rc;
}

int npkfs_run_has(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_text t = {0};
	struct npk_err why;
	struct npk_array *a;
	int rc = npkfs_array_get(c->q->s, c->space, c->arrays[0], strlen(c->arrays[0]), &a, &why);

	if (rc != 0 && rc != -ENOENT)
		return npk_fail(err, -rc, "%s", why.msg);
	if (rc == 0)
		npk_array_put(a);
	npk_text_printf(&t, "%s\n", c->json ? (rc == 0 ? "true" : "false") : rc == 0 ? "1" : "0");
	return npkfs_reply_text(c->q, &t, err);
}

/* --- stream ------------------------------------------------------------------------------------------------------------------ */

/* "rows=N": a number of rows, not a selection. */
static int block_rows(const struct npkfs_command *c, uint64_t *n, struct npk_err *err)
{
	size_t len;

	*n = 0;
	if (c->rows == NULL)
		return 0;
	len = strspn(c->rows, "0123456789");
	*n = len > 0 && len <= 18 && c->rows[len] == '\0' ? strtoull(c->rows, NULL, 10) : 0;
	return *n > 0 ? 0 : npk_fail(err, EINVAL, "stream: rows=%s: a number of rows, at least 1", c->rows);
}

int npkfs_check_stream(struct npkfs_command *c, struct npk_err *err)
{
	uint64_t n;

	return block_rows(c, &n, err);
}

int npkfs_run_stream(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_view *v = NULL;
	struct npk_array *a;
	struct npk_gen *g;
	uint64_t n;
	int rc = block_rows(c, &n, err);

	if (rc == 0)
		rc = npkfs_command_gen(c, c->arrays[0], &a, &g, err);
	if (rc != 0)
		return rc;
	npk_array_put(a);
	rc = npk_gen_map(g, err);
	if (rc == 0)
		rc = npk_view_open(&v, g, NULL, err);
	if (rc == 0)
		return npkfs_reply_blocks(c->q, v, g, n, err);
	npk_gen_put(g);
	return npkfs_refresh_if_stale(c->q->s, rc);
}
