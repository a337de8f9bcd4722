/* manifest.c - see manifest.h. */
#include "manifest.h"
#include "json.h"
#include "meta.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One member of an object: calls `fn` with its key, the reader standing at its value. */
typedef int member_fn(struct npki_json *j, void *ctx, const char *key, struct npk_err *err);

static int each_member(struct npki_json *j, member_fn *fn, void *ctx, struct npk_err *err)
{
	char *key;
	int rc = 0;

	if (!npki_json_take(j, '{'))
		return npki_json_fail(j, err, "an object");
	if (npki_json_take(j, '}'))
		return 0;
	do {
		rc = npki_json_string(j, &key, err);
		if (rc != 0)
			return rc;
		rc = npki_json_take(j, ':') ? fn(j, ctx, key, err) : npki_json_fail(j, err, "':'");
		free(key);
	} while (rc == 0 && npki_json_take(j, ','));
	if (rc == 0 && !npki_json_take(j, '}'))
		rc = npki_json_fail(j, err, "',' or '}'");
	return rc;
}

struct segment_read {
	struct npki_mseg seg;
	bool rows, bytes;
};

static int segment_member(struct npki_json *j, void *ctx, const char *key, struct npk_err *err)
{
	struct segment_read *s = ctx;

	if (strcmp(key, "file") == 0) {
		free(s->seg.file);
		s->seg.file = NULL;
		return npki_json_string(j, &s->seg.file, err);
	}
	if (strcmp(key, "rows") == 0) {
		s->rows = true;
		return npki_json_uint(j, &s->seg.rows, err);
	}
	if (strcmp(key, "bytes") == 0) {
		s->bytes = true;
		return npki_json_uint(j, &s->seg.bytes, err);
	}
	return npki_json_skip(j, err);
}

static int add_segment(struct npki_manifest *m, struct npki_mseg *seg, struct npki_json *j, struct npk_err *err)
{
	struct npki_mseg *more;

	if ((m->nsegs & (m->nsegs - 1)) == 0) { /* room doubles at every power of two */
		more = realloc(m->seg, (m->nsegs ? 2 * m->nsegs : 1) * sizeof(*more));
		if (!more)
			return npk_fail(err, ENOMEM, "%.300s: no memory", j->path);
		m->seg = more;
	}
	m->seg[m->nsegs++] = *seg;
	return 0;
}

static int read_segment(struct npki_json *j, struct npki_manifest *m, struct npk_err *err)
{
	struct segment_read s = {0};
	char shown[NPKI_SHOW_MAX];
	int rc = each_member(j, segment_member, &s, err);

	if (rc == 0 && (!s.seg.file || !s.rows || !s.bytes))
		rc = npki_json_fail(j, err, "a segment with file, rows and bytes");
	if (rc == 0 && !npki_is_plain_path(s.seg.file, strlen(s.seg.file)))
		rc = npk_fail(err, EUCLEAN, "%.200s: byte %zu: segment '%s' leaves the store", j->path,
			(size_t)(j->p - j->start), npki_show(shown, s.seg.file, strlen(s.seg.file)));
	if (rc == 0)
		rc = add_segment(m, &s.seg, j, err);
	if (rc != 0)
		free(s.seg.file);
	return rc;
}

struct manifest_read {
	struct npki_manifest *m;
	bool version, segments;
};

static int manifest_member(struct npki_json *j, void *ctx, const char *key, struct npk_err *err)
{
	struct manifest_read *r = ctx;
	uint64_t version;
	int rc = 0;

	if (strcmp(key, "version") == 0) {
		r->version = true;
		rc = npki_json_uint(j, &version, err);
		if (rc == 0 && version != 1)
			rc = npk_fail(err, EUCLEAN, "%.300s: version %" PRIu64 " is unknown", j->path, version);
		return rc;
	}
	if (strcmp(key, "segments") != 0)
		return npki_json_skip(j, err);
	if (r->segments || !npki_json_take(j, '['))
		return npki_json_fail(j, err, "one list of segments");
	r->segments = true;
	if (npki_json_take(j, ']'))
		return 0;
	do {
		rc = read_segment(j, r->m, err);
	} while (rc == 0 && npki_json_take(j, ','));
	if (rc == 0 && !npki_json_take(j, ']'))
		rc = npki_json_fail(j, err, "',' or ']'");
	return rc;
}

int npki_manifest_parse(const void *buf, size_t len, const char *path, struct npki_manifest *out, struct npk_err *err)
{
	struct npki_json j = npki_json_init(buf, len, path);
	struct npki_manifest m = {0};
	struct manifest_read r = {.m = &m};
	int rc = each_member(&j, manifest_member, &r, err);

	if (rc == 0 && (!r.version || !r.segments))
		rc = npki_json_fail(&j, err, "version and segments");
	if (rc == 0 && !npki_json_at_end(&j))
		rc = npki_json_fail(&j, err, "the end of the file");
	if (rc != 0)
		npki_manifest_fini(&m);
	else
		*out = m;
	return rc;
}

int npki_manifest_check(const struct npki_manifest *m, const char *path, uint64_t nslots, uint64_t row_bytes,
	uint64_t *rows_held, struct npk_err *err)
{
	uint64_t held = 0, bytes;

	for (size_t i = 0; i < m->nsegs; i++) {
		const struct npki_mseg *s = &m->seg[i];

		if (__builtin_mul_overflow(s->rows, row_bytes, &bytes) || bytes != s->bytes)
			return npk_fail(err, EUCLEAN,
				"%.200s: segment %zu: %" PRIu64 " rows of %" PRIu64 " bytes are not %" PRIu64 " bytes",
				path, i, s->rows, row_bytes, s->bytes);
		if (__builtin_add_overflow(held, s->rows, &held) || held > INT64_MAX)
			return npk_fail(err, EUCLEAN, "%.200s: segment %zu: the rows overflow", path, i);
	}
	if (held < nslots)
		return npk_fail(
			err, EUCLEAN, "%.200s: the segments hold %" PRIu64 " of %" PRIu64 " rows", path, held, nslots);
	*rows_held = held;
	return 0;
}

static void manifest_string(struct npk_text *t, const char *s)
{
	npk_text_add(t, "\"", 1);
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			npk_text_printf(t, "\\%c", *s);
		else if (*s == '\n')
			npk_text_add(t, "\\n", 2);
		else if (*s == '\t')
			npk_text_add(t, "\\t", 2);
		else if ((uint8_t)*s < 0x20)
			npk_text_printf(t, "\\u%04x", *s);
		else
			npk_text_add(t, s, 1);
	npk_text_add(t, "\"", 1);
}

void npki_manifest_text(struct npk_text *t, const struct npki_manifest *m)
{
	npk_text_printf(t, "{\n  \"version\": 1,\n  \"segments\": [");
	for (size_t i = 0; i < m->nsegs; i++) {
		npk_text_printf(t, "%s\n    {\n      \"file\": ", i ? "," : "");
		manifest_string(t, m->seg[i].file);
		npk_text_printf(t, ",\n      \"rows\": %" PRIu64 ",\n      \"bytes\": %" PRIu64 "\n    }",
			m->seg[i].rows, m->seg[i].bytes);
	}
	npk_text_printf(t, "%s]\n}", m->nsegs ? "\n  " : "");
}

void npki_manifest_fini(struct npki_manifest *m)
{
	for (size_t i = 0; i < m->nsegs; i++)
		free(m->seg[i].file);
	free(m->seg);
	*m = (struct npki_manifest){0};
}
