/* text.h - open files whose whole content is a text made at open. */
#ifndef NPKFS_TEXT_H
#define NPKFS_TEXT_H

#include "fs.h"

/* Takes the text over, also when it fails. */
int npkfs_text_handle(struct npkfs_session *s, struct npkfs_node *node, struct npk_text *t, struct npkfs_handle **out,
	struct npk_err *err);

#endif
