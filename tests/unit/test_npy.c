/* .npy headers: ours are np.save's byte for byte, and the parser takes what NumPy writes and refuses the rest. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <numpack.h>

static char header[NPK_NPY_HEADER_MAX];

/* --- writing ----------------------------------------------------------------------------------------------------------- */

static void check_text(const char *dict, size_t total, unsigned dtype, struct npk_shape shape)
{
	size_t n = npk_npy_header(header, dtype, &shape, 64), len = strlen(dict);

	T_CHECKF(n == total && memcmp(header + 10, dict, len) == 0, "%.*s", (int)n - 11, header + 10);
	T_CHECK(memcmp(header, "\x93NUMPY\x01\x00", 8) == 0);
	T_CHECK((uint8_t)header[8] + 256 * (uint8_t)header[9] == (int)(total - 10));
	for (size_t i = 10 + len; i + 1 < total; i++)
		T_CHECKF(header[i] == ' ', "byte %zu", i);
	T_CHECK(header[total - 1] == '\n');
}

/* As numpy 2.4 wrote them. */
TEST(headers_are_those_of_numpy)
{
	struct npk_shape wide = {.ndim = 32};

	for (int i = 0; i < 32; i++)
		wide.dim[i] = 1;
	check_text("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", 128, NPK_F64, (struct npk_shape){0});
	check_text(
		"{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }", 128, NPK_I32, (struct npk_shape){1, {3}});
	check_text(
		"{'descr': '|b1', 'fortran_order': False, 'shape': (0,), }", 128, NPK_BOOL, (struct npk_shape){1, {0}});
	check_text("{'descr': '<c16', 'fortran_order': False, 'shape': (5, 0, 7), }", 128, NPK_C128,
		(struct npk_shape){3, {5, 0, 7}});
	check_text("{'descr': '<f2', 'fortran_order': False, 'shape': (123456789, 2), }", 128, NPK_F16,
		(struct npk_shape){2, {123456789, 2}});
	check_text("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "
		   "1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), }",
		192, NPK_U8, wide);
}

static unsigned files;

static int same_header(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	struct mk_bytes b;
	struct npk_npy npy;
	struct npk_err err;
	size_t n;

	(void)st;
	if (type != FTW_F || strcmp(path + strlen(path) - 4, ".npy") != 0 || strstr(path + ftw->base, ".npkd"))
		return 0;
	b = mk_read(".", path);
	T_CHECKF(npk_npy_parse(b.p, b.len, &npy, NULL, &err) == 0, "%s: %s", path, err.msg);
	T_CHECKF(npy.header_len + npy.data_len == b.len, "%s", path);
	n = npk_npy_header(header, npy.dtype, &npy.shape, 64);
	T_CHECKF(n == npy.header_len && memcmp(header, b.p, n) == 0, "%s", path);
	files++;
	mk_free(&b);
	return 0;
}

TEST(every_golden_header_is_made_again)
{
	T_CHECK(nftw("tests/golden", same_header, 16, FTW_PHYS) == 0 && files > 200);
}

/* The room for growth and the padding as numpy/lib/_format_impl.py computes them, restated. */
static size_t numpy_length(const struct npk_shape *shape, unsigned dtype, size_t align)
{
	char text[4096], digits[24];
	size_t n = (size_t)snprintf(
		text, sizeof(text), "{'descr': '%s', 'fortran_order': False, 'shape': (), }", npk_dtype_descr(dtype));

	for (unsigned i = 0; i < shape->ndim; i++)
		n += (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, shape->dim[i]) + (i ? 2 : 0);
	n += shape->ndim == 1;
	if (shape->ndim)
		n += 21 - (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, shape->dim[0]);
	n += 10 + 1;
	return n + (align - n % align);
}

static struct npk_shape random_shape(uint64_t *rnd)
{
	struct npk_shape s = {.ndim = (unsigned)(t_rand(rnd) % 33)};
	uint64_t left = INT64_MAX / 16;

	for (unsigned i = 0; i < s.ndim; i++) {
		uint64_t bits = t_rand(rnd) % 60;

		s.dim[i] = t_rand(rnd) % 8 ? t_rand(rnd) >> (63 - bits) : t_rand(rnd) % 3;
		if (s.dim[i] > left)
			s.dim[i] = left;
		left /= s.dim[i] ? s.dim[i] : 1;
	}
	return s;
}

TEST(parsing_gives_back_what_was_written)
{
	uint64_t rnd = t_seed();

	for (int i = 0; i < 50000; i++) {
		uint64_t seed = rnd, bytes = 1;
		struct npk_shape shape = random_shape(&rnd);
		unsigned dtype = (unsigned)(t_rand(&rnd) % NPK_DTYPE_COUNT);
		size_t align = (size_t)64 << t_rand(&rnd) % 7, n = npk_npy_header(header, dtype, &shape, align);
		struct npk_npy npy;

		T_CHECKF(n == numpy_length(&shape, dtype, align) && n <= NPK_NPY_HEADER_MAX && n % align == 0,
			"seed %#" PRIx64 ": %zu bytes", seed, n);
		T_CHECKF(npk_npy_parse(header, n, &npy, NULL, NULL) == 0, "seed %#" PRIx64, seed);
		T_CHECKF(npy.dtype == dtype && npy.header_len == n && !npy.fortran_order && !npy.big_endian &&
				 npy.shape.ndim == shape.ndim,
			"seed %#" PRIx64, seed);
		for (unsigned d = 0; d < shape.ndim; d++) {
			T_CHECKF(npy.shape.dim[d] == shape.dim[d], "seed %#" PRIx64, seed);
			bytes *= shape.dim[d];
		}
		T_CHECKF(npy.data_len == bytes * npk_dtype_size(dtype), "seed %#" PRIx64, seed);
	}
}

TEST(the_longest_header_fits)
{
	struct npk_shape s = {.ndim = 32};

	for (int i = 0; i < 32; i++)
		s.dim[i] = UINT64_MAX;
	T_CHECK(npk_npy_header(header, NPK_C128, &s, 64) <= 1024);
	T_CHECK(npk_npy_header(header, NPK_C128, &s, 4096) == 4096 && header[4095] == '\n');
}

/* --- parsing ----------------------------------------------------------------------------------------------------------- */

/* A header of the given version around a dict, in a buffer of exact size. */
static uint8_t *wrap(int major, const char *dict, size_t *len)
{
	size_t lead = major == 1 ? 2 : 4, n = strlen(dict);
	uint8_t *b = malloc(8 + lead + n);

	memcpy(b, "\x93NUMPY", 6);
	b[6] = (uint8_t)major;
	b[7] = 0;
	for (size_t i = 0; i < lead; i++)
		b[8 + i] = (uint8_t)(n >> 8 * i);
	memcpy(b + 8 + lead, dict, n);
	*len = 8 + lead + n;
	return b;
}

static int parse(int major, const char *dict, struct npk_npy *out, struct npk_err *err)
{
	size_t len;
	uint8_t *b = wrap(major, dict, &len);
	int rc = npk_npy_parse(b, len, out, NULL, err);

	T_CHECK(rc != 0 || out->header_len == len);
	free(b);
	return rc;
}

#define DICT(DESCR, ORDER, SHAPE) "{'descr': " DESCR ", 'fortran_order': " ORDER ", 'shape': " SHAPE ", }"

TEST(spellings_that_numpy_reads)
{
	static const struct {
		const char *dict;
		unsigned dtype, ndim;
		bool fortran, big;
		uint64_t bytes;
	} good[] = {
		{DICT("'<f4'", "False", "(3, 4)"), NPK_F32, 2, false, false, 48},
		{DICT("'>f4'", "True", "(3, 4)"), NPK_F32, 2, true, true, 48},
		{DICT("'|u1'", "False", "()"), NPK_U8, 0, false, false, 1},
		{DICT("'<u1'", "False", "(2,)"), NPK_U8, 1, false, false, 2},
		{DICT("'>i1'", "False", "(2,)"), NPK_I8, 1, false, false, 2}, /* one byte has no order */
		{DICT("'=i8'", "False", "(2,)"), NPK_I64, 1, false, false, 16},
		{"{\"shape\":(7,),\"descr\":\"<c8\",\"fortran_order\":False}  \n", NPK_C64, 1, false, false, 56},
		{" { 'shape' : ( 2 , 0 , 5 ) , 'fortran_order' : True , 'descr' : '|b1' } ", NPK_BOOL, 3, true, false,
			0},
		{DICT("'<f8'", "False", "(0, 1152921504606846975)"), NPK_F64, 2, false, false, 0},
		{DICT("'|i1'", "False", "(9223372036854775807,)"), NPK_I8, 1, false, false, INT64_MAX},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		for (int major = 1; major <= 3; major++) {
			struct npk_npy npy;
			struct npk_err err = {0};

			T_CHECKF(parse(major, good[i].dict, &npy, &err) == 0, "%s: %s", good[i].dict, err.msg);
			T_CHECKF(npy.dtype == good[i].dtype && npy.shape.ndim == good[i].ndim &&
					 npy.fortran_order == good[i].fortran && npy.big_endian == good[i].big &&
					 npy.data_len == good[i].bytes,
				"%s: dtype %u, %u axes, %" PRIu64 " bytes", good[i].dict, npy.dtype, npy.shape.ndim,
				npy.data_len);
		}
}

TEST(what_cannot_be_stored_is_refused)
{
	static const char *const bad[] = {
		DICT("'|O'", "False", "(3,)"),
		DICT("'<U5'", "False", "(3,)"),
		DICT("'|S5'", "False", "(3,)"),
		DICT("'<M8[ns]'", "False", "(3,)"),
		DICT("'<f16'", "False", "(3,)"),
		DICT("'|V4'", "False", "(3,)"),
		DICT("'f4'", "False", "(3,)"),
		DICT("'float32'", "False", "(3,)"),
		DICT("'|f4'", "False", "(3,)"),
		DICT("'<b1x'", "False", "(3,)"),
		DICT("'<'", "False", "(3,)"),
		DICT("''", "False", "(3,)"),
		DICT("\"\"", "False", "(3,)"),
		DICT("'a very long dtype string'", "False", "(3,)"),
		DICT("'<f\\x34'", "False", "(3,)"),
		DICT("[('a', '<f4')]", "False", "(3,)"),
		DICT("None", "False", "(3,)"),
		DICT("'<f4'", "0", "(3,)"),
		DICT("'<f4'", "false", "(3,)"),
		DICT("'<f4'", "Falsey", "(3,)"),
		DICT("'<f4'", "False", "(3)"),
		DICT("'<f4'", "False", "3"),
		DICT("'<f4'", "False", "[3,]"),
		DICT("'<f4'", "False", "(,)"),
		DICT("'<f4'", "False", "(3,,4)"),
		DICT("'<f4'", "False", "(3 4)"),
		DICT("'<f4'", "False", "(-3,)"),
		DICT("'<f4'", "False", "(3.0,)"),
		DICT("'<f4'", "False", "('3',)"),
		DICT("'<f4'", "False", "(3,"),
		DICT("'<f4'", "False", "(18446744073709551616,)"),
		DICT("'|i1'", "False", "(9223372036854775808,)"),
		DICT("'<f4'", "False", "(2305843009213693952,)"),
		DICT("'<f4'", "False", "(4294967296, 0, 4294967296)"),
		DICT("'<f4'", "False",
			"(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "
			"1, 1)"),
		"{'descr': '<f4', 'fortran_order': False, }",
		"{'descr': '<f4', 'shape': (3,), }",
		"{'fortran_order': False, 'shape': (3,), }",
		"{}",
		" \n",
		"[]",
		"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'extra': 1, }",
		"{'descr': '<f4' 'fortran_order': False, 'shape': (3,), }",
		"{'descr' '<f4', 'fortran_order': False, 'shape': (3,), }",
		"{descr: '<f4', 'fortran_order': False, 'shape': (3,), }",
		"{'descr': '<f4\", 'fortran_order': False, 'shape': (3,), }",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), ",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), } x",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct npk_npy npy = {.data_len = 99};
		struct npk_err err = {0};

		T_CHECKF(parse(1, bad[i], &npy, &err) == -EINVAL && npy.data_len == 99, "%s", bad[i]);
		T_CHECKF(err.code == EINVAL && strncmp(err.msg, ".npy header: ", 13) == 0, "%s: %s", bad[i], err.msg);
		T_CHECK(parse(1, bad[i], &npy, NULL) == -EINVAL);
	}
}

TEST(a_header_cut_anywhere_says_how_much_it_needs)
{
	static const char dict[] = DICT("'<f4'", "False", "(3, 4)") "             \n";

	for (int major = 1; major <= 3; major++) {
		size_t len, first = 12;
		uint8_t *b = wrap(major, dict, &len);

		for (size_t n = 0; n < len; n++) {
			uint8_t *part = malloc(n + !n);
			struct npk_npy npy;
			size_t need = 0;

			memcpy(part, b, n);
			T_CHECKF(npk_npy_parse(part, n, &npy, &need, NULL) == -EAGAIN, "version %d, %zu bytes", major,
				n);
			T_CHECKF(need == (n < first ? first : len), "version %d, %zu bytes: %zu", major, n, need);
			T_CHECK(npk_npy_parse(part, n, &npy, NULL, NULL) == -EAGAIN);
			free(part);
		}
		free(b);
	}
}

TEST(other_files_are_refused_as_soon_as_they_differ)
{
	static const char *const heads[] = {"\x94", "\x93NUMPZ", "NUMPY", "PK\x03\x04", "\x93NUMPY\x04\x00",
		"\x93NUMPY\x01\x01", "\x93NUMPY\x02\xFF"};
	struct npk_npy npy;

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		size_t n = i == 4 || i >= 4 ? 8 : strlen(heads[i]);

		T_CHECKF(npk_npy_parse(heads[i], n, &npy, NULL, NULL) == -EINVAL, "case %zu", i);
	}
	T_CHECK(npk_npy_parse("\x93NUMPY\x00\x00", 8, &npy, NULL, NULL) == -EINVAL);
	/* A header length that would have us read 4 GiB. */
	T_CHECK(npk_npy_parse("\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF", 12, &npy, NULL, NULL) == -EINVAL);
}

TEST(dtype_names)
{
	for (unsigned t = 0; t < NPK_DTYPE_COUNT; t++) {
		const char *const forms[] = {npk_dtype_name(t), npk_dtype_descr(t), npk_dtype_descr(t) + 1};
		unsigned got;

		for (int i = 0; i < 3; i++)
			T_CHECKF(npk_dtype_parse(forms[i], &got, NULL) == 0 && got == t, "%s", forms[i]);
		T_CHECK(npk_dtype_parse(npk_dtype_title(t), &got, NULL) == -EINVAL);
		T_CHECK(npk_dtype_size(t) == (size_t)strtoul(npk_dtype_descr(t) + 2, NULL, 10));
	}
	T_CHECK(!npk_dtype_name(14) && !npk_dtype_descr(200) && !npk_dtype_title(14) && npk_dtype_size(14) == 0);
}

T_MAIN()
