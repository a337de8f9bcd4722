/* deleted.c - deleted.npy: the slots of the deleted rows of one generation, as <u8. */
#include "npyfile.h"
#include "out.h"

#include <errno.h>
#include <string.h>

static struct npk_shape shape_of(const struct npk_gen *g)
{
	const struct npk_gen_info *info = npk_gen_info(g);

	return (struct npk_shape){.ndim = 1, .dim = {info->slots - info->rows}};
}

int npkfs_deleted_node(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npkfs_node **out,
	struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_deleted_type, .space = sp};
	struct npkfs_node *node;
	struct npk_shape shape;
	struct npk_gen *g;
	int rc = npk_gen_get(&g, a, err);

	if (rc != 0)
		return rc;
	key.number = npk_gen_info(g)->number;
	key.name = npk_array_name(a, &key.name_len);
	node = npkfs_node_by_key(&s->inodes, &key);
	if (node == NULL && (rc = npkfs_node_new(&node, &key, err)) == 0) {
		shape = shape_of(g);
		node->gen = npk_gen_ref(g);
		node->bytes = shape.dim[0] * sizeof(uint64_t);
		node->header_len = npkfs_npy_header_len(s, NPK_U64, &shape);
		node = npkfs_node_publish(&s->inodes, node);
	}
	npk_gen_put(g);
	if (rc == 0)
		*out = node;
	return rc;
}

/* Copies `len` bytes of the slots from byte `off` on; whole numbers through a small buffer. */
static void copy_slots(const struct npk_gen *g, uint64_t off, char *to, size_t len)
{
	uint64_t slots[512];
	size_t skip = (size_t)(off % 8), n;

	for (uint64_t first = off / 8; len > 0; first += 512, skip = 0) {
		n = (skip + len + 7) / 8 < 512 ? (skip + len + 7) / 8 : 512;
		npk_gen_deleted(g, first, n, slots);
		for (size_t i = 0; i < n; i++)
			slots[i] = htole64(slots[i]);
		n = n * 8 - skip < len ? n * 8 - skip : len;
		memcpy(to, (char *)slots + skip, n);
		to += n;
		len -= n;
	}
}

static int read_deleted(
	struct npkfs_handle *handle, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	const struct npkfs_npy_handle *h = (const struct npkfs_npy_handle *)handle;
	size_t n = npkfs_npy_head(h->header, h->header_len, off, len, out);
	uint64_t at = off + n - h->header_len;

	(void)err;
	len -= n;
	if (at >= handle->node->bytes)
		return 0;
	if (len > handle->node->bytes - at)
		len = (size_t)(handle->node->bytes - at);
	if (len > 0)
		copy_slots(handle->node->gen, at, npkfs_out_room(out, len), len);
	return 0;
}

static const struct npkfs_handle_ops handle_ops = {.read = read_deleted, .close = npkfs_npy_close};

static int open_deleted(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o,
	struct npkfs_handle **out, struct npk_err *err)
{
	struct npk_shape shape = shape_of(node->gen);
	int rc = npkfs_refuse_writing(o->flags, err);

	o->keep_cache = true;
	return rc != 0 ? rc : npkfs_npy_open(s, node, NPK_U64, &shape, &handle_ops, out, err);
}

static void path_deleted(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/deleted.npy", out);
}

const struct npkfs_type npkfs_deleted_type = {
	.kind = S_IFREG,
	.attr_ttl = true,
	.path = path_deleted,
	.stat = npkfs_stat_gen,
	.open = open_deleted,
};
