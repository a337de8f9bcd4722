/* The pure parts of the daemon: names as path components, offsets of conversations, words of a command line. The sources
 * are included: the daemon is no library. */
#include "../t.h"

#include <errno.h>

#include "../../fs/names.c"
#include "../../fs/window.c"
#include "../../fs/words.c"

static void check_name(const char *name, size_t len, const char *part)
{
	char out[NPKFS_NAME_MAX + 1], back[NPKFS_NAME_MAX + 1];
	size_t back_len = 99;

	T_CHECK(npkfs_name_escape(out, name, len, ""));
	T_CHECKF(strcmp(out, part) == 0, "%s, not %s", out, part);
	T_CHECK(npkfs_name_unescape(back, &back_len, part, strlen(part)));
	T_CHECKF(back_len == len && memcmp(back, name, len) == 0, "%s does not come back", part);
}

TEST(names_are_escaped_as_the_contract_says)
{
	check_name("", 0, "%");
	check_name("x", 1, "x");
	check_name("a b", 3, "a b");
	check_name("x.npy", 5, "x.npy");
	check_name(".hidden", 7, "%2Ehidden");
	check_name("..", 2, "%2E.");
	check_name("a/b", 3, "a%2Fb");
	check_name("100%", 4, "100%25");
	check_name("\n\x7f\0", 3, "%0A%7F%00");
	check_name("\xc3\xa9", 2, "\xc3\xa9");
	check_name("\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80");
	check_name("\xe9", 1, "%E9");
	check_name("\xc0\xaf", 2, "%C0%AF");               /* overlong */
	check_name("\xed\xa0\x80", 3, "%ED%A0%80");        /* a surrogate */
	check_name("\xf4\x90\x80\x80", 4, "%F4%90%80%80"); /* above U+10FFFF */
	check_name("\xe2\x82", 2, "%E2%82");               /* cut short */
}

/* Two paths never mean one array: whatever unescapes is what escaping writes. */
TEST(random_components_have_one_spelling)
{
	static const char pool[] = "%%%2FfEe05.a/\xc3\xa9\xff\n";
	char part[12], name[NPKFS_NAME_MAX + 1], again[NPKFS_NAME_MAX + 1];
	unsigned seed = 1;
	size_t len, name_len;

	for (int i = 0; i < 300000; i++) {
		len = (size_t)rand_r(&seed) % sizeof(part);
		for (size_t k = 0; k < len; k++)
			part[k] = pool[(size_t)rand_r(&seed) % (sizeof(pool) - 1)];
		if (!npkfs_name_unescape(name, &name_len, part, len))
			continue;
		T_CHECK(npkfs_name_escape(again, name, name_len, ""));
		T_CHECKF(strlen(again) == len && memcmp(again, part, len) == 0, "%.*s and %s", (int)len, part, again);
	}
}

TEST(random_names_come_back)
{
	char name[NPKFS_NAME_MAX], part[NPKFS_NAME_MAX + 1], back[NPKFS_NAME_MAX + 1];
	unsigned seed = 2;
	size_t len, back_len;

	for (int i = 0; i < 100000; i++) {
		len = (size_t)rand_r(&seed) % 80;
		for (size_t k = 0; k < len; k++)
			name[k] = (char)rand_r(&seed);
		T_CHECK(npkfs_name_escape(part, name, len, ""));
		T_CHECK(strchr(part, '/') == NULL && part[0] != '.' && part[0] != '\0');
		T_CHECK(npkfs_name_unescape(back, &back_len, part, strlen(part)));
		T_CHECK(back_len == len && memcmp(back, name, len) == 0);
	}
}

TEST(names_longer_than_a_component_are_not_shown)
{
	char name[300], part[NPKFS_NAME_MAX + 1];

	memset(name, 'x', sizeof(name));
	T_CHECK(npkfs_name_escape(part, name, 251, ".npy") && strlen(part) == 255);
	T_CHECK(!npkfs_name_escape(part, name, 252, ".npy"));
	T_CHECK(npkfs_name_escape(part, name, 255, "") && !npkfs_name_escape(part, name, 256, ""));
	memset(name, '/', sizeof(name));
	T_CHECK(npkfs_name_escape(part, name, 85, "") && !npkfs_name_escape(part, name, 86, ""));
}

TEST(selections_decode_in_any_spelling)
{
	char out[32];

	T_CHECK(npkfs_percent_decode(out, "0%3a5%3B1", 9) && strcmp(out, "0:5;1") == 0);
	T_CHECK(npkfs_percent_decode(out, "", 0) && out[0] == '\0');
	T_CHECK(!npkfs_percent_decode(out, "1%", 2) && !npkfs_percent_decode(out, "1%4", 3));
	T_CHECK(!npkfs_percent_decode(out, "%zz", 3) && !npkfs_percent_decode(out, "%00", 3));
}

TEST(messages_become_printable_in_place)
{
	char text[] = "a\n\xff\xc3\xa9\x7f\xe2\x82";

	npkfs_make_printable(text);
	T_CHECK(strcmp(text, "a??\xc3\xa9???") == 0);
}

/* interface.md 4.1: the first read after a write tells where the reply begins. */
TEST(a_reader_may_go_on_or_start_again)
{
	struct npkfs_window w = {0};

	npkfs_window_wrote(&w, 10);
	T_CHECK(npkfs_window_place(&w, 10) == 0 && npkfs_window_place(&w, 14) == 4); /* goes on */
	T_CHECK(npkfs_window_place(&w, 0) == 0 && npkfs_window_place(&w, 14) == 14); /* below the base: moves it to 0 */
	npkfs_window_wrote(&w, 30);
	T_CHECK(npkfs_window_place(&w, 0) == 0 && npkfs_window_place(&w, 40) == 40); /* starts again */
	npkfs_window_wrote(&w, 10);
	T_CHECK(npkfs_window_place(&w, 5) == 5); /* pread before the end of the write is absolute */
	npkfs_window_wrote(&w, 0);
	T_CHECK(npkfs_window_place(&w, 7) == 0 && npkfs_window_place(&w, 8) == 1);
}

static int split(struct npkfs_words *w, const char *line)
{
	static char copy[4096];

	snprintf(copy, sizeof(copy), "%s", line);
	return npkfs_words_split(w, copy, strlen(copy), NULL);
}

TEST(lines_split_into_words)
{
	struct npkfs_words w;

	T_CHECK(split(&w, "  sel=0:10 \t fmt=npy ") == 0 && w.argc == 2);
	T_CHECK(strcmp(w.argv[0], "sel=0:10") == 0 && strcmp(npkfs_words_value(&w, "fmt"), "npy") == 0);
	T_CHECK(npkfs_words_value(&w, "se") == NULL && npkfs_words_value(&w, "sel=0:10") == NULL);
	T_CHECK(split(&w, "sel=\"0 2; 1\" x") == 0 && w.argc == 2 && strcmp(w.argv[0], "sel=0 2; 1") == 0);
	T_CHECK(split(&w, "a\"b\\\"c\\\\\"d \"\"") == 0 && w.argc == 2 && strcmp(w.argv[0], "ab\"c\\d") == 0 &&
		w.argv[1][0] == '\0');
	T_CHECK(split(&w, "") == 0 && w.argc == 0);
	T_CHECK(split(&w, " \t ") == 0 && w.argc == 0);
	T_CHECK(split(&w, "sel=\"0") == -EINVAL && split(&w, "\"\\") == -EINVAL);
	T_CHECK(npkfs_words_split(&w, (char[]){'a', '\0', 'b', '\0'}, 3, NULL) == -EINVAL);
}

TEST(too_many_words_are_refused)
{
	char line[2 * NPKFS_WORDS_MAX + 3];
	struct npkfs_words w;

	memset(line, 0, sizeof(line));
	for (int i = 0; i < NPKFS_WORDS_MAX; i++)
		memcpy(line + 2 * i, "x ", 2);
	T_CHECK(npkfs_words_split(&w, line, strlen(line), NULL) == 0 && w.argc == NPKFS_WORDS_MAX);
	for (int i = 0; i <= NPKFS_WORDS_MAX; i++)
		memcpy(line + 2 * i, "x ", 2);
	T_CHECK(npkfs_words_split(&w, line, strlen(line), NULL) == -EINVAL);
}

T_MAIN()
