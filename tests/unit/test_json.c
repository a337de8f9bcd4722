/* The JSON reader: what it takes, what it refuses, and at which byte. */
#include "../t.h"

#include <errno.h>
#include <json.h>

static struct npki_json over(const char *text)
{
	return npki_json_init(text, strlen(text), "f.json");
}

TEST(strings_are_unescaped)
{
	static const struct {
		const char *text, *want; /* NULL: refused */
	} cases[] = {
		{"\"\"", ""},
		{" \t\r\n\"a b\"", "a b"},
		{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
		{"\"\\u0041\\u00e9\\u20AC\"", "A\xC3\xA9\xE2\x82\xAC"},
		{"\"\\ud83d\\ude00\"", "\xF0\x9F\x98\x80"},
		{"\"\\uD800\\uDC00\\udbff\\udfff\"", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
		{"\"\x7F\xC3\xA9\"", "\x7F\xC3\xA9"},
		{"\"\\u0000\"", NULL},
		{"\"\\ud83d\"", NULL},
		{"\"\\ude00\"", NULL},
		{"\"\\ud83d\\u0041\"", NULL},
		{"\"\\ud83dxxxxxx\"", NULL},
		{"\"\\u00g0\"", NULL},
		{"\"\\u00", NULL},
		{"\"\\", NULL},
		{"\"\\x\"", NULL},
		{"\"a\nb\"", NULL},
		{"\"\xFF\"", NULL},
		{"\"\xC3\"", NULL},
		{"\"\xED\xA0\x80\"", NULL},
		{"\"abc", NULL},
		{"abc", NULL},
		{"", NULL},
		{"'a'", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct npki_json j = over(cases[i].text);
		struct npk_err err = {0};
		char *got = NULL;
		int rc = npki_json_string(&j, &got, &err);

		T_CHECKF((rc == 0) == (cases[i].want != NULL), "%s: %d", cases[i].text, rc);
		if (rc == 0)
			T_CHECKF(strcmp(got, cases[i].want) == 0 && npki_json_at_end(&j), "%s: '%s'", cases[i].text,
				got);
		else
			T_CHECKF(rc == -EUCLEAN && !got && strncmp(err.msg, "f.json: byte ", 13) == 0, "%s: %s",
				cases[i].text, err.msg);
		free(got);
	}
}

TEST(whole_numbers)
{
	static const struct {
		const char *text;
		int64_t want; /* -1: refused */
	} cases[] = {{"0", 0}, {" 7 ", 7}, {"9223372036854775807", INT64_MAX}, {"9223372036854775808", -1},
		{"18446744073709551615", -1}, {"18446744073709551616", -1}, {"99999999999999999999999", -1}, {"-1", -1},
		{"+1", -1}, {"01", -1}, {"00", -1}, {"1.0", -1}, {"1e3", -1}, {"1E3", -1}, {"", -1}, {"x", -1},
		{"\"1\"", -1}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct npki_json j = over(cases[i].text);
		uint64_t got = 77;
		int rc = npki_json_uint(&j, &got, NULL);

		T_CHECKF(rc == (cases[i].want < 0 ? -EUCLEAN : 0), "%s: %d", cases[i].text, rc);
		T_CHECKF(got == (rc == 0 ? (uint64_t)cases[i].want : 77), "%s: %llu", cases[i].text,
			(unsigned long long)got);
	}
}

static int skip_over(const char *text, size_t len, size_t *at)
{
	struct npki_json j = npki_json_init(text, len, "f.json");
	int rc = npki_json_skip(&j, NULL);

	*at = (size_t)(j.p - j.start);
	return rc;
}

TEST(any_value_is_skipped_to_its_end)
{
	static const char *const good[] = {"0", "-1.5e+10", "true", "false", "null", "\"a\\\"]}\"", "[]", "{}",
		"[1, [2, {\"a\": []}], \"]\"]", "{\"a\": 1, \"b\": {\"c\": [null, true]}, \"d\": \"}\"}", " [ ] "};
	static const char *const bad[] = {"", "[", "{", "]", "[1", "[1,", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":}",
		"{a:1}", "{\"a\":1,}", "{\"a\" 1}", "tru", "nul", "fals", "x", "[x]", "\"a", "[\"a]", "{1:2}"};
	size_t at;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char text[100];

		snprintf(text, sizeof(text), "%s,", good[i]);
		T_CHECKF(skip_over(text, strlen(text), &at) == 0, "%s", good[i]);
		while (text[at] == ' ')
			at++;
		T_CHECKF(at == strlen(good[i]), "%s: ends at %zu", good[i], at);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		T_CHECKF(skip_over(bad[i], strlen(bad[i]), &at) == -EUCLEAN, "%s", bad[i]);
}

TEST(nesting_has_a_limit)
{
	for (int shape = 0; shape < 2; shape++)
		for (size_t depth = 1; depth < 200; depth++) {
			static char text[2000];
			size_t n = 0, at;

			for (size_t i = 0; i < depth; i++)
				n += (size_t)sprintf(text + n, shape ? "{\"a\":" : "[");
			n += (size_t)sprintf(text + n, "1");
			for (size_t i = 0; i < depth; i++)
				text[n++] = shape ? '}' : ']';
			T_CHECKF(skip_over(text, n, &at) == (depth <= 64 ? 0 : -EUCLEAN), "%zu levels", depth);
		}
}

/* The buffer is exactly as long as the text: a sanitizer sees one byte read too far. */
TEST(no_prefix_of_a_document_is_one)
{
	static const char text[] =
		"{\"k\\u00e9\\ud83d\\ude00\": [1, 2.5, {\"a\": \"b\\n\", \"c\": null}, true, false], \"z\": 1}";

	for (size_t len = 0; len < sizeof(text) - 1; len++) {
		char *copy = malloc(len + !len);
		size_t at;

		memcpy(copy, text, len);
		T_CHECKF(skip_over(copy, len, &at) == -EUCLEAN && at <= len, "%zu bytes", len);
		free(copy);
	}
}

T_MAIN()
