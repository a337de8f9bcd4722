/* values.h - the kinds of values that settings have: text to a field of struct npkfs_config and back. Whatever print()
 * writes, parse() accepts. */
#ifndef NPKFS_VALUES_H
#define NPKFS_VALUES_H

#include "config.h"

struct npkfs_setting;

struct npkfs_kind {
	/* 0, -EINVAL when the value is none of s->expects, -ENOMEM */
	int (*parse)(struct npkfs_config *c, const struct npkfs_setting *s, const char *value);
	void (*print)(const struct npkfs_config *c, const struct npkfs_setting *s, struct npk_text *out);
};

extern const struct npkfs_kind npkfs_kind_bool, npkfs_kind_watch, npkfs_kind_seconds, npkfs_kind_unsigned,
	npkfs_kind_size, npkfs_kind_header, npkfs_kind_uid, npkfs_kind_gid, npkfs_kind_umask, npkfs_kind_level,
	npkfs_kind_path, npkfs_kind_sync;

struct npkfs_setting {
	const char *name;
	const struct npkfs_kind *kind;
	size_t at;               /* of its field in struct npkfs_config */
	uint64_t min, max;       /* of numbers */
	const char *expects;     /* completes "must be ..." */
	const char *form, *help; /* of --help */
};

#endif
