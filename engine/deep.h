/* deep.h - the parts of npk_verify() that cost time: every byte of the files is read, every record of the journal checked. */
#ifndef NPKI_DEEP_H
#define NPKI_DEEP_H

#include "writer.h"

/* Reads the files of the list to their ends. A place that the device does not give back is damage, named with file and
 * bytes; a file that is not there is somebody else's finding. */
int npki_deep_read(int dirfd, const struct npki_names *files, const struct npk_verify *how, struct npki_notes *notes,
	struct npk_err *err);
/* Whether the journal's chain holds to its end, the records' data are there, and the metadata is the one it changes. `s` is only
 * used for its directory. */
int npki_deep_journal(struct npk_store *s, struct npki_notes *notes, struct npk_err *err);

#endif
