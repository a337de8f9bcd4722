/* cat.c - npk cat: rows on standard output, as lines of text or as .npy streams. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	ROWS,
	SEL,
	FORMAT,
	BATCH
};

static const struct npkt_opt opts[] = {
	[ROWS] = {"rows", "SEL", 'r', "only these rows"},
	[SEL] = {"sel", "SEL", 's', "only this selection, one part for each axis"},
	[FORMAT] = {"format", "FORMAT", 'f', "csv (the default), text (blanks instead of commas) or npy"},
	[BATCH] = {"batch", "N", 'b', "one .npy stream for every N rows, one behind the other"},
	{0},
};

/* --- .npy streams ----------------------------------------------------------------------------------------------------- */

/* `batch` 0: everything in one stream. */
static int write_streams(struct npkt_out *out, struct npk_view *v, uint64_t batch, struct npk_err *err)
{
	uint64_t rows = npk_view_info(v)->rows, n;
	int rc = 0;

	if (batch == 0)
		return npkt_out_npy(out, v, 0, rows, NULL, err);
	for (uint64_t first = 0; first < rows && rc == 0; first += n) {
		n = rows - first < batch ? rows - first : batch;
		rc = npkt_out_npy(out, v, first, n, NULL, err);
	}
	return rc;
}

/* --- the command ------------------------------------------------------------------------------------------------------ */

struct wish {
	const char *sel;
	bool npy;
	char separator;
	uint64_t batch;
};

static int take_format(struct wish *w, const char *format)
{
	w->npy = strcmp(format, "npy") == 0;
	w->separator = strcmp(format, "text") == 0 ? ' ' : ',';
	if (w->npy || w->separator == ' ' || strcmp(format, "csv") == 0)
		return NPKT_OK;
	npkt_complain("--format '%s' is none of csv, text, npy", format);
	return NPKT_USAGE;
}

static int take_batch(struct wish *w, const char *batch)
{
	char *end;

	errno = 0;
	w->batch = strtoull(batch, &end, 10);
	if (errno == 0 && *batch >= '0' && *batch <= '9' && *end == 0 && w->batch > 0)
		return NPKT_OK;
	npkt_complain("--batch '%s' is not a number of rows from 1 on", batch);
	return NPKT_USAGE;
}

static int take_wish(struct wish *w, const struct npkt_args *args)
{
	const char *batch = args->opt[BATCH], *format = args->opt[FORMAT] ? args->opt[FORMAT] : batch ? "npy" : "csv";
	int status = npkt_check_rows(args->opt[ROWS], args->opt[SEL]);

	*w = (struct wish){.sel = args->opt[SEL] ? args->opt[SEL] : args->opt[ROWS]};
	if (status == NPKT_OK)
		status = take_format(w, format);
	if (status == NPKT_OK && batch)
		status = take_batch(w, batch);
	if (status == NPKT_OK && batch && !w->npy) {
		npkt_complain("--batch makes .npy streams, --format %s has none", format);
		status = NPKT_USAGE;
	}
	return status;
}

static int write_view(struct npk_view *v, const struct wish *w, struct npk_err *err)
{
	struct npkt_out out = {0};
	int rc = npkt_out_open(&out, "-", w->npy, err);

	if (rc == 0)
		rc = w->npy ? write_streams(&out, v, w->batch, err) : npkt_out_csv(&out, v, w->separator, NULL, err);
	npkt_out_fini(&out);
	return rc;
}

static int run(const struct npkt_args *args)
{
	struct npk_store *s;
	struct npk_gen *g = NULL;
	struct npk_view *v = NULL;
	struct npk_err err;
	struct wish w;
	int rc = take_wish(&w, args);

	if (rc != NPKT_OK)
		return rc;
	s = npkt_open(args->operand[0]);
	if (!s)
		return NPKT_FAILED;
	rc = npkt_gen(&g, s, args->operand[1], &err);
	if (rc == 0)
		rc = npk_view_open(&v, g, w.sel, &err);
	if (rc == 0)
		rc = write_view(v, &w, &err);
	npk_view_close(v);
	npk_gen_put(g);
	npk_store_close(s);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

const struct npkt_cmd npkt_cat = {
	.name = "cat",
	.operands = "STORE ARRAY",
	.min = 2,
	.max = 2,
	.help = "print rows as text, or stream them as .npy",
	.more = NPKT_ABOUT_SEL
	"csv and text print one line a row, with numbers that read back to the same value, complex as 1+2j, bool as 0 "
	"and\n"
	"1; rows of more than one dimension are printed flat. With --batch the output is a row of .npy streams: each\n"
	"np.load() of the same pipe reads the next one.\n"
	"\n"
	"Examples:\n"
	"  npk cat digits.npk labels --rows 0:10\n"
	"  npk cat digits.npk pixels --rows=-1 --format text\n"
	"  npk cat digits.npk pixels --sel '0:3;0:8'\n"
	"  npk cat digits.npk images --batch 100 | wc -c\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
