/* import.c - npk import: arrays of files in other formats. */
#include "formats.h"
#include "progress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	FORMAT,
	DTYPE,
	ROW,
	DELIMITER,
	COMMENT,
	SKIP,
	NAME,
	WAIT
};

static const struct npkt_opt opts[] = {
	[FORMAT] = {"format", "FORMAT", 'f', "what FILE is; by default its name tells"},
	[DTYPE] = {"dtype", "DTYPE", 't', "of raw elements, or of CSV: float32, <f4 and the like"},
	[ROW] = {"row-shape", "NxM", 's', "the shape of a row of raw elements or CSV; scalar: 1-d arrays"},
	[DELIMITER] = {"delimiter", "CHAR", 'd', "between the numbers of CSV; tab and blank are words for them"},
	[COMMENT] = {"comment", "CHAR", 'c', "where a comment begins in CSV; # by default, none for none"},
	[SKIP] = {"skip", "N", 'k', "lines at the beginning of CSV that are not looked at, such as a title"},
	[NAME] = {"name", "ARRAY", 'n', "the array's name, for formats without names; by default the file's"},
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

struct wish {
	struct npk_source_how how;
	struct npk_shape row;
	const struct npkt_format *format;
	char *name; /* for formats without names */
	char **only;
	int nonly;
	bool *seen; /* of `only` */
};

/* --- the command line ------------------------------------------------------------------------------------------------- */

static int take_row(struct wish *w, const char *text)
{
	const char *p = text;
	char *end;

	w->how.row = &w->row;
	if (strcmp(text, "scalar") == 0)
		return NPKT_OK;
	for (;; p = end + 1) {
		errno = 0;
		if (*p < '0' || *p > '9' || w->row.ndim == NPK_MAX_NDIM - 1)
			break;
		w->row.dim[w->row.ndim++] = strtoull(p, &end, 10);
		if (errno != 0 || (*end != 'x' && *end != 0))
			break;
		if (*end == 0)
			return NPKT_OK;
	}
	npkt_complain("--row-shape '%s' is neither numbers with x between them nor scalar", text);
	return NPKT_USAGE;
}

static int take_char(const char *option, const char *text, char *out)
{
	if (strcmp(text, "tab") == 0)
		*out = '\t';
	else if (strcmp(text, "blank") == 0)
		*out = ' ';
	else if (strlen(text) == 1 && *text != '\n' && *text != '"' && !strchr("0123456789+-.eE", *text))
		*out = *text;
	else {
		npkt_complain("--%s '%s' is not one character that no number has", option, text);
		return NPKT_USAGE;
	}
	return NPKT_OK;
}

static int take_skip(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno == 0 && *text >= '0' && *text <= '9' && *end == 0)
		return NPKT_OK;
	npkt_complain("--skip '%s' is not a number of lines", text);
	return NPKT_USAGE;
}

static int take_dtype(struct wish *w, const char *text)
{
	struct npk_err err;
	unsigned dtype;

	if (npk_dtype_parse(text, &dtype, &err) != 0) {
		npkt_complain("%s", err.msg);
		return NPKT_USAGE;
	}
	w->how.dtype = (int)dtype;
	return NPKT_OK;
}

/* An option that says nothing about this format is a mistake. */
static int check_options(const struct wish *w, const struct npkt_args *args)
{
	static const struct {
		int opt;
		unsigned flag;
	} wanted[] = {{DTYPE, NPKT_HAS_DTYPE}, {ROW, NPKT_HAS_DTYPE}, {DELIMITER, NPKT_HAS_LINES},
		{COMMENT, NPKT_HAS_LINES}, {SKIP, NPKT_HAS_LINES}, {NAME, NPKT_HAS_ONE}};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		if (args->opt[wanted[i].opt] && !(w->format->flags & wanted[i].flag)) {
			npkt_complain("--%s says nothing about %s", opts[wanted[i].opt].name, w->format->name);
			return NPKT_USAGE;
		}
	if (w->format->format == NPK_FORMAT_RAW && w->how.dtype < 0) {
		npkt_complain("raw elements need --dtype");
		return NPKT_USAGE;
	}
	if (w->nonly > 0 && (w->format->flags & NPKT_HAS_ONE)) {
		npkt_complain("%s has no names to choose from; --name names the array", w->format->name);
		return NPKT_USAGE;
	}
	return NPKT_OK;
}

static int take_wish(struct wish *w, const struct npkt_args *args)
{
	int status = NPKT_OK;

	*w = (struct wish){
		.how = {.dtype = -1, .comment = '#'}, .only = args->operand + 2, .nonly = args->noperands - 2};
	w->format = npkt_format(args->opt[FORMAT], args->operand[1]);
	if (!w->format)
		return NPKT_USAGE;
	w->how.format = w->format->format;
	if (args->opt[DTYPE])
		status = take_dtype(w, args->opt[DTYPE]);
	if (status == NPKT_OK && args->opt[ROW])
		status = take_row(w, args->opt[ROW]);
	if (status == NPKT_OK && args->opt[DELIMITER])
		status = take_char("delimiter", args->opt[DELIMITER], &w->how.delimiter);
	if (status == NPKT_OK && args->opt[COMMENT] && strcmp(args->opt[COMMENT], "none") == 0)
		w->how.comment = 0;
	else if (status == NPKT_OK && args->opt[COMMENT])
		status = take_char("comment", args->opt[COMMENT], &w->how.comment);
	if (status == NPKT_OK && args->opt[SKIP])
		status = take_skip(args->opt[SKIP], &w->how.skip);
	return status == NPKT_OK ? check_options(w, args) : status;
}

/* --- the work --------------------------------------------------------------------------------------------------------- */

/* Whether the array is among those that were asked for. */
static bool is_wanted(struct wish *w, const char *name)
{
	bool wanted = w->nonly == 0;

	for (int i = 0; i < w->nonly; i++)
		if (strcmp(w->only[i], name) == 0)
			wanted = w->seen[i] = true;
	return wanted;
}

static int check_seen(const struct wish *w, struct npk_err *err)
{
	for (int i = 0; i < w->nonly; i++)
		if (!w->seen[i])
			return npk_fail(err, ENOENT, "%.200s: no array '%.200s'", w->how.file, w->only[i]);
	return 0;
}

static int import_all(struct npk_store *s, struct wish *w, const char *file, struct npk_err *err)
{
	struct npkt_progress progress;
	struct npkt_input in = {0};
	struct npk_source_array a;
	bool any = false;
	int rc = npkt_input_open(&in, file, &w->how, err), more = 1;

	npkt_progress_show(&progress, "importing");
	while (rc == 0 && (more = npk_source_next(in.src, &a, err)) == 1) {
		const char *name = a.name ? a.name : w->name;

		any = true;
		if (is_wanted(w, name))
			rc = npkt_save_input(s, name, &in, &a, &progress, err);
		if (rc == 0 && !a.name)
			rc = npkt_input_no_more(&in, err);
	}
	if (rc == 0)
		rc = more;
	if (rc == 0 && !any && (w->format->flags & NPKT_HAS_ONE))
		rc = npk_fail(err, EINVAL, "%.200s: is empty", w->how.file);
	if (rc == 0)
		rc = check_seen(w, err);
	if (rc == 0 && in.bytes > 0)
		npkt_progress(&progress, in.bytes, in.bytes);
	npkt_progress_end(&progress);
	npkt_input_close(&in);
	return rc;
}

static int take_name(struct wish *w, const char *name, const char *file, struct npk_err *err)
{
	char *dot;
	int rc;

	if (!(w->format->flags & NPKT_HAS_ONE))
		return 0;
	if (name) {
		w->name = strdup(name);
		return w->name ? 0 : npk_fail(err, ENOMEM, "no memory");
	}
	rc = npkt_take_word(file, "", &w->name, &file, err);
	dot = rc == 0 ? strrchr(w->name, '.') : NULL;
	if (dot && dot > w->name)
		*dot = 0;
	return rc;
}

static int import_file(struct wish *w, const struct npkt_args *args)
{
	struct npkt_change c;
	struct npk_err err;
	int rc, status;

	if (strcmp(args->operand[1], "-") == 0 && (w->format->flags & NPKT_HAS_ONE) && !args->opt[NAME]) {
		npkt_complain("standard input has no name: say --name");
		return NPKT_USAGE;
	}
	status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, args->opt[WAIT]);
	if (status != NPKT_OK)
		return status;
	w->seen = calloc((size_t)w->nonly + 1, sizeof(*w->seen));
	rc = w->seen ? take_name(w, args->opt[NAME], args->operand[1], &err) : npk_fail(&err, ENOMEM, "no memory");
	if (rc == 0)
		rc = import_all(c.s, w, args->operand[1], &err);
	free(w->seen);
	free(w->name);
	return npkt_change_end(&c, rc, &err);
}

static int run(const struct npkt_args *args)
{
	struct wish w;
	int status = take_wish(&w, args);

	if (status != NPKT_OK)
		return status;
	if (w.format->flags & NPKT_BY_PYTHON)
		return npkt_by_python("import", w.format, args->operand[0], args->operand[1], w.only, w.nonly);
	return import_file(&w, args);
}

const struct npkt_cmd npkt_import = {
	.name = "import",
	.operands = "STORE FILE [ARRAY...]",
	.min = 2,
	.max = -1,
	.help = "save the arrays of a file in another format",
	.more = "FILE is - for standard input, or a file in one of the formats\n" NPKT_ABOUT_FORMATS
		"Of a file with several arrays all are saved, or those that are named; either all or, after an error, "
		"none.\n"
		"CSV gets one row from each line; without --dtype it is int64, float64 or complex128, whatever its "
		"first MiB\n"
		"needs, and a line of one number makes a 1-d array. Memory is bounded, whatever the size of FILE.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk cat digits.npk pixels > p.csv && npk import digits.npk p.csv --dtype float32\n"
		"  npk get digits.npk labels | npk import digits.npk - --format npy --name copy\n"
		"  printf 'x;y\\n1;2.5\\n' | npk import digits.npk - -f csv -n points --skip 1 --delimiter ';'\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
