/* autocompact.c - see autocompact.h. */
#include "autocompact.h"
#include "changed.h"
#include "log.h"

#include <errno.h>

/* Whether enough is deleted; what cannot be loaded is left to whoever opens it. */
static bool is_due(struct npkfs_session *s, struct npk_array *a, bool *written)
{
	const struct npk_gen_info *info;
	struct npk_gen *g;
	bool due;

	if (npk_gen_get(&g, a, NULL) != 0)
		return false;
	info = npk_gen_info(g);
	due = info->rows < info->slots &&
	      (double)(info->slots - info->rows) * 100 >= (double)info->slots * s->config->autocompact;
	*written = due && npkfs_has_writer(s, NULL, g);
	npk_gen_put(g);
	return due;
}

/* False: it is open for writing, and to be looked at again. */
static bool tidy(struct npkfs_session *s, struct npk_array *a)
{
	size_t len;
	const char *name = npk_array_name(a, &len);
	struct npk_err err;
	bool written;
	int rc;

	if (!is_due(s, a, &written))
		return true;
	if (written)
		return false;
	rc = npkfs_compact(s, NULL, a, false, &err);
	if (rc == 0)
		npkfs_log(NPKFS_INFO, "autocompact: '%.200s'", name);
	else if (rc != -EBUSY)
		npkfs_log(NPKFS_WARN, "autocompact: '%.200s': %s", name, err.msg);
	return rc != -EBUSY;
}

void npkfs_autocompact(struct npkfs_session *s)
{
	uint64_t epoch = atomic_load(&s->epoch);
	struct npk_array **list;
	struct npk_err err;
	bool all = true;
	size_t n;
	int rc;

	if (s->config->autocompact == 0 || s->tidied == epoch)
		return;
	rc = npk_store_list(s->store, &list, &n, &err);
	if (rc != 0) {
		npkfs_log(NPKFS_WARN, "autocompact: %s", err.msg);
		return;
	}
	for (size_t i = 0; i < n; i++)
		all = tidy(s, list[i]) && all;
	npk_store_list_free(list, n);
	if (all)
		s->tidied = epoch; /* what we compacted raised it: the next look finds nothing to do */
}
