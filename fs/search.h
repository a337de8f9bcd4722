/* search.h - a vector search as the mount answers it: words in, the bytes of a text, a JSON object or a .npy file out. */
#ifndef NPKFS_SEARCH_H
#define NPKFS_SEARCH_H

#include "fs.h"

#define NPKFS_ATTACHED_MAX 64

/* Bytes that follow a command line: "npy=BYTES" or "raw=BYTES" announces them. */
struct npkfs_attached {
	const char *data; /* NULL: not here yet */
	uint64_t len;
	bool npy;
};

enum npkfs_search_op {
	NPKFS_SEARCH_TOPK,
	NPKFS_SEARCH_SCORES, /* the metric of every row */
	NPKFS_SEARCH_PAIR    /* the metric of vectors of the first source and those of the second */
};

enum npkfs_search_format {
	NPKFS_SEARCH_TEXT,
	NPKFS_SEARCH_JSON,
	NPKFS_SEARCH_NPY
};

#define NPKFS_SEARCH_WORDS                                                                                             \
	"k=N metric=NAME row=ROW|from=ARRAY[SEL]|q=X,Y,...|npy=BYTES|raw=BYTES [rows=SEL] [fmt=text|json|npy] "        \
	"[op=topk|scores|pair]"

/* What the words say, as far as it can be told without looking at an array. Texts are borrowed from the words. */
struct npkfs_search_source {
	const char *key, *value; /* "row", "from", "q", "npy", "raw" */
	unsigned attached;       /* of npy and raw: which one */
};

struct npkfs_search_words {
	enum npkfs_search_op op;
	enum npkfs_search_format format;
	enum npk_metric metric;
	uint64_t k;
	const char *rows; /* NULL: all */
	struct npkfs_search_source source[2];
	unsigned nsources;
	bool other; /* another array has a part in it */
};

/* `format` and `op` NULL: the words may say so, else they must not. -EINVAL with the reason. */
int npkfs_search_parse(struct npkfs_search_words *out, int argc, char *const *argv, const enum npkfs_search_op *op,
	const enum npkfs_search_format *format, struct npk_err *err);

/* The vectors of the sources one after the other, `dim` elements of dtype `dtype` each; `bytes` is the caller's to free. At
 * most `max` bytes: else -E2BIG. */
struct npkfs_vectors {
	unsigned dtype;
	uint64_t dim;
	struct npk_text bytes;
	size_t n;
	size_t nfirst; /* of these, the ones of the first source */
};

/* `g` is the array that is searched, `sp` where others are looked for. -EINVAL: another dtype or width, not a number, not a .npy; -ERANGE: no such row;
 * -ENOENT: no such array. */
int npkfs_search_vectors(struct npkfs_vectors *out, struct npkfs_session *s, struct npkfs_space *sp, struct npk_gen *g,
	const struct npkfs_search_words *w, const struct npkfs_attached *attached, struct npk_err *err);

/* One query, ready to run on the generation it was opened on. Counted; any thread. */
struct npkfs_search;

/* Checks all that can be wrong with it; nothing is computed yet. Texts of `w` may go afterwards. -E2BIG: the query or what it
 * asks for is more than config ctl_max. */
int npkfs_search_open(struct npkfs_search **out, struct npkfs_session *s, struct npkfs_space *sp, struct npk_gen *g,
	const struct npkfs_search_words *w, const struct npkfs_attached *attached, struct npk_err *err);
struct npkfs_search *npkfs_search_ref(struct npkfs_search *q);
void npkfs_search_put(struct npkfs_search *q); /* NULL is fine */

/* Computes the answer, unless it is there. -EINTR: the client does not want it any more; the next call begins anew. */
int npkfs_search_make(struct npkfs_search *q, struct npk_err *err);
/* Reading will take long: the answer, or this part of it, is to be computed. */
bool npkfs_search_is_slow(struct npkfs_search *q);
/* The length of the answer; false: it is known only when it was made. */
bool npkfs_search_size(struct npkfs_search *q, uint64_t *size);
/* Adds [off, off + len) of the answer, as far as it goes. What is added may be borrowed from `q`. */
int npkfs_search_read(struct npkfs_search *q, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err);

/* The latest answers of search.d, by generation, content version and query: at most NPKFS_SEARCH_KEPT of them, and ctl_max
 * bytes unless it is a single one. Any thread. */
#define NPKFS_SEARCH_KEPT 64

struct npkfs_search_cache;

int npkfs_search_cache_open(struct npkfs_search_cache **out, uint64_t max, struct npk_err *err);
void npkfs_search_cache_close(struct npkfs_search_cache *c); /* NULL is fine */
/* The search of that key with a reference, or NULL. */
struct npkfs_search *npkfs_search_cache_get(
	struct npkfs_search_cache *c, uint64_t generation, uint64_t content, const char *sel);
/* Keeps `q`, whose reference it takes over, unless another thread was first: returns the one that is kept, with a reference.
 * Without memory `q` is returned and not kept. */
struct npkfs_search *npkfs_search_cache_put(
	struct npkfs_search_cache *c, uint64_t generation, uint64_t content, const char *sel, struct npkfs_search *q);
void npkfs_search_cache_drop(struct npkfs_search_cache *c, const struct npkfs_search *q);

#endif
