/* CSV: every value reads back to the same bits, whatever the pieces in which the text is read. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <numpack.h>

static struct npk_csv *open_csv(const struct mk_array *a, struct npk_store **s)
{
	static const char *dir;
	struct npk_array *h = NULL;
	struct npk_gen *g = NULL;
	struct npk_csv *c = NULL;

	if (!dir)
		dir = mk_dir();
	mk_store(dir, a, 1);
	T_CHECK(npk_store_open(s, dir, NPK_RDONLY, NULL) == 0 && npk_array_get(&h, *s, a->name, NULL) == 0);
	T_CHECK(npk_gen_get(&g, h, NULL) == 0 && npk_csv_open(&c, g, NULL) == 0);
	npk_gen_put(g);
	npk_array_put(h);
	return c;
}

/* The text, read in pieces of `piece` bytes. */
static struct mk_bytes csv_of(const struct mk_array *a, size_t piece)
{
	struct mk_bytes text = {0};
	struct npk_store *s;
	struct npk_csv *c = open_csv(a, &s);
	char *buf = malloc(piece);
	ssize_t n;

	mk_put(&text, "", 0);
	while ((n = npk_csv_read(c, buf, piece, NULL)) > 0)
		mk_put(&text, buf, (size_t)n);
	T_CHECK(n == 0 && npk_csv_read(c, buf, piece, NULL) == 0);
	free(buf);
	npk_csv_close(c);
	npk_store_close(s);
	return text;
}

static void check_text(const struct mk_array *a, const char *want)
{
	static const size_t pieces[] = {1, 7, 4096, 100000};

	for (size_t i = 0; i < 4; i++) {
		struct mk_bytes t = csv_of(a, pieces[i]);

		T_CHECKF(strcmp((char *)t.p, want) == 0, "in pieces of %zu: '%s', not '%s'", pieces[i], t.p, want);
		mk_free(&t);
	}
}

/* --- texts ------------------------------------------------------------------------------------------------------------- */

#define ARRAY(DTYPE, DATA, ...)                                                                                        \
	&(struct mk_array)                                                                                             \
	{                                                                                                              \
		.name = "x", .dtype = DTYPE, .data = DATA, .ndim = sizeof((uint64_t[]){__VA_ARGS__}) / 8,              \
		.dim = { __VA_ARGS__ }                                                                                 \
	}

TEST(whole_numbers_and_their_ends)
{
	check_text(ARRAY(NPK_BOOL, ((uint8_t[]){0, 1, 2, 255}), 4), "0\n1\n1\n1\n");
	check_text(ARRAY(NPK_U8, ((uint8_t[]){0, 255}), 2), "0\n255\n");
	check_text(ARRAY(NPK_I8, ((int8_t[]){INT8_MIN, INT8_MAX}), 2), "-128\n127\n");
	check_text(ARRAY(NPK_U16, ((uint16_t[]){0, UINT16_MAX}), 2), "0\n65535\n");
	check_text(ARRAY(NPK_I16, ((int16_t[]){INT16_MIN, INT16_MAX}), 2), "-32768\n32767\n");
	check_text(ARRAY(NPK_U32, ((uint32_t[]){0, UINT32_MAX}), 2), "0\n4294967295\n");
	check_text(ARRAY(NPK_I32, ((int32_t[]){INT32_MIN, INT32_MAX}), 2), "-2147483648\n2147483647\n");
	check_text(ARRAY(NPK_U64, ((uint64_t[]){0, UINT64_MAX}), 2), "0\n18446744073709551615\n");
	check_text(ARRAY(NPK_I64, ((int64_t[]){INT64_MIN, -1, INT64_MAX}), 3),
		"-9223372036854775808\n-1\n9223372036854775807\n");
}

TEST(reals_and_complex_numbers)
{
	check_text(ARRAY(NPK_F64, ((double[]){0.1, -0.0, 1e300, INFINITY, -INFINITY, 5e-324}), 6),
		"0.1\n-0\n1e+300\ninf\n-inf\n5e-324\n");
	check_text(ARRAY(NPK_F32, ((float[]){0.1f, 16777216, 3.4028235e38f}), 3), "0.1\n16777216\n3.4028235e+38\n");
	check_text(ARRAY(NPK_F16, ((uint16_t[]){0x3C00, 0x8000, 0x7C00, 0xFC00, 1, 0x7BFF}), 6),
		"1\n-0\ninf\n-inf\n5.9604645e-08\n65504\n");
	check_text(ARRAY(NPK_C64, ((float[]){1, 2, -1, -2, 0, -0.0f, INFINITY, -INFINITY}), 4),
		"1+2j\n-1-2j\n0-0j\ninf-infj\n");
	check_text(ARRAY(NPK_C128, ((double[]){0.1, 1e-5}), 1), "0.1+1e-05j\n");
}

TEST(one_line_a_row)
{
	static const uint8_t bytes[24] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
	struct mk_array deleted = *(ARRAY(NPK_U8, bytes, 4, 3));
	uint8_t gone[4] = {1, 0, 0, 1};

	check_text(ARRAY(NPK_U8, bytes, 2, 3), "1,2,3\n4,5,6\n");
	check_text(ARRAY(NPK_U8, bytes, 2, 1, 2, 2), "1,2,3,4\n5,6,7,8\n");
	check_text(ARRAY(NPK_U8, bytes, 3, 0), "\n\n\n");
	check_text(ARRAY(NPK_U8, bytes, 0, 3), "");
	check_text(ARRAY(NPK_U8, bytes, 0), "");
	check_text(&(struct mk_array){.name = "x", .dtype = NPK_U8, .data = bytes}, "1\n");
	deleted.deleted = gone;
	check_text(&deleted, "4,5,6\n7,8,9\n");
}

/* --- bits -------------------------------------------------------------------------------------------------------------- */

/* An own conversion: value = (-1)^s * 2^(e-15) * (1 + f/1024). */
static double half(uint16_t h)
{
	int e = h >> 10 & 31, f = h & 1023;
	double v = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);

	return h & 0x8000 ? -v : v;
}

/* A NaN is a NaN; everything else is the same to the last bit, the sign of zero too. */
static void check_real(const char *from, char **end, unsigned dtype, const uint8_t *p)
{
	union {
		float f;
		double d;
		uint32_t u;
		uint64_t w;
	} got, want;
	uint16_t h;

	if (dtype == NPK_F64 || dtype == NPK_C128) {
		got.d = strtod(from, end);
		memcpy(&want.d, p, 8);
		T_CHECKF(isnan(want.d) ? isnan(got.d) : got.w == want.w, "'%.30s' is not %a", from, want.d);
		return;
	}
	got.f = strtof(from, end);
	if (dtype == NPK_F16) {
		memcpy(&h, p, 2);
		want.f = (float)half(h);
	} else {
		memcpy(&want.f, p, 4);
	}
	T_CHECKF(isnan(want.f) ? isnan(got.f) : got.u == want.u, "'%.30s' is not %a", from, (double)want.f);
}

static void check_bits(unsigned dtype, const void *data, uint64_t n)
{
	const struct mk_array a = {.name = "x", .dtype = dtype, .ndim = 1, .dim = {n}, .data = data};
	size_t size = npk_dtype_size(dtype);
	struct mk_bytes t = csv_of(&a, 4096);
	char *p = (char *)t.p;
	const uint8_t *v = data;

	for (uint64_t i = 0; i < n; i++, v += size, p++) {
		check_real(p, &p, dtype, v);
		if (dtype == NPK_C64 || dtype == NPK_C128) {
			T_CHECKF(*p == '+' || *p == '-', "value %" PRIu64 ": '%.40s'", i, p);
			check_real(p, &p, dtype, v + size / 2);
			T_CHECKF(*p++ == 'j', "value %" PRIu64, i);
		}
		T_CHECKF(*p == '\n', "value %" PRIu64 ": '%.40s'", i, p);
	}
	T_CHECK(*p == 0);
	mk_free(&t);
}

TEST(every_half_reads_back)
{
	static uint16_t all[65536];

	for (uint32_t i = 0; i < 65536; i++)
		all[i] = (uint16_t)i;
	check_bits(NPK_F16, all, 65536);
}

TEST(random_bits_read_back)
{
	static const unsigned dtypes[] = {NPK_F32, NPK_F64, NPK_C64, NPK_C128};
	static uint64_t bits[30000];
	uint64_t rnd = t_seed();

	for (size_t i = 0; i < 30000; i++) {
		bits[i] = t_rand(&rnd);
		if (i % 8 == 0) /* subnormals, whole numbers, infinities, zeroes */
			bits[i] &= t_rand(&rnd) & t_rand(&rnd) & 0x800FFFFF80FFFFFF;
		if (i % 100 == 1)
			bits[i] = 0x7FF00000FF800000 ^ (t_rand(&rnd) % 2 ? 0x8000000080000000 : 0);
		if (i % 100 == 2)
			bits[i] = 0x7F8000017F800001 | (t_rand(&rnd) % 2 ? 0xFFF0000000000000 : 0);
	}
	for (size_t i = 0; i < 4; i++)
		check_bits(dtypes[i], bits, sizeof(bits) / npk_dtype_size(dtypes[i]));
}

/* Longer than the reader's own block, in rows of several values. */
TEST(pieces_join_to_the_same_text)
{
	static double values[20000];
	uint64_t rnd = t_seed();
	struct mk_array a = {.name = "x", .dtype = NPK_F64, .ndim = 2, .dim = {4000, 5}, .data = values};
	struct mk_bytes want;

	for (size_t i = 0; i < 20000; i++)
		values[i] = (double)(int64_t)t_rand(&rnd) / (double)(1 + t_rand(&rnd) % 1000);
	want = csv_of(&a, 1 << 22);
	for (size_t piece = 1; piece < 5000; piece = piece * 7 + (piece > 100 ? 1000 : 0)) {
		struct mk_bytes got = csv_of(&a, piece);

		T_CHECKF(got.len == want.len && memcmp(got.p, want.p, got.len) == 0, "in pieces of %zu", piece);
		mk_free(&got);
	}
	mk_free(&want);
	npk_csv_close(NULL);
}

T_MAIN()
