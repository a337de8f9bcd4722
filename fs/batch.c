/* batch.c - see batch.h. */
#include "batch.h"
#include "changed.h"
#include "dir.h"
#include "file.h"
#include "layout.h"
#include "log.h"
#include "root.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void npkfs_batches_init(struct npkfs_batches *b)
{
	memset(b, 0, sizeof(*b));
	pthread_mutex_init(&b->lock, NULL);
}

/* --- the table ------------------------------------------------------------------------------------------------------------ */

/* Needs the lock. */
static struct npkfs_space *find(struct npkfs_batches *b, const char *name)
{
	struct npkfs_space *sp = b->first;

	while (sp != NULL && strcmp(sp->name, name) != 0)
		sp = sp->next;
	return sp;
}

/* The open transaction of that name with a reference, or NULL. */
static struct npkfs_space *get(struct npkfs_session *s, const char *name)
{
	struct npkfs_space *sp;

	pthread_mutex_lock(&s->batches.lock);
	sp = npkfs_space_ref(find(&s->batches, name));
	pthread_mutex_unlock(&s->batches.lock);
	return sp;
}

static int add(struct npkfs_session *s, struct npkfs_space *sp)
{
	bool taken;

	pthread_mutex_lock(&s->batches.lock);
	taken = find(&s->batches, sp->name) != NULL;
	if (!taken) {
		sp->listed = true;
		sp->next = s->batches.first;
		s->batches.first = npkfs_space_ref(sp);
	}
	pthread_mutex_unlock(&s->batches.lock);
	return taken ? -EEXIST : 0;
}

/* Its name is free, and what nobody completed in it goes. */
static void unlist(struct npkfs_session *s, struct npkfs_space *sp)
{
	struct npkfs_space **p = &s->batches.first;
	bool listed;

	pthread_mutex_lock(&s->batches.lock);
	listed = sp->listed;
	sp->listed = false;
	while (listed && *p != sp)
		p = &(*p)->next;
	if (listed)
		*p = sp->next;
	pthread_mutex_unlock(&s->batches.lock);
	if (listed)
		npkfs_space_put(sp);
	npkfs_staging_drop(s, sp);
}

void npkfs_batches_fini(struct npkfs_session *s)
{
	while (s->batches.first != NULL)
		npkfs_batch_abort(s, s->batches.first, NULL);
	pthread_mutex_destroy(&s->batches.lock);
}

/* --- begin, commit, abort --------------------------------------------------------------------------------------------------- */

int npkfs_batch_begin(struct npkfs_session *s, const char *name, struct npkfs_space **out, struct npk_err *err)
{
	struct npkfs_space *sp = calloc(1, sizeof(*sp));
	int rc = 0;

	if (sp == NULL)
		return npk_fail(err, ENOMEM, "no memory for a transaction");
	atomic_init(&sp->refs, 1);
	pthread_rwlock_init(&sp->lock, NULL);
	sp->name = strdup(name != NULL ? name : "begin");
	if (sp->name == NULL)
		rc = npk_fail(err, ENOMEM, "no memory for a transaction");
	if (rc == 0)
		rc = npk_txn_begin(&sp->txn, s->store, err);
	if (rc == 0) {
		sp->store = npk_txn_store(sp->txn);
		rc = name != NULL ? add(s, sp) : 0;
	}
	if (rc != 0)
		npkfs_space_put(sp);
	else
		*out = sp;
	return rc;
}

struct changed {
	struct npk_gen *g; /* what the array is now; NULL: gone, or damaged */
	char *name;
	size_t len;
};

/* What a commit changed. */
struct changes {
	struct npkfs_session *s;
	struct changed *list;
	size_t n;
	bool bad; /* no memory */
};

static void keep_change(struct changes *c, struct npk_array *a, const char *name, size_t len)
{
	struct changed *more =
		(c->n & (c->n - 1)) == 0 ? realloc(c->list, (c->n ? 2 * c->n : 1) * sizeof(*more)) : c->list;
	char *copy = malloc(len + 1);

	if (more != NULL)
		c->list = more;
	if (more == NULL || copy == NULL) {
		free(copy);
		c->bad = true;
		return;
	}
	memcpy(copy, name, len);
	copy[len] = '\0';
	c->list[c->n] = (struct changed){.name = copy, .len = len};
	if (npk_gen_get(&c->list[c->n].g, a, NULL) != 0)
		c->list[c->n].g = NULL;
	c->n++;
}

/* The transaction changed an array of the store. */
static void on_change(void *ctx, struct npk_array *a, enum npk_change what)
{
	struct changes *c = ctx;
	size_t len;
	const char *name = npk_array_name(a, &len);

	if (what == NPK_CHANGED) {
		npkfs_announce_grown(c->s, NULL, a, NULL);
		npkfs_announce_written(c->s, NULL, name, len);
	}
	if (what != NPK_GONE)
		keep_change(c, a, name, len);
	npkfs_announce(c->s, NULL, name, len, what);
}

/* A file outside that shows rows of an array which was renamed inside follows, as with any rename. */
static void follow_rename(void *ctx, struct npkfs_node *node)
{
	const struct changes *c = ctx;
	struct npkfs_layout *l = npkfs_node_layout(node);
	const struct npk_gen *g = l != NULL ? l->gen : node->gen;

	for (size_t i = 0; i < c->n && g != NULL && node->space == NULL; i++)
		if (c->list[i].g != NULL && npk_gen_shares(c->list[i].g, g))
			npkfs_node_call(node, c->list[i].name, c->list[i].len);
	npkfs_layout_put(l);
}

static int follow_renames(struct changes *c, struct npk_err *err)
{
	int rc = c->bad ? -ENOMEM : npkfs_nodes_of_type(&c->s->inodes, &npkfs_array_type, follow_rename, c);

	if (rc == 0)
		rc = npkfs_nodes_of_type(&c->s->inodes, &npkfs_view_type, follow_rename, c);
	for (size_t i = 0; i < c->n; i++) {
		npk_gen_put(c->list[i].g);
		free(c->list[i].name);
	}
	free(c->list);
	return rc == 0 ? 0 : npk_fail(err, ENOMEM, "committed, but no memory to tell open files");
}

struct follower {
	struct npkfs_session *s;
	const struct npkfs_space *space;
};

/* Both have the same rows in the same slots: rows are only added to a file's, or deleted. */
static bool is_same_layout(const struct npk_gen *a, const struct npk_gen *b)
{
	const struct npk_gen_info *x = npk_gen_info(a), *y = npk_gen_info(b);

	return npk_gen_shares(a, b) && x->slots == y->slots && x->rows == y->rows;
}

/* What the node shows is a generation of the store now. Rows that were added and waited in a file of their own lie where the
 * array has them: what is written to them there is to be seen. */
static int show_committed(struct npkfs_session *s, struct npkfs_node *node, struct npk_gen *g, struct npk_err *err)
{
	struct npkfs_layout *l = npkfs_node_layout(node), *now = NULL;
	int rc = 0;

	if (l != NULL && is_same_layout(l->gen, g)) {
		rc = npk_gen_map(g, err);
		if (rc == 0)
			rc = npkfs_layout_new(&now, s, g, l->header, l->header_len, err);
		if (rc == 0) {
			npkfs_node_set_layout(node, now);
			npkfs_node_rekey(&s->inodes, node, npk_gen_info(g)->number);
		}
	}
	npkfs_layout_put(l);
	return rc;
}

static void follow(void *ctx, struct npkfs_node *node)
{
	const struct follower *f = ctx;
	struct npk_array *a;
	struct npk_gen *g;
	struct npk_err err;
	int rc;

	if (node->space != f->space || npkfs_node_array(f->s, node, &a, NULL) != 0)
		return;
	rc = npk_gen_get(&g, a, &err);
	if (rc == 0) {
		rc = show_committed(f->s, node, g, &err);
		npk_gen_put(g);
	}
	if (rc != 0) /* it shows what it showed */
		npkfs_log(NPKFS_WARN, "node %llu after the commit: %s", (unsigned long long)node->id, err.msg);
	npk_array_put(a);
}

static int follow_all(struct npkfs_session *s, const struct npkfs_space *sp, struct npk_err *err)
{
	struct follower f = {s, sp};

	return npkfs_nodes_of_type(&s->inodes, &npkfs_array_type, follow, &f) == 0
		       ? 0
		       : npk_fail(err, ENOMEM, "committed, but no memory to tell open files");
}

static int ended(const struct npkfs_space *sp, struct npk_err *err)
{
	return npk_fail(err, ESTALE, "the transaction '%s' has ended", sp->name);
}

int npkfs_batch_commit(struct npkfs_session *s, struct npkfs_space *sp, struct npk_err *err)
{
	int rc = npkfs_wait_for_writers(s, sp, NULL), told;
	struct changes c = {.s = s};

	if (rc != 0)
		return npk_fail(err, EBUSY, "a file in the transaction '%s' is open for writing", sp->name);
	pthread_rwlock_wrlock(&sp->lock);
	rc = sp->txn != NULL ? npk_txn_commit(sp->txn, on_change, &c, err) : ended(sp, err);
	if (rc == 0) {
		sp->txn = NULL;
		sp->store = s->store;
	}
	pthread_rwlock_unlock(&sp->lock);
	if (rc != 0)
		return rc;
	atomic_store(&sp->ended, true);
	unlist(s, sp);
	rc = follow_renames(&c, err);
	told = follow_all(s, sp, rc == 0 ? err : NULL);
	rc = rc == 0 ? told : rc;
	return rc == 0 ? npkfs_sync_change(s, err) : rc;
}

int npkfs_batch_abort(struct npkfs_session *s, struct npkfs_space *sp, struct npk_err *err)
{
	struct npk_txn *txn;

	pthread_rwlock_wrlock(&sp->lock);
	txn = sp->txn;
	sp->txn = NULL;
	if (txn != NULL)
		sp->store = NULL;
	pthread_rwlock_unlock(&sp->lock);
	if (txn == NULL)
		return ended(sp, err);
	atomic_store(&sp->ended, true);
	unlist(s, sp);
	npk_txn_abort(txn);
	return 0;
}

/* --- .numpack/batch ----------------------------------------------------------------------------------------------------------- */

static int lookup_batches(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_batch_type, .space = get(s, name)};
	int rc;

	(void)dir, (void)who;
	if (key.space == NULL)
		return -ENOENT;
	rc = npkfs_plain_node(s, &key, out, err);
	npkfs_space_put(key.space);
	return rc;
}

static int list_batches(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	(void)dir, (void)err;
	pthread_mutex_lock(&s->batches.lock);
	for (const struct npkfs_space *sp = s->batches.first; sp != NULL; sp = sp->next)
		npkfs_dir_add(names, sp->name, S_IFDIR);
	pthread_mutex_unlock(&s->batches.lock);
	return 0;
}

static int make_batch(
	struct npkfs_session *s, struct npkfs_node *dir, const char *name, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_batch_type};
	int rc;

	(void)dir;
	if (strlen(name) > NPKFS_BATCH_NAME_MAX)
		return -ENAMETOOLONG;
	rc = npkfs_batch_begin(s, name, &key.space, err);
	if (rc != 0)
		return rc;
	rc = npkfs_plain_node(s, &key, out, err);
	if (rc != 0)
		npkfs_batch_abort(s, key.space, NULL);
	npkfs_space_put(key.space);
	return rc;
}

static int remove_batch(struct npkfs_session *s, struct npkfs_node *dir, const char *name, struct npk_err *err)
{
	struct npkfs_space *sp = get(s, name);
	int rc;

	(void)dir;
	if (sp == NULL)
		return -ENOENT;
	rc = npkfs_batch_abort(s, sp, err);
	npkfs_space_put(sp);
	return rc == -ESTALE ? -ENOENT : rc;
}

static void path_batches(const struct npkfs_node *node, struct npk_text *out)
{
	(void)node;
	npk_text_printf(out, ".numpack/batch");
}

const struct npkfs_type npkfs_batch_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_batches,
	.stat = npkfs_stat_dir,
	.lookup = lookup_batches,
	.list = list_batches,
	.mkdir = make_batch,
	.rmdir = remove_batch,
};

/* --- .numpack/batch/<name>: the root again -------------------------------------------------------------------------------------- */

static int lookup_batch(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	if (atomic_load(&dir->space->ended))
		return -ENOENT;
	if (strcmp(name, "ctl") == 0)
		return npkfs_control_lookup(s, dir, name, out, err);
	return npkfs_root_type.lookup(s, dir, name, who, out, err);
}

static int list_batch(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	if (atomic_load(&dir->space->ended))
		return 0;
	npkfs_staged_list(s, dir->space, names);
	return npkfs_list_arrays(s, dir->space, names, err);
}

static int create_batch(struct npkfs_session *s, struct npkfs_node *dir, const char *name, mode_t mode,
	struct npkfs_open *o, struct npkfs_node **out, struct npkfs_handle **handle, struct npk_err *err)
{
	if (atomic_load(&dir->space->ended))
		return -ENOENT;
	return npkfs_root_create(s, dir, name, mode, o, out, handle, err);
}

static void path_batch(const struct npkfs_node *node, struct npk_text *out)
{
	npk_text_printf(out, ".numpack/batch/%s", node->space->name);
}

const struct npkfs_type npkfs_batch_type = {
	.kind = S_IFDIR,
	.path = path_batch,
	.stat = npkfs_stat_dir,
	.lookup = lookup_batch,
	.list = list_batch,
	.create = create_batch,
	.unlink = npkfs_root_unlink,
};
