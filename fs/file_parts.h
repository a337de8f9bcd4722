/* file_parts.h - what the files about open files of the root share: file.c opens, reads and closes, file_write.c writes,
 * file_size.c truncates, file_clone.c copies inside the mount, staged_commit.c makes arrays of staged files. */
#ifndef NPKFS_FILE_PARTS_H
#define NPKFS_FILE_PARTS_H

#include "file.h"
#include "layout.h"
#include "names.h"

struct npkfs_file {
	struct npkfs_handle h;
	int flags;
	pthread_mutex_t lock; /* one write of a handle at a time; outermost */
	struct npk_text tail; /* lock: bytes of a row that is not whole yet */
	uint64_t tail_at;     /* lock: where they are to go in the file; without O_APPEND */
	uint64_t tail_owner;  /* lock: who wrote them */
	struct npk_text head; /* lock: a header that is being written over ours */
	int sticky;           /* lock: the error of a write, returned again by every FLUSH */
	uint64_t clone_of;    /* lock: the generation that copy_file_range() made this array of; 0: none */
	struct npk_gen *kept; /* lock: the generation whose files stay open for this writer; NULL: none */
	struct npkfs_caller who;
};

/* --- staged_commit.c --- */

/* The array's name behind a component of the root. -EINVAL */
int npkfs_component_array(const char *component, char name[NPKFS_NAME_MAX + 1], struct npk_err *err);
/* The node goes on as that array's, with the header `head`, if that says the `same` as the array. */
int npkfs_show_array(struct npkfs_session *s, struct npkfs_node *node, const char *name, const struct npk_text *head,
	bool same, struct npk_err *err);
/* What every change of a payload ends with. Needs st->lock. */
int npkfs_staged_changed(
	struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, struct npk_err *err);

/* --- file.c --- */

/* A staged file under the node's name, with its mode, and in `part` that component of the root; `pending` as in
 * npkfs_staged_new(). */
int npkfs_file_stage(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const struct npkfs_caller *who, bool pending, char part[NPKFS_NAME_MAX + 1], struct npkfs_node **fresh,
	struct npk_err *err);
/* A private file for this thread under the node's name; -ESTALE, with which the kernel looks the name up again and finds it.
 * Readers of the node itself notice nothing. */
int npkfs_file_mint(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const struct npkfs_caller *who, struct npk_err *err);

/* --- file_write.c --- */

/* The handle's operation. */
int npkfs_file_write(struct npkfs_handle *h, struct npkfs_write *q, size_t *taken, struct npk_err *err);
/* An array that is saved over or removed lives on for its writers. Needs f->lock, or that nobody has `f` yet. */
void npkfs_file_keep(struct npkfs_file *f);
/* Whether the layout shows the array's generation of now; `a` may be NULL. */
bool npkfs_is_current(struct npk_array *a, const struct npkfs_layout *l);

#endif
