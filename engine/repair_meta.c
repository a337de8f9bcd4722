/* repair_meta.c - what a damaged list of arrays still says: entries that are whole, entries of which one length is wrong, and what
 * the user adds. An entry counts only when its parts agree with one another, or with a file that is there. */
#include "repair.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define META_MAX ((size_t)1 << 32)
#define HEAD 20
#define ENTRY_TAIL 39 /* bytes of an entry behind its file name, without blocks */

uint64_t npki_r_field(const struct npki_rarray *a, enum npki_rfield field)
{
	uint64_t ndim_at = 4, at;

	if (!a->raw)
		return 0;
	ndim_at += npki_le(a->raw, 4);
	at = ndim_at + 4 + 8 * npki_le(a->raw + ndim_at, 4);
	if (field == NPKI_F_NDIM)
		return a->at + ndim_at;
	if (field == NPKI_F_DIM0)
		return a->at + ndim_at + 4;
	if (field == NPKI_F_FILE)
		return a->at + at + 4;
	at += 4 + npki_le(a->raw + at, 4) + 8;
	switch (field) {
	case NPKI_F_SIZE:
		return a->at + at;
	case NPKI_F_DTYPE:
		return a->at + at + 8;
	case NPKI_F_ALGORITHM:
		return a->at + at + 9;
	default:
		return a->at + at + 8 + 1 + 1 + 4 + 8 + 8;
	}
}

static struct npki_rarray *new_array(struct npki_repair *r, const char *name, size_t len)
{
	struct npki_rarray *more, *a;

	if ((r->narrays & (r->narrays - 1)) == 0) {
		more = realloc(r->array, (r->narrays ? 2 * r->narrays : 1) * sizeof(*more));
		if (!more)
			return NULL;
		r->array = more;
	}
	a = &r->array[r->narrays];
	*a = (struct npki_rarray){.name = malloc(len + 1), .name_len = len, .at = NPKI_NO_ENTRY};
	if (!a->name)
		return NULL;
	memcpy(a->name, name, len);
	a->name[len] = 0;
	r->narrays++;
	return a;
}

/* An entry that npki_meta_parse() understood; the buffer is r->meta. */
static int take_entry(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct npki_repair *r = ctx;
	struct npki_rarray *a = new_array(r, m->name, m->name_len);

	if (!a)
		return npk_fail(err, ENOMEM, "no memory");
	a->at = m->at;
	a->raw = r->meta + m->at;
	a->raw_len = m->len;
	a->dtype = m->dtype;
	a->mtime_us = m->mtime_us;
	a->size_bytes = m->size_bytes;
	a->damage = m->damage;
	memcpy(a->why, m->why, sizeof(a->why));
	if (m->ndim <= NPK_MAX_NDIM) {
		a->shape.ndim = m->ndim;
		for (unsigned i = 0; i < m->ndim; i++)
			a->shape.dim[i] = npki_le(m->dims + 8 * (size_t)i, 8);
	}
	a->old_slots = a->shape.ndim ? a->shape.dim[0] : 1;
	if (npki_is_plain_path(m->file, m->file_len) && npki_is_utf8(m->file, m->file_len)) {
		a->file = strndup(m->file, m->file_len);
		if (!a->file)
			return npk_fail(err, ENOMEM, "no memory");
	}
	return 0;
}

static struct npki_rarray *find(struct npki_repair *r, const char *name, size_t len)
{
	for (size_t i = r->narrays; i-- > 0;)
		if (r->array[i].name_len == len && memcmp(r->array[i].name, name, len) == 0)
			return &r->array[i];
	return NULL;
}

/* --- the header, and where the list ends ------------------------------------------------------------------------------ */

/* All entries from byte *at on, whatever the header says; *at: where they end. */
static int parse_entries(struct npki_repair *r, uint64_t *at)
{
	struct npk_text copy = {0};
	struct npki_meta meta;
	size_t from = r->narrays;
	int rc;

	npki_meta_write_head(&copy, 0, UINT32_MAX);
	npk_text_add(&copy, r->meta + *at, r->meta_len - *at);
	rc = copy.bad ? npki_r_no_memory(r) : npki_meta_parse(copy.p, copy.len, &meta, take_entry, r, NULL, r->err);
	npk_text_fini(&copy);
	for (size_t i = from; i < r->narrays && rc == 0; i++) {
		r->array[i].at += *at - HEAD;
		r->array[i].raw = r->meta + r->array[i].at;
	}
	if (r->narrays > from)
		*at = r->array[r->narrays - 1].at + r->array[r->narrays - 1].raw_len;
	return rc;
}

static uint64_t sum_sizes(const struct npki_repair *r)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < r->narrays; i++)
		if (!r->array[i].dropped)
			sum += r->array[i].size_bytes;
	return sum;
}

void npki_r_drop_entries(struct npki_repair *r, size_t from)
{
	for (size_t i = from; i < r->narrays; i++) {
		free(r->array[i].name);
		free(r->array[i].file);
	}
	r->narrays = from;
}

/* Magic and version, when everything else is a list of arrays to the last byte. A higher version may be what it says. */
static int check_head(struct npki_repair *r, uint64_t end)
{
	bool magic = memcmp(r->meta, "NPKB", 4) == 0, fits;
	uint64_t version = npki_le(r->meta + 4, 4);
	char shown[NPKI_SHOW_MAX];
	int rc = 0;

	if (magic && version == 1)
		return 0;
	fits = version <= 1 && r->narrays > 0 && end == r->meta_len && npki_le(r->meta + 16, 4) == r->narrays &&
	       npki_le(r->meta + 8, 8) == sum_sizes(r);
	if (!fits) {
		npki_r_drop_entries(r, 0);
		r->foreign = true;
		return npki_r_left(r, NULL, NPKI_META_FILE, magic ? 4 : 0,
			"is no list of arrays that this version knows (%s, version %" PRIu64 ")",
			npki_show(shown, r->meta, 4), version);
	}
	r->meta_changed = true;
	if (!magic)
		rc = npki_r_tell(r, NULL, NPKI_META_FILE, 0, "magic", npki_show(shown, r->meta, 4), "NPKB");
	if (rc == 0 && version != 1)
		rc = npki_r_tell_u64(r, NULL, NPKI_META_FILE, 4, "version", version, 1);
	return rc;
}

/* --- files without an entry ------------------------------------------------------------------------------------------- */

/* The name in data_<name>.npkd or .npkseg; false: it is no such file, or one of a journal's. */
static bool name_of_file(const char *file, const char **name, size_t *len)
{
	size_t n = strlen(file), tail = npki_is_manifest(file) ? 7 : 5;

	if (!npki_is_store_file(file) || strncmp(file, "data_", 5) != 0 || strncmp(file, "data_.npk-", 10) == 0)
		return false;
	*name = file + 5;
	*len = n - 5 - tail;
	return true;
}

static bool has_file(const struct npki_repair *r, const char *file)
{
	for (size_t i = 0; i < r->narrays; i++)
		if (!r->array[i].dropped && r->array[i].file && strcmp(r->array[i].file, file) == 0)
			return true;
	return false;
}

/* An array's data file under another name than its entry has is still the array's. */
static bool is_orphan(struct npki_repair *r, const char *file, const char **name, size_t *len)
{
	return name_of_file(file, name, len) && !has_file(r, file) && !find(r, *name, *len);
}

/* The entry of an array whose file name stands where it should, although one of its lengths or its name is damaged: the
 * number of dimensions follows from where the file name is, and their product must be the size that the entry says. */
static bool mend(const struct npki_repair *r, uint64_t at, const char *file, size_t name_len, struct npki_rarray *a,
	uint64_t *len)
{
	size_t file_len = strlen(file);
	const uint8_t *p = r->meta_len - at > file_len + ENTRY_TAIL
				   ? memmem(r->meta + at, r->meta_len - at - ENTRY_TAIL, file, file_len)
				   : NULL;
	uint64_t before, row_bytes, bytes;
	const uint8_t *tail;

	if (!p)
		return false;
	before = (uint64_t)(p - r->meta) - at; /* 4, the name, 4, the dimensions, 4 */
	tail = p + file_len;
	if (before < 12 + name_len || (before - 12 - name_len) % 8 != 0 || (before - 12 - name_len) / 8 > NPK_MAX_NDIM)
		return false;
	a->shape.ndim = (unsigned)((before - 12 - name_len) / 8);
	for (unsigned i = 0; i < a->shape.ndim; i++)
		a->shape.dim[i] = npki_le(r->meta + at + 8 + name_len + 8 * (size_t)i, 8);
	a->mtime_us = npki_le(tail, 8);
	a->size_bytes = npki_le(tail + 8, 8);
	a->dtype = tail[16];
	for (size_t i = 17; i < ENTRY_TAIL; i++)
		if (tail[i] != 0)
			return false;
	if (a->dtype >= NPK_DTYPE_COUNT ||
		npki_shape_bytes(&a->shape, npk_dtype_size(a->dtype), &row_bytes, &bytes) != 0 ||
		bytes != a->size_bytes)
		return false;
	*len = before + file_len + ENTRY_TAIL;
	return true;
}

/* Which of the three lengths or the name is the damaged one. */
static int tell_mended(struct npki_repair *r, uint64_t at, const struct npki_rarray *a, const char *file)
{
	uint64_t name_len = npki_le(r->meta + at, 4), ndim_at = at + 4 + a->name_len,
		 file_at = ndim_at + 4 + 8 * (uint64_t)a->shape.ndim;
	char old[NPKI_SHOW_MAX], fresh[NPKI_SHOW_MAX];
	int rc = 0;

	if (name_len != a->name_len)
		rc = npki_r_tell_u64(r, a->name, NPKI_META_FILE, at, "length of the name", name_len, a->name_len);
	if (rc == 0 && memcmp(r->meta + at + 4, a->name, a->name_len) != 0)
		rc = npki_r_tell(r, a->name, NPKI_META_FILE, at + 4, "name",
			npki_show(old, r->meta + at + 4, a->name_len), npki_show(fresh, a->name, a->name_len));
	if (rc == 0 && npki_le(r->meta + ndim_at, 4) != a->shape.ndim)
		rc = npki_r_tell_u64(r, a->name, NPKI_META_FILE, ndim_at, "number of dimensions",
			npki_le(r->meta + ndim_at, 4), a->shape.ndim);
	if (rc == 0 && npki_le(r->meta + file_at, 4) != strlen(file))
		rc = npki_r_tell_u64(r, a->name, NPKI_META_FILE, file_at, "length of the file name",
			npki_le(r->meta + file_at, 4), strlen(file));
	return rc;
}

/* The entry at byte `at`, mended by one of the files that have none. *len 0: by none of them. */
static int mend_entry(struct npki_repair *r, uint64_t at, uint64_t *len)
{
	struct npki_rarray found = {0}, *a;
	const char *name;
	size_t n;
	int rc;

	*len = 0;
	for (size_t i = 0; i < r->files.n && *len == 0; i++) {
		if (!is_orphan(r, r->files.path[i], &name, &n) || !mend(r, at, r->files.path[i], n, &found, len))
			continue;
		a = new_array(r, name, n);
		if (!a)
			return npki_r_no_memory(r);
		a->shape = found.shape;
		a->mtime_us = found.mtime_us;
		a->size_bytes = found.size_bytes;
		a->dtype = found.dtype;
		a->old_slots = a->shape.ndim ? a->shape.dim[0] : 1;
		a->changed = true;
		a->file = strdup(r->files.path[i]);
		rc = a->file ? tell_mended(r, at, a, a->file) : npki_r_no_memory(r);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* The part of the list that npki_meta_parse() gave up. */
static int salvage(struct npki_repair *r, uint64_t *end)
{
	uint64_t len = 1;
	int rc = 0;

	while (rc == 0 && len && *end < r->meta_len) {
		rc = mend_entry(r, *end, &len);
		if (rc != 0 || len == 0)
			break;
		r->meta_changed = true;
		*end += len;
		if (*end < r->meta_len)
			rc = parse_entries(r, end); /* behind the one that was mended */
	}
	return rc;
}

/* Whether an entry behind those that the header counts is one, and no chance. */
static bool is_believable(struct npki_repair *r, const struct npki_rarray *a)
{
	struct npki_file_id id;

	for (size_t i = 0; &r->array[i] < a; i++)
		if (r->array[i].name_len == a->name_len && memcmp(r->array[i].name, a->name, a->name_len) == 0)
			return false;
	return !a->damage && a->file && npki_stat_file(r->s->dirfd, a->file, &id, NULL) == 0 && id.exists;
}

/* The header counts `count` entries, there are as many as were found, and bytes behind them. */
static int check_count(struct npki_repair *r, uint32_t count, uint64_t end)
{
	size_t n = r->narrays;
	char text[64];
	int rc = 0;

	if (count < n && !is_believable(r, &r->array[count])) {
		end = r->array[count].at;
		npki_r_drop_entries(r, count);
		n = count;
	}
	if (count != n) {
		r->meta_changed = true;
		r->lost = count > n;
		rc = npki_r_tell_u64(r, NULL, NPKI_META_FILE, 16, "number of arrays", count, n);
	}
	if (rc == 0 && end < r->meta_len) {
		r->meta_changed = true;
		snprintf(text, sizeof(text), "%" PRIu64 " bytes", r->meta_len - end);
		rc = npki_r_tell(r, NULL, NPKI_META_FILE, end, "bytes that are no entry", text, "none");
	}
	return rc;
}

static int drop_repeated(struct npki_repair *r)
{
	char text[64];
	int rc = 0;

	for (size_t i = 0; i < r->narrays && rc == 0; i++) {
		struct npki_rarray *a = &r->array[i], *last = find(r, a->name, a->name_len);

		if (last == a)
			continue;
		a->dropped = r->meta_changed = true;
		snprintf(text, sizeof(text), "the entry at byte %" PRIu64, last->at);
		rc = npki_r_tell(
			r, a->name, NPKI_META_FILE, a->at, "an entry of a name that is there twice", "an entry", text);
	}
	return rc;
}

/* --- arrays that the user describes ------------------------------------------------------------------------------------ */

const struct npk_repair_array *npki_r_hint(struct npki_repair *r, const char *name, size_t len)
{
	for (size_t i = 0; i < r->how->narrays; i++)
		if (strlen(r->how->array[i].name) == len && memcmp(r->how->array[i].name, name, len) == 0) {
			r->hint_used[i] = true;
			return &r->how->array[i];
		}
	return NULL;
}

/* The shape in an entry of which only the beginning is left. */
static bool shape_in_rest(const struct npki_repair *r, uint64_t at, const char *name, size_t len, struct npk_shape *out)
{
	struct npki_rd rd;
	const uint8_t *p;

	if (!r->meta || at >= r->meta_len)
		return false;
	rd = npki_rd_init(r->meta, r->meta_len);
	npki_rd_take(&rd, at);
	if (npki_rd_u32(&rd) != len)
		return false;
	p = npki_rd_take(&rd, len);
	out->ndim = npki_rd_u32(&rd);
	if (rd.bad || memcmp(p, name, len) != 0 || out->ndim > NPK_MAX_NDIM)
		return false;
	for (unsigned i = 0; i < out->ndim; i++)
		out->dim[i] = npki_rd_u64(&rd);
	return !rd.bad;
}

/* Bytes of data, and rows as far as the files tell; 0: they do not. */
static int measure(struct npki_repair *r, const char *file, uint64_t *bytes, uint64_t *rows)
{
	struct npki_manifest m = {0};
	struct npki_file_id id;
	uint8_t *buf = NULL;
	size_t len;
	int rc;

	*bytes = *rows = 0;
	if (!npki_is_manifest(file)) {
		rc = npki_stat_file(r->s->dirfd, file, &id, r->err);
		*bytes = id.size;
		return rc;
	}
	rc = npki_read_file(r->s->dirfd, file, (size_t)1 << 28, &buf, &len, &id, r->err);
	if (rc == 0)
		rc = npki_manifest_parse(buf, len, file, &m, r->err);
	for (size_t i = 0; i < m.nsegs && rc == 0; i++) {
		*bytes += m.seg[i].bytes;
		*rows += m.seg[i].rows;
	}
	free(buf);
	npki_manifest_fini(&m);
	return rc;
}

static int ask(struct npki_repair *r, const char *name, const char *file, uint64_t bytes, uint64_t rows,
	const struct npk_shape *shape)
{
	char said[160] = "";

	if (shape) {
		size_t n = (size_t)snprintf(said, sizeof(said), ", of shape ");

		for (unsigned i = 0; i < shape->ndim && n < sizeof(said) - 24; i++)
			n += (size_t)snprintf(said + n, sizeof(said) - n, "%s%" PRIu64, i ? "x" : "", shape->dim[i]);
	} else if (rows) {
		snprintf(said, sizeof(said), ", %" PRIu64 " rows", rows);
	}
	return npki_r_left(r, name, file, 0,
		"the list of arrays has lost its entry (%" PRIu64 " bytes of data%s): say %.100s=DTYPE%s", bytes, said,
		name, shape ? "" : ":SHAPE, such as float32:100x64, or -1 for as many rows as there are");
}

static int describe(struct npki_repair *r, const char *file, const char *name, size_t len, uint64_t rest)
{
	struct npk_shape shape = {0};
	bool known = shape_in_rest(r, rest, name, len, &shape);
	const struct npk_repair_array *hint = npki_r_hint(r, name, len);
	uint64_t bytes, rows, row_bytes, need;
	struct npki_rarray *a = NULL;
	char shown[NPKI_SHOW_MAX], text[64];
	int rc = measure(r, file, &bytes, &rows);

	if (rc != 0)
		return rc == -EUCLEAN ? npki_r_left(r, npki_show(shown, name, len), file, 0, "%.200s", r->err->msg)
				      : rc;
	if (hint && hint->has_shape) {
		shape = hint->shape;
		known = true;
		if (hint->any_rows && shape.ndim) {
			shape.dim[0] = 1;
			if (npki_shape_bytes(&shape, npk_dtype_size(hint->dtype), &row_bytes, &need) != 0 ||
				row_bytes == 0)
				return npk_fail(r->err, EINVAL, "%s: a row of that shape has no size", hint->name);
			shape.dim[0] = rows ? rows : bytes / row_bytes;
		}
	}
	if (!hint || !known) {
		r->lost = true;
		return ask(r, npki_show(shown, name, len), file, bytes, rows, known ? &shape : NULL);
	}
	if (npki_shape_bytes(&shape, npk_dtype_size(hint->dtype), &row_bytes, &need) != 0 || shape.ndim == 0)
		return npk_fail(r->err, EINVAL, "%s: that shape is none that an array can have", hint->name);
	if (need != bytes)
		return npk_fail(r->err, EINVAL, "%s: that dtype and shape need %" PRIu64 " bytes, %.200s has %" PRIu64,
			hint->name, need, file, bytes);
	a = new_array(r, name, len);
	if (!a)
		return npki_r_no_memory(r);
	a->dtype = hint->dtype;
	a->shape = shape;
	a->size_bytes = need;
	a->old_slots = shape.dim[0];
	a->mtime_us = (uint64_t)time(NULL) * 1000000;
	a->file = strdup(file);
	a->changed = r->meta_changed = true;
	if (!a->file)
		return npki_r_no_memory(r);
	snprintf(text, sizeof(text), "%s, %" PRIu64 " rows", npk_dtype_name(a->dtype), shape.dim[0]);
	return npki_r_tell(
		r, a->name, NPKI_META_FILE, r->meta_len < rest ? r->meta_len : rest, "its entry", "none", text);
}

/* In a list that lost entries, every data file without one may be what is missing. In a whole list it is somebody's file,
 * unless the user says otherwise. */
static int describe_orphans(struct npki_repair *r, uint64_t rest)
{
	const char *name;
	size_t len;
	bool lost = r->lost;
	int rc = 0;

	r->lost = false;
	for (size_t i = 0; i < r->files.n && rc == 0; i++)
		if (is_orphan(r, r->files.path[i], &name, &len) && (lost || npki_r_hint(r, name, len)))
			rc = describe(r, r->files.path[i], name, len, rest);
	return rc;
}

/* --- a list that was on its way --------------------------------------------------------------------------------------- */

/* Whether a leftover list is whole and every array in it has its data. */
static bool is_whole(struct npki_repair *r, uint64_t end)
{
	const char *name;
	struct npki_file_id id;
	size_t len;

	if (r->narrays == 0 || end != r->meta_len || memcmp(r->meta, "NPKB", 4) != 0 || npki_le(r->meta + 4, 4) != 1 ||
		npki_le(r->meta + 16, 4) != r->narrays || npki_le(r->meta + 8, 8) != sum_sizes(r))
		return false;
	for (size_t i = 0; i < r->narrays; i++)
		if (r->array[i].damage || npki_stat_file(r->s->dirfd, r->array[i].file, &id, NULL) != 0 || !id.exists ||
			(!npki_is_manifest(r->array[i].file) && id.size != r->array[i].size_bytes))
			return false;
	for (size_t i = 0; i < r->files.n; i++)
		if (is_orphan(r, r->files.path[i], &name, &len))
			return false;
	return true;
}

/* The list that interrupted work left behind, in place of one that is not there. */
static int use_leftover(struct npki_repair *r, bool *used)
{
	struct npki_file_id id;
	uint64_t end;
	int rc = 0;

	*used = false;
	for (size_t i = 0; i < r->files.n && rc == 0 && !*used; i++) {
		const char *file = r->files.path[i];

		if (strncmp(file, NPKI_META_FILE ".tmp", strlen(NPKI_META_FILE ".tmp")) != 0)
			continue;
		rc = npki_read_file(r->s->dirfd, file, META_MAX, &r->meta, &r->meta_len, &id, r->err);
		end = HEAD;
		if (rc == 0 && r->meta_len >= HEAD)
			rc = parse_entries(r, &end);
		*used = rc == 0 && r->meta_len >= HEAD && is_whole(r, end);
		if (*used) {
			r->meta_changed = true;
			rc = npki_r_tell(r, NULL, NPKI_META_FILE, 0, "the list of arrays", "none", file);
		} else {
			npki_r_drop_entries(r, 0);
			free(r->meta);
			r->meta = NULL;
			r->meta_len = 0;
		}
	}
	return rc;
}

static int read_list(struct npki_repair *r, uint64_t *end)
{
	uint32_t count;
	int rc;

	*end = HEAD;
	rc = parse_entries(r, end);
	if (rc != 0)
		return rc;
	count = (uint32_t)npki_le(r->meta + 16, 4);
	rc = check_head(r, *end);
	if (rc != 0 || r->foreign)
		return rc;
	if (count > r->narrays)
		rc = salvage(r, end);
	return rc == 0 ? check_count(r, count, *end) : rc;
}

int npki_r_metadata(struct npki_repair *r)
{
	struct npki_file_id id;
	uint64_t end = HEAD;
	bool used = false;
	int rc = npki_read_file(r->s->dirfd, NPKI_META_FILE, META_MAX, &r->meta, &r->meta_len, &id, r->err);

	if (rc == -ENOENT || (rc == 0 && r->meta_len < HEAD)) {
		char text[64];
		bool missing = rc == -ENOENT;

		free(r->meta);
		r->meta = NULL;
		snprintf(text, sizeof(text), "%zu bytes", missing ? 0 : r->meta_len);
		r->meta_len = 0;
		r->meta_bad = !missing;
		rc = use_leftover(r, &used);
		if (rc == 0 && !used)
			rc = npki_r_tell(
				r, NULL, NPKI_META_FILE, 0, "the list of arrays", missing ? "none" : text, "a new one");
		r->meta_changed = true;
		r->lost = !used;
	} else if (rc == 0) {
		rc = read_list(r, &end);
		if (rc == 0 && r->foreign) /* hands off */
			return 0;
	}
	if (rc == 0)
		rc = drop_repeated(r);
	return rc == 0 ? describe_orphans(r, end) : rc;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static int tell_totals(struct npki_repair *r, uint64_t total)
{
	if (!r->meta || r->meta_len < HEAD || npki_le(r->meta + 8, 8) == total)
		return 0;
	r->meta_changed = true;
	return npki_r_tell_u64(r, NULL, NPKI_META_FILE, 8, "total size", npki_le(r->meta + 8, 8), total);
}

int npki_r_write_metadata(struct npki_repair *r)
{
	struct npk_text body = {0};
	struct npki_rstep *st;
	uint64_t total = sum_sizes(r), row_bytes, bytes = 0;
	uint32_t count = 0;
	int rc = tell_totals(r, total);

	for (size_t i = 0; i < r->narrays; i++)
		r->meta_changed |= r->array[i].changed;
	if (rc != 0 || !r->meta_changed)
		return rc;
	st = npki_r_step(r, NPKI_R_REPLACE, NPKI_META_FILE);
	if (!st)
		return npki_r_no_memory(r);
	for (size_t i = 0; i < r->narrays; i++) {
		const struct npki_rarray *a = &r->array[i];

		if (a->dropped)
			continue;
		count++;
		if (!a->changed) {
			npk_text_add(&body, a->raw, a->raw_len);
			continue;
		}
		npki_shape_bytes(&a->shape, npk_dtype_size(a->dtype), &row_bytes, &bytes); /* was checked */
		npki_meta_write_entry(&body, a->name, a->name_len, a->dtype, &a->shape, a->file, a->mtime_us, bytes);
	}
	npki_meta_write_head(&st->image, total, count);
	npk_text_add(&st->image, body.p, body.len);
	rc = st->image.bad || body.bad ? npki_r_no_memory(r) : 0;
	npk_text_fini(&body);
	return rc;
}
