/* rowdata.c - see rowdata.h. */
#include "rowdata.h"
#include "convert.h"

#include <errno.h>
#include <stdlib.h>

int npkfs_rows_fit(const struct npk_gen_info *array, const struct npk_npy *npy, struct npk_err *err)
{
	bool same = npy->shape.ndim == array->shape.ndim;

	if (npy->dtype != array->dtype)
		return npk_fail(err, EINVAL, "dtype %s, the array has %s", npk_dtype_name(npy->dtype),
			npk_dtype_name(array->dtype));
	for (unsigned i = 1; i < array->shape.ndim && same; i++)
		same = npy->shape.dim[i] == array->shape.dim[i];
	return same && npy->shape.ndim > 0 ? 0
					   : npk_fail(err, EINVAL, "these rows have another shape than the array's");
}

int npkfs_rows_plain(const struct npk_npy *npy, const char *data, const char **rows, char **copy, struct npk_err *err)
{
	*copy = NULL;
	*rows = data;
	if (!npy->fortran_order && !npy->big_endian)
		return 0;
	*copy = malloc(npy->data_len + 1);
	if (*copy == NULL)
		return npk_fail(err, ENOMEM, "no memory to convert");
	npkfs_convert_memory(data, npy, *copy);
	*rows = *copy;
	return 0;
}
