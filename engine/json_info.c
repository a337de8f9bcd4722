/* json_info.c - what there is to tell about a store and an array, as JSON for programs. */
#include "numpack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void add_string(struct npk_text *t, const char *key, const char *value)
{
	npk_text_printf(t, "\"%s\": ", key);
	npk_text_json(t, value, strlen(value));
}

static void add_shape(struct npk_text *t, const struct npk_shape *shape, uint64_t dim0)
{
	npk_text_printf(t, "[");
	for (unsigned i = 0; i < shape->ndim; i++)
		npk_text_printf(t, "%s%" PRIu64, i ? ", " : "", i ? shape->dim[i] : dim0);
	npk_text_printf(t, "]");
}

int npk_array_info_json(struct npk_array *a, struct npk_text *out, struct npk_err *err)
{
	struct npk_array_info i;
	const char *name;
	size_t len;
	int rc = npk_array_info(a, &i, err);

	if (rc != 0)
		return rc;
	name = npk_array_name(a, &len);
	npk_text_printf(out, "{\"name\": ");
	npk_text_json(out, name, len);
	if (npk_dtype_name(i.dtype))
		npk_text_printf(out, ", \"dtype\": \"%s\", \"descr\": \"%s\"", npk_dtype_name(i.dtype),
			npk_dtype_descr(i.dtype));
	npk_text_printf(out, ", \"shape\": ");
	add_shape(out, &i.shape, i.shape.dim[0]);
	if (!i.damaged)
		npk_text_printf(out,
			", \"rows\": %" PRIu64 ", \"physical_rows\": %" PRIu64 ", \"deleted\": %" PRIu64
			", \"row_bytes\": %" PRIu64 ", \"size_bytes\": %" PRIu64 ", \"disk_bytes\": %" PRIu64
			", \"generation\": %" PRIu64 ", \"segments\": %" PRIu64,
			i.rows, i.physical_rows, i.deleted, i.row_bytes, i.size_bytes, i.blocks * 512, i.generation,
			i.nsegments);
	npk_text_printf(out, ", \"mtime_us\": %" PRIu64 ", ", i.mtime_us);
	add_string(out, "data_file", i.data_file);
	npk_text_printf(out, ", \"state\": \"%s\"", i.damaged ? "damaged" : "ok");
	if (i.damaged) {
		npk_text_printf(out, ", \"errno\": \"%s\", ",
			i.code == ENOTSUP   ? "EOPNOTSUPP"
			: i.code == EUCLEAN ? "EUCLEAN"
					    : "EIO");
		add_string(out, "reason", i.why);
	}
	if (i.warning[0]) {
		npk_text_printf(out, ", ");
		add_string(out, "warning", i.warning);
	}
	npk_text_printf(out, "}\n");
	return out->bad ? npk_fail(err, ENOMEM, "no memory") : 0;
}

static int add_metadata(struct npk_array *a, struct npk_text *out, struct npk_err *err)
{
	struct npk_array_info i;
	const char *name;
	size_t len;
	int rc = npk_array_info(a, &i, err);

	if (rc != 0)
		return rc;
	name = npk_array_name(a, &len);
	npk_text_json(out, name, len);
	npk_text_printf(out, ": {\"shape\": ");
	add_shape(out, &i.shape, i.physical_rows);
	npk_text_printf(out, ", ");
	add_string(out, "data_file", i.data_file);
	npk_text_printf(out, ", \"last_modified\": %" PRIu64, i.mtime_us);
	if (!i.damaged)
		npk_text_printf(out, ", \"size_bytes\": %" PRIu64, i.physical_rows * i.row_bytes);
	if (npk_dtype_title(i.dtype))
		npk_text_printf(out, ", \"dtype\": \"%s\"", npk_dtype_title(i.dtype));
	npk_text_printf(out, "}");
	return 0;
}

/* An array that goes away meanwhile is left out. */
int npk_store_metadata_json(struct npk_store *s, struct npk_text *out, struct npk_err *err)
{
	struct npk_array **list;
	uint64_t told = 0;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	npk_text_printf(out, "{\"arrays\": {");
	for (size_t i = 0; i < n && rc == 0; i++) {
		size_t before = out->len;

		npk_text_add(out, ", ", told ? 2 : 0);
		rc = add_metadata(list[i], out, err);
		if (rc == 0)
			told++;
		else if (!out->bad)
			out->p[out->len = before] = 0;
		if (rc == -ENOENT)
			rc = 0;
	}
	npk_store_list_free(list, n);
	npk_text_printf(out, "}, ");
	add_string(out, "base_dir", npk_store_path(s));
	npk_text_printf(out, ", \"total_arrays\": %" PRIu64 "}\n", told);
	return rc == 0 && out->bad ? npk_fail(err, ENOMEM, "no memory") : rc;
}
