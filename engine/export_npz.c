/* export_npz.c - .npz: a zip archive of .npy files (PKWARE's APPNOTE.TXT), written front to back. Every member has room for
 * 64-bit sizes. Where the file can seek, a member's sizes and CRC are put into its header when they are known; else they
 * follow it, which unzip and NumPy read as well. */
#include "crc.h"
#include "numpack.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define BLOCK ((size_t)1 << 20)
#define VERSION_64 45    /* of the format: with 64-bit sizes */
#define FLAG_FOLLOW 8u   /* sizes and CRC stand behind the member */
#define FLAG_UTF8 0x800u /* of its name */
#define LOCAL_LEN 30
#define EXTRA64_LEN 20
#define DOS_DATE 0x21 /* 1 January 1980, as NumPy writes */
#define LEN_MAX 0xFFFFFFFFu

struct member {
	char *name;
	uint32_t crc;
	uint64_t packed, size, local;
};

struct npk_npz {
	int fd, level;
	bool seeks;
	uint64_t start, at; /* of the file: where the archive begins; bytes of it written */
	struct member *m;
	size_t n, cap;
	z_stream z;
	bool deflating;
	bool (*progress)(void *ctx, uint64_t bytes);
	void *ctx;
	uint64_t added;    /* bytes of arrays */
	uint8_t *in, *out; /* BLOCK bytes each */
};

/* Little-endian fields one after another. */
struct put {
	uint8_t bytes[128];
	size_t n;
};

static void put(struct put *p, unsigned bytes, uint64_t value)
{
	npki_set_le(p->bytes + p->n, value, bytes);
	p->n += bytes;
}

static int write_fd(struct npk_npz *z, const void *bytes, size_t len, struct npk_err *err)
{
	const uint8_t *p = bytes;

	for (ssize_t n; len > 0; p += n, len -= (size_t)n, z->at += (uint64_t)n) {
		n = write(z->fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return npk_fail(err, errno, "npz: %s", strerror(errno));
	}
	return 0;
}

int npk_npz_open(struct npk_npz **out, int fd, int level, struct npk_err *err)
{
	struct npk_npz *z;
	struct stat st;
	off_t at;

	if (level < 0 || level > 9)
		return npk_fail(err, EINVAL, "npz: level %d is none from 0 (stored) to 9", level);
	z = calloc(1, sizeof(*z));
	if (z) {
		z->in = malloc(BLOCK);
		z->out = malloc(BLOCK);
	}
	if (!z || !z->in || !z->out) {
		npk_npz_close(z);
		return npk_fail(err, ENOMEM, "npz: no memory");
	}
	z->fd = fd;
	z->level = level;
	at = lseek(fd, 0, SEEK_CUR);
	z->seeks = at >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	z->start = z->seeks ? (uint64_t)at : 0;
	*out = z;
	return 0;
}

void npk_npz_close(struct npk_npz *z)
{
	if (!z)
		return;
	if (z->deflating)
		deflateEnd(&z->z);
	for (size_t i = 0; i < z->n; i++)
		free(z->m[i].name);
	free(z->m);
	free(z->in);
	free(z->out);
	free(z);
}

/* --- a member --------------------------------------------------------------------------------------------------------- */

static unsigned flags_of(const struct npk_npz *z)
{
	return FLAG_UTF8 | (z->seeks ? 0 : FLAG_FOLLOW);
}

/* What the local header and the directory's entry say alike; sizes are in the extra field. */
static void put_common(struct put *p, const struct npk_npz *z, const struct member *m)
{
	put(p, 2, flags_of(z));
	put(p, 2, z->level ? 8 : 0);
	put(p, 2, 0);
	put(p, 2, DOS_DATE);
	put(p, 4, m->crc);
	put(p, 4, LEN_MAX);
	put(p, 4, LEN_MAX);
	put(p, 2, strlen(m->name));
}

static int put_local(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	struct put p = {.n = 0};
	int rc;

	put(&p, 4, 0x04034b50);
	put(&p, 2, VERSION_64);
	put_common(&p, z, m);
	put(&p, 2, EXTRA64_LEN);
	rc = write_fd(z, p.bytes, p.n, err);
	if (rc == 0)
		rc = write_fd(z, m->name, strlen(m->name), err);
	p.n = 0;
	put(&p, 2, 1);
	put(&p, 2, 16);
	put(&p, 8, m->size);
	put(&p, 8, m->packed);
	return rc == 0 ? write_fd(z, p.bytes, p.n, err) : rc;
}

static int deflate_some(struct npk_npz *z, const void *bytes, size_t len, int flush, struct npk_err *err)
{
	int rc = 0;

	z->z.next_in = (Bytef *)bytes;
	z->z.avail_in = (uInt)len;
	do {
		z->z.next_out = z->out;
		z->z.avail_out = (uInt)BLOCK;
		deflate(&z->z, flush); /* cannot fail: the state is sound and there is room */
		rc = write_fd(z, z->out, BLOCK - z->z.avail_out, err);
	} while (rc == 0 && z->z.avail_out == 0);
	return rc;
}

static int add_bytes(struct npk_npz *z, struct member *m, const void *bytes, size_t len, struct npk_err *err)
{
	m->crc = npki_crc32(m->crc, bytes, len);
	m->size += len;
	return z->level ? deflate_some(z, bytes, len, Z_NO_FLUSH, err) : write_fd(z, bytes, len, err);
}

static int add_view(struct npk_npz *z, struct member *m, struct npk_view *v, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(v);
	char header[NPK_NPY_HEADER_MAX];
	int rc = add_bytes(z, m, header, npk_npy_header(header, info->dtype, &info->shape, 64), err);
	size_t n;

	for (uint64_t at = 0; at < info->bytes && rc == 0; at += n) {
		n = info->bytes - at < BLOCK ? (size_t)(info->bytes - at) : BLOCK;
		rc = npk_view_read(v, at, z->in, n, err);
		if (rc == 0)
			rc = add_bytes(z, m, z->in, n, err);
		z->added += n;
		if (rc == 0 && z->progress && !z->progress(z->ctx, z->added))
			rc = npk_fail(err, ECANCELED, "npz: was stopped");
	}
	return rc == 0 && z->level ? deflate_some(z, "", 0, Z_FINISH, err) : rc;
}

static int begin_deflate(struct npk_npz *z, struct npk_err *err)
{
	int said;

	if (z->level == 0)
		return 0;
	said = z->deflating ? deflateReset(&z->z)
			    : deflateInit2(&z->z, z->level, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
	z->deflating |= said == Z_OK;
	return said == Z_OK ? 0 : npk_fail(err, ENOMEM, "npz: no memory");
}

static int put_follow(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	struct put p = {.n = 0};

	put(&p, 4, 0x08074b50);
	put(&p, 4, m->crc);
	put(&p, 8, m->packed);
	put(&p, 8, m->size);
	return write_fd(z, p.bytes, p.n, err);
}

/* The header again, at its place. */
static int patch_local(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	uint64_t at = z->at;
	int rc;

	if (lseek(z->fd, (off_t)(z->start + m->local), SEEK_SET) < 0)
		return npk_fail(err, errno, "npz: %s", strerror(errno));
	rc = put_local(z, m, err);
	z->at = at;
	if (rc == 0 && lseek(z->fd, (off_t)(z->start + at), SEEK_SET) < 0)
		rc = npk_fail(err, errno, "npz: %s", strerror(errno));
	return rc;
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
	z->m[z->n++] = (struct member){.name = copy, .local = z->at};
	return 0;
}

void npk_npz_watch(struct npk_npz *z, bool (*progress)(void *ctx, uint64_t bytes), void *ctx)
{
	z->progress = progress;
	z->ctx = ctx;
}

int npk_npz_add(struct npk_npz *z, const char *name, struct npk_view *v, struct npk_err *err)
{
	struct member *m;
	uint64_t begin;
	int rc = new_member(z, name, err);

	if (rc == 0)
		rc = begin_deflate(z, err);
	if (rc != 0)
		return rc;
	m = &z->m[z->n - 1];
	rc = put_local(z, m, err);
	begin = z->at;
	if (rc == 0)
		rc = add_view(z, m, v, err);
	m->packed = z->at - begin;
	if (rc == 0)
		rc = z->seeks ? patch_local(z, m, err) : put_follow(z, m, err);
	return rc;
}

/* --- the list --------------------------------------------------------------------------------------------------------- */

static int put_entry(struct npk_npz *z, const struct member *m, struct npk_err *err)
{
	struct put p = {.n = 0};
	int rc;

	put(&p, 4, 0x02014b50);
	put(&p, 2, 3 << 8 | VERSION_64);
	put(&p, 2, VERSION_64);
	put_common(&p, z, m);
	put(&p, 2, 28);
	put(&p, 2, 0);
	put(&p, 2, 0);
	put(&p, 2, 0);
	put(&p, 4, 0100600u << 16);
	put(&p, 4, LEN_MAX);
	rc = write_fd(z, p.bytes, p.n, err);
	if (rc == 0)
		rc = write_fd(z, m->name, strlen(m->name), err);
	p.n = 0;
	put(&p, 2, 1);
	put(&p, 2, 24);
	put(&p, 8, m->size);
	put(&p, 8, m->packed);
	put(&p, 8, m->local);
	return rc == 0 ? write_fd(z, p.bytes, p.n, err) : rc;
}

/* Short fields where they can hold what is to be said, so that simple readers need nothing more. */
static int put_end(struct npk_npz *z, uint64_t list, struct npk_err *err)
{
	uint64_t len = z->at - list, end = z->at;
	bool wide = list >= LEN_MAX || len >= LEN_MAX || z->n >= 0xFFFF;
	struct put p = {.n = 0};

	if (wide) {
		put(&p, 4, 0x06064b50);
		put(&p, 8, 44);
		put(&p, 2, 3 << 8 | VERSION_64);
		put(&p, 2, VERSION_64);
		put(&p, 4, 0);
		put(&p, 4, 0);
		put(&p, 8, z->n);
		put(&p, 8, z->n);
		put(&p, 8, len);
		put(&p, 8, list);
		put(&p, 4, 0x07064b50);
		put(&p, 4, 0);
		put(&p, 8, end);
		put(&p, 4, 1);
	}
	put(&p, 4, 0x06054b50);
	put(&p, 4, 0);
	put(&p, 2, z->n < 0xFFFF ? z->n : 0xFFFF);
	put(&p, 2, z->n < 0xFFFF ? z->n : 0xFFFF);
	put(&p, 4, len < LEN_MAX ? len : LEN_MAX);
	put(&p, 4, list < LEN_MAX ? list : LEN_MAX);
	put(&p, 2, 0);
	return write_fd(z, p.bytes, p.n, err);
}

int npk_npz_finish(struct npk_npz *z, struct npk_err *err)
{
	uint64_t list = z->at;
	int rc = 0;

	for (size_t i = 0; i < z->n && rc == 0; i++)
		rc = put_entry(z, &z->m[i], err);
	return rc == 0 ? put_end(z, list, err) : rc;
}
