/* test_kernels.c - every kernel of every level that this CPU has. With -DNPKV_NO_CMOCKA it is a plain program that
 * needs libnpkv and libm only, to be run under an emulator (test_emulated.py): LEVEL and one case in SHARE.  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern.h"

static unsigned on_all_levels(const char *what, void (*check)(const struct k_level *))
{
	static struct k_level levels[K_LEVELS_MAX];
	size_t n = k_levels(levels);
	unsigned before = k_failures();

	fprintf(stderr, "%s:", what);
	for (size_t i = 0; i < n; i++) {
		fprintf(stderr, " %s", levels[i].name);
		check(&levels[i]);
	}
	fputc('\n', stderr);
	return k_failures() - before;
}

/* A level is forced by its name; a wrong name and a level that the CPU lacks are told apart. */
static unsigned forced_levels(void)
{
	static const char *const names[] = {"scalar", "avx2", "avx512", "neon", "sve"};
	unsigned cpu = 99, before = k_failures();

	unsetenv("NPKV_TEST_LEVEL");
	if (npkv_cpu_from_env("NPKV_TEST_LEVEL", &cpu) != 0 || cpu != npkv_cpu())
		k_fail("an unset level is not the CPU's");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		unsigned got = 99;
		int rc;

		setenv("NPKV_TEST_LEVEL", names[i], 1);
		rc = npkv_cpu_from_env("NPKV_TEST_LEVEL", &got);
		if (rc == 0 ? (got & ~npkv_cpu()) || strcmp(npkv_level_name(got), names[i]) != 0
			    : rc != NPKV_ENV_LACKING || got != 99)
			k_fail("level %s: %d, mask %x", names[i], rc, got);
	}
	setenv("NPKV_TEST_LEVEL", "AVX9", 1);
	if (npkv_cpu_from_env("NPKV_TEST_LEVEL", &cpu) != NPKV_ENV_UNKNOWN)
		k_fail("level AVX9 is known");
	return k_failures() - before;
}

#ifdef NPKV_NO_CMOCKA
#define TEST(NAME) static void NAME(void)
#define T_CHECK(COND)                                                                                                  \
	do {                                                                                                           \
		if (!(COND))                                                                                           \
			fprintf(stderr, "%s failed\n", __func__);                                                      \
	} while (0)
#else
#include "t.h"
#endif

TEST(one_query_gives_the_sums_of_the_reference)
{
	T_CHECK(on_all_levels("one", check_one) == 0);
}

TEST(a_tile_gives_the_sums_of_the_reference)
{
	T_CHECK(on_all_levels("tiles", check_tiles) == 0);
}

TEST(conversions_comparisons_and_checksums_agree)
{
	T_CHECK(on_all_levels("convert", check_convert) == 0);
}

TEST(a_pair_has_one_score_on_all_levels)
{
	T_CHECK(on_all_levels("pairs", check_pairs) == 0);
}

TEST(a_search_is_a_sort_of_all_scores)
{
	T_CHECK(on_all_levels("search", check_search) == 0);
}

TEST(a_plan_is_refused_or_whole)
{
	T_CHECK(on_all_levels("plans", check_plans) == 0);
}

TEST(a_level_can_be_forced)
{
	T_CHECK(forced_levels() == 0);
}

#ifdef NPKV_NO_CMOCKA
int main(int argc, char **argv)
{
	static struct k_level levels[K_LEVELS_MAX];

	k_only = argc > 1 ? argv[1] : NULL;
	k_share = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
	if (argc > 3 || k_share == 0 || k_levels(levels) == 0) {
		fprintf(stderr, "this CPU has no such level, or not: [LEVEL [SHARE]]\n");
		return 2;
	}
	one_query_gives_the_sums_of_the_reference();
	a_tile_gives_the_sums_of_the_reference();
	conversions_comparisons_and_checksums_agree();
	a_pair_has_one_score_on_all_levels();
	a_search_is_a_sort_of_all_scores();
	a_plan_is_refused_or_whole();
	a_level_can_be_forced();
	printf("CPU %s, checked %s, %u failures\n", npkv_level_name(npkv_cpu()), k_only ? k_only : "all", k_failures());
	return k_failures() != 0;
}
#else
T_MAIN()
#endif
