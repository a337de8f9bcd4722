/* save.c - whole arrays: save at once or piece by piece, remove, clone, rename, compact, reset. */
#include "change.h"
#include "rows.h"
#include "sink.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 239 /* so that every later operation of NumPack finds room for its suffixes */
#define COPY_BYTES ((size_t)1 << 20)
#define WRITE_BEHIND ((uint64_t)16 << 20) /* bytes after which the disk begins */

static int check_name(const char *name, struct npk_err *err)
{
	size_t n = strlen(name);

	if (strchr(name, '/'))
		return npk_fail(err, EINVAL, "name '%.200s': NumPack cannot store a name with '/'", name);
	if (n > NAME_MAX_BYTES)
		return npk_fail(err, EINVAL, "name '%.100s...': %zu bytes, at most %d work", name, n, NAME_MAX_BYTES);
	if (strncmp(name, ".npk-", 5) == 0)
		return npk_fail(err, EINVAL, "name '%.200s': names that begin with '.npk-' are taken", name);
	if (!npki_is_utf8(name, n))
		return npk_fail(err, EINVAL, "name: is not UTF-8");
	return 0;
}

static int check_shape(
	unsigned dtype, const struct npk_shape *shape, uint64_t *row_bytes, uint64_t *bytes, struct npk_err *err)
{
	if (dtype >= NPK_DTYPE_COUNT)
		return npk_fail(err, EINVAL, "dtype %u is unknown", dtype);
	if (shape->ndim == 0)
		return npk_fail(err, EINVAL, "0 dimensions: NumPack could not load such an array");
	if (shape->ndim > NPK_MAX_NDIM)
		return npk_fail(err, EINVAL, "%u dimensions, at most %d are possible", shape->ndim, NPK_MAX_NDIM);
	if (npki_shape_bytes(shape, npk_dtype_size(dtype), row_bytes, bytes) != 0)
		return npk_fail(err, EINVAL, "the shape overflows");
	return 0;
}

/* The new files, or `fd`, get mode and owner of the array that they replace; of a damaged one nothing is known. */
static int like_old(struct npki_tx *tx, const char *name, int fd, const char *path, struct npk_err *err)
{
	struct npk_array *a = npki_table_find(tx->s, name, strlen(name));
	struct npk_gen *g = NULL;
	int rc = 0;

	if (a && npk_gen_get(&g, a, NULL) == 0)
		rc = fd < 0 ? npki_same_owner(tx, 0, &g->info, err) : npki_same_owner_fd(fd, path, &g->info, err);
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static int save_once(struct npk_store *s, const char *name, unsigned dtype, const struct npk_shape *shape,
	const void *data, uint64_t row_bytes, uint64_t bytes, struct npk_err *err)
{
	struct npki_sink k = {.fd = -1};
	struct npki_tx tx;
	char path[64];
	int rc = npki_tx_begin(&tx, s, err);

	if (rc != 0)
		return rc;
	rc = npki_sink_init(&k, &tx, row_bytes, bytes, false, err);
	for (uint64_t at = 0; at < bytes && rc == 0; at += COPY_BYTES)
		rc = npki_sink_write(&k, (const uint8_t *)data + at,
			bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES, err);
	if (rc == 0)
		rc = npki_sink_finish(&k, path, err);
	npki_sink_fini(&k);
	if (rc == 0)
		rc = like_old(&tx, name, -1, NULL, err);
	if (rc == 0 && npki_tx_set(&tx, name, strlen(name), dtype, shape, path, npki_tick(s->writer)) != 0)
		rc = npk_fail(err, ENOMEM, "no memory");
	if (rc == 0)
		return npki_tx_commit(&tx, err);
	npki_tx_abort(&tx);
	return rc;
}

int npk_store_save(struct npk_store *s, const char *name, unsigned dtype, const struct npk_shape *shape,
	const void *data, struct npk_err *err)
{
	uint64_t row_bytes, bytes;
	int rc = check_name(name, err);

	if (rc == 0)
		rc = check_shape(dtype, shape, &row_bytes, &bytes, err);
	if (rc == 0)
		rc = save_once(s, name, dtype, shape, data, row_bytes, bytes, err);
	if (rc != 0 && npki_make_room(s, rc, err))
		rc = save_once(s, name, dtype, shape, data, row_bytes, bytes, err);
	return rc;
}

/* --- a save in pieces ------------------------------------------------------------------------------------------------- */

struct npk_save {
	struct npk_store *s; /* counted */
	unsigned dtype;
	struct npk_shape shape;
	uint64_t row_bytes, end; /* end: of what was written */
	uint64_t begun;          /* so far the disk was told to begin, while nothing came out of order */
	uint32_t crc;            /* of [0, end) likewise */
	bool ordered;
	bool has_mode, has_owner; /* set by the caller */
	bool full;                /* the disk is */
	int fd;
	char path[64];
};

/* The file gets its name under the lock, then belongs to the handle. */
static int make_file(struct npk_save *w, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = npki_tx_begin(&tx, w->s, err);

	if (rc != 0)
		return rc;
	rc = npki_tx_create(&tx, ".npkd", w->path, &w->fd, err);
	if (rc == 0)
		npki_names_fini(&tx.created);
	npki_tx_abort(&tx);
	return rc;
}

int npk_save_open(
	struct npk_save **out, struct npk_store *s, unsigned dtype, const struct npk_shape *shape, struct npk_err *err)
{
	uint64_t row_bytes, bytes;
	struct npk_save *w;
	int rc = check_shape(dtype, shape, &row_bytes, &bytes, err);

	if (rc != 0)
		return rc;
	w = calloc(1, sizeof(*w));
	if (!w)
		return npk_fail(err, ENOMEM, "no memory");
	*w = (struct npk_save){
		.s = s, .dtype = dtype, .shape = *shape, .row_bytes = row_bytes, .ordered = true, .fd = -1};
	npki_store_ref(s);
	rc = make_file(w, err);
	if (rc != 0)
		npk_save_abort(w);
	else
		*out = w;
	return rc;
}

int npk_save_pwrite(struct npk_save *w, uint64_t off, const void *bytes, size_t len, struct npk_err *err)
{
	int rc = npki_pwrite_all(w->fd, bytes, len, off, w->path, err);

	if (rc == -ENOSPC || rc == -EDQUOT) {
		if (off + len > w->end) /* a part of it came there */
			npki_truncate(w->fd, w->end, w->path, NULL);
		w->full = !npki_make_room(w->s, rc, err);
		if (!w->full)
			rc = npki_pwrite_all(w->fd, bytes, len, off, w->path, err);
	}
	if (rc != 0)
		return rc;
	w->ordered &= off == w->end;
	if (w->ordered)
		w->crc = npki_crc32c(w->crc, bytes, len);
	if (off + len > w->end)
		w->end = off + len;
	if (w->ordered && w->end - w->begun >= WRITE_BEHIND) {
		npki_begin_sync(w->fd, w->begun, w->end - w->begun);
		w->begun = w->end;
	}
	return 0;
}

int npk_save_write(struct npk_save *w, const void *bytes, size_t len, struct npk_err *err)
{
	return npk_save_pwrite(w, w->end, bytes, len, err);
}

int npk_save_pread(struct npk_save *w, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	if (off > w->end || len > w->end - off)
		return npk_fail(err, ERANGE, "save: bytes %" PRIu64 " + %zu of %" PRIu64, off, len, w->end);
	return npki_pread_all(w->fd, buf, len, off, w->path, err);
}

uint64_t npk_save_length(const struct npk_save *w)
{
	return w->end;
}

int npk_save_truncate(struct npk_save *w, uint64_t len, struct npk_err *err)
{
	int rc = npki_truncate(w->fd, len, w->path, err);

	if (rc == 0) {
		w->ordered &= len == w->end;
		w->end = len;
	}
	return rc;
}

/* The checksum of a file that was written out of order. */
static int read_crc(struct npk_save *w, struct npk_err *err)
{
	uint8_t *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : npk_fail(err, ENOMEM, "no memory");

	w->crc = 0;
	for (uint64_t at = 0; at < w->end && rc == 0; at += COPY_BYTES) {
		size_t n = w->end - at < COPY_BYTES ? (size_t)(w->end - at) : COPY_BYTES;

		rc = npki_pread_all(w->fd, buf, n, at, w->path, err);
		if (rc == 0)
			w->crc = npki_crc32c(w->crc, buf, n);
	}
	free(buf);
	return rc;
}

/* Rows that were never written are zeros: the file is as long as the shape says. */
static int whole_rows(struct npk_save *w, struct npk_err *err)
{
	if (w->row_bytes && w->end % w->row_bytes != 0)
		return npk_fail(err, EINVAL, "save: %" PRIu64 " bytes are no whole number of rows of %" PRIu64, w->end,
			w->row_bytes);
	if (w->row_bytes)
		w->shape.dim[0] = w->end / w->row_bytes;
	return 0;
}

int npk_save_set_mode(struct npk_save *w, mode_t mode, struct npk_err *err)
{
	if (fchmod(w->fd, mode & 07777) != 0)
		return npk_fail(err, errno, "%s: cannot change the mode: %s", w->path, strerror(errno));
	w->has_mode = true;
	return 0;
}

int npk_save_set_owner(struct npk_save *w, uid_t uid, gid_t gid, struct npk_err *err)
{
	if (fchown(w->fd, uid, gid) != 0)
		return npk_fail(err, errno, "%s: cannot change the owner: %s", w->path, strerror(errno));
	w->has_owner = true;
	return 0;
}

int npki_save_source(struct npk_save *w, struct npki_source_file *out, struct npk_err *err)
{
	int rc = w->ordered ? 0 : read_crc(w, err);

	if (rc == 0)
		*out = (struct npki_source_file){w->s, w->path, w->fd, w->end, w->crc};
	return rc;
}

void npki_save_give(struct npk_save *w)
{
	w->path[0] = 0;
}

int npk_save_commit(struct npk_save *w, const char *name, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = check_name(name, err);

	if (rc == 0)
		rc = whole_rows(w, err);
	if (rc == 0 && !w->ordered)
		rc = read_crc(w, err);
	if (rc == 0)
		rc = npki_tx_begin(&tx, w->s, err);
	if (rc != 0) {
		npk_save_abort(w);
		return rc;
	}
	rc = npki_tx_extent(&tx, w->path, 0, w->end, w->crc, err);
	if (rc == 0 && !w->has_mode && !w->has_owner)
		rc = like_old(&tx, name, w->fd, w->path, err);
	if (rc == 0 && npki_tx_set(&tx, name, strlen(name), w->dtype, &w->shape, w->path, npki_tick(w->s->writer)) != 0)
		rc = npk_fail(err, ENOMEM, "no memory");
	if (rc == 0 && npki_names_add(&tx.created, w->path) != 0)
		rc = npk_fail(err, ENOMEM, "no memory");
	if (rc == 0)
		rc = npki_tx_log(&tx, err);
	if (rc == 0)
		w->path[0] = 0; /* the file belongs to the store */
	npki_tx_end(&tx);
	npk_save_abort(w);
	return rc;
}

void npk_save_abort(struct npk_save *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		close(w->fd);
	if (w->path[0] && !w->s->writer->failed)         /* then a record may name it; recovery knows */
		npki_unlink(w->s->dirfd, w->path, NULL); /* one that stays carries our nonce: recovery takes it */
	if (w->full) /* there was none even for a checkpoint; now there may be, and the next one finds it */
		npki_make_room(w->s, -ENOSPC, NULL);
	npki_store_put(w->s);
	free(w);
}

/* --- other changes of whole arrays ------------------------------------------------------------------------------------ */

/* The live rows of a generation into new files. */
static int copy_rows(struct npki_tx *tx, struct npk_gen *g, char path[64], struct npk_err *err)
{
	struct npki_sink k = {.fd = -1};
	struct npk_view *v = NULL;
	uint8_t *buf = malloc(COPY_BYTES);
	uint64_t bytes = g->info.rows * g->info.row_bytes;
	size_t n;
	int rc = buf ? npk_view_open(&v, g, NULL, err) : npk_fail(err, ENOMEM, "no memory");

	if (rc == 0)
		rc = npki_sink_init(&k, tx, g->info.row_bytes, bytes, g->segmented, err);
	for (uint64_t at = 0; at < bytes && rc == 0; at += n) {
		n = bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES;
		rc = npk_view_read(v, at, buf, n, err);
		if (rc == 0)
			rc = npki_sink_write(&k, buf, n, err);
	}
	if (rc == 0)
		rc = npki_sink_finish(&k, path, err);
	npki_sink_fini(&k);
	npk_view_close(v);
	free(buf);
	return rc;
}

/* Under the writer's lock: the generation that a change builds on. */
static int current(struct npk_store *s, const char *name, struct npk_gen **g, struct npk_err *err)
{
	struct npk_array *a;
	int rc = npk_array_get(&a, s, name, err);

	if (rc == 0) {
		rc = npk_gen_get(g, a, err);
		npk_array_put(a);
	}
	return rc;
}

static int end(struct npki_tx *tx, int rc, struct npk_err *err)
{
	if (rc == 0)
		return npki_tx_commit(tx, err);
	npki_tx_abort(tx);
	return rc;
}

int npk_array_compact(struct npk_array *a, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npki_tx tx;
	char path[64];
	int rc = npki_tx_begin(&tx, a->store, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(&g, a, err);
	if (rc == 0 && !g->live) { /* nothing is deleted */
		npki_tx_abort(&tx);
		npk_gen_put(g);
		return 0;
	}
	if (rc == 0)
		rc = copy_rows(&tx, g, path, err);
	if (rc == 0)
		rc = npki_same_owner(&tx, 0, &g->info, err);
	if (rc == 0 && npki_tx_set(&tx, a->name, a->name_len, g->info.dtype, &g->info.shape, path,
			       npki_tick(a->store->writer)) != 0)
		rc = npk_fail(err, ENOMEM, "no memory");
	for (size_t i = 0; rc == 0 && i < g->nsegs; i++)
		atomic_store(&g->seg[i].file->inode->compacted, true);
	npk_gen_put(g);
	return end(&tx, rc, err);
}

int npk_store_remove(struct npk_store *s, const char *name, struct npk_err *err)
{
	struct npk_array *a = NULL;
	struct npki_tx tx;
	int rc = npki_tx_begin(&tx, s, err);

	if (rc != 0)
		return rc;
	rc = npk_array_get(&a, s, name, err);
	if (rc == 0)
		npki_tx_del(&tx, name, strlen(name));
	npk_array_put(a);
	return end(&tx, rc, err);
}

static bool is_there(struct npk_store *s, const char *name)
{
	struct npk_array *a = npki_table_find(s, name, strlen(name));

	npk_array_put(a);
	return a != NULL;
}

int npk_store_clone(struct npk_store *s, const char *from, const char *to, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npki_tx tx;
	char path[64];
	int rc = check_name(to, err);

	if (rc == 0)
		rc = npki_tx_begin(&tx, s, err);
	if (rc != 0)
		return rc;
	rc = current(s, from, &g, err);
	if (rc == 0 && is_there(s, to))
		rc = npk_fail(err, EEXIST, "array '%.200s' exists", to);
	if (rc == 0)
		rc = copy_rows(&tx, g, path, err);
	if (rc == 0 && npki_tx_set(&tx, to, strlen(to), g->info.dtype, &g->info.shape, path, npki_tick(s->writer)) != 0)
		rc = npk_fail(err, ENOMEM, "no memory");
	npk_gen_put(g);
	return end(&tx, rc, err);
}

int npk_store_rename(struct npk_store *s, const char *from, const char *to, unsigned flags, struct npk_err *err)
{
	static const char between[] = ".npk-exchange";
	struct npk_gen *g = NULL, *h = NULL;
	struct npki_tx tx;
	int rc = check_name(to, err);

	if (rc == 0 && flags > NPK_RENAME_EXCHANGE)
		rc = npk_fail(err, EINVAL, "rename: flags 0x%x make no sense", flags);
	if (rc == 0)
		rc = npki_tx_begin(&tx, s, err);
	if (rc != 0)
		return rc;
	rc = current(s, from, &g, err);
	if (rc == 0 && flags == NPK_RENAME_EXCHANGE)
		rc = current(s, to, &h, err);
	if (rc == 0 && flags == NPK_RENAME_NOREPLACE && is_there(s, to))
		rc = npk_fail(err, EEXIST, "array '%.200s' exists", to);
	npk_gen_put(g);
	npk_gen_put(h);
	if (rc == 0 && strcmp(from, to) == 0) {
		npki_tx_abort(&tx);
		return 0;
	}
	if (rc == 0 && flags == NPK_RENAME_EXCHANGE) {
		npki_tx_move(&tx, from, strlen(from), between, strlen(between));
		npki_tx_move(&tx, to, strlen(to), from, strlen(from));
		npki_tx_move(&tx, between, strlen(between), to, strlen(to));
	} else if (rc == 0) {
		npki_tx_move(&tx, from, strlen(from), to, strlen(to));
	}
	return end(&tx, rc, err);
}

int npk_store_reset(struct npk_store *s, struct npk_err *err)
{
	struct npk_array **list = NULL;
	struct npki_tx tx;
	size_t n = 0;
	int rc = npki_tx_begin(&tx, s, err);

	if (rc != 0)
		return rc;
	rc = npk_store_list(s, &list, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++)
		npki_tx_del(&tx, list[i]->name, list[i]->name_len);
	npk_store_list_free(list, n);
	if (rc == 0 && n == 0) {
		npki_tx_abort(&tx);
		return 0;
	}
	return end(&tx, rc, err);
}

int npk_array_set_mtime(struct npk_array *a, uint64_t mtime_us, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = npki_tx_begin(&tx, a->store, err);

	if (rc != 0)
		return rc;
	npki_tx_time(&tx, a->name, a->name_len, mtime_us);
	return npki_tx_commit(&tx, err);
}
