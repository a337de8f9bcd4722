/* window.c - the offset rule of conversations. */
#include "window.h"

void npkfs_window_wrote(struct npkfs_window *w, uint64_t end)
{
	w->written_to = end;
	w->base = 0;
	w->fixed = false;
}

uint64_t npkfs_window_place(struct npkfs_window *w, uint64_t off)
{
	if (!w->fixed) {
		w->base = off >= w->written_to ? off : 0;
		w->fixed = true;
	} else if (off < w->base) {
		w->base = 0;
	}
	return off - w->base;
}
