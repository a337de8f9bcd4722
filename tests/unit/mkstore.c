/* mkstore.c - see mkstore.h. */
#include "../tree.h"
#include "mkstore.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "mkstore: %s: %s\n", what, strerror(errno));
	abort();
}

/* --- bytes ------------------------------------------------------------------------------------------------------------ */

void mk_put(struct mk_bytes *b, const void *bytes, size_t len)
{
	if (b->len + len + 1 > b->cap) {
		b->cap = 2 * (b->len + len + 1);
		b->p = realloc(b->p, b->cap);
		if (!b->p)
			die("memory");
	}
	if (len)
		memcpy(b->p + b->len, bytes, len);
	b->len += len;
	b->p[b->len] = 0;
}

void mk_le(struct mk_bytes *b, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * i);

		mk_put(b, &byte, 1);
	}
}

void mk_text(struct mk_bytes *b, const char *text)
{
	mk_put(b, text, strlen(text));
}

void mk_free(struct mk_bytes *b)
{
	free(b->p);
	*b = (struct mk_bytes){0};
}

/* --- files ------------------------------------------------------------------------------------------------------------ */

static const char *path_of(char out[PATH_MAX], const char *dir, const char *file)
{
	if (snprintf(out, PATH_MAX, "%s/%s", dir, file) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		die(file);
	}
	return out;
}

void mk_file(const char *dir, const char *file, const void *bytes, size_t len)
{
	char tmp[PATH_MAX], path[PATH_MAX];
	int fd = open(path_of(tmp, dir, ".mkstore.tmp"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
	const uint8_t *p = bytes;

	if (fd < 0)
		die(tmp);
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, p + done, len - done);

		if (n <= 0)
			die(tmp);
		done += (size_t)n;
	}
	if (close(fd) != 0 || rename(tmp, path_of(path, dir, file)) != 0)
		die(path);
}

bool mk_exists(const char *dir, const char *file)
{
	char path[PATH_MAX];

	return access(path_of(path, dir, file), F_OK) == 0;
}

void mk_remove(const char *dir, const char *file)
{
	char path[PATH_MAX];

	if (unlink(path_of(path, dir, file)) != 0 && errno != ENOENT)
		die(path);
}

struct mk_bytes mk_read(const char *dir, const char *file)
{
	struct mk_bytes b = {0};
	char path[PATH_MAX], piece[65536];
	FILE *f = fopen(path_of(path, dir, file), "rb");
	size_t n;

	if (!f)
		die(path);
	mk_put(&b, "", 0);
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
		mk_put(&b, piece, n);
	fclose(f);
	return b;
}

/* --- the format ------------------------------------------------------------------------------------------------------- */

static const uint64_t item_bytes[14] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16};

uint64_t mk_rows(const struct mk_array *a)
{
	return a->ndim ? a->dim[0] : 1;
}

uint64_t mk_row_bytes(const struct mk_array *a)
{
	uint64_t n = a->dtype < 14 ? item_bytes[a->dtype] : 1;

	for (unsigned i = 1; i < a->ndim; i++)
		n *= a->dim[i];
	return n;
}

static void data_file(char out[PATH_MAX], const struct mk_array *a)
{
	snprintf(out, PATH_MAX,
		a->file           ? "%s"
		: a->segment_rows ? "data_%s.npkseg"
				  : "data_%s.npkd",
		a->file ? a->file : a->name);
}

void mk_entry(struct mk_bytes *b, const struct mk_array *a)
{
	char file[PATH_MAX];

	data_file(file, a);
	mk_le(b, strlen(a->name), 4);
	mk_text(b, a->name);
	mk_le(b, a->ndim, 4);
	for (unsigned i = 0; i < a->ndim; i++)
		mk_le(b, a->dim[i], 8);
	mk_le(b, strlen(file), 4);
	mk_text(b, file);
	mk_le(b, a->mtime_us, 8);
	mk_le(b, mk_rows(a) * mk_row_bytes(a), 8);
	mk_le(b, a->dtype, 1);
	mk_le(b, 0, 1); /* algorithm */
	mk_le(b, 0, 4); /* level */
	mk_le(b, 0, 8); /* original size */
	mk_le(b, 0, 8); /* compressed size */
	mk_le(b, 0, 1); /* no blocks */
}

void mk_header(struct mk_bytes *b, uint64_t total_bytes, uint32_t n)
{
	mk_text(b, "NPKB");
	mk_le(b, 1, 4);
	mk_le(b, total_bytes, 8);
	mk_le(b, n, 4);
}

void mk_metadata(const char *dir, const struct mk_array *a, size_t n)
{
	struct mk_bytes b = {0};
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++)
		total += mk_rows(&a[i]) * mk_row_bytes(&a[i]);
	mk_header(&b, total, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		mk_entry(&b, &a[i]);
	mk_file(dir, "metadata.npkm", b.p, b.len);
	mk_free(&b);
}

static void put_json_string(struct mk_bytes *b, const char *s)
{
	char hex[8];

	mk_text(b, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			mk_text(b, "\\");
		snprintf(hex, sizeof(hex), "\\u%04x", (unsigned char)*s);
		mk_put(b, (unsigned char)*s < 0x20 ? hex : s, (unsigned char)*s < 0x20 ? 6 : 1);
	}
	mk_text(b, "\"");
}

static void segments(const char *dir, const struct mk_array *a)
{
	uint64_t row_bytes = mk_row_bytes(a), rows = mk_rows(a);
	struct mk_bytes m = {0};
	char path[PATH_MAX], file[NAME_MAX + 64], line[80];
	const uint8_t *p = a->data;

	snprintf(file, sizeof(file), "data_%s_segments", a->name);
	if (mkdir(path_of(path, dir, file), 0755) != 0 && errno != EEXIST)
		die(path);
	mk_text(&m, "{\n  \"version\": 1,\n  \"segments\": [");
	for (uint64_t first = 0, i = 0; first < rows; first += a->segment_rows, i++) {
		uint64_t n = rows - first < a->segment_rows ? rows - first : a->segment_rows;

		snprintf(file, sizeof(file), "data_%s_segments/seg_%06u.npkd", a->name, (unsigned)i);
		mk_file(dir, file, p + first * row_bytes, n * row_bytes);
		mk_text(&m, i ? ",\n    {\n      \"file\": " : "\n    {\n      \"file\": ");
		put_json_string(&m, file);
		snprintf(line, sizeof(line), ",\n      \"rows\": %llu,\n      \"bytes\": %llu\n    }",
			(unsigned long long)n, (unsigned long long)(n * row_bytes));
		mk_text(&m, line);
	}
	mk_text(&m, rows ? "\n  ]\n}" : "]\n}");
	data_file(path, a);
	mk_file(dir, path, m.p, m.len);
	mk_free(&m);
}

void mk_data(const char *dir, const struct mk_array *a)
{
	char file[PATH_MAX];

	if (a->segment_rows) {
		segments(dir, a);
		return;
	}
	data_file(file, a);
	mk_file(dir, file, a->data, mk_rows(a) * mk_row_bytes(a));
}

void mk_bitmap(const char *dir, const struct mk_array *a)
{
	uint64_t rows = mk_rows(a), gone = 0;
	struct mk_bytes b = {0};
	char file[PATH_MAX];

	snprintf(file, sizeof(file), "deleted_%s.npkb", a->name);
	if (!a->deleted) {
		mk_remove(dir, file);
		return;
	}
	for (uint64_t r = 0; r < rows; r++)
		gone += a->deleted[r];
	if (!a->headerless) {
		mk_le(&b, rows, 8);
		mk_le(&b, gone, 8);
	}
	for (uint64_t first = 0; first < rows; first += 64) {
		uint64_t word = 0;

		for (uint64_t r = first; r < rows && r < first + 64; r++)
			word |= (uint64_t)!a->deleted[r] << (r - first);
		mk_le(&b, word, 8);
	}
	mk_file(dir, file, b.p, b.len);
	mk_free(&b);
}

void mk_store(const char *dir, const struct mk_array *a, size_t n)
{
	if (mkdir(dir, 0755) != 0 && errno != EEXIST)
		die(dir);
	for (size_t i = 0; i < n; i++) {
		mk_data(dir, &a[i]);
		if (a[i].ndim)
			mk_bitmap(dir, &a[i]);
	}
	mk_metadata(dir, a, n);
}

/* --- directories ------------------------------------------------------------------------------------------------------ */

#define DIRS_MAX 4096

static char *made[DIRS_MAX];
static size_t nmade;
static pid_t owner; /* children of a test must not clean up */

static void remove_all(void)
{
	for (size_t i = 0; i < nmade; i++) {
		if (getpid() == owner)
			t_remove_tree(made[i]);
		free(made[i]);
	}
}

const char *mk_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/npk-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (nmade == DIRS_MAX || !mkdtemp(path))
		die(path);
	if (nmade == 0) {
		owner = getpid();
		atexit(remove_all);
	}
	made[nmade] = strdup(path);
	if (!made[nmade])
		die("memory");
	return made[nmade++];
}

static uint64_t tree_sum;

static uint64_t fnv(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	return h;
}

/* Files are summed, so that their order does not count. */
static int sum_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	uint64_t h = fnv(14695981039346656037u, path, strlen(path));
	struct mk_bytes b = {0};

	(void)ftw;
	if (type == FTW_F && S_ISREG(st->st_mode))
		b = mk_read("/", path);
	h = fnv(h, &st->st_mode, sizeof(st->st_mode));
	h = fnv(h, &st->st_mtim, sizeof(st->st_mtim));
	h = fnv(h, &st->st_ino, sizeof(st->st_ino));
	tree_sum += fnv(h, b.p, b.len);
	mk_free(&b);
	return 0;
}

uint64_t mk_tree_sum(const char *dir)
{
	char real[PATH_MAX];

	tree_sum = 0;
	if (!realpath(dir, real) || nftw(real, sum_one, 16, FTW_PHYS) != 0)
		die(dir);
	return tree_sum;
}
