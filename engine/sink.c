/* sink.c - see sink.h. */
#include "sink.h"
#include "manifest.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t npki_segment_target(uint64_t row_bytes)
{
	const char *text = getenv("NUMPACK_SEGMENT_TARGET_BYTES");
	uint64_t t = 0;

	if (!text)
		text = getenv("NPK_SEGMENT_TARGET_BYTES");
	for (const char *p = text ? text : ""; *p; p++)
		if (*p < '0' || *p > '9' || __builtin_mul_overflow(t, 10, &t) ||
			__builtin_add_overflow(t, (uint64_t)(*p - '0'), &t)) {
			text = NULL;
			break;
		}
	if (!text || !*text)
		t = (uint64_t)256 << 20;
	if (t < row_bytes)
		t = row_bytes;
	return t ? t : 1;
}

int npki_sink_init(struct npki_sink *k, struct npki_tx *tx, uint64_t row_bytes, uint64_t bytes, bool segmented,
	struct npk_err *err)
{
	uint64_t target = npki_segment_target(row_bytes);

	*k = (struct npki_sink){.tx = tx, .row_bytes = row_bytes, .fd = -1};
	if (segmented && row_bytes && bytes > target)
		k->seg_bytes = target / row_bytes * row_bytes;
	k->file = calloc(1, sizeof(*k->file));
	return k->file ? 0 : npk_fail(err, ENOMEM, "no memory");
}

static int next_file(struct npki_sink *k, struct npk_err *err)
{
	struct npki_sink_file *more;
	int rc;

	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
	more = realloc(k->file, (k->nfiles + 1) * sizeof(*more));
	if (!more)
		return npk_fail(err, ENOMEM, "no memory");
	k->file = more;
	k->file[k->nfiles] = (struct npki_sink_file){.crc = 0};
	rc = npki_tx_create(k->tx, ".npkd", k->file[k->nfiles].path, &k->fd, err);
	if (rc == 0)
		k->nfiles++;
	return rc;
}

int npki_sink_write(struct npki_sink *k, const void *bytes, size_t len, struct npk_err *err)
{
	const uint8_t *p = bytes;
	int rc = 0;

	while (len > 0 && rc == 0) {
		struct npki_sink_file *f;
		size_t n = len;

		if (k->fd < 0 || (k->seg_bytes && k->file[k->nfiles - 1].bytes == k->seg_bytes))
			rc = next_file(k, err);
		if (rc != 0)
			break;
		f = &k->file[k->nfiles - 1];
		if (k->seg_bytes && n > k->seg_bytes - f->bytes)
			n = (size_t)(k->seg_bytes - f->bytes);
		rc = npki_pwrite_all(k->fd, p, n, f->bytes, f->path, err);
		f->crc = npki_crc32c(f->crc, p, n);
		f->bytes += n;
		p += n;
		len -= n;
	}
	return rc;
}

int npki_write_manifest(struct npki_tx *tx, const struct npki_manifest *m, char path[64], struct npk_err *err)
{
	struct npk_text t = {0};
	int fd, rc;

	npki_manifest_text(&t, m);
	rc = t.bad ? npk_fail(err, ENOMEM, "no memory") : npki_tx_create(tx, ".npkseg", path, &fd, err);
	if (rc == 0) {
		rc = npki_pwrite_all(fd, t.p, t.len, 0, path, err);
		close(fd);
	}
	if (rc == 0)
		rc = npki_tx_extent(tx, path, 0, t.len, npki_crc32c(0, t.p, t.len), err);
	npk_text_fini(&t);
	return rc;
}

static int finish_segments(struct npki_sink *k, char path[64], struct npk_err *err)
{
	struct npki_manifest m = {calloc(k->nfiles ? k->nfiles : 1, sizeof(*m.seg)), k->nfiles};
	int rc = m.seg ? 0 : npk_fail(err, ENOMEM, "no memory");

	for (size_t i = 0; i < k->nfiles && rc == 0; i++)
		m.seg[i] = (struct npki_mseg){k->file[i].path, k->file[i].bytes / k->row_bytes, k->file[i].bytes};
	if (rc == 0)
		rc = npki_write_manifest(k->tx, &m, path, err);
	free(m.seg);
	return rc;
}

int npki_sink_finish(struct npki_sink *k, char path[64], struct npk_err *err)
{
	int rc = k->nfiles == 0 ? next_file(k, err) : 0; /* an array without bytes has an empty file */

	for (size_t i = 0; i < k->nfiles && rc == 0; i++)
		rc = npki_tx_extent(k->tx, k->file[i].path, 0, k->file[i].bytes, k->file[i].crc, err);
	if (rc == 0 && k->seg_bytes)
		rc = finish_segments(k, path, err);
	else if (rc == 0)
		memcpy(path, k->file[0].path, 64);
	npki_sink_fini(k);
	return rc;
}

void npki_sink_fini(struct npki_sink *k)
{
	if (k->fd >= 0)
		close(k->fd);
	free(k->file);
	*k = (struct npki_sink){.fd = -1};
}
