/* pkg.c - the list of a package's members. No size in the file is believed before the bytes behind it are known to be
 * there, and none becomes an allocation: a member's entry in memory is about as long as its header in the file. */
#include "pkg.h"
#include "io.h"
#include "meta.h"
#include "store.h"
#include "text.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define TAIL 4 /* bytes of the checksum */
#define SIZES 16

/* What a codec can make of one stored byte at most: a zstd block of four bytes repeats one byte 128 KiB long, deflate
 * codes 258 bytes in two bits. */
#define ZSTD_MOST 32768u
#define ZLIB_MOST 1032u

bool npki_is_member_name(const char *name, size_t len)
{
	char copy[NAME_MAX + 1];

	if (len == 0 || len > NAME_MAX || memchr(name, '/', len) || memchr(name, 0, len) || !npki_is_utf8(name, len))
		return false;
	memcpy(copy, name, len);
	copy[len] = 0;
	return strcmp(copy, NPKI_META_FILE) == 0 || (npki_is_store_file(copy) && !npki_is_manifest(copy));
}

void npki_package_crc_add(struct npki_package_crc *c, uint32_t crc, uint64_t len)
{
	const uint8_t le[4] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16), (uint8_t)(crc >> 24)};

	if (c->version == 1)
		c->crc = (uint32_t)crc32_combine(c->crc, crc, (z_off_t)len);
	else
		c->crc = (uint32_t)crc32(c->crc, le, sizeof(le));
}

static int check_name(const char *name, uint32_t len, const struct npk_package *p, uint64_t at, struct npk_err *err)
{
	char shown[NPKI_SHOW_MAX];

	if (npki_is_member_name(name, len))
		return 0;
	return npk_fail(err, EUCLEAN,
		"%.200s: byte %" PRIu64 ": '%s' is no file of a store: a package has metadata.npkm, data_*.npkd and "
		"deleted_*.npkb",
		p->path, at, npki_show(shown, name, len));
}

/* `first` holds the first bytes of what is stored. */
static int check_sizes(struct npki_member *m, uint64_t stored, const uint8_t *first, const struct npk_package *p,
	uint64_t at, struct npk_err *err)
{
	static const uint8_t zstd[4] = {0x28, 0xb5, 0x2f, 0xfd};
	char shown[NPKI_SHOW_MAX];
	unsigned most;

	npki_show(shown, m->name, strlen(m->name));
	m->codec = NPK_CODEC_NONE;
	if (stored == 0)
		return 0;
	m->codec = stored >= 4 && memcmp(first, zstd, 4) == 0 ? NPK_CODEC_ZSTD : NPK_CODEC_ZLIB;
	most = m->codec == NPK_CODEC_ZSTD ? ZSTD_MOST : ZLIB_MOST;
	if (m->original == 0)
		return npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": '%s' has no contents, in %" PRIu64 " bytes",
			p->path, at, shown, stored);
	if (m->original / most > stored)
		return npk_fail(err, EUCLEAN,
			"%.200s: byte %" PRIu64 ": '%s' has %" PRIu64 " bytes stored in %" PRIu64
			": more than %u to 1 is impossible",
			p->path, at, shown, m->original, stored, most);
	return 0;
}

/* One member (FORMAT.md, "packages"): its header, and that its contents are there. */
static int parse_member(struct npk_package *p, uint64_t at, struct npki_member *m, struct npk_err *err)
{
	uint8_t head[4 + NAME_MAX + SIZES + 4] = {0};
	uint64_t size = (uint64_t)p->st.st_size, left = size - at, stored, data;
	size_t n = left < sizeof(head) ? (size_t)left : sizeof(head);
	struct npki_rd r = npki_rd_init(head, n);
	const uint8_t *name;
	uint32_t len;
	int rc = npki_pread_all(p->fd, head, n, at, p->path, err);

	if (rc != 0)
		return rc;
	len = npki_rd_u32(&r);
	if (!r.bad && (len == 0 || len > NAME_MAX))
		return npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": a name of %u bytes, a file's has 1 to %d",
			p->path, at, len, NAME_MAX);
	name = npki_rd_take(&r, len);
	m->original = npki_rd_u64(&r);
	stored = npki_rd_u64(&r);
	if (r.bad)
		return npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": the package ends in the header of a file",
			p->path, at);
	rc = check_name((const char *)name, len, p, at + 4, err);
	if (rc != 0)
		return rc;
	data = at + npki_rd_pos(&r);
	m->at = data;
	m->len = stored ? stored : m->original;
	m->name = strndup((const char *)name, len);
	if (!m->name)
		return npk_fail(err, ENOMEM, "%.200s: no memory", p->path);
	if (size - data < TAIL || m->len > size - data - TAIL)
		return npk_fail(err, EUCLEAN,
			"%.200s: byte %" PRIu64 ": '%.100s' has %" PRIu64 " bytes, the package ends %" PRIu64
			" bytes further on",
			p->path, at, m->name, m->len, size - data);
	return check_sizes(m, stored, r.p, p, at, err);
}

static int parse_members(struct npk_package *p, uint32_t count, struct npk_err *err)
{
	uint64_t at = NPKI_PKG_HEAD;
	struct npki_member *more;
	int rc = 0;

	for (uint32_t i = 0; i < count && rc == 0; i++) {
		if ((i & (i - 1)) == 0) { /* a power of two */
			more = realloc(p->member, (i ? 2 * (size_t)i : 1) * sizeof(*more));
			if (!more)
				return npk_fail(err, ENOMEM, "%.200s: no memory for its list of files", p->path);
			p->member = more;
		}
		p->member[i] = (struct npki_member){0};
		p->info.nfiles++;
		rc = parse_member(p, at, &p->member[i], err);
		if (rc == 0) {
			at = p->member[i].at + p->member[i].len;
			p->info.stored_bytes += p->member[i].len;
			if (__builtin_add_overflow(
				    p->info.original_bytes, p->member[i].original, &p->info.original_bytes))
				rc = npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": the files' sizes overflow",
					p->path, at);
		}
	}
	if (rc == 0 && (uint64_t)p->st.st_size - at != TAIL)
		rc = npk_fail(err, EUCLEAN,
			"%.200s: byte %" PRIu64 ": %" PRIu64 " bytes follow the last file, the checksum has %d",
			p->path, at, (uint64_t)p->st.st_size - at, TAIL);
	return rc;
}

static int parse_head(struct npk_package *p, uint32_t *count, struct npk_err *err)
{
	uint64_t size = (uint64_t)p->st.st_size;
	uint8_t head[NPKI_PKG_HEAD], tail[TAIL];
	struct npki_rd r = npki_rd_init(head, sizeof(head));
	char shown[NPKI_SHOW_MAX];
	int rc;

	if (size < NPKI_PKG_HEAD + TAIL)
		return npk_fail(err, EUCLEAN, "%.200s: byte 0: %" PRIu64 " bytes are no package, the shortest has %d",
			p->path, size, NPKI_PKG_HEAD + TAIL);
	rc = npki_pread_all(p->fd, head, sizeof(head), 0, p->path, err);
	if (rc == 0)
		rc = npki_pread_all(p->fd, tail, TAIL, size - TAIL, p->path, err);
	if (rc != 0)
		return rc;
	if (memcmp(npki_rd_take(&r, 4), NPKI_PKG_MAGIC, 4) != 0)
		return npk_fail(err, EUCLEAN, "%.200s: byte 0: magic '%s' is not '" NPKI_PKG_MAGIC "'", p->path,
			npki_show(shown, head, 4));
	p->info.version = npki_rd_u32(&r);
	p->info.compression = npki_rd_u8(&r);
	*count = npki_rd_u32(&r);
	p->crc = (uint32_t)npki_le(tail, TAIL);
	if (p->info.version != 1 && p->info.version != 2)
		return npk_fail(err, EUCLEAN, "%.200s: byte 4: version %u is unknown", p->path, p->info.version);
	if (p->info.compression > 1)
		return npk_fail(
			err, EUCLEAN, "%.200s: byte 8: compression %u is unknown", p->path, p->info.compression);
	return 0;
}

static int by_name(const void *x, const void *y)
{
	return strcmp((*(struct npki_member *const *)x)->name, (*(struct npki_member *const *)y)->name);
}

/* Two files of one name would make one of them unreachable. */
static int sort_members(struct npk_package *p, struct npk_err *err)
{
	size_t n = p->info.nfiles;

	p->by_name = malloc((n + 1) * sizeof(struct npki_member *));
	if (!p->by_name)
		return npk_fail(err, ENOMEM, "%.200s: no memory for its list of files", p->path);
	for (size_t i = 0; i < n; i++)
		p->by_name[i] = &p->member[i];
	qsort(p->by_name, n, sizeof(struct npki_member *), by_name);
	for (size_t i = 1; i < n; i++)
		if (strcmp(p->by_name[i - 1]->name, p->by_name[i]->name) == 0)
			return npk_fail(err, EUCLEAN, "%.200s: byte %" PRIu64 ": '%.100s' is there twice", p->path,
				p->by_name[i]->at, p->by_name[i]->name);
	return 0;
}

const struct npki_member *npki_package_find(const struct npk_package *p, const char *name)
{
	size_t lo = 0, hi = p->info.nfiles, mid;
	int c;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		c = strcmp(p->by_name[mid]->name, name);
		if (c == 0)
			return p->by_name[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

int npki_package_open_fd(struct npk_package **out, int fd, const char *path, struct npk_err *err)
{
	struct npk_package *p = calloc(1, sizeof(*p));
	uint32_t count = 0;
	int rc = 0;

	if (!p || !(p->path = strdup(path))) {
		free(p);
		close(fd);
		return npk_fail(err, ENOMEM, "%.200s: no memory", path);
	}
	p->refs = 1;
	p->fd = fd;
	if (fstat(fd, &p->st) != 0)
		rc = npk_fail(err, errno, "%.200s: %s", path, strerror(errno));
	else if (!S_ISREG(p->st.st_mode))
		rc = npk_fail(err, S_ISDIR(p->st.st_mode) ? EISDIR : EINVAL,
			"%.200s: is no package: not a regular file", path);
	if (rc == 0)
		rc = parse_head(p, &count, err);
	if (rc == 0)
		rc = parse_members(p, count, err);
	if (rc == 0)
		rc = sort_members(p, err);
	if (rc != 0)
		npk_package_close(p);
	else
		*out = p;
	return rc;
}

int npk_package_open(struct npk_package **out, const char *path, struct npk_err *err)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC); /* no waiting for the writer of a FIFO */

	if (fd < 0)
		return npk_fail(err, errno, "%.200s: %s", path, strerror(errno));
	return npki_package_open_fd(out, fd, path, err);
}

struct npk_package *npki_package_ref(struct npk_package *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void npk_package_close(struct npk_package *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < p->info.nfiles && p->member; i++)
		free(p->member[i].name);
	close(p->fd);
	free(p->by_name);
	free(p->member);
	free(p->path);
	free(p);
}

const struct npk_package_info *npk_package_info(const struct npk_package *p)
{
	return &p->info;
}

int npk_package_file(const struct npk_package *p, uint64_t i, struct npk_package_file *out, struct npk_err *err)
{
	const struct npki_member *m;

	if (i >= p->info.nfiles)
		return npk_fail(err, ERANGE, "%.200s: file %" PRIu64 " of %" PRIu64, p->path, i, p->info.nfiles);
	m = &p->member[i];
	*out = (struct npk_package_file){m->name, m->codec, m->original, m->len};
	return 0;
}

static const char *const codecs[] = {[NPK_CODEC_ZSTD] = "zstd", [NPK_CODEC_ZLIB] = "zlib", [NPK_CODEC_NONE] = "none"};

const char *npk_codec_name(enum npk_codec c)
{
	return (unsigned)c < sizeof(codecs) / sizeof(*codecs) ? codecs[c] : NULL;
}

int npk_codec_parse(const char *name, enum npk_codec *out, struct npk_err *err)
{
	for (unsigned i = 0; i < sizeof(codecs) / sizeof(*codecs); i++)
		if (strcmp(name, codecs[i]) == 0) {
			*out = (enum npk_codec)i;
			return 0;
		}
	return npk_fail(err, EINVAL, "codec '%.100s' is none of zstd, zlib, none", name);
}
