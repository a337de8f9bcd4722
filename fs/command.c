/* command.c - the verbs: their table, the words behind them, and what they have in common.
 *
 * Names in commands are the arrays' own, in double quotes where they have blanks. */
#include "command.h"
#include "changed.h"
#include "file.h"
#include "names.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* clang-format off */
static const struct npkfs_verb verbs[] = {
	{"save", 1, 1, NPKFS_TAKES_BYTES, "save ARRAY npy=BYTES", npkfs_check_bytes, npkfs_run_save},
	{"append", 1, NPKFS_ATTACHED_MAX, NPKFS_TAKES_BYTES, "append ARRAY ... npy=BYTES|raw=BYTES ...",
	 npkfs_check_bytes, npkfs_run_append},
	{"replace", 1, NPKFS_ATTACHED_MAX, NPKFS_TAKES_BYTES | NPKFS_TAKES_ROWS | NPKFS_NEEDS_ROWS | NPKFS_TAKES_ATOMIC,
	 "replace ARRAY ... rows=ROWS [atomic] npy=BYTES|raw=BYTES ...", npkfs_check_replace, npkfs_run_replace},
	{"drop", 1, NPKFS_WORDS_MAX, NPKFS_TAKES_ROWS | NPKFS_NEEDS_ROWS, "drop ARRAY ... rows=ROWS", npkfs_check_drop,
	 npkfs_run_drop},
	{"compact", 1, NPKFS_WORDS_MAX, NPKFS_TAKES_FORCE, "compact ARRAY ...|all [force]", NULL, npkfs_run_compact},
	{"clone", 2, 2, 0, "clone ARRAY NEW", NULL, npkfs_run_clone},
	{"rename", 2, 2, 0, "rename ARRAY NEW", NULL, npkfs_run_rename},
	{"getitem", 1, 1, NPKFS_TAKES_SEL | NPKFS_READS, "getitem ARRAY sel=SELECTION [fmt=npy|text|json]",
	 npkfs_check_ctl_getitem, npkfs_run_ctl_getitem},
	{"get", 1, 2, NPKFS_READS, "get shape|dtype|info|mtime|rows ARRAY, or get members|metadata|stats",
	 npkfs_check_get, npkfs_run_get},
	{"stream", 1, 1, NPKFS_TAKES_ROWS | NPKFS_READS, "stream ARRAY [rows=N]", npkfs_check_stream, npkfs_run_stream},
	{"has", 1, 1, NPKFS_READS, "has ARRAY", NULL, npkfs_run_has},
	{"reset", 0, 0, NPKFS_TAKES_CONFIRM, "reset confirm=STORE", npkfs_check_reset, npkfs_run_reset},
	{"sync", 0, 0, 0, "sync", NULL, npkfs_run_sync},
	{"reload", 0, 0, NPKFS_READS, "reload", NULL, npkfs_run_reload},
	{"begin", 0, 0, 0, "begin", npkfs_check_begin, npkfs_run_begin},
	{"commit", 0, 0, 0, "commit", npkfs_check_commit, npkfs_run_commit},
	{"abort", 0, 0, 0, "abort", npkfs_check_commit, npkfs_run_abort},
};
/* clang-format on */

static const struct npkfs_verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

/* --- words -------------------------------------------------------------------------------------------------------------- */

static int usage(const struct npkfs_verb *v, struct npk_err *err)
{
	return npk_fail(err, EINVAL, "usage: %s", v->usage);
}

/* Rows may be separated by blanks: a word that is no other argument goes on with them. */
static void add_rows(struct npkfs_command *c, const char *word)
{
	npk_text_printf(&c->row_words, "%s%s", c->row_words.len > 0 ? " " : "", word);
}

static bool is_row(const char *word)
{
	return word[strspn(word, "0123456789-:,+")] == '\0';
}

/* "key=value"; false: it is no such word. */
static bool take_value(struct npkfs_command *c, const struct npkfs_verb *v, const char *word)
{
	if ((v->takes & NPKFS_TAKES_BYTES) && (strncmp(word, "npy=", 4) == 0 || strncmp(word, "raw=", 4) == 0))
		return true; /* ctl.c has taken what it announces */
	if ((v->takes & NPKFS_TAKES_ROWS) && c->rows == NULL && strncmp(word, "rows=", 5) == 0) {
		c->rows = word + 5;
		add_rows(c, word + 5);
	} else if ((v->takes & NPKFS_TAKES_SEL) && c->sel == NULL && strncmp(word, "sel=", 4) == 0) {
		c->sel = word + 4;
	} else if ((v->takes & NPKFS_TAKES_CONFIRM) && c->confirm == NULL && strncmp(word, "confirm=", 8) == 0) {
		c->confirm = word + 8;
	} else if (c->fmt == NULL && strncmp(word, "fmt=", 4) == 0) {
		c->fmt = word + 4;
	} else {
		return false;
	}
	return true;
}

static int take_word(
	struct npkfs_command *c, const struct npkfs_verb *v, bool *in_rows, const char *word, struct npk_err *err)
{
	if (*in_rows && is_row(word)) {
		add_rows(c, word);
		return 0;
	}
	*in_rows = false;
	if (take_value(c, v, word)) {
		*in_rows = strncmp(word, "rows=", 5) == 0;
		return 0;
	}
	if (c->narrays > 0 && (v->takes & NPKFS_TAKES_ATOMIC) && strcmp(word, "atomic") == 0)
		c->atomic = true;
	else if (c->narrays > 0 && (v->takes & NPKFS_TAKES_FORCE) && strcmp(word, "force") == 0)
		c->force = true;
	else if (c->narrays < v->max && c->rows == NULL)
		c->arrays[c->narrays++] = word;
	else
		return npk_fail(err, EINVAL, "%s: unknown; usage: %s", word, v->usage);
	return 0;
}

/* What is said about a verb that changes something is how its "OK" looks. */
static int take_format(struct npkfs_command *c, const struct npkfs_verb *v, struct npk_err *err)
{
	if (c->fmt == NULL || (v->takes & NPKFS_TAKES_SEL))
		return 0;
	c->json = strcmp(c->fmt, "json") == 0;
	c->q->json = c->json;
	return c->json || strcmp(c->fmt, "text") == 0 ? 0 : npk_fail(err, EINVAL, "fmt=%s: it is text or json", c->fmt);
}

static int check_words(struct npkfs_command *c, const struct npkfs_verb *v, struct npk_err *err)
{
	if (c->row_words.bad)
		return npk_fail(err, ENOMEM, "no memory for a selection");
	if (c->rows != NULL)
		c->rows = c->row_words.p;
	if (c->narrays < v->min || ((v->takes & NPKFS_TAKES_CONFIRM) && c->confirm == NULL) ||
		((v->takes & NPKFS_TAKES_SEL) && (c->sel == NULL || *c->sel == '\0')))
		return usage(v, err);
	if ((v->takes & NPKFS_NEEDS_ROWS) && c->rows == NULL)
		return npk_fail(
			err, EINVAL, "%s: no rows=; an array as a whole goes by unlink; usage: %s", v->name, v->usage);
	if ((v->takes & NPKFS_TAKES_BYTES) ? c->q->nattached != c->narrays : c->q->nattached != 0)
		return npk_fail(err, EINVAL, "%u arrays, %u times npy= or raw=; usage: %s", c->narrays, c->q->nattached,
			v->usage);
	return 0;
}

static int may_run(const struct npkfs_query *q, const struct npkfs_verb *v, struct npk_err *err)
{
	return q->s->rw || (v->takes & NPKFS_READS) ? 0 : npk_fail(err, EROFS, "this mount is read-only");
}

/* The words from number `skip` on belong to the verb; `self` is the array of the directory, or NULL. */
static int call(
	struct npkfs_query *q, const struct npkfs_verb *v, int skip, const char *self, bool check, struct npk_err *err)
{
	struct npkfs_command c = {.q = q, .space = npkfs_query_space(q)};
	npkfs_command_fn *fn = check ? v->check : v->run;
	bool in_rows = false;
	int rc = may_run(q, v, err);

	if (self != NULL)
		c.arrays[c.narrays++] = self;
	for (int i = skip; i < q->words.argc && rc == 0; i++)
		rc = take_word(&c, v, &in_rows, q->words.argv[i], err);
	if (rc == 0)
		rc = take_format(&c, v, err);
	if (rc == 0)
		rc = check_words(&c, v, err);
	if (rc == 0 && fn != NULL)
		rc = fn(&c, err);
	npk_text_fini(&c.row_words);
	return rc;
}

/* --- the files that are named as their verb ---------------------------------------------------------------------------------- */

/* "echo 1 > sync": the word says nothing. */
static int take_one(struct npkfs_query *q, struct npk_err *err)
{
	if (strcmp(q->words.argv[0], "1") != 0)
		return npk_fail(err, EINVAL, "'%s': write 1", q->words.argv[0]);
	q->words.argv[0] = NULL;
	return 0;
}

/* Rows need no "rows=" where nothing else can be meant. */
static int call_rows(struct npkfs_query *q, const struct npkfs_verb *v, bool check, struct npk_err *err)
{
	struct npkfs_command c = {.q = q, .space = q->node->space, .arrays = {q->node->name}, .narrays = 1};
	int rc;

	for (int i = 0; i < q->words.argc; i++)
		add_rows(&c,
			i == 0 && strncmp(q->words.argv[0], "rows=", 5) == 0 ? q->words.argv[0] + 5 : q->words.argv[i]);
	c.rows = c.row_words.p;
	rc = check_words(&c, v, err);
	if (rc == 0)
		rc = (check ? v->check : v->run)(&c, err);
	npk_text_fini(&c.row_words);
	return rc;
}

static int call_file(struct npkfs_query *q, bool check, struct npk_err *err)
{
	const struct npkfs_verb *v = find_verb(q->node->control->name);
	const char *self = q->node->name_len > 0 ? q->node->name : NULL;
	bool compact = strcmp(v->name, "compact") == 0;
	int skip = 0, rc = may_run(q, v, err);

	if (rc != 0)
		return rc;
	if (strcmp(v->name, "drop") == 0)
		return call_rows(q, v, check, err);
	if (compact || strcmp(v->name, "sync") == 0) {
		rc = take_one(q, err);
		skip = 1;
	}
	if (strcmp(v->name, "sync") == 0)
		self = NULL;
	if (compact && self == NULL)
		self = "all";
	return rc == 0 ? call(q, v, skip, self, check, err) : rc;
}

int npkfs_check_change(struct npkfs_query *q, struct npk_err *err)
{
	return call_file(q, true, err);
}

int npkfs_run_change(struct npkfs_query *q, struct npk_err *err)
{
	return call_file(q, false, err);
}

/* --- ctl --------------------------------------------------------------------------------------------------------------------- */

static int call_line(struct npkfs_query *q, bool check, struct npk_err *err)
{
	const struct npkfs_verb *v = find_verb(q->words.argv[0]);
	struct npk_text known = {0};
	int rc;

	if (strcmp(q->words.argv[0], "search") == 0)
		return check ? npkfs_check_ctl_search(q, err) : npkfs_run_ctl_search(q, err);
	if (v != NULL)
		return call(q, v, 1, NULL, check, err);
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		npk_text_printf(&known, "%s, ", verbs[i].name);
	rc = npk_fail(err, EINVAL, "%s: unknown; ctl knows %sand search", q->words.argv[0], known.p ? known.p : "");
	npk_text_fini(&known);
	return rc;
}

int npkfs_check_ctl(struct npkfs_query *q, struct npk_err *err)
{
	return call_line(q, true, err);
}

int npkfs_run_ctl(struct npkfs_query *q, struct npk_err *err)
{
	return call_line(q, false, err);
}

/* --- what verbs have in common ---------------------------------------------------------------------------------------------- */

int npkfs_reply_ok(struct npkfs_command *c, const char *verb, uint64_t rows, uint64_t generation, struct npk_err *err)
{
	struct npk_text t = {0};

	npk_text_printf(&t,
		c->json ? "{\"status\": \"OK\", \"verb\": \"%s\", \"rows\": %" PRIu64 ", \"generation\": %" PRIu64 "}\n"
			: "OK %s rows=%" PRIu64 " generation=%" PRIu64 "\n",
		verb, rows, generation);
	return npkfs_reply_text(c->q, &t, err);
}

int npkfs_command_gen(
	struct npkfs_command *c, const char *name, struct npk_array **a, struct npk_gen **g, struct npk_err *err)
{
	int rc = npkfs_array_get(c->q->s, c->space, name, strlen(name), a, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(g, *a, err);
	if (rc != 0)
		npk_array_put(*a);
	return rc;
}

int npkfs_reply_array(
	struct npkfs_command *c, const char *verb, const char *name, const uint64_t *rows, struct npk_err *err)
{
	struct npk_array *a;
	struct npk_gen *g;
	int rc = npkfs_sync_change(c->q->s, err);

	if (rc == 0)
		rc = npkfs_command_gen(c, name, &a, &g, err);
	if (rc != 0)
		return rc;
	npk_array_put(a);
	rc = npkfs_reply_ok(c, verb, rows != NULL ? *rows : npk_gen_info(g)->rows, npk_gen_info(g)->number, err);
	npk_gen_put(g);
	return rc;
}

int npkfs_together(struct npkfs_command *c, npkfs_command_fn *fn, struct npk_err *err)
{
	struct npkfs_space *sp;
	int rc;

	if (c->narrays == 1 || c->space != NULL)
		return fn(c, err);
	rc = npkfs_batch_begin(c->q->s, NULL, &sp, err);
	if (rc != 0)
		return rc;
	c->space = sp;
	rc = fn(c, err);
	if (rc == 0)
		rc = npkfs_batch_commit(c->q->s, sp, err);
	if (rc != 0)
		npkfs_batch_abort(c->q->s, sp, NULL);
	c->space = NULL;
	npkfs_space_put(sp);
	return rc;
}
