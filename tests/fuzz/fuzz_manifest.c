/* fuzz_manifest.c - any bytes as the list of an array's segments. What is accepted stays below the store and, written as
 * NumPack writes it, reads back the same. */
#include "fuzz.h"

#include "manifest.h"
#include "meta.h"
#include "text.h"

#include <errno.h>

static void write_string(struct npk_text *t, const char *s)
{
	npk_text_add(t, "\"", 1);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			npk_text_printf(t, "\\%c", *s);
		else if ((uint8_t)*s < 0x20)
			npk_text_printf(t, "\\u%04x", (unsigned)*s);
		else
			npk_text_add(t, s, 1);
	}
	npk_text_add(t, "\"", 1);
}

/* The layout of FORMAT.md, "segments". */
static void write_manifest(struct npk_text *t, const struct npki_manifest *m)
{
	npk_text_printf(t, "{\n  \"version\": 1,\n  \"segments\": [");
	for (size_t i = 0; i < m->nsegs; i++) {
		npk_text_printf(t, "%s\n    {\n      \"file\": ", i ? "," : "");
		write_string(t, m->seg[i].file);
		npk_text_printf(t, ",\n      \"rows\": %" PRIu64 ",\n      \"bytes\": %" PRIu64 "\n    }",
			m->seg[i].rows, m->seg[i].bytes);
	}
	npk_text_printf(t, "%s]\n}", m->nsegs ? "\n  " : "");
}

static void check_round_trip(const struct npki_manifest *m)
{
	struct npki_manifest again = {0};
	struct npk_text t = {0};
	struct npk_err err;

	write_manifest(&t, m);
	CHECK(!t.bad);
	CHECK(npki_manifest_parse(t.p, t.len, "x", &again, &err) == 0);
	CHECK(again.nsegs == m->nsegs);
	for (size_t i = 0; i < m->nsegs; i++)
		CHECK(strcmp(again.seg[i].file, m->seg[i].file) == 0 && again.seg[i].rows == m->seg[i].rows &&
			again.seg[i].bytes == m->seg[i].bytes);
	npki_manifest_fini(&again);
	npk_text_fini(&t);
}

static void check_against(const struct npki_manifest *m, uint64_t nslots, uint64_t row_bytes)
{
	uint64_t held, sum = 0;
	struct npk_err err;
	int rc = npki_manifest_check(m, "x", nslots, row_bytes, &held, &err);

	if (rc != 0) {
		check_err(rc, &err);
		return;
	}
	for (size_t i = 0; i < m->nsegs; i++) {
		CHECK((unsigned __int128)m->seg[i].rows * row_bytes == m->seg[i].bytes);
		sum += m->seg[i].rows;
	}
	CHECK(held == sum && held >= nslots);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct npki_manifest m = {0};
	struct npk_err err;
	uint64_t rows, row_bytes;
	int rc = npki_manifest_parse(data, size, "data_x.npkseg", &m, &err);

	if (rc != 0) {
		CHECK(rc == -EUCLEAN && !m.seg && m.nsegs == 0);
		check_err(rc, &err);
		return 0;
	}
	for (size_t i = 0; i < m.nsegs; i++) {
		const char *file = m.seg[i].file;

		CHECK(npki_is_plain_path(file, strlen(file)) && npki_is_utf8(file, strlen(file)));
		CHECK(m.seg[i].rows <= INT64_MAX && m.seg[i].bytes <= INT64_MAX);
	}
	rows = m.nsegs ? m.seg[0].rows : 0;
	row_bytes = rows ? m.seg[0].bytes / rows : 4;
	check_against(&m, rows, row_bytes);
	check_against(&m, size, size);
	if (m.nsegs <= 8) /* longer lists say nothing more, slowly */
		check_round_trip(&m);
	npki_manifest_fini(&m);
	return 0;
}
