/* config_file.h - one ini file of settings. */
#ifndef NPKFS_CONFIG_FILE_H
#define NPKFS_CONFIG_FILE_H

#include "config.h"

/* Applies `path` to *c: what stands before any section and in [mount], then what stands in a section whose name is the
 * absolute path of the store. A file that is not there is no error. -EINVAL names file, line and value. */
int npkfs_config_file(struct npkfs_config *c, const char *path, struct npk_err *err);

#endif
