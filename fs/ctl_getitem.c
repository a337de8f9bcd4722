/* ctl_getitem.c - "sel=0:10;1,2 fmt=npy": rows and columns of the current generation. */
#include "cells.h"
#include "ctl.h"

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
static int open_view(
	struct npkfs_query *q, const char *sel, struct npk_view **v, struct npk_gen **g, struct npk_err *err)
{
	struct npk_array *a;
	int rc = npkfs_node_array(q->s, q->node, &a, err);

	if (rc != 0)
		return rc;
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
	npk_array_put(a);
	return rc;
}

/* Whether a selection parses, only opening it tells; whether its rows are there is found out when it runs. */
int npkfs_check_getitem(struct npkfs_query *q, struct npk_err *err)
{
	struct npk_view *v = NULL;
	struct npk_gen *g = NULL;
	enum format format;
	struct npk_err why;
	const char *sel;
	int rc = parse(q, &sel, &format, err);

	if (rc != 0 || !q->several)
		return rc;
	rc = open_view(q, sel, &v, &g, &why);
	npk_view_close(v);
	npk_gen_put(g);
	if (rc != -EINVAL)
		return 0;
	if (err != NULL)
		*err = why;
	return rc;
}

int npkfs_run_getitem(struct npkfs_query *q, struct npk_err *err)
{
	struct npk_text text = {0};
	struct npk_view *v = NULL;
	struct npk_gen *g = NULL;
	enum format format;
	const char *sel;
	int rc = parse(q, &sel, &format, err);

	if (rc == 0)
		rc = open_view(q, sel, &v, &g, err);
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
