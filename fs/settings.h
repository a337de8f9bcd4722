/* settings.h - the settings of a mount: their names, and how a value is read, checked and printed. One table serves -o
 * options, files, variables, --help and .numpack/config. */
#ifndef NPKFS_SETTINGS_H
#define NPKFS_SETTINGS_H

#include "config.h"

void npkfs_settings_init(struct npkfs_config *c); /* the built-in values */
const char *npkfs_setting_name(unsigned i);       /* NULL behind the last one */
bool npkfs_setting_exists(const char *name);
bool npkfs_setting_is_bool(const char *name);
/* Whether somebody gave it a value; false: it has the built-in one. */
bool npkfs_setting_is_given(const struct npkfs_config *c, const char *name);
void npkfs_settings_help(struct npk_text *out); /* a line per setting */

/* Gives a setting its value; `value` NULL is a bare name ("show_control"). `origin` is copied. -EINVAL with a sentence
 * that begins with the origin. */
int npkfs_setting_assign(
	struct npkfs_config *c, const char *name, const char *value, const char *origin, struct npk_err *err);
/* options.c: fails with what is wrong with a name that is no setting: not in this version, or misspelt. */
int npkfs_setting_unknown(const char *name, const char *origin, struct npk_err *err);
/* options.c: the items of one -o argument, "ro,watch=poll:500"; "\," is a comma in a value. Also takes "noname", and
 * passes over what mount(8) and fstab(5) add. */
int npkfs_options_apply(struct npkfs_config *c, const char *list, struct npk_err *err);

#endif
