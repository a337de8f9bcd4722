/* pkg_pack.c - npk_pack(): a store at one moment as one file.
 *
 * First the moment: the generation of each array is loaded and mapped, and counts when neither metadata nor journal changed
 * meanwhile. Then the bytes, from the mappings, which keep files alive that a compact or a save-over replaces. */
#include "crc.h"
#include "guard.h"
#include "pkg.h"
#include "pkg_io.h"
#include "rows.h"
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define TRIES 200              /* to find the store at rest, a millisecond apart */
#define THREADS_MAX 16         /* that compress */
#define JOBS_BYTES (16u << 20) /* that zstd's threads hold together */
#define JOB_MOST (4u << 20)
#define JOB_LEAST (512u << 10)
#define WRITE_BEHIND ((uint64_t)32 << 20) /* bytes after which the disk begins */

/* --- the moment ------------------------------------------------------------------------------------------------------- */

/* One file of the package to be. */
struct part {
	char *name;
	uint64_t len;
	struct npk_gen *g; /* counted; NULL: the metadata */
	bool bitmap;
};

struct moment {
	struct part *part; /* sorted by name */
	size_t n;
	struct npk_text meta;
	uint64_t bytes;
};

static void moment_fini(struct moment *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->part[i].name);
		npk_gen_put(m->part[i].g);
	}
	free(m->part);
	npk_text_fini(&m->meta);
	*m = (struct moment){0};
}

/* data_<name>.npkd and its like. */
static int add_part(struct moment *m, const char *before, const char *name, const char *after, struct npk_gen *g,
	uint64_t len, struct npk_err *err)
{
	struct part *p = &m->part[m->n];

	*p = (struct part){.len = len, .g = g ? npk_gen_ref(g) : NULL};
	m->n++;
	m->bytes += len;
	if (asprintf(&p->name, "%s%s%s", before, name, after) >= 0)
		return 0;
	p->name = NULL;
	return npk_fail(err, ENOMEM, "no memory for a package's list of files");
}

static int add_array(struct moment *m, struct npk_array *a, struct npk_err *err)
{
	const struct npk_gen_info *info;
	struct npk_shape physical;
	struct npk_gen *g = NULL;
	char file[NAME_MAX + 1];
	int rc;

	if (snprintf(file, sizeof(file), "data_%s.npkd", a->name) >= (int)sizeof(file) || strchr(a->name, '/'))
		return npk_fail(err, EINVAL, "array '%.200s': a package cannot hold a name that %s", a->name,
			strchr(a->name, '/') ? "has a '/'" : "is so long");
	rc = npk_gen_get(&g, a, err);
	if (rc == 0)
		rc = npk_gen_map(g, err);
	if (rc == 0)
		rc = add_part(m, "", file, "", g, g ? g->info.slots * g->info.row_bytes : 0, err);
	if (rc == 0 && g->live) {
		rc = add_part(m, "deleted_", a->name, ".npkb", g, 16 + (g->info.slots + 63) / 64 * 8, err);
		m->part[m->n - 1].bitmap = true;
	}
	if (rc == 0) {
		info = &g->info;
		physical = info->shape;
		if (physical.ndim)
			physical.dim[0] = info->slots;
		npki_meta_write_entry(&m->meta, a->name, a->name_len, info->dtype, &physical, file, info->mtime_us,
			info->slots * info->row_bytes);
	}
	npk_gen_put(g);
	return rc;
}

static int by_name(const void *x, const void *y)
{
	return strcmp(((const struct part *)x)->name, ((const struct part *)y)->name);
}

/* The metadata's head has the sum of the sizes, which comes after the entries. */
static int add_meta(struct moment *m, uint64_t data_bytes, uint32_t narrays, struct npk_err *err)
{
	struct npk_text t = {0};

	npki_meta_write_head(&t, data_bytes, narrays);
	npk_text_add(&t, m->meta.p, m->meta.len);
	t.bad |= m->meta.bad;
	npk_text_fini(&m->meta);
	m->meta = t;
	return t.bad ? npk_fail(err, ENOMEM, "no memory for a package's metadata")
		     : add_part(m, NPKI_META_FILE, "", "", NULL, t.len, err);
}

static int gather(struct npk_store *s, struct moment *m, struct npk_err *err)
{
	struct npk_array **list;
	uint64_t data_bytes = 0;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	m->part = calloc(2 * n + 1, sizeof(*m->part));
	if (!m->part)
		rc = npk_fail(err, ENOMEM, "no memory for a package's list of files");
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_array(m, list[i], err);
	for (size_t i = 0; i < m->n; i++)
		data_bytes += m->part[i].bitmap ? 0 : m->part[i].len;
	if (rc == 0)
		rc = add_meta(m, data_bytes, (uint32_t)n, err);
	if (rc == 0)
		qsort(m->part, m->n, sizeof(*m->part), by_name);
	npk_store_list_free(list, n);
	return rc;
}

/* Whether the disk still says what the table was made of. Records that were added to the journal meanwhile are of a later
 * moment: they matter (`exactly`) only to who could not load what the earlier ones say. */
static bool at_rest(struct npk_store *s, bool exactly)
{
	struct npki_file_id meta, journal;
	bool same;

	if (npki_stat_file(s->dirfd, NPKI_META_FILE, &meta, NULL) != 0 ||
		npki_stat_file(s->dirfd, NPKI_JOURNAL, &journal, NULL) != 0)
		return false;
	pthread_rwlock_rdlock(&s->table_lock);
	if (exactly || !s->journal_id.exists || !journal.exists)
		same = npki_file_id_same(&journal, &s->journal_id);
	else
		same = journal.ino == s->journal_id.ino && journal.dev == s->journal_id.dev;
	same = same && npki_file_id_same(&meta, &s->meta_id);
	pthread_rwlock_unlock(&s->table_lock);
	return same;
}

/* Of a store that this process writes: no change begins while the lock is held. */
static int gather_ours(struct npk_store *s, struct moment *m, bool *ours, struct npk_err *err)
{
	int rc = 0;

	*ours = false;
	if (!s->writer)
		return 0;
	pthread_mutex_lock(&s->writer->lock);
	*ours = s->writer->jfd >= 0;
	if (*ours)
		rc = gather(s, m, err);
	pthread_mutex_unlock(&s->writer->lock);
	return rc;
}

/* Another look at the directory: what this process knows of it may be older, and stays as it is. */
static int open_again(struct npk_store *s, struct npk_store **out, struct npk_err *err)
{
	struct stat here, there;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dirfd); /* when its name has become another's */
	if (fstat(s->dirfd, &here) != 0)
		return npk_fail(err, errno, "%.300s: %s", s->path, strerror(errno));
	if (stat(s->path, &there) == 0 && there.st_ino == here.st_ino && there.st_dev == here.st_dev)
		return npk_store_open(out, s->path, NPK_RDONLY, err);
	return npk_store_open(out, path, NPK_RDONLY, err);
}

/* What is not in a damaged list of arrays would be lost. */
static int gather_all(struct npk_store *s, struct moment *m, struct npk_err *err)
{
	struct npk_store_info info;

	npk_store_info(s, &info);
	if (info.read_only)
		return npk_fail(err, EUCLEAN, "%.200s: the list of arrays is damaged: %.250s", s->path, info.why);
	return gather(s, m, err);
}

static int take_moment(struct npk_store *s, struct moment *m, struct npk_err *err)
{
	struct npk_store *again;
	bool ours, rest = false;
	int rc = gather_ours(s, m, &ours, err);

	for (int i = 0; i < TRIES && !ours && !rest; i++) {
		if (i > 0)
			usleep(1000);
		moment_fini(m);
		rc = open_again(s, &again, err);
		if (rc != 0)
			continue;
		rc = gather_all(again, m, err);
		rest = again->packed || at_rest(again, rc != 0);
		npk_store_close(again); /* generations live on */
	}
	if (rc == 0 && !ours && !rest)
		rc = npk_fail(err, EBUSY, "%.300s: changes faster than it can be read", s->path);
	if (rc != 0)
		moment_fini(m);
	return rc;
}

/* --- reading a part --------------------------------------------------------------------------------------------------- */

struct data_read {
	const struct npk_gen *g;
	uint64_t off;
	uint8_t *out;
	size_t len;
};

/* Pages that were read are let go: a store larger than the memory passes through, and is counted to nobody. */
static void let_go(const uint8_t *from, size_t len)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)from & -page;

	madvise((void *)first, ((uintptr_t)from + len) / page * page - first, MADV_DONTNEED); /* a hint */
}

static void copy_data(void *ctx)
{
	struct data_read *r = ctx;
	uint64_t row_bytes = r->g->info.row_bytes;

	while (r->len > 0) {
		uint64_t together, in_slot = r->off % row_bytes;
		const uint8_t *from = npki_slot_at(r->g, r->off / row_bytes, &together) + in_slot;
		size_t n = together * row_bytes - in_slot < r->len ? (size_t)(together * row_bytes - in_slot) : r->len;

		memcpy(r->out, from, n);
		let_go(from, n);
		r->out += n;
		r->off += n;
		r->len -= n;
	}
}

static void copy_bitmap(const struct npki_rowmap *live, uint64_t off, uint8_t *out, size_t len)
{
	uint64_t head[2] = {live->nslots, live->nslots - live->nlive};

	while (len > 0) {
		const uint8_t *from = (const uint8_t *)head + off;
		size_t n = off < sizeof(head) ? sizeof(head) - (size_t)off : 0, nwords;

		if (off >= sizeof(head)) {
			uint64_t at = off - sizeof(head), in_chunk = at % (NPKI_CHUNK_BITS / 8);

			from = (const uint8_t *)npki_rowmap_words(live, (size_t)(at / (NPKI_CHUNK_BITS / 8)), &nwords) +
			       in_chunk;
			n = nwords * 8 - (size_t)in_chunk;
		}
		if (n > len)
			n = len;
		memcpy(out, from, n);
		out += n;
		off += n;
		len -= n;
	}
}

static int read_part(
	const struct moment *m, const struct part *p, uint64_t off, uint8_t *out, size_t len, struct npk_err *err)
{
	struct data_read r = {p->g, off, out, len};

	if (!p->g)
		memcpy(out, m->meta.p + off, len);
	else if (p->bitmap)
		copy_bitmap(p->g->live, off, out, len);
	else if (npki_guarded(copy_data, &r) != 0)
		return npki_shrank(p->g, err);
	return 0;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

struct packing {
	const struct npk_pack *how;
	const struct moment *m;
	struct npki_progress progress;
	struct npki_package_crc crc;
	const char *path; /* for messages */
	int fd;
	uint64_t at, begun; /* where the next byte goes; up to where the disk was told to begin */
	ZSTD_CCtx *zstd;
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
		sync_file_range(k->fd, (off_t)k->begun, (off_t)(k->at - k->begun), SYNC_FILE_RANGE_WRITE); /* a hint */
		k->begun = k->at;
	}
	return 0;
}

static size_t put_le(uint8_t *out, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		out[i] = (uint8_t)(v >> (8 * i));
	return bytes;
}

static int no_memory(struct npk_err *err)
{
	return npk_fail(err, ENOMEM, "no memory to compress");
}

/* Threads are for members that are longer than one job; without them in this libzstd it compresses all the same. */
static int set_zstd(struct packing *k, struct npk_err *err)
{
	unsigned threads = k->how->threads, job;
	cpu_set_t cpus;

	if (threads == 0 && sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		threads = (unsigned)CPU_COUNT(&cpus);
	threads = threads > THREADS_MAX ? THREADS_MAX : threads;
	job = JOBS_BYTES / (threads + 2);
	job = job > JOB_MOST ? JOB_MOST : job < JOB_LEAST ? JOB_LEAST : job;
	k->zstd = ZSTD_createCCtx();
	if (!k->zstd ||
		ZSTD_isError(
			ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_compressionLevel, k->how->level ? k->how->level : 3)) ||
		ZSTD_isError(ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_contentSizeFlag, 0)))
		return no_memory(err);
	if (threads > 1 && !ZSTD_isError(ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_nbWorkers, (int)threads)) &&
		ZSTD_isError(ZSTD_CCtx_setParameter(k->zstd, ZSTD_c_jobSize, (int)job)))
		return no_memory(err);
	return 0;
}

static int set_codec(struct packing *k, struct npk_err *err)
{
	if (k->how->codec == NPK_CODEC_ZSTD)
		return set_zstd(k, err);
	if (k->how->codec == NPK_CODEC_ZLIB) {
		k->has_zlib = deflateInit(&k->zlib, k->how->level ? k->how->level : 6) == Z_OK;
		return k->has_zlib ? 0 : no_memory(err);
	}
	return 0;
}

static int start_codec(struct packing *k, const struct part *p, struct npk_err *err)
{
	if (k->how->codec == NPK_CODEC_ZLIB)
		return deflateReset(&k->zlib) == Z_OK ? 0 : no_memory(err);
	if (ZSTD_isError(ZSTD_CCtx_reset(k->zstd, ZSTD_reset_session_only)) ||
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
static int put_contents(struct packing *k, const struct part *p, bool compress, uint32_t *crc, struct npk_err *err)
{
	uint64_t begin = k->at;
	int rc = compress ? start_codec(k, p, err) : 0;

	*crc = 0;
	for (uint64_t off = 0; off < p->len && rc == 0;) {
		size_t n = p->len - off < sizeof(k->in) ? (size_t)(p->len - off) : sizeof(k->in);

		rc = read_part(k->m, p, off, k->in, n, err);
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

/* The sizes stand before the contents, so the header is written after them. */
static int put_part(struct packing *k, const struct part *p, struct npk_err *err)
{
	uint8_t head[4 + NAME_MAX + 16];
	size_t name_len = strlen(p->name), len = 4 + name_len + 16;
	uint64_t begin = k->at, done = k->progress.done, stored, end;
	bool compress = k->how->codec != NPK_CODEC_NONE && p->len > 0;
	uint32_t crc;
	int rc;

	k->at = begin + len;
	rc = put_contents(k, p, compress, &crc, err);
	stored = k->at - begin - len;
	if (rc == 0 && compress && stored >= p->len) {
		compress = false;
		k->at = begin + len;
		k->progress.done = done;
		rc = put_contents(k, p, false, &crc, err);
	}
	if (rc != 0)
		return rc;
	end = k->at;
	put_le(head, name_len, 4);
	memcpy(head + 4, p->name, name_len);
	put_le(head + 4 + name_len, p->len, 8);
	put_le(head + 12 + name_len, compress ? stored : 0, 8);
	k->at = begin;
	rc = put(k, head, len, err);
	k->at = end;
	npki_package_crc_add(&k->crc, crc, p->len);
	return rc;
}

static int put_package(struct packing *k, struct npk_err *err)
{
	uint8_t head[NPKI_PKG_HEAD], tail[4];
	int rc;

	memcpy(head, NPKI_PKG_MAGIC, 4);
	put_le(head + 4, k->crc.version, 4);
	put_le(head + 8, k->how->codec != NPK_CODEC_NONE, 1);
	put_le(head + 9, k->m->n, 4);
	rc = put(k, head, sizeof(head), err);
	if (rc == 0)
		rc = set_codec(k, err);
	for (size_t i = 0; i < k->m->n && rc == 0; i++)
		rc = put_part(k, &k->m->part[i], err);
	put_le(tail, k->crc.crc, sizeof(tail));
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
	const struct moment *m, int fd, const char *path, const struct npk_pack *how, struct npk_err *err)
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
	struct moment m = {0};
	int fd = -1, rc;

	how = how ? how : &as_numpack;
	rc = check_how(how, err);
	if (rc == 0)
		rc = npki_beside_init(&b, target, how->overwrite, err);
	if (rc == 0)
		rc = check_target(&b, err);
	if (rc == 0)
		rc = take_moment(s, &m, err);
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
	moment_fini(&m);
	return rc;
}
