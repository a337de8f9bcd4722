/* dtype.c - the element types of the format: code, size, names. */
#include "numpack.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name, *title, *descr;
	size_t size;
} types[NPK_DTYPE_COUNT] = {
	[NPK_BOOL] = {"bool", "Bool", "|b1", 1},
	[NPK_U8] = {"uint8", "Uint8", "|u1", 1},
	[NPK_U16] = {"uint16", "Uint16", "<u2", 2},
	[NPK_U32] = {"uint32", "Uint32", "<u4", 4},
	[NPK_U64] = {"uint64", "Uint64", "<u8", 8},
	[NPK_I8] = {"int8", "Int8", "|i1", 1},
	[NPK_I16] = {"int16", "Int16", "<i2", 2},
	[NPK_I32] = {"int32", "Int32", "<i4", 4},
	[NPK_I64] = {"int64", "Int64", "<i8", 8},
	[NPK_F16] = {"float16", "Float16", "<f2", 2},
	[NPK_F32] = {"float32", "Float32", "<f4", 4},
	[NPK_F64] = {"float64", "Float64", "<f8", 8},
	[NPK_C64] = {"complex64", "Complex64", "<c8", 8},
	[NPK_C128] = {"complex128", "Complex128", "<c16", 16},
};

size_t npk_dtype_size(unsigned dtype)
{
	return dtype < NPK_DTYPE_COUNT ? types[dtype].size : 0;
}

const char *npk_dtype_name(unsigned dtype)
{
	return dtype < NPK_DTYPE_COUNT ? types[dtype].name : NULL;
}

const char *npk_dtype_title(unsigned dtype)
{
	return dtype < NPK_DTYPE_COUNT ? types[dtype].title : NULL;
}

const char *npk_dtype_descr(unsigned dtype)
{
	return dtype < NPK_DTYPE_COUNT ? types[dtype].descr : NULL;
}

int npk_dtype_parse(const char *text, unsigned *dtype, struct npk_err *err)
{
	const char *code = text + (*text == '<' || *text == '|' || *text == '=');

	for (unsigned i = 0; i < NPK_DTYPE_COUNT; i++)
		if (strcmp(text, types[i].name) == 0 || strcmp(code, types[i].descr + 1) == 0) {
			*dtype = i;
			return 0;
		}
	return npk_fail(err, EINVAL, "dtype '%.40s' is not one that NumPack stores", text);
}
