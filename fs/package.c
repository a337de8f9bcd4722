/* package.c - see package.h. */
#include "package.h"
#include "log.h"
#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool npkfs_is_package(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* The directory is settled here, and not by the library, because the sandbox must let it be written to. */
static char *choose_cache(const struct npkfs_config *c)
{
	const char *temp = getenv("TMPDIR");

	if (c->cache_dir != NULL)
		return strdup(c->cache_dir);
	return strdup(temp != NULL && temp[0] == '/' ? temp : "/var/tmp");
}

int npkfs_package_open(struct npkfs_session *s, struct npk_err *err)
{
	const struct npkfs_config *c = s->config;
	int rc;

	if (c->create || c->drop_if_exists)
		return npk_fail(err, EROFS, "%.300s: is a package, which is only read: %s makes no sense", c->store,
			c->create ? "create" : "drop_if_exists");
	s->cache_dir = choose_cache(c);
	if (s->cache_dir == NULL)
		return npk_fail(err, ENOMEM, "%.300s: no memory", c->store);
	rc = npk_store_open_package(&s->store, c->store, s->cache_dir, err);
	if (rc == 0 && c->watch != NPKFS_WATCH_OFF && npkfs_setting_is_given(c, "watch"))
		npkfs_log(NPKFS_INFO, "%s: a package does not change: nothing is watched", c->store);
	return rc;
}
