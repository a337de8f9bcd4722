/* package.h - a package (.npkg) in the place of a store: mounted read-only, its arrays unpacked when they are first opened. */
#ifndef NPKFS_PACKAGE_H
#define NPKFS_PACKAGE_H

#include "fs.h"

/* A store is a directory; a package is a file. False also when there is nothing: opening it will tell. */
bool npkfs_is_package(const char *path);
/* Opens s->config->store, sets s->store and s->cache_dir. */
int npkfs_package_open(struct npkfs_session *s, struct npk_err *err);

#endif
