/* UTF-8, JSON strings and names in messages, over every code point. */
#include "../t.h"

#include <json.h>
#include <text.h>

/* As the tables of RFC 3629 say it, without regard for surrogates. */
static size_t encode(uint32_t c, uint8_t out[4])
{
	if (c < 0x80)
		return out[0] = (uint8_t)c, 1;
	if (c < 0x800)
		return out[0] = (uint8_t)(0xC0 + c / 64), out[1] = (uint8_t)(0x80 + c % 64), 2;
	if (c < 0x10000)
		return out[0] = (uint8_t)(0xE0 + c / 4096), out[1] = (uint8_t)(0x80 + c / 64 % 64),
		       out[2] = (uint8_t)(0x80 + c % 64), 3;
	return out[0] = (uint8_t)(0xF0 + c / 262144), out[1] = (uint8_t)(0x80 + c / 4096 % 64),
	       out[2] = (uint8_t)(0x80 + c / 64 % 64), out[3] = (uint8_t)(0x80 + c % 64), 4;
}

TEST(every_code_point_but_surrogates_is_utf8)
{
	for (uint32_t c = 0; c < 0x200000; c++) {
		uint8_t b[4];
		size_t n = encode(c, b), want = (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF ? 0 : n;

		T_CHECKF(npki_utf8_len(b, n) == want && npki_is_utf8(b, n) == (want > 0), "U+%X", c);
		for (size_t left = 1; left < n; left++)
			T_CHECKF(npki_utf8_len(b, left) == 0, "U+%X cut to %zu", c, left);
	}
}

/* Of all pairs and triples of bytes, exactly those that encode() makes are sequences of that length. */
TEST(overlong_and_loose_bytes_are_not_utf8)
{
	static uint8_t good[1 << 24];
	uint8_t b[4];

	for (uint32_t c = 0; c < 0x10000; c++)
		if (encode(c, b) > 1 && !(c >= 0xD800 && c < 0xE000))
			good[b[0] << 16 | b[1] << 8 | (c < 0x800 ? 0 : b[2])] = 1;
	for (uint32_t v = 0; v < 1 << 24; v++) {
		size_t n;

		b[0] = (uint8_t)(v >> 16);
		b[1] = (uint8_t)(v >> 8);
		b[2] = (uint8_t)v;
		n = npki_utf8_len(b, 3);
		if (n == 3)
			T_CHECKF(good[v], "%06X", v);
		else if (n == 2)
			T_CHECKF(good[v & 0xFFFF00], "%06X", v);
		else
			T_CHECKF(n == (b[0] < 0x80) && (b[0] < 0x80 || !good[v]), "%06X: %zu", v, n);
	}
}

TEST(four_byte_forms_end_at_10FFFF)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {{"\xF0\x8F\xBF\xBF", 0}, {"\xF0\x90\x80\x80", 4}, {"\xF4\x8F\xBF\xBF", 4}, {"\xF4\x90\x80\x80", 0},
		{"\xF5\x80\x80\x80", 0}, {"\xFF\x80\x80\x80", 0}, {"\x80\x80\x80\x80", 0}, {"\xF1\x80\x80\x7F", 0}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		T_CHECKF(npki_utf8_len((const uint8_t *)cases[i].bytes, 4) == cases[i].len, "case %zu", i);
	T_CHECK(npki_is_utf8("", 0) && npki_is_utf8("a\0b", 3) && !npki_is_utf8("ab\xC3", 3));
}

static void check_json(const char *bytes, size_t len, const char *want)
{
	struct npk_text t = {0};

	npk_text_json(&t, bytes, len);
	T_CHECKF(!t.bad && strcmp(t.p, want) == 0 && t.len == strlen(want), "%s, not %s", t.p, want);
	npk_text_fini(&t);
}

TEST(json_strings_are_quoted)
{
	check_json("", 0, "\"\"");
	check_json("a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\"");
	check_json("\0\x01\n\t\x1F\x7F", 6, "\"\\u0000\\u0001\\u000a\\u0009\\u001f\x7F\"");
	check_json("h\xC3\xA9\xF0\x9F\x98\x80", 7, "\"h\xC3\xA9\xF0\x9F\x98\x80\"");
	check_json("a\xFFz\xC3", 4, "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\"");
	check_json("\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(json_strings_read_back)
{
	uint64_t rnd = t_seed();

	for (int i = 0; i < 20000; i++) {
		uint64_t seed = rnd;
		char s[100], *back = NULL;
		size_t len = 0, n = t_rand(&rnd) % 20;
		struct npk_text t = {0};
		struct npki_json j;

		for (size_t k = 0; k < n; k++) {
			uint32_t c = (uint32_t)(t_rand(&rnd) % (t_rand(&rnd) % 2 ? 0x100 : 0x110000));

			if (c != 0 && !(c >= 0xD800 && c < 0xE000))
				len += encode(c, (uint8_t *)s + len);
		}
		npk_text_json(&t, s, len);
		j = npki_json_init(t.p, t.len, "t");
		T_CHECKF(npki_json_string(&j, &back, NULL) == 0 && npki_json_at_end(&j), "seed %#llx",
			(unsigned long long)seed);
		T_CHECKF(strlen(back) == len && memcmp(back, s, len) == 0, "seed %#llx", (unsigned long long)seed);
		free(back);
		npk_text_fini(&t);
	}
}

TEST(a_text_grows_and_stays_terminated)
{
	struct npk_text t = {0};

	npk_text_fini(NULL);
	npk_text_add(&t, NULL, 0);
	T_CHECK(t.p && t.len == 0 && t.p[0] == 0);
	for (size_t i = 0; i < 5000; i++) {
		if (i % 2)
			npk_text_add(&t, "0123456789", 10);
		else
			npk_text_printf(&t, "%05zu%s", i, "abcde");
		T_CHECK(!t.bad && t.len == 10 * (i + 1) && t.p[t.len] == 0);
	}
	T_CHECK(memcmp(t.p, "00000abcde0123456789", 20) == 0 && memcmp(t.p + 49980, "04998abcde0123456789", 20) == 0);
	npk_text_add(&t, "x", SIZE_MAX / 2); /* more than there is: the text stays, and says so */
	T_CHECK(t.bad && t.len == 50000);
	npk_text_add(&t, "x", 1);
	T_CHECK(t.bad && t.len == 50000);
	npk_text_fini(&t);
	T_CHECK(!t.p && !t.bad);
}

static void check_show(const char *bytes, size_t len, const char *want)
{
	char out[NPKI_SHOW_MAX];

	memset(out, 'x', sizeof(out));
	T_CHECKF(strcmp(npki_show(out, bytes, len), want) == 0, "'%s', not '%s'", out, want);
}

TEST(names_in_messages_have_no_control_bytes)
{
	char name[300], out[NPKI_SHOW_MAX];

	check_show("", 0, "");
	check_show("a b\"c", 5, "a b\"c");
	check_show("a\nb\0\x7F\x1B\\", 7, "a\\x0Ab\\x00\\x7F\\x1B\\x5C");
	check_show("caf\xC3\xA9", 5, "caf\xC3\xA9");
	for (int fill = 0; fill < 2; fill++) {
		memset(name, fill ? '\n' : 'n', sizeof(name));
		for (size_t len = 0; len <= sizeof(name); len++) {
			size_t full = fill ? 4 * len : len, n = strlen(npki_show(out, name, len));

			T_CHECKF(n < NPKI_SHOW_MAX, "%zu bytes", len);
			T_CHECKF(n == full || (full > 100 && strcmp(out + n - 3, "...") == 0), "%zu bytes: '%s'", len,
				out);
		}
	}
}

T_MAIN()
