/* names.c - see names.h. */
#include "names.h"
#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *npki_data_file(const char *array)
{
	char *file;

	return asprintf(&file, "data_%s.npkd", array) < 0 ? NULL : file;
}

char *npki_bitmap_file(const char *array)
{
	char *file;

	return asprintf(&file, "deleted_%s.npkb", array) < 0 ? NULL : file;
}

int npki_names_add(struct npki_names *l, const char *path)
{
	char **more;

	for (size_t i = l->n; i-- > 0 && i + 4 >= l->n;) /* the same file again and again is the common case */
		if (strcmp(l->path[i], path) == 0)
			return 0;
	if ((l->n & (l->n - 1)) == 0) {
		more = realloc(l->path, (l->n ? 2 * l->n : 1) * sizeof(char *));
		if (!more)
			return -ENOMEM;
		l->path = more;
	}
	l->path[l->n] = strdup(path);
	if (!l->path[l->n])
		return -ENOMEM;
	l->n++;
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void npki_names_sort(struct npki_names *l)
{
	size_t n = 0;

	if (l->n == 0)
		return;
	qsort(l->path, l->n, sizeof(char *), by_text);
	for (size_t i = 0; i < l->n; i++)
		if (n > 0 && strcmp(l->path[n - 1], l->path[i]) == 0)
			free(l->path[i]);
		else
			l->path[n++] = l->path[i];
	l->n = n;
}

bool npki_names_has(const struct npki_names *l, const char *path)
{
	return l->n && bsearch(&path, l->path, l->n, sizeof(char *), by_text) != NULL;
}

void npki_names_fini(struct npki_names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->path[i]);
	free(l->path);
	*l = (struct npki_names){0};
}

static int add_listed(void *ctx, int fd, const char *name, struct npk_err *err)
{
	(void)fd;
	return npki_names_add(ctx, name) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory");
}

int npki_list_dir(int dirfd, const char *path, struct npki_names *out, struct npk_err *err)
{
	int rc = npki_each_name(dirfd, path, add_listed, out, err);

	npki_names_sort(out);
	return rc;
}
