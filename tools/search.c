/* search.c - npk search: the rows of an array that are nearest to a query. */
#include "progress.h"
#include "query.h"

enum {
	TOP,
	METRIC,
	ROW,
	FROM,
	ROWS,
	THREADS,
	JSON,
	NPY,
	OUTPUT
};

static const struct npkt_opt opts[] = {
	[TOP] = {"top", "N", 'k', "how many hits for each query; 10 by default"},
	[METRIC] = NPKT_METRIC_OPT,
	[ROW] = NPKT_ROW_OPT,
	[FROM] = NPKT_FROM_OPT,
	[ROWS] = {"rows", "SEL", 'r', "search only these rows"},
	[THREADS] = {"threads", "N", 't', "how many threads work; as many as there are CPUs by default"},
	[JSON] = {"json", NULL, 'j', "as a JSON object"},
	[NPY] = {"npy", NULL, 'n', "as a .npy file of records (index <u8, score <f8)"},
	[OUTPUT] = {"output", "FILE", 'o', "where the hits go; - is standard output, as without this option"},
	{0},
};

static int write_hits(
	const char *path, const struct npk_hits *h, enum npk_metric metric, enum npkt_form form, struct npk_err *err)
{
	struct npkt_out out = {0};
	int rc = npkt_out_open(&out, path, form == NPKT_NPY, err);

	if (rc == 0)
		rc = npkt_out_hits(&out, h, metric, form, err);
	if (rc == 0)
		rc = npkt_out_commit(&out, err);
	npkt_out_fini(&out);
	return rc;
}

static int search(const struct npkt_args *args, struct npk_store *s, struct npk_search *how, enum npkt_form form,
	struct npk_err *err)
{
	struct npkt_progress progress;
	struct npkt_vectors v = {0};
	struct npk_gen *g = NULL;
	struct npk_hits h = {0};
	int rc = npkt_gen(&g, s, args->operand[1], err);

	if (rc == 0)
		rc = npkt_vectors_open(&v, s, g, args->opt[ROW], args->opt[FROM], args->operand[2], err);
	how->progress = npkt_progress;
	how->ctx = &progress;
	npkt_progress_begin(&progress, "search");
	if (rc == 0)
		rc = npk_search(g, &v.q, how, &h, err);
	if (rc == 0)
		rc = write_hits(args->opt[OUTPUT] ? args->opt[OUTPUT] : "-", &h, how->metric, form, err);
	npkt_progress_end(&progress);
	how->ctx = NULL;
	npk_hits_fini(&h);
	npkt_vectors_close(&v);
	npk_gen_put(g);
	return rc;
}

static int run(const struct npkt_args *args)
{
	struct npk_search how = {.k = 10, .rows = args->opt[ROWS]};
	uint64_t threads = 0;
	enum npkt_form form;
	struct npk_store *s;
	struct npk_err err;
	int rc;

	if (npkt_check_query(args->opt[ROW], args->opt[FROM], args->noperands - 2) != NPKT_OK ||
		npkt_check_rows(how.rows, NULL) != NPKT_OK || npkt_count("--top", args->opt[TOP], &how.k) != NPKT_OK ||
		npkt_count("--threads", args->opt[THREADS], &threads) != NPKT_OK ||
		npkt_form(args->opt[JSON], args->opt[NPY], &form) != NPKT_OK)
		return NPKT_USAGE;
	if (npk_metric_parse(args->opt[METRIC] ? args->opt[METRIC] : "cosine", &how.metric, &err) != 0) {
		npkt_failed(&err);
		return NPKT_USAGE;
	}
	how.threads = threads < 64 ? (unsigned)threads : 64;
	s = npkt_open(args->operand[0]);
	if (!s)
		return NPKT_FAILED;
	rc = search(args, s, &how, form, &err);
	npk_store_close(s);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

const struct npkt_cmd npkt_search = {
	.name = "search",
	.operands = "STORE ARRAY [FILE]",
	.min = 2,
	.max = 3,
	.help = "print the rows of an array that are nearest to a query",
	.more = NPKT_ABOUT_QUERY NPKT_ABOUT_METRIC
	"Prints \"ROW SCORE\" for each hit, best first; with several queries \"QUERY ROW SCORE\". Every row is looked "
	"at, and\n"
	"deleted ones are never found. A long run tells on a terminal how far it is. --rows takes a selection as npk "
	"get "
	"does;\n"
	"npk merge puts the hits of several ranges of rows together.\n"
	"\n"
	"Examples:\n"
	"  npk search digits.npk pixels --row 17 --top 5\n"
	"  npk search digits.npk pixels --from 'pixels[0:3]' -m l2 --json\n"
	"  npk get digits.npk pixels --rows 3 | npk search digits.npk pixels -m l2 --rows 100:200 -\n"
	"  npk search digits.npk images --row -1 -m l2sq --npy -o hits.npy\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
