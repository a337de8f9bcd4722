/* The selection grammar: what parses, what does not and at which byte, and what a part selects of an axis. Random
 * selections of whole stores are in prop/test_views.c. */
#include "../t.h"

#include <errno.h>
#include <inttypes.h>
#include <sel.h>

/* What `text` selects of an axis of `len`, as "4 3 2"; or the error's text. */
static const char *select_text(const char *text, uint64_t len)
{
	static char out[2000];
	struct npki_sel s = {0};
	struct npki_axis a = {0};
	struct npk_err err = {0};
	uint64_t run;
	int64_t step;
	size_t n = 0;

	out[0] = 0;
	if (npki_sel_parse(text, strlen(text), &s, &err) != 0 ||
		npki_axis_bind(&a, s.nparts ? &s.part[0] : NULL, 0, len, &err) != 0)
		snprintf(out, sizeof(out), "%s", err.msg);
	else
		for (uint64_t i = 0; i < a.len && n < sizeof(out) - 30; i++)
			n += (size_t)snprintf(
				out + n, sizeof(out) - n, "%s%" PRIu64, i ? " " : "", npki_axis_at(&a, i, &step, &run));
	npki_axis_fini(&a);
	npki_sel_fini(&s);
	return out;
}

/* As Python answers list(range(len))[...]. */
TEST(items_follow_python)
{
	static const struct {
		const char *sel;
		uint64_t len;
		const char *want;
	} cases[] = {
		{"", 3, "0 1 2"},
		{"   ", 3, "0 1 2"},
		{"all", 3, "0 1 2"},
		{" all ", 3, "0 1 2"},
		{"all", 0, ""},
		{":", 3, "0 1 2"},
		{"::", 3, "0 1 2"},
		{"0", 3, "0"},
		{"-1", 3, "2"},
		{"-3", 3, "0"},
		{"1:", 4, "1 2 3"},
		{":2", 4, "0 1"},
		{":-1", 4, "0 1 2"},
		{"-2:", 4, "2 3"},
		{"1:3", 4, "1 2"},
		{"3:1", 4, ""},
		{"::2", 5, "0 2 4"},
		{"1::2", 5, "1 3"},
		{"::-1", 4, "3 2 1 0"},
		{"::-2", 4, "3 1"},
		{"::-3", 4, "3 0"},
		{"2::-1", 4, "2 1 0"},
		{":1:-1", 4, "3 2"},
		{"-1:0:-1", 4, "3 2 1"},
		{"100:", 4, ""},
		{":100", 4, "0 1 2 3"},
		{"-100:100", 4, "0 1 2 3"},
		{"100:-100:-1", 4, "3 2 1 0"},
		{"100:-100:-3", 4, "3 0"},
		{"-100::-1", 4, ""},
		{"::100", 4, "0"},
		{"::-100", 4, "3"},
		{"::9223372036854775807", 4, "0"},
		{"::-9223372036854775807", 4, "3"},
		{"-9223372036854775807:9223372036854775807", 2, "0 1"},
		{":", 0, ""},
		{"::-1", 0, ""},
		{"5:2", 0, ""},
		{"2,0,2", 3, "2 0 2"},
		{"2+0 2", 3, "2 0 2"},
		{"2 , 0  +2", 3, "2 0 2"},
		{"0 1\t2", 3, "0 1 2"},
		{"0,1,2:", 4, "0 1 2 3"},
		{"0,::-1,1:3", 3, "0 2 1 0 1 2"},
		{"3:3,1", 4, "1"},
		{" 1 ", 3, "1"},
		{"007", 9, "7"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *got = select_text(cases[i].sel, cases[i].len);

		T_CHECKF(strcmp(got, cases[i].want) == 0, "'%s' of %" PRIu64 ": %s", cases[i].sel, cases[i].len, got);
	}
}

TEST(errors_name_the_byte)
{
	static const struct {
		const char *sel, *want;
	} cases[] = {
		{"x", "selection: byte 0: 'x' is not a row, a slice, 'all' or 'mask='"},
		{"-", "selection: a number is missing at its end"},
		{"1:-", "selection: a number is missing at its end"},
		{"1,", "selection: a row, a slice, 'all' or 'mask=' is missing at its end"},
		{"1,,2", "selection: byte 2: ',2' is not a row"},
		{",1", "selection: byte 0: ',1' is not a row"},
		{"1;", "selection: a row, a slice, 'all' or 'mask=' is missing at its end"},
		{";1", "selection: byte 0: ';1' is not a row"},
		{"1;;2", "selection: byte 2: ';2' is not a row"},
		{"1@ @2", "selection: byte 3: '@2' is not a row"},
		{"--1", "selection: byte 1: '-1' is not a number"},
		{"1:2:x", "selection: byte 4: 'x' is not"},
		{"1:2:3:4", "selection: byte 5: ':4' is not"},
		{"0::0", "selection: byte 4: a step of 0"},
		{"1.5", "selection: byte 1: '.5' is not"},
		{"1e3", "selection: byte 1: 'e3' is not"},
		{"all,1", "selection: byte 3: ',1' is not ',', '+', ';' or the end"},
		{"allx", "selection: byte 3: 'x' is not"},
		{"1,all", "selection: byte 2: 'all' is not a row"},
		{"9223372036854775808", "selection: byte 18: '8' is not a number below 2^63"},
		{"1:99999999999999999999", "is not a number below 2^63"},
		{"1\n;\x01", "selection: byte 3: '\\x01' is not"},
		{"mask=\"m", "selection: '\"' is missing at its end"},
		{"mask=\"m\"x", "selection: byte 8: 'x' is not"},
		{"mask=\"m\\\"", "selection: '\"' is missing at its end"},
		{"+", "selection: byte 0: '+' is not a row"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *got = select_text(cases[i].sel, 10);

		T_CHECKF(strstr(got, cases[i].want), "'%s': %s", cases[i].sel, got);
	}
}

TEST(integers_are_not_clipped)
{
	struct npki_sel s;
	struct npk_err err;

	for (int i = -7; i <= 7; i++) {
		struct npki_axis a = {0};
		char text[40];
		int rc;

		snprintf(text, sizeof(text), "0,%d", i);
		T_CHECK(npki_sel_parse(text, strlen(text), &s, NULL) == 0);
		rc = npki_axis_bind(&a, &s.part[0], 2, 5, &err);
		T_CHECKF(rc == (i >= -5 && i < 5 ? 0 : -ERANGE), "%d: %d", i, rc);
		if (rc != 0) {
			snprintf(text, sizeof(text), "%d is out of range", i);
			T_CHECKF(err.code == ERANGE && strstr(err.msg, text) && strstr(err.msg, "axis 2 has 5"), "%s",
				err.msg);
		}
		npki_axis_fini(&a);
		npki_sel_fini(&s);
	}
}

TEST(masks_have_names_of_any_bytes)
{
	static const struct {
		const char *sel, *name;
	} cases[] = {{"mask=m", "m"}, {"mask=", ""}, {"mask=a b,1+2:3", "a b,1+2:3"}, {"mask=\"a;b@c\"", "a;b@c"},
		{"mask=\"q\\\"b\\\\e\"", "q\"b\\e"}, {"mask=\"\"", ""}, {" mask=\"m\" ", "m"},
		{"mask=caf\xC3\xA9", "caf\xC3\xA9"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct npki_sel s = {0};

		T_CHECKF(npki_sel_parse(cases[i].sel, strlen(cases[i].sel), &s, NULL) == 0, "%s", cases[i].sel);
		T_CHECKF(s.nparts == 1 && s.part[0].mask && strcmp(s.part[0].mask, cases[i].name) == 0 &&
				 s.part[0].mask_len == strlen(cases[i].name),
			"%s: '%s'", cases[i].sel, s.part[0].mask);
		npki_sel_fini(&s);
	}
}

TEST(parts_are_counted)
{
	char text[200];
	struct npki_sel s;
	struct npk_err err;
	size_t n = 0;

	for (unsigned parts = 1; parts <= 34; parts++) {
		int rc;

		n += (size_t)sprintf(text + n, "%s", parts == 1 ? "all" : parts % 2 ? ";0" : "@1:2");
		rc = npki_sel_parse(text, n, &s, &err);
		T_CHECKF(rc == (parts <= 32 ? 0 : -EINVAL), "%u parts", parts);
		if (rc == 0)
			T_CHECK(s.nparts == parts);
		else
			T_CHECK(strstr(err.msg, "more than 32 parts"));
		if (rc == 0)
			npki_sel_fini(&s);
	}
}

/* No more than the given bytes are looked at, wherever the text is cut. */
TEST(every_prefix_is_read_within_its_bytes)
{
	static const char text[] = " -1:20:3, 4+5 6 ;all@mask=\"a\\\"b\" ; mask=x;::-1";

	for (size_t len = 0; len < sizeof(text); len++) {
		char *copy = malloc(len + !len);
		struct npki_sel s = {0};

		memcpy(copy, text, len);
		if (npki_sel_parse(copy, len, &s, NULL) == 0)
			npki_sel_fini(&s);
		free(copy);
	}
}

/* A range of 2^62 positions costs one range; positions that do not fit 63 bits are refused. */
TEST(huge_axes_cost_nothing)
{
	struct npki_axis a = {0};
	struct npki_sel s;
	uint64_t run = 0;
	int64_t step = 0;
	const uint64_t len = (uint64_t)1 << 62;
	const char *two = ":,:", *step3 = "-1:0:-3";

	T_CHECK(npki_sel_parse(step3, strlen(step3), &s, NULL) == 0);
	T_CHECK(npki_axis_bind(&a, &s.part[0], 0, len, NULL) == 0 && a.nranges == 1);
	T_CHECK(a.len == (len - 1 + 2) / 3 && npki_axis_at(&a, a.len - 1, &step, &run) == len - 1 - 3 * (a.len - 1));
	T_CHECK(step == -3 && run == 1);
	npki_axis_fini(&a);
	npki_sel_fini(&s);
	T_CHECK(npki_sel_parse(two, strlen(two), &s, NULL) == 0);
	T_CHECK(npki_axis_bind(&a, &s.part[0], 0, len, NULL) == -EINVAL);
	npki_axis_fini(&a);
	npki_sel_fini(&s);
}

T_MAIN()
