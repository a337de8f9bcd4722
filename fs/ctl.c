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

/* Text; or a .npy header and a view behind it; or what a search gives. */
struct npkfs_reply {
	_Atomic unsigned refs;
	struct npk_text text;
	struct npk_gen *gen;
	size_t align;                /* of its headers */
	uint64_t block_rows;         /* of a view: the .npy streams have so many rows; 0: one stream */
	struct npk_view *view;       /* NULL: text only */
	struct npkfs_search *search; /* NULL: likewise */
};

struct conversation {
	struct npkfs_handle h;
	pthread_mutex_t lock;       /* held while lines run, never across a reply to the kernel */
	struct npk_text line;       /* lock: a line that has no newline yet, or not all that is attached to it */
	uint64_t wanted;            /* lock: bytes of the latter, with all that is attached; 0: no newline yet */
	bool json;                  /* lock: the last write asked for JSON */
	bool in_block;              /* lock: the line is several ones, between begin and commit */
	uint64_t line_owner;        /* lock: who wrote it last */
	struct npkfs_reply *reply;  /* lock: what to read; NULL before the first line */
	struct npkfs_window window; /* lock */
	int sticky;                 /* lock: the error of the last write, returned again by every FLUSH */
	uint64_t refused;           /* lock: the hash of what that write brought */
};

/* --- replies ---------------------------------------------------------------------------------------------------------- */

static void put_reply(void *reply)
{
	struct npkfs_reply *r = reply;

	if (r == NULL || atomic_fetch_sub(&r->refs, 1) != 1)
		return;
	npk_view_close(r->view);
	npk_gen_put(r->gen);
	npkfs_search_put(r->search);
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

struct npkfs_space *npkfs_query_space(const struct npkfs_query *q)
{
	return q->space != NULL ? q->space : q->node->space;
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
	q->reply->align = q->s->config->header;
	q->reply->gen = g;
	npk_text_add(&q->reply->text, header, len);
	return q->reply->text.bad ? npk_fail(err, ENOMEM, "no memory for the reply") : 0;
}

int npkfs_reply_blocks(struct npkfs_query *q, struct npk_view *v, struct npk_gen *g, uint64_t rows, struct npk_err *err)
{
	q->reply->block_rows = npk_view_info(v)->rows > rows ? rows : 0;
	return npkfs_reply_view(q, v, g, err);
}

int npkfs_reply_search(struct npkfs_query *q, struct npkfs_search *search, struct npk_err *err)
{
	(void)err;
	q->reply->search = search;
	return 0;
}

/* Makes `r` what the handle reads. Needs the lock. */
static void set_reply(struct conversation *c, struct npkfs_reply *r)
{
	put_reply(c->reply);
	c->reply = r;
}

/* Without memory for the sentence the errno of the write still tells. Needs the lock. */
static void set_error_reply(struct conversation *c, int rc, struct npk_err *err, bool json)
{
	const char *name = strerrorname_np(-rc);
	struct npkfs_reply *r = new_reply();

	npkfs_make_printable(err->msg);
	if (r != NULL && json) {
		npk_text_printf(&r->text, "{\"status\": \"ERR\", \"errno\": \"%s\", \"message\": ", name ? name : "?");
		npk_text_json(&r->text, err->msg, strlen(err->msg));
		npk_text_printf(&r->text, "}\n");
	} else if (r != NULL) {
		npk_text_printf(&r->text, "ERR %s %s\n", name ? name : "?", err->msg);
	}
	set_reply(c, r);
}

/* --- lines ------------------------------------------------------------------------------------------------------------ */

/* One line, and what is attached to it. */
struct unit {
	const char *line;
	size_t len;     /* of the line, without its newline */
	uint64_t bytes; /* of line, newline and all that is attached */
	bool whole;     /* all of it is here */
};

/* A word "npy=BYTES" or "raw=BYTES". */
static bool is_attachment(const char *word, bool *npy, uint64_t *len)
{
	uint64_t n = 0;

	*npy = strncmp(word, "npy=", 4) == 0;
	if (!*npy && strncmp(word, "raw=", 4) != 0)
		return false;
	word += 4;
	if (*word == '\0')
		return false;
	for (; *word >= '0' && *word <= '9'; word++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*word - '0'), &n))
			n = UINT64_MAX / 16;
	*len = n;
	return *word == '\0';
}

/* What the words announce lies from `data` on, as far as it is there: `have` bytes. */
static int attach(struct conversation *c, struct npkfs_query *q, struct unit *u, const char *data, uint64_t have,
	struct npk_err *err)
{
	uint64_t max = c->h.s->config->ctl_max, len = 0;
	bool npy;

	for (int i = 0; i < q->words.argc; i++) {
		if (!is_attachment(q->words.argv[i], &npy, &len))
			continue;
		if (len > max || u->bytes - u->len > max - len)
			return npk_fail(
				err, E2BIG, "%s: ctl_max is %llu bytes", q->words.argv[i], (unsigned long long)max);
		if (q->nattached == NPKFS_ATTACHED_MAX)
			return npk_fail(err, EINVAL, "more than %d of npy= and raw=", NPKFS_ATTACHED_MAX);
		q->attached[q->nattached++] = (struct npkfs_attached){have >= len ? data : NULL, len, npy};
		u->whole &= have >= len;
		u->bytes += len;
		data += have >= len ? len : have;
		have -= have >= len ? len : have;
	}
	for (unsigned i = 0; i < q->nattached && !u->whole; i++)
		q->attached[i].data = NULL;
	return 0;
}

/* Splits the line in the copy of it and looks what is attached. */
static int split_line(
	struct conversation *c, struct npkfs_query *q, char *copy, struct unit *u, uint64_t have, struct npk_err *err)
{
	const struct npkfs_control *row = c->h.node->control;
	int rc = npkfs_words_split(&q->words, copy, u->len, err);

	if (rc == 0 && (q->words.argc < row->argc_min || q->words.argc > row->argc_max))
		rc = npk_fail(err, EINVAL, "usage: %s", row->usage);
	if (rc == 0 && row->attaches)
		rc = attach(c, q, u, u->line + u->len + 1, have, err);
	return rc;
}

typedef int line_fn(struct npkfs_query *q, struct npk_err *err);

/* The line at `p`, and a call of `fn` with its words; a blank line is nothing. Without a newline, and unless it is the `last`
 * that there will be, it is not whole, and fn is not called. */
static int do_line(struct conversation *c, struct npkfs_query *q, const char *p, const char *end, bool last,
	line_fn *fn, struct unit *u, struct npk_err *err)
{
	const char *nl = memchr(p, '\n', (size_t)(end - p));
	char *copy;
	int rc = 0;

	*u = (struct unit){.line = p, .len = (size_t)((nl != NULL ? nl : end) - p), .whole = nl != NULL || last};
	u->bytes = u->len + (nl != NULL);
	if (u->len > LINE_MAX_BYTES)
		return npk_fail(err, E2BIG, "a line is longer than %u bytes", LINE_MAX_BYTES);
	if (!u->whole)
		return 0;
	copy = malloc(u->len + 1);
	if (copy == NULL)
		return npk_fail(err, ENOMEM, "no memory for a command line");
	memcpy(copy, p, u->len);
	copy[u->len] = '\0';
	if (strspn(copy, " \t\r") != u->len)
		rc = split_line(c, q, copy, u, nl != NULL ? (uint64_t)(end - nl - 1) : 0, err);
	if (rc == 0 && q->words.argc > 0 && fn != NULL)
		rc = fn(q, err);
	q->words.argc = 0;
	q->nattached = 0;
	free(copy);
	return rc;
}

/* Runs one line that is whole; its reply replaces the one before. Needs the lock. */
static int run_line(struct conversation *c, struct npkfs_query *q, const char *p, const char *end, bool last,
	struct unit *u, struct npk_err *err)
{
	int rc;

	q->reply = new_reply();
	if (q->reply == NULL)
		return npk_fail(err, ENOMEM, "no memory for a reply");
	rc = do_line(c, q, p, end, last, c->h.node->control->run, u, err);
	if (rc == 0)
		set_reply(c, q->reply);
	else
		put_reply(q->reply);
	q->reply = NULL;
	return rc;
}

/* Calls check on every line of [p, end), run on none. *whole says where the first one begins that is not whole, *wanted how
 * many bytes it has as a whole, 0 when it has no newline yet. Lines from begin to commit are as one line: what there is of it
 * waits, with a *wanted that any further byte reaches. */
static int check_lines(struct conversation *c, struct npkfs_query *q, const char *p, const char *end,
	const char **whole, uint64_t *wanted, struct npk_err *err)
{
	struct unit u = {.whole = true};
	const char *block = NULL;
	int rc = 0;

	*wanted = 0;
	for (*whole = p; rc == 0 && *whole < end; *whole += u.bytes) {
		rc = do_line(c, q, *whole, end, false, c->h.node->control->check, &u, err);
		if (rc == 0 && !u.whole) {
			*wanted = u.bytes > u.len ? u.bytes : 0;
			break;
		}
		block = !q->in_block ? NULL : block == NULL ? *whole : block;
	}
	if (rc != 0 || block == NULL)
		return rc;
	if (end - block > (int64_t)c->h.s->config->ctl_max + LINE_MAX_BYTES)
		return npk_fail(err, E2BIG, "what is between begin and commit is longer than ctl_max");
	*wanted = *wanted > 0 ? *wanted + (uint64_t)(*whole - block) : (uint64_t)(end - block) + 1;
	*whole = block;
	return 0;
}

/* --- WRITE ------------------------------------------------------------------------------------------------------------- */

/* A block of lines in which one failed: nothing of it happened. */
static void end_block(struct npkfs_query *q)
{
	if (q->space == NULL)
		return;
	npkfs_batch_abort(q->s, q->space, NULL); /* after a commit that failed it is still there */
	npkfs_space_put(q->space);
	q->space = NULL;
}

/* Runs the lines of [p, end), which are whole; *done says where the first one begins that did not run; one of a block of lines
 * that failed is the block's first. Needs the lock. */
static int run_lines(struct conversation *c, struct npkfs_query *q, const char *p, const char *end, const char **done,
	struct npk_err *err)
{
	struct unit u = {0};
	int rc = 0;

	for (*done = p; rc == 0 && p < end; p += rc == 0 ? u.bytes : 0) {
		rc = run_line(c, q, p, end, false, &u, err);
		if (rc == 0 && q->space == NULL)
			*done = p + u.bytes;
	}
	end_block(q);
	return rc;
}

static bool has_several(const struct npk_text *all)
{
	const char *nl = memchr(all->p, '\n', all->len);

	return nl != NULL && nl + 1 < all->p + all->len;
}

/* Takes the first `n` bytes off the line that waits. Needs the lock. */
static void take_off(struct conversation *c, size_t n)
{
	if (n == c->line.len) {
		npk_text_fini(&c->line);
		return;
	}
	if (n > 0)
		memmove(c->line.p, c->line.p + n, c->line.len - n + 1); /* with the NUL behind it */
	c->line.len -= n;
}

static uint64_t hash_of(const struct npkfs_write *w)
{
	uint64_t h = 14695981039346656037u ^ w->len;

	for (size_t i = 0; i < w->len; i++)
		h = (h ^ (unsigned char)w->buf[i]) * 1099511628211u;
	return h;
}

/* What a line announced was refused: the same bytes again get the same error, anything else is a new line. Needs the lock. */
static void forget_refused(struct conversation *c, const struct npkfs_write *w)
{
	if (c->wanted == 0 || c->sticky == 0 || hash_of(w) == c->refused)
		return;
	npk_text_fini(&c->line);
	c->wanted = 0;
}

/* A failed write takes nothing: the line that was begun before stays as it was, so a client that sends the same bytes
 * again gets the same error again. After a failure in a later line the count stops before it. Needs the lock. */
static int take_bytes(struct conversation *c, const struct npkfs_write *w, size_t *taken, struct npk_err *err)
{
	struct npkfs_query q = {.s = c->h.s, .node = c->h.node, .who = w->who};
	size_t begun = c->line.len;
	const char *whole, *done;
	uint64_t wanted = c->wanted;
	bool looked = false;
	int rc;

	npk_text_add(&c->line, w->buf, w->len);
	if (c->line.bad) {
		npk_text_fini(&c->line);
		c->wanted = 0;
		return npk_fail(err, ENOMEM, "no memory for %zu bytes", w->len);
	}
	set_reply(c, NULL);
	whole = done = c->line.p;
	if (wanted > c->line.len) { /* more of what was checked before */
		rc = 0;
	} else {
		looked = true;
		q.several = has_several(&c->line);
		rc = check_lines(c, &q, c->line.p, c->line.p + c->line.len, &whole, &wanted, err);
		if (rc == 0)
			rc = run_lines(c, &q, c->line.p, whole, &done, err);
	}
	if (rc == 0) {
		*taken = w->len;
		c->wanted = wanted;
		take_off(c, (size_t)(done - c->line.p));
	} else if (done > c->line.p + begun) {
		*taken = (size_t)(done - c->line.p) - begun;
		c->wanted = 0;
		take_off(c, c->line.len);
		rc = 0;
	} else {
		c->line.len = begun;
		if (begun > 0)
			c->line.p[begun] = '\0';
		else
			npk_text_fini(&c->line);
	}
	if (rc == 0)
		c->line_owner = w->owner;
	c->in_block = rc == 0 && (looked ? q.in_block : c->in_block);
	c->json = q.json;
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
	forget_refused(c, w);
	rc = take_bytes(c, w, taken, err);
	npkfs_window_wrote(&c->window, w->off + (rc == 0 ? *taken : 0));
	c->sticky = rc;
	if (rc != 0) {
		c->refused = c->wanted > 0 ? hash_of(w) : 0;
		set_error_reply(c, rc, err, c->json);
	}
	pthread_mutex_unlock(&c->lock);
	w->announced = handle->node->control->changes;
	return rc;
}

/* --- FLUSH ------------------------------------------------------------------------------------------------------------- */

static int cut_short(const struct conversation *c, struct npk_err *err)
{
	if (c->in_block)
		return npk_fail(err, EINVAL, "begin: there is no commit yet");
	return npk_fail(err, EINVAL, "the line announces %llu bytes with what follows it, there are %zu",
		(unsigned long long)c->wanted, c->line.len);
}

/* A line that is not whole is dropped, with an entry in last_error. Needs the lock. */
static void drop_line(struct conversation *c, struct npkfs_caller who)
{
	struct npk_text path = {0};

	if (c->line.len == 0)
		return;
	c->h.node->type->path(c->h.node, &path);
	npkfs_lasterr_add(&c->h.s->lasterr, who.uid, who.pid, EINVAL, path.bad ? "?" : path.p,
		c->in_block     ? "lines between begin and commit were dropped: there was no commit"
		: c->wanted > 0 ? "a line was dropped, for not all that it announces came"
				: "a last line without newline was dropped");
	npk_text_fini(&path);
	npk_text_fini(&c->line);
	c->wanted = 0;
	c->in_block = false;
}

/* A line without newline is dropped when somebody else closes, at the end, and after a failed write: what came of it may be
 * half of what was meant. One that waits for what it announces is kept until the end: a shell flushes between the two. */
static int flush_conversation(struct npkfs_handle *handle, uint64_t owner, struct npkfs_caller who, struct npk_err *err)
{
	struct conversation *c = (struct conversation *)handle;
	struct npkfs_query q = {.s = handle->s, .node = handle->node, .who = who};
	struct npk_text line;
	struct unit u;
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = c->sticky;
	if (c->wanted > 0) {
		if (rc == 0 && owner == c->line_owner)
			rc = cut_short(c, err);
		pthread_mutex_unlock(&c->lock);
		return rc;
	}
	if (c->line.len > 0 && owner == c->line_owner && rc == 0) {
		line = c->line;
		c->line = (struct npk_text){0};
		c->sticky = run_line(c, &q, line.p, line.p + line.len, true, &u, err);
		if (c->sticky != 0)
			set_error_reply(c, c->sticky, err, q.json);
		npk_text_fini(&line);
	}
	drop_line(c, who);
	rc = c->sticky;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* --- READ -------------------------------------------------------------------------------------------------------------- */

/* The bytes [off, off + len) of block `b`, whose header is made anew for every read. */
static int read_block(const struct npkfs_reply *r, uint64_t b, uint64_t off, char *to, size_t len, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(r->view);
	uint64_t first = b * r->block_rows, left = info->rows - first;
	struct npk_shape shape = info->shape;
	char header[NPK_NPY_HEADER_MAX];
	size_t head, n;

	shape.dim[0] = left < r->block_rows ? left : r->block_rows;
	head = npk_npy_header(header, info->dtype, &shape, r->align);
	n = off < head ? (head - off < len ? head - (size_t)off : len) : 0;
	if (n > 0)
		memcpy(to, header + off, n);
	off += n;
	return n == len ? 0 : npk_view_read(r->view, first * info->row_bytes + off - head, to + n, len - n, err);
}

/* The header has the same length for every number of rows. */
static int read_blocks(
	const struct npkfs_reply *r, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(r->view);
	uint64_t size = r->text.len + r->block_rows * info->row_bytes, nblocks, all;
	int rc = 0;
	size_t n;
	char *to;

	nblocks = (info->rows + r->block_rows - 1) / r->block_rows;
	all = nblocks * r->text.len + info->bytes;
	if (off >= all)
		return 0;
	len = all - off < len ? (size_t)(all - off) : len;
	to = npkfs_out_room(out, len);
	for (; len > 0 && rc == 0; off += n, to += n, len -= n) {
		n = size - off % size < len ? (size_t)(size - off % size) : len;
		rc = read_block(r, off / size, off % size, to, n, err);
	}
	return rc;
}

static int read_conversation(
	struct npkfs_handle *handle, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	struct conversation *c = (struct conversation *)handle;
	struct npkfs_reply *r;
	struct npk_err why;
	size_t n;

	pthread_mutex_lock(&c->lock);
	if (c->wanted > 0 && c->reply == NULL)
		set_error_reply(c, cut_short(c, &why), &why, false);
	off = npkfs_window_place(&c->window, off);
	r = c->reply;
	if (r != NULL)
		atomic_fetch_add(&r->refs, 1);
	pthread_mutex_unlock(&c->lock);
	if (r == NULL)
		return 0;
	out->done = put_reply;
	out->ctx = r;
	if (r->view != NULL && r->block_rows > 0)
		return read_blocks(r, off, len, out, err);
	if (r->view != NULL)
		return npkfs_npy_read(r->text.p, r->text.len, r->view, off, len, out, err);
	if (r->search != NULL)
		return npkfs_search_read(r->search, off, len, out, err);
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

static bool is_slow(struct npkfs_handle *handle)
{
	struct conversation *c = (struct conversation *)handle;
	bool slow;

	pthread_mutex_lock(&c->lock);
	slow = c->reply != NULL && c->reply->search != NULL && npkfs_search_is_slow(c->reply->search);
	pthread_mutex_unlock(&c->lock);
	return slow;
}

static const struct npkfs_handle_ops handle_ops = {
	.is_slow = is_slow,
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
