/* fuzz_npy.c - any bytes as the front of a .npy file. What is accepted has a size without overflow, asks for no more
 * bytes than it needs, and keeps its type and shape through the header that np.save() would write. */
#include "fuzz.h"

#include <errno.h>

static void check_size(const struct npk_npy *npy)
{
	unsigned __int128 bytes = npk_dtype_size(npy->dtype);

	CHECK(npy->dtype < NPK_DTYPE_COUNT && npy->shape.ndim <= NPK_MAX_NDIM);
	for (unsigned i = 0; i < npy->shape.ndim; i++) {
		bytes *= npy->shape.dim[i];
		if (npy->shape.dim[i] == 0)
			break;
		CHECK(bytes <= INT64_MAX);
	}
	for (unsigned i = 0; i < npy->shape.ndim; i++)
		if (npy->shape.dim[i] == 0)
			bytes = 0;
	CHECK(npy->data_len == bytes);
}

static void check_round_trip(const struct npk_npy *npy, size_t align)
{
	char header[NPK_NPY_HEADER_MAX];
	size_t len = npk_npy_header(header, npy->dtype, &npy->shape, align), need = 0;
	struct npk_npy again;
	struct npk_err err;

	CHECK(len <= sizeof(header) && len % align == 0 && header[len - 1] == '\n');
	CHECK(npk_npy_parse(header, len, &again, &need, &err) == 0);
	CHECK(again.header_len == len && again.dtype == npy->dtype && again.data_len == npy->data_len);
	CHECK(!again.fortran_order && !again.big_endian && again.shape.ndim == npy->shape.ndim);
	for (unsigned i = 0; i < npy->shape.ndim; i++)
		CHECK(again.shape.dim[i] == npy->shape.dim[i]);
	CHECK(npk_npy_parse(header, len - 1, &again, &need, &err) == -EAGAIN && need == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t need = 0;
	struct npk_npy npy;
	struct npk_err err;
	int rc = npk_npy_parse(data, size, &npy, &need, &err);

	if (rc != 0) {
		CHECK(rc == -EINVAL || (rc == -EAGAIN && need > size && need < 70000));
		check_err(rc, &err);
		return 0;
	}
	CHECK(npy.header_len >= 10 && npy.header_len <= size);
	check_size(&npy);
	check_round_trip(&npy, (size_t)64 << (size % 7));
	return 0;
}
