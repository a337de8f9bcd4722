/* Memory does not grow with an array: a sparse file of 8 GB, its bitmap with few deletions, and a store of many arrays. */
#include "../t.h"
#include "mkstore.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <numpack.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define ROWS ((uint64_t)1000000000)

/* Bytes of the heap in use. A sanitizer's allocator does not tell: only the reads are checked there. */
static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return SANITIZED ? 0 : m.uordblks + m.hblkhd;
}

static void *put_le(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
	return p + 8;
}

static int create(const char *dir, const char *file, uint64_t len)
{
	char path[4200];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	if (fd >= 0 && ftruncate(fd, (off_t)len) != 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* 10^9 rows of int64, all holes but the rows that a test writes. */
static int big_store(const char *dir)
{
	const struct mk_array a = {.name = "big", .dtype = NPK_I64, .ndim = 1, .dim = {ROWS}};
	int fd;

	mk_metadata(dir, &a, 1);
	fd = create(dir, "data_big.npkd", ROWS * 8);
	if (fd < 0)
		skip(); /* no sparse files of this size here */
	return fd;
}

static void write_row(int fd, uint64_t row, int64_t value)
{
	T_CHECK(pwrite(fd, &value, 8, (off_t)(row * 8)) == 8);
}

static struct npk_gen *open_big(const char *dir, struct npk_store **s)
{
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	struct npk_err err;

	T_CHECKF(npk_store_open(s, dir, NPK_RDONLY, &err) == 0, "%s", err.msg);
	T_CHECK(npk_array_get(&a, *s, "big", NULL) == 0);
	T_CHECKF(npk_gen_get(&g, a, &err) == 0 && npk_gen_map(g, &err) == 0, "%s", err.msg);
	npk_array_put(a);
	return g;
}

TEST(an_array_of_8_gigabytes_costs_a_few_kilobytes)
{
	const char *dir = mk_dir();
	int fd = big_store(dir);
	size_t before = heap();
	struct npk_store *s;
	struct npk_view *v;
	struct npk_gen *g;
	int64_t got[3], rows[] = {-1, 0, 123456789};

	write_row(fd, ROWS - 1, 77);
	write_row(fd, 123456789, 78);
	g = open_big(dir, &s);
	T_CHECK(npk_view_open(&v, g, "::-1", NULL) == 0);
	T_CHECK(npk_gen_take(g, rows, 3, got, NULL) == 0 && got[0] == 77 && got[1] == 0 && got[2] == 78);
	T_CHECK(npk_view_read(v, 0, got, 8, NULL) == 0 && got[0] == 77);
	T_CHECK(npk_view_read(v, 8 * (ROWS - 1 - 123456789), got, 8, NULL) == 0 && got[0] == 78);
	T_CHECKF(heap() - before < 64 * 1024, "%zu bytes", heap() - before);
	npk_view_close(v);
	npk_gen_put(g);
	npk_store_close(s);
	T_CHECKF(SANITIZED || heap() - before < 4096, "%zu bytes are left", heap() - before);
	close(fd);
}

/* 125 MB of bitmap, three deleted rows: only their chunks are kept. */
TEST(a_bitmap_costs_what_its_deletions_cost)
{
	const char *dir = mk_dir();
	int fd = big_store(dir), bits;
	const uint64_t dead[] = {5, 500000000, ROWS - 1}, words = (ROWS + 63) / 64;
	static uint8_t ones[1 << 20];
	size_t before = heap(), used;
	struct npk_store *s;
	struct npk_gen *g;
	struct rusage ru;
	uint8_t head[16];
	int64_t got[2], rows[] = {-1, 499999999};

	bits = create(dir, "deleted_big.npkb", 0);
	put_le(put_le(head, ROWS), 3);
	T_CHECK(write(bits, head, 16) == 16);
	memset(ones, 0xFF, sizeof(ones));
	for (uint64_t left = words * 8; left > 0;) {
		size_t n = left < sizeof(ones) ? (size_t)left : sizeof(ones);

		if (write(bits, ones, n) != (ssize_t)n)
			skip(); /* no room for it */
		left -= n;
	}
	for (int i = 0; i < 3; i++)
		T_CHECK(pwrite(bits, &(uint8_t){(uint8_t) ~(1u << dead[i] % 8)}, 1, (off_t)(16 + dead[i] / 8)) == 1);
	write_row(fd, ROWS - 2, 99);
	write_row(fd, 500000001, 88);

	g = open_big(dir, &s);
	used = heap() - before;
	T_CHECK(npk_gen_info(g)->rows == ROWS - 3);
	T_CHECK(npk_gen_take(g, rows, 2, got, NULL) == 0 && got[0] == 99);
	T_CHECKF(npk_gen_slot(g, 499999999) == 500000001 && got[1] == 88, "%" PRIu64, npk_gen_slot(g, 499999999));
	/* 30,518 chunks: a pointer and a count for each, and three chunks of 4 KiB. */
	T_CHECKF(used < 1024 * 1024, "%zu bytes", used);
	T_CHECK(getrusage(RUSAGE_SELF, &ru) == 0);
	T_CHECKF(SANITIZED || ru.ru_maxrss < 64 * 1024, "%ld KiB at the most", ru.ru_maxrss);
	npk_gen_put(g);
	npk_store_close(s);
	close(fd);
	close(bits);
}

/* Lengths in the file that promise more than is there allocate nothing. */
TEST(huge_numbers_allocate_nothing)
{
	const char *dir = mk_dir();
	size_t before = heap();
	struct mk_bytes b = {0};
	struct npk_store *s;

	mk_header(&b, UINT64_MAX, UINT32_MAX);
	mk_le(&b, UINT32_MAX, 4);
	mk_file(dir, "metadata.npkm", b.p, b.len);
	mk_free(&b);
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
	T_CHECKF(heap() - before < 16 * 1024, "%zu bytes", heap() - before);
	npk_store_close(s);
}

TEST(ten_thousand_arrays_fit_in_a_few_megabytes)
{
	const char *dir = mk_dir();
	static char names[10000][24];
	struct mk_bytes b = {0};
	struct npk_array **list;
	struct npk_store *s;
	size_t before, n;

	mk_header(&b, 0, 10000);
	for (int i = 0; i < 10000; i++) {
		snprintf(names[i], sizeof(names[i]), "array_%d", i);
		mk_entry(&b, &(struct mk_array){.name = names[i], .dtype = NPK_F32, .ndim = 2, .dim = {1000, 64}});
	}
	mk_file(dir, "metadata.npkm", b.p, b.len);
	mk_free(&b);
	before = heap();
	T_CHECK(npk_store_open(&s, dir, NPK_RDONLY, NULL) == 0);
	T_CHECK(npk_store_list(s, &list, &n, NULL) == 0 && n == 10000);
	T_CHECKF(heap() - before < 10000 * 1200, "%zu bytes", heap() - before);
	npk_store_list_free(list, n);
	npk_store_close(s);
}

T_MAIN()
