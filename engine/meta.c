/* meta.c - parses metadata.npkm. No length in the file is believed before the bytes behind it are there. */
#include "meta.h"
#include "text.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "NPKB"
#define HEADER_LEN 20

bool npki_is_plain_path(const char *path, size_t len)
{
	const char *end = path + len, *slash;

	if (memchr(path, 0, len))
		return false;
	for (;; path = slash + 1) {
		slash = memchr(path, '/', (size_t)(end - path));
		len = (size_t)((slash ? slash : end) - path);
		if (len == 0 || (len <= 2 && memcmp(path, "..", len) == 0))
			return false;
		if (!slash)
			return true;
	}
}

bool npki_is_legal_name(const char *name, size_t len)
{
	if (memchr(name, '/', len))
		return npki_is_plain_path(name, len);
	return !memchr(name, 0, len);
}

int npki_shape_bytes(const struct npk_shape *shape, size_t item, uint64_t *row_bytes, uint64_t *bytes)
{
	uint64_t row = item, all;

	for (unsigned i = 0; i < shape->ndim; i++)
		if (shape->dim[i] > INT64_MAX) /* beside a 0 it makes no bytes, but rows are counted in int64_t */
			return -1;
	for (unsigned i = 1; i < shape->ndim; i++)
		if (__builtin_mul_overflow(row, shape->dim[i], &row) || row > INT64_MAX)
			return -1;
	if (__builtin_mul_overflow(row, shape->ndim ? shape->dim[0] : 1, &all) || all > INT64_MAX)
		return -1;
	*row_bytes = row;
	*bytes = all;
	return 0;
}

static void damage(struct npki_ameta *m, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Keeps the first reason. */
static void damage(struct npki_ameta *m, int code, const char *fmt, ...)
{
	va_list ap;

	if (m->damage)
		return;
	m->damage = code;
	va_start(ap, fmt);
	vsnprintf(m->why, sizeof(m->why), fmt, ap);
	va_end(ap);
}

static void check_shape(struct npki_ameta *m, struct npki_notes *notes)
{
	struct npk_shape shape = {.ndim = m->ndim};
	uint64_t row_bytes, bytes;

	if (m->ndim > NPK_MAX_NDIM) {
		damage(m, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": %u dimensions, at most %d are possible", m->at,
			m->ndim, NPK_MAX_NDIM);
		return;
	}
	for (unsigned i = 0; i < m->ndim; i++)
		shape.dim[i] = npki_le(m->dims + 8 * (size_t)i, 8);
	if (npki_shape_bytes(&shape, npk_dtype_size(m->dtype), &row_bytes, &bytes) != 0)
		damage(m, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": the shape overflows: dimension 0 is %" PRIu64,
			m->at, shape.ndim ? shape.dim[0] : 0);
	else if (bytes != m->size_bytes && !m->damage)
		npki_note(notes, NPK_NOTE,
			NPKI_META_FILE ": byte %" PRIu64 ": size %" PRIu64 ", the shape says %" PRIu64, m->at,
			m->size_bytes, bytes);
}

/* A block list is delimited so that the entries after it stay readable; no released library writes one. */
static void skip_blocks(struct npki_rd *r)
{
	uint32_t n;

	npki_rd_take(r, 1 + 8 + 8);
	n = npki_rd_u32(r);
	npki_rd_take(r, 24 * (uint64_t)n);
}

/* One entry (FORMAT.md, "array entry"). After a short read every later field is zero and r->bad stays set, so it is
 * tested once. An entry that cannot be delimited ends the list; one that can, but makes no sense, keeps the reason in
 * m->damage: that array alone is unusable. */
static int parse_entry(struct npki_rd *r, struct npki_ameta *m, struct npki_notes *notes, struct npk_err *err)
{
	char shown[NPKI_SHOW_MAX];
	uint8_t algorithm, blocks;

	*m = (struct npki_ameta){.at = npki_rd_pos(r)};
	m->name_len = npki_rd_u32(r);
	m->name = (const char *)npki_rd_take(r, m->name_len);
	m->ndim = npki_rd_u32(r);
	m->dims = npki_rd_take(r, 8 * (uint64_t)m->ndim);
	m->file_len = npki_rd_u32(r);
	m->file = (const char *)npki_rd_take(r, m->file_len);
	m->mtime_us = npki_rd_u64(r);
	m->size_bytes = npki_rd_u64(r);
	m->dtype = npki_rd_u8(r);
	algorithm = npki_rd_u8(r);
	npki_rd_take(r, 4 + 8 + 8);
	blocks = npki_rd_u8(r);
	if (blocks)
		skip_blocks(r);
	if (r->bad)
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": the entry is cut short", m->at);
	if (!npki_is_utf8(m->name, m->name_len))
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": name '%s' is not UTF-8", m->at + 4,
			npki_show(shown, m->name, m->name_len));
	m->len = npki_rd_pos(r) - m->at;
	m->raw = r->start + m->at;
	if (!npki_is_legal_name(m->name, m->name_len))
		damage(m, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": name '%s' is not legal", m->at + 4,
			npki_show(shown, m->name, m->name_len));
	if (m->dtype >= NPK_DTYPE_COUNT)
		damage(m, ENOTSUP, NPKI_META_FILE ": byte %" PRIu64 ": dtype %u is unknown", m->at, m->dtype);
	if (algorithm != 0)
		damage(m, ENOTSUP, NPKI_META_FILE ": byte %" PRIu64 ": compression %u is unknown", m->at, algorithm);
	if (blocks != 0)
		damage(m, ENOTSUP, NPKI_META_FILE ": byte %" PRIu64 ": block flag %u is unknown", m->at, blocks);
	if (!npki_is_plain_path(m->file, m->file_len) || !npki_is_utf8(m->file, m->file_len))
		damage(m, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": data file '%s' leaves the store", m->at,
			npki_show(shown, m->file, m->file_len));
	check_shape(m, notes);
	return 0;
}

static int parse_header(struct npki_rd *r, struct npki_meta *out, size_t len, struct npk_err *err)
{
	char shown[NPKI_SHOW_MAX];
	const uint8_t *magic = npki_rd_take(r, 4);
	uint32_t version = npki_rd_u32(r);

	out->total_bytes = npki_rd_u64(r);
	out->count = npki_rd_u32(r);
	if (r->bad)
		return npk_fail(
			err, EUCLEAN, NPKI_META_FILE ": byte 0: the header has %zu of %d bytes", len, HEADER_LEN);
	if (memcmp(magic, MAGIC, 4) != 0)
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": byte 0: magic '%s' is not '" MAGIC "'",
			npki_show(shown, magic, 4));
	if (version != 1)
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": byte 4: version %u is unknown", version);
	return 0;
}

int npki_meta_parse(const void *buf, size_t len, struct npki_meta *out, npki_meta_fn *fn, void *ctx,
	struct npki_notes *notes, struct npk_err *err)
{
	struct npki_rd r = npki_rd_init(buf, len);
	struct npki_ameta m;
	struct npk_err cut;
	int rc;

	*out = (struct npki_meta){0};
	rc = parse_header(&r, out, len, err);
	for (uint32_t i = 0; i < out->count && rc == 0 && !out->cut; i++) {
		if (parse_entry(&r, &m, notes, &cut) == 0) {
			out->narrays++;
			rc = fn(ctx, &m, err);
		} else {
			out->cut = true;
			memcpy(out->why, cut.msg, sizeof(out->why));
		}
	}
	if (rc == 0 && !out->cut && r.p != r.end)
		npki_note(notes, NPK_WARNING, NPKI_META_FILE ": byte %zu: %zu bytes follow the last entry",
			npki_rd_pos(&r), (size_t)(r.end - r.p));
	return rc;
}

void npki_meta_write_head(struct npk_text *out, uint64_t total_bytes, uint32_t count)
{
	npk_text_add(out, MAGIC, 4);
	npki_text_le(out, 1, 4); /* version */
	npki_text_le(out, total_bytes, 8);
	npki_text_le(out, count, 4);
}

void npki_meta_write_entry(struct npk_text *out, const void *name, size_t name_len, unsigned dtype,
	const struct npk_shape *shape, const char *file, uint64_t mtime_us, uint64_t size_bytes)
{
	static const uint8_t none[1 + 4 + 8 + 8 + 1]; /* no compression, no blocks */
	size_t file_len = strlen(file);

	npki_text_le(out, name_len, 4);
	npk_text_add(out, name, name_len);
	npki_text_le(out, shape->ndim, 4);
	for (unsigned i = 0; i < shape->ndim; i++)
		npki_text_le(out, shape->dim[i], 8);
	npki_text_le(out, file_len, 4);
	npk_text_add(out, file, file_len);
	npki_text_le(out, mtime_us, 8);
	npki_text_le(out, size_bytes, 8);
	npki_text_le(out, dtype, 1);
	npk_text_add(out, none, sizeof(none));
}
