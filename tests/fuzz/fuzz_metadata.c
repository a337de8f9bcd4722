/* fuzz_metadata.c - any bytes as metadata.npkm. Entries tile the file, point into it, and say the same when they stand
 * alone; what is not marked as damaged is safe to use. */
#include "fuzz.h"

#include "meta.h"
#include "text.h"

#include <errno.h>

#define HEADER_LEN 20
#define ENTRIES_MAX 12 /* then the callback ends the parse */

struct seen {
	const uint8_t *data;
	size_t size, at;
	uint64_t count;
	bool alone;                     /* the list is one entry that was cut out of another */
	const struct npki_ameta *whole; /* then: that entry */
};

static bool within(const struct seen *s, const void *p, uint64_t len)
{
	const uint8_t *from = p;

	return from >= s->data && len <= s->size && (size_t)(from - s->data) <= s->size - len;
}

static void check_sound(const struct npki_ameta *m)
{
	struct npk_shape shape = {.ndim = m->ndim};
	uint64_t row_bytes, bytes;

	CHECK(m->dtype < NPK_DTYPE_COUNT && m->ndim <= NPK_MAX_NDIM);
	CHECK(npki_is_legal_name(m->name, m->name_len) && npki_is_plain_path(m->file, m->file_len));
	CHECK(npki_is_utf8(m->file, m->file_len));
	for (unsigned i = 0; i < m->ndim; i++)
		shape.dim[i] = npki_le(m->dims + 8 * (size_t)i, 8);
	CHECK(npki_shape_bytes(&shape, npk_dtype_size(m->dtype), &row_bytes, &bytes) == 0);
	CHECK(bytes <= INT64_MAX && row_bytes <= INT64_MAX);
	for (unsigned i = 0; i < m->ndim; i++)
		CHECK(shape.dim[i] <= INT64_MAX); /* also when another one is 0: code counts rows in int64_t */
	CHECK(m->ndim == 0 || shape.dim[0] == 0 || bytes / shape.dim[0] == row_bytes);
}

/* The entry written again, field by field, up to the first field that the parser does not keep. */
static void check_bytes(const struct seen *s, const struct npki_ameta *m)
{
	struct npki_rd r = npki_rd_init(s->data + m->at, m->len);

	CHECK(npki_rd_u32(&r) == m->name_len && memcmp(npki_rd_take(&r, m->name_len), m->name, m->name_len) == 0);
	CHECK(npki_rd_u32(&r) == m->ndim && npki_rd_take(&r, 8 * (uint64_t)m->ndim) == m->dims);
	CHECK(npki_rd_u32(&r) == m->file_len && memcmp(npki_rd_take(&r, m->file_len), m->file, m->file_len) == 0);
	CHECK(npki_rd_u64(&r) == m->mtime_us);
	npki_rd_u64(&r);
	CHECK(npki_rd_u8(&r) == m->dtype && !r.bad);
	CHECK(m->len >= 51 + m->name_len + (uint64_t)m->file_len + 8 * (uint64_t)m->ndim);
}

static void check_alone(const struct npki_ameta *m, const uint8_t *entry);

static int entry(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct seen *s = ctx;

	CHECK(m->at == s->at && m->len <= s->size - s->at);
	s->at += m->len;
	s->count++;
	CHECK(within(s, m->name, m->name_len) && within(s, m->file, m->file_len) &&
		within(s, m->dims, 8 * (uint64_t)m->ndim));
	CHECK(npki_is_utf8(m->name, m->name_len));
	CHECK(m->damage == 0 || m->damage == EUCLEAN || m->damage == ENOTSUP);
	CHECK((m->damage == 0) == (m->why[0] == 0));
	if (m->damage == 0)
		check_sound(m);
	check_bytes(s, m);
	if (s->alone)
		CHECK(m->len == s->whole->len && m->damage == s->whole->damage && m->dtype == s->whole->dtype);
	else if (m->len < 1024 && s->count < 2) /* otherwise long lists would be slow */
		check_alone(m, s->data + m->at);
	return s->count == ENTRIES_MAX ? npk_fail(err, ECANCELED, "enough") : 0;
}

static void check_alone(const struct npki_ameta *m, const uint8_t *bytes)
{
	static const uint8_t header[HEADER_LEN] = {'N', 'P', 'K', 'B', 1, [16] = 1};
	struct seen s = {.size = HEADER_LEN + m->len, .at = HEADER_LEN, .alone = true, .whole = m};
	uint8_t *list = malloc(s.size);
	struct npki_meta meta;
	struct npk_err err;

	CHECK(list);
	memcpy(list, header, HEADER_LEN);
	memcpy(list + HEADER_LEN, bytes, m->len);
	s.data = list;
	CHECK(npki_meta_parse(list, s.size, &meta, entry, &s, NULL, &err) == 0);
	CHECK(!meta.cut && meta.narrays == 1 && s.at == s.size);
	free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen s = {.data = data, .size = size, .at = HEADER_LEN};
	struct npki_notes notes = {0};
	struct npki_meta meta;
	struct npk_err err;
	int rc = npki_meta_parse(data, size, &meta, entry, &s, &notes, &err);

	if (rc != 0) {
		CHECK(rc == (s.count == ENTRIES_MAX ? -ECANCELED : -EUCLEAN));
		check_err(rc, &err);
		return 0;
	}
	CHECK(s.count == meta.narrays && (meta.cut ? s.count < meta.count : s.count == meta.count));
	CHECK(meta.cut == (meta.why[0] != 0));
	return 0;
}
