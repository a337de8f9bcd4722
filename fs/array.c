/* array.c - <name>.npy: a node per generation. A reader keeps the layout that it opened, for ever; who opens the name
 * after a change gets another node with pages of its own. */
#include "fs.h"
#include "names.h"
#include "npyfile.h"

#include <errno.h>
#include <fcntl.h>

int npkfs_refuse_writing(int flags, struct npk_err *err)
{
	if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_TRUNC))
		return 0;
	return npk_fail(err, EROFS, "opened for writing, but this mount is read-only");
}

/* An array without a usable generation: it is listed and has size 0, and opening it tells why. */
static int damaged_node(struct npkfs_session *s, struct npk_array *a, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type};

	key.name = npk_array_name(a, &key.name_len);
	return npkfs_plain_node(s, &key, out, err);
}

int npkfs_array_node(struct npkfs_session *s, struct npk_array *a, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type};
	const struct npk_gen_info *info;
	struct npkfs_node *node;
	struct npk_gen *g;
	struct npk_err why;
	int rc = npk_gen_get(&g, a, &why);

	if (rc == -ENOENT)
		return rc;
	if (rc == -ENOMEM) {
		if (err != NULL)
			*err = why;
		return rc;
	}
	if (rc != 0)
		return damaged_node(s, a, out, err);
	info = npk_gen_info(g);
	key.number = info->number;
	key.name = npk_array_name(a, &key.name_len);
	node = npkfs_node_by_key(&s->inodes, &key);
	if (node == NULL && (rc = npkfs_node_new(&node, &key, err)) == 0) {
		node->gen = npk_gen_ref(g);
		node->bytes = info->rows * info->row_bytes;
		node->header_len = npkfs_npy_header_len(s, info->dtype, &info->shape);
		node = npkfs_node_publish(&s->inodes, node);
	}
	npk_gen_put(g);
	if (rc == 0)
		*out = node;
	return rc;
}

/* The node is that of a damaged array. When the array became usable meanwhile, ESTALE makes the kernel look it up again. */
static int open_damaged(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err)
{
	struct npk_array *a;
	struct npk_gen *g;
	int rc = npkfs_node_array(s, node, &a, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(&g, a, err);
	npk_array_put(a);
	if (rc != 0)
		return rc;
	npk_gen_put(g);
	return -ESTALE;
}

static int open_array(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err)
{
	const struct npk_gen_info *info;
	int rc = npkfs_refuse_writing(o->flags, err);

	if (rc == 0 && node->gen == NULL)
		rc = open_damaged(s, node, err);
	if (rc == 0)
		rc = npk_gen_map(node->gen, err);
	if (rc == 0)
		rc = npkfs_node_view(node, NULL, err);
	if (rc != 0)
		return npkfs_refresh_if_stale(s, rc);
	info = npk_gen_info(node->gen);
	o->keep_cache = true;
	return npkfs_npy_open(s, node, info->dtype, &info->shape, &npkfs_view_handle_ops, out, err);
}

static void path_array(const struct npkfs_node *node, struct npk_text *out)
{
	char part[NPKFS_NAME_MAX + 1];

	if (npkfs_name_escape(part, node->name, node->name_len, ".npy"))
		npk_text_printf(out, "%s", part);
}

const struct npkfs_type npkfs_array_type = {
	.kind = S_IFREG,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_array,
	.stat = npkfs_stat_gen,
	.open = open_array,
};
