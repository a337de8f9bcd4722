/* ctl_search.c - "k=5 metric=cosine row=17": the nearest rows of the current generation. */
#include "ctl.h"
#include "space.h"

#include <errno.h>
#include <string.h>

static int parse(const struct npkfs_query *q, int skip, struct npkfs_search_words *w, struct npk_err *err)
{
	return npkfs_search_parse(w, q->words.argc - skip, q->words.argv + skip, NULL, NULL, err);
}

/* The query on what the array is now. */
static int run(struct npkfs_query *q, struct npk_array *a, const struct npkfs_search_words *w, struct npk_err *err)
{
	struct npkfs_search *search = NULL;
	struct npk_gen *g;
	int rc = 0;

	for (int attempt = 0; attempt < 2; attempt++) { /* once more when another process just replaced the data */
		rc = npk_gen_get(&g, a, err);
		if (rc != 0)
			break;
		rc = npkfs_search_open(&search, q->s, npkfs_query_space(q), g, w, q->attached, err);
		npk_gen_put(g);
		if (npkfs_refresh_if_stale(q->s, rc) != -ESTALE)
			break;
	}
	return rc == 0 ? npkfs_reply_search(q, search, err) : rc;
}

int npkfs_check_search(struct npkfs_query *q, struct npk_err *err)
{
	struct npkfs_search_words w;

	return parse(q, 0, &w, err);
}

int npkfs_run_search(struct npkfs_query *q, struct npk_err *err)
{
	struct npkfs_search_words w;
	struct npk_array *a;
	int rc = parse(q, 0, &w, err);

	if (rc == 0)
		rc = npkfs_node_array(q->s, q->node, &a, err);
	if (rc != 0)
		return rc;
	rc = run(q, a, &w, err);
	npk_array_put(a);
	return rc;
}

int npkfs_check_ctl_search(struct npkfs_query *q, struct npk_err *err)
{
	struct npkfs_search_words w;

	if (q->words.argc < 2)
		return npk_fail(err, EINVAL, "usage: search ARRAY " NPKFS_SEARCH_WORDS);
	return parse(q, 2, &w, err);
}

int npkfs_run_ctl_search(struct npkfs_query *q, struct npk_err *err)
{
	struct npkfs_search_words w;
	struct npk_array *a;
	int rc = npkfs_check_ctl_search(q, err);

	if (rc == 0)
		rc = parse(q, 2, &w, err);
	if (rc == 0)
		rc = npkfs_array_get(q->s, npkfs_query_space(q), q->words.argv[1], strlen(q->words.argv[1]), &a, err);
	if (rc != 0)
		return rc;
	rc = run(q, a, &w, err);
	npk_array_put(a);
	return rc;
}
