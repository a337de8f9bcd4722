/* view.c - view/<selection>.npy and batches/<n>/<i>.npy: selections of one generation as files of their own.
 *
 * The same selection of the same generation is the same node while anybody refers to it. A node lives on with its
 * generation; a lookup after a change of the array gives another one. A mask is another array, so a node with a mask is
 * found again only while nothing in the store changed. */
#include "changed.h"
#include "file.h"
#include "names.h"
#include "npyfile.h"
#include "view_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct npkfs_type batch_dir_type;

/* The node of `sel` in generation g of the array called as `dir` is. */
static int view_node(struct npkfs_session *s, const struct npkfs_node *dir, struct npk_gen *g, const char *sel,
	struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_view_type,
		.space = dir->space,
		.name = dir->name,
		.name_len = dir->name_len,
		.sel = sel};
	const struct npk_view_info *info;
	struct npkfs_node *node;
	int rc;

	key.number = npk_gen_info(g)->number;
	/* A mask's array may change; rows appended do not change the generation's number, nor does the copy that a
	 * transaction makes of an array before it writes to it. */
	if (strstr(sel, "mask") != NULL)
		key.detail = (1ull << 62) + atomic_load(&s->epoch);
	else
		key.detail = dir->space != NULL ? npk_gen_info(g)->moment : npk_gen_info(g)->slots;
	*out = npkfs_node_by_key(&s->inodes, &key);
	if (*out != NULL)
		return 0;
	rc = npkfs_node_new(&node, &key, err);
	if (rc != 0)
		return rc;
	node->gen = npk_gen_ref(g);
	rc = npkfs_node_view(node, sel, err);
	if (rc != 0) {
		npkfs_node_discard(node);
		return npkfs_refresh_if_stale(s, rc);
	}
	info = npk_view_info(atomic_load(&node->view));
	node->bytes = info->bytes;
	node->header_len = npkfs_npy_header_len(s, info->dtype, &info->shape);
	*out = npkfs_node_publish(&s->inodes, node);
	return 0;
}

static int current_gen(struct npkfs_session *s, const struct npkfs_node *dir, struct npk_gen **out, struct npk_err *err)
{
	struct npk_array *a;
	int rc = npkfs_node_array(s, dir, &a, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(out, a, err);
	npk_array_put(a);
	return rc;
}

/* --- view/ ---------------------------------------------------------------------------------------------------------- */

/* What does not parse is not there; the message, kept in last_error, says why. */
static int lookup_view(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	char sel[NPKFS_COMPONENT_MAX + 1];
	struct npkfs_key key = {
		.type = &npkfs_view_type, .space = dir->space, .name = dir->name, .name_len = dir->name_len};
	struct npk_gen *g;
	size_t len;
	int rc;

	if (!npkfs_name_strip(name, ".npy", &len))
		return -ENOENT;
	if (len > NPKFS_COMPONENT_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || !npkfs_percent_decode(sel, name, len))
		return npk_fail(err, ENOENT, "%s: not a selection", len == 0 ? "an empty name" : name);
	rc = current_gen(s, dir, &g, err);
	if (rc != 0)
		return rc;
	key.number = npk_gen_info(g)->number;
	key.sel = sel;
	*out = npkfs_view_private(s, &key, who);
	if (*out == NULL)
		rc = view_node(s, dir, g, sel, out, err);
	npk_gen_put(g);
	return rc == -EINVAL ? -ENOENT : rc;
}

/* The rows that the name selects are dropped. Columns cannot be. */
static int unlink_view(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npk_err *err)
{
	char sel[NPKFS_COMPONENT_MAX + 1];
	struct npk_array *a;
	size_t len;
	int rc;

	(void)who;
	if (!npkfs_name_strip(name, ".npy", &len) || len == 0 || len > NPKFS_COMPONENT_MAX ||
		!npkfs_percent_decode(sel, name, len))
		return -ENOENT;
	if (strpbrk(sel, ";@") != NULL)
		return npk_fail(err, EOPNOTSUPP, "columns cannot be dropped");
	rc = npkfs_node_array(s, dir, &a, err);
	if (rc != 0)
		return rc;
	rc = npk_array_drop(a, sel, NULL, err);
	npk_array_put(a);
	if (rc != 0)
		return rc;
	npkfs_announce(s, dir->space, dir->name, dir->name_len, NPK_CHANGED);
	return npkfs_sync_change(s, err);
}

static void path_view_dir(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/view", out);
}

const struct npkfs_type npkfs_view_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_view_dir,
	.stat = npkfs_stat_dir,
	.lookup = lookup_view,
	.unlink = unlink_view,
};

static int open_view(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(atomic_load(&node->view));
	bool writing = (o->flags & O_ACCMODE) != O_RDONLY || (o->flags & O_TRUNC);
	int rc = s->rw ? 0 : npkfs_refuse_writing(o->flags, err);

	if (rc == 0 && writing)
		return npkfs_view_open_write(s, node, o, out, err);
	if (rc == 0)
		rc = npk_gen_map(node->gen, err);
	if (rc != 0)
		return npkfs_refresh_if_stale(s, rc);
	o->keep_cache = true;
	return npkfs_npy_open(s, node, info->dtype, &info->shape, &npkfs_view_handle_ops, out, err);
}

static void path_view(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/view/", out);
	npk_text_printf(out, "%s.npy", node->sel);
}

const struct npkfs_type npkfs_view_type = {
	.kind = S_IFREG,
	.attr_ttl = true,
	.path = path_view,
	.stat = npkfs_stat_gen,
	.open = open_view,
};

/* --- batches/ -------------------------------------------------------------------------------------------------------- */

/* A number as printf writes it: no sign, no leading zero, no overflow. */
static bool plain_number(const char *text, size_t len, uint64_t *out)
{
	uint64_t n = 0;

	if (len == 0 || len > 18 || (text[0] == '0' && len > 1))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n * 10 + (uint64_t)(text[i] - '0');
	}
	*out = n;
	return true;
}

/* batches/<n>: bound to the generation of its lookup, so that a walk over it sees one layout. */
static int lookup_batches(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {
		.type = &batch_dir_type, .space = dir->space, .name = dir->name, .name_len = dir->name_len};
	struct npkfs_node *node;
	struct npk_gen *g;
	char rows[24];
	int rc;

	(void)who;
	if (!plain_number(name, strlen(name), &key.detail) || key.detail == 0)
		return -ENOENT;
	rc = current_gen(s, dir, &g, err);
	if (rc != 0)
		return rc;
	key.number = npk_gen_info(g)->number;
	snprintf(rows, sizeof(rows), "%" PRIu64, npk_gen_info(g)->rows);
	key.sel = rows; /* an append keeps the generation's number */
	node = npkfs_node_by_key(&s->inodes, &key);
	if (node == NULL && (rc = npkfs_node_new(&node, &key, err)) == 0) {
		node->gen = npk_gen_ref(g);
		node = npkfs_node_publish(&s->inodes, node);
	}
	npk_gen_put(g);
	if (rc == 0)
		*out = node;
	return rc;
}

static void path_batches(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/batches", out);
}

const struct npkfs_type npkfs_batches_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_batches,
	.stat = npkfs_stat_dir,
	.lookup = lookup_batches,
};

/* The rows of batch i; false when there is no such batch. */
static bool batch_rows(const struct npkfs_node *dir, uint64_t i, uint64_t *first, uint64_t *end)
{
	uint64_t rows = npk_gen_info(dir->gen)->rows, n = dir->detail;

	if (rows == 0 || i > (rows - 1) / n)
		return false;
	*first = i * n;
	*end = rows - *first < n ? rows : *first + n;
	return true;
}

static int lookup_batch(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	uint64_t i, first, end;
	char sel[48];
	size_t len;
	int rc;

	(void)who;
	if (!npkfs_name_strip(name, ".npy", &len) || !plain_number(name, len, &i) || !batch_rows(dir, i, &first, &end))
		return -ENOENT;
	snprintf(sel, sizeof(sel), "%" PRIu64 ":%" PRIu64, first, end);
	rc = view_node(s, dir, dir->gen, sel, out, err);
	return rc == -EINVAL ? -ENOENT : rc; /* a 0-d array has no rows to select */
}

static bool nth_batch(const struct npkfs_node *dir, uint64_t i, char *name)
{
	uint64_t first, end;

	if (!batch_rows(dir, i, &first, &end))
		return false;
	snprintf(name, NPKFS_NAME_MAX, "%" PRIu64 ".npy", i);
	return true;
}

static void path_batch_dir(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/batches/", out);
	npk_text_printf(out, "%" PRIu64, node->detail);
}

static const struct npkfs_type batch_dir_type = {
	.kind = S_IFDIR,
	.path = path_batch_dir,
	.stat = npkfs_stat_dir,
	.lookup = lookup_batch,
	.nth = nth_batch,
};
