/* append.c - rows behind the last one. */
#include "change.h"
#include "manifest.h"
#include "sink.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

int npki_check_growth(
	const struct npk_array *a, const struct npk_gen *g, uint64_t nrows, uint64_t *bytes, struct npk_err *err)
{
	uint64_t nslots;

	if (__builtin_add_overflow(g->info.slots, nrows, &nslots) ||
		__builtin_mul_overflow(nslots, g->info.row_bytes, bytes) || *bytes > INT64_MAX || nslots > INT64_MAX)
		return npk_fail(err, EINVAL, "array '%.200s': %" PRIu64 " more rows are too many", a->name, nrows);
	return 0;
}

/* Bytes that lie behind the last row are of an append that did not come to be; those that came there since we looked are
 * another program's, as is a file that stands in this one's place. */
static int cut_tail(struct npki_writer *w, int fd, struct npki_file *f, uint64_t len, struct npk_err *err)
{
	struct stat st;
	int rc;

	if (fstat(fd, &st) != 0)
		return npk_fail(err, errno, "%s: %s", f->path, strerror(errno));
	if (st.st_nlink == 0)
		return npki_found_foreign(w, err, "%.200s: another program replaced or removed it", f->path);
	if ((uint64_t)st.st_size > atomic_load(&f->size) && (uint64_t)st.st_size > len)
		return npki_found_foreign(w, err, "%.200s: byte %" PRIu64 ": another program wrote behind it", f->path,
			atomic_load(&f->size));
	if ((uint64_t)st.st_size < len)
		return npk_fail(err, EUCLEAN, "%s: byte %jd: the file ends here, %" PRIu64 " bytes are needed", f->path,
			(intmax_t)st.st_size, len);
	rc = (uint64_t)st.st_size > len ? npki_truncate(fd, len, f->path, err) : 0;
	if (rc == 0)
		atomic_store(&f->size, len);
	return rc;
}

/* `n` bytes behind the first `len` of a file. What was written is cut off again when it fails. */
static int append_bytes(
	struct npki_tx *tx, struct npki_file *f, uint64_t len, const void *bytes, size_t n, struct npk_err *err)
{
	struct npk_err again;
	int fd, rc = npki_use_fd(tx->s->writer, f, &fd, err);

	if (rc == 0)
		rc = cut_tail(tx->s->writer, fd, f, len, err);
	if (rc != 0)
		return rc;
	rc = npki_pwrite_all(fd, bytes, n, len, f->path, err);
	if (rc == 0)
		atomic_store(&f->size, len + n);
	if (rc == 0)
		return npki_tx_extent(tx, f->path, len, n, npki_crc32c(0, bytes, n), err);
	if (npki_truncate(fd, len, f->path, &again) != 0)
		npki_fail_store(tx->s->writer, rc, &again);
	return rc;
}

/* The last segment is filled up, then new ones are made; a new manifest names them all. */
static int append_segments(
	struct npki_tx *tx, struct npk_gen *g, const uint8_t *rows, uint64_t nrows, char path[64], struct npk_err *err)
{
	uint64_t row_bytes = g->info.row_bytes, target = npki_segment_target(row_bytes), room = 0;
	struct npki_seg *last = g->nsegs ? &g->seg[g->nsegs - 1] : NULL;
	struct npki_sink k = {.fd = -1};
	struct npki_manifest m = {0};
	size_t made = tx->created.n;
	int rc = 0;

	if (last && row_bytes && target > last->nslots * row_bytes)
		room = (target - last->nslots * row_bytes) / row_bytes;
	room = room < nrows ? room : nrows;
	if (room)
		rc = append_bytes(tx, last->file, last->nslots * row_bytes, rows, room * row_bytes, err);
	if (rc == 0 && nrows > room) {
		rc = npki_sink_init(&k, tx, row_bytes, 0, false, err);
		k.seg_bytes = row_bytes ? target / row_bytes * row_bytes : 0;
		if (rc == 0)
			rc = npki_sink_write(&k, rows + room * row_bytes, (nrows - room) * row_bytes, err);
	}
	m.seg = rc == 0 ? calloc(g->nsegs + k.nfiles + 1, sizeof(*m.seg)) : NULL;
	if (rc == 0 && !m.seg)
		rc = npk_fail(err, ENOMEM, "no memory");
	for (size_t i = 0; i < g->nsegs && rc == 0; i++) {
		uint64_t n = g->seg[i].nslots + (i + 1 == g->nsegs ? room : 0);

		m.seg[m.nsegs++] = (struct npki_mseg){g->seg[i].file->path, n, n * row_bytes};
	}
	for (size_t i = 0; i < k.nfiles && rc == 0; i++) {
		rc = npki_tx_extent(tx, k.file[i].path, 0, k.file[i].bytes, k.file[i].crc, err);
		m.seg[m.nsegs++] = (struct npki_mseg){
			k.file[i].path, row_bytes ? k.file[i].bytes / row_bytes : 0, k.file[i].bytes};
	}
	if (rc == 0)
		rc = npki_write_manifest(tx, &m, path, err);
	if (rc == 0)
		rc = npki_same_owner(tx, made, &g->info, err);
	free(m.seg);
	npki_sink_fini(&k);
	return rc;
}

int npki_append_rows(struct npki_tx *tx, struct npk_array *a, struct npk_gen *g, const void *rows, uint64_t nrows,
	uint64_t mtime_us, struct npk_err *err)
{
	const char *file = a->entry->file;
	char path[64];
	int rc = npki_tx_intent(tx, a->name, a->name_len, err);

	if (rc == 0 && g->segmented) {
		rc = append_segments(tx, g, rows, nrows, path, err);
		file = path;
	} else if (rc == 0 && g->info.row_bytes) {
		rc = append_bytes(
			tx, g->seg[0].file, g->info.slots * g->info.row_bytes, rows, nrows * g->info.row_bytes, err);
	}
	if (rc == 0)
		npki_tx_grow(tx, a->name, a->name_len, g->info.slots + nrows, mtime_us, file);
	if (a->pending)
		tx->grown = a;
	return rc;
}

int npk_array_extend(struct npk_array *a, uint64_t nrows, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npki_tx tx;
	uint64_t bytes = 0;
	int fd, rc = npki_begin(&tx, a, &g, err);

	if (rc != 0) {
		npk_gen_put(g);
		return rc;
	}
	rc = npki_check_growth(a, g, nrows, &bytes, err);
	if (rc != 0 || nrows == 0 || npki_txn_has_tail(a)) {
		if (rc == 0 && nrows)
			rc = npki_txn_append(&tx, a, g, NULL, nrows, err);
		npki_tx_abort(&tx);
		npk_gen_put(g);
		return rc;
	}
	if (g->segmented)
		rc = npk_fail(err, ENOTSUP, "array '%.200s': a segmented array grows by append only", a->name);
	if (rc == 0)
		rc = npki_tx_intent(&tx, a->name, a->name_len, err);
	if (rc == 0)
		rc = npki_use_fd(a->store->writer, g->seg[0].file, &fd, err);
	if (rc == 0)
		rc = cut_tail(a->store->writer, fd, g->seg[0].file, g->info.slots * g->info.row_bytes, err);
	if (rc == 0)
		rc = npki_truncate(fd, bytes, g->seg[0].file->path, err);
	if (rc == 0)
		atomic_store(&g->seg[0].file->size, bytes);
	if (rc == 0)
		rc = npki_tx_zero(&tx, g->seg[0].file->path, bytes, err);
	if (rc == 0)
		npki_tx_grow(
			&tx, a->name, a->name_len, g->info.slots + nrows, npki_tick(a->store->writer), a->entry->file);
	if (rc == 0 && a->pending)
		tx.grown = a;
	npk_gen_put(g);
	if (rc == 0)
		return npki_tx_commit(&tx, err);
	npki_tx_abort(&tx);
	return rc;
}
