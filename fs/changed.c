/* changed.c - see changed.h. */
#include "changed.h"
#include "layout.h"
#include "names.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WRITERS_MS 500

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

int npkfs_announce_grown(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type, .space = sp};
	struct npkfs_layout *before, *after;
	struct npkfs_node *node;
	struct npk_gen *g;
	uint64_t end;
	int rc = npk_gen_get(&g, a, err);

	atomic_fetch_add(&s->epoch, 1);
	if (rc != 0)
		return rc;
	key.number = npk_gen_info(g)->number;
	node = npkfs_node_by_key(&s->inodes, &key);
	before = node != NULL ? npkfs_node_layout(node) : NULL;
	if (before != NULL) {
		rc = npkfs_node_update(s, node, g, err);
		after = npkfs_node_layout(node);
		end = before->header_len + before->bytes;
		/* The header, and the page in which the file ended. */
		npkfs_inval_range(&s->inval, node->id, 0, before->header_len);
		if (after != NULL && after->bytes > before->bytes)
			npkfs_inval_range(&s->inval, node->id, end, 1);
		npkfs_layout_put(after);
	}
	npkfs_layout_put(before);
	npkfs_node_put(&s->inodes, node);
	npk_gen_put(g);
	return rc;
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

void npkfs_announce_written(struct npkfs_session *s, const struct npkfs_node *but, const char *name, size_t len)
{
	struct search f = {.s = s, .but = but, .name = name, .len = len};

	atomic_fetch_add(&s->content, 1);
	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, invalidate, &f);
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

static void look_for_writers(void *ctx, struct npkfs_node *node)
{
	struct search *f = ctx;

	if (atomic_load(&node->writers) > 0 && !atomic_load(&node->compacted) && is_called(node, f))
		f->found = true;
}

bool npkfs_has_writer(struct npkfs_session *s, struct npkfs_space *sp, const char *name, size_t len)
{
	struct search f = {.s = s, .one_space = true, .space = sp, .name = name, .len = len};

	npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, look_for_writers, &f);
	return f.found;
}

int npkfs_wait_for_writers(struct npkfs_session *s, struct npkfs_space *sp, const char *name, size_t len)
{
	for (int ms = 0; npkfs_has_writer(s, sp, name, len); ms += 10) {
		if (ms >= WRITERS_MS)
			return -EBUSY;
		usleep(10000);
	}
	return 0;
}

/* A node that shows the array's present generation is one that was made since. */
static void mark(void *ctx, struct npkfs_node *node)
{
	struct search *f = ctx;

	if (is_called(node, f) && node->number != f->generation && (node->number & NPKFS_STAGED_NUMBER) == 0)
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

void npkfs_mark_compacted(struct npkfs_session *s, struct npkfs_space *sp, const char *name, size_t len)
{
	struct search f = {.s = s, .one_space = true, .space = sp, .name = name, .len = len};

	f.generation = generation_of(s, sp, name, len);
	if (f.generation != 0)
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
