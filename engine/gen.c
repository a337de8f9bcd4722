/* gen.c - loading a generation: the entry, the data files and the bitmap must fit together, or the array is damaged. */
#include "bitmap.h"
#include "manifest.h"
#include "names.h"
#include "pkg_store.h"
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
		npki_file_put(g->seg[i].file);
	for (size_t i = 0; i < g->nsources; i++)
		free(g->source[i].path);
	npki_rowmap_put(g->live);
	pthread_mutex_destroy(&g->map_lock);
	if (g->store)
		npki_store_put(g->store);
	free(g->seg);
	free(g);
}

void npk_gen_keep(struct npk_gen *g)
{
	for (size_t i = 0; i < g->nsegs; i++)
		npki_file_keep(g->seg[i].file);
	npk_gen_ref(g);
}

void npk_gen_unkeep(struct npk_gen *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->nsegs; i++)
		npki_file_unkeep(g->seg[i].file);
	npk_gen_put(g);
}

const struct npk_gen_info *npk_gen_info(const struct npk_gen *g)
{
	return &g->info;
}

static int no_memory(const struct npk_gen *g, struct npk_err *err)
{
	return npk_fail(err, ENOMEM, "array '%.200s': no memory for its layout", g->name);
}

static int alloc_segs(struct npk_gen *g, size_t nsegs, struct npk_err *err)
{
	g->seg = calloc(nsegs ? nsegs : 1, sizeof(*g->seg));
	return g->seg ? 0 : no_memory(g, err);
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

/* Looks at a data file; of a package's member `st` has the size, and the owner and mode of the package. */
static int look_at(struct npk_store *s, const char *path, struct stat *st, struct npk_err *err)
{
	const struct npki_member *m;
	int fd, rc;

	if (!s->packed) {
		rc = npki_open_file(s->dirfd, path, &fd, st, err);
		if (rc == 0)
			close(fd);
		return rc;
	}
	m = npki_package_find(npki_packed_package(s->packed), path);
	if (!m)
		return npk_fail(err, ENOENT, "%.300s: is not in the package", path);
	*st = npki_packed_package(s->packed)->st;
	st->st_size = (off_t)m->original;
	st->st_blocks = (blkcnt_t)((m->len + 511) / 512);
	return 0;
}

static int add_data_file(
	struct npk_gen *g, const char *path, uint64_t nslots, uint64_t need, uint64_t *size, struct npk_err *err)
{
	struct npki_seg *seg = &g->seg[g->nsegs];
	struct npki_file_id id;
	struct stat st;
	int rc = damaged_if_missing(look_at(g->store, path, &st, err), err);

	if (rc != 0)
		return rc;
	if ((uint64_t)st.st_size < need)
		return npk_fail(err, EUCLEAN, "%.300s: byte %jd: the file ends here, the shape needs %" PRIu64 " bytes",
			path, (intmax_t)st.st_size, need);
	if (g->nsegs == 0)
		use_owner(g, &st);
	id = npki_file_id_of(&st);
	rc = npki_file_new(&seg->file, g->store->dirfd, path, &id, err);
	if (rc != 0)
		return rc;
	seg->file->packed = g->store->packed;
	seg->first = g->nsegs ? seg[-1].first + seg[-1].nslots : 0;
	seg->nslots = nslots;
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
	uint64_t begin; /* of the bitmap in the file, when that is a package */
	uint64_t words_at;
	const char *path;
	struct npk_err *err;
};

static int read_words(void *ctx, uint64_t first, uint64_t *words, size_t nwords)
{
	struct bitmap_read *r = ctx;
	int rc = npki_pread_all(r->fd, words, nwords * 8, r->begin + r->words_at + first / 8, r->path, r->err);

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
	int rc = npki_pread_all(r->fd, head, len < sizeof(head) ? (size_t)len : sizeof(head), r->begin, r->path, err);

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
		npki_rowmap_put(g->live);
		g->live = NULL;
		rc = npk_fail(err, EUCLEAN, "%.300s: changes while it is read", path);
		usleep(1000);
	}
	g->info.blocks += blocks;
	return rc == 0 ? add_source(g, path, &before, err) : rc;
}

static void use_live(struct npk_gen *g)
{
	g->info.rows = g->live ? g->live->nlive : g->info.slots;
	if (g->info.shape.ndim)
		g->info.shape.dim[0] = g->info.rows;
	if (g->live && g->live->nlive == g->live->nslots) { /* identity costs nothing */
		npki_rowmap_put(g->live);
		g->live = NULL;
	}
}

/* A package's bitmap does not change. */
static int load_packed_bitmap(
	struct npk_gen *g, const char *path, uint64_t held, struct npki_notes *notes, struct npk_err *err)
{
	struct bitmap_read r = {.path = path, .err = err};
	struct npki_file_id none = {0};
	struct stat st = {0};
	uint64_t len;
	int rc = npki_packed_member(g->store->packed, path, &r.fd, &r.begin, &len, err);

	if (rc == -ENOENT)
		return add_source(g, path, &none, err);
	if (rc != 0)
		return rc;
	st.st_size = (off_t)len;
	rc = read_bitmap(g, &r, &st, held, notes, err);
	close(r.fd);
	return rc;
}

static int load_rows(
	struct npk_gen *g, const struct npki_layout *from, uint64_t held, struct npki_notes *notes, struct npk_err *err)
{
	char *path;
	int rc;

	if (from->known) {
		g->live = npki_rowmap_ref(from->live);
		use_live(g);
		return 0;
	}
	if (from->entry->shape.ndim == 0) { /* a scalar never has a bitmap */
		struct npki_file_id none = {0};

		g->info.rows = 1;
		return add_source(g, "", &none, err);
	}
	path = npki_bitmap_file(g->name);
	if (!path)
		return no_memory(g, err);
	rc = g->store->packed ? load_packed_bitmap(g, path, held, notes, err) : load_bitmap(g, path, held, notes, err);
	free(path);
	if (rc != 0)
		return rc;
	use_live(g);
	return 0;
}

/* A name that ends in .npkseg says that the file is a list of segments. */
bool npki_is_manifest(const char *file)
{
	size_t n = strlen(file);

	return n >= 7 && strcmp(file + n - 7, ".npkseg") == 0;
}

static int load(struct npk_gen *g, const struct npki_layout *from, struct npki_notes *notes, struct npk_err *err)
{
	const struct npki_entry *e = from->entry;
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
	if (!npki_is_manifest(e->file)) {
		rc = load_one_file(g, e, &held, notes, err);
		return rc == 0 ? load_rows(g, from, held, notes, err) : rc;
	}
	g->segmented = true;
	rc = load_manifest(g, e, &held, &id, notes, err);
	if (rc == 0)
		rc = load_rows(g, from, held, notes, err);
	return rc == 0 ? add_source(g, e->file, &id, err) : rc;
}

static uint64_t new_moment(void)
{
	static _Atomic uint64_t last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

static uint64_t new_number(struct npk_store *s)
{
	return atomic_fetch_add_explicit(&(s->base ? s->base : s)->next_gen, 1, memory_order_relaxed);
}

int npki_gen_load(struct npk_gen **out, struct npk_store *s, const char *name, size_t name_len,
	const struct npki_layout *from, struct npki_notes *notes, struct npk_err *err)
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
	rc = load(g, from, notes, err);
	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	g->info.number = g->rows_id = new_number(s);
	g->info.moment = new_moment();
	*out = g;
	return 0;
}

/* All but the segments, for which there is room. */
static struct npk_gen *derive(struct npk_gen *old, const struct npki_layout *to, size_t nsegs, bool same_number)
{
	size_t name = strlen(old->name) + 1;
	struct npk_gen *g;

	g = calloc(1, sizeof(*g) + name);
	if (!g || alloc_segs(g, nsegs, NULL) != 0) {
		free(g);
		return NULL;
	}
	g->refs = 1;
	memcpy(g->name, old->name, name);
	pthread_mutex_init(&g->map_lock, NULL);
	g->store = old->store;
	npki_store_ref(g->store);
	g->info = old->info;
	g->info.moment = new_moment();
	g->info.shape = to->entry->shape;
	g->info.slots = to->entry->shape.ndim ? to->entry->shape.dim[0] : 1;
	g->info.mtime_us = to->entry->mtime_us;
	g->live = npki_rowmap_ref(to->live);
	use_live(g);
	g->segmented = old->segmented;
	g->rows_id = old->rows_id;
	if (!same_number)
		g->info.number = new_number(g->store);
	return g;
}

/* The files of `old`, whose last one may have more slots now. */
static void copy_segs(struct npk_gen *g, const struct npk_gen *old)
{
	for (size_t i = 0; i < old->nsegs; i++)
		g->seg[i] =
			(struct npki_seg){old->seg[i].first, old->seg[i].nslots, NULL, npki_file_ref(old->seg[i].file)};
	g->nsegs = old->nsegs;
}

struct npk_gen *npki_gen_derive(struct npk_gen *old, const struct npki_layout *to, bool same_number)
{
	uint64_t slots = to->entry->shape.ndim ? to->entry->shape.dim[0] : 1;
	bool one = !old->segmented && old->nsegs == 1;
	struct npk_gen *g;

	if (slots != old->info.slots && (!one || strcmp(old->seg[0].file->path, to->entry->file) != 0))
		return NULL;
	g = derive(old, to, old->nsegs, same_number);
	if (!g)
		return NULL;
	copy_segs(g, old);
	if (one)
		g->seg[0].nslots = slots;
	return g;
}

struct npk_gen *npki_gen_refile(struct npk_gen *old, const struct npki_layout *to)
{
	struct npki_file_id id;
	struct npk_gen *g;

	if (old->segmented || old->nsegs != 1 || npki_is_manifest(to->entry->file) ||
		npki_stat_file(old->store->dirfd, to->entry->file, &id, NULL) != 0 || !id.exists ||
		id.ino != old->seg[0].file->id.ino)
		return NULL;
	g = derive(old, to, 1, true);
	if (!g || npki_file_new(&g->seg[0].file, old->store->dirfd, to->entry->file, &id, NULL) != 0) {
		npk_gen_put(g);
		return NULL;
	}
	g->seg[0].nslots = g->info.slots;
	g->nsegs = 1;
	if (npki_file_share(g->seg[0].file, old->seg[0].file, NULL) != 0) {
		npk_gen_put(g);
		return NULL;
	}
	return g;
}

struct npk_gen *npki_gen_with_tail(
	struct npk_gen *old, const struct npki_layout *to, struct npki_file *tail, uint64_t first)
{
	struct npk_gen *g = derive(old, to, old->nsegs + 1, true);

	if (!g)
		return NULL;
	copy_segs(g, old);
	if (g->nsegs == 0 || g->seg[g->nsegs - 1].file != tail)
		g->seg[g->nsegs++].file = npki_file_ref(tail);
	g->seg[g->nsegs - 1].first = first;
	g->seg[g->nsegs - 1].nslots = g->info.slots - first;
	return g;
}

bool npk_gen_shares(const struct npk_gen *a, const struct npk_gen *b)
{
	const struct npki_file_id *x, *y;

	if (a->rows_id == b->rows_id)
		return true;
	if (a->nsegs == 0 || b->nsegs == 0)
		return false;
	x = &a->seg[0].file->id;
	y = &b->seg[0].file->id;
	return x->ino == y->ino && x->dev == y->dev;
}

static bool is_same(struct npk_gen *g, const char *path, const struct npki_file_id *id)
{
	struct npki_file_id now;

	return npki_stat_file(g->store->dirfd, path, &now, NULL) == 0 && npki_file_id_same(&now, id);
}

const struct npki_file_id *npki_gen_bitmap_id(const struct npk_gen *g)
{
	for (size_t i = 0; i < g->nsources; i++)
		if (strncmp(g->source[i].path, "deleted_", 8) == 0 && !npki_is_manifest(g->source[i].path))
			return &g->source[i].id;
	return NULL;
}

bool npki_gen_is_current(struct npk_gen *g)
{
	if (g->store->packed)
		return true;
	for (size_t i = 0; i < g->nsegs; i++)
		if (!is_same(g, g->seg[i].file->path, &g->seg[i].file->id))
			return false;
	for (size_t i = 0; i < g->nsources; i++)
		if (!is_same(g, g->source[i].path, &g->source[i].id))
			return false;
	return true;
}

#define MAP_MORE ((size_t)64 << 20) /* address space that a mapping keeps for appends, at least */

static int map_segment(struct npk_gen *g, size_t i, struct npk_err *err)
{
	struct npki_seg *seg = &g->seg[i];
	size_t need = seg->nslots * g->info.row_bytes, more = 0;

	if (need == 0) {
		seg->base = (const uint8_t *)""; /* no byte of it is ever read */
		return 0;
	}
	if (g->store->writer && !g->segmented)
		more = need > MAP_MORE ? need : MAP_MORE;
	return npki_file_map(seg->file, need, more, &seg->base, err);
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
	if (rc == -ESTALE)
		npki_look_again(g->store); /* so that whoever asks for the array now gets what is there */
	return rc;
}
