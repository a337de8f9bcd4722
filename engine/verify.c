/* verify.c - every check of the format on one store: the metadata, each array with its files, and what else lies in the
 * directory. Opening an array makes most checks; here are those that reading does not need. */
#include "store.h"
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_WRITE 239 /* bytes of a name that every later operation of NumPack can work with */

/* Files that belong to arrays. */
struct used_files {
	char **path;
	size_t n;
};

static int use_file(struct used_files *u, const char *path)
{
	char **more;

	if ((u->n & (u->n - 1)) == 0) {
		more = realloc(u->path, (u->n ? 2 * u->n : 1) * sizeof(char *));
		if (!more)
			return -ENOMEM;
		u->path = more;
	}
	u->path[u->n] = strdup(path);
	return u->path[u->n] ? (u->n++, 0) : -ENOMEM;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_used(const struct used_files *u, const char *path)
{
	return u->n && bsearch(&path, u->path, u->n, sizeof(char *), by_text) != NULL;
}

struct totals {
	uint64_t bytes;
};

static int add_total(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct totals *t = ctx;

	(void)err;
	t->bytes += m->size_bytes; /* modulo 2^64, as the field is */
	return 0;
}

static int check_metadata(struct npk_store *s, struct npki_notes *notes, struct npk_err *err)
{
	struct npki_file_id id;
	struct npki_meta meta;
	struct totals t = {0};
	uint8_t *buf = NULL;
	size_t len;
	int rc = npki_read_metadata(s->dirfd, &buf, &len, &id, err);

	if (rc == 0 && buf) {
		rc = npki_meta_parse(buf, len, &meta, add_total, &t, notes, err);
		if (rc == 0 && !meta.cut && meta.total_bytes != t.bytes)
			npki_note(notes, NPK_WARNING,
				NPKI_META_FILE ": byte 8: total size %" PRIu64 ", the entries sum to %" PRIu64,
				meta.total_bytes, t.bytes);
	}
	free(buf);
	if (rc == 0 && s->read_only)
		npki_note(notes, NPK_DAMAGE, "%s; the store is read-only", s->why);
	return rc;
}

/* NumPy reads a bool byte that is neither 0 nor 1 as true; nothing should write one. */
static int check_bools(struct npk_gen *g, struct npki_notes *notes, struct npk_err *err)
{
	const void *p;
	uint64_t n, row_bytes = g->info.row_bytes;
	int rc = 0;

	if (g->info.dtype != NPK_BOOL || row_bytes == 0)
		return 0;
	for (uint64_t row = 0; row < g->info.rows && rc == 0; row += n) {
		rc = npk_gen_borrow(g, row, &p, &n, err);
		for (uint64_t i = 0; rc == 0 && i < n * row_bytes; i++)
			if (((const uint8_t *)p)[i] > 1) {
				npki_note(notes, NPK_WARNING, "%s: row %" PRIu64 ": bool byte %u is neither 0 nor 1",
					g->seg[0].file->path, row + i / row_bytes, ((const uint8_t *)p)[i]);
				return 0;
			}
	}
	return rc;
}

static int use_sources(struct used_files *u, const struct npk_gen *g)
{
	for (size_t i = 0; i < g->nsegs; i++)
		if (use_file(u, g->seg[i].file->path) != 0)
			return -ENOMEM;
	for (size_t i = 0; i < g->nsources; i++)
		if (use_file(u, g->source[i].path) != 0)
			return -ENOMEM;
	return 0;
}

/* A damaged array still owns its files. */
static int use_names(struct used_files *u, const struct npk_array *a)
{
	char *bitmap;
	int rc = -ENOMEM;

	if (asprintf(&bitmap, "deleted_%s.npkb", a->name) >= 0) {
		rc = use_file(u, bitmap);
		free(bitmap);
	}
	return rc == 0 ? use_file(u, a->entry->file) : rc;
}

static int check_array(struct npk_array *a, struct used_files *u, struct npki_notes *notes, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npk_err why = {0};
	int rc;

	if (a->name_len > NAME_MAX_WRITE)
		npki_note(notes, NPK_NOTE, "the name has %zu bytes: not every operation works above %d", a->name_len,
			NAME_MAX_WRITE);
	if (a->entry->shape.ndim == 0 && !a->entry->damage)
		npki_note(notes, NPK_NOTE, "0 dimensions: NumPack itself ends its process when it loads such an array");
	rc = npki_gen_load(&g, a->store, a->name, a->name_len, &(struct npki_layout){.entry = a->entry}, notes, &why);
	if (rc == 0)
		rc = npk_gen_map(g, &why);
	if (rc == 0)
		rc = check_bools(g, notes, &why);
	if (rc == 0)
		rc = use_sources(u, g);
	npk_gen_put(g);
	if (rc == -ENOMEM)
		return npk_fail(err, ENOMEM, "no memory");
	if (rc != 0)
		npki_note(notes, NPK_DAMAGE, "%s", why.msg);
	return use_names(u, a) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory");
}

static int by_file(const void *x, const void *y)
{
	return strcmp((*(struct npk_array *const *)x)->entry->file, (*(struct npk_array *const *)y)->entry->file);
}

/* Reading works, writing to either would change both. Sorts the list anew. */
static void check_shared(struct npk_array **list, size_t n, struct npki_notes *notes)
{
	qsort(list, n, sizeof(struct npk_array *), by_file);
	for (size_t i = 1; i < n; i++)
		if (by_file(&list[i - 1], &list[i]) == 0)
			npki_note(notes, NPK_WARNING, "%.200s: arrays '%.100s' and '%.100s' share this file",
				list[i]->entry->file, list[i - 1]->name, list[i]->name);
}

static int check_arrays(struct npk_store *s, struct used_files *u, struct npki_notes *notes, struct npk_err *err)
{
	struct npk_array **list;
	char shown[NPKI_SHOW_MAX];
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++) {
		notes->array = npki_show(shown, list[i]->name, list[i]->name_len);
		rc = check_array(list[i], u, notes, err);
	}
	notes->array = NULL;
	if (rc == 0)
		check_shared(list, n, notes);
	npk_store_list_free(list, n);
	return rc;
}

static bool is_leftover(const char *file)
{
	size_t n = strlen(file);

	return strncmp(file, NPKI_META_FILE ".tmp", strlen(NPKI_META_FILE ".tmp")) == 0 ||
	       (strncmp(file, "data_", 5) == 0 && n > 4 && strcmp(file + n - 4, ".tmp") == 0) ||
	       (strncmp(file, "temp_", 5) == 0 && n > 5 && strcmp(file + n - 5, ".npkd") == 0);
}

static void check_file(const struct used_files *u, const char *file, struct npki_notes *notes)
{
	char shown[NPKI_SHOW_MAX];

	if (is_leftover(file))
		npki_note(notes, NPK_NOTE, "%s: left over from interrupted work", npki_show(shown, file, strlen(file)));
	else if (npki_is_store_file(file) && !is_used(u, file))
		npki_note(notes, strncmp(file, "deleted_", 8) == 0 ? NPK_WARNING : NPK_NOTE, "%s: belongs to no array",
			npki_show(shown, file, strlen(file)));
}

static int check_directory(struct npk_store *s, struct used_files *u, struct npki_notes *notes, struct npk_err *err)
{
	int fd = openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return npk_fail(err, errno, "%s", strerror(errno));
	}
	if (u->n)
		qsort(u->path, u->n, sizeof(char *), by_text);
	while ((e = readdir(d)) != NULL)
		check_file(u, e->d_name, notes);
	closedir(d);
	return 0;
}

int npk_store_verify(const char *path, npk_finding_fn *fn, void *ctx, uint64_t *ndamage, struct npk_err *err)
{
	struct npki_notes notes = {.fn = fn, .ctx = ctx};
	struct used_files u = {0};
	struct npk_store *s;
	struct npk_err why;
	struct stat st;
	int rc;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) /* which files a store has is no question to a package */
		return npk_fail(
			err, ENOTDIR, "%.300s: is no directory; a package is checked by npk pkginfo --check", path);
	rc = npk_store_open(&s, path, NPK_RDONLY, &why);
	if (rc == -EUCLEAN) {
		npki_note(&notes, NPK_DAMAGE, "%s", why.msg);
		*ndamage = notes.ndamage;
		return 0;
	}
	if (rc != 0)
		return npk_fail(err, why.code, "%s", why.msg);
	rc = check_metadata(s, &notes, err);
	if (rc == 0)
		rc = check_arrays(s, &u, &notes, err);
	if (rc == 0)
		rc = check_directory(s, &u, &notes, err);
	npk_store_close(s);
	for (size_t i = 0; i < u.n; i++)
		free(u.path[i]);
	free(u.path);
	*ndamage = notes.ndamage;
	return rc;
}
