/* input.c - arrays out of files, and into the store. */
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* 0: the file does not tell. */
static uint64_t bytes_left(int fd)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	struct stat st;

	if (at < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < at)
		return 0;
	return (uint64_t)(st.st_size - at);
}

int npkt_input_open(struct npkt_input *in, const char *file, struct npk_source_how *how, struct npk_err *err)
{
	int rc;

	*in = (struct npkt_input){.fd = STDIN_FILENO, .file = file};
	if (strcmp(file, "-") == 0) {
		in->file = "standard input";
	} else {
		in->fd = open(file, O_RDONLY | O_CLOEXEC);
		if (in->fd < 0)
			return npk_fail(err, errno, "%.400s: %s", file, strerror(errno));
	}
	in->bytes = bytes_left(in->fd);
	how->file = in->file;
	rc = npk_source_open(&in->src, in->fd, how, err);
	if (rc != 0)
		npkt_input_close(in);
	return rc;
}

void npkt_input_close(struct npkt_input *in)
{
	npk_source_close(in->src);
	if (in->fd > STDIN_FILENO)
		close(in->fd);
	*in = (struct npkt_input){0};
}

int npkt_input_only(struct npkt_input *in, struct npk_source_array *a, struct npk_err *err)
{
	int rc = npk_source_next(in->src, a, err);

	if (rc == 0)
		return npk_fail(err, EINVAL, "%.400s: is empty", in->file);
	return rc < 0 ? rc : 0;
}

int npkt_input_no_more(struct npkt_input *in, struct npk_err *err)
{
	struct npk_source_array more;
	int rc = npk_source_next(in->src, &more, err);

	return rc == 1 ? npk_fail(err, EINVAL, "%.400s: something follows the array", in->file) : rc;
}

int npkt_save_input(struct npk_store *s, const char *name, struct npkt_input *in, const struct npk_source_array *a,
	struct npkt_progress *progress, struct npk_err *err)
{
	struct npk_save *w = NULL;
	const void *p;
	size_t n = 0;
	int rc = npk_save_open(&w, s, a->dtype, &a->shape, err);

	if (rc != 0)
		return npk_err_context(err, rc, "array '%.200s'", name);
	do {
		rc = npk_source_read(in->src, &p, &n, err);
		if (rc == 0 && n > 0)
			rc = npk_save_write(w, p, n, err);
		if (rc == 0 && progress && in->bytes > 0)
			npkt_progress(progress, npk_source_at(in->src), in->bytes);
	} while (rc == 0 && n > 0);
	if (rc == 0)
		return npk_save_commit(w, name, err);
	npk_save_abort(w);
	return rc;
}

static int fail_rows(struct npk_err *err)
{
	return npk_fail(err, errno, "the rows: a temporary file: %s", strerror(errno));
}

int npkt_rows_map(struct npkt_rows *r, struct npk_source *src, struct npk_err *err)
{
	int fd = npk_temp_file(err), rc = fd < 0 ? fd : 0;
	uint64_t len = 0;
	const char *p;
	size_t n = 1;

	while (rc == 0 && n > 0) {
		const void *block;

		rc = npk_source_read(src, &block, &n, err);
		p = block;
		for (ssize_t w; rc == 0 && n > 0; p += w, n -= (size_t)w, len += (uint64_t)w) {
			w = write(fd, p, n);
			if (w < 0 && errno == EINTR)
				w = 0;
			if (w < 0) {
				rc = fail_rows(err);
				break;
			}
		}
		n = rc == 0 && p != block;
	}
	if (rc == 0 && len > 0) {
		r->p = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0);
		if (r->p == MAP_FAILED) {
			r->p = NULL;
			rc = fail_rows(err);
		} else {
			r->len = (size_t)len;
		}
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

void npkt_rows_unmap(struct npkt_rows *r)
{
	if (r->p)
		munmap(r->p, r->len);
	*r = (struct npkt_rows){0};
}

int npkt_take_word(const char *word, const char *suffix, char **name, const char **file, struct npk_err *err)
{
	const char *equals = strchr(word, '=');
	size_t len;

	if (equals) {
		*name = strndup(word, (size_t)(equals - word));
		*file = equals + 1;
	} else {
		*name = npkt_base_name(word);
		*file = word;
		len = *name ? strlen(*name) : 0;
		if (*name && len > strlen(suffix) && strcmp(*name + len - strlen(suffix), suffix) == 0)
			(*name)[len - strlen(suffix)] = 0;
		else if (*name && strcmp(word, "-") == 0)
			(*name)[0] = 0;
	}
	if (!*name)
		return npk_fail(err, ENOMEM, "no memory");
	if (**name && **file)
		return 0;
	free(*name);
	*name = NULL;
	return npk_fail(err, EINVAL, "'%.400s' names no array: say NAME=FILE", word);
}
