/* verify.c - npk verify: every check of the format, and what it finds. */
#include "progress.h"
#include "tool.h"

#include <inttypes.h>
#include <string.h>

enum {
	DEEP,
	JSON,
	QUIET
};

enum {
	CLEAN = 0,
	DAMAGED = 1,
	UNCHECKED = 2
}; /* the exit statuses of this command */

static const struct npkt_opt opts[] = {
	[DEEP] = {"deep", NULL, 'd',
		"read every byte of every file, check the journal, name files that belong to nothing"},
	[JSON] = {"json", NULL, 'j', "one JSON object with all findings"},
	[QUIET] = {"quiet", NULL, 'q', "print nothing, only exit"},
	{0},
};

struct report {
	bool json, quiet;
	uint64_t count[3]; /* by severity */
};

static const char *severity_name(enum npk_severity severity)
{
	switch (severity) {
	case NPK_NOTE:
		return "note";
	case NPK_WARNING:
		return "warning";
	case NPK_DAMAGE:
		return "damage";
	}
	return "damage";
}

static void put_json(const struct npk_finding *f, bool first)
{
	struct npk_text t = {0};

	npk_text_printf(
		&t, "%s{\"severity\": \"%s\", \"array\": ", first ? "\n  " : ",\n  ", severity_name(f->severity));
	if (f->array)
		npk_text_json(&t, f->array, strlen(f->array));
	else
		npk_text_printf(&t, "null");
	npk_text_printf(&t, ", \"text\": ");
	npk_text_json(&t, f->text, strlen(f->text));
	npk_text_printf(&t, "}");
	npkt_put_text(stdout, &t);
}

static void put_line(const struct npk_finding *f)
{
	printf("%s: ", severity_name(f->severity));
	if (f->array) {
		npkt_put_escaped(stdout, f->array, strlen(f->array));
		printf(": ");
	}
	npkt_put_escaped(stdout, f->text, strlen(f->text));
	putchar('\n');
}

static void found(void *ctx, const struct npk_finding *f)
{
	struct report *r = ctx;
	bool first = r->count[NPK_NOTE] + r->count[NPK_WARNING] + r->count[NPK_DAMAGE] == 0;

	r->count[f->severity]++;
	if (r->json && !r->quiet)
		put_json(f, first);
	else if (!r->quiet)
		put_line(f);
}

static void begin(const struct report *r, const char *path)
{
	struct npk_text t = {0};

	if (r->quiet || !r->json)
		return;
	npk_text_printf(&t, "{\"store\": ");
	npk_text_json(&t, path, strlen(path));
	npk_text_printf(&t, ",\n \"findings\": [");
	npkt_put_text(stdout, &t);
}

/* `why` is set when the check broke off. */
static void end(const struct report *r, uint64_t ndamage, const struct npk_err *why)
{
	struct npk_text t = {0};

	if (r->quiet)
		return;
	if (r->json) {
		npk_text_printf(&t, "],\n \"damage\": %" PRIu64 ",\n \"checked\": %s,\n \"why\": ", ndamage,
			why ? "false" : "true");
		if (why)
			npk_text_json(&t, why->msg, strlen(why->msg));
		else
			npk_text_printf(&t, "null");
		npk_text_printf(&t, "}\n");
	} else if (!why) {
		npk_text_printf(&t, "%s: damage %" PRIu64 ", warnings %" PRIu64 ", notes %" PRIu64 "\n",
			ndamage ? "damaged" : "clean", ndamage, r->count[NPK_WARNING], r->count[NPK_NOTE]);
	}
	npkt_put_text(stdout, &t);
}

static int run(const struct npkt_args *args)
{
	struct report r = {.json = args->opt[JSON], .quiet = args->opt[QUIET]};
	struct npk_verify how = {.deep = args->opt[DEEP]};
	struct npkt_progress progress;
	uint64_t ndamage = 0;
	struct npk_err err;
	int rc;

	if (args->noperands > 1) {
		how.array = (const char *const *)args->operand + 1;
		how.narrays = (size_t)args->noperands - 1;
	}
	if (how.deep) {
		npkt_progress_begin(&progress, "reading");
		how.progress = npkt_progress;
		how.ctx = &progress;
	}
	begin(&r, args->operand[0]);
	rc = npk_verify(args->operand[0], &how, found, &r, &ndamage, &err);
	if (how.deep)
		npkt_progress_end(&progress);
	end(&r, ndamage, rc ? &err : NULL);
	if (rc != 0) {
		npkt_failed_store(args->operand[0], &err);
		return npkt_flush(UNCHECKED);
	}
	return npkt_flush(ndamage ? DAMAGED : CLEAN);
}

const struct npkt_cmd npkt_verify = {
	.name = "verify",
	.operands = "STORE [ARRAY...]",
	.min = 1,
	.max = -1,
	.help = "apply every check of the format to a store",
	.more = "Prints one line for each finding, \"severity: array: text\", and whether the store is clean. Nothing "
		"on disk\n"
		"changes. With ARRAY, of the arrays only those are checked. The exit status is 0 for a clean store "
		"(notes and\n"
		"warnings do no harm), 1 when there is damage, 2 when the store could not be checked.\n"
		"\n"
		"Examples:\n"
		"  npk verify digits.npk\n"
		"  npk verify --quiet digits.npk && echo sound\n"
		"  npk verify --deep digits.npk images labels\n"
		"  npk verify --json digits.npk\n",
	.opts = opts,
	.usage_status = UNCHECKED,
	.run = run,
};
