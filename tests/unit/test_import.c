/* Damaged files of other formats: cut off at every byte, and with every byte changed. Readers say what is wrong or deliver what
 * they announced; what a checksum covers is right or refused. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <numpack.h>
#include <sys/mman.h>
#include <unistd.h>

static int file_of(const void *bytes, size_t len)
{
	int fd = memfd_create("damaged", MFD_CLOEXEC);

	T_CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len && lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

/* Type, shape and elements of all arrays of a file, one after another; names only with `named`. */
static int take_all(enum npk_format format, const void *bytes, size_t len, struct mk_bytes *out, struct npk_err *err)
{
	const struct npk_source_how how = {
		.format = format, .file = "the file", .dtype = format == NPK_FORMAT_RAW ? NPK_I32 : -1};
	int fd = file_of(bytes, len), rc;
	struct npk_source *src;
	struct npk_source_array a;
	const void *p;
	size_t n;

	out->len = 0;
	T_CHECK(npk_source_open(&src, fd, &how, err) == 0);
	while ((rc = npk_source_next(src, &a, err)) == 1) {
		uint64_t announced = npk_dtype_size(a.dtype), got = 0;

		mk_le(out, a.dtype, 4);
		for (unsigned i = 0; i < a.shape.ndim; i++) {
			mk_le(out, a.shape.dim[i], 8);
			announced *= a.shape.dim[i];
		}
		while ((rc = npk_source_read(src, &p, &n, err)) == 0 && n > 0) {
			mk_put(out, p, n);
			got += n;
			T_CHECK(n <= (size_t)1 << 20 && (!a.rows_known || got <= announced));
		}
		if (rc != 0)
			break;
		T_CHECK(!a.rows_known || got == announced);
	}
	npk_source_close(src);
	close(fd);
	return rc;
}

/* A store in one of the formats. */
static struct mk_bytes export(struct npk_store *s, enum npk_format format, int level)
{
	struct mk_bytes out = {0};
	struct npk_array **list;
	struct npk_tensors *t = NULL;
	struct npk_npz *z = NULL;
	uint8_t block[4096];
	ssize_t got;
	size_t n;
	int fd = memfd_create("whole", MFD_CLOEXEC);

	T_CHECK(fd >= 0 && npk_store_list(s, &list, &n, NULL) == 0);
	if (format == NPK_FORMAT_TENSORS) {
		uint8_t *all;

		T_CHECK(npk_tensors_open(&t, s, NULL) == 0);
		all = malloc(npk_tensors_size(t));
		T_CHECK(all && npk_tensors_read(t, 0, all, npk_tensors_size(t), NULL) == 0);
		mk_put(&out, all, npk_tensors_size(t));
		free(all);
		npk_tensors_close(t);
	} else {
		T_CHECK(npk_npz_open(&z, fd, level, NULL) == 0);
		for (size_t i = 0; i < n; i++) {
			struct npk_gen *g = NULL;
			struct npk_view *v = NULL;

			T_CHECK(npk_gen_get(&g, list[i], NULL) == 0 && npk_view_open(&v, g, NULL, NULL) == 0);
			T_CHECK(npk_npz_add(z, npk_array_name(list[i], NULL), v, NULL) == 0);
			npk_view_close(v);
			npk_gen_put(g);
		}
		T_CHECK(npk_npz_finish(z, NULL) == 0 && lseek(fd, 0, SEEK_SET) == 0);
		npk_npz_close(z);
		while ((got = read(fd, block, sizeof(block))) > 0)
			mk_put(&out, block, (size_t)got);
	}
	npk_store_list_free(list, n);
	close(fd);
	return out;
}

static struct npk_store *two_arrays(void)
{
	static int32_t numbers[60];
	static double reals[21];
	const struct mk_array a[] = {{.name = "a", .dtype = NPK_I32, .ndim = 2, .dim = {12, 5}, .data = numbers},
		{.name = "b", .dtype = NPK_F64, .ndim = 1, .dim = {21}, .data = reals}};
	const char *dir = mk_dir();
	struct npk_store *s;

	for (int i = 0; i < 60; i++)
		numbers[i] = i * i;
	for (int i = 0; i < 21; i++)
		reals[i] = i / 3.0;
	mk_store(dir, a, 2);
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
	return s;
}

static struct mk_bytes npy_file(bool fortran)
{
	static const char text[] = "{'descr': '<i4', 'fortran_order': %s, 'shape': (4, 6), }";
	struct mk_bytes out = {0};
	char header[118];
	int n = snprintf(header, sizeof(header), text, fortran ? "True" : "False");

	memset(header + n, ' ', sizeof(header) - (size_t)n);
	header[sizeof(header) - 1] = '\n';
	mk_put(&out, "\x93NUMPY\1\0", 8);
	mk_le(&out, sizeof(header), 2);
	mk_put(&out, header, sizeof(header));
	for (uint64_t i = 0; i < 24; i++)
		mk_le(&out, i * 7, 4);
	return out;
}

struct sample {
	const char *what;
	enum npk_format format;
	struct mk_bytes whole, arrays; /* arrays: what take_all() makes of it */
	bool checked;                  /* a CRC covers the arrays */
};

#define SAMPLES 5

static void make_samples(struct sample s[SAMPLES])
{
	struct npk_store *store = two_arrays();

	s[0] = (struct sample){"npy", NPK_FORMAT_NPY, npy_file(false), {0}, false};
	s[1] = (struct sample){"npy in Fortran's order", NPK_FORMAT_NPY, npy_file(true), {0}, false};
	s[2] = (struct sample){"npz, stored", NPK_FORMAT_NPZ, export(store, NPK_FORMAT_NPZ, 0), {0}, true};
	s[3] = (struct sample){"npz, deflated", NPK_FORMAT_NPZ, export(store, NPK_FORMAT_NPZ, 6), {0}, true};
	s[4] = (struct sample){"safetensors", NPK_FORMAT_TENSORS, export(store, NPK_FORMAT_TENSORS, 0), {0}, false};
	npk_store_close(store);
	for (int i = 0; i < SAMPLES; i++) {
		struct npk_err err = {0};

		T_CHECKF(take_all(s[i].format, s[i].whole.p, s[i].whole.len, &s[i].arrays, &err) == 0, "%s: %s",
			s[i].what, err.msg);
		T_CHECK(s[i].arrays.len > 0);
	}
}

static void free_samples(struct sample s[SAMPLES])
{
	for (int i = 0; i < SAMPLES; i++) {
		mk_free(&s[i].whole);
		mk_free(&s[i].arrays);
	}
}

TEST(a_file_that_was_cut_off_anywhere_is_refused)
{
	struct sample s[SAMPLES];
	struct mk_bytes got = {0};

	make_samples(s);
	for (int i = 0; i < SAMPLES; i++)
		for (size_t len = 1; len < s[i].whole.len; len++) {
			struct npk_err err = {0};
			int rc = take_all(s[i].format, s[i].whole.p, len, &got, &err);

			T_CHECKF(rc == -EINVAL && strncmp(err.msg, "the file: ", 10) == 0,
				"%s, %zu of %zu bytes: %d %s", s[i].what, len, s[i].whole.len, rc, err.msg);
		}
	mk_free(&got);
	free_samples(s);
}

/* Names have no checksum, so another name is no error. */
TEST(a_changed_byte_is_refused_or_leaves_whole_arrays)
{
	static const uint8_t flips[] = {1, 0x80, 0xFF};
	struct sample s[SAMPLES];
	struct mk_bytes got = {0};

	make_samples(s);
	for (int i = 0; i < SAMPLES; i++)
		for (size_t at = 0; at < 3 * s[i].whole.len; at++) {
			uint8_t *p = s[i].whole.p + at / 3, was = *p;
			struct npk_err err = {0};
			int rc;

			*p ^= flips[at % 3];
			rc = take_all(s[i].format, s[i].whole.p, s[i].whole.len, &got, &err);
			T_CHECKF(rc == 0 || (rc == -EINVAL && strncmp(err.msg, "the file: ", 10) == 0),
				"%s, byte %zu, %02x: %d %s", s[i].what, at / 3, flips[at % 3], rc, err.msg);
			T_CHECKF(rc != 0 || !s[i].checked ||
					 (got.len == s[i].arrays.len && memcmp(got.p, s[i].arrays.p, got.len) == 0),
				"%s, byte %zu, %02x: other arrays without an error", s[i].what, at / 3, flips[at % 3]);
			*p = was;
		}
	mk_free(&got);
	free_samples(s);
}

T_MAIN()
