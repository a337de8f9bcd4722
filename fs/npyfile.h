/* npyfile.h - files that are a .npy header and then data. */
#ifndef NPKFS_NPYFILE_H
#define NPKFS_NPYFILE_H

#include "fs.h"

/* An open file of that kind; `ops` may be those of a view (header, then node->view) or the caller's. */
struct npkfs_npy_handle {
	struct npkfs_handle h;
	size_t header_len;
	char header[];
};

extern const struct npkfs_handle_ops npkfs_view_handle_ops;

uint32_t npkfs_npy_header_len(struct npkfs_session *s, unsigned dtype, const struct npk_shape *shape);
int npkfs_npy_open(struct npkfs_session *s, struct npkfs_node *node, unsigned dtype, const struct npk_shape *shape,
	const struct npkfs_handle_ops *ops, struct npkfs_handle **out, struct npk_err *err);
void npkfs_npy_close(struct npkfs_handle *h);

/* Opens the view of node->gen and the selection `sel`, once per node. */
int npkfs_node_view(struct npkfs_node *node, const char *sel, struct npk_err *err);

/* Adds what [off, off + len) has of the header; returns how many bytes that were. */
size_t npkfs_npy_head(const char *header, size_t header_len, uint64_t off, size_t len, struct npkfs_out *out);
/* Adds [off, off + len) of the file "header, then all of v", as far as it goes. */
int npkfs_npy_read(const char *header, size_t header_len, struct npk_view *v, uint64_t off, size_t len,
	struct npkfs_out *out, struct npk_err *err);

/* Bytes that can be borrowed in runs or copied: a view, an export. */
struct npkfs_source {
	void *from;
	uint64_t bytes;
	size_t (*borrow)(void *from, uint64_t off, const void **out);
	int (*read)(void *from, uint64_t off, void *buf, size_t len, struct npk_err *err);
};

/* Adds [off, off + len), as far as it goes: borrowed runs while they are long, then one copy of the rest. */
int npkfs_out_source(
	struct npkfs_out *out, const struct npkfs_source *src, uint64_t off, size_t len, struct npk_err *err);

#endif
