/* export.c - npk export: arrays as a file in another format. */
#include "formats.h"
#include "progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	FORMAT,
	ROWS,
	SEL,
	DELIMITER,
	HEADER,
	FLAT,
	COMPRESS
};

static const struct npkt_opt opts[] = {
	[FORMAT] = {"format", "FORMAT", 'f', "what FILE becomes; by default its name tells"},
	[ROWS] = {"rows", "SEL", 'r', "only these rows"},
	[SEL] = {"sel", "SEL", 's', "only this selection, one part for each axis; not for safetensors"},
	[DELIMITER] = {"delimiter", "CHAR", 'd', "between the numbers of CSV; tab and blank are words for them"},
	[HEADER] = {"header", "TEXT", 'H', "the first line of CSV"},
	[FLAT] = {"flat", NULL, 'F', "write rows of more than one dimension to CSV all the same, flat"},
	[COMPRESS] = {"compress", "LEVEL", 'z', "deflate the members of npz, 1 to 9; they are stored without"},
	{0},
};

struct wish {
	const struct npkt_format *format;
	const char *sel, *header;
	char delimiter;
	bool flat;
	int level;
	const char **name; /* of the arrays */
	size_t n;
	struct npk_view **view; /* n of them */
	struct npk_tensors *tensors;
	struct npkt_progress progress;
	uint64_t bytes; /* of all views; what the progress is of */
};

/* --- the command line ------------------------------------------------------------------------------------------------- */

static int take_delimiter(struct wish *w, const char *text)
{
	if (strcmp(text, "tab") == 0)
		w->delimiter = '\t';
	else if (strcmp(text, "blank") == 0)
		w->delimiter = ' ';
	else if (strlen(text) == 1 && !strchr("0123456789+-.eEjnaif\n\"", *text))
		w->delimiter = *text;
	else {
		npkt_complain("--delimiter '%s' is not one character that no number has", text);
		return NPKT_USAGE;
	}
	return NPKT_OK;
}

static int take_level(struct wish *w, const char *text)
{
	if (strlen(text) == 1 && *text >= '1' && *text <= '9') {
		w->level = *text - '0';
		return NPKT_OK;
	}
	npkt_complain("--compress '%s' is not a level from 1 to 9", text);
	return NPKT_USAGE;
}

static int says_nothing(const struct wish *w, int opt)
{
	npkt_complain("--%s says nothing about %s", opts[opt].name, w->format->name);
	return NPKT_USAGE;
}

static int check_options(const struct wish *w, const struct npkt_args *args)
{
	static const int of_lines[] = {DELIMITER, HEADER, FLAT};

	for (size_t i = 0; i < sizeof(of_lines) / sizeof(*of_lines); i++)
		if (args->opt[of_lines[i]] && !(w->format->flags & NPKT_HAS_LINES))
			return says_nothing(w, of_lines[i]);
	if (args->opt[COMPRESS] && w->format->format != NPK_FORMAT_NPZ)
		return says_nothing(w, COMPRESS);
	if (w->sel && (w->format->format == NPK_FORMAT_TENSORS || (w->format->flags & NPKT_BY_PYTHON)))
		return says_nothing(w, args->opt[ROWS] ? ROWS : SEL);
	return NPKT_OK;
}

static int take_wish(struct wish *w, const struct npkt_args *args)
{
	int status = npkt_check_rows(args->opt[ROWS], args->opt[SEL]);

	*w = (struct wish){.sel = args->opt[SEL] ? args->opt[SEL] : args->opt[ROWS],
		.header = args->opt[HEADER],
		.flat = args->opt[FLAT]};
	if (status != NPKT_OK)
		return status;
	w->format = npkt_format(args->opt[FORMAT], args->operand[1]);
	if (!w->format)
		return NPKT_USAGE;
	w->delimiter = strcmp(w->format->name, "txt") == 0 ? ' ' : ',';
	if (args->opt[DELIMITER])
		status = take_delimiter(w, args->opt[DELIMITER]);
	if (status == NPKT_OK && args->opt[COMPRESS])
		status = take_level(w, args->opt[COMPRESS]);
	return status == NPKT_OK ? check_options(w, args) : status;
}

/* --- which arrays, and whether they fit ------------------------------------------------------------------------------- */

static int take_names(struct wish *w, struct npk_array **list, size_t n, char **said, int nsaid, struct npk_err *err)
{
	w->n = nsaid > 0 ? (size_t)nsaid : n;
	w->name = calloc(w->n + 1, sizeof(*w->name));
	w->view = calloc(w->n + 1, sizeof(*w->view));
	if (!w->name || !w->view)
		return npk_fail(err, ENOMEM, "no memory");
	for (size_t i = 0; i < w->n; i++)
		w->name[i] = nsaid > 0 ? said[i] : npk_array_name(list[i], NULL);
	for (size_t i = 0; i < w->n && nsaid > 0; i++)
		for (size_t k = 0; k < i; k++)
			if (strcmp(w->name[i], w->name[k]) == 0)
				return npk_fail(err, EINVAL, "array '%.200s' is named twice", w->name[i]);
	if ((w->format->flags & NPKT_HAS_ONE) && w->n != 1)
		return npk_fail(err, EINVAL, "%s holds one array, and %zu are there: name one", w->format->name, w->n);
	return 0;
}

static int check_lines(const struct wish *w, const char *name, const struct npk_view_info *info, struct npk_err *err)
{
	if (info->shape.ndim > 2 && !w->flat)
		return npk_fail(err, EINVAL,
			"array '%.200s' has %u dimensions, %s has lines and columns; --flat writes them all the same",
			name, info->shape.ndim, w->format->name);
	if (info->row_bytes == 0)
		return npk_fail(err, EINVAL, "array '%.200s' has rows without elements, which %s cannot tell", name,
			w->format->name);
	return 0;
}

static int open_views(struct wish *w, struct npk_store *s, struct npk_err *err)
{
	int rc = 0;

	if (w->format->format == NPK_FORMAT_TENSORS)
		return npk_tensors_open_list(&w->tensors, s, w->name, w->n, err);
	for (size_t i = 0; i < w->n && rc == 0; i++) {
		struct npk_gen *g = NULL;

		rc = npkt_gen(&g, s, w->name[i], err);
		if (rc == 0)
			rc = npk_view_open(&w->view[i], g, w->sel, err);
		if (rc == 0 && (w->format->flags & NPKT_HAS_LINES))
			rc = check_lines(w, w->name[i], npk_view_info(w->view[i]), err);
		npk_gen_put(g);
	}
	return rc;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static bool npz_progress(void *wish, uint64_t bytes)
{
	struct wish *w = wish;

	return npkt_progress(&w->progress, bytes, w->bytes);
}

static int write_npz(struct npkt_out *out, struct wish *w, struct npk_err *err)
{
	struct npk_npz *z = NULL;
	int rc = npk_npz_open(&z, out->fd, w->level, err);

	for (size_t i = 0; i < w->n; i++)
		w->bytes += npk_view_info(w->view[i])->bytes;
	if (rc == 0)
		npk_npz_watch(z, npz_progress, w);
	for (size_t i = 0; i < w->n && rc == 0; i++)
		rc = npk_npz_add(z, w->name[i], w->view[i], err);
	if (rc == 0)
		rc = npk_npz_finish(z, err);
	npk_npz_close(z);
	return rc;
}

/* What is read and let go in the same way. */
struct from {
	int (*read)(void *from, uint64_t off, void *buf, size_t len, struct npk_err *err);
	void (*let_go)(void *from, uint64_t off, uint64_t len);
};

static int write_bytes(
	struct npkt_out *out, struct wish *w, const struct from *how, void *from, uint64_t bytes, struct npk_err *err)
{
	char *block = malloc(NPKT_BLOCK);
	int rc = block ? 0 : npk_fail(err, ENOMEM, "no memory");
	size_t n;

	for (uint64_t at = 0; at < bytes && rc == 0; at += n) {
		n = bytes - at < NPKT_BLOCK ? (size_t)(bytes - at) : NPKT_BLOCK;
		rc = how->read(from, at, block, n, err);
		if (rc == 0)
			rc = npkt_out_write(out, block, n, err);
		how->let_go(from, at, n);
		if (rc == 0)
			npkt_progress(&w->progress, at + n, bytes);
	}
	free(block);
	return rc;
}

static int read_view(void *view, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	return npk_view_read(view, off, buf, len, err);
}

static void let_go_view(void *view, uint64_t off, uint64_t len)
{
	npk_view_let_go(view, off, len);
}

static int read_tensors(void *tensors, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	return npk_tensors_read(tensors, off, buf, len, err);
}

static void let_go_tensors(void *tensors, uint64_t off, uint64_t len)
{
	npk_tensors_let_go(tensors, off, len);
}

static const struct from from_view = {read_view, let_go_view}, from_tensors = {read_tensors, let_go_tensors};

static int write_lines(struct npkt_out *out, struct wish *w, struct npk_err *err)
{
	int rc = 0;

	if (w->header) {
		rc = npkt_out_write(out, w->header, strlen(w->header), err);
		if (rc == 0)
			rc = npkt_out_write(out, "\n", 1, err);
	}
	return rc == 0 ? npkt_out_csv(out, w->view[0], w->delimiter, &w->progress, err) : rc;
}

static int write_all(struct npkt_out *out, struct wish *w, struct npk_err *err)
{
	switch (w->format->format) {
	case NPK_FORMAT_NPY:
		return npkt_out_npy(out, w->view[0], 0, npk_view_info(w->view[0])->rows, &w->progress, err);
	case NPK_FORMAT_NPZ:
		return write_npz(out, w, err);
	case NPK_FORMAT_CSV:
		return write_lines(out, w, err);
	case NPK_FORMAT_TENSORS:
		return write_bytes(out, w, &from_tensors, w->tensors, npk_tensors_size(w->tensors), err);
	case NPK_FORMAT_RAW:
		return write_bytes(out, w, &from_view, w->view[0], npk_view_info(w->view[0])->bytes, err);
	case NPK_FORMAT_COUNT:
		break;
	}
	return npk_fail(err, EINVAL, "format %s", w->format->name);
}

static int write_file(struct wish *w, const char *path, struct npk_err *err)
{
	struct npkt_out out = {0};
	int rc = npkt_out_open(&out, path, !(w->format->flags & NPKT_HAS_LINES), err);

	npkt_progress_show(&w->progress, isatty(out.fd) ? NULL : "exporting"); /* not between the lines */
	if (rc == 0)
		rc = write_all(&out, w, err);
	if (rc == 0)
		rc = npkt_out_commit(&out, err);
	npkt_progress_end(&w->progress);
	npkt_out_fini(&out);
	return rc;
}

static int export_file(struct wish *w, const struct npkt_args *args)
{
	struct npk_store *s = npkt_open(args->operand[0]);
	struct npk_array **list = NULL;
	struct npk_err err;
	size_t n = 0;
	int rc;

	if (!s)
		return NPKT_FAILED;
	if (args->noperands == 2 && npkt_check_list(s) != NPKT_OK) {
		npk_store_close(s);
		return NPKT_FAILED;
	}
	rc = npk_store_list(s, &list, &n, &err);
	if (rc == 0)
		rc = take_names(w, list, n, args->operand + 2, args->noperands - 2, &err);
	if (rc == 0)
		rc = open_views(w, s, &err);
	if (rc == 0)
		rc = write_file(w, args->operand[1], &err);
	for (size_t i = 0; w->view && i < w->n; i++)
		npk_view_close(w->view[i]);
	npk_tensors_close(w->tensors);
	free(w->view);
	free(w->name);
	npk_store_list_free(list, n);
	npk_store_close(s);
	return rc ? npkt_failed(&err) : NPKT_OK;
}

static int run(const struct npkt_args *args)
{
	struct wish w;
	int status = take_wish(&w, args);

	if (status != NPKT_OK)
		return status;
	if (w.format->flags & NPKT_BY_PYTHON)
		return npkt_by_python(
			"export", w.format, args->operand[0], args->operand[1], args->operand + 2, args->noperands - 2);
	return export_file(&w, args);
}

const struct npkt_cmd npkt_export = {
	.name = "export",
	.operands = "STORE FILE [ARRAY...]",
	.min = 2,
	.max = -1,
	.help = "write arrays to a file in another format",
	.more = "FILE is - for standard output, or becomes a file in one of the formats\n" NPKT_ABOUT_FORMATS
		"Without ARRAY all arrays are written. What the format cannot hold is refused before anything is "
		"written, and\n"
		"FILE is replaced when all of it is there. Numbers in CSV read back to the same value.\n"
		"\n" NPKT_ABOUT_SEL "Examples:\n"
		"  npk export digits.npk all.npz --compress 6\n"
		"  npk export digits.npk digits.safetensors images labels\n"
		"  npk export digits.npk - pixels --format csv --rows 0:3\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
