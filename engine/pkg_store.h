/* pkg_store.h - a package as a store that is only read: its members stand for the files of a directory. One that is stored as
 * it is, is mapped where it lies; a compressed one is unpacked once, when it is wanted, to a file without a name. */
#ifndef NPKI_PKG_STORE_H
#define NPKI_PKG_STORE_H

#include "pkg.h"

struct npki_packed;

/* `cache_dir` NULL: the directory of temporary files. */
int npki_packed_open(struct npki_packed **out, const char *path, const char *cache_dir, struct npk_err *err);
void npki_packed_close(struct npki_packed *k);
const struct npk_package *npki_packed_package(const struct npki_packed *k);

/* A descriptor of a file that holds the member from byte *off on; the caller closes it. -ENOENT: there is no such member. -ENOSPC:
 * the cache directory has no room for it. -EUCLEAN: its bytes are not what the package says. */
int npki_packed_member(
	struct npki_packed *k, const char *name, int *fd, uint64_t *off, uint64_t *len, struct npk_err *err);

#endif
