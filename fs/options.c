/* options.c - the names in -o: ours, those of mount(8), those of later versions, and misspelt ones. */
#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* mount(8) and fstab(5) pass these to every filesystem; none of them changes how arrays are served. A '*' ends a prefix.
 * dev and suid are harmless: the kernel gets nodev and nosuid, and no file here is a device or a program. */
static const char *const standard[] = {"defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner",
	"noowner", "group", "nogroup", "_netdev", "nofail", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "async",
	"sync", "dirsync", "atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime",
	"nodiratime", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "silent", "loud",
	"symfollow", "nosymfollow", "default_permissions", "comment=*", "x-*", "X-*", NULL};

static bool listed(const char *const *list, const char *name)
{
	for (; *list != NULL; list++) {
		size_t len = strlen(*list);

		if ((*list)[len - 1] == '*' ? strncmp(*list, name, len - 1) == 0 : strcmp(*list, name) == 0)
			return true;
	}
	return false;
}

#define NAME_MAX_LEN 32

/* Levenshtein's distance; SIZE_MAX when a word is too long to be a misspelt one of ours. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_LEN + 1], la = strlen(a), lb = strlen(b);

	if (la > NAME_MAX_LEN || lb > NAME_MAX_LEN)
		return SIZE_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (best > row[j] + 1)
				best = row[j] + 1;
			if (best > row[j - 1] + 1)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[lb];
}

static const char *closest(const char *name)
{
	const char *found = NULL, *candidate;
	size_t best = 2 + strlen(name) / 4; /* further away is another word */

	for (unsigned i = 0; (candidate = npkfs_setting_name(i)) != NULL; i++) {
		size_t d = distance(name, candidate);

		if (d < best) {
			best = d;
			found = candidate;
		}
	}
	return found;
}

int npkfs_setting_unknown(const char *name, const char *origin, struct npk_err *err)
{
	const char *near = closest(name);

	if (strcmp(name, "rw") == 0)
		return npk_fail(err, EINVAL, "%s: 'rw' is said as ro=off here", origin);
	if (strcmp(name, "remount") == 0)
		return npk_fail(
			err, EINVAL, "%s: options of a mount do not change: unmount it and mount it anew", origin);
	if (near != NULL)
		return npk_fail(err, EINVAL, "%s: unknown option '%s': did you mean '%s'?", origin, name, near);
	return npk_fail(err, EINVAL, "%s: unknown option '%.100s': see numpackfs --help", origin, name);
}

/* One item, "name" or "name=value"; writes into it. */
static int apply(struct npkfs_config *c, char *item, struct npk_err *err)
{
	char *value = strchr(item, '=');

	if (strcmp(item, "rw") == 0)
		return npkfs_setting_assign(c, "ro", "off", "-o", err);
	if (*item == '\0' || listed(standard, item))
		return 0;
	if (value != NULL)
		*value++ = '\0';
	else if (strncmp(item, "no", 2) == 0 && (npkfs_setting_is_bool(item + 2) || strcmp(item, "nowatch") == 0))
		return npkfs_setting_assign(c, item + 2, "off", "-o", err);
	if (c->sloppy && !npkfs_setting_exists(item))
		return 0;
	return npkfs_setting_assign(c, item, value, "-o", err);
}

/* Cuts the next item out of *at: up to a comma that has no backslash before it; backslashes go. */
static char *next_item(char **at)
{
	char *item = *at, *to = item, *from = item;

	for (; *from != '\0' && *from != ','; from++) {
		if (*from == '\\' && from[1] != '\0')
			from++;
		*to++ = *from;
	}
	*at = *from == ',' ? from + 1 : NULL;
	*to = '\0';
	return item;
}

int npkfs_options_apply(struct npkfs_config *c, const char *list, struct npk_err *err)
{
	char *copy = strdup(list), *at = copy;
	int rc = 0;

	if (copy == NULL)
		return npk_fail(err, ENOMEM, "out of memory");
	while (at != NULL && rc == 0)
		rc = apply(c, next_item(&at), err);
	free(copy);
	return rc;
}
