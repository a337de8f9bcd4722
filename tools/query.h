/* query.h - what npk search, score and merge share: the vectors to search for, and how hits are told. */
#ifndef NPKT_QUERY_H
#define NPKT_QUERY_H

#include "tool.h"

/* Vectors of the array's dtype and width. Zeroed storage is empty. */
struct npkt_vectors {
	struct npk_queries q;
	struct npkt_rows mapped; /* of a file */
	void *copied;            /* of a row or an array */
};

/* Exactly one of `row`, `from` ("ARRAY" or "ARRAY[SEL]") and `file` (a .npy file, or "-") is not NULL. */
int npkt_vectors_open(struct npkt_vectors *v, struct npk_store *s, struct npk_gen *g, const char *row, const char *from,
	const char *file, struct npk_err *err);
void npkt_vectors_close(struct npkt_vectors *v);

/* NPKT_USAGE with a complaint unless exactly one of them is given. */
int npkt_check_query(const char *row, const char *from, int nfiles);
#define NPKT_ABOUT_QUERY                                                                                               \
	"The query is FILE, a .npy file of one vector or of several in rows (- is standard input); or --row, a row "   \
	"of\n"                                                                                                         \
	"ARRAY itself; or --from, rows of an array of the store. Its dtype is that of ARRAY.\n"                        \
	"\n"
#define NPKT_ABOUT_METRIC                                                                                              \
	"METRIC: cosine, dot, inner (higher scores are better); l2, l2sq, hamming, jaccard, kl, js (lower ones "       \
	"are).\n"                                                                                                      \
	"hamming and jaccard are for bits in uint8 and for bool, kl and js for floats.\n"                              \
	"\n"
#define NPKT_METRIC_OPT                                                                                                \
	{                                                                                                              \
		"metric", "METRIC", 'm', "what scores tell; cosine by default"                                         \
	}
#define NPKT_ROW_OPT                                                                                                   \
	{                                                                                                              \
		"row", "ROW", 'q', "the query is this row of ARRAY"                                                    \
	}
#define NPKT_FROM_OPT                                                                                                  \
	{                                                                                                              \
		"from", "ARRAY", 'f', "the query is each row of this array of the store; ARRAY[SEL]: of some rows"     \
	}

/* A positive number; NPKT_USAGE with a complaint for anything else. `text` NULL: *out stays as it is. */
int npkt_count(const char *option, const char *text, uint64_t *out);

enum npkt_form {
	NPKT_TEXT,
	NPKT_JSON,
	NPKT_NPY
};

/* NPKT_USAGE with a complaint when both are given. */
int npkt_form(const char *json, const char *npy, enum npkt_form *out);

/* nq x k hits: lines "ROW SCORE", or "QUERY ROW SCORE" of several queries; a JSON object; records (index <u8, score <f8). */
int npkt_out_hits(
	struct npkt_out *o, const struct npk_hits *h, enum npk_metric metric, enum npkt_form form, struct npk_err *err);
/* One score; what JSON has no number for is null. */
void npkt_add_score(struct npk_text *t, double score, bool json);

#endif
