/* The list of a segmented array's files: what upstream writes is read, anything that contradicts itself is refused. */
#include "../t.h"

#include <errno.h>
#include <manifest.h>

static int parse(const char *text, struct npki_manifest *m, struct npk_err *err)
{
	return npki_manifest_parse(text, strlen(text), "data_a.npkseg", m, err);
}

#define SEG(FILE, ROWS, BYTES) "{\"file\": \"" FILE "\", \"rows\": " #ROWS ", \"bytes\": " #BYTES "}"

TEST(what_upstream_writes)
{
	static const char text[] = "{\n  \"version\": 1,\n  \"segments\": [\n    {\n"
				   "      \"file\": \"data_a_segments/seg_000000.npkd\",\n"
				   "      \"rows\": 16,\n      \"bytes\": 64\n    },\n    {\n"
				   "      \"file\": \"data_q\\\"\\\\\\n\xC3\xA9_segments/seg_000001.npkd\",\n"
				   "      \"rows\": 3,\n      \"bytes\": 12\n    }\n  ]\n}";
	struct npki_manifest m;
	uint64_t held;

	T_CHECK(parse(text, &m, NULL) == 0 && m.nsegs == 2);
	T_CHECK(strcmp(m.seg[0].file, "data_a_segments/seg_000000.npkd") == 0);
	T_CHECK(m.seg[0].rows == 16 && m.seg[0].bytes == 64);
	T_CHECK(strcmp(m.seg[1].file, "data_q\"\\\n\xC3\xA9_segments/seg_000001.npkd") == 0);
	T_CHECK(npki_manifest_check(&m, "data_a.npkseg", 19, 4, &held, NULL) == 0 && held == 19);
	T_CHECK(npki_manifest_check(&m, "data_a.npkseg", 18, 4, &held, NULL) == 0 && held == 19);
	T_CHECK(npki_manifest_check(&m, "data_a.npkseg", 20, 4, &held, NULL) == -EUCLEAN);
	T_CHECK(npki_manifest_check(&m, "data_a.npkseg", 19, 5, &held, NULL) == -EUCLEAN);
	npki_manifest_fini(&m);
	T_CHECK(!m.seg && m.nsegs == 0);

	for (size_t len = 0; len < sizeof(text) - 1; len++) { /* cut anywhere it is refused */
		char *copy = malloc(len + !len);

		memcpy(copy, text, len);
		T_CHECKF(npki_manifest_parse(copy, len, "f", &m, NULL) == -EUCLEAN, "%zu bytes", len);
		free(copy);
	}
}

TEST(any_json_with_the_keys_will_do)
{
	static const struct {
		const char *text;
		size_t nsegs;
	} good[] = {
		{"{\"version\": 1, \"segments\": []}", 0},
		{"{\"segments\":[],\"version\":1}\n\n", 0},
		{"{\"new\": {\"x\": [1, \"]\"]}, \"version\": 1, \"segments\": [" SEG("s", 1, 2) "], \"more\": null}",
			1},
		{"{\"version\": 1, \"segments\": [{\"bytes\": 2, \"crc\": [0], \"rows\": 1, \"file\": \"\\u0061\"}]}",
			1},
		{"{\"version\": 1, \"segments\": [{\"file\": \"b\", \"file\": \"a\", \"rows\": 1, \"bytes\": 2}]}", 1},
		{"{\"version\": 1, \"segments\": [" SEG("a", 1, 2) "," SEG("b", 0, 0) "," SEG("c/d", 3, 6) "]}", 3},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct npki_manifest m;
		struct npk_err err = {0};

		T_CHECKF(parse(good[i].text, &m, &err) == 0 && m.nsegs == good[i].nsegs, "%s: %s", good[i].text,
			err.msg);
		npki_manifest_fini(&m);
	}
}

TEST(anything_else_is_refused_with_the_byte)
{
	static const struct {
		const char *text, *msg;
	} bad[] = {
		{"", "byte 0: an object"},
		{"[]", "byte 0: an object"},
		{"{}", "byte 2: version and segments"},
		{"{\"version\": 1}", "version and segments"},
		{"{\"segments\": []}", "version and segments"},
		{"{\"version\": 2, \"segments\": []}", "version 2 is unknown"},
		{"{\"version\": 0, \"segments\": []}", "version 0 is unknown"},
		{"{\"version\": 1.0, \"segments\": []}", "byte 13: a whole number"},
		{"{\"version\": \"1\", \"segments\": []}", "byte 12: a whole number"},
		{"{\"version\": 1, \"segments\": {}}", "byte 27: one list"},
		{"{\"version\": 1, \"segments\": [], \"segments\": []}", "one list"},
		{"{\"version\": 1, \"segments\": [1]}", "byte 28: an object"},
		{"{\"version\": 1, \"segments\": [" SEG("a", 1, 2) ",]}", "an object"},
		{"{\"version\": 1, \"segments\": [" SEG("a", 1, 2) "]} x", "the end of the file"},
		{"{\"version\": 1, \"segments\": [{\"rows\": 1, \"bytes\": 2}]}", "file, rows and bytes"},
		{"{\"version\": 1, \"segments\": [{\"file\": \"a\", \"bytes\": 2}]}", "file, rows and bytes"},
		{"{\"version\": 1, \"segments\": [{\"file\": \"a\", \"rows\": 2}]}", "file, rows and bytes"},
		{"{\"version\": 1, \"segments\": [{\"file\": \"a\", \"rows\": -1, \"bytes\": 2}]}", "a whole number"},
		{"{\"version\": 1, \"segments\": [{\"file\": null, \"rows\": 1, \"bytes\": 2}]}", "a string"},
		{"{\"version\": 1, \"segments\": [" SEG("../a", 1, 2) "]}", "segment '../a' leaves the store"},
		{"{\"version\": 1, \"segments\": [" SEG("/etc/passwd", 1, 2) "]}", "leaves the store"},
		{"{\"version\": 1, \"segments\": [" SEG("a/./b", 1, 2) "]}", "leaves the store"},
		{"{\"version\": 1, \"segments\": [" SEG("a//b", 1, 2) "]}", "leaves the store"},
		{"{\"version\": 1, \"segments\": [" SEG("", 1, 2) "]}", "leaves the store"},
		{"{\"version\": 1, \"segments\": [" SEG("a\\u0000b", 1, 2) "]}", "a string"},
		{"{\"version\": 1, \"segments\": [" SEG("ok", 1, 2) ", " SEG("..", 1, 2) "]}", "'..' leaves the store"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct npki_manifest m = {.nsegs = 9};
		struct npk_err err = {0};
		int rc = parse(bad[i].text, &m, &err);

		T_CHECKF(rc == -EUCLEAN && m.nsegs == 9, "%s: %d", bad[i].text, rc);
		T_CHECKF(strstr(err.msg, bad[i].msg) && strncmp(err.msg, "data_a.npkseg: ", 15) == 0, "%s: %s",
			bad[i].text, err.msg);
	}
}

TEST(sums_that_overflow_are_refused)
{
	struct npki_mseg seg[2] = {{"a", INT64_MAX, INT64_MAX}, {"b", 1, 1}};
	struct npki_manifest m = {seg, 2};
	uint64_t held = 5;

	T_CHECK(npki_manifest_check(&m, "f", 1, 1, &held, NULL) == -EUCLEAN && held == 5);
	m.nsegs = 1;
	T_CHECK(npki_manifest_check(&m, "f", 1, 1, &held, NULL) == 0 && held == INT64_MAX);
	seg[0] = (struct npki_mseg){"a", (uint64_t)1 << 62, 0}; /* times 8 is 0, modulo 2^65 */
	T_CHECK(npki_manifest_check(&m, "f", 1, 8, &held, NULL) == -EUCLEAN);
	seg[0] = (struct npki_mseg){"a", 7, 0}; /* rows of nothing */
	T_CHECK(npki_manifest_check(&m, "f", 7, 0, &held, NULL) == 0 && held == 7);
}

T_MAIN()
