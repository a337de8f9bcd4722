/* ctl.c - conversations: a control file is written to and then read on the same handle (interface.md section 4.1).
 *
 * write(2) is the commit point: it runs whole lines and fails with the errno of the line that failed. All lines of a write
 * are checked before the first one runs. A reply is immutable once it is made and counted, so that a READ sends it without
 * holding the handle's lock. */
#include "ctl.h"
#include "names.h"
#include "npyfile.h"
#include "out.h"
#include "text.h"
#include "window.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (1u << 20)

/* Text, or a .npy header and a view behind it. */
struct npkfs_reply {
	_Atomic unsigned refs;
	struct npk_text text;
	struct npk_gen *gen;
	struct npk_view *view; /* NULL: text only */
};

struct conversation {
	struct npkfs_handle h;
	pthread_mutex_t lock;       /* held while lines run, never across a reply to the kernel */
	struct npk_text line;       /* lock: a line that has no newline yet */
	uint64_t line_owner;        /* lock: who wrote it last */
	struct npkfs_reply *reply;  /* lock: what to read; NULL before the first line */
	struct npkfs_window window; /* lock */
	int sticky;                 /* lock: the error of the last write, returned again by every FLUSH */
};

/* --- replies ---------------------------------------------------------------------------------------------------------- */

static void put_reply(void *reply)
{
	struct npkfs_reply *r = reply;

	if (r == NULL || atomic_fetch_sub(&r->refs, 1) != 1)
		return;
	npk_view_close(r->view);
	npk_gen_put(r->gen);
	npk_text_fini(&r->text);
	free(r);
}

static struct npkfs_reply *new_reply(void)
{
	struct npkfs_reply *r = calloc(1, sizeof(*r));

	if (r != NULL)
		atomic_init(&r->refs, 1);
	return r;
}

int npkfs_reply_text(struct npkfs_query *q, struct npk_text *t, struct npk_err *err)
{
	npk_text_fini(&q->reply->text);
	q->reply->text = *t;
	if (t->bad)
		return npk_fail(err, ENOMEM, "no memory for the reply");
	if (t->len > q->s->config->ctl_max)
		return npk_fail(err, E2BIG, "the reply is longer than ctl_max, %llu bytes: use fmt=npy or a view",
			(unsigned long long)q->s->config->ctl_max);
	return 0;
}

int npkfs_reply_view(struct npkfs_query *q, struct npk_view *v, struct npk_gen *g, struct npk_err *err)
{
	char header[NPK_NPY_HEADER_MAX];
	const struct npk_view_info *info = npk_view_info(v);
	size_t len = npk_npy_header(header, info->dtype, &info->shape, q->s->config->header);

	q->reply->view = v;
	q->reply->gen = g;
	npk_text_add(&q->reply->text, header, len);
	return q->reply->text.bad ? npk_fail(err, ENOMEM, "no memory for the reply") : 0;
}

/* Makes `r` what the handle reads. Needs the lock. */
static void set_reply(struct conversation *c, struct npkfs_reply *r)
{
	put_reply(c->reply);
	c->reply = r;
}

/* Without memory for the sentence the errno of the write still tells. Needs the lock. */
static void set_error_reply(struct conversation *c, int rc, struct npk_err *err)
{
	const char *name = strerrorname_np(-rc);
	struct npkfs_reply *r = new_reply();

	npkfs_make_printable(err->msg);
	if (r != NULL)
		npk_text_printf(&r->text, "ERR %s %s\n", name ? name : "?", err->msg);
	set_reply(c, r);
}

/* --- lines ------------------------------------------------------------------------------------------------------------ */

/* One line of a write: `text` is split in place, so each line is worked on as a copy. */
static int split_line(struct conversation *c, struct npkfs_query *q, char *copy, size_t len, struct npk_err *err)
{
	const struct npkfs_control *row = c->h.node->control;
	int rc = npkfs_words_split(&q->words, copy, len, err);

	if (rc == 0 && (q->words.argc < row->argc_min || q->words.argc > row->argc_max))
		rc = npk_fail(err, EINVAL, "usage: %s", row->usage);
	return rc;
}

typedef int line_fn(struct npkfs_query *q, struct npk_err *err);

/* Splits the line and hands it to `fn`; a blank line is nothing. */
static int do_line(
	struct conversation *c, struct npkfs_query *q, const char *line, size_t len, line_fn *fn, struct npk_err *err)
{
	char *copy = malloc(len + 1);
	int rc;

	if (copy == NULL)
		return npk_fail(err, ENOMEM, "no memory for a command line");
	memcpy(copy, line, len);
	copy[len] = '\0';
	rc = strspn(copy, " \t\r") == len ? 0 : split_line(c, q, copy, len, err);
	if (rc == 0 && q->words.argc > 0 && fn != NULL)
		rc = fn(q, err);
	q->words.argc = 0;
	free(copy);
	return rc;
}

/* Runs one line; its reply replaces the one before. Needs the lock. */
static int run_line(struct conversation *c, struct npkfs_query *q, const char *line, size_t len, struct npk_err *err)
{
	int rc;

	q->reply = new_reply();
	if (q->reply == NULL)
		return npk_fail(err, ENOMEM, "no memory for a reply");
	rc = do_line(c, q, line, len, c->h.node->control->run, err);
	if (rc == 0)
		set_reply(c, q->reply);
	else
		put_reply(q->reply);
	q->reply = NULL;
	return rc;
}

/* Calls check on every whole line of [p, end), run on none. */
static int check_lines(
	struct conversation *c, struct npkfs_query *q, const char *p, const char *end, struct npk_err *err)
{
	const char *nl;
	int rc = 0;

	for (; rc == 0 && (nl = memchr(p, '\n', (size_t)(end - p))) != NULL; p = nl + 1)
		rc = (size_t)(nl - p) > LINE_MAX_BYTES
			     ? npk_fail(err, E2BIG, "a line is longer than %u bytes", LINE_MAX_BYTES)
			     : do_line(c, q, p, (size_t)(nl - p), c->h.node->control->check, err);
	if (rc == 0 && (size_t)(end - p) > LINE_MAX_BYTES)
		rc = npk_fail(err, E2BIG, "a line is longer than %u bytes", LINE_MAX_BYTES);
	return rc;
}

/* --- WRITE ------------------------------------------------------------------------------------------------------------- */

/* Runs the whole lines of `all`, which begins with c->line; *done says where the first line begins that did not run.
 * Needs the lock. */
static int run_lines(
	struct conversation *c, struct npkfs_query *q, const struct npk_text *all, size_t *done, struct npk_err *err)
{
	const char *end = all->p + all->len, *p = all->p, *nl;
	int rc = 0;

	*done = 0;
	while ((nl = memchr(p, '\n', (size_t)(end - p))) != NULL) {
		rc = run_line(c, q, p, (size_t)(nl - p), err);
		if (rc != 0)
			break;
		p = nl + 1;
		*done = (size_t)(p - all->p);
	}
	return rc;
}

static bool has_several(const struct npk_text *all)
{
	const char *nl = memchr(all->p, '\n', all->len);

	return nl != NULL && nl + 1 < all->p + all->len;
}

/* What `all` has from byte `from` on is the line that is begun now. Takes the text over. Needs the lock. */
static void keep_rest(struct conversation *c, struct npk_text *all, size_t from)
{
	npk_text_fini(&c->line);
	if (from == all->len)
		return;
	memmove(all->p, all->p + from, all->len - from + 1); /* with the NUL behind it */
	all->len -= from;
	c->line = *all;
	*all = (struct npk_text){0};
}

/* A failed write takes nothing: the line that was begun before stays as it was, so a client that sends the same bytes
 * again gets the same error again. After a failure in a later line the count stops before it. Needs the lock. */
static int take_bytes(struct conversation *c, const struct npkfs_write *w, size_t *taken, struct npk_err *err)
{
	struct npkfs_query q = {.s = c->h.s, .node = c->h.node, .who = w->who};
	struct npk_text all = {0};
	size_t begun = c->line.len, done = 0;
	int rc;

	npk_text_add(&all, c->line.p, c->line.len);
	npk_text_add(&all, w->buf, w->len);
	if (all.bad) {
		rc = npk_fail(err, ENOMEM, "no memory for %zu bytes", w->len);
	} else {
		q.several = has_several(&all);
		set_reply(c, NULL);
		rc = check_lines(c, &q, all.p, all.p + all.len, err);
		if (rc == 0)
			rc = run_lines(c, &q, &all, &done, err);
	}
	if (rc == 0 || done > begun) {
		*taken = rc == 0 ? w->len : done - begun;
		keep_rest(c, &all, rc == 0 ? done : all.len);
		c->line_owner = w->owner;
		rc = 0;
	}
	npk_text_fini(&all);
	return rc;
}

static int write_conversation(struct npkfs_handle *handle, struct npkfs_write *w, size_t *taken, struct npk_err *err)
{
	struct conversation *c = (struct conversation *)handle;
	int rc;

	*taken = 0;
	if (w->len == 0)
		return 0;
	pthread_mutex_lock(&c->lock);
	rc = take_bytes(c, w, taken, err);
	npkfs_window_wrote(&c->window, w->off + (rc == 0 ? *taken : 0));
	c->sticky = rc;
	if (rc != 0)
		set_error_reply(c, rc, err);
	pthread_mutex_unlock(&c->lock);
	w->announced = handle->node->control->changes;
	return rc;
}

/* --- FLUSH ------------------------------------------------------------------------------------------------------------- */

/* A line without newline is dropped when somebody else closes, at the end, and after a failed write: what came of it may be
 * half of what was meant. Needs the lock. */
static void drop_line(struct conversation *c, struct npkfs_caller who)
{
	struct npk_text path = {0};

	if (c->line.len == 0)
		return;
	c->h.node->type->path(c->h.node, &path);
	npkfs_lasterr_add(&c->h.s->lasterr, who.uid, who.pid, EINVAL, path.bad ? "?" : path.p,
		"a last line without newline was dropped");
	npk_text_fini(&path);
	npk_text_fini(&c->line);
}

static int flush_conversation(struct npkfs_handle *handle, uint64_t owner, struct npkfs_caller who, struct npk_err *err)
{
	struct conversation *c = (struct conversation *)handle;
	struct npkfs_query q = {.s = handle->s, .node = handle->node, .who = who};
	struct npk_text line;
	int rc;

	pthread_mutex_lock(&c->lock);
	if (c->line.len > 0 && owner == c->line_owner && c->sticky == 0) {
		line = c->line;
		c->line = (struct npk_text){0};
		c->sticky = run_line(c, &q, line.p, line.len, err);
		if (c->sticky != 0)
			set_error_reply(c, c->sticky, err);
		npk_text_fini(&line);
	}
	drop_line(c, who);
	rc = c->sticky;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* --- READ -------------------------------------------------------------------------------------------------------------- */

static int read_conversation(
	struct npkfs_handle *handle, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	struct conversation *c = (struct conversation *)handle;
	struct npkfs_reply *r;
	size_t n;

	pthread_mutex_lock(&c->lock);
	off = npkfs_window_place(&c->window, off);
	r = c->reply;
	if (r != NULL)
		atomic_fetch_add(&r->refs, 1);
	pthread_mutex_unlock(&c->lock);
	if (r == NULL)
		return 0;
	out->done = put_reply;
	out->ctx = r;
	if (r->view != NULL)
		return npkfs_npy_read(r->text.p, r->text.len, r->view, off, len, out, err);
	n = off < r->text.len ? (size_t)(r->text.len - off) : 0;
	if (n > 0)
		npkfs_out_borrow(out, r->text.p + off, n < len ? n : len);
	return 0;
}

/* --- open -------------------------------------------------------------------------------------------------------------- */

static void close_conversation(struct npkfs_handle *handle)
{
	struct conversation *c = (struct conversation *)handle;

	drop_line(c, (struct npkfs_caller){.uid = 0});
	npk_text_fini(&c->line); /* may be empty and have memory */
	put_reply(c->reply);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct npkfs_handle_ops handle_ops = {
	.read = read_conversation,
	.write = write_conversation,
	.flush = flush_conversation,
	.close = close_conversation,
};

static int open_usage(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_handle **out, struct npk_err *err)
{
	struct npk_text t = {0};

	npk_text_printf(&t, "usage: open for reading and writing, write \"%s\" and a newline, read the answer\n",
		node->control->usage);
	return npkfs_text_handle(s, node, &t, out, err);
}

static int open_query(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err)
{
	struct conversation *c;

	o->direct_io = true;
	if ((o->flags & O_ACCMODE) == O_RDONLY)
		return open_usage(s, node, out, err);
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return npk_fail(err, ENOMEM, "no memory for a conversation");
	c->h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node, .direct = true};
	pthread_mutex_init(&c->lock, NULL);
	*out = &c->h;
	return 0;
}

const struct npkfs_type npkfs_query_type = {
	.kind = S_IFREG,
	.conversation = true,
	.path = npkfs_control_path,
	.stat = npkfs_stat_query,
	.open = open_query,
};
