/* changed.h - what the kernel must hear after a change of an array. All of these only queue, from any thread, with no lock
 * held, after the store has the new state. */
#ifndef NPKFS_CHANGED_H
#define NPKFS_CHANGED_H

#include "fs.h"

/* The array of that name appeared, went, or has another generation. */
void npkfs_announce(
	struct npkfs_session *s, struct npkfs_space *sp, const void *name, size_t len, enum npk_change what);
/* Rows were added to `a`, or its time changed: its node shows them. */
int npkfs_announce_grown(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npk_err *err);
/* The node has a longer layout than the kernel was told: npkfs_node_update(). */
int npkfs_tell_grown(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err);
/* Bytes of generation `g` of the array called `name` were overwritten by way of node `but`, which may be NULL: other nodes
 * that may show the same slots have stale pages. */
void npkfs_announce_written(struct npkfs_session *s, const struct npkfs_node *but, const char *name, size_t len);
/* Likewise, by npk_array_replace(a, rows), none of them below 0: `g` is the generation that the caller had before. Where it still
 * is the array's, a node that shows it keeps the pages of other rows. */
void npkfs_announce_replaced(
	struct npkfs_session *s, struct npk_array *a, const struct npk_gen *g, const int64_t *rows, size_t n);
/* Has the dirty pages of writable maps of that array written out (NULL: of every array). False: there are none. */
bool npkfs_flush_maps(struct npkfs_session *s, const char *name, size_t len);
/* Whether somebody has a file of `sp` open for writing that shows slots of `g` (NULL: any file). */
bool npkfs_has_writer(struct npkfs_session *s, struct npkfs_space *sp, const struct npk_gen *g);
/* Waits half a second for that to end, for RELEASE comes after close(2). -EBUSY. */
int npkfs_wait_for_writers(struct npkfs_session *s, struct npkfs_space *sp, const struct npk_gen *g);
/* `g` was compacted: no in-place write through a file that is open now and shows its slots reaches the array any more. */
void npkfs_mark_compacted(struct npkfs_session *s, struct npkfs_space *sp, const struct npk_gen *g);

/* The store has renamed `from` to `to`, or exchanged the two: the nodes of all generations that are still in use follow, the
 * older ones too, for they show the same slots. */
void npkfs_renamed(struct npkfs_session *s, struct npkfs_space *sp, const char *from, const char *to, bool exchange);

#endif
