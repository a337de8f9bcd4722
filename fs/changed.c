/* changed.c - see changed.h. */
#include "changed.h"
#include "layout.h"
#include "log.h"
#include "names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITERS_MS 500
/* Of more places than this, or from so many rows, the kernel drops all pages: to name them would take as long. */
#define PLACES_MAX 128
#define PLACES_ROWS 4096
#define PLACES_GAP 65536 /* bytes between two places that become one */
/* The kernel's pages of a file come in pieces of up to FOLIO_MAX bytes; so many are pushed at a time. */
#define FOLIO_MAX ((uint64_t)1 << 20)
#define PUSH_BYTES ((uint64_t)128 << 10)

static uint64_t arrays_dir_id(struct npkfs_session *s)
{
	const struct npkfs_key key = {.type = &npkfs_arrays_dir_type};
	struct npkfs_node *node = npkfs_node_by_key(&s->inodes, &key);
	uint64_t id = node != NULL ? node->id : 0;

	npkfs_node_put(&s->inodes, node);
	return id;
}

/* The kernel's cached listing is not dropped by an entry that it does not have. */
static void announce_names(struct npkfs_session *s, const void *name, size_t len)
{
	uint64_t arrays = arrays_dir_id(s);
	char part[NPKFS_NAME_MAX + 1];

	npkfs_inval_node(&s->inval, NPKFS_ROOT_ID);
	if (arrays == 0)
		return;
	if (npkfs_name_escape(part, name, len, ""))
		npkfs_inval_entry(&s->inval, arrays, part);
	npkfs_inval_node(&s->inval, arrays);
}

void npkfs_announce(struct npkfs_session *s, struct npkfs_space *sp, const void *name, size_t len, enum npk_change what)
{
	char part[NPKFS_NAME_MAX + 1];

	atomic_fetch_add(&s->epoch, 1); /* before the kernel may ask again */
	if (sp != NULL)
		return; /* the kernel keeps no names of a transaction */
	if (npkfs_name_escape(part, name, len, ".npy"))
		npkfs_inval_entry(&s->inval, NPKFS_ROOT_ID, part);
	if (what != NPK_CHANGED)
		announce_names(s, name, len);
}

/* --- rows are added ------------------------------------------------------------------------------------------------------ */

struct growth {
	struct npkfs_session *s;
	struct npkfs_node *node;
};

/* Bytes [off, off + len) behind the header, as they are now, into the kernel's pages. False: it could not be done. */
static bool push_bytes(
	struct npkfs_session *s, struct npkfs_node *node, struct npkfs_layout *l, uint64_t off, size_t len)
{
	struct npk_err err = {ENOMEM, "no memory"};
	char small[256], *bytes = len <= sizeof(small) ? small : malloc(len);
	bool ok = bytes != NULL && npk_view_read(l->view, off, bytes, len, &err) == 0;

	if (ok)
		npkfs_inval_store_now(&s->inval, node->id, l->header_len + off, bytes, len);
	else
		npkfs_log(NPKFS_WARN, "the size of node %llu: %s", (unsigned long long)node->id, err.msg);
	if (bytes != small)
		free(bytes);
	return ok;
}

/* The size is pushed, by the last byte: an answer to GETATTR that crosses a notification is thrown away by the kernel, and the
 * reader goes on with the size of before. */
static void push_size(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_layout *l)
{
	if (push_bytes(s, node, l, l->bytes - 1, 1)) /* somebody may have overwritten that byte meanwhile */
		npkfs_inval_range_now(&s->inval, node->id, l->header_len + l->bytes - 1, 1);
}

/* Likewise beside writable maps: a page in which the file ended may be dirty, and when the kernel writes it out before it has the
 * new size, it zeroes what lies behind the old one. So the rows themselves are pushed into what may be that page. */
static void push_rows(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_layout *l, uint64_t from)
{
	uint64_t off = from - l->header_len, n = l->bytes - off, most = n < FOLIO_MAX ? n : FOLIO_MAX;
	bool ok = n <= PUSH_BYTES || push_bytes(s, node, l, l->bytes - 1, 1);

	for (uint64_t at = 0, len; at < most && ok; at += len) {
		len = most - at < PUSH_BYTES ? most - at : PUSH_BYTES;
		ok = push_bytes(s, node, l, off + at, (size_t)len);
	}
	npkfs_inval_range_now(&s->inval, node->id, from, n);
}

/* The kernel learns of a longer file in the order in which a reader cannot see half of it: the rows can be read already; the
 * page in which the file ended goes, then the size grows, then the header. Zeros that such a page got in between are kept out of
 * the array until it is gone: no map had these rows before. Who opens the file to map it waits for the end of this. */
static void show_size(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_layout *l, uint64_t from)
{
	bool grown = l->header_len + l->bytes > from, mapped = atomic_load(&node->writable) > 0;

	if (grown)
		npkfs_inval_range_now(&s->inval, node->id, from, 1);
	if (grown && mapped)
		atomic_store(&node->guarded, from);
	npkfs_node_show_size(node, l);
	if (grown && mapped)
		push_rows(s, node, l, from);
	else if (grown)
		push_size(s, node, l);
	atomic_store(&node->guarded, 0);
}

static void show_grown(struct npkfs_session *s, struct npkfs_node *node)
{
	struct npkfs_layout *l, *before;
	uint64_t bytes;

	pthread_mutex_lock(&node->lock);
	node->publishing = false; /* what comes from here on is told by the next call */
	pthread_mutex_unlock(&node->lock);
	before = npkfs_node_shown(node, &bytes);
	l = npkfs_node_layout(node);
	if (l != NULL && before != NULL) {
		show_size(s, node, l, before->header_len + before->bytes);
		npkfs_node_show_header(node, l);
		npkfs_inval_range_now(&s->inval, node->id, 0, l->header_len);
	}
	npkfs_layout_put(before);
	npkfs_layout_put(l);
}

static void growth_told(void *ctx)
{
	struct growth *p = ctx;

	show_grown(p->s, p->node);
	npkfs_node_put(&p->s->inodes, p->node);
	free(p);
}

/* Whoever finds `publishing` set may rely on the call being in the queue. */
static pthread_mutex_t telling = PTHREAD_MUTEX_INITIALIZER;

/* Needs `telling`. *queued: the call is in the queue, but it is another one. */
static int queue_growth(struct npkfs_session *s, struct growth *p, bool *queued)
{
	int rc = 0;

	pthread_mutex_lock(&p->node->lock);
	*queued = p->node->publishing;
	p->node->publishing = true;
	pthread_mutex_unlock(&p->node->lock);
	if (*queued)
		return 0;
	rc = npkfs_inval_call(&s->inval, growth_told, p);
	if (rc != 0) {
		pthread_mutex_lock(&p->node->lock);
		p->node->publishing = false;
		pthread_mutex_unlock(&p->node->lock);
	}
	return rc;
}

int npkfs_tell_grown(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err)
{
	struct growth *p = malloc(sizeof(*p));
	bool queued;
	int rc;

	if (p == NULL)
		return npk_fail(err, ENOMEM, "no memory to tell the kernel of added rows");
	*p = (struct growth){.s = s, .node = npkfs_node_ref(&s->inodes, node)};
	pthread_mutex_lock(&telling);
	rc = queue_growth(s, p, &queued);
	pthread_mutex_unlock(&telling);
	if (rc == 0 && !queued)
		return 0;
	npkfs_node_put(&s->inodes, node);
	free(p);
	return rc == 0 ? 0 : npk_fail(err, ENOMEM, "no memory to tell the kernel of added rows");
}

/* Whether the kernel was told less than the node has. */
static bool has_news(struct npkfs_node *node)
{
	bool news;

	pthread_mutex_lock(&node->lock);
	news = node->shown != NULL;
	pthread_mutex_unlock(&node->lock);
	return news;
}

int npkfs_announce_grown(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type, .space = sp};
	struct npkfs_node *node;
	struct npk_gen *g;
	int rc = npk_gen_get(&g, a, err);

	atomic_fetch_add(&s->epoch, 1);
	if (rc != 0)
		return rc;
	key.number = npk_gen_info(g)->number;
	node = npkfs_node_by_key(&s->inodes, &key);
	if (node != NULL)
		rc = npkfs_node_update(s, node, g, err);
	if (node != NULL && rc == 0 && has_news(node))
		rc = npkfs_tell_grown(s, node, err);
	npkfs_node_put(&s->inodes, node);
	npk_gen_put(g);
	return rc;
}

/* --- rows of a generation ------------------------------------------------------------------------------------------------ */

struct places {
	uint64_t number; /* of the generation; 0: nobody knows which bytes they are */
	struct place {
		uint64_t off, len;
	} at[PLACES_MAX]; /* behind the header */
	size_t n;
};

static int by_row(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* False: they are too many. `row` is sorted. */
static bool join_places(struct places *p, const uint64_t *row, size_t n, uint64_t row_bytes)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t off = row[i] * row_bytes;
		struct place *last = p->n > 0 ? &p->at[p->n - 1] : NULL;

		if (last != NULL && off <= last->off + last->len + PLACES_GAP)
			last->len = off + row_bytes - last->off;
		else if (p->n == PLACES_MAX)
			return false;
		else
			p->at[p->n++] = (struct place){off, row_bytes};
	}
	return true;
}

/* Rows, none below 0, are those of the generation that the array had at the change. When it has the same one before and after,
 * that is it. */
static void find_places(struct places *p, struct npk_array *a, const struct npk_gen *g, const int64_t *rows, size_t n)
{
	const struct npk_gen_info *info = npk_gen_info(g);
	uint64_t row[PLACES_ROWS];
	struct npk_gen *now = NULL;

	*p = (struct places){0};
	if (n > PLACES_ROWS || npk_gen_get(&now, a, NULL) != 0)
		return;
	for (size_t i = 0; i < n; i++)
		row[i] = (uint64_t)rows[i];
	qsort(row, n, sizeof(*row), by_row);
	if (npk_gen_info(now)->number == info->number && join_places(p, row, n, info->row_bytes))
		p->number = info->number;
	npk_gen_put(now);
}

/* --- nodes of one array -------------------------------------------------------------------------------------------------- */

struct search {
	struct npkfs_session *s;
	const struct npkfs_node *but;
	bool one_space;
	const struct npkfs_space *space; /* when one_space */
	const char *name;                /* NULL: any */
	size_t len;
	uint64_t generation;
	const struct npk_gen *slots; /* only nodes that show slots of this; NULL: any */
	const struct places *places; /* which bytes have changed; NULL: all may have */
	bool found;
};

static bool is_called(struct npkfs_node *node, const struct search *f)
{
	bool same;

	if (f->one_space && node->space != f->space)
		return false;
	if (f->name == NULL)
		return true;
	pthread_mutex_lock(&node->lock);
	same = node->called != NULL ? node->called_len == f->len && memcmp(node->called, f->name, f->len) == 0
				    : node->name_len == f->len && memcmp(node->name, f->name, f->len) == 0;
	pthread_mutex_unlock(&node->lock);
	return same;
}

static void invalidate(void *ctx, struct npkfs_node *node)
{
	struct search *f = ctx;

	if (node != f->but && is_called(node, f))
		npkfs_inval_node(&f->s->inval, node->id);
}

static void invalidate_places(void *ctx, struct npkfs_node *node)
{
	const struct search *f = ctx;
	struct npkfs_layout *l = is_called(node, f) ? npkfs_node_layout(node) : NULL;
	bool shows = l != NULL && npk_gen_info(l->gen)->number == f->places->number;

	if (!shows)
		invalidate(ctx, node);
	for (size_t i = 0; shows && i < f->places->n; i++)
		npkfs_inval_range(&f->s->inval, node->id, l->header_len + f->places->at[i].off, f->places->at[i].len);
	npkfs_layout_put(l);
}

void npkfs_announce_written(struct npkfs_session *s, const struct npkfs_node *but, const char *name, size_t len)
{
	struct search f = {.s = s, .but = but, .name = name, .len = len};

	atomic_fetch_add(&s->content, 1);
	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, invalidate, &f);
	npkfs_nodes_of_type(&s->inodes, &npkfs_view_type, invalidate, &f);
}

void npkfs_announce_replaced(
	struct npkfs_session *s, struct npk_array *a, const struct npk_gen *g, const int64_t *rows, size_t n)
{
	struct places places;
	struct search f = {.s = s, .places = &places};

	find_places(&places, a, g, rows, n);
	f.name = npk_array_name(a, &f.len);
	atomic_fetch_add(&s->content, 1);
	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, places.number != 0 ? invalidate_places : invalidate, &f);
	npkfs_nodes_of_type(&s->inodes, &npkfs_view_type, invalidate, &f);
}

static void flush(void *ctx, struct npkfs_node *node)
{
	struct search *f = ctx;

	if (atomic_load(&node->writable) == 0 || !is_called(node, f))
		return;
	f->found = true;
	npkfs_inval_node(&f->s->inval, node->id);
}

bool npkfs_flush_maps(struct npkfs_session *s, const char *name, size_t len)
{
	struct search f = {.s = s, .name = name, .len = len};

	if (atomic_load(&s->writable) > 0)
		npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, flush, &f);
	return f.found;
}

/* What was saved over or removed under the same name has other slots. */
static bool has_slots(struct npkfs_node *node, const struct npk_gen *g)
{
	struct npkfs_layout *l = npkfs_node_layout(node);
	const struct npk_gen *shown = l != NULL ? l->gen : node->gen; /* a view's */
	bool has = shown != NULL && npk_gen_shares(shown, g);

	npkfs_layout_put(l);
	return has;
}

static void look_for_writers(void *ctx, struct npkfs_node *node)
{
	struct search *f = ctx;

	if (atomic_load(&node->writers) == 0 || node->space != f->space)
		return;
	if (f->slots == NULL || has_slots(node, f->slots))
		f->found = true;
}

bool npkfs_has_writer(struct npkfs_session *s, struct npkfs_space *sp, const struct npk_gen *g)
{
	struct search f = {.s = s, .space = sp, .slots = g};

	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, look_for_writers, &f);
	npkfs_nodes_of_type(&s->inodes, &npkfs_view_type, look_for_writers, &f);
	return f.found;
}

int npkfs_wait_for_writers(struct npkfs_session *s, struct npkfs_space *sp, const struct npk_gen *g)
{
	for (int ms = 0; npkfs_has_writer(s, sp, g); ms += 10) {
		if (ms >= WRITERS_MS)
			return -EBUSY;
		usleep(10000);
	}
	return 0;
}

static void mark(void *ctx, struct npkfs_node *node)
{
	struct search *f = ctx;

	if (node->space == f->space && has_slots(node, f->slots))
		atomic_store(&node->compacted, true);
}

static uint64_t generation_of(struct npkfs_session *s, struct npkfs_space *sp, const char *name, size_t len)
{
	struct npk_array *a;
	struct npk_gen *g;
	uint64_t number = 0;

	if (npkfs_array_get(s, sp, name, len, &a, NULL) != 0)
		return 0;
	if (npk_gen_get(&g, a, NULL) == 0) {
		number = npk_gen_info(g)->number;
		npk_gen_put(g);
	}
	npk_array_put(a);
	return number;
}

void npkfs_mark_compacted(struct npkfs_session *s, struct npkfs_space *sp, const struct npk_gen *g)
{
	struct search f = {.s = s, .space = sp, .slots = g};

	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, mark, &f);
}

/* --- renames ------------------------------------------------------------------------------------------------------------- */

struct renaming {
	struct search from, to;
	bool exchange;
};

static void follow(void *ctx, struct npkfs_node *node)
{
	const struct renaming *r = ctx;

	if ((node->number & NPKFS_STAGED_NUMBER) != 0)
		return;
	/* A generation that has the old name now was made since. */
	if (is_called(node, &r->from) && node->number != r->from.generation)
		npkfs_node_call(node, r->to.name, r->to.len);
	else if (r->exchange && is_called(node, &r->to) && node->number != r->to.generation)
		npkfs_node_call(node, r->from.name, r->from.len);
}

void npkfs_renamed(struct npkfs_session *s, struct npkfs_space *sp, const char *from, const char *to, bool exchange)
{
	struct renaming r = {.exchange = exchange};

	r.from = (struct search){.s = s, .one_space = true, .space = sp, .name = from, .len = strlen(from)};
	r.to = (struct search){.s = s, .one_space = true, .space = sp, .name = to, .len = strlen(to)};
	r.from.generation = generation_of(s, sp, from, r.from.len);
	r.to.generation = generation_of(s, sp, to, r.to.len);
	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, follow, &r);
	npkfs_nodes_of_type(&s->inodes, &npkfs_view_type, follow, &r);
}
