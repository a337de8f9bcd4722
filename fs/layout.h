/* layout.h - what an array's node shows at one moment: a header, the rows behind it. Immutable and counted: a READ keeps the
 * one it began with while an append gives the node a longer one. */
#ifndef NPKFS_LAYOUT_H
#define NPKFS_LAYOUT_H

#include "inode.h"

struct npkfs_session;

struct npkfs_layout {
	_Atomic unsigned refs;
	struct npk_gen *gen;
	struct npk_view *view; /* of all rows */
	uint64_t bytes;        /* behind the header */
	size_t header_len;
	char header[];
};

/* `header` NULL: the one that the session's header= says. */
int npkfs_layout_new(struct npkfs_layout **out, struct npkfs_session *s, struct npk_gen *g, const char *header,
	size_t header_len, struct npk_err *err);
void npkfs_layout_put(struct npkfs_layout *l); /* NULL is fine */

/* The node's present layout with a reference; NULL: it has none (damaged, or staged). */
struct npkfs_layout *npkfs_node_layout(struct npkfs_node *node);
/* Gives the node another one; takes the reference over. */
void npkfs_node_set_layout(struct npkfs_node *node, struct npkfs_layout *l);
/* When `g` is the same generation with more rows or a later time, the node has that from now on: its new rows can be read, but
 * size and header stay those that the kernel knows until npkfs_node_show_size() and npkfs_node_show_header() (changed.c). */
int npkfs_node_update(struct npkfs_session *s, struct npkfs_node *node, struct npk_gen *g, struct npk_err *err);

/* The layout whose header is shown, with a reference, and in *bytes how many bytes behind it; NULL: as npkfs_node_layout(). */
struct npkfs_layout *npkfs_node_shown(struct npkfs_node *node, uint64_t *bytes);
/* Both at one moment, each with a reference; NULL and NULL: it has none. */
struct npkfs_layout *npkfs_node_layouts(struct npkfs_node *node, struct npkfs_layout **shown);
/* The size from now on is that of `l`; NULL: of the present layout. Sizes never shrink. */
void npkfs_node_show_size(struct npkfs_node *node, const struct npkfs_layout *l);
/* The header from now on is that of `l`, which the node has or had. */
void npkfs_node_show_header(struct npkfs_node *node, struct npkfs_layout *l);

#endif
