/* repair_rows.c - one array against its files: the entry is made to fit the rows that are there, and the bitmap to fit both. Rows
 * are never made up: a file that is too short keeps its whole rows. A bit that is lost shows its row: nothing gets hidden. */
#include "bitmap.h"
#include "repair.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MANIFEST_MAX ((size_t)1 << 28)

/* What messages call the array. */
static const char *show(const struct npki_rarray *a, char shown[NPKI_SHOW_MAX])
{
	return npki_show(shown, a->name, a->name_len);
}

static int leave(struct npki_repair *r, struct npki_rarray *a, const char *file, uint64_t byte, const char *why)
{
	char shown[NPKI_SHOW_MAX];

	a->left = true;
	return npki_r_left(r, show(a, shown), file, byte, "%.400s", why);
}

static bool sizes(const struct npki_rarray *a, uint64_t *row_bytes, uint64_t *bytes)
{
	return a->dtype < NPK_DTYPE_COUNT &&
	       npki_shape_bytes(&a->shape, npk_dtype_size(a->dtype), row_bytes, bytes) == 0;
}

static bool file_size(struct npki_repair *r, const char *file, uint64_t *size)
{
	struct npki_file_id id;

	if (npki_stat_file(r->s->dirfd, file, &id, NULL) != 0 || !id.exists)
		return false;
	*size = id.size;
	return true;
}

static bool is_used(const struct npki_repair *r, const char *file)
{
	for (size_t i = 0; i < r->narrays; i++)
		if (!r->array[i].dropped && r->array[i].file && strcmp(r->array[i].file, file) == 0)
			return true;
	return false;
}

/* --- the entry -------------------------------------------------------------------------------------------------------- */

static int set_slots(struct npki_repair *r, struct npki_rarray *a, uint64_t slots)
{
	char shown[NPKI_SHOW_MAX];
	int rc = npki_r_tell_u64(
		r, show(a, shown), NPKI_META_FILE, npki_r_field(a, NPKI_F_DIM0), "rows", a->shape.dim[0], slots);

	a->shape.dim[0] = slots;
	a->changed = true;
	return rc;
}

/* Where an entry names a file that is not there, or one outside of the store, and the one that NumPack would name is there,
 * has the right size and belongs to nobody. */
static int find_file(struct npki_repair *r, struct npki_rarray *a, bool *found)
{
	char shown[NPKI_SHOW_MAX], *canonical;
	uint64_t row_bytes, bytes, size;
	int rc = 0;

	*found = false;
	if (!npki_is_legal_name(a->name, a->name_len) || !sizes(a, &row_bytes, &bytes))
		return 0;
	canonical = npki_data_file(a->name);
	if (!canonical)
		return npki_r_no_memory(r);
	if (!is_used(r, canonical) && file_size(r, canonical, &size) && size == bytes) {
		rc = npki_r_tell(r, show(a, shown), NPKI_META_FILE, npki_r_field(a, NPKI_F_FILE), "data file",
			a->file ? a->file : "one outside of the store", canonical);
		free(a->file);
		a->file = canonical;
		a->changed = *found = true;
		return rc;
	}
	free(canonical);
	return 0;
}

/* NumPack names the file by the array, and so do we when a store is at rest: where the two differ, no file has the array's name
 * and no array the file's, the name is what is damaged. A bitmap is found by it. */
static int mend_name(struct npki_repair *r, struct npki_rarray *a)
{
	size_t n = strlen(a->file), tail = npki_is_manifest(a->file) ? 7 : 5;
	char shown[NPKI_SHOW_MAX], fresh[NPKI_SHOW_MAX], *canonical, *name;
	uint64_t size;
	bool differs, taken;
	int rc;

	if (!npki_is_store_file(a->file) || strncmp(a->file, "data_.npk-", 10) == 0 ||
		strncmp(a->file, "data_", 5) != 0)
		return 0;
	if (asprintf(&canonical, "data_%s%s", a->name, a->file + n - tail) < 0)
		return npki_r_no_memory(r);
	differs = strcmp(canonical, a->file) != 0;
	taken = differs && (!file_size(r, a->file, &size) || file_size(r, canonical, &size));
	free(canonical);
	for (size_t i = 0; i < r->narrays && differs; i++)
		taken = taken || (&r->array[i] != a && !r->array[i].dropped &&
					 ((r->array[i].name_len == n - 5 - tail &&
						  memcmp(r->array[i].name, a->file + 5, n - 5 - tail) == 0) ||
						 (r->array[i].file && strcmp(r->array[i].file, a->file) == 0)));
	if (!differs || taken)
		return 0;
	name = strndup(a->file + 5, n - 5 - tail);
	if (!name)
		return npki_r_no_memory(r);
	rc = npki_r_tell(
		r, show(a, shown), NPKI_META_FILE, a->at + 4, "name", shown, npki_show(fresh, name, n - 5 - tail));
	free(a->name);
	a->name = name;
	a->name_len = n - 5 - tail;
	a->changed = true;
	return rc;
}

/* The size field and the data file agree on how many rows there are; only the shape does not. */
static int mend_shape(struct npki_repair *r, struct npki_rarray *a)
{
	struct npki_rarray one = *a;
	uint64_t row_bytes, bytes, size;

	one.shape.dim[0] = 1;
	if (a->shape.ndim == 0 || !a->file || !sizes(&one, &row_bytes, &bytes) || row_bytes == 0 ||
		!file_size(r, a->file, &size) || size != a->size_bytes || size % row_bytes != 0 || size == 0)
		return leave(r, a, NPKI_META_FILE, npki_r_field(a, NPKI_F_DIM0), a->why);
	a->damage = 0;
	return set_slots(r, a, size / row_bytes);
}

static int mend_dtype(struct npki_repair *r, struct npki_rarray *a)
{
	const struct npk_repair_array *hint = npki_r_hint(r, a->name, a->name_len);
	char shown[NPKI_SHOW_MAX], text[NPK_ERR_MAX];
	int rc;

	if (!hint) {
		snprintf(text, sizeof(text), "dtype %u is unknown, %" PRIu64 " bytes of data: say %.100s=DTYPE",
			a->dtype, a->size_bytes, show(a, shown));
		return leave(r, a, NPKI_META_FILE, npki_r_field(a, NPKI_F_DTYPE), text);
	}
	rc = npki_r_tell_u64(
		r, show(a, shown), NPKI_META_FILE, npki_r_field(a, NPKI_F_DTYPE), "dtype", a->dtype, hint->dtype);
	a->dtype = hint->dtype;
	if (hint->has_shape)
		a->shape = hint->shape;
	a->changed = true;
	return rc;
}

/* No release of NumPack ever wrote compressed data: a file of exactly the plain size has plain data. */
static int mend_flags(struct npki_repair *r, struct npki_rarray *a)
{
	uint64_t row_bytes, bytes, size, algorithm_at = npki_r_field(a, NPKI_F_ALGORITHM),
					 blocks_at = npki_r_field(a, NPKI_F_BLOCKS);
	unsigned algorithm = a->raw[algorithm_at - a->at], blocks = a->raw[blocks_at - a->at];
	char shown[NPKI_SHOW_MAX];
	int rc = 0;

	if (algorithm == 0 && blocks == 0)
		return 0;
	if (!sizes(a, &row_bytes, &bytes) || !a->file || !file_size(r, a->file, &size) || size != bytes)
		return leave(r, a, NPKI_META_FILE, algorithm ? algorithm_at : blocks_at, a->why);
	if (algorithm)
		rc = npki_r_tell_u64(r, show(a, shown), NPKI_META_FILE, algorithm_at, "compression", algorithm, 0);
	if (rc == 0 && blocks)
		rc = npki_r_tell_u64(r, show(a, shown), NPKI_META_FILE, blocks_at, "block flag", blocks, 0);
	a->changed = true;
	return rc;
}

/* Level and sizes of a compression that is none. */
static int mend_unused(struct npki_repair *r, struct npki_rarray *a)
{
	uint64_t at = npki_r_field(a, NPKI_F_ALGORITHM) + 1;
	char shown[NPKI_SHOW_MAX];
	int rc = 0;

	for (uint64_t i = at; i < at + 4 + 8 + 8 && rc == 0; i++)
		if (a->raw[i - a->at]) {
			rc = npki_r_tell_u64(r, show(a, shown), NPKI_META_FILE, i,
				"a field of compression, which is none", a->raw[i - a->at], 0);
			a->changed = true;
		}
	return rc;
}

static int mend_entry(struct npki_repair *r, struct npki_rarray *a)
{
	uint64_t row_bytes, bytes;
	bool found;
	int rc = 0;

	if (!npki_is_legal_name(a->name, a->name_len) ||
		npki_le(a->raw + npki_r_field(a, NPKI_F_NDIM) - a->at, 4) > NPK_MAX_NDIM)
		return leave(r, a, NPKI_META_FILE, a->at, a->why);
	if (a->dtype >= NPK_DTYPE_COUNT)
		rc = mend_dtype(r, a);
	if (rc == 0 && !a->left && !sizes(a, &row_bytes, &bytes))
		rc = mend_shape(r, a);
	if (rc == 0 && !a->left && !a->file) {
		rc = find_file(r, a, &found);
		if (rc == 0 && !found)
			rc = leave(r, a, NPKI_META_FILE, npki_r_field(a, NPKI_F_FILE), a->why);
	}
	return rc == 0 && !a->left ? mend_flags(r, a) : rc;
}

/* --- the data --------------------------------------------------------------------------------------------------------- */

static int cut_file(struct npki_repair *r, const struct npki_rarray *a, const char *file, uint64_t size, uint64_t len)
{
	char shown[NPKI_SHOW_MAX], old[40], fresh[40];
	struct npki_rstep *st;

	if (size == len)
		return 0;
	st = npki_r_step(r, NPKI_R_CUT, file);
	if (!st)
		return npki_r_no_memory(r);
	st->len = len;
	snprintf(old, sizeof(old), "%" PRIu64 " bytes", size);
	snprintf(fresh, sizeof(fresh), "%" PRIu64 " bytes", len);
	return npki_r_tell(r, show(a, shown), file, len, "length, without a part of a row", old, fresh);
}

/* The shape needs other bytes than the entry's own size field and the files, which agree: the shape or the dtype is damaged,
 * not the data. *settled: it was not so, or the user's description fits. */
static int dispute(struct npki_repair *r, struct npki_rarray *a, uint64_t bytes, uint64_t size, bool *settled)
{
	const struct npk_repair_array *hint;
	struct npki_rarray said = *a;
	uint64_t row_bytes, need;
	char shown[NPKI_SHOW_MAX], text[NPK_ERR_MAX], old[40];
	int rc;

	*settled = size == bytes || size != a->size_bytes || !a->raw;
	if (*settled)
		return 0;
	hint = npki_r_hint(r, a->name, a->name_len);
	if (hint && hint->has_shape && !hint->any_rows) {
		said.shape = hint->shape;
		said.dtype = hint->dtype;
	}
	if (hint && sizes(&said, &row_bytes, &need) && need == size && said.shape.ndim) {
		*settled = true;
		snprintf(old, sizeof(old), "%" PRIu64 " bytes", bytes);
		snprintf(text, sizeof(text), "%s, %" PRIu64 " rows of %" PRIu64 " bytes", npk_dtype_name(said.dtype),
			said.shape.dim[0], row_bytes);
		rc = npki_r_tell(
			r, show(a, shown), NPKI_META_FILE, npki_r_field(a, NPKI_F_NDIM), "dtype and shape", old, text);
		a->shape = said.shape;
		a->dtype = said.dtype;
		a->old_slots = a->shape.dim[0];
		a->changed = true;
		return rc;
	}
	snprintf(text, sizeof(text),
		"dtype and shape need %" PRIu64 " bytes; the size beside them and the data say %" PRIu64
		": say %.100s=DTYPE:SHAPE",
		bytes, size, show(a, shown));
	return leave(r, a, NPKI_META_FILE, npki_r_field(a, NPKI_F_NDIM), text);
}

static int one_file(struct npki_repair *r, struct npki_rarray *a, uint64_t *held)
{
	uint64_t row_bytes, bytes, size;
	char text[NPK_ERR_MAX];
	bool found = false;
	int rc = 0;

	sizes(a, &row_bytes, &bytes);
	if (!file_size(r, a->file, &size)) {
		rc = find_file(r, a, &found);
		if (rc != 0)
			return rc;
		if (!found)
			return leave(r, a, a->file, 0,
				"the data file is missing or no regular file: give it back, or drop the array");
		size = bytes;
	}
	rc = dispute(r, a, bytes, size, &found);
	if (rc != 0 || !found)
		return rc;
	sizes(a, &row_bytes, &bytes);
	*held = row_bytes ? size / row_bytes : UINT64_MAX;
	if (size >= bytes)
		return 0;
	if (a->shape.ndim == 0 || row_bytes == 0 || size / row_bytes == 0) {
		snprintf(text, sizeof(text),
			"no whole row is left in the %" PRIu64 " bytes of the file: give it back, or drop the array",
			size);
		return leave(r, a, a->file, size, text);
	}
	rc = cut_file(r, a, a->file, size, *held * row_bytes);
	return rc == 0 ? set_slots(r, a, *held) : rc;
}

/* --- segments --------------------------------------------------------------------------------------------------------- */

static char *segments_dir(const struct npki_rarray *a)
{
	char *dir;

	return asprintf(&dir, "data_%s_segments", a->name) < 0 ? NULL : dir;
}

/* The list from the files: seg_000000.npkd and so on, which together must be the array to the byte. */
static int rebuild(struct npki_repair *r, const struct npki_rarray *a, struct npki_manifest *m, bool *done)
{
	uint64_t row_bytes, bytes, size, sum = 0;
	char *dir = segments_dir(a), *file;
	int rc = dir ? 0 : npki_r_no_memory(r);

	*done = false;
	sizes(a, &row_bytes, &bytes);
	while (rc == 0) {
		struct npki_mseg *more;

		if (asprintf(&file, "%s/seg_%06zu.npkd", dir, m->nsegs) < 0) {
			rc = npki_r_no_memory(r);
			break;
		}
		if (!file_size(r, file, &size) || row_bytes == 0 || size % row_bytes != 0) {
			free(file);
			break;
		}
		more = realloc(m->seg, (m->nsegs + 1) * sizeof(*more));
		if (!more) {
			free(file);
			rc = npki_r_no_memory(r);
			break;
		}
		m->seg = more;
		m->seg[m->nsegs++] = (struct npki_mseg){file, size / row_bytes, size};
		sum += size;
	}
	free(dir);
	*done = rc == 0 && m->nsegs > 0 && sum == bytes;
	return rc;
}

static int write_list(struct npki_repair *r, const struct npki_rarray *a, const struct npki_manifest *m)
{
	struct npki_rstep *st = npki_r_step(r, NPKI_R_REPLACE, a->file);

	if (!st)
		return npki_r_no_memory(r);
	npki_manifest_text(&st->image, m);
	return st->image.bad ? npki_r_no_memory(r) : 0;
}

/* Whether segment i is as the list says; *changed: the list now says what the file holds. */
static int check_segment(struct npki_repair *r, struct npki_rarray *a, struct npki_mseg *seg, bool last,
	uint64_t row_bytes, bool *changed)
{
	uint64_t size, want;
	char shown[NPKI_SHOW_MAX], text[NPK_ERR_MAX];
	int rc;

	if (__builtin_mul_overflow(seg->rows, row_bytes, &want))
		return leave(r, a, a->file, 0, "a segment has more bytes than there can be");
	if (!file_size(r, seg->file, &size))
		return leave(r, a, seg->file, 0, "the segment is missing: give it back, or drop the array");
	if (size >= want && seg->bytes == want)
		return 0;
	if (seg->bytes != want && size != want) {
		snprintf(text, sizeof(text),
			"the segment has %" PRIu64 " bytes, the list says %" PRIu64 ", the shape %" PRIu64, size,
			seg->bytes, want);
		return leave(r, a, seg->file, 0, text);
	}
	*changed = true;
	if (size == want) {
		rc = npki_r_tell_u64(r, show(a, shown), a->file, 0, seg->file, seg->bytes, want);
		seg->bytes = want;
		return rc;
	}
	if (!last) {
		snprintf(text, sizeof(text),
			"the segment ends after %" PRIu64 " of %" PRIu64 " bytes, and others follow it", size, want);
		return leave(r, a, seg->file, size, text);
	}
	rc = cut_file(r, a, seg->file, size, size - size % row_bytes);
	if (rc == 0)
		rc = npki_r_tell_u64(r, show(a, shown), a->file, 0, seg->file, seg->bytes, size - size % row_bytes);
	seg->rows = size / row_bytes;
	seg->bytes = seg->rows * row_bytes;
	return rc;
}

static int check_list(
	struct npki_repair *r, struct npki_rarray *a, struct npki_manifest *m, uint64_t *held, bool *changed)
{
	uint64_t row_bytes, bytes;
	int rc = 0;

	sizes(a, &row_bytes, &bytes);
	*held = 0;
	for (size_t i = 0; i < m->nsegs && rc == 0 && !a->left; i++) {
		bool last = true;

		for (size_t k = i + 1; k < m->nsegs; k++)
			last = last && m->seg[k].rows == 0;
		if (m->seg[i].rows)
			rc = check_segment(r, a, &m->seg[i], last, row_bytes, changed);
		*held += m->seg[i].rows;
	}
	return rc;
}

static int segments(struct npki_repair *r, struct npki_rarray *a, uint64_t *held)
{
	struct npki_manifest m = {0};
	struct npki_file_id id;
	struct npk_err why;
	uint8_t *buf = NULL;
	size_t len = 0;
	char shown[NPKI_SHOW_MAX];
	bool changed = false, done;
	int rc = npki_read_file(r->s->dirfd, a->file, MANIFEST_MAX, &buf, &len, &id, &why);

	if (rc == 0)
		rc = npki_manifest_parse(buf, len, a->file, &m, &why);
	free(buf);
	if (rc == -ENOENT || rc == -EUCLEAN) {
		rc = rebuild(r, a, &m, &done);
		changed = done;
		if (rc == 0 && !done)
			rc = leave(r, a, a->file, 0, why.msg);
		else if (rc == 0)
			rc = npki_r_tell(r, show(a, shown), a->file, 0, "the list of segments", why.msg,
				"one made from their files");
		*held = a->shape.dim[0];
	} else if (rc == 0) {
		rc = check_list(r, a, &m, held, &changed);
	} else {
		rc = npk_fail(r->err, why.code, "%s", why.msg);
	}
	if (rc == 0 && !a->left && changed)
		rc = write_list(r, a, &m);
	if (rc == 0 && !a->left && a->shape.ndim && *held < a->shape.dim[0])
		rc = *held ? set_slots(r, a, *held) : leave(r, a, a->file, 0, "no row is left in the segments");
	npki_manifest_fini(&m);
	return rc;
}

/* --- the bitmap ------------------------------------------------------------------------------------------------------- */

struct bits {
	int fd;
	const char *file;
	uint64_t len, total, deleted;
	uint64_t at, bytes; /* where the words are in the file */
	uint64_t valid;     /* bits of them that are about rows */
	bool header;
};

/* Bits that are 0 among the first `rows`, and whether one behind them is 1. */
static int count_bits(struct npki_repair *r, const struct bits *b, uint64_t rows, uint64_t *zeros, bool *padding)
{
	uint8_t buf[65536];
	uint64_t end = b->valid < rows ? b->valid : rows;

	*zeros = 0;
	*padding = false;
	for (uint64_t at = 0; at < b->bytes; at += sizeof(buf)) {
		size_t n = b->bytes - at < sizeof(buf) ? (size_t)(b->bytes - at) : sizeof(buf);
		int rc = npki_pread_all(b->fd, buf, n, b->at + at, b->file, r->err);

		if (rc != 0)
			return rc;
		for (size_t i = 0; i < n; i++) {
			uint64_t first = (at + i) * 8;
			unsigned valid = first >= end ? 0 : end - first < 8 ? (unsigned)(end - first) : 8;
			unsigned ones = (unsigned)__builtin_popcount(buf[i] & ((1u << valid) - 1));

			*zeros += valid - ones;
			*padding |= (buf[i] >> valid) != 0 && valid < 8;
		}
	}
	return 0;
}

/* The bitmap is no longer needed, or tells nothing: all rows show. */
static int drop_bitmap(struct npki_repair *r, const struct npki_rarray *a, const struct bits *b, const char *why)
{
	char shown[NPKI_SHOW_MAX], text[64];

	snprintf(text, sizeof(text), "none: all %" PRIu64 " rows show", a->shape.dim[0]);
	if (!npki_r_step(r, NPKI_R_MOVE, b->file))
		return npki_r_no_memory(r);
	return npki_r_tell(r, show(a, shown), b->file, 0, "the bitmap", why, text);
}

/* A new one of the bits that are there, one for each row; those that are not there show their rows. */
static int remake_bitmap(struct npki_repair *r, const struct npki_rarray *a, const struct bits *b)
{
	uint64_t rows = a->shape.dim[0], zeros, words = (rows / 64 + (rows % 64 != 0)) * 8;
	char shown[NPKI_SHOW_MAX], old[64], fresh[64];
	struct npki_rstep *st;
	bool padding;
	int rc = count_bits(r, b, rows, &zeros, &padding);

	if (rc != 0)
		return rc;
	st = npki_r_step(r, NPKI_R_REPLACE, b->file);
	if (!st)
		return npki_r_no_memory(r);
	st->bitmap = true;
	st->words_at = b->at;
	st->have = b->valid < rows ? b->valid : rows;
	st->rows = rows;
	st->deleted = zeros;
	show(a, shown);
	if (b->header && b->total != rows)
		rc = npki_r_tell_u64(r, shown, b->file, 0, "rows that it covers", b->total, rows);
	if (rc == 0 && b->header && b->deleted != zeros)
		rc = npki_r_tell_u64(r, shown, b->file, 8, "deleted rows", b->deleted, zeros);
	if (rc == 0 && b->len != b->at + words) {
		snprintf(old, sizeof(old), "%" PRIu64 " bytes", b->len);
		snprintf(fresh, sizeof(fresh), "%" PRIu64 " bytes%s", 16 + words,
			b->valid < rows ? ", rows without a bit show" : "");
		rc = npki_r_tell(r, shown, b->file, b->at + st->have / 8, "length", old, fresh);
	}
	if (rc == 0 && padding && b->len == b->at + words)
		rc = npki_r_tell(r, shown, b->file, b->at + rows / 8, "bits behind the last row", "1", "0");
	return rc;
}

/* One that does not fit by the format's rules. */
static int mend_bitmap(struct npki_repair *r, const struct npki_rarray *a, struct bits *b, const char *why)
{
	uint64_t rows = a->shape.dim[0], zeros;
	bool padding, evidence;
	int rc;

	if (b->len <= NPKI_BITMAP_HEAD)
		return drop_bitmap(r, a, b, why);
	b->header = true;
	b->at = NPKI_BITMAP_HEAD;
	b->bytes = b->len - NPKI_BITMAP_HEAD;
	b->valid = b->bytes * 8;
	if (b->total < rows && b->total < b->valid) /* what follows is padding, and no row's */
		b->valid = b->total;
	if (b->total <= rows || b->total == a->old_slots)
		return remake_bitmap(r, a, b);
	rc = count_bits(r, b, rows, &zeros, &padding);
	if (rc != 0)
		return rc;
	evidence = b->bytes == (rows / 64 + (rows % 64 != 0)) * 8 && b->deleted == zeros && !padding;
	return evidence ? remake_bitmap(r, a, b) : drop_bitmap(r, a, b, why);
}

static int check_bitmap(struct npki_repair *r, const struct npki_rarray *a, struct bits *b, uint64_t held)
{
	struct npki_bitmap_form form;
	uint8_t head[NPKI_BITMAP_HEAD] = {0};
	uint64_t rows = a->shape.dim[0], zeros;
	struct npk_err why;
	bool padding;
	int rc = npki_pread_all(b->fd, head, b->len < sizeof(head) ? (size_t)b->len : sizeof(head), 0, b->file, r->err);

	if (rc != 0)
		return rc;
	b->total = npki_le(head, 8);
	b->deleted = npki_le(head + 8, 8);
	if (npki_bitmap_form(head, b->len, rows, held, b->file, &form, NULL, &why) != 0)
		return mend_bitmap(r, a, b, why.msg);
	b->header = form.header;
	b->at = form.words_at;
	b->bytes = b->len - b->at;
	b->valid = b->bytes * 8;
	if (!form.header || form.rows != rows)
		return 0;
	rc = count_bits(r, b, rows, &zeros, &padding);
	return rc != 0 || (zeros == form.deleted && !padding) ? rc : remake_bitmap(r, a, b);
}

static int bitmap(struct npki_repair *r, const struct npki_rarray *a, uint64_t held)
{
	struct bits b = {0};
	struct stat st;
	char *file = npki_bitmap_file(a->name);
	int rc;

	if (!file)
		return npki_r_no_memory(r);
	b.file = file;
	rc = npki_open_file(r->s->dirfd, file, &b.fd, &st, r->err);
	if (rc == 0) {
		b.len = (uint64_t)st.st_size;
		rc = check_bitmap(r, a, &b, held);
		close(b.fd);
	} else if (rc == -ENOENT) {
		rc = 0;
	}
	free(file);
	return rc;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

static int tell_size(struct npki_repair *r, struct npki_rarray *a, uint64_t bytes)
{
	char shown[NPKI_SHOW_MAX];
	uint64_t old = a->size_bytes;

	a->size_bytes = bytes;
	if (old == bytes)
		return 0;
	a->changed = true;
	return npki_r_tell_u64(r, show(a, shown), NPKI_META_FILE, npki_r_field(a, NPKI_F_SIZE), "size", old, bytes);
}

int npki_r_array(struct npki_repair *r, struct npki_rarray *a)
{
	uint64_t row_bytes, bytes, held = 0;
	int rc = 0;

	if (a->raw && (a->damage || !a->file))
		rc = mend_entry(r, a);
	if (rc == 0 && !a->left && a->raw)
		rc = mend_name(r, a);
	if (rc == 0 && !a->left && a->raw)
		rc = mend_unused(r, a);
	if (rc != 0 || a->left)
		return rc;
	rc = npki_is_manifest(a->file) ? segments(r, a, &held) : one_file(r, a, &held);
	if (rc == 0 && !a->left && a->shape.ndim)
		rc = bitmap(r, a, held);
	if (rc != 0 || a->left)
		return rc;
	sizes(a, &row_bytes, &bytes);
	if (!a->changed && held != (a->shape.ndim ? a->shape.dim[0]
						  : 1)) /* more rows than the array: no evidence against the size */
		return 0;
	return tell_size(r, a, bytes);
}
