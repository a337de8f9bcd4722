/* t.h - a thin layer over cmocka: tests register themselves, random tests repeat by their seed, files live in a scratch
 * directory of their own.
 *
 *     TEST(a_row_keeps_its_place) { T_CHECK(...); }
 *     T_MAIN()                     // once, at the end of the program's file */
#ifndef T_H
#define T_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define T_TESTS_MAX 128

static struct CMUnitTest t_tests[T_TESTS_MAX];
static size_t t_ntests;

#define TEST(NAME)                                                                                                     \
	static void NAME(void **t_state);                                                                              \
	__attribute__((constructor)) static void t_register_##NAME(void)                                               \
	{                                                                                                              \
		if (t_ntests == T_TESTS_MAX)                                                                           \
			abort();                                                                                       \
		t_tests[t_ntests++] = (struct CMUnitTest){#NAME, NAME, NULL, NULL, NULL};                              \
	}                                                                                                              \
	static void NAME(__attribute__((unused)) void **t_state)

#define T_CHECK(COND) assert_true(COND)

/* Like T_CHECK, and says what led there: T_CHECKF(got == want, "row %d: %d", row, got). */
#define T_CHECKF(COND, ...)                                                                                            \
	do {                                                                                                           \
		if (!(COND)) {                                                                                         \
			print_error(__VA_ARGS__);                                                                      \
			print_error("\n");                                                                             \
			_assert_true(0, #COND, __FILE__, __LINE__); /* COND itself may come out otherwise now */       \
		}                                                                                                      \
	} while (0)

/* splitmix64; the seed of a test comes from T_SEED in the environment, else it is fixed. */
static inline uint64_t t_rand(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

static inline uint64_t t_seed(void)
{
	const char *s = getenv("T_SEED");

	return s ? strtoull(s, NULL, 0) : 1;
}

#define T_MAIN()                                                                                                       \
	int main(void)                                                                                                 \
	{                                                                                                              \
		return _cmocka_run_group_tests(__FILE__, t_tests, t_ntests, NULL, NULL);                               \
	}

#endif
