/* ctl_getitem.c - "sel=0:10;1,2 fmt=npy": rows and columns of the current generation. */
#include "cells.h"
#include "command.h"

#include <errno.h>
#include <string.h>

enum format {
	FORMAT_NPY,
	FORMAT_TEXT,
	FORMAT_JSON
};

static int parse_format(const char *text, enum format *out, struct npk_err *err)
{
	static const char *const names[] = {"npy", "text", "json"};

	*out = FORMAT_NPY;
	for (unsigned i = 0; text != NULL && i < 3; i++)
		if (strcmp(text, names[i]) == 0) {
			*out = (enum format)i;
			return 0;
		}
	return text == NULL ? 0 : npk_fail(err, EINVAL, "fmt=%s: it is npy, text or json", text);
}

static int parse(const struct npkfs_query *q, const char **sel, enum format *format, struct npk_err *err)
{
	const char *word;

	for (int i = 0; i < q->words.argc; i++) {
		word = q->words.argv[i];
		if (strncmp(word, "sel=", 4) != 0 && strncmp(word, "fmt=", 4) != 0)
			return npk_fail(err, EINVAL, "%s: unknown; usage: %s", word, q->node->control->usage);
	}
	*sel = npkfs_words_value(&q->words, "sel");
	if (*sel == NULL || **sel == '\0')
		return npk_fail(err, EINVAL, "no sel=; usage: %s", q->node->control->usage);
	return parse_format(npkfs_words_value(&q->words, "fmt"), format, err);
}

/* The view, and the generation that it needs. */
static int open_view(struct npkfs_query *q, struct npk_array *a, const char *sel, struct npk_view **v,
	struct npk_gen **g, struct npk_err *err)
{
	int rc = 0;

	for (int attempt = 0; attempt < 2; attempt++) { /* once more when another process just replaced the data */
		rc = npk_gen_get(g, a, err);
		if (rc == 0)
			rc = npk_gen_map(*g, err);
		if (rc == 0)
			rc = npk_view_open(v, *g, sel, err);
		if (rc == 0)
			break;
		npk_gen_put(*g);
		*g = NULL;
		if (npkfs_refresh_if_stale(q->s, rc) != -ESTALE)
			break;
	}
	return rc;
}

/* Whether a selection parses, only opening it tells; whether its rows are there is found out when it runs. */
static int check(struct npkfs_query *q, struct npk_array *a, const char *sel, struct npk_err *err)
{
	struct npk_view *v = NULL;
	struct npk_gen *g = NULL;
	struct npk_err why;
	int rc = open_view(q, a, sel, &v, &g, &why);

	npk_view_close(v);
	npk_gen_put(g);
	return rc == -EINVAL ? npk_fail(err, EINVAL, "%s", why.msg) : 0;
}

static int run(struct npkfs_query *q, struct npk_array *a, const char *sel, enum format format, struct npk_err *err)
{
	struct npk_text text = {0};
	struct npk_view *v = NULL;
	struct npk_gen *g = NULL;
	int rc = open_view(q, a, sel, &v, &g, err);

	if (rc != 0)
		return rc;
	if (format == FORMAT_NPY)
		return npkfs_reply_view(q, v, g, err);
	rc = format == FORMAT_TEXT ? npkfs_cells_text(v, q->s->config->ctl_max, &text, err)
				   : npkfs_cells_json(v, q->s->config->ctl_max, &text, err);
	npk_view_close(v);
	npk_gen_put(g);
	if (rc == 0)
		return npkfs_reply_text(q, &text, err);
	npk_text_fini(&text);
	return rc;
}

/* --- the file ------------------------------------------------------------------------------------------------------------ */

int npkfs_check_getitem(struct npkfs_query *q, struct npk_err *err)
{
	enum format format;
	struct npk_array *a;
	const char *sel;
	int rc = parse(q, &sel, &format, err);

	if (rc != 0 || !q->several || npkfs_node_array(q->s, q->node, &a, NULL) != 0)
		return rc;
	rc = check(q, a, sel, err);
	npk_array_put(a);
	return rc;
}

int npkfs_run_getitem(struct npkfs_query *q, struct npk_err *err)
{
	enum format format;
	struct npk_array *a;
	const char *sel;
	int rc = parse(q, &sel, &format, err);

	if (rc == 0)
		rc = npkfs_node_array(q->s, q->node, &a, err);
	if (rc != 0)
		return rc;
	rc = run(q, a, sel, format, err);
	npk_array_put(a);
	return rc;
}

/* --- the verb of ctl ----------------------------------------------------------------------------------------------------- */

int npkfs_check_ctl_getitem(struct npkfs_command *c, struct npk_err *err)
{
	enum format format;
	struct npk_array *a;
	int rc = parse_format(c->fmt, &format, err);

	if (rc != 0 || npkfs_array_get(c->q->s, c->space, c->arrays[0], strlen(c->arrays[0]), &a, NULL) != 0)
		return rc;
	rc = check(c->q, a, c->sel, err);
	npk_array_put(a);
	return rc;
}

int npkfs_run_ctl_getitem(struct npkfs_command *c, struct npk_err *err)
{
	enum format format;
	struct npk_array *a;
	int rc = parse_format(c->fmt, &format, err);

	if (rc == 0)
		rc = npkfs_array_get(c->q->s, c->space, c->arrays[0], strlen(c->arrays[0]), &a, err);
	if (rc != 0)
		return rc;
	rc = run(c->q, a, c->sel, format, err);
	npk_array_put(a);
	return rc;
}
