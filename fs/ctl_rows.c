/* ctl_rows.c - the commands of ctl that bring rows: save, append, replace. The bytes follow the line, "npy=BYTES" a whole .npy,
 * "raw=BYTES" the rows alone. All of them are looked at before the first array changes. */
#include "changed.h"
#include "command.h"
#include "file.h"
#include "rowdata.h"
#include "rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The .npy that is attached as number `i`. */
static int parse_npy(const struct npkfs_command *c, unsigned i, struct npk_npy *npy, struct npk_err *err)
{
	const struct npkfs_attached *at = &c->q->attached[i];
	int rc = npk_npy_parse(at->data, at->len, npy, NULL, err);

	if (rc == -EAGAIN)
		return npk_fail(err, EINVAL, "'%.200s': the .npy ends in its header", c->arrays[i]);
	if (rc == 0 && npy->header_len + npy->data_len != at->len)
		rc = npk_fail(err, EINVAL, "'%.200s': npy=%" PRIu64 ", but its header promises %" PRIu64, c->arrays[i],
			at->len, npy->header_len + npy->data_len);
	return rc;
}

/* Of what is here: while bytes are still to come, there is nothing to look at. */
int npkfs_check_bytes(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_npy npy;
	int rc = 0;

	for (unsigned i = 0; i < c->narrays && rc == 0; i++)
		if (c->q->attached[i].npy && c->q->attached[i].data != NULL)
			rc = parse_npy(c, i, &npy, err);
	return rc;
}

/* --- save ------------------------------------------------------------------------------------------------------------------ */

int npkfs_run_save(struct npkfs_command *c, struct npk_err *err)
{
	const char *name = c->arrays[0], *rows;
	struct npkfs_session *s = c->q->s;
	struct npk_save *save = NULL;
	struct npk_npy npy;
	char *copy = NULL;
	int rc;

	if (!c->q->attached[0].npy)
		return npk_fail(err, EINVAL, "save: npy= is wanted, raw= tells no shape");
	rc = parse_npy(c, 0, &npy, err);
	if (rc == 0)
		rc = npkfs_rows_plain(&npy, c->q->attached[0].data + npy.header_len, &rows, &copy, err);
	if (rc == 0)
		rc = npkfs_save_open(s, c->space, npy.dtype, &npy.shape, &save, err);
	if (rc == 0)
		rc = npk_save_write(save, rows, npy.data_len, err);
	if (rc == 0)
		rc = npk_save_commit(save, name, err);
	else
		npk_save_abort(save);
	free(copy);
	if (rc != 0)
		return rc;
	npkfs_announce(s, c->space, name, strlen(name), NPK_APPEARED);
	return npkfs_reply_array(c, "save", name, NULL, err);
}

/* --- append, replace ------------------------------------------------------------------------------------------------------- */

/* What is attached for array number `i`, as rows. */
struct rows {
	const char *data;
	uint64_t n;
	char *copy;
};

static int take_rows(
	const struct npkfs_command *c, unsigned i, struct npk_gen *g, struct rows *out, struct npk_err *err)
{
	const struct npkfs_attached *at = &c->q->attached[i];
	const struct npk_gen_info *info = npk_gen_info(g);
	struct npk_npy npy;
	int rc;

	*out = (struct rows){.data = at->data};
	if (!at->npy) {
		out->n = info->row_bytes > 0 ? at->len / info->row_bytes : 0;
		return info->row_bytes > 0 && at->len % info->row_bytes == 0
			       ? 0
			       : npk_fail(err, EINVAL,
					 "'%.200s': raw=%" PRIu64 " is no number of rows of %" PRIu64 " bytes",
					 c->arrays[i], at->len, info->row_bytes);
	}
	rc = parse_npy(c, i, &npy, err);
	if (rc == 0)
		rc = npkfs_rows_fit(info, &npy, err);
	if (rc == 0)
		rc = npkfs_rows_plain(&npy, at->data + npy.header_len, &out->data, &out->copy, err);
	out->n = rc == 0 ? npy.shape.dim[0] : 0;
	return rc;
}

static int append_one(struct npkfs_command *c, unsigned i, uint64_t *n, struct npk_err *err)
{
	struct npk_array *a;
	struct npk_gen *g;
	struct rows rows;
	int rc = npkfs_command_gen(c, c->arrays[i], &a, &g, err);

	if (rc != 0)
		return rc;
	rc = take_rows(c, i, g, &rows, err);
	if (rc == 0)
		rc = npk_array_append(a, rows.data, rows.n, err);
	if (rc == 0)
		rc = npkfs_announce_grown(c->q->s, c->space, a, err);
	*n = rows.n;
	free(rows.copy);
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static int append_all(struct npkfs_command *c, struct npk_err *err)
{
	uint64_t n = 0;
	int rc = 0;

	for (unsigned i = 0; i < c->narrays && rc == 0; i++)
		rc = append_one(c, i, &n, err);
	return rc == 0 ? npkfs_reply_array(c, "append", c->arrays[c->narrays - 1], &n, err) : rc;
}

int npkfs_run_append(struct npkfs_command *c, struct npk_err *err)
{
	return npkfs_together(c, append_all, err);
}

static int replace_one(struct npkfs_command *c, unsigned i, uint64_t *n, struct npk_err *err)
{
	struct npkfs_session *s = c->q->s;
	struct rows rows = {NULL, 0, NULL};
	int64_t *at = NULL;
	struct npk_array *a;
	struct npk_gen *g;
	size_t nat = 0;
	int rc = npkfs_command_gen(c, c->arrays[i], &a, &g, err);

	if (rc != 0)
		return rc;
	rc = npkfs_rows_parse(c->rows, npk_gen_info(g)->rows, s->config->ctl_max / 8, &at, &nat, err);
	if (rc == 0)
		rc = take_rows(c, i, g, &rows, err);
	if (rc == 0 && rows.n != nat)
		rc = npk_fail(err, EINVAL, "'%.200s': %" PRIu64 " rows for %zu places", c->arrays[i], rows.n, nat);
	if (rc == 0)
		rc = npk_array_replace(a, at, nat, rows.data, c->atomic ? NPK_REPLACE_ATOMIC : 0, err);
	if (rc == 0) {
		npkfs_announce_replaced(s, a, g, at, nat);
		rc = npkfs_announce_grown(s, c->space, a, err);
	}
	*n = rows.n;
	free(at);
	free(rows.copy);
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static int replace_all(struct npkfs_command *c, struct npk_err *err)
{
	uint64_t n = 0;
	int rc = 0;

	for (unsigned i = 0; i < c->narrays && rc == 0; i++)
		rc = replace_one(c, i, &n, err);
	return rc == 0 ? npkfs_reply_array(c, "replace", c->arrays[c->narrays - 1], &n, err) : rc;
}

int npkfs_check_replace(struct npkfs_command *c, struct npk_err *err)
{
	struct npk_err why;
	struct npk_array *a;
	struct npk_gen *g;
	int64_t *at = NULL;
	size_t n;
	int rc = npkfs_check_bytes(c, err);

	for (unsigned i = 0; i < c->narrays && rc == 0; i++) {
		if (npkfs_command_gen(c, c->arrays[i], &a, &g, NULL) != 0)
			continue; /* told when it runs */
		if (npkfs_rows_parse(c->rows, npk_gen_info(g)->rows, c->q->s->config->ctl_max / 8, &at, &n, &why) ==
			-EINVAL)
			rc = npk_fail(err, EINVAL, "%s", why.msg);
		free(at);
		at = NULL;
		npk_gen_put(g);
		npk_array_put(a);
	}
	return rc;
}

int npkfs_run_replace(struct npkfs_command *c, struct npk_err *err)
{
	return npkfs_together(c, replace_all, err);
}
