/* formats.h - the file formats that import and export know, and those that they leave to Python. */
#ifndef NPKT_FORMATS_H
#define NPKT_FORMATS_H

#include "tool.h"

enum {
	NPKT_HAS_ONE = 1,   /* one array without a name */
	NPKT_HAS_DTYPE = 2, /* somebody must say what the elements are, or may */
	NPKT_HAS_LINES = 4, /* text */
	NPKT_BY_PYTHON = 8  /* contrib's converters */
};

struct npkt_format {
	const char *name;
	const char *suffixes; /* of file names, each behind a blank */
	enum npk_format format;
	unsigned flags;
};

#define NPKT_ABOUT_FORMATS                                                                                             \
	"  npy          NumPy's own, one array\n"                                                                      \
	"  npz          several of them in a zip archive, stored or deflated\n"                                        \
	"  csv, txt     lines of numbers\n"                                                                            \
	"  safetensors  several arrays; not of complex numbers\n"                                                      \
	"  raw          nothing but elements, little-endian (also .bin)\n"                                             \
	"  parquet, feather, hdf5, zarr, pytorch: through numpackfs' Python package, if it is installed\n"             \
	"\n"

/* By name, or when that is NULL by the end of the file's name; complains and returns NULL when neither tells. */
const struct npkt_format *npkt_format(const char *name, const char *file);
/* Runs the Python package's converter; returns its exit status. */
int npkt_by_python(
	const char *verb, const struct npkt_format *f, const char *store, const char *file, char **array, int n);

#endif
