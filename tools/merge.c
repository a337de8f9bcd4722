/* merge.c - npk merge: the best of the hits that several searches found. */
#include "query.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	TOP,
	METRIC,
	JSON,
	NPY,
	OUTPUT
};

static const struct npkt_opt opts[] = {
	[TOP] = {"top", "N", 'k', "how many hits for each query; 10 by default"},
	[METRIC] = {"metric", "METRIC", 'm', "what they were searched by; cosine by default"},
	[JSON] = {"json", NULL, 'j', "as a JSON object"},
	[NPY] = {"npy", NULL, 'n', "as a .npy file of records (index <u8, score <f8)"},
	[OUTPUT] = {"output", "FILE", 'o', "where the hits go; - is standard output, as without this option"},
	{0},
};

struct hit {
	uint64_t query, row;
	double score;
	bool high; /* of the metric: qsort() has no context */
};

struct hits {
	struct hit *p;
	size_t n, cap;
	unsigned columns; /* of the texts: 2 or 3; 0: none was read yet */
};

static int add(struct hits *h, const struct hit *hit, struct npk_err *err)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 1024;
		struct hit *p = realloc(h->p, cap * sizeof(*p));

		if (!p)
			return npk_fail(err, ENOMEM, "no memory for %zu hits", cap);
		h->p = p;
		h->cap = cap;
	}
	h->p[h->n++] = *hit;
	return 0;
}

/* --- reading -------------------------------------------------------------------------------------------------------------- */

/* A number at *p, and the blank or the end behind it. */
static bool take_number(const char **p, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(*p, &end, 10);
	if (**p < '0' || **p > '9' || errno != 0 || *end != ' ')
		return false;
	*p = end + 1;
	return true;
}

/* "ROW SCORE", "QUERY ROW SCORE" */
static bool parse_line(const char *line, unsigned *columns, struct hit *out)
{
	size_t len;

	*columns = 2;
	for (const char *p = line; *p; p++)
		*columns += *p == ' ' && strchr(p + 1, ' ');
	out->query = 0;
	if (*columns == 3 && !take_number(&line, &out->query))
		return false;
	if (*columns > 3 || !take_number(&line, &out->row))
		return false;
	len = strlen(line);
	return len > 0 && npk_element_parse(&out->score, NPK_F64, line, len) == 0;
}

static int read_lines(struct hits *h, FILE *f, const char *file, bool high, struct npk_err *err)
{
	struct hit hit = {.high = high};
	char *line = NULL;
	size_t cap = 0;
	unsigned columns;
	ssize_t len;
	int rc = 0;

	for (uint64_t n = 1; rc == 0 && (len = getline(&line, &cap, f)) >= 0; n++) {
		if (len > 0 && line[len - 1] == '\n')
			line[len - 1] = 0;
		if (!parse_line(line, &columns, &hit))
			rc = npk_fail(err, EINVAL,
				"%.300s: line %" PRIu64 ": '%.100s' is no hit: ROW SCORE or QUERY ROW SCORE", file, n,
				line);
		else if (h->columns != 0 && h->columns != columns)
			rc = npk_fail(err, EINVAL, "%.300s: line %" PRIu64 ": %u columns, there were %u before", file,
				n, columns, h->columns);
		else
			rc = add(h, &hit, err);
		h->columns = columns;
	}
	if (rc == 0 && ferror(f))
		rc = npk_fail(err, EIO, "%.300s: cannot be read", file);
	free(line);
	return rc;
}

static int read_file(struct hits *h, const char *file, bool high, struct npk_err *err)
{
	bool is_stdin = strcmp(file, "-") == 0;
	FILE *f = is_stdin ? stdin : fopen(file, "re");
	int rc;

	if (!f)
		return npk_fail(err, errno, "%.300s: %s", file, strerror(errno));
	rc = read_lines(h, f, is_stdin ? "standard input" : file, high, err);
	if (!is_stdin)
		fclose(f);
	return rc;
}

/* --- merging -------------------------------------------------------------------------------------------------------------- */

/* By query; then NaN behind everything, better scores first, lower rows first: as a search does. */
static int compare(const void *x, const void *y)
{
	const struct hit *a = x, *b = y;

	if (a->query != b->query)
		return a->query < b->query ? -1 : 1;
	if (isnan(a->score) != isnan(b->score))
		return isnan(a->score) ? 1 : -1;
	if (!isnan(a->score) && a->score != b->score)
		return (a->score > b->score) == a->high ? -1 : 1;
	return a->row < b->row ? -1 : a->row > b->row;
}

static bool is_same(const struct hit *a, const struct hit *b)
{
	return a->query == b->query && a->row == b->row && compare(a, b) == 0;
}

/* The k best of each query. All queries must have as many: a table has no holes. */
static int pick(struct hits *h, uint64_t k, struct npk_hits *out, struct npk_err *err)
{
	uint64_t nq = 0, least = UINT64_MAX, n;
	size_t to = 0;

	if (h->n > 0)
		qsort(h->p, h->n, sizeof(*h->p), compare);
	for (size_t i = 0; i < h->n; i++) /* ranges may overlap */
		if (to == 0 || !is_same(&h->p[to - 1], &h->p[i]))
			h->p[to++] = h->p[i];
	h->n = to;
	for (size_t i = 0; i < h->n; i += n, nq++) {
		for (n = 0; i + n < h->n && h->p[i + n].query == h->p[i].query; n++)
			;
		if (h->p[i].query != nq)
			return npk_fail(err, EINVAL, "there is no hit of query %" PRIu64, nq);
		least = n < least ? n : least;
	}
	out->nq = nq > 0 ? nq : 1;
	out->k = nq == 0 ? 0 : least < k ? least : k;
	out->row = malloc((out->nq * out->k + 1) * sizeof(*out->row));
	out->score = malloc((out->nq * out->k + 1) * sizeof(*out->score));
	if (!out->row || !out->score)
		return npk_fail(err, ENOMEM, "no memory for the hits");
	for (size_t i = 0, at = 0, seen = 0; i < h->n; i++) {
		seen = i > 0 && h->p[i].query == h->p[i - 1].query ? seen + 1 : 0;
		if (seen >= out->k)
			continue;
		out->row[at] = h->p[i].row;
		out->score[at++] = h->p[i].score;
	}
	return 0;
}

static int merge(
	const struct npkt_args *args, enum npk_metric metric, uint64_t k, enum npkt_form form, struct npk_err *err)
{
	const char *path = args->opt[OUTPUT] ? args->opt[OUTPUT] : "-";
	struct npkt_out out = {0};
	struct npk_hits best = {0};
	struct hits h = {0};
	int rc = 0;

	for (int i = 0; i < args->noperands && rc == 0; i++)
		rc = read_file(&h, args->operand[i], npk_metric_is_similarity(metric), err);
	if (rc == 0)
		rc = pick(&h, k, &best, err);
	if (rc == 0)
		rc = npkt_out_open(&out, path, form == NPKT_NPY, err);
	if (rc == 0)
		rc = npkt_out_hits(&out, &best, metric, form, err);
	if (rc == 0)
		rc = npkt_out_commit(&out, err);
	npkt_out_fini(&out);
	free(best.row);
	free(best.score);
	free(h.p);
	return rc;
}

static int run(const struct npkt_args *args)
{
	enum npk_metric metric;
	enum npkt_form form;
	struct npk_err err;
	uint64_t k = 10;

	if (npkt_count("--top", args->opt[TOP], &k) != NPKT_OK ||
		npkt_form(args->opt[JSON], args->opt[NPY], &form) != NPKT_OK)
		return NPKT_USAGE;
	if (npk_metric_parse(args->opt[METRIC] ? args->opt[METRIC] : "cosine", &metric, &err) != 0) {
		npkt_failed(&err);
		return NPKT_USAGE;
	}
	return merge(args, metric, k, form, &err) == 0 ? NPKT_OK : npkt_failed(&err);
}

const struct npkt_cmd npkt_merge = {
	.name = "merge",
	.operands = "FILE...",
	.min = 1,
	.max = -1,
	.help = "put the hits of several searches together",
	.more = "Each FILE has what npk search printed as text (- is standard input), for the same queries and metric, "
		"and for\n"
		"different rows. What it prints is what one search of all of these rows prints, as long as each FILE "
		"has as many\n"
		"hits as are wanted here, or all there are. A row that is in several files counts once. The metric "
		"says which\n"
		"scores are better.\n"
		"\n"
		"Examples:\n"
		"  npk search digits.npk pixels --row 17 | npk merge --top 3 -\n"
		"  for r in 0:800 800:; do npk search digits.npk pixels --row 17 --rows $r; done | npk merge -k 3 "
		"--json -\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
