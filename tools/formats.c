/* formats.c - see formats.h. */
#include "formats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct npkt_format formats[] = {
	{"npy", " .npy", NPK_FORMAT_NPY, NPKT_HAS_ONE},
	{"npz", " .npz", NPK_FORMAT_NPZ, 0},
	{"csv", " .csv .tsv", NPK_FORMAT_CSV, NPKT_HAS_ONE | NPKT_HAS_DTYPE | NPKT_HAS_LINES},
	{"txt", " .txt .dat", NPK_FORMAT_CSV, NPKT_HAS_ONE | NPKT_HAS_DTYPE | NPKT_HAS_LINES},
	{"safetensors", " .safetensors", NPK_FORMAT_TENSORS, 0},
	{"raw", " .raw .bin", NPK_FORMAT_RAW, NPKT_HAS_ONE | NPKT_HAS_DTYPE},
	{"parquet", " .parquet .pq", NPK_FORMAT_COUNT, NPKT_BY_PYTHON},
	{"feather", " .feather .arrow", NPK_FORMAT_COUNT, NPKT_BY_PYTHON},
	{"hdf5", " .h5 .hdf5", NPK_FORMAT_COUNT, NPKT_BY_PYTHON},
	{"zarr", " .zarr", NPK_FORMAT_COUNT, NPKT_BY_PYTHON},
	{"pytorch", " .pt .pth", NPK_FORMAT_COUNT, NPKT_BY_PYTHON},
};

#define NFORMATS (sizeof(formats) / sizeof(*formats))

static bool has_suffix(const char *file, const char *suffixes)
{
	const char *p = suffixes;

	while (*p++ == ' ') {
		size_t n = strcspn(p, " "), len = strlen(file);

		if (len > n && strncasecmp(file + len - n, p, n) == 0)
			return true;
		p += n;
	}
	return false;
}

const struct npkt_format *npkt_format(const char *name, const char *file)
{
	size_t len = strlen(file);

	for (size_t i = 0; i < NFORMATS; i++)
		if (name ? strcmp(name, formats[i].name) == 0 : has_suffix(file, formats[i].suffixes))
			return &formats[i];
	if (name)
		npkt_complain("--format '%s' is none of npy, npz, csv, txt, safetensors, raw, parquet, feather, hdf5, "
			      "zarr, pytorch",
			name);
	else if (len > 4 && strcmp(file + len - 4, ".npk") == 0)
		npkt_complain("%s is a store, no file of another format", file);
	else
		npkt_complain("the name '%s' does not tell its format: say --format", file);
	return NULL;
}

static int run_python(char **argv)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int npkt_by_python(
	const char *verb, const struct npkt_format *f, const char *store, const char *file, char **array, int n)
{
	char **argv = calloc((size_t)n + 9, sizeof(*argv));
	char *look[] = {"python3", "-c",
		"import importlib.util as u, sys; sys.exit(not (u.find_spec('numpackfs') and "
		"u.find_spec('numpackfs.io')))",
		NULL};
	char *fixed[] = {"python3", "-m", "numpackfs.io", (char *)verb, "--format", (char *)f->name, (char *)store,
		(char *)file};
	int status;

	if (!argv) {
		npkt_complain("no memory");
		return NPKT_FAILED;
	}
	if (run_python(look) != 0) {
		npkt_complain("%s is converted by the Python package numpackfs, which python3 does not find; install "
			      "it with pip",
			f->name);
		status = NPKT_FAILED;
	} else {
		memcpy(argv, fixed, sizeof(fixed));
		memcpy(argv + 8, array, (size_t)n * sizeof(*array));
		status = run_python(argv);
	}
	free(argv);
	return status;
}
