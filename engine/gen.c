/* gen.c - loading a generation: the entry, the data files and the bitmap must fit together, or the array is damaged. */
#include "bitmap.h"
#include "manifest.h"
#include "store.h"
#include "text.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MANIFEST_MAX ((size_t)1 << 28)
#define TORN_READS 5 /* a bitmap that changes while it is read is read again so often */

struct npk_gen *npk_gen_ref(struct npk_gen *g)
{
	atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
	return g;
}

void npk_gen_put(struct npk_gen *g)
{
	if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < g->nsegs; i++)
		if (g->seg[i].map_len)
			munmap((void *)g->seg[i].base, g->seg[i].map_len);
	for (size_t i = 0; i < g->nsources; i++)
		free(g->source[i].path);
	npki_rowmap_free(g->live);
	pthread_mutex_destroy(&g->map_lock);
	if (g->store)
		npki_store_put(g->store);
	free(g->seg);
	free(g->source);
	free(g);
}

const struct npk_gen_info *npk_gen_info(const struct npk_gen *g)
{
	return &g->info;
}

static int no_memory(const struct npk_gen *g, struct npk_err *err)
{
	return npk_fail(err, ENOMEM, "array '%.200s': no memory for its layout", g->name);
}

/* Room for `nsegs` data files, the bitmap and a manifest. */
static int alloc_segs(struct npk_gen *g, size_t nsegs, struct npk_err *err)
{
	g->seg = calloc(nsegs ? nsegs : 1, sizeof(*g->seg));
	g->source = calloc(nsegs + 2, sizeof(*g->source));
	return g->seg && g->source ? 0 : no_memory(g, err);
}

static int add_source(struct npk_gen *g, const char *path, const struct npki_file_id *id, struct npk_err *err)
{
	struct npki_source *s = &g->source[g->nsources];

	s->path = strdup(path);
	if (!s->path)
		return no_memory(g, err);
	s->id = *id;
	g->nsources++;
	return 0;
}

static void use_owner(struct npk_gen *g, const struct stat *st)
{
	g->info.mode = st->st_mode & 07777;
	g->info.uid = st->st_uid;
	g->info.gid = st->st_gid;
}

/* A missing file damages the array: it is not the caller who asked for something that is not there. */
static int damaged_if_missing(int rc, struct npk_err *err)
{
	if (rc == -ENOENT && err)
		err->code = EUCLEAN;
	return rc == -ENOENT ? -EUCLEAN : rc;
}

static int add_data_file(
	struct npk_gen *g, const char *path, uint64_t nslots, uint64_t need, uint64_t *size, struct npk_err *err)
{
	struct npki_seg *seg = &g->seg[g->nsegs];
	struct npki_file_id id;
	struct stat st;
	int fd, rc = damaged_if_missing(npki_open_file(g->store->dirfd, path, &fd, &st, err), err);

	if (rc != 0)
		return rc;
	close(fd);
	if ((uint64_t)st.st_size < need)
		return npk_fail(err, EUCLEAN, "%.300s: byte %jd: the file ends here, the shape needs %" PRIu64 " bytes",
			path, (intmax_t)st.st_size, need);
	if (g->nsegs == 0)
		use_owner(g, &st);
	id = npki_file_id_of(&st);
	rc = add_source(g, path, &id, err);
	if (rc != 0)
		return rc;
	seg->first = g->nsegs ? seg[-1].first + seg[-1].nslots : 0;
	seg->nslots = nslots;
	seg->map_len = 0;
	g->nsegs++;
	g->info.blocks += (uint64_t)st.st_blocks;
	*size = (uint64_t)st.st_size;
	return 0;
}

static int load_one_file(
	struct npk_gen *g, const struct npki_entry *e, uint64_t *held, struct npki_notes *notes, struct npk_err *err)
{
	uint64_t need = g->info.slots * g->info.row_bytes, size;
	int rc = alloc_segs(g, 1, err);

	if (rc == 0)
		rc = add_data_file(g, e->file, g->info.slots, need, &size, err);
	if (rc != 0)
		return rc;
	if (size > need)
		npki_note(notes, NPK_NOTE, "%.300s: byte %" PRIu64 ": %" PRIu64 " bytes follow the last row", e->file,
			need, size - need);
	*held = g->info.row_bytes ? size / g->info.row_bytes : UINT64_MAX;
	return 0;
}

/* Segments without rows are passed over, and rows beyond the array's: an append was interrupted. */
static int load_segments(struct npk_gen *g, const struct npki_manifest *m, struct npk_err *err)
{
	uint64_t left = g->info.slots, size;
	int rc = alloc_segs(g, m->nsegs, err);

	for (size_t i = 0; i < m->nsegs && rc == 0; i++) {
		uint64_t n = m->seg[i].rows < left ? m->seg[i].rows : left;

		if (m->seg[i].rows == 0)
			continue;
		rc = add_data_file(g, m->seg[i].file, n, m->seg[i].bytes, &size, err);
		left -= n;
	}
	return rc;
}

/* *id is that of the list which was read: a newer one in its place must not pass for it. */
static int load_manifest(struct npk_gen *g, const struct npki_entry *e, uint64_t *held, struct npki_file_id *id,
	struct npki_notes *notes, struct npk_err *err)
{
	struct npki_manifest m = {0};
	uint8_t *buf = NULL;
	size_t len;
	int rc = damaged_if_missing(npki_read_file(g->store->dirfd, e->file, MANIFEST_MAX, &buf, &len, id, err), err);

	if (rc == 0)
		rc = npki_manifest_parse(buf, len, e->file, &m, err);
	if (rc == 0)
		rc = npki_manifest_check(&m, e->file, g->info.slots, g->info.row_bytes, held, err);
	if (rc == 0)
		rc = load_segments(g, &m, err);
	if (rc == 0 && *held > g->info.slots)
		npki_note(notes, NPK_WARNING,
			"%.300s: holds %" PRIu64 " rows, the array has %" PRIu64 ": an append was interrupted", e->file,
			*held, g->info.slots);
	free(buf);
	npki_manifest_fini(&m);
	return rc;
}

struct bitmap_read {
	int fd;
	uint64_t words_at;
	const char *path;
	struct npk_err *err;
};

static int read_words(void *ctx, uint64_t first, uint64_t *words, size_t nwords)
{
	struct bitmap_read *r = ctx;
	int rc = npki_pread_all(r->fd, words, nwords * 8, r->words_at + first / 8, r->path, r->err);

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	for (size_t i = 0; i < nwords && rc == 0; i++)
		words[i] = __builtin_bswap64(words[i]);
#endif
	return rc;
}

/* Reads the open bitmap file once. */
static int read_bitmap(struct npk_gen *g, struct bitmap_read *r, const struct stat *st, uint64_t held,
	struct npki_notes *notes, struct npk_err *err)
{
	struct npki_bitmap_form form;
	uint8_t head[NPKI_BITMAP_HEAD] = {0};
	uint64_t len = (uint64_t)st->st_size;
	bool padding = false;
	int rc = npki_pread_all(r->fd, head, len < sizeof(head) ? (size_t)len : sizeof(head), 0, r->path, err);

	if (rc == 0)
		rc = npki_bitmap_form(head, len, g->info.slots, held, r->path, &form, notes, err);
	if (rc != 0)
		return rc;
	r->words_at = form.words_at;
	rc = npki_rowmap_build(&g->live, g->info.slots, read_words, r, &padding);
	if (rc == -ENOMEM)
		return no_memory(g, err);
	if (rc != 0)
		return rc;
	if (form.header && form.rows == g->info.slots && form.deleted != g->live->nslots - g->live->nlive)
		npki_note(notes, NPK_WARNING, "%.300s: byte 8: deleted count %" PRIu64 ", the bits say %" PRIu64,
			r->path, form.deleted, g->live->nslots - g->live->nlive);
	if (padding && form.rows == g->info.slots)
		npki_note(notes, NPK_WARNING, "%.300s: byte %" PRIu64 ": bits beyond the last row are set", r->path,
			form.words_at + g->info.slots / 64 * 8);
	return 0;
}

/* A bitmap that another process writes meanwhile is read again until it holds still. */
static int load_bitmap(
	struct npk_gen *g, const char *path, uint64_t held, struct npki_notes *notes, struct npk_err *err)
{
	struct npki_file_id before, after;
	struct bitmap_read r = {.path = path, .err = err};
	uint64_t blocks = 0;
	struct stat st;
	int rc;

	for (int i = 0; i < TORN_READS; i++) {
		rc = npki_open_file(g->store->dirfd, path, &r.fd, &st, err);
		if (rc == -ENOENT) {
			after = (struct npki_file_id){0};
			return add_source(g, path, &after, err);
		}
		if (rc != 0)
			return rc;
		before = npki_file_id_of(&st);
		blocks = (uint64_t)st.st_blocks;
		rc = read_bitmap(g, &r, &st, held, notes, err);
		after = before;
		if (fstat(r.fd, &st) == 0)
			after = npki_file_id_of(&st);
		close(r.fd);
		if (npki_file_id_same(&before, &after))
			break;
		npki_rowmap_free(g->live);
		g->live = NULL;
		rc = npk_fail(err, EUCLEAN, "%.300s: changes while it is read", path);
		usleep(1000);
	}
	g->info.blocks += blocks;
	return rc == 0 ? add_source(g, path, &before, err) : rc;
}

static int load_rows(
	struct npk_gen *g, const struct npki_entry *e, uint64_t held, struct npki_notes *notes, struct npk_err *err)
{
	char *path;
	int rc;

	if (e->shape.ndim == 0) { /* a scalar never has a bitmap */
		struct npki_file_id none = {0};

		g->info.rows = 1;
		return add_source(g, "", &none, err);
	}
	if (asprintf(&path, "deleted_%s.npkb", g->name) < 0)
		return no_memory(g, err);
	rc = load_bitmap(g, path, held, notes, err);
	free(path);
	if (rc != 0)
		return rc;
	g->info.rows = g->live ? g->live->nlive : g->info.slots;
	g->info.shape.dim[0] = g->info.rows;
	if (g->live && g->live->nlive == g->live->nslots) { /* identity costs nothing */
		npki_rowmap_free(g->live);
		g->live = NULL;
	}
	return 0;
}

/* A name that ends in .npkseg says that the file is a list of segments. */
static bool is_manifest(const char *file)
{
	size_t n = strlen(file);

	return n >= 7 && strcmp(file + n - 7, ".npkseg") == 0;
}

static int load(struct npk_gen *g, const struct npki_entry *e, struct npki_notes *notes, struct npk_err *err)
{
	struct npki_file_id id;
	uint64_t bytes, held = 0;
	int rc;

	if (e->damage)
		return npk_fail(err, e->damage, "%s", e->why);
	g->info.dtype = e->dtype;
	g->info.mtime_us = e->mtime_us;
	g->info.shape = e->shape;
	g->info.slots = e->shape.ndim ? e->shape.dim[0] : 1;
	if (npki_shape_bytes(&e->shape, npk_dtype_size(e->dtype), &g->info.row_bytes, &bytes) != 0)
		return npk_fail(err, EUCLEAN, "array '%.200s': the shape overflows", g->name);
	if (!is_manifest(e->file)) {
		rc = load_one_file(g, e, &held, notes, err);
		return rc == 0 ? load_rows(g, e, held, notes, err) : rc;
	}
	rc = load_manifest(g, e, &held, &id, notes, err);
	if (rc == 0)
		rc = load_rows(g, e, held, notes, err);
	return rc == 0 ? add_source(g, e->file, &id, err) : rc;
}

int npki_gen_load(struct npk_gen **out, struct npk_store *s, const char *name, size_t name_len,
	const struct npki_entry *e, struct npki_notes *notes, struct npk_err *err)
{
	struct npk_gen *g = calloc(1, sizeof(*g) + name_len + 1);
	int rc;

	if (!g)
		return npk_fail(err, ENOMEM, "array '%.200s': no memory", name);
	g->refs = 1;
	memcpy(g->name, name, name_len);
	pthread_mutex_init(&g->map_lock, NULL);
	g->store = s;
	npki_store_ref(s);
	rc = load(g, e, notes, err);
	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	g->info.number = atomic_fetch_add_explicit(&s->next_gen, 1, memory_order_relaxed);
	*out = g;
	return 0;
}

bool npki_gen_is_current(struct npk_gen *g)
{
	struct npki_file_id id;

	for (size_t i = 0; i < g->nsources; i++)
		if (g->source[i].path[0] && (npki_stat_file(g->store->dirfd, g->source[i].path, &id, NULL) != 0 ||
						    !npki_file_id_same(&id, &g->source[i].id)))
			return false;
	return true;
}

/* The file must be the one whose size was checked; what has been appended since is no harm. */
static int map_segment(struct npk_gen *g, size_t i, struct npk_err *err)
{
	const struct npki_source *src = &g->source[i];
	struct npki_seg *seg = &g->seg[i];
	uint64_t need = seg->nslots * g->info.row_bytes;
	struct stat st;
	void *p;
	int fd, rc;

	if (need == 0) {
		seg->base = (const uint8_t *)""; /* no byte of it is ever read */
		return 0;
	}
	rc = npki_open_file(g->store->dirfd, src->path, &fd, &st, err);
	if (rc == -ENOENT)
		return npk_fail(err, ESTALE, "%.300s: was removed since the store was read", src->path);
	if (rc != 0)
		return rc;
	if (st.st_ino != src->id.ino || st.st_dev != src->id.dev || (uint64_t)st.st_size < need) {
		close(fd);
		return npk_fail(err, ESTALE, "%.300s: was replaced since the store was read", src->path);
	}
	p = mmap(NULL, (size_t)need, PROT_READ, MAP_SHARED, fd, 0);
	rc = p == MAP_FAILED ? npk_fail(err, errno, "%.300s: cannot be mapped: %s", src->path, strerror(errno)) : 0;
	close(fd);
	if (rc != 0)
		return rc;
	seg->base = p;
	seg->map_len = (size_t)need;
	return 0;
}

int npk_gen_map(struct npk_gen *g, struct npk_err *err)
{
	int rc = 0;

	if (atomic_load_explicit(&g->mapped, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&g->map_lock);
	for (size_t i = 0; i < g->nsegs && rc == 0; i++)
		if (!g->seg[i].base)
			rc = map_segment(g, i, err);
	if (rc == 0)
		atomic_store_explicit(&g->mapped, true, memory_order_release);
	pthread_mutex_unlock(&g->map_lock);
	return rc;
}
