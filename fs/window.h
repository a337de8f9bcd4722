/* window.h - where the reply of a conversation lies in the file's offsets (interface.md section 4.1). Pure.
 *
 * Some readers go on at the offset where their write ended (bash, Go, Node with a null position), others start again at
 * 0 (seek, pread). The first read after a write tells which. */
#ifndef NPKFS_WINDOW_H
#define NPKFS_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct npkfs_window {
	uint64_t written_to; /* where the last write ended */
	uint64_t base;       /* the file offset of the reply's first byte, once fixed */
	bool fixed;
};

/* A write ended at file offset `end` (a failed one where it began: the kernel does not move on). */
void npkfs_window_wrote(struct npkfs_window *w, uint64_t end);
/* The offset within the reply that a read at file offset `off` means. */
uint64_t npkfs_window_place(struct npkfs_window *w, uint64_t off);

#endif
