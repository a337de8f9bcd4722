/* pkg_decode.c - the contents of a package's member, decoded as they come: what makes more or less of it than the package
 * promised is damage, found before a byte too many is handed out. */
#include "pkg.h"
#include "io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

struct npki_decoder {
	struct npk_package *p; /* counted */
	const struct npki_member *m;
	uint64_t taken, given; /* bytes of the stored ones, bytes of the contents */
	const uint8_t *next;   /* of what was read of the package, and not decoded yet */
	size_t left;
	bool inside; /* a frame or stream has begun and not ended */
	bool done;   /* the one zlib stream has ended */
	ZSTD_DCtx *zstd;
	z_stream zlib;
	bool has_zlib;
	uint8_t in[NPKI_PKG_BLOCK];
};

static int damaged(const struct npki_decoder *d, const char *what, struct npk_err *err)
{
	return npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": '%.100s': %s", d->p->path,
		d->m->at + d->taken - d->left, d->m->name, what);
}

int npki_decoder_open(struct npki_decoder **out, struct npk_package *p, struct npk_err *err)
{
	struct npki_decoder *d = malloc(sizeof(*d));

	if (!d)
		return npk_fail(err, ENOMEM, "%.200s: no memory to decode it", p->path);
	memset(d, 0, offsetof(struct npki_decoder, in));
	d->p = npki_package_ref(p);
	*out = d;
	return 0;
}

void npki_decoder_close(struct npki_decoder *d)
{
	if (!d)
		return;
	ZSTD_freeDCtx(d->zstd);
	if (d->has_zlib)
		inflateEnd(&d->zlib);
	npk_package_close(d->p);
	free(d);
}

static int start_codec(struct npki_decoder *d)
{
	if (d->m->codec == NPK_CODEC_ZSTD) {
		if (!d->zstd)
			d->zstd = ZSTD_createDCtx();
		return d->zstd && !ZSTD_isError(ZSTD_DCtx_reset(d->zstd, ZSTD_reset_session_only)) ? 0 : -ENOMEM;
	}
	if (d->m->codec == NPK_CODEC_ZLIB && d->has_zlib)
		return inflateReset(&d->zlib) == Z_OK ? 0 : -ENOMEM;
	if (d->m->codec == NPK_CODEC_ZLIB) {
		d->has_zlib = inflateInit(&d->zlib) == Z_OK;
		return d->has_zlib ? 0 : -ENOMEM;
	}
	return 0;
}

int npki_decoder_start(struct npki_decoder *d, const struct npki_member *m, struct npk_err *err)
{
	d->m = m;
	d->taken = d->given = 0;
	d->left = 0;
	d->inside = d->done = false;
	return start_codec(d) == 0 ? 0 : npk_fail(err, ENOMEM, "%.200s: no memory to decode it", d->p->path);
}

static int read_raw(struct npki_decoder *d, uint8_t *buf, size_t len, size_t *got, struct npk_err *err)
{
	size_t n = d->m->len - d->taken < len ? (size_t)(d->m->len - d->taken) : len;
	int rc = npki_pread_all(d->p->fd, buf, n, d->m->at + d->taken, d->p->path, err);

	if (rc == 0) {
		d->taken += n;
		*got = n;
	}
	return rc;
}

static int fill(struct npki_decoder *d, struct npk_err *err)
{
	size_t n = d->m->len - d->taken < sizeof(d->in) ? (size_t)(d->m->len - d->taken) : sizeof(d->in);
	int rc = npki_pread_all(d->p->fd, d->in, n, d->m->at + d->taken, d->p->path, err);

	if (rc == 0) {
		d->taken += n;
		d->next = d->in;
		d->left = n;
	}
	return rc;
}

/* One step: takes from `left`, adds to *got. */
static int step_zstd(struct npki_decoder *d, uint8_t *buf, size_t len, size_t *got, struct npk_err *err)
{
	ZSTD_inBuffer in = {d->next, d->left, 0};
	ZSTD_outBuffer out = {buf, len, *got};
	size_t rc = ZSTD_decompressStream(d->zstd, &out, &in);

	if (ZSTD_isError(rc))
		return ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation
			       ? npk_fail(err, ENOMEM, "%.200s: no memory to decode it", d->p->path)
			       : damaged(d, ZSTD_getErrorName(rc), err);
	d->inside = rc != 0;
	d->next += in.pos;
	d->left -= in.pos;
	*got = out.pos;
	return 0;
}

static int step_zlib(struct npki_decoder *d, uint8_t *buf, size_t len, size_t *got, struct npk_err *err)
{
	int rc;

	d->zlib.next_in = (Bytef *)(uintptr_t)d->next; /* zlib's interface lacks a const */
	d->zlib.avail_in = (uInt)d->left;
	d->zlib.next_out = buf + *got;
	d->zlib.avail_out = (uInt)(len - *got);
	rc = inflate(&d->zlib, Z_NO_FLUSH);
	*got = len - d->zlib.avail_out;
	d->next += d->left - d->zlib.avail_in;
	d->left = d->zlib.avail_in;
	d->done = rc == Z_STREAM_END;
	d->inside = !d->done;
	if (rc == Z_MEM_ERROR)
		return npk_fail(err, ENOMEM, "%.200s: no memory to decode it", d->p->path);
	if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
		return damaged(d, d->zlib.msg ? d->zlib.msg : "neither zstd nor zlib", err);
	return 0;
}

/* Until `buf` is full or the member has ended. A zstd member may have several frames, a zlib one has one stream. */
static int read_coded(struct npki_decoder *d, uint8_t *buf, size_t len, size_t *got, struct npk_err *err)
{
	int rc = 0;

	while (*got < len && rc == 0 && !d->done) {
		size_t before = *got, had;

		if (d->left == 0 && d->taken < d->m->len)
			rc = fill(d, err);
		if (rc != 0 || (d->left == 0 && !d->inside))
			return rc;
		had = d->left;
		if (d->m->codec == NPK_CODEC_ZSTD)
			rc = step_zstd(d, buf, len, got, err);
		else
			rc = step_zlib(d, buf, len, got, err);
		if (rc == 0 && *got == before && d->left == had && !d->done && d->inside)
			rc = damaged(d, "its contents are cut short", err);
	}
	return rc;
}

/* After the last byte that was promised nothing may come, and the codec must have ended: one byte more is asked for. */
static int check_end(struct npki_decoder *d, struct npk_err *err)
{
	uint8_t more;
	size_t got = 0;
	int rc = d->m->codec == NPK_CODEC_NONE ? 0 : read_coded(d, &more, 1, &got, err);

	if (rc == 0 && got > 0)
		return damaged(d, "has more contents than the package says", err);
	if (rc == 0 && (d->left > 0 || d->taken < d->m->len))
		return damaged(d, "bytes follow the end of its contents", err);
	return rc;
}

int npki_decoder_read(struct npki_decoder *d, uint8_t *buf, size_t len, size_t *got, struct npk_err *err)
{
	uint64_t left = d->m->original - d->given;
	size_t n = left < len ? (size_t)left : len;
	int rc;

	*got = 0;
	if (n == 0)
		return check_end(d, err);
	rc = d->m->codec == NPK_CODEC_NONE ? read_raw(d, buf, n, got, err) : read_coded(d, buf, n, got, err);
	if (rc == 0 && *got < n)
		rc = npk_fail(err, EUCLEAN,
			"%.200s: byte %" PRIu64 ": '%.100s' ends after %" PRIu64 " of %" PRIu64 " bytes", d->p->path,
			d->m->at, d->m->name, d->given + *got, d->m->original);
	d->given += *got;
	return rc;
}
