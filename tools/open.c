/* open.c - from the words of a command line to a store and its arrays. */
#include "tool.h"

#include <errno.h>
#include <string.h>

struct npk_store *npkt_open(const char *path)
{
	struct npk_store *s = NULL;
	struct npk_err err;

	if (npk_store_open(&s, path, NPK_RDONLY, &err) != 0)
		npkt_failed_store(path, &err);
	return s;
}

int npkt_check_list(struct npk_store *s)
{
	struct npk_store_info info;

	npk_store_info(s, &info);
	if (!info.read_only)
		return NPKT_OK;
	npkt_complain("%s: the list of arrays is damaged: %s", npk_store_path(s), info.why);
	return NPKT_FAILED;
}

int npkt_gen(struct npk_gen **out, struct npk_store *s, const char *name, struct npk_err *err)
{
	struct npk_store_info info;
	struct npk_array *a = NULL;
	int rc = npk_array_get(&a, s, name, err);

	npk_store_info(s, &info);
	if (rc == -ENOENT && info.read_only) /* it may be in the part of the list that cannot be read */
		rc = npk_fail(err, ENOENT, "no array '%.200s' in what is left of the list: %.250s", name, info.why);
	if (rc == 0)
		rc = npk_gen_get(out, a, err);
	npk_array_put(a);
	return rc;
}

int npkt_check_rows(const char *rows, const char *sel)
{
	if (rows && sel)
		npkt_complain("--rows and --sel are both given");
	else if (rows && strpbrk(rows, ";@"))
		npkt_complain("--rows '%s' speaks of several axes; that is what --sel is for", rows);
	else
		return NPKT_OK;
	return NPKT_USAGE;
}
