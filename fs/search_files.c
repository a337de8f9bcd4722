/* search_files.c - search.d/<query>.{txt,json,npy} and scores.d/<query>.npy: answers as files of exact size.
 *
 * A node is one query on one generation and one content version: the answer that it has does not change, so the kernel may
 * keep its pages. Answers are computed at open, or by a stat of a text, whose size nobody knows before; the node does not
 * keep them, but the cache does for a while. Scores are computed as they are read. */
#include "names.h"
#include "out.h"
#include "search.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 16

static const struct npkfs_type answer_type;

/* --- names ---------------------------------------------------------------------------------------------------------------- */

struct parsed {
	char text[2 * NPKFS_COMPONENT_MAX + 2];
	char *argv[WORDS_MAX];
	struct npkfs_search_words words;
};

/* A comma separates words only where a new one begins: lists have commas, too. */
static bool begins_word(const char *p)
{
	static const char *const keys[] = {
		"k=", "metric=", "row=", "from=", "q=", "rows=", "npy=", "raw=", "op=", "fmt="};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strncmp(p, keys[i], strlen(keys[i])) == 0)
			return true;
	return false;
}

/* The name without its suffix, as words; %XX stands for any byte in them. */
static int split(struct parsed *p, const char *name, size_t len, int *argc, struct npk_err *err)
{
	char *to = p->text;
	size_t n;

	*argc = 0;
	for (size_t at = 0; at < len; at += n + 1) {
		for (n = 0; at + n < len && !(name[at + n] == ',' && begins_word(name + at + n + 1)); n++)
			;
		if (*argc == WORDS_MAX)
			return npk_fail(err, ENOENT, "%s: more than %d words", name, WORDS_MAX);
		if (!npkfs_percent_decode(to, name + at, n))
			return npk_fail(err, ENOENT, "%s: a %% without two hex digits behind it", name);
		p->argv[(*argc)++] = to;
		to += strlen(to) + 1;
	}
	return 0;
}

/* What does not parse is not there; the message, kept in last_error, says why. */
static int parse(struct parsed *p, bool scores, const char *name, struct npk_err *err)
{
	static const char *const suffixes[] = {".txt", ".json", ".npy"}; /* by enum npkfs_search_format */
	const enum npkfs_search_op op = scores ? NPKFS_SEARCH_SCORES : NPKFS_SEARCH_TOPK;
	enum npkfs_search_format format = NPKFS_SEARCH_NPY;
	size_t len = 0;
	int rc, argc;

	if (strlen(name) > NPKFS_COMPONENT_MAX)
		return -ENAMETOOLONG;
	for (unsigned i = scores ? 2 : 0; i < 3 && len == 0; i++)
		if (npkfs_name_strip(name, suffixes[i], &len))
			format = (enum npkfs_search_format)i;
		else
			len = 0;
	if (len == 0)
		return -ENOENT;
	rc = split(p, name, len, &argc, err);
	if (rc == 0)
		rc = npkfs_search_parse(&p->words, argc, p->argv, &op, &format, err);
	return rc == -EINVAL ? -ENOENT : rc;
}

/* A node's text is "<what of the moment matters>/<name>". */
static const char *name_of(const struct npkfs_node *node)
{
	return strchr(node->sel, '/') + 1;
}

static bool is_scores(const struct npkfs_node *node)
{
	return node->sel[0] == 's';
}

/* --- answers -------------------------------------------------------------------------------------------------------------- */

static bool is_kept(const struct npkfs_node *node)
{
	return !is_scores(node) && node->space == NULL;
}

/* The query of the node, not computed yet if nobody asked before. What the content is now decides: it may have changed since
 * the lookup, if only because the pages of a map were written out. Answers within a transaction are not kept. */
static int open_search(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_search **out, struct npk_err *err)
{
	uint64_t content = atomic_load(&s->content); /* before any row is read */
	struct parsed *p;
	int rc;

	*out = is_kept(node) ? npkfs_search_cache_get(s->answers, node->number, content, node->sel) : NULL;
	if (*out != NULL)
		return 0;
	p = malloc(sizeof(*p));
	if (p == NULL)
		return npk_fail(err, ENOMEM, "no memory for a query");
	rc = parse(p, is_scores(node), name_of(node), err);
	if (rc == 0)
		rc = npkfs_search_open(out, s, node->space, node->gen, &p->words, NULL, err);
	free(p);
	if (rc == 0 && is_kept(node))
		*out = npkfs_search_cache_put(s->answers, node->number, content, node->sel, *out);
	return npkfs_refresh_if_stale(s, rc);
}

static int make_answer(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_search **out, struct npk_err *err)
{
	int rc = open_search(s, node, out, err);
	uint64_t size;

	if (rc != 0)
		return rc;
	rc = npkfs_search_make(*out, err);
	if (rc == 0 && npkfs_search_size(*out, &size))
		atomic_store(&node->measured, size);
	if (rc != 0) {
		npkfs_search_cache_drop(s->answers, *out);
		npkfs_search_put(*out);
	}
	return rc;
}

struct answer {
	struct npkfs_handle h;
	struct npkfs_search *search;
};

static int read_answer(struct npkfs_handle *h, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	return npkfs_search_read(((struct answer *)h)->search, off, len, out, err);
}

static bool is_slow(struct npkfs_handle *h)
{
	return npkfs_search_is_slow(((struct answer *)h)->search);
}

static void close_answer(struct npkfs_handle *h)
{
	npkfs_search_put(((struct answer *)h)->search);
	free(h);
}

static const struct npkfs_handle_ops handle_ops = {.read = read_answer, .close = close_answer, .is_slow = is_slow};

static int open_answer(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o,
	struct npkfs_handle **out, struct npk_err *err)
{
	struct answer *a;
	int rc = npkfs_refuse_writing(o->flags, err);

	if (rc != 0)
		return s->rw ? npk_fail(err, EACCES, "an answer cannot be written") : rc;
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		return npk_fail(err, ENOMEM, "no memory for an open file");
	rc = make_answer(s, node, &a->search, err);
	if (rc != 0) {
		free(a);
		return rc;
	}
	a->h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node};
	/* Computed for another moment than the node's, it must not be mixed with pages that are there. */
	o->keep_cache = atomic_load(&s->content) == node->detail;
	*out = &a->h;
	return 0;
}

/* --- stat ------------------------------------------------------------------------------------------------------------------ */

static bool is_unmeasured(struct npkfs_session *s, struct npkfs_node *node)
{
	(void)s;
	return node->bytes == 0 && atomic_load(&node->measured) == 0;
}

static int measure(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err)
{
	struct npkfs_search *q;
	int rc = make_answer(s, node, &q, err);

	if (rc == 0)
		npkfs_search_put(q);
	return rc;
}

static void stat_answer(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	uint64_t measured = atomic_load(&node->measured);

	npkfs_stat_gen(s, node, st);
	if (measured != 0)
		st->st_size = (off_t)measured;
	st->st_blocks = (st->st_size + 511) / 512;
}

static void path_answer(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, is_scores(node) ? "/scores.d/" : "/search.d/", out);
	npk_text_printf(out, "%s", name_of(node));
}

static const struct npkfs_type answer_type = {
	.kind = S_IFREG,
	.path = path_answer,
	.stat = stat_answer,
	.open = open_answer,
	.slow_open = true,
	.is_unmeasured = is_unmeasured,
	.measure = measure,
};

/* --- directories ------------------------------------------------------------------------------------------------------------ */

/* A node of the query on `g`, which was found to make sense. */
static int new_node(struct npkfs_session *s, const struct npkfs_key *key, struct npk_gen *g, const struct parsed *p,
	struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_search *q;
	struct npkfs_node *node;
	int rc = npkfs_search_open(&q, s, key->space, g, &p->words, NULL, err);

	if (rc != 0)
		return npkfs_refresh_if_stale(s, rc);
	rc = npkfs_node_new(&node, key, err);
	if (rc == 0) {
		node->gen = npk_gen_ref(g);
		if (!npkfs_search_size(q, &node->bytes))
			node->bytes = 0;
		*out = npkfs_node_publish(&s->inodes, node);
	}
	npkfs_search_put(q);
	return rc;
}

/* What another array has a part in holds until anything in the store changes. */
static int find_node(struct npkfs_session *s, struct npkfs_node *dir, bool scores, const char *name,
	const struct parsed *p, struct npk_gen *g, struct npkfs_node **out, struct npk_err *err)
{
	char sel[NPKFS_COMPONENT_MAX + 64];
	struct npkfs_key key = {
		.type = &answer_type, .space = dir->space, .name = dir->name, .name_len = dir->name_len, .sel = sel};

	key.number = npk_gen_info(g)->number;
	key.detail = atomic_load(&s->content);
	snprintf(sel, sizeof(sel), "%s %" PRIu64 " %" PRIu64 "/%s", scores ? "scores" : "topk", npk_gen_info(g)->rows,
		p->words.other ? atomic_load(&s->epoch) : 0, name);
	*out = npkfs_node_by_key(&s->inodes, &key);
	return *out != NULL ? 0 : new_node(s, &key, g, p, out, err);
}

static int lookup(struct npkfs_session *s, struct npkfs_node *dir, bool scores, const char *name,
	struct npkfs_node **out, struct npk_err *err)
{
	struct parsed *p = malloc(sizeof(*p));
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	int rc = p != NULL ? parse(p, scores, name, err) : npk_fail(err, ENOMEM, "no memory for a query");

	if (rc == 0)
		rc = npkfs_node_array(s, dir, &a, err);
	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0)
		rc = find_node(s, dir, scores, name, p, g, out, err);
	npk_gen_put(g);
	npk_array_put(a);
	free(p);
	return rc == -EINVAL ? -ENOENT : rc;
}

static int lookup_search(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	(void)who;
	return lookup(s, dir, false, name, out, err);
}

static int lookup_scores(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	(void)who;
	return lookup(s, dir, true, name, out, err);
}

static void path_search_dir(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/search.d", out);
}

static void path_scores_dir(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/scores.d", out);
}

const struct npkfs_type npkfs_search_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_search_dir,
	.stat = npkfs_stat_dir,
	.lookup = lookup_search,
};

const struct npkfs_type npkfs_scores_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_scores_dir,
	.stat = npkfs_stat_dir,
	.lookup = lookup_scores,
};
