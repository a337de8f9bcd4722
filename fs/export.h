/* export.h - export/store.safetensors: the whole store as it was at the lookup. */
#ifndef NPKFS_EXPORT_H
#define NPKFS_EXPORT_H

struct npkfs_export;

void npkfs_export_put(struct npkfs_export *e); /* NULL is fine */

#endif
