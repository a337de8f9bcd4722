/* export_npz.c - .npz: a zip archive of .npy files (PKWARE's APPNOTE.TXT), written front to back. Every member has room for
 * 64-bit sizes. Of a short member they are known, with its CRC, before its header is written; of a longer one they are put into
 * the header afterwards where the file can seek, and else follow the member, which unzip and NumPy read as well. */
#include "crc.h"
#include "cpu.h"
#include "deflate.h"
#include "io.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK ((size_t)1 << 20)
#define THREADS_MAX 16                    /* that compress */
#define WRITE_BEHIND ((uint64_t)16 << 20) /* bytes after which the disk begins */
#define VERSION_64 45                     /* of the format: with 64-bit sizes */
#define FLAG_FOLLOW 8u                    /* sizes and CRC stand behind the member */
#define FLAG_UTF8 0x800u                  /* of its name */
#define EXTRA64_LEN 20
#define DOS_DATE 0x21 /* 1 January 1980, as NumPy writes */
#define LEN_MAX 0xFFFFFFFFu

struct member {
	char *name;
	uint32_t crc;
	uint64_t packed, size, local; /* local: where its header begins */
	bool follows;
};

struct npk_npz {
	int fd, level;
	bool seeks;
	uint64_t start, at; /* of the file: where the archive begins; bytes of it that were made */
	uint64_t begun;     /* so far the disk was told to begin */
	struct member *m;
	size_t n, cap;
	struct npki_deflate *deflate; /* NULL: stored */
	size_t next;                  /* the member whose compressed pieces come next */
	bool in_member;               /* some of them came */
	bool (*progress)(void *ctx, uint64_t bytes);
	void *ctx;
	uint64_t added;       /* bytes of arrays */
	struct npk_text head; /* of the record that is being made */
	uint8_t *in, *out;    /* BLOCK bytes each; `out` is written when it is full, up to `filled` */
	size_t filled;
};

static int write_fd(struct npk_npz *z, const void *bytes, size_t len, struct npk_err *err)
{
	const uint8_t *p = bytes;

	for (ssize_t n; len > 0; p += n, len -= (size_t)n) {
		n = write(z->fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return npk_fail(err, errno, "npz: %s", strerror(errno));
	}
	return 0;
}

static int flush(struct npk_npz *z, struct npk_err *err)
{
	int rc = write_fd(z, z->out, z->filled, err);

	z->filled = 0;
	return rc;
}

/* Short pieces are collected. */
static int write_out(struct npk_npz *z, const void *bytes, size_t len, struct npk_err *err)
{
	int rc = len > BLOCK - z->filled ? flush(z, err) : 0;

	if (rc == 0 && len > BLOCK / 4) {
		rc = flush(z, err);
		if (rc == 0)
			rc = write_fd(z, bytes, len, err);
	} else if (rc == 0) {
		memcpy(z->out + z->filled, bytes, len);
		z->filled += len;
	}
	z->at += len;
	if (z->seeks && z->at - z->begun >= WRITE_BEHIND) {
		npki_begin_sync(z->fd, z->start + z->begun, z->at - z->begun);
		z->begun = z->at;
	}
	return rc;
}

static int write_head(struct npk_npz *z, struct npk_err *err)
{
	return z->head.bad ? npk_fail(err, ENOMEM, "npz: no memory") : write_out(z, z->head.p, z->head.len, err);
}

/* Bytes that a file gets at its end, wherever they are to go, cannot be put in afterwards. */
static bool can_seek(int fd, off_t *at)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	*at = lseek(fd, 0, SEEK_CUR);
	return *at >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flags >= 0 && !(flags & O_APPEND);
}

int npk_npz_open(struct npk_npz **out, int fd, int level, struct npk_err *err)
{
	unsigned cpus = npki_cpu_count();
	struct npk_npz *z;
	off_t at;
	int rc = 0;

	if (level < 0 || level > 9)
		return npk_fail(err, EINVAL, "npz: level %d is none from 0 (stored) to 9", level);
	z = calloc(1, sizeof(*z));
	if (z) {
		z->in = malloc(BLOCK);
		z->out = malloc(BLOCK);
	}
	if (!z || !z->in || !z->out)
		rc = npk_fail(err, ENOMEM, "npz: no memory");
	if (rc == 0 && level > 0)
		rc = npki_deflate_open(&z->deflate, level, cpus > THREADS_MAX ? THREADS_MAX : cpus, err);
	if (rc != 0) {
		npk_npz_close(z);
		return rc;
	}
	z->fd = fd;
	z->level = level;
	z->seeks = can_seek(fd, &at);
	z->start = z->seeks ? (uint64_t)at : 0;
	*out = z;
	return 0;
}

void npk_npz_close(struct npk_npz *z)
{
	if (!z)
		return;
	npki_deflate_close(z->deflate);
	for (size_t i = 0; i < z->n; i++)
		free(z->m[i].name);
	npk_text_fini(&z->head);
	free(z->m);
	free(z->in);
	free(z->out);
	free(z);
}

/* --- a member --------------------------------------------------------------------------------------------------------- */

/* What the local header and the list's entry say alike; sizes are in the extra field. */
static void put_common(struct npk_npz *z, const struct member *m)
{
	npki_text_le(&z->head, FLAG_UTF8 | (m->follows ? FLAG_FOLLOW : 0), 2);
	npki_text_le(&z->head, z->level ? 8 : 0, 2);
	npki_text_le(&z->head, 0, 2);
	npki_text_le(&z->head, DOS_DATE, 2);
	npki_text_le(&z->head, m->crc, 4);
	npki_text_le(&z->head, LEN_MAX, 4);
	npki_text_le(&z->head, LEN_MAX, 4);
	npki_text_le(&z->head, strlen(m->name), 2);
}

/* The name, and the first two of `extra` bytes' worth of 64-bit fields. */
static void put_name(struct npk_npz *z, const struct member *m, unsigned extra)
{
	npk_text_add(&z->head, m->name, strlen(m->name));
	npki_text_le(&z->head, 1, 2);
	npki_text_le(&z->head, extra, 2);
	npki_text_le(&z->head, m->size, 8);
	npki_text_le(&z->head, m->packed, 8);
}

static void make_local(struct npk_npz *z, const struct member *m)
{
	z->head.len = 0;
	npki_text_le(&z->head, 0x04034b50, 4);
	npki_text_le(&z->head, VERSION_64, 2);
	put_common(z, m);
	npki_text_le(&z->head, EXTRA64_LEN, 2);
	put_name(z, m, 16);
}

/* `known`: with sizes and CRC; else they come later, see end_member(). */
static int begin_member(struct npk_npz *z, struct member *m, bool known, struct npk_err *err)
{
	struct member now = *m;

	m->local = z->at;
	if (!known) {
		now.follows = m->follows = !z->seeks;
		now.crc = 0;
		now.size = now.packed = 0;
	}
	make_local(z, &now);
	return write_head(z, err);
}

static int write_follow(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	z->head.len = 0;
	npki_text_le(&z->head, 0x08074b50, 4);
	npki_text_le(&z->head, m->crc, 4);
	npki_text_le(&z->head, m->packed, 8);
	npki_text_le(&z->head, m->size, 8);
	return write_head(z, err);
}

/* The header again, at its place: in the file, as far as `out` does not have it. */
static int patch_local(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	uint64_t written = z->at - z->filled, at = z->start + m->local;
	const char *p;
	ssize_t n;

	make_local(z, m);
	if (z->head.bad)
		return npk_fail(err, ENOMEM, "npz: no memory");
	if (m->local >= written) {
		memcpy(z->out + (m->local - written), z->head.p, z->head.len);
		return 0;
	}
	p = z->head.p;
	for (size_t len = z->head.len; len > 0; p += n, len -= (size_t)n, at += (uint64_t)n) {
		n = pwrite(z->fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return npk_fail(err, errno, "npz: %s", strerror(errno));
	}
	return 0;
}

/* Behind the bytes of a member whose header did not know them. */
static int end_member(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	return m->follows ? write_follow(z, m, err) : patch_local(z, m, err);
}

static int new_member(struct npk_npz *z, const char *name, struct npk_err *err)
{
	struct member *more = z->m;
	size_t len = strlen(name);
	char *copy;

	if (len > 65535 - 4)
		return npk_fail(err, EINVAL, "npz: a name of %zu bytes", len);
	if (z->n == z->cap)
		more = reallocarray(z->m, 2 * z->cap + 16, sizeof(*more));
	if (!more)
		return npk_fail(err, ENOMEM, "npz: no memory");
	if (z->n == z->cap) {
		z->m = more;
		z->cap = 2 * z->cap + 16;
	}
	copy = malloc(len + 5);
	if (!copy)
		return npk_fail(err, ENOMEM, "npz: no memory");
	memcpy(copy, name, len);
	memcpy(copy + len, ".npy", 5);
	z->m[z->n++] = (struct member){.name = copy};
	return 0;
}

void npk_npz_watch(struct npk_npz *z, bool (*progress)(void *ctx, uint64_t bytes), void *ctx)
{
	z->progress = progress;
	z->ctx = ctx;
}

/* An array as a .npy file, from one end to the other. */
struct npy {
	struct npk_view *v;
	char header[NPK_NPY_HEADER_MAX];
	size_t header_len;
	uint64_t at, size;
};

static struct npy npy_of(struct npk_view *v)
{
	const struct npk_view_info *info = npk_view_info(v);
	struct npy f = {.v = v};

	f.header_len = npk_npy_header(f.header, info->dtype, &info->shape, 64);
	f.size = f.header_len + info->bytes;
	return f;
}

/* The next `most` bytes, or as many as are left: *len. They count for the member's CRC, and are told of. */
static int npy_read(
	struct npk_npz *z, struct member *m, struct npy *f, uint8_t *out, size_t most, size_t *len, struct npk_err *err)
{
	size_t head = f->at < f->header_len ? f->header_len - (size_t)f->at : 0, n;
	int rc = 0;

	n = f->size - f->at < most ? (size_t)(f->size - f->at) : most;
	if (head > 0)
		memcpy(out, f->header + f->at, head);
	if (n > head) {
		uint64_t from = f->at + head - f->header_len;

		rc = npk_view_read(f->v, from, out + head, n - head, err);
		npk_view_let_go(f->v, from, n - head);
	}
	if (rc != 0)
		return rc;
	m->crc = npki_crc32(m->crc, out, n);
	f->at += n;
	z->added += n - head;
	*len = n;
	if (z->progress && !z->progress(z->ctx, z->added))
		return npk_fail(err, ECANCELED, "npz: was stopped");
	return 0;
}

/* The first block is read before the header is written: with a short member that is all. */
static int add_stored(struct npk_npz *z, struct member *m, struct npy *f, struct npk_err *err)
{
	size_t n;
	int rc = npy_read(z, m, f, z->in, BLOCK, &n, err);

	if (rc == 0)
		rc = begin_member(z, m, f->at == f->size, err);
	if (rc == 0)
		rc = write_out(z, z->in, n, err);
	if (rc != 0 || f->at == f->size)
		return rc;
	while (rc == 0 && f->at < f->size) {
		rc = npy_read(z, m, f, z->in, BLOCK, &n, err);
		if (rc == 0)
			rc = write_out(z, z->in, n, err);
	}
	return rc == 0 ? end_member(z, m, err) : rc;
}

/* The next piece that is compressed goes out: 1; 0: there is none. Members come one after the other, and by now may lie behind
 * the one that is being added. */
static int write_piece(struct npk_npz *z, struct npk_err *err)
{
	struct npki_deflated p;
	struct member *m;
	int rc = npki_deflate_take(z->deflate, &p, err);

	if (rc != 1)
		return rc;
	rc = 0;
	m = &z->m[z->next];
	if (!z->in_member) {
		m->packed = p.len;
		rc = begin_member(z, m, p.last, err);
	} else {
		m->packed += p.len;
	}
	if (rc == 0)
		rc = write_out(z, p.bytes, p.len, err);
	if (rc == 0 && p.last && z->in_member)
		rc = end_member(z, m, err);
	z->in_member = !p.last;
	z->next += p.last;
	return rc == 0 ? 1 : rc;
}

static int add_deflated(struct npk_npz *z, struct member *m, struct npy *f, struct npk_err *err)
{
	uint8_t *room;
	size_t n;
	int rc = 0;

	while (rc == 0 && f->at < f->size) {
		while ((room = npki_deflate_room(z->deflate)) == NULL) {
			rc = write_piece(z, err);
			if (rc < 0)
				return rc;
		}
		rc = npy_read(z, m, f, room, NPKI_DEFLATE_PIECE, &n, err);
		if (rc == 0)
			npki_deflate_put(z->deflate, n, f->at == f->size);
	}
	return rc;
}

int npk_npz_add(struct npk_npz *z, const char *name, struct npk_view *v, struct npk_err *err)
{
	struct npy f = npy_of(v);
	struct member *m;
	int rc = new_member(z, name, err);

	if (rc != 0)
		return rc;
	m = &z->m[z->n - 1];
	m->size = f.size;
	if (z->deflate)
		return add_deflated(z, m, &f, err);
	m->packed = f.size;
	return add_stored(z, m, &f, err);
}

/* --- the list --------------------------------------------------------------------------------------------------------- */

static int put_entry(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	z->head.len = 0;
	npki_text_le(&z->head, 0x02014b50, 4);
	npki_text_le(&z->head, 3 << 8 | VERSION_64, 2);
	npki_text_le(&z->head, VERSION_64, 2);
	put_common(z, m);
	npki_text_le(&z->head, 28, 2);
	npki_text_le(&z->head, 0, 2);
	npki_text_le(&z->head, 0, 2);
	npki_text_le(&z->head, 0, 2);
	npki_text_le(&z->head, 0100600u << 16, 4);
	npki_text_le(&z->head, LEN_MAX, 4);
	put_name(z, m, 24);
	npki_text_le(&z->head, m->local, 8);
	return write_head(z, err);
}

/* Short fields where they can hold what is to be said, so that simple readers need nothing more. */
static int put_end(struct npk_npz *z, uint64_t list, struct npk_err *err)
{
	uint64_t len = z->at - list, end = z->at;
	bool wide = list >= LEN_MAX || len >= LEN_MAX || z->n >= 0xFFFF;

	z->head.len = 0;
	if (wide) {
		npki_text_le(&z->head, 0x06064b50, 4);
		npki_text_le(&z->head, 44, 8);
		npki_text_le(&z->head, 3 << 8 | VERSION_64, 2);
		npki_text_le(&z->head, VERSION_64, 2);
		npki_text_le(&z->head, 0, 4);
		npki_text_le(&z->head, 0, 4);
		npki_text_le(&z->head, z->n, 8);
		npki_text_le(&z->head, z->n, 8);
		npki_text_le(&z->head, len, 8);
		npki_text_le(&z->head, list, 8);
		npki_text_le(&z->head, 0x07064b50, 4);
		npki_text_le(&z->head, 0, 4);
		npki_text_le(&z->head, end, 8);
		npki_text_le(&z->head, 1, 4);
	}
	npki_text_le(&z->head, 0x06054b50, 4);
	npki_text_le(&z->head, 0, 4);
	npki_text_le(&z->head, z->n < 0xFFFF ? z->n : 0xFFFF, 2);
	npki_text_le(&z->head, z->n < 0xFFFF ? z->n : 0xFFFF, 2);
	npki_text_le(&z->head, len < LEN_MAX ? len : LEN_MAX, 4);
	npki_text_le(&z->head, list < LEN_MAX ? list : LEN_MAX, 4);
	npki_text_le(&z->head, 0, 2);
	return write_head(z, err);
}

int npk_npz_finish(struct npk_npz *z, struct npk_err *err)
{
	uint64_t list;
	int rc = z->deflate ? 1 : 0;

	while (rc == 1)
		rc = write_piece(z, err);
	list = z->at;
	for (size_t i = 0; i < z->n && rc == 0; i++)
		rc = put_entry(z, &z->m[i], err);
	if (rc == 0)
		rc = put_end(z, list, err);
	return rc == 0 ? flush(z, err) : rc;
}
