/* batch.c - npk batch: a script of changes, all of them or none. Its lines are those of a mount's .numpack/ctl. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 256
#define LINE_MAX_BYTES ((size_t)1 << 20)

enum {
	WAIT
};

static const struct npkt_opt opts[] = {
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

struct script {
	FILE *in;
	const char *store; /* its path */
	struct npk_store *s;
	uint64_t number; /* of the line */
	int argc;
	char *argv[WORDS_MAX];
};

/* --- words ------------------------------------------------------------------------------------------------------------ */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts the line at blanks, in place; in double quotes blanks stay, and \ takes the next byte as it is. */
static int split(struct script *b, char *p, struct npk_err *err)
{
	char *q;

	for (b->argc = 0;;) {
		bool quoted = false;

		while (is_blank(*p))
			p++;
		if (!*p)
			return 0;
		if (b->argc == WORDS_MAX)
			return npk_fail(err, EINVAL, "more than %d words", WORDS_MAX);
		b->argv[b->argc++] = q = p;
		for (; *p && (quoted || !is_blank(*p)); p++) {
			if (*p == '"') {
				quoted = !quoted;
				continue;
			}
			if (quoted && *p == '\\' && p[1])
				p++;
			*q++ = *p;
		}
		if (quoted)
			return npk_fail(err, EINVAL, "a quote that does not end");
		if (*p)
			p++;
		*q = 0;
	}
}

/* The value behind "key=" in a word, or NULL. */
static const char *value(const char *word, const char *key)
{
	size_t n = strlen(key);

	return strncmp(word, key, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

/* --- payloads --------------------------------------------------------------------------------------------------------- */

/* As many bytes of the script as the word says, as a file to read arrays from. */
static int open_payload(struct script *b, const char *word, struct npkt_input *in, struct npk_err *err)
{
	struct npk_source_how how = {.format = NPK_FORMAT_NPY, .dtype = -1, .file = "the payload"};
	const char *text = value(word, "npy");
	char block[65536], *end;
	FILE *f;
	uint64_t left;
	int rc = 0;

	errno = 0;
	left = text ? strtoull(text, &end, 10) : 0;
	if (!text || *text < '0' || *text > '9' || *end || errno != 0)
		return npk_fail(err, EINVAL, "'%.100s' is not npy=BYTES", word);
	f = tmpfile();
	if (!f)
		return npk_fail(err, errno, "a temporary file: %s", strerror(errno));
	while (left > 0 && rc == 0) {
		size_t n = fread(block, 1, left < sizeof(block) ? (size_t)left : sizeof(block), b->in);

		if (n == 0)
			rc = npk_fail(err, EINVAL, "the script ends %" PRIu64 " bytes before its payload does", left);
		else if (fwrite(block, 1, n, f) != n)
			rc = npk_fail(err, errno, "a temporary file: %s", strerror(errno));
		left -= n;
	}
	if (rc == 0 && fflush(f) != 0)
		rc = npk_fail(err, errno, "a temporary file: %s", strerror(errno));
	*in = (struct npkt_input){.fd = rc == 0 ? dup(fileno(f)) : -1, .file = how.file};
	fclose(f);
	if (rc == 0 && (in->fd < 0 || lseek(in->fd, 0, SEEK_SET) != 0))
		rc = npk_fail(err, errno, "a temporary file: %s", strerror(errno));
	return rc == 0 ? npk_source_open(&in->src, in->fd, &how, err) : rc;
}

/* --- verbs ------------------------------------------------------------------------------------------------------------ */

static int run_save(struct script *b, struct npk_err *err)
{
	struct npkt_input in = {0};
	struct npk_source_array a;
	int rc = open_payload(b, b->argv[2], &in, err);

	if (rc == 0)
		rc = npkt_input_only(&in, &a, err);
	if (rc == 0)
		rc = npkt_save_input(b->s, b->argv[1], &in, &a, NULL, err);
	if (rc == 0)
		rc = npkt_input_no_more(&in, err);
	npkt_input_close(&in);
	return rc;
}

static int run_append(struct script *b, struct npk_err *err)
{
	struct npkt_input in = {0};
	int rc = open_payload(b, b->argv[2], &in, err);

	if (rc == 0)
		rc = npkt_append_source(b->s, &in, b->argv[1], err);
	npkt_input_close(&in);
	return rc;
}

static int run_replace(struct script *b, struct npk_err *err)
{
	const char *sel = value(b->argv[2], "rows");
	bool atomic = b->argc == 5 && strcmp(b->argv[3], "atomic") == 0;
	struct npkt_input in = {0};
	struct npk_array *a = NULL;
	int rc = 0;

	if (!sel || strpbrk(sel, ";@") || (b->argc == 5 && !atomic))
		return npk_fail(err, EINVAL, "say: replace ARRAY rows=ROWS [atomic] npy=BYTES");
	rc = open_payload(b, b->argv[b->argc - 1], &in, err);
	if (rc == 0)
		rc = npk_array_get(&a, b->s, b->argv[1], err);
	if (rc == 0)
		rc = npkt_replace_source(a, &in, sel, atomic, err);
	npk_array_put(a);
	npkt_input_close(&in);
	return rc;
}

/* Without rows= the array would go as a whole; the mount's ctl refuses that as well. */
static int run_drop(struct script *b, struct npk_err *err)
{
	const char *sel = value(b->argv[b->argc - 1], "rows");
	int rc = 0;

	if (!sel || strpbrk(sel, ";@"))
		return npk_fail(err, EINVAL, "say: drop ARRAY... rows=ROWS");
	for (int i = 1; i < b->argc - 1 && rc == 0; i++) {
		struct npk_array *a = NULL;

		rc = npk_array_get(&a, b->s, b->argv[i], err);
		if (rc == 0)
			rc = npk_array_drop(a, sel, NULL, err);
		npk_array_put(a);
	}
	return rc;
}

static int run_compact(struct script *b, struct npk_err *err)
{
	struct npk_array **list = NULL, *a;
	size_t n = 0;
	int rc = 0;

	if (b->argc == 2 && strcmp(b->argv[1], "all") == 0) {
		rc = npk_store_list(b->s, &list, &n, err);
		for (size_t i = 0; i < n && rc == 0; i++)
			rc = npk_array_compact(list[i], err);
		npk_store_list_free(list, n);
		return rc;
	}
	for (int i = 1; i < b->argc && rc == 0; i++) {
		a = NULL;
		rc = npk_array_get(&a, b->s, b->argv[i], err);
		if (rc == 0)
			rc = npk_array_compact(a, err);
		npk_array_put(a);
	}
	return rc;
}

static int run_clone(struct script *b, struct npk_err *err)
{
	return npk_store_clone(b->s, b->argv[1], b->argv[2], err);
}

static int run_rename(struct script *b, struct npk_err *err)
{
	return npk_store_rename(b->s, b->argv[1], b->argv[2], NPK_RENAME_NOREPLACE, err);
}

static int run_reset(struct script *b, struct npk_err *err)
{
	const char *said = value(b->argv[1], "confirm");
	char *name = npkt_base_name(b->store);
	int rc = name ? 0 : npk_fail(err, ENOMEM, "no memory");

	if (rc == 0 && (!said || strcmp(said, name) != 0))
		rc = npk_fail(err, EINVAL, "reset removes all arrays: say confirm=%.200s", name);
	free(name);
	return rc == 0 ? npk_store_reset(b->s, err) : rc;
}

static const struct verb {
	const char *name;
	int min, max; /* words behind it */
	const char *usage;
	int (*run)(struct script *b, struct npk_err *err);
} verbs[] = {
	{"save", 2, 2, "save ARRAY npy=BYTES", run_save},
	{"append", 2, 2, "append ARRAY npy=BYTES", run_append},
	{"replace", 3, 4, "replace ARRAY rows=ROWS [atomic] npy=BYTES", run_replace},
	{"drop", 2, WORDS_MAX, "drop ARRAY... rows=ROWS", run_drop},
	{"compact", 1, WORDS_MAX, "compact ARRAY...|all", run_compact},
	{"clone", 2, 2, "clone ARRAY NEW", run_clone},
	{"rename", 2, 2, "rename ARRAY NEW", run_rename},
	{"reset", 1, 1, "reset confirm=STORE", run_reset},
};

static int run_words(struct script *b, struct npk_err *err)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (strcmp(verbs[i].name, b->argv[0]) == 0) {
			if (b->argc - 1 < verbs[i].min || b->argc - 1 > verbs[i].max)
				return npk_fail(err, EINVAL, "say: %s", verbs[i].usage);
			return verbs[i].run(b, err);
		}
	return npk_fail(err, EINVAL, "there is no command '%.100s'", b->argv[0]);
}

static int run_script(struct script *b, struct npk_err *err)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = 0;

	while (rc == 0 && (n = getline(&line, &cap, b->in)) > 0) {
		b->number++;
		if (line[n - 1] == '\n')
			line[--n] = 0;
		if (strlen(line) != (size_t)n)
			rc = npk_fail(err, EINVAL, "a NUL byte");
		else if ((size_t)n > LINE_MAX_BYTES)
			rc = npk_fail(err, E2BIG, "a line of %zd bytes", n);
		if (rc == 0)
			rc = split(b, line, err);
		if (rc == 0 && b->argc > 0 && b->argv[0][0] != '#')
			rc = run_words(b, err);
		if (rc != 0)
			npk_err_context(err, rc, "line %" PRIu64, b->number);
	}
	if (rc == 0 && ferror(b->in))
		rc = npk_fail(err, errno, "standard input: %s", strerror(errno));
	free(line);
	return rc;
}

static int run(const struct npkt_args *args)
{
	struct script b = {.in = stdin, .store = args->operand[0]};
	struct npkt_change c;
	struct npk_err err;
	int status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);

	if (status != NPKT_OK)
		return status;
	b.s = c.s;
	return npkt_change_end(&c, run_script(&b, &err), &err);
}

const struct npkt_cmd npkt_batch = {
	.name = "batch",
	.operands = "STORE",
	.min = 1,
	.max = 1,
	.help = "run a script of changes from standard input, all of them or none",
	.more = "A line is one command, as in the file .numpack/ctl of a mount:\n"
		"  save ARRAY npy=BYTES           so many bytes of .npy file follow the line\n"
		"  append ARRAY npy=BYTES\n"
		"  replace ARRAY rows=ROWS [atomic] npy=BYTES\n"
		"  drop ARRAY... rows=ROWS\n"
		"  compact ARRAY...|all\n"
		"  clone ARRAY NEW\n"
		"  rename ARRAY NEW\n"
		"  reset confirm=STORE\n"
		"Words with blanks stand in double quotes; empty lines and those that begin with # do nothing.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  printf 'drop images labels rows=0:10\\nclone labels kept\\n' | npk batch digits.npk\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
