/* lock.h - the lock file of a store's directory: whoever holds it may write the store. */
#ifndef NPKI_LOCK_H
#define NPKI_LOCK_H

#include "numpack.h"

#define NPKI_LOCK ".numpackfs.lock"

/* Who holds it: 1 and what the file says, 0: nobody does. */
int npki_lock_owner(int dirfd, char owner[NPK_OWNER_MAX], struct npk_err *err);
/* Opens the lock file, which it makes with `make` (else -ENOENT: there is none), and locks it, waiting at most timeout_ms:
 * -EBUSY says who holds it. `path` is the store's, for that message. */
int npki_lock_file(int dirfd, const char *path, bool make, int timeout_ms, int *fd, struct npk_err *err);
/* Likewise, always making it, and writes into it who we are; -EROFS: it cannot be made. `owner` goes to npki_write_owner(). */
int npki_lock_dir(int dirfd, const char *path, const char *owner, int timeout_ms, int *fd, struct npk_err *err);
/* What the lock file says of us: the process, and `owner` unless that is NULL. */
int npki_write_owner(int fd, const char *owner, struct npk_err *err);
/* The end of npki_lock_dir(), after which the file is empty. */
void npki_unlock_dir(int fd);

#endif
