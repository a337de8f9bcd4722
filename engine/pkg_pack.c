/* pkg_pack.c - npk_pack(): a store at one moment (pkg_moment.h) as one file. Small parts are compressed by threads of their own,
 * a part each (pkg_small.h), large ones one after the other, in pieces, by zstd's threads. */
#include "cpu.h"
#include "crc.h"
#include "io.h"
#include "pkg.h"
#include "pkg_io.h"
#include "pkg_moment.h"
#include "pkg_small.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define THREADS_MAX 16         /* that compress */
#define JOBS_BYTES (16u << 20) /* that zstd's threads hold together */
#define JOB_MOST (4u << 20)
#define JOB_LEAST (512u << 10)
#define WRITE_BEHIND ((uint64_t)32 << 20) /* bytes after which the disk begins */

/* --- a part after the other ---------------------------------------------------------------------------------------------------------- */

struct packing {
	const struct npk_pack *how;
	const struct npki_moment *m;
	struct npki_progress progress;
	struct npki_package_crc crc;
	const char *path; /* for messages */
	int fd;
	uint64_t at, begun; /* where the next byte goes; up to where the disk was told to begin */
	unsigned threads;
	struct npki_smalls *smalls; /* NULL: all parts are coded here */
	ZSTD_CCtx *zstd;
	bool jobs; /* it has threads */
	z_stream zlib;
	bool has_zlib;
	uint8_t in[NPKI_PKG_BLOCK], out[NPKI_PKG_BLOCK];
};

static int put(struct packing *k, const void *bytes, size_t len, struct npk_err *err)
{
	const uint8_t *p = bytes;

	while (len > 0) {
		ssize_t n = pwrite(k->fd, p, len, (off_t)k->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return npk_fail(err, errno, "%.300s: %s", k->path, strerror(errno));
		p += n;
		k->at += (uint64_t)n;
		len -= (size_t)n;
	}
	if (k->at > k->begun + WRITE_BEHIND) {
		npki_begin_sync(k->fd, k->begun, k->at - k->begun);
		k->begun = k->at;
	}
	return 0;
}

static int no_memory(struct npk_err *err)
{
	return npk_fail(err, ENOMEM, "no memory to compress");
}

static unsigned count_threads(const struct npk_pack *how)
{
	unsigned threads = how->threads ? how->threads : npki_cpu_count();

	return threads > THREADS_MAX ? THREADS_MAX : threads;
}

/* Threads are for parts that are longer than one job; without them in this libzstd it compresses all the same. */
static int set_zstd(struct packing *k, struct npk_err *err)
{
	k->zstd = npki_zstd_new(k->how->level);
	if (!k->zstd)
		return no_memory(err);
	if (k->threads > 1)
		k->jobs = !ZSTD_isError(ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_nbWorkers, (int)k->threads));
	return 0;
}

/* Of a part of so many bytes: every thread has work, and all together hold JOBS_BYTES. */
static int job_bytes(const struct packing *k, uint64_t len)
{
	uint64_t job = JOBS_BYTES / (k->threads + 2), share = len / k->threads;

	job = job > JOB_MOST ? JOB_MOST : job;
	job = job > share ? share : job;
	return (int)(job < JOB_LEAST ? JOB_LEAST : job);
}

static int set_codec(struct packing *k, struct npk_err *err)
{
	if (k->how->codec == NPK_CODEC_ZSTD)
		return set_zstd(k, err);
	if (k->how->codec == NPK_CODEC_ZLIB) {
		k->has_zlib = deflateInit(&k->zlib, npki_zlib_level(k->how->level)) == Z_OK;
		return k->has_zlib ? 0 : no_memory(err);
	}
	return 0;
}

static int start_codec(struct packing *k, const struct npki_part *p, struct npk_err *err)
{
	if (k->how->codec == NPK_CODEC_ZLIB)
		return deflateReset(&k->zlib) == Z_OK ? 0 : no_memory(err);
	if (ZSTD_isError(ZSTD_CCtx_reset(k->zstd, ZSTD_reset_session_only)) ||
		(k->jobs && ZSTD_isError(ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_jobSize, job_bytes(k, p->len)))) ||
		ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(k->zstd, p->len)))
		return no_memory(err);
	return 0;
}

static int feed_zstd(struct packing *k, size_t len, bool last, struct npk_err *err)
{
	ZSTD_inBuffer in = {k->in, len, 0};
	size_t left;
	int rc;

	do {
		ZSTD_outBuffer out = {k->out, sizeof(k->out), 0};

		left = ZSTD_compressStream2(k->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return npk_fail(err, ENOMEM, "zstd: %s", ZSTD_getErrorName(left));
		rc = put(k, k->out, out.pos, err);
	} while (rc == 0 && (last ? left != 0 : in.pos < in.size));
	return rc;
}

static int feed_zlib(struct packing *k, size_t len, bool last, struct npk_err *err)
{
	int rc;

	k->zlib.next_in = k->in;
	k->zlib.avail_in = (uInt)len;
	do {
		k->zlib.next_out = k->out;
		k->zlib.avail_out = sizeof(k->out);
		if (deflate(&k->zlib, last ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR)
			return npk_fail(err, ENOMEM, "zlib: %s", k->zlib.msg ? k->zlib.msg : "cannot compress");
		rc = put(k, k->out, sizeof(k->out) - k->zlib.avail_out, err);
	} while (rc == 0 && k->zlib.avail_out == 0);
	return rc;
}

/* Goes over the part's bytes and puts them, compressed or not, behind `at`. Stops early, with k->at moved on by as many bytes
 * as the part has, when compressing makes it no smaller. *crc is of the bytes that were read in this pass. */
static int put_contents(struct packing *k, const struct npki_part *p, bool compress, uint32_t *crc, struct npk_err *err)
{
	uint64_t begin = k->at;
	int rc = compress ? start_codec(k, p, err) : 0;

	*crc = 0;
	for (uint64_t off = 0; off < p->len && rc == 0;) {
		size_t n = p->len - off < sizeof(k->in) ? (size_t)(p->len - off) : sizeof(k->in);

		rc = npki_part_read(k->m, p, off, k->in, n, err);
		off += n;
		if (rc != 0)
			break;
		*crc = npki_crc32(*crc, k->in, n);
		if (!compress)
			rc = put(k, k->in, n, err);
		else if (k->how->codec == NPK_CODEC_ZSTD)
			rc = feed_zstd(k, n, off == p->len, err);
		else
			rc = feed_zlib(k, n, off == p->len, err);
		if (rc == 0 && compress && k->at - begin >= p->len)
			break;
		if (rc == 0)
			rc = npki_progress_add(&k->progress, n, err);
	}
	return rc;
}

/* A part's place in the package begins with its name and sizes, at `begin`. */
static size_t head_bytes(const struct npki_part *p)
{
	return 4 + strlen(p->name) + 16;
}

static int put_head(struct packing *k, const struct npki_part *p, uint64_t begin, uint64_t stored, struct npk_err *err)
{
	uint8_t head[4 + NAME_MAX + 16];
	size_t name_len = strlen(p->name);
	uint64_t end = k->at;
	int rc;

	npki_set_le(head, name_len, 4);
	memcpy(head + 4, p->name, name_len);
	npki_set_le(head + 4 + name_len, p->len, 8);
	npki_set_le(head + 12 + name_len, stored, 8); /* 0: as it is */
	k->at = begin;
	rc = put(k, head, head_bytes(p), err);
	if (end > k->at)
		k->at = end;
	return rc;
}

/* The sizes stand before the contents, so the head is written after them. */
static int put_large(struct packing *k, const struct npki_part *p, struct npk_err *err)
{
	uint64_t begin = k->at, done = k->progress.done, stored;
	bool compress = k->how->codec != NPK_CODEC_NONE && p->len > 0;
	uint32_t crc;
	int rc;

	k->at = begin + head_bytes(p);
	rc = put_contents(k, p, compress, &crc, err);
	stored = k->at - begin - head_bytes(p);
	if (rc == 0 && compress && stored >= p->len) {
		compress = false;
		k->at = begin + head_bytes(p);
		k->progress.done = done;
		rc = put_contents(k, p, false, &crc, err);
	}
	if (rc == 0)
		rc = put_head(k, p, begin, compress ? stored : 0, err);
	if (rc == 0)
		npki_package_crc_add(&k->crc, crc, p->len);
	return rc;
}

static int put_small(struct packing *k, const struct npki_part *p, struct npk_err *err)
{
	struct npki_small small;
	int rc = npki_smalls_next(k->smalls, &small, err);

	if (rc == 0)
		rc = put_head(k, p, k->at, small.coded ? small.len : 0, err);
	if (rc == 0)
		rc = put(k, small.bytes, small.len, err);
	if (rc != 0)
		return rc;
	npki_package_crc_add(&k->crc, small.crc, p->len);
	return npki_progress_add(&k->progress, p->len, err);
}

static int put_parts(struct packing *k, struct npk_err *err)
{
	int rc = 0;

	if (k->threads > 1 && k->how->codec != NPK_CODEC_NONE)
		rc = npki_smalls_open(&k->smalls, k->m, k->how, k->threads, err);
	for (size_t i = 0; i < k->m->n && rc == 0; i++) {
		const struct npki_part *p = &k->m->part[i];

		rc = k->smalls && npki_is_small(p) ? put_small(k, p, err) : put_large(k, p, err);
	}
	npki_smalls_close(k->smalls);
	return rc;
}

static int put_package(struct packing *k, struct npk_err *err)
{
	uint8_t head[NPKI_PKG_HEAD], tail[4];
	int rc;

	memcpy(head, NPKI_PKG_MAGIC, 4);
	npki_set_le(head + 4, k->crc.version, 4);
	npki_set_le(head + 8, k->how->codec != NPK_CODEC_NONE, 1);
	npki_set_le(head + 9, k->m->n, 4);
	rc = put(k, head, sizeof(head), err);
	if (rc == 0)
		rc = set_codec(k, err);
	if (rc == 0)
		rc = put_parts(k, err);
	npki_set_le(tail, k->crc.crc, sizeof(tail));
	if (rc == 0)
		rc = put(k, tail, sizeof(tail), err);
	if (rc == 0 && ftruncate(k->fd, (off_t)k->at) != 0) /* what was compressed in vain may have been longer */
		rc = npk_fail(err, errno, "%.300s: %s", k->path, strerror(errno));
	if (rc == 0 && fsync(k->fd) != 0)
		rc = npk_fail(err, errno, "%.300s: %s", k->path, strerror(errno));
	ZSTD_freeCCtx(k->zstd);
	if (k->has_zlib)
		deflateEnd(&k->zlib);
	return rc;
}

static int write_package(
	const struct npki_moment *m, int fd, const char *path, const struct npk_pack *how, struct npk_err *err)
{
	struct packing *k = malloc(sizeof(*k));
	int rc;

	if (!k)
		return no_memory(err);
	memset(k, 0, offsetof(struct packing, in));
	k->how = how;
	k->m = m;
	k->progress = (struct npki_progress){how->progress, how->ctx, 0, m->bytes};
	k->crc.version = how->version ? how->version : 2;
	k->threads = count_threads(how);
	k->path = path;
	k->fd = fd;
	rc = put_package(k, err);
	free(k);
	return rc;
}

/* --- the call --------------------------------------------------------------------------------------------------------- */

static int check_how(const struct npk_pack *how, struct npk_err *err)
{
	int most = how->codec == NPK_CODEC_ZSTD ? 19 : how->codec == NPK_CODEC_ZLIB ? 9 : 0;

	if (!npk_codec_name(how->codec))
		return npk_fail(err, EINVAL, "codec %d is unknown", (int)how->codec);
	if (how->level < 0 || how->level > most)
		return npk_fail(
			err, EINVAL, "level %d: codec %s has 1 to %d", how->level, npk_codec_name(how->codec), most);
	if (how->version > 2)
		return npk_fail(err, EINVAL, "version %u of packages is unknown", how->version);
	return 0;
}

static int check_target(const struct npki_beside *b, struct npk_err *err)
{
	struct stat st;

	if (!b->exists || (stat(b->target, &st) == 0 && S_ISREG(st.st_mode)))
		return 0;
	return npk_fail(err, EINVAL, "%.300s: is no regular file, so it is not replaced", b->target);
}

int npk_pack(struct npk_store *s, const char *target, const struct npk_pack *how, struct npk_err *err)
{
	static const struct npk_pack as_numpack;
	struct npki_beside b = {0};
	struct npki_moment m = {0};
	int fd = -1, rc;

	how = how ? how : &as_numpack;
	rc = check_how(how, err);
	if (rc == 0)
		rc = npki_beside_init(&b, target, how->overwrite, err);
	if (rc == 0)
		rc = check_target(&b, err);
	if (rc == 0)
		rc = npki_moment_take(s, &m, err);
	if (rc == 0)
		rc = npki_beside_file(&b, &fd, err);
	if (rc == 0)
		rc = write_package(&m, fd, b.target, how, err);
	if (rc == 0)
		rc = npki_beside_commit_file(&b, err);
	if (b.temp)
		unlink(b.temp);
	if (fd >= 0)
		close(fd);
	npki_beside_fini(&b);
	npki_moment_fini(&m);
	return rc;
}
