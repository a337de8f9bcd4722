/* facts.c - single facts about an array, as one line of a control file and as an extended attribute. */
#include "fs.h"
#include "layout.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define XATTR_PREFIX "user.numpack."

static void fact_shape(const struct npk_array_info *info, struct npk_text *out)
{
	for (unsigned i = 0; i < info->shape.ndim; i++)
		npk_text_printf(out, "%s%" PRIu64, i ? " " : "", info->shape.dim[i]);
}

static void fact_dtype(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%s", npk_dtype_descr(info->dtype));
}

static void fact_rows(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%" PRIu64, info->rows);
}

static void fact_deleted(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%" PRIu64, info->deleted);
}

static void fact_physical_rows(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%" PRIu64, info->physical_rows);
}

static void fact_mtime(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%" PRIu64, info->mtime_us);
}

static void fact_generation(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%" PRIu64, info->generation);
}

static void fact_data_file(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%s", info->data_file);
}

static void fact_state(const struct npk_array_info *info, struct npk_text *out)
{
	npk_text_printf(out, "%s", info->damaged ? "damaged" : "complete");
}

static const struct fact {
	const char *name;
	bool of_damaged; /* known also when the array is damaged */
	void (*print)(const struct npk_array_info *info, struct npk_text *out);
} facts[] = {
	{"shape", false, fact_shape},
	{"dtype", false, fact_dtype},
	{"rows", false, fact_rows},
	{"deleted", false, fact_deleted},
	{"physical_rows", false, fact_physical_rows},
	{"mtime", true, fact_mtime},
	{"mtime_us", true, fact_mtime},
	{"generation", false, fact_generation},
	{"data_file", true, fact_data_file},
	{"state", true, fact_state},
};

int npkfs_fact(const char *name, const struct npk_array_info *info, struct npk_text *out, struct npk_err *err)
{
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		if (strcmp(facts[i].name, name) != 0)
			continue;
		if (info->damaged && !facts[i].of_damaged)
			return npk_fail(err, info->code, "%s", info->why);
		facts[i].print(info, out);
		return 0;
	}
	return -ENODATA;
}

/* What the array is now, but for the layout, which is that of the node's generation. */
static int info_of(
	struct npkfs_session *s, const struct npkfs_node *node, struct npk_array_info *info, struct npk_err *err)
{
	const struct npk_gen_info *g;
	struct npkfs_layout *l;
	struct npk_array *a;
	int rc = npkfs_node_array(s, node, &a, err);

	if (rc != 0)
		return rc;
	rc = npk_array_info(a, info, err);
	npk_array_put(a);
	l = rc == 0 ? npkfs_node_layout((struct npkfs_node *)node) : NULL;
	if (l != NULL) {
		g = npk_gen_info(l->gen);
		info->damaged = false;
		info->dtype = g->dtype;
		info->shape = g->shape;
		info->rows = g->rows;
		info->physical_rows = g->slots;
		info->deleted = g->slots - g->rows;
		info->mtime_us = g->mtime_us;
		info->generation = g->number;
	}
	npkfs_layout_put(l);
	return rc;
}

int npkfs_xattr(
	struct npkfs_session *s, struct npkfs_node *node, const char *name, struct npk_text *out, struct npk_err *err)
{
	struct npk_array_info info;
	struct npkfs_staged *st;
	int rc;

	if (strncmp(name, "user.", 5) != 0) /* not ENODATA: then ls would ask for the ACL of every file */
		return -EOPNOTSUPP;
	if (node->type != &npkfs_array_type || strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) != 0)
		return -ENODATA;
	name += strlen(XATTR_PREFIX);
	if (strcmp(name, "mtime") == 0) /* a file; the attribute's name says the unit */
		return -ENODATA;
	st = npkfs_node_staged(node);
	npkfs_staged_put(st);
	if (st != NULL && (node->number & NPKFS_STAGED_NUMBER) != 0) {
		if (strcmp(name, "state") != 0)
			return -ENODATA;
		npk_text_printf(out, "incomplete");
		return 0;
	}
	rc = info_of(s, node, &info, err);
	if (rc == 0)
		rc = npkfs_fact(name, &info, out, err);
	return rc == 0 && out->bad ? npk_fail(err, ENOMEM, "no memory for an attribute") : rc;
}
