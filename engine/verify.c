/* verify.c - every check of the format on one store: the metadata, each array with its files, and what else lies in the
 * directory. Opening an array makes most checks; here are those that reading does not need. */
#include "deep.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_WRITE 239 /* bytes of a name that every later operation of NumPack can work with */

/* One check of a store. */
struct check {
	struct npk_store *s;
	const struct npk_verify *how;
	struct npki_notes notes;
	struct npki_names used;  /* files that belong to arrays */
	struct npki_names files; /* all that are read completely */
};

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

static int check_metadata(struct check *c, struct npk_err *err)
{
	struct npk_store *s = c->s;
	struct npki_notes *notes = &c->notes;
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

static int use_sources(struct npki_names *u, const struct npk_gen *g)
{
	for (size_t i = 0; i < g->nsegs; i++)
		if (npki_names_add(u, g->seg[i].file->path) != 0)
			return -ENOMEM;
	for (size_t i = 0; i < g->nsources; i++)
		if (npki_names_add(u, g->source[i].path) != 0)
			return -ENOMEM;
	return 0;
}

/* A damaged array still owns its files. */
static int use_names(struct npki_names *u, const struct npk_array *a)
{
	char *bitmap = npki_bitmap_file(a->name);
	int rc = bitmap ? npki_names_add(u, bitmap) : -ENOMEM;

	free(bitmap);
	return rc == 0 ? npki_names_add(u, a->entry->file) : rc;
}

/* What is right, but not for every NumPack. */
static int check_readers(const struct npk_array *a, struct npki_notes *notes)
{
	char shown[NPKI_SHOW_MAX], *canonical;

	if (memchr(a->name, '/', a->name_len))
		npki_note(notes, NPK_NOTE, "the name has a '/': NumPack itself cannot delete rows of it");
	if (npki_is_manifest(a->entry->file)) {
		npki_note(notes, NPK_NOTE, "segments: NumPack before 0.7 cannot read them");
		return 0;
	}
	canonical = npki_data_file(a->name);
	if (!canonical)
		return -ENOMEM;
	if (strcmp(canonical, a->entry->file) != 0)
		npki_note(notes, NPK_NOTE, "data file %s: NumPack before 0.7 looks for its own name of it",
			npki_show(shown, a->entry->file, strlen(a->entry->file)));
	free(canonical);
	return 0;
}

/* Segments have a size of their own to keep to; load() has looked whether they are long enough. */
static void check_segments(const struct npk_gen *g, struct npki_notes *notes)
{
	for (size_t i = 0; g->segmented && i < g->nsegs; i++) {
		const struct npki_seg *seg = &g->seg[i];

		if (seg->file->id.size > seg->nslots * g->info.row_bytes)
			npki_note(notes, NPK_NOTE, "%.300s: byte %" PRIu64 ": %" PRIu64 " bytes follow the last row",
				seg->file->path, seg->nslots * g->info.row_bytes,
				seg->file->id.size - seg->nslots * g->info.row_bytes);
	}
}

static int check_array(struct check *c, struct npk_array *a, struct npk_err *err)
{
	struct npki_layout from = {.entry = a->entry, .live = a->live, .known = a->known};
	struct npki_notes *notes = &c->notes;
	struct npk_gen *g = NULL;
	struct npk_err why = {0};
	int rc;

	if (a->name_len > NAME_MAX_WRITE)
		npki_note(notes, NPK_NOTE, "the name has %zu bytes: not every operation works above %d", a->name_len,
			NAME_MAX_WRITE);
	if (a->entry->shape.ndim == 0 && !a->entry->damage)
		npki_note(notes, NPK_NOTE, "0 dimensions: NumPack itself ends its process when it loads such an array");
	if (c->how->deep && !a->entry->damage && check_readers(a, notes) != 0)
		return npk_fail(err, ENOMEM, "no memory");
	rc = npki_gen_load(&g, a->store, a->name, a->name_len, &from, notes, &why);
	if (rc == 0)
		rc = npk_gen_map(g, &why);
	if (rc == 0)
		rc = check_bools(g, notes, &why);
	if (rc == 0 && c->how->deep)
		check_segments(g, notes);
	if (rc == 0)
		rc = use_sources(&c->used, g);
	npk_gen_put(g);
	if (rc == -ENOMEM)
		return npk_fail(err, ENOMEM, "no memory");
	if (rc != 0)
		npki_note(notes, NPK_DAMAGE, "%s", why.msg);
	return use_names(&c->used, a) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory");
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

static bool is_wanted(const struct npk_verify *how, const struct npk_array *a)
{
	for (size_t i = 0; how->array && i < how->narrays; i++)
		if (strlen(how->array[i]) == a->name_len && memcmp(how->array[i], a->name, a->name_len) == 0)
			return true;
	return !how->array;
}

static int check_arrays(struct check *c, struct npk_err *err)
{
	struct npk_array **list, *a;
	char shown[NPKI_SHOW_MAX];
	size_t n;
	int rc = npk_store_list(c->s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; c->how->array && i < c->how->narrays && rc == 0; i++) {
		a = NULL;
		rc = npk_array_get(&a, c->s, c->how->array[i], err);
		npk_array_put(a);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (!is_wanted(c->how, list[i]))
			continue;
		c->notes.array = npki_show(shown, list[i]->name, list[i]->name_len);
		rc = check_array(c, list[i], err);
	}
	c->notes.array = NULL;
	if (rc == 0)
		check_shared(list, n, &c->notes);
	npk_store_list_free(list, n);
	return rc;
}

bool npki_is_leftover(const char *file)
{
	size_t n = strlen(file);

	return strncmp(file, NPKI_META_FILE ".tmp", strlen(NPKI_META_FILE ".tmp")) == 0 ||
	       (strncmp(file, "data_", 5) == 0 && n > 4 && strcmp(file + n - 4, ".tmp") == 0) ||
	       (strncmp(file, "temp_", 5) == 0 && n > 5 && strcmp(file + n - 5, ".npkd") == 0);
}

/* Files that belong to the store and to no array. */
static bool is_ours(const char *file)
{
	static const char *const ours[] = {
		NPKI_META_FILE, NPKI_LOCK, NPKI_JOURNAL, NPKI_JOURNAL_NEXT, NPKI_JOURNAL_NEW, NPKI_BASE};

	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		if (strcmp(file, ours[i]) == 0)
			return true;
	return false;
}

/* Whether a list of segments names any that lie in the directory. */
static bool holds_segments(const struct check *c, const char *dir)
{
	size_t n = strlen(dir);

	for (size_t i = 0; i < c->used.n; i++)
		if (strncmp(c->used.path[i], dir, n) == 0 && c->used.path[i][n] == '/')
			return true;
	return false;
}

/* The directory of an array's segments has the name of its manifest; a changed manifest has a name of ours. */
static bool is_segments(const struct check *c, const char *file)
{
	size_t n = strlen(file), tail = strlen("_segments");
	char *manifest;
	bool used = false;

	if (n <= tail || strcmp(file + n - tail, "_segments") != 0)
		return false;
	if (asprintf(&manifest, "%.*s.npkseg", (int)(n - tail), file) >= 0) {
		used = npki_names_has(&c->used, manifest);
		free(manifest);
	}
	return used || holds_segments(c, file);
}

static void check_file(struct check *c, const char *file, bool is_file)
{
	char shown[NPKI_SHOW_MAX];
	struct npki_notes *notes = &c->notes;

	npki_show(shown, file, strlen(file));
	if (npki_is_leftover(file))
		npki_note(notes, NPK_NOTE, "%s: left over from interrupted work", shown);
	else if (npki_is_store_file(file) && !npki_names_has(&c->used, file))
		npki_note(notes, strncmp(file, "deleted_", 8) == 0 ? NPK_WARNING : NPK_NOTE, "%s: belongs to no array",
			shown);
	else if (!c->how->deep || npki_names_has(&c->used, file) || is_ours(file))
		return;
	else if (strncmp(file, NPKI_REPAIRED, strlen(NPKI_REPAIRED)) == 0)
		npki_note(notes, NPK_NOTE, "%s: what npk repair replaced; no reader needs it", shown);
	else if (is_file || !is_segments(c, file))
		npki_note(notes, NPK_NOTE, "%s: is no %s of a store", shown, is_file ? "file" : "directory");
}

/* A segment that no list of segments names. Of a damaged array, no list is known. */
static int check_segment_dir(struct check *c, const char *dir, struct npk_err *err)
{
	struct npki_names l = {0};
	char shown[NPKI_SHOW_MAX], *path;
	bool known = holds_segments(c, dir);
	int rc = npki_list_dir(c->s->dirfd, dir, &l, err);

	for (size_t i = 0; i < l.n && rc == 0; i++) {
		if (asprintf(&path, "%s/%s", dir, l.path[i]) < 0) {
			rc = npk_fail(err, ENOMEM, "no memory");
			break;
		}
		if (known && !npki_names_has(&c->used, path))
			npki_note(&c->notes, NPK_NOTE, "%s: belongs to no array", npki_show(shown, path, strlen(path)));
		if (npki_names_add(&c->files, path) != 0)
			rc = npk_fail(err, ENOMEM, "no memory");
		free(path);
	}
	npki_names_fini(&l);
	return rc;
}

static int check_directory(struct check *c, struct npk_err *err)
{
	struct npki_names l = {0};
	struct npki_file_id id;
	int rc = npki_list_dir(c->s->dirfd, ".", &l, err);

	for (size_t i = 0; i < l.n && rc == 0; i++) {
		bool is_file = npki_stat_file(c->s->dirfd, l.path[i], &id, NULL) == 0;

		check_file(c, l.path[i], is_file);
		if (is_file && npki_names_add(&c->files, l.path[i]) != 0)
			rc = npk_fail(err, ENOMEM, "no memory");
		else if (!is_file && c->how->deep && is_segments(c, l.path[i]))
			rc = check_segment_dir(c, l.path[i], err);
	}
	npki_names_fini(&l);
	return rc;
}

/* Everything that is there, or only what the arrays asked for have. */
static int check_files(struct check *c, struct npk_err *err)
{
	int rc = 0;

	npki_names_sort(&c->used);
	if (!c->how->array)
		rc = check_directory(c, err);
	if (rc != 0 || !c->how->deep)
		return rc;
	for (size_t i = 0; i < c->used.n && rc == 0; i++)
		if (npki_is_plain_path(c->used.path[i], strlen(c->used.path[i])))
			rc = npki_names_add(&c->files, c->used.path[i]);
	npki_names_sort(&c->files);
	return rc ? npk_fail(err, ENOMEM, "no memory") : npki_deep_read(c->s->dirfd, &c->files, c->how, &c->notes, err);
}

static int check_store(struct check *c, struct npk_err *err)
{
	int rc = check_metadata(c, err);

	if (rc == 0)
		rc = check_arrays(c, err);
	if (rc == 0 && c->how->deep && !c->how->array)
		rc = npki_deep_journal(c->s, &c->notes, err);
	return rc == 0 ? check_files(c, err) : rc;
}

/* A store that cannot be opened: what is there is read all the same. `why` is the reason, and damage. */
static int check_closed(struct check *c, const char *path, const struct npk_err *why, struct npk_err *err)
{
	uint64_t before;
	int rc;

	if (why->code == EUCLEAN)
		npki_note(&c->notes, NPK_DAMAGE, "%s", why->msg);
	if (!c->how->deep)
		return 0;
	rc = npki_store_bare(&c->s, path, err);
	before = c->notes.ndamage;
	if (rc == 0)
		rc = npki_deep_journal(c->s, &c->notes, err);
	if (rc == 0 && why->code == EBUSY && c->notes.ndamage == before)
		npki_note(&c->notes, NPK_DAMAGE, "%s", why->msg);
	return rc == 0 ? check_files(c, err) : rc;
}

/* A store with a journal that nobody finishes is no reason to give up. */
static bool is_left_busy(const char *path, const struct npk_verify *how, const struct npk_err *why)
{
	char owner[NPK_OWNER_MAX];

	return how->deep && why->code == EBUSY && npk_lock_owner(path, owner, NULL) == 0;
}

int npk_verify(const char *path, const struct npk_verify *how, npk_finding_fn *fn, void *ctx, uint64_t *ndamage,
	struct npk_err *err)
{
	struct check c = {.how = how, .notes = {.fn = fn, .ctx = ctx}};
	struct npk_err why;
	struct stat st;
	int rc;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) /* which files a store has is no question to a package */
		return npk_fail(
			err, ENOTDIR, "%.300s: is no directory; a package is checked by npk pkginfo --check", path);
	rc = npk_store_open(&c.s, path, NPK_RDONLY, &why);
	if (rc == 0)
		rc = check_store(&c, err);
	else if (rc == -EUCLEAN || is_left_busy(path, how, &why))
		rc = check_closed(&c, path, &why, err);
	else
		rc = npk_fail(err, why.code, "%s", why.msg);
	npk_store_close(c.s);
	npki_names_fini(&c.used);
	npki_names_fini(&c.files);
	*ndamage = c.notes.ndamage;
	return rc;
}

int npk_store_verify(const char *path, npk_finding_fn *fn, void *ctx, uint64_t *ndamage, struct npk_err *err)
{
	return npk_verify(path, &(struct npk_verify){0}, fn, ctx, ndamage, err);
}
