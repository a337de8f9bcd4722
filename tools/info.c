/* info.c - npk info: what there is to know about a store and its arrays. */
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	JSON
};

static const struct npkt_opt opts[] = {
	[JSON] = {"json", NULL, 'j',
		"one JSON object: the store, its arrays, and what NumPack's get_metadata() returns"},
	{0},
};

static void put_line(const char *indent, const char *key, const char *value)
{
	if (!*value)
		return;
	printf("%s%s: ", indent, key);
	npkt_put_escaped(stdout, value, strlen(value));
	putchar('\n');
}

/* --- as text ---------------------------------------------------------------------------------------------------------- */

/* Any number may stand in the metadata; one that is no date is shown as it is. */
static void put_time(uint64_t mtime_us)
{
	time_t seconds = (time_t)(mtime_us / 1000000);
	char text[64];
	struct tm tm;

	if (gmtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) > 0)
		printf("  modified: %s.%06uZ\n", text, (unsigned)(mtime_us % 1000000));
	else
		printf("  modified: %" PRIu64 " microseconds since 1970\n", mtime_us);
}

static void put_shape(const struct npk_shape *shape)
{
	printf("  shape: (");
	for (unsigned i = 0; i < shape->ndim; i++)
		printf("%s%" PRIu64, i ? ", " : "", shape->dim[i]);
	printf("%s)\n", shape->ndim == 1 ? "," : "");
}

static void put_sizes(const struct npk_array_info *info)
{
	printf("  rows: %" PRIu64 "\n  deleted: %" PRIu64 "\n  physical rows: %" PRIu64 "\n", info->rows, info->deleted,
		info->physical_rows);
	printf("  row bytes: %" PRIu64 "\n  bytes: %" PRIu64 "\n  bytes on disk: %" PRIu64 "\n", info->row_bytes,
		info->size_bytes, info->blocks * 512);
	if (info->nsegments)
		printf("  segments: %" PRIu64 "\n", info->nsegments);
}

static void put_array(struct npk_array *a, const struct npk_array_info *info)
{
	const char *dtype = npk_dtype_name(info->dtype), *name;
	size_t len;

	name = npk_array_name(a, &len);
	printf("\narray: ");
	npkt_put_escaped(stdout, name, len);
	if (dtype)
		printf("\n  dtype: %s\n", dtype);
	else
		printf("\n  dtype: unknown code %u\n", info->dtype);
	put_shape(&info->shape);
	if (!info->damaged)
		put_sizes(info);
	put_line("  ", "data file", info->data_file);
	put_time(info->mtime_us);
	put_line("  ", "warning", info->warning);
	put_line("  ", "damaged", info->why);
}

static void put_store(const struct npk_store *s, const struct npk_store_info *info)
{
	put_line("", "store", npk_store_path(s));
	printf("arrays: %" PRIu64 "\n", info->narrays);
	put_line("", "read only", info->why);
	put_line("", "warning", info->warning);
}

/* --- as JSON ---------------------------------------------------------------------------------------------------------- */

static void add_or_null(struct npk_text *t, const char *key, const char *value)
{
	npk_text_printf(t, "\"%s\": ", key);
	if (*value)
		npk_text_json(t, value, strlen(value));
	else
		npk_text_printf(t, "null");
	npk_text_printf(t, ",\n ");
}

static int put_store_json(struct npk_store *s, const struct npk_store_info *info, struct npk_err *err)
{
	struct npk_text t = {0};
	int rc;

	npk_text_printf(&t, "{");
	add_or_null(&t, "store", npk_store_path(s));
	npk_text_printf(&t, "\"count\": %" PRIu64 ",\n \"read_only\": %s,\n ", info->narrays,
		info->read_only ? "true" : "false");
	add_or_null(&t, "why", info->why);
	add_or_null(&t, "warning", info->warning);
	npk_text_printf(&t, "\"metadata\": ");
	rc = npk_store_metadata_json(s, &t, err);
	npkt_chop(&t);
	npk_text_printf(&t, ",\n \"arrays\": [");
	npkt_put_text(stdout, &t);
	return rc;
}

static int put_array_json(struct npk_array *a, bool first, struct npk_err *err)
{
	struct npk_text t = {0};
	int rc;

	npk_text_printf(&t, first ? "\n  " : ",\n  ");
	rc = npk_array_info_json(a, &t, err);
	npkt_chop(&t);
	npkt_put_text(stdout, &t);
	return rc;
}

/* --- the command ------------------------------------------------------------------------------------------------------ */

static int tell(struct npk_array **list, size_t n, bool json)
{
	struct npk_array_info info;
	struct npk_err err;
	int status = NPKT_OK, rc;

	for (size_t i = 0; i < n; i++) {
		rc = npk_array_info(list[i], &info, &err);
		if (rc == 0 && json)
			rc = put_array_json(list[i], i == 0, &err);
		if (rc != 0)
			return npkt_failed(&err);
		if (!json)
			put_array(list[i], &info);
		if (info.damaged)
			status = NPKT_FAILED;
	}
	return status;
}

/* Complains about each name that is not there; the others stay in the list. */
static int look_up(struct npk_store *s, char **name, size_t names, struct npk_array **list, size_t *n)
{
	int status = NPKT_OK;
	struct npk_err err;

	for (size_t i = 0; i < names; i++) {
		if (npk_array_get(&list[*n], s, name[i], &err) == 0)
			++*n;
		else
			status = npkt_failed(&err);
	}
	return status;
}

static int tell_all(struct npk_store *s, struct npk_array **list, size_t n, bool json)
{
	struct npk_store_info info;
	struct npk_err err;
	int status;

	npk_store_info(s, &info);
	if (!json)
		put_store(s, &info);
	else if (put_store_json(s, &info, &err) != 0)
		return npkt_failed(&err);
	status = tell(list, n, json);
	if (json)
		printf("%s]}\n", n ? "\n " : "");
	return status;
}

static int info_all(struct npk_store *s, bool json)
{
	struct npk_array **list = NULL;
	struct npk_err err;
	size_t n = 0;
	int status, checked;

	if (npk_store_list(s, &list, &n, &err) != 0)
		return npkt_failed(&err);
	status = tell_all(s, list, n, json);
	checked = npkt_check_list(s);
	npk_store_list_free(list, n);
	return status ? status : checked;
}

static int info_some(struct npk_store *s, char **name, size_t names, bool json)
{
	struct npk_array **list = calloc(names, sizeof(struct npk_array *));
	int missing, status;
	size_t n = 0;

	if (!list) {
		npkt_complain("no memory");
		return NPKT_FAILED;
	}
	missing = look_up(s, name, names, list, &n);
	status = tell_all(s, list, n, json);
	for (size_t i = 0; i < n; i++)
		npk_array_put(list[i]);
	free(list);
	return status ? status : missing;
}

static int run(const struct npkt_args *args)
{
	struct npk_store *s = npkt_open(args->operand[0]);
	bool json = args->opt[JSON];
	int status;

	if (!s)
		return NPKT_FAILED;
	if (args->noperands > 1)
		status = info_some(s, args->operand + 1, (size_t)args->noperands - 1, json);
	else
		status = info_all(s, json);
	npk_store_close(s);
	return npkt_flush(status);
}

const struct npkt_cmd npkt_info = {
	.name = "info",
	.operands = "STORE [ARRAY...]",
	.min = 1,
	.max = -1,
	.help = "tell about a store and its arrays",
	.more = "Without ARRAY all arrays are told about. Rows count without the deleted ones, physical rows with "
		"them. Control\n"
		"characters in names are shown as \\xNN.\n"
		"\n"
		"Examples:\n"
		"  npk info digits.npk\n"
		"  npk info digits.npk images labels\n"
		"  npk info --json digits.npk images\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
