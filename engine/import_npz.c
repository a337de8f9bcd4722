/* import_npz.c - .npz: a zip archive of .npy files (PKWARE's APPNOTE.TXT; sizes and offsets may be of 64 bits). The list of
 * members at the end of the file is read first and checked as a whole: names, methods, sizes that cannot be, members that
 * lie on each other. Then each member streams, and its CRC is compared at its end. */
#include "crc.h"
#include "import.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define END_LEN 22 /* of the end record, without its comment */
#define END64_LEN 56
#define LOCATOR_LEN 20
#define ENTRY_LEN 46
#define LOCAL_LEN 30
#define LIST_MAX ((uint64_t)64 << 20) /* bytes of the list: some hundred thousand members */
#define DEFLATE_MAX 1032              /* deflate makes no more bytes of one than this */
#define INPUT_BYTES ((size_t)64 << 10)

struct member {
	char *name; /* without ".npy" */
	unsigned method;
	uint32_t crc;
	uint64_t packed, size, local; /* local: where its own header begins */
	uint64_t data;                /* where its bytes begin */
};

struct npz {
	int fd; /* a file that can seek */
	bool own_fd;
	uint64_t file_len;
	struct member *m;
	size_t n, next;
	const struct member *now;
	uint64_t at, made; /* within the member: packed bytes taken, bytes made of them */
	uint32_t crc;
	z_stream z;
	bool inflating;
	uint8_t in[INPUT_BYTES];
};

static int bad(const struct npk_source *src, struct npk_err *err, uint64_t at, const char *what)
{
	return npk_fail(err, EINVAL, "%.200s: byte %" PRIu64 ": %s", src->how.file, at, what);
}

static int read_at(struct npk_source *src, uint64_t at, void *out, size_t len, struct npk_err *err)
{
	struct npz *z = src->state;
	uint8_t *p = out;

	for (ssize_t n; len > 0; p += n, len -= (size_t)n, at += (uint64_t)n) {
		n = pread(z->fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return npk_fail(err, errno, "%.200s: %s", src->how.file, strerror(errno));
		else if (n == 0)
			return bad(src, err, at, "the file ends here, in the middle of a member or record");
	}
	return 0;
}

/* --- the list --------------------------------------------------------------------------------------------------------- */

struct list {
	uint64_t at, len, n;
};

static int find_end64(struct npk_source *src, uint64_t end, struct list *l, struct npk_err *err)
{
	uint8_t loc[LOCATOR_LEN], rec[END64_LEN];
	uint64_t at;
	int rc;

	if (end < LOCATOR_LEN)
		return bad(src, err, end, "64-bit sizes are announced and not there");
	rc = read_at(src, end - LOCATOR_LEN, loc, sizeof(loc), err);
	if (rc != 0)
		return rc;
	at = npki_le(loc + 8, 8);
	if (memcmp(loc, "PK\6\7", 4) != 0 || at > end - LOCATOR_LEN || end - LOCATOR_LEN - at < END64_LEN)
		return bad(src, err, end - LOCATOR_LEN, "64-bit sizes are announced and not there");
	rc = read_at(src, at, rec, sizeof(rec), err);
	if (rc != 0)
		return rc;
	if (memcmp(rec, "PK\6\6", 4) != 0)
		return bad(src, err, at, "no 64-bit end record");
	*l = (struct list){.n = npki_le(rec + 32, 8), .len = npki_le(rec + 40, 8), .at = npki_le(rec + 48, 8)};
	return 0;
}

static int find_list(struct npk_source *src, struct list *l, struct npk_err *err)
{
	struct npz *z = src->state;
	size_t tail = z->file_len < END_LEN + 65535 ? (size_t)z->file_len : END_LEN + 65535, at;
	uint64_t base = z->file_len - tail;
	uint8_t *buf, *e;
	int rc;

	if (tail < END_LEN)
		return bad(src, err, 0, "too short for a zip archive");
	buf = malloc(tail);
	if (!buf)
		return npk_fail(err, ENOMEM, "no memory");
	rc = read_at(src, base, buf, tail, err);
	for (at = tail - END_LEN; rc == 0 && at > 0; at--)
		if (memcmp(buf + at, "PK\5\6", 4) == 0 && npki_le(buf + at + 20, 2) == tail - END_LEN - at)
			break;
	e = buf + at;
	if (rc == 0 && memcmp(e, "PK\5\6", 4) != 0)
		rc = bad(src, err, z->file_len, "no end record: not a zip archive, or cut short");
	if (rc == 0 && npki_le(e + 4, 4) != 0)
		rc = bad(src, err, base + at, "an archive of several parts");
	if (rc == 0) {
		*l = (struct list){.n = npki_le(e + 10, 2), .len = npki_le(e + 12, 4), .at = npki_le(e + 16, 4)};
		if (l->n == 0xFFFF || l->len == 0xFFFFFFFF || l->at == 0xFFFFFFFF)
			rc = find_end64(src, base + at, l, err);
	}
	if (rc == 0 &&
		(l->at > base + at || l->len > base + at - l->at || l->len > LIST_MAX || l->n > l->len / ENTRY_LEN))
		rc = npk_fail(err, EINVAL,
			"%.200s: byte %" PRIu64 ": a list of %" PRIu64 " members in %" PRIu64 " bytes at byte %" PRIu64
			" cannot be",
			src->how.file, base + at, l->n, l->len, l->at);
	free(buf);
	return rc;
}

/* The 64-bit values stand in the order size, packed, local, each only where the short field is all ones. */
static bool widen(struct npki_rd extra, struct member *m)
{
	uint64_t *want[] = {&m->size, &m->packed, &m->local};

	while (extra.p < extra.end && !extra.bad) {
		const uint8_t *head = npki_rd_take(&extra, 4), *body;
		unsigned len = head ? (unsigned)npki_le(head + 2, 2) : 0;
		struct npki_rd r;

		body = npki_rd_take(&extra, len);
		if (!body || npki_le(head, 2) != 1)
			continue;
		r = npki_rd_init(body, len);
		for (int i = 0; i < 3; i++)
			if (*want[i] == 0xFFFFFFFF)
				*want[i] = npki_rd_u64(&r);
		return !r.bad;
	}
	return m->size != 0xFFFFFFFF && m->packed != 0xFFFFFFFF && m->local != 0xFFFFFFFF;
}

static int take_name(struct npk_source *src, struct member *m, const uint8_t *name, size_t len, struct npk_err *err)
{
	if (len < 4 || memcmp(name + len - 4, ".npy", 4) != 0 || memchr(name, 0, len))
		return npk_fail(err, EINVAL, "%.200s: member '%.*s' is no .npy file", src->how.file,
			(int)(len < 200 ? len : 200), (const char *)name);
	m->name = strndup((const char *)name, len - 4);
	return m->name ? 0 : npk_fail(err, ENOMEM, "no memory");
}

static int parse_entry(struct npk_source *src, struct npki_rd *r, uint64_t base, struct member *m, struct npk_err *err)
{
	uint64_t at = base + npki_rd_pos(r);
	const uint8_t *e = npki_rd_take(r, ENTRY_LEN), *name, *extra;
	unsigned name_len, extra_len;
	int rc;

	if (!e || memcmp(e, "PK\1\2", 4) != 0)
		return bad(src, err, at, "no entry of the list of members");
	name_len = (unsigned)npki_le(e + 28, 2);
	extra_len = (unsigned)npki_le(e + 30, 2);
	name = npki_rd_take(r, name_len);
	extra = npki_rd_take(r, extra_len);
	npki_rd_take(r, npki_le(e + 32, 2));
	if (r->bad)
		return bad(src, err, at, "an entry of the list of members is cut short");
	rc = take_name(src, m, name, name_len, err);
	if (rc != 0)
		return rc;
	m->method = (unsigned)npki_le(e + 10, 2);
	m->crc = (uint32_t)npki_le(e + 16, 4);
	m->packed = npki_le(e + 20, 4);
	m->size = npki_le(e + 24, 4);
	m->local = npki_le(e + 42, 4);
	if (!widen(npki_rd_init(extra, extra_len), m))
		return bad(src, err, at, "64-bit sizes are announced and not there");
	if (npki_le(e + 8, 2) & 0x2041)
		return npk_fail(err, EINVAL, "%.200s: member '%.200s' is encrypted", src->how.file, m->name);
	if (m->method != 0 && m->method != 8)
		return npk_fail(err, EINVAL, "%.200s: member '%.200s': method %u is neither stored nor deflated",
			src->how.file, m->name, m->method);
	if (m->method == 0 ? m->size != m->packed : m->size / DEFLATE_MAX > m->packed)
		return npk_fail(err, EINVAL, "%.200s: member '%.200s': %" PRIu64 " bytes cannot be made of %" PRIu64,
			src->how.file, m->name, m->size, m->packed);
	return 0;
}

static int by_local(const void *p, const void *q)
{
	const struct member *a = p, *b = q;

	return (a->local > b->local) - (a->local < b->local);
}

static int by_name(const void *p, const void *q)
{
	return strcmp((*(const struct member *const *)p)->name, (*(const struct member *const *)q)->name);
}

/* Members in the order of the file; each must end before the next begins, the last before the list. */
static int check_places(struct npk_source *src, uint64_t list_at, struct npk_err *err)
{
	struct npz *z = src->state;

	qsort(z->m, z->n, sizeof(*z->m), by_local);
	for (size_t i = 0; i < z->n; i++) {
		struct member *m = &z->m[i];
		uint64_t end = i + 1 < z->n ? m[1].local : list_at;
		uint8_t h[LOCAL_LEN];
		int rc;

		if (m->local > end || end > list_at || end - m->local < LOCAL_LEN)
			return bad(src, err, m->local, "members lie on each other");
		rc = read_at(src, m->local, h, sizeof(h), err);
		if (rc != 0)
			return rc;
		if (memcmp(h, "PK\3\4", 4) != 0)
			return bad(src, err, m->local, "no member begins here");
		m->data = m->local + LOCAL_LEN + npki_le(h + 26, 2) + npki_le(h + 28, 2);
		if (m->data > end || m->packed > end - m->data)
			return bad(src, err, m->local, "members lie on each other");
	}
	return 0;
}

static int check_names(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = src->state;
	const struct member **m = calloc(z->n + 1, sizeof(*m));
	int rc = 0;

	if (!m)
		return npk_fail(err, ENOMEM, "no memory");
	for (size_t i = 0; i < z->n; i++)
		m[i] = &z->m[i];
	qsort(m, z->n, sizeof(*m), by_name);
	for (size_t i = 1; i < z->n && rc == 0; i++)
		if (strcmp(m[i - 1]->name, m[i]->name) == 0)
			rc = npk_fail(err, EINVAL, "%.200s: member '%.200s' is there twice", src->how.file, m[i]->name);
	free(m);
	return rc;
}

static int read_list(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = src->state;
	struct list l = {0};
	struct npki_rd r;
	uint8_t *buf = NULL;
	int rc = find_list(src, &l, err);

	if (rc != 0)
		return rc;
	buf = malloc((size_t)l.len + 1);
	z->m = calloc((size_t)l.n + 1, sizeof(*z->m));
	rc = buf && z->m ? read_at(src, l.at, buf, (size_t)l.len, err) : npk_fail(err, ENOMEM, "no memory");
	r = npki_rd_init(buf, (size_t)l.len);
	for (; rc == 0 && z->n < l.n; z->n++)
		rc = parse_entry(src, &r, l.at, &z->m[z->n], err);
	if (rc == 0)
		rc = check_places(src, l.at, err);
	if (rc == 0)
		rc = check_names(src, err);
	free(buf);
	return rc;
}

static int open_npz(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = calloc(1, sizeof(*z));
	struct stat st;
	int rc = 0;

	if (!z)
		return npk_fail(err, ENOMEM, "no memory");
	z->fd = src->in.fd;
	src->state = z;
	if (fstat(z->fd, &st) != 0)
		return npk_fail(err, errno, "%.200s: %s", src->how.file, strerror(errno));
	if (!S_ISREG(st.st_mode)) {
		rc = npki_in_spool(&src->in, &z->fd, err);
		z->own_fd = rc == 0;
		if (rc == 0 && fstat(z->fd, &st) != 0)
			rc = npk_fail(err, errno, "%.200s: %s", src->how.file, strerror(errno));
	}
	if (rc != 0)
		return rc;
	z->file_len = (uint64_t)st.st_size;
	return read_list(src, err);
}

/* --- a member --------------------------------------------------------------------------------------------------------- */

static int broken(struct npk_source *src, const char *what, struct npk_err *err)
{
	struct npz *z = src->state;

	return npk_fail(err, EINVAL, "%.200s: member '%.200s': byte %" PRIu64 ": %s", src->how.file, z->now->name,
		z->made, what);
}

static int more_input(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = src->state;
	uint64_t left = z->now->packed - z->at;
	size_t n = left < INPUT_BYTES ? (size_t)left : INPUT_BYTES;
	int rc;

	if (n == 0)
		return broken(src, "the deflated bytes end too early", err);
	rc = read_at(src, z->now->data + z->at, z->in, n, err);
	z->at += n;
	src->in.at = z->now->data + z->at; /* for npk_source_at(): nothing is read by src->in here */
	z->z.next_in = z->in;
	z->z.avail_in = (uInt)n;
	return rc;
}

static int inflate_into(struct npk_source *src, uint8_t *out, size_t len, struct npk_err *err)
{
	struct npz *z = src->state;
	int rc = 0, said;

	z->z.next_out = out;
	z->z.avail_out = (uInt)len;
	while (z->z.avail_out > 0 && rc == 0) {
		if (z->z.avail_in == 0)
			rc = more_input(src, err);
		if (rc != 0)
			break;
		said = inflate(&z->z, Z_NO_FLUSH);
		if (said == Z_STREAM_END && z->z.avail_out > 0)
			rc = broken(src, "the deflated bytes end too early", err);
		else if (said == Z_MEM_ERROR)
			rc = npk_fail(err, ENOMEM, "no memory");
		else if (said != Z_OK && said != Z_STREAM_END && said != Z_BUF_ERROR)
			rc = broken(src, "the deflated bytes are damaged", err);
	}
	return rc;
}

static int pull(struct npk_source *src, void *out, size_t len, struct npk_err *err)
{
	struct npz *z = src->state;
	int rc;

	if (len > z->now->size - z->made)
		return broken(src, "the member ends before its array does", err);
	if (z->now->method == 8)
		rc = inflate_into(src, out, len, err);
	else
		rc = read_at(src, src->in.at = z->now->data + z->made, out, len, err);
	if (rc != 0)
		return rc;
	z->crc = npki_crc32(z->crc, out, len);
	z->made += len;
	return 0;
}

static int check(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = src->state;

	if (z->crc == z->now->crc)
		return 0;
	return npk_fail(err, EINVAL, "%.200s: member '%.200s': its CRC is %08" PRIx32 ", the list says %08" PRIx32,
		src->how.file, z->now->name, z->crc, z->now->crc);
}

/* The .npy header at the front of the member. */
static int read_header(struct npk_source *src, struct npk_npy *npy, struct npk_err *err)
{
	struct npz *z = src->state;
	uint64_t size = z->now->size;
	size_t have = 0, need = size < 10 ? (size_t)size : 10;
	int rc;

	do {
		if (need > size || need > NPKI_IMPORT_BLOCK)
			return broken(src, "its .npy header is longer than the member", err);
		rc = pull(src, src->block + have, need - have, err);
		have = need;
		if (rc == 0)
			rc = npk_npy_parse(src->block, have, npy, &need, err);
	} while (rc == -EAGAIN && need > have);
	if (rc == 0 && npy->header_len + npy->data_len != size)
		return npk_fail(err, EINVAL,
			"%.200s: member '%.200s': %" PRIu64 " bytes, its .npy header wants %" PRIu64, src->how.file,
			z->now->name, size, npy->header_len + npy->data_len);
	return rc == 0 ? 0 : npk_err_context(err, rc, "%.200s: member '%.200s'", src->how.file, z->now->name);
}

static int begin_member(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = src->state;
	int said;

	z->at = z->made = 0;
	z->crc = 0;
	if (z->now->method != 8)
		return 0;
	if (!z->inflating)
		said = inflateInit2(&z->z, -MAX_WBITS);
	else
		said = inflateReset(&z->z);
	z->inflating |= said == Z_OK;
	z->z.avail_in = 0;
	return said == Z_OK ? 0 : npk_fail(err, ENOMEM, "no memory");
}

static int next(struct npk_source *src, struct npk_err *err)
{
	struct npz *z = src->state;
	struct npk_npy npy;
	int rc = z ? 0 : open_npz(src, err);

	z = src->state;
	if (rc != 0)
		return rc;
	if (z->next == z->n)
		return 0;
	z->now = &z->m[z->next++];
	rc = begin_member(src, err);
	if (rc == 0)
		rc = read_header(src, &npy, err);
	if (rc != 0)
		return rc;
	npki_source_npy(src, &npy);
	src->now.name = z->now->name;
	return 1;
}

static void close_npz(struct npk_source *src)
{
	struct npz *z = src->state;

	if (!z)
		return;
	if (z->inflating)
		inflateEnd(&z->z);
	if (z->own_fd)
		close(z->fd);
	for (size_t i = 0; z->m && i < z->n; i++)
		free(z->m[i].name);
	free(z->m);
	free(z);
}

const struct npki_format npki_import_npz = {.next = next, .pull = pull, .check = check, .close = close_npz};
