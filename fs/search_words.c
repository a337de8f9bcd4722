/* search_words.c - "k=5 metric=cosine row=17": what the words of a query say. */
#include "search.h"

#include <errno.h>
#include <string.h>

static const char *const op_names[] = {"topk", "scores", "pair", NULL};       /* by enum npkfs_search_op */
static const char *const format_names[] = {"text", "json", "npy", NULL};      /* by enum npkfs_search_format */
static const char *const source_names[] = {"row", "from", "q", "npy", "raw"}; /* of the vectors to search for */

static int find(const char *const *names, const char *value)
{
	for (int i = 0; names[i] != NULL; i++)
		if (strcmp(names[i], value) == 0)
			return i;
	return -1;
}

static bool parse_count(const char *text, uint64_t *out)
{
	uint64_t n = 0;

	if (*text == '\0')
		return false;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return false;
	*out = n;
	return *text == '\0';
}

struct parser {
	struct npkfs_search_words w;
	const enum npkfs_search_op *op;
	const enum npkfs_search_format *format;
	bool has_k, has_metric, has_op, has_format;
	unsigned nattached;
};

static int take_source(struct parser *p, const char *key, const char *value, struct npk_err *err)
{
	struct npkfs_search_source *to;

	if (p->w.nsources == 2)
		return npk_fail(err, EINVAL, "search: more than two of row=, from=, q=, npy= and raw=");
	to = &p->w.source[p->w.nsources++];
	*to = (struct npkfs_search_source){.key = key, .value = value};
	if (strcmp(key, "npy") == 0 || strcmp(key, "raw") == 0)
		to->attached = p->nattached++;
	p->w.other |= strcmp(key, "from") == 0;
	return 0;
}

static int twice(const char *key, struct npk_err *err)
{
	return npk_fail(err, EINVAL, "search: %s= is there twice", key);
}

static int take_option(struct parser *p, const char *key, size_t len, const char *value, struct npk_err *err)
{
	bool is_op = len == 2 && memcmp(key, "op", 2) == 0, is_format = len == 3 && memcmp(key, "fmt", 3) == 0;
	int n;

	if (is_op && p->op == NULL) {
		n = find(op_names, value);
		if (n < 0)
			return npk_fail(err, EINVAL, "search: op=%s: it is topk, scores or pair", value);
		p->w.op = (enum npkfs_search_op)n;
		n = p->has_op;
		p->has_op = true;
		return n ? twice("op", err) : 0;
	}
	if (is_format && p->format == NULL) {
		n = find(format_names, value);
		if (n < 0)
			return npk_fail(err, EINVAL, "search: fmt=%s: it is text, json or npy", value);
		p->w.format = (enum npkfs_search_format)n;
		n = p->has_format;
		p->has_format = true;
		return n ? twice("fmt", err) : 0;
	}
	return npk_fail(err, EINVAL, "search: %.*s= is unknown%s", (int)len, key,
		is_op || is_format ? " here: the name of the file says it" : "; usage: " NPKFS_SEARCH_WORDS);
}

static int take_word(struct parser *p, const char *word, struct npk_err *err)
{
	const char *eq = strchr(word, '='), *value;
	size_t len;

	if (eq == NULL)
		return npk_fail(err, EINVAL, "search: '%s' is no key=value; usage: " NPKFS_SEARCH_WORDS, word);
	len = (size_t)(eq - word);
	value = eq + 1;
	for (size_t i = 0; i < sizeof(source_names) / sizeof(source_names[0]); i++)
		if (strlen(source_names[i]) == len && memcmp(word, source_names[i], len) == 0)
			return take_source(p, source_names[i], value, err);
	if (len == 1 && *word == 'k') {
		if (p->has_k)
			return twice("k", err);
		p->has_k = true;
		if (!parse_count(value, &p->w.k))
			return npk_fail(err, EINVAL, "search: k=%s: not a number", value);
		return p->w.k >= 1 ? 0 : npk_fail(err, EINVAL, "search: k=%s: at least 1 is needed", value);
	}
	if (len == 6 && memcmp(word, "metric", 6) == 0) {
		if (p->has_metric)
			return twice("metric", err);
		p->has_metric = true;
		return npk_metric_parse(value, &p->w.metric, err);
	}
	if (len == 4 && memcmp(word, "rows", 4) == 0) {
		if (p->w.rows != NULL)
			return twice("rows", err);
		if (*value == '\0' || strpbrk(value, ";@") != NULL)
			return npk_fail(
				err, EINVAL, "search: rows=%s: rows are wanted, one part of a selection", value);
		p->w.rows = value;
		p->w.other |= strstr(value, "mask") != NULL;
		return 0;
	}
	return take_option(p, word, len, value, err);
}

/* Whether the words make sense together. */
static int check_all(const struct parser *p, struct npk_err *err)
{
	bool topk = p->w.op == NPKFS_SEARCH_TOPK, pair = p->w.op == NPKFS_SEARCH_PAIR;

	if (topk && !p->has_k)
		return npk_fail(err, EINVAL, "search: no k=; usage: " NPKFS_SEARCH_WORDS);
	if (!topk && p->has_k)
		return npk_fail(err, EINVAL, "search: k= belongs to op=topk, not to op=%s", op_names[p->w.op]);
	if (!p->has_metric)
		return npk_fail(err, EINVAL, "search: no metric=; usage: " NPKFS_SEARCH_WORDS);
	if (p->w.nsources == 0)
		return npk_fail(err, EINVAL, "search: no query: one of row=, from=, q=, npy= and raw= is needed");
	if (!pair && p->w.nsources > 1)
		return npk_fail(err, EINVAL, "search: two queries, %s= and %s=: only op=pair takes two",
			p->w.source[0].key, p->w.source[1].key);
	if (pair && p->w.rows != NULL)
		return npk_fail(err, EINVAL, "search: rows= does not belong to op=pair");
	return 0;
}

int npkfs_search_parse(struct npkfs_search_words *out, int argc, char *const *argv, const enum npkfs_search_op *op,
	const enum npkfs_search_format *format, struct npk_err *err)
{
	struct parser p = {.op = op, .format = format};
	int rc = 0;

	if (op != NULL)
		p.w.op = *op;
	if (format != NULL)
		p.w.format = *format;
	for (int i = 0; i < argc && rc == 0; i++)
		rc = take_word(&p, argv[i], err);
	if (rc == 0)
		rc = check_all(&p, err);
	if (rc == 0)
		*out = p.w;
	return rc;
}
