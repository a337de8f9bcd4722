/* fuzz_words.c - any line as a command's words, and these as a query. The words are those that a second, slower splitter
 * finds, and come back when they are written in quotes; what a query says does not depend on the order of its words. */
#include "fuzz.h"

/* A target is linked with the library alone, and these pure functions need nothing else. */
#include "search_words.c"
#include "words.c"

enum state {
	OUTSIDE,
	QUOTED,
	ESCAPED
};

struct slow_word {
	char *text;
	size_t len;
};

/* Interface.md section 4: words are parted by blanks outside of quotes; in quotes \ takes the next byte as it is. Their
 * texts go to `text`, `len` bytes. Returns how many words, or -1 when a quote does not end. */
static int split_slowly(const char *line, size_t len, char *text, struct slow_word *out, int most)
{
	enum state now = OUTSIDE;
	bool in_word = false;
	int n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = line[i];
		bool blank = now == OUTSIDE && (c == ' ' || c == '\t' || c == '\r');

		if (blank) {
			in_word = false;
			continue;
		}
		if (!in_word) {
			if (n == most)
				return n + 1;
			in_word = true;
			out[n++] = (struct slow_word){text, 0};
		}
		if (now == OUTSIDE && c == '"')
			now = QUOTED;
		else if (now == QUOTED && c == '"')
			now = OUTSIDE;
		else if (now == QUOTED && c == '\\' && i + 1 < len)
			now = ESCAPED;
		else {
			*text++ = c;
			out[n - 1].len++;
			now = now == ESCAPED ? QUOTED : now;
		}
	}
	return now == OUTSIDE ? n : -1;
}

static void check_again(const struct npkfs_words *w, size_t len)
{
	char *line = malloc(2 * len + 4 * (size_t)w->argc + 1), *p = line;
	struct npkfs_words again;

	CHECK(line);
	for (int i = 0; i < w->argc; i++) {
		*p++ = '"';
		for (const char *c = w->argv[i]; *c; c++) {
			if (*c == '"' || *c == '\\')
				*p++ = '\\';
			*p++ = *c;
		}
		*p++ = '"';
		*p++ = i % 2 ? '\t' : ' ';
	}
	*p = 0;
	CHECK(npkfs_words_split(&again, line, (size_t)(p - line), NULL) == 0 && again.argc == w->argc);
	for (int i = 0; i < w->argc; i++)
		CHECK(strcmp(again.argv[i], w->argv[i]) == 0);
	free(line);
}

static int check_split(struct npkfs_words *w, char *line, size_t len)
{
	struct slow_word want[NPKFS_WORDS_MAX];
	struct npk_err err = {0};
	char *text = malloc(len + 1);
	int n = text ? split_slowly(line, len, text, want, NPKFS_WORDS_MAX) : -2;
	bool nul = memchr(line, 0, len) != NULL;
	int rc = npkfs_words_split(w, line, len, &err);

	CHECK(n != -2);
	CHECK((rc == 0) == (n >= 0 && n <= NPKFS_WORDS_MAX && !nul) || (rc != 0 && n > NPKFS_WORDS_MAX));
	if (rc != 0) {
		CHECK(rc == -EINVAL);
		check_err(rc, &err);
	} else {
		CHECK(w->argc == n);
	}
	for (int i = 0; rc == 0 && i < n; i++)
		CHECK(strlen(w->argv[i]) == want[i].len && memcmp(w->argv[i], want[i].text, want[i].len) == 0);
	free(text);
	return rc;
}

/* What the word `key`= says, if it is there once. */
static const char *said(const struct npkfs_words *w, const char *key)
{
	const char *value = NULL;
	size_t n = strlen(key);
	int times = 0;

	for (int i = 0; i < w->argc; i++)
		if (strlen(w->argv[i]) > n && memcmp(w->argv[i], key, n) == 0 && w->argv[i][n] == '=') {
			value = value ? value : w->argv[i] + n + 1;
			times++;
		}
	CHECK(npkfs_words_value(w, key) == value);
	return times == 1 ? value : NULL;
}

static void check_query(const struct npkfs_words *w, const struct npkfs_search_words *q)
{
	static const char *const ops[] = {"topk", "scores", "pair"}, *const formats[] = {"text", "json", "npy"};
	const char *op = said(w, "op"), *format = said(w, "fmt"), *k = said(w, "k"), *metric = said(w, "metric");
	enum npk_metric m;
	int sources = 0;

	for (int i = 0; i < w->argc; i++)
		for (size_t s = 0; s < sizeof(source_names) / sizeof(source_names[0]); s++) {
			size_t n = strlen(source_names[s]);

			if (strncmp(w->argv[i], source_names[s], n) != 0 || w->argv[i][n] != '=')
				continue;
			CHECK(sources < 2 && q->source[sources].value == w->argv[i] + n + 1);
			CHECK(strcmp(q->source[sources].key, source_names[s]) == 0);
			sources++;
		}
	CHECK(q->nsources == (unsigned)sources && sources >= 1 && (sources == 1 || q->op == NPKFS_SEARCH_PAIR));
	CHECK(strcmp(op ? op : "topk", ops[q->op]) == 0 && strcmp(format ? format : "text", formats[q->format]) == 0);
	CHECK((k != NULL) == (q->op == NPKFS_SEARCH_TOPK) && (!k || (q->k >= 1 && strtoull(k, NULL, 10) == q->k)));
	CHECK(metric && npk_metric_parse(metric, &m, NULL) == 0 && m == q->metric);
	CHECK(q->rows == said(w, "rows") && !(q->rows && q->op == NPKFS_SEARCH_PAIR));
}

/* Each word is there once, or is a source; the other way round the query is the same, but for the order of its sources. */
static void check_order(struct npkfs_words *w, const struct npkfs_search_words *q, int rc)
{
	struct npkfs_search_words other;
	int last;

	for (int i = 0; i < w->argc / 2; i++) {
		char *word = w->argv[i];

		w->argv[i] = w->argv[w->argc - 1 - i];
		w->argv[w->argc - 1 - i] = word;
	}
	CHECK(npkfs_search_parse(&other, w->argc, w->argv, NULL, NULL, NULL) == rc);
	if (rc != 0)
		return;
	last = (int)q->nsources - 1;
	CHECK(other.op == q->op && other.format == q->format && other.metric == q->metric && other.k == q->k);
	CHECK(other.rows == q->rows && other.other == q->other && other.nsources == q->nsources);
	CHECK(other.source[0].value == q->source[last].value && other.source[last].value == q->source[0].value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum npkfs_search_format npy = NPKFS_SEARCH_NPY;
	struct npkfs_search_words q = {0}, named;
	struct npkfs_words w;
	struct npk_err err = {0};
	char *line;
	int rc;

	if (size > 0 && memchr(data, '\n', size))
		return 0; /* that ends a line */
	line = malloc(size + 1);
	CHECK(line);
	if (size > 0)
		memcpy(line, data, size);
	line[size] = 0;
	if (check_split(&w, line, size) == 0) {
		check_again(&w, size);
		rc = npkfs_search_parse(&q, w.argc, w.argv, NULL, NULL, &err);
		if (rc == 0)
			check_query(&w, &q);
		else
			check_err(rc, &err);
		CHECK(rc == 0 || rc == -EINVAL);
		if (rc == 0 && !said(&w, "fmt")) /* the file's name says it instead */
			CHECK(npkfs_search_parse(&named, w.argc, w.argv, NULL, &npy, NULL) == 0 && named.format == npy);
		check_order(&w, &q, rc);
	}
	free(line);
	return 0;
}
