/* ctl_stream.c - append, append.raw, append.csv and replace: bytes that are rows, not lines.
 *
 * What a write completes is committed in that write; the rest waits in the handle. A failed write takes nothing, so a client
 * that sends the same bytes again gets the same error again; after a failure behind a commit the count stops at the commit. */
#include "changed.h"
#include "ctl.h"
#include "file.h"
#include "out.h"
#include "rowdata.h"
#include "rows.h"
#include "text.h"
#include "window.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (1u << 20)

struct stream {
	struct npkfs_handle h;
	pthread_mutex_t lock;         /* one write at a time; outermost */
	struct npk_text pending;      /* lock: bytes of what is not whole yet */
	uint64_t owner;               /* lock: who wrote them */
	struct npkfs_window window;   /* lock */
	char reply[NPK_ERR_MAX + 64]; /* lock */
	int sticky;                   /* lock: the error of the last write */
	struct npkfs_caller who;
};

/* What one commit of a stream works on. */
struct unit {
	struct stream *st;
	struct npk_array *a;
	struct npk_gen *g;
};

static void say_ok(const struct unit *u, const char *verb, uint64_t rows)
{
	struct npk_gen *g;

	if (npk_gen_get(&g, u->a, NULL) != 0)
		return;
	snprintf(u->st->reply, sizeof(u->st->reply), "OK %s rows=%" PRIu64 " generation=%" PRIu64 "\n", verb, rows,
		npk_gen_info(g)->number);
	npk_gen_put(g);
}

/* --- a .npy in memory ----------------------------------------------------------------------------------------------------- */

/* The stream at `p`: *used is its length, 0 when more bytes are needed. */
static int whole_npy(struct unit *u, const char *p, size_t len, struct npk_npy *npy, size_t *used, struct npk_err *err)
{
	uint64_t max = u->st->h.s->config->ctl_max;
	int rc = npk_npy_parse(p, len, npy, NULL, err);

	*used = 0;
	if (rc == -EAGAIN)
		return len > 65536 ? npk_fail(err, EINVAL, "no .npy header") : 0;
	if (rc != 0)
		return rc;
	if (npy->data_len > max)
		return npk_fail(err, E2BIG, "%" PRIu64 " bytes, ctl_max is %" PRIu64 ": write a .npy file instead",
			npy->data_len, max);
	if (len - npy->header_len >= npy->data_len)
		*used = npy->header_len + (size_t)npy->data_len;
	return 0;
}

typedef int rows_fn(struct unit *u, const void *rows, uint64_t n, void *ctx, struct npk_err *err);

/* Hands the rows of a whole .npy to `fn`, in C order and little-endian. */
static int with_rows(
	struct unit *u, const struct npk_npy *npy, const char *data, rows_fn *fn, void *ctx, struct npk_err *err)
{
	const char *rows;
	char *copy;
	int rc = npkfs_rows_plain(npy, data, &rows, &copy, err);

	if (rc == 0)
		rc = fn(u, rows, npy->shape.dim[0], ctx, err);
	free(copy);
	return rc;
}

/* --- append ----------------------------------------------------------------------------------------------------------------- */

static int append_rows(struct unit *u, const void *rows, uint64_t n, void *ctx, struct npk_err *err)
{
	int rc = npk_array_append(u->a, rows, n, err);

	(void)ctx;
	if (rc == 0)
		rc = npkfs_announce_grown(u->st->h.s, u->st->h.node->space, u->a, err);
	if (rc == 0)
		say_ok(u, "append", n);
	return rc;
}

/* Concatenated .npy streams, each committed at its last byte. */
static int unit_npy(struct unit *u, const char *p, size_t len, size_t *used, struct npk_err *err)
{
	struct npk_npy npy = {0};
	size_t whole;
	int rc = whole_npy(u, p, len, &npy, &whole, err);

	if (rc == 0 && npy.header_len != 0)
		rc = npkfs_rows_fit(npk_gen_info(u->g), &npy, err);
	if (rc == 0 && whole > 0)
		rc = with_rows(u, &npy, p + npy.header_len, append_rows, NULL, err);
	*used = rc == 0 ? whole : 0;
	return rc;
}

static int unit_raw(struct unit *u, const char *p, size_t len, size_t *used, struct npk_err *err)
{
	uint64_t row_bytes = npk_gen_info(u->g)->row_bytes, n;
	int rc;

	if (row_bytes == 0)
		return npk_fail(err, EINVAL, "rows of no bytes cannot be appended");
	n = len / row_bytes;
	rc = n > 0 ? append_rows(u, p, n, NULL, err) : 0;
	*used = rc == 0 ? n * row_bytes : 0;
	return rc;
}

/* --- append.csv -------------------------------------------------------------------------------------------------------------- */

/* One line without its newline, as a row at `row`. `number` counts the lines of this write from 1. */
static int parse_csv_row(
	const struct npk_gen_info *info, const char *p, size_t len, size_t number, char *row, struct npk_err *err)
{
	size_t size = npk_dtype_size(info->dtype), want = info->row_bytes / size, n = 0, cell;
	const char *end = p + len;
	int rc;

	for (;; p += cell + 1, n++) {
		const char *comma = memchr(p, ',', (size_t)(end - p));

		cell = (size_t)((comma != NULL ? comma : end) - p);
		if (n == want)
			return npk_fail(err, EINVAL, "line %zu: more than %zu columns", number, want);
		rc = npk_element_parse(row + n * size, info->dtype, p, cell);
		if (rc != 0)
			return npk_fail(err, EINVAL, "line %zu, column %zu: '%.*s' is no %s", number, n + 1,
				(int)(cell < 40 ? cell : 40), p, npk_dtype_name(info->dtype));
		if (comma == NULL)
			break;
	}
	return n + 1 == want ? 0 : npk_fail(err, EINVAL, "line %zu: %zu columns of %zu", number, n + 1, want);
}

static bool is_blank(const char *p, size_t len)
{
	while (len > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
		p++;
		len--;
	}
	return len == 0;
}

/* The rows of the lines of [p, end), which are whole; a blank line is nothing. */
static int parse_csv(const struct npk_gen_info *info, const char *p, const char *end, struct npk_text *rows,
	uint64_t *n, struct npk_err *err)
{
	char *row = malloc(info->row_bytes);
	int rc = row != NULL ? 0 : npk_fail(err, ENOMEM, "no memory for a row");

	*n = 0;
	for (size_t number = 1; p < end && rc == 0; number++) {
		size_t len = (size_t)((const char *)memchr(p, '\n', (size_t)(end - p)) - p);

		if (!is_blank(p, len)) {
			rc = parse_csv_row(info, p, len, number, row, err);
			if (rc == 0)
				npk_text_add(rows, row, info->row_bytes);
			*n += rc == 0;
		}
		p += len + 1;
	}
	free(row);
	return rc == 0 && rows->bad ? npk_fail(err, ENOMEM, "no memory for rows") : rc;
}

/* All whole lines of a write are one append. */
static int unit_csv(struct unit *u, const char *p, size_t len, size_t *used, struct npk_err *err)
{
	const struct npk_gen_info *info = npk_gen_info(u->g);
	const char *nl = memrchr(p, '\n', len);
	struct npk_text rows = {0};
	uint64_t n;
	int rc;

	*used = 0;
	if (nl == NULL)
		return len > u->st->h.s->config->ctl_max ? npk_fail(err, E2BIG, "a line is longer than ctl_max") : 0;
	if (info->row_bytes == 0)
		return npk_fail(err, EINVAL, "rows of no bytes cannot be appended");
	rc = parse_csv(info, p, nl + 1, &rows, &n, err);
	if (rc == 0 && n > 0)
		rc = append_rows(u, rows.p, n, NULL, err);
	npk_text_fini(&rows);
	*used = rc == 0 ? (size_t)(nl + 1 - p) : 0;
	return rc;
}

/* --- replace ---------------------------------------------------------------------------------------------------------------- */

struct chosen {
	int64_t *rows;
	size_t n;
	bool atomic;
};

static int replace_rows(struct unit *u, const void *rows, uint64_t n, void *ctx, struct npk_err *err)
{
	const struct chosen *c = ctx;
	struct npkfs_session *s = u->st->h.s;
	int rc;

	if (n != c->n)
		return npk_fail(err, EINVAL, "%" PRIu64 " rows for %zu places", n, c->n);
	rc = npk_array_replace(u->a, c->rows, c->n, rows, c->atomic ? NPK_REPLACE_ATOMIC : 0, err);
	if (rc != 0)
		return rc;
	npkfs_announce_replaced(s, u->a, u->g, c->rows, c->n);
	npkfs_announce_grown(s, u->st->h.node->space, u->a, NULL);
	say_ok(u, "replace", n);
	return 0;
}

/* "rows=0:3,7 atomic", "0:3 7" */
static int parse_line(const struct unit *u, const char *line, size_t len, struct chosen *c, struct npk_err *err)
{
	static const char word[] = "atomic";
	size_t n = sizeof(word) - 1;
	char *copy = strndup(line, len), *rows = copy, *at;
	int rc;

	if (copy == NULL)
		return npk_fail(err, ENOMEM, "no memory for a line");
	at = strstr(copy, word);
	if (at != NULL && at[n + strspn(at + n, " \t\r")] == '\0') {
		*at = '\0';
		c->atomic = true;
	}
	copy[strcspn(copy, "\r")] = '\0';
	rows += strspn(rows, " \t");
	if (strncmp(rows, "rows=", 5) == 0)
		rows += 5;
	rc = npkfs_rows_parse(rows, npk_gen_info(u->g)->rows, u->st->h.s->config->ctl_max / 8, &c->rows, &c->n, err);
	free(copy);
	return rc;
}

/* A line that says which rows, then a .npy stream. */
static int unit_replace(struct unit *u, const char *p, size_t len, size_t *used, struct npk_err *err)
{
	const char *nl = memchr(p, '\n', len);
	struct chosen c = {NULL, 0, false};
	struct npk_npy npy = {0};
	size_t head, whole = 0;
	int rc;

	*used = 0;
	if (nl == NULL)
		return len > LINE_MAX_BYTES ? npk_fail(err, E2BIG, "a line is longer than %u bytes", LINE_MAX_BYTES)
					    : 0;
	head = (size_t)(nl + 1 - p);
	rc = parse_line(u, p, head - 1, &c, err);
	if (rc == 0)
		rc = whole_npy(u, p + head, len - head, &npy, &whole, err);
	if (rc == 0 && npy.header_len != 0)
		rc = npkfs_rows_fit(npk_gen_info(u->g), &npy, err);
	if (rc == 0 && whole > 0)
		rc = with_rows(u, &npy, p + head + npy.header_len, replace_rows, &c, err);
	if (rc == 0 && whole > 0)
		*used = head + whole;
	free(c.rows);
	return rc;
}

/* --- WRITE ------------------------------------------------------------------------------------------------------------------- */

typedef int unit_fn(struct unit *u, const char *p, size_t len, size_t *used, struct npk_err *err);

static unit_fn *unit_of(const struct npkfs_node *node)
{
	if (strcmp(node->control->name, "append") == 0)
		return unit_npy;
	if (strcmp(node->control->name, "append.csv") == 0)
		return unit_csv;
	return strcmp(node->control->name, "replace") == 0 ? unit_replace : unit_raw;
}

/* One unit of the array as it is now. */
static int do_unit(struct stream *st, const char *p, size_t len, size_t *used, struct npk_err *err)
{
	struct unit u = {.st = st};
	int rc = npkfs_node_array(st->h.s, st->h.node, &u.a, err);

	*used = 0;
	if (rc == 0)
		rc = npk_gen_get(&u.g, u.a, err);
	if (rc == 0)
		rc = unit_of(st->h.node)(&u, p, len, used, err);
	npk_gen_put(u.g);
	npk_array_put(u.a);
	return rc;
}

/* Units one after the other; *done: the bytes of those that were committed. Needs the lock. */
static int do_units(struct stream *st, const struct npk_text *all, size_t *done, struct npk_err *err)
{
	size_t used = 1;
	int rc = 0;

	for (*done = 0; rc == 0 && used > 0 && *done < all->len; *done += used)
		rc = do_unit(st, all->p + *done, all->len - *done, &used, err);
	return rc;
}

/* Needs the lock. */
static int take_bytes(struct stream *st, const struct npkfs_write *w, size_t *taken, struct npk_err *err)
{
	struct npk_text all = {0}, rest = {0};
	size_t begun = st->pending.len, done = 0;
	int rc;

	npk_text_add(&all, st->pending.p, begun);
	npk_text_add(&all, w->buf, w->len);
	if (all.bad)
		rc = npk_fail(err, ENOMEM, "no memory for %zu bytes", w->len);
	else
		rc = do_units(st, &all, &done, err);
	if (rc == 0 || done > begun) {
		if (rc == 0)
			npk_text_add(&rest, all.p + done, all.len - done);
		npk_text_fini(&st->pending);
		st->pending = rest;
		st->owner = w->owner;
		*taken = rc == 0 ? w->len : done - begun;
		rc = 0;
	}
	npk_text_fini(&all);
	return rc;
}

static int write_stream(struct npkfs_handle *h, struct npkfs_write *w, size_t *taken, struct npk_err *err)
{
	struct stream *st = (struct stream *)h;
	int rc = h->s->rw ? 0 : npk_fail(err, EROFS, "this mount is read-only");

	*taken = 0;
	pthread_mutex_lock(&st->lock);
	st->reply[0] = '\0';
	if (rc == 0)
		rc = take_bytes(st, w, taken, err);
	if (rc == 0)
		rc = npkfs_sync_change(h->s, err);
	npkfs_window_wrote(&st->window, w->off + *taken);
	st->sticky = rc;
	if (rc != 0)
		snprintf(st->reply, sizeof(st->reply), "ERR %s %s\n", strerrorname_np(-rc) ? strerrorname_np(-rc) : "?",
			err->msg);
	pthread_mutex_unlock(&st->lock);
	w->announced = true;
	return rc;
}

/* --- the other requests --------------------------------------------------------------------------------------------------------- */

static int flush_stream(struct npkfs_handle *h, uint64_t owner, struct npkfs_caller who, struct npk_err *err)
{
	struct stream *st = (struct stream *)h;
	int rc;

	(void)who;
	pthread_mutex_lock(&st->lock);
	rc = st->sticky;
	if (rc == 0 && st->pending.len > 0 && st->owner == owner)
		rc = npk_fail(err, EINVAL, "%zu bytes at the end are no whole %s", st->pending.len,
			unit_of(h->node) == unit_raw   ? "row"
			: unit_of(h->node) == unit_csv ? "line"
						       : ".npy stream");
	pthread_mutex_unlock(&st->lock);
	return rc;
}

static int read_stream(struct npkfs_handle *h, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	struct stream *st = (struct stream *)h;
	size_t n;

	(void)err;
	pthread_mutex_lock(&st->lock);
	off = npkfs_window_place(&st->window, off);
	n = strlen(st->reply);
	if (off < n)
		npkfs_out_copy(out, st->reply + off, n - (size_t)off < len ? n - (size_t)off : len);
	pthread_mutex_unlock(&st->lock);
	return 0;
}

static void close_stream(struct npkfs_handle *h)
{
	struct stream *st = (struct stream *)h;
	struct npk_text path = {0};

	if (st->pending.len > 0) {
		h->node->type->path(h->node, &path);
		npkfs_lasterr_add(&h->s->lasterr, st->who.uid, st->who.pid, EINVAL, path.p ? path.p : "",
			"bytes at the end that were not whole were dropped");
		npk_text_fini(&path);
	}
	npk_text_fini(&st->pending);
	pthread_mutex_destroy(&st->lock);
	free(st);
}

static const struct npkfs_handle_ops handle_ops = {
	.read = read_stream,
	.write = write_stream,
	.flush = flush_stream,
	.close = close_stream,
};

static int open_stream(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o,
	struct npkfs_handle **out, struct npk_err *err)
{
	struct npk_text usage = {0};
	struct stream *st;

	o->direct_io = true;
	if ((o->flags & O_ACCMODE) == O_RDONLY) {
		npk_text_printf(&usage, "usage: write %s\n", node->control->usage);
		return npkfs_text_handle(s, node, &usage, out, err);
	}
	st = calloc(1, sizeof(*st));
	if (st == NULL)
		return npk_fail(err, ENOMEM, "no memory for a stream");
	st->h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node, .direct = true};
	st->who = o->who;
	pthread_mutex_init(&st->lock, NULL);
	*out = &st->h;
	return 0;
}

const struct npkfs_type npkfs_stream_type = {
	.kind = S_IFREG,
	.conversation = true,
	.path = npkfs_control_path,
	.stat = npkfs_stat_query,
	.open = open_stream,
};
