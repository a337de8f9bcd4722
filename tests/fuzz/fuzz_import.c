/* fuzz_import.c - any bytes as a file of another format, which the first byte tells. What is announced is delivered in full or
 * refused, in pieces of whole elements. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int drain(struct npk_source *src, const struct npk_source_array *a, struct npk_err *err)
{
	uint64_t announced = npk_dtype_size(a->dtype), got = 0;
	const void *p;
	size_t n;
	int rc;

	CHECK(a->dtype < NPK_DTYPE_COUNT && a->shape.ndim <= NPK_MAX_NDIM);
	for (unsigned i = 0; i < a->shape.ndim; i++)
		announced *= a->shape.dim[i];
	while ((rc = npk_source_read(src, &p, &n, err)) == 0 && n > 0) {
		got += n;
		CHECK(n <= (size_t)1 << 20 && n % npk_dtype_size(a->dtype) == 0);
		CHECK(!a->rows_known || got <= announced);
	}
	CHECK(rc != 0 || !a->rows_known || got == announced);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct npk_source_how how = {.file = "f", .dtype = -1};
	struct npk_source_array a;
	struct npk_source *src;
	struct npk_err err;
	int fd, rc;

	if (size == 0)
		return 0;
	how.format = data[0] % NPK_FORMAT_COUNT;
	if (data[0] & 0x80 || how.format == NPK_FORMAT_RAW)
		how.dtype = data[0] / NPK_FORMAT_COUNT % NPK_DTYPE_COUNT;
	how.comment = data[0] & 0x40 ? '#' : 0;
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	CHECK(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)(size - 1) && lseek(fd, 0, SEEK_SET) == 0);
	CHECK(npk_source_open(&src, fd, &how, &err) == 0);
	while ((rc = npk_source_next(src, &a, &err)) == 1 && (rc = drain(src, &a, &err)) == 0)
		;
	if (rc != 0) {
		CHECK(rc == -EINVAL || rc == -EUCLEAN);
		check_err(rc, &err);
	}
	npk_source_close(src);
	close(fd);
	return 0;
}
