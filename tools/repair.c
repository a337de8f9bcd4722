/* repair.c - npk repair: tells what is damaged and can be mended, and with --apply mends it. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	APPLY,
	REPLAY,
	DISCARD,
	JSON
};

enum {
	SOUND = 0,
	WANTS_REPAIR = 1,
	REFUSED = 2
}; /* the exit statuses of this command, besides NPKT_BUSY */

static const struct npkt_opt opts[] = {
	[APPLY] = {"apply", NULL, 'a', "make the changes; without it they are only told"},
	[REPLAY] = {"replay", NULL, 'r', "somebody else wrote the metadata: go back to ours and carry the journal out"},
	[DISCARD] = {"discard-journal", NULL, 'x', "keep the metadata as it is, put the journal and its changes aside"},
	[JSON] = {"json", NULL, 'j', "one JSON object"},
	{0},
};

struct report {
	bool json, any;
};

static void put_json(struct report *r, const struct npk_repair_step *st)
{
	struct npk_text t = {0};

	npk_text_printf(&t, "%s{\"kind\": \"%s\", \"file\": ", r->any ? ",\n  " : "\n  ", st->left ? "left" : "change");
	npk_text_json(&t, st->file, strlen(st->file));
	npk_text_printf(&t, ", \"byte\": %" PRIu64 ", \"array\": ", st->byte);
	if (st->array)
		npk_text_json(&t, st->array, strlen(st->array));
	else
		npk_text_printf(&t, "null");
	npk_text_printf(&t, ", \"what\": ");
	npk_text_json(&t, st->what, strlen(st->what));
	if (!st->left) {
		npk_text_printf(&t, ", \"old\": ");
		npk_text_json(&t, st->old_value, strlen(st->old_value));
		npk_text_printf(&t, ", \"new\": ");
		npk_text_json(&t, st->new_value, strlen(st->new_value));
	}
	npk_text_printf(&t, "}");
	npkt_put_text(stdout, &t);
}

static void put_line(const struct npk_repair_step *st)
{
	struct npk_text t = {0};

	npk_text_printf(&t, "%s: %s: byte %" PRIu64 ": ", st->left ? "left" : "change", st->file, st->byte);
	if (st->array)
		npk_text_printf(&t, "%s: ", st->array);
	npk_text_printf(&t, "%s", st->what);
	if (!st->left)
		npk_text_printf(&t, ": %s -> %s", st->old_value, st->new_value);
	if (t.p)
		npkt_put_escaped(stdout, t.p, t.len);
	putchar('\n');
	t.len = 0;
	npkt_put_text(stdout, &t); /* tells when memory ran out */
}

static void step(void *ctx, const struct npk_repair_step *st)
{
	struct report *r = ctx;

	if (r->json)
		put_json(r, st);
	else
		put_line(st);
	r->any = true;
}

static void end(const struct report *r, const struct npk_repair *how, const struct npk_repair_result *result,
	const struct npk_err *why)
{
	struct npk_text t = {0};

	if (r->json) {
		npk_text_printf(&t,
			"],\n \"changes\": %" PRIu64 ", \"left\": %" PRIu64 ", \"applied\": %s,\n \"kept\": ",
			result->nchanges, result->nleft, how->apply && !why ? "true" : "false");
		if (result->kept[0])
			npk_text_json(&t, result->kept, strlen(result->kept));
		else
			npk_text_printf(&t, "null");
		npk_text_printf(&t, ",\n \"why\": ");
		if (why)
			npk_text_json(&t, why->msg, strlen(why->msg));
		else
			npk_text_printf(&t, "null");
		npk_text_printf(&t, "}\n");
	} else if (!why) {
		npk_text_printf(&t, "%s %" PRIu64 ", left %" PRIu64 "%s%s%s\n",
			how->apply ? "changes made" : "changes to make", result->nchanges, result->nleft,
			result->kept[0] ? "; what was there before is in " : "", result->kept,
			!how->apply && result->nchanges ? "; nothing is changed without --apply" : "");
	}
	npkt_put_text(stdout, &t);
}

/* --- NAME=DTYPE[:SHAPE] ----------------------------------------------------------------------------------------------- */

static int bad_shape(const char *word)
{
	npkt_complain("'%s': a shape is numbers with x between them, the first one may be -1", word);
	return REFUSED;
}

static int take_shape(const char *word, const char *text, struct npk_repair_array *a)
{
	char *end;

	a->has_shape = true;
	while (a->shape.ndim < NPK_MAX_NDIM) {
		if (a->shape.ndim == 0 && strncmp(text, "-1", 2) == 0) {
			a->any_rows = true;
			a->shape.dim[0] = 0;
			end = (char *)text + 2;
		} else {
			errno = 0;
			a->shape.dim[a->shape.ndim] = strtoull(text, &end, 10);
			if (errno || end == text || *text < '0' || *text > '9')
				return bad_shape(word);
		}
		a->shape.ndim++;
		if (*end == 0)
			return NPKT_OK;
		if (*end != 'x' && *end != ',')
			return bad_shape(word);
		text = end + 1;
	}
	return bad_shape(word);
}

/* The word is cut up. */
static int take_array(char *word, struct npk_repair_array *a)
{
	char *eq = strrchr(word, '='), *colon;
	struct npk_err err;
	int status;

	if (!eq) {
		npkt_complain("'%s': is no ARRAY=DTYPE or ARRAY=DTYPE:SHAPE", word);
		return REFUSED;
	}
	colon = strchr(eq, ':');
	if (colon) {
		status = take_shape(word, colon + 1, a);
		if (status != NPKT_OK)
			return status;
		*colon = 0;
	}
	*eq = 0;
	a->name = word;
	if (npk_dtype_parse(eq + 1, &a->dtype, &err) != 0) {
		npkt_complain("%s", err.msg);
		return REFUSED;
	}
	return NPKT_OK;
}

static int take_arrays(const struct npkt_args *args, struct npk_repair_array **out)
{
	size_t n = (size_t)args->noperands - 1;
	struct npk_repair_array *a = calloc(n + 1, sizeof(*a));
	int status = NPKT_OK;

	if (!a) {
		npkt_complain("no memory");
		return NPKT_FAILED;
	}
	for (size_t i = 0; i < n && status == NPKT_OK; i++)
		status = take_array(args->operand[i + 1], &a[i]);
	*out = a;
	return status;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

static void begin(const struct report *r, const char *path)
{
	struct npk_text t = {0};

	if (!r->json)
		return;
	npk_text_printf(&t, "{\"store\": ");
	npk_text_json(&t, path, strlen(path));
	npk_text_printf(&t, ",\n \"steps\": [");
	npkt_put_text(stdout, &t);
}

static int run(const struct npkt_args *args)
{
	struct report r = {.json = args->opt[JSON]};
	struct npk_repair how = {.apply = args->opt[APPLY]};
	struct npk_repair_array *array = NULL;
	struct npk_repair_result result = {0};
	struct npk_err err;
	int status, rc;

	if (args->opt[REPLAY] && args->opt[DISCARD]) {
		npkt_complain("--replay and --discard-journal are both given");
		return REFUSED;
	}
	if (args->opt[REPLAY])
		how.journal = NPK_JOURNAL_REPLAY;
	if (args->opt[DISCARD])
		how.journal = NPK_JOURNAL_DISCARD;
	status = take_arrays(args, &array);
	if (status == NPKT_OK) {
		how.array = array;
		how.narrays = (size_t)args->noperands - 1;
		begin(&r, args->operand[0]);
		rc = npk_repair(args->operand[0], &how, step, &r, &result, &err);
		end(&r, &how, &result, rc ? &err : NULL);
		if (rc != 0)
			status = npkt_failed_store(args->operand[0], &err);
		else
			status = result.nleft || (result.nchanges && !how.apply) ? WANTS_REPAIR : SOUND;
	}
	free(array);
	return npkt_flush(status);
}

const struct npkt_cmd npkt_repair = {
	.name = "repair",
	.operands = "STORE [ARRAY=DTYPE[:SHAPE]...]",
	.min = 1,
	.max = -1,
	.help = "tell what is damaged and can be mended, and mend it",
	.more = "Prints one line for each change, \"change: file: byte N: array: what: old -> new\", and one that "
		"begins with\n"
		"\"left\" for damage that stays and what it needs. Only with --apply anything changes on disk, and "
		"what is\n"
		"replaced, cut off or removed then is kept in the store's directory .numpackfs.repair-TIME. No row is "
		"made\n"
		"up, hidden by guessing or left out in silence: a data file that is too short keeps its whole rows, a "
		"lost\n"
		"deletion mark shows its row. An array that the list of arrays has lost must be described: SHAPE is "
		"numbers\n"
		"with x between them, -1 for as many rows as the file has. A store that is mounted for writing is "
		"refused.\n"
		"The exit status is 0 when the store is sound (now), 1 when there is damage, 2 when the repair was "
		"refused, 3\n"
		"when another process writes the store.\n"
		"\n"
		"Examples:\n"
		"  npk repair digits.npk\n"
		"  truncate -s 13000 digits.npk/data_labels.npkd; npk repair digits.npk || npk repair --apply "
		"digits.npk\n"
		"  rm digits.npk/metadata.npkm; npk repair -a digits.npk labels=int64:-1 images=uint8:-1x8x8 "
		"pixels=f4:-1x64\n",
	.opts = opts,
	.usage_status = REFUSED,
	.run = run,
};
