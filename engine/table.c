/* table.c - the arrays of a store: the table that holds them, and how metadata becomes it. */
#include "store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- the table ----------------------------------------------------------------------------------------------------- */

static uint32_t hash_name(const void *name, size_t len)
{
	const uint8_t *p = name;
	uint32_t h = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

static struct npk_array *find(struct npk_store *s, const void *name, size_t len)
{
	uint32_t h = hash_name(name, len);
	struct npk_array *a;

	if (s->nbuckets == 0)
		return NULL;
	for (a = s->bucket[h & (s->nbuckets - 1)]; a; a = a->next)
		if (a->hash == h && a->name_len == len && memcmp(a->name, name, len) == 0)
			return a;
	return NULL;
}

static int grow_table(struct npk_store *s)
{
	size_t n = s->nbuckets ? 2 * s->nbuckets : 64;
	struct npk_array **bucket = calloc(n, sizeof(struct npk_array *)), *a, *next;

	if (!bucket)
		return -ENOMEM;
	for (size_t i = 0; i < s->nbuckets; i++)
		for (a = s->bucket[i]; a; a = next) {
			next = a->next;
			a->next = bucket[a->hash & (n - 1)];
			bucket[a->hash & (n - 1)] = a;
		}
	free(s->bucket);
	s->bucket = bucket;
	s->nbuckets = n;
	return 0;
}

static struct npk_array *array_new(struct npk_store *s, const void *name, size_t len, struct npki_entry *e)
{
	struct npk_array *a = calloc(1, sizeof(*a) + len + 1);

	if (!a)
		return NULL;
	a->refs = 1;
	a->entry = e;
	a->store = s;
	npki_store_ref(s);
	pthread_mutex_init(&a->lock, NULL);
	a->hash = hash_name(name, len);
	a->name_len = len;
	memcpy(a->name, name, len);
	return a;
}

/* Takes over the entry when it succeeds. */
static int insert(struct npk_store *s, const void *name, size_t len, struct npki_entry *e, struct npk_array **out)
{
	struct npk_array *a;

	if (s->narrays >= s->nbuckets && grow_table(s) != 0)
		return -ENOMEM;
	a = array_new(s, name, len, e);
	if (!a)
		return -ENOMEM;
	a->next = s->bucket[a->hash & (s->nbuckets - 1)];
	s->bucket[a->hash & (s->nbuckets - 1)] = a;
	s->narrays++;
	*out = a;
	return 0;
}

/* What an array is from now on. */
struct state {
	struct npki_entry *entry; /* NULL: it is gone */
	struct npki_rowmap *live;
	bool known;
	struct npk_gen *cur; /* NULL: to be loaded when somebody asks */
	bool keep;           /* the generation stays, as a stale one, instead of becoming `cur` */
};

static void set_state(struct npk_array *a, const struct state *to)
{
	struct state old;

	pthread_mutex_lock(&a->lock);
	old = (struct state){.entry = a->entry, .live = a->live, .cur = to->keep ? NULL : a->cur};
	a->entry = to->entry;
	a->live = to->live;
	a->known = to->known;
	if (!to->keep)
		a->cur = to->cur;
	a->stale = to->keep;
	a->gone = to->entry == NULL;
	pthread_mutex_unlock(&a->lock);
	npki_entry_put(old.entry);
	npki_rowmap_put(old.live);
	npk_gen_put(old.cur);
}

/* The metadata gives `a` a new entry (NULL: none any more). A generation in use is no longer the current one, but with `keep`
 * it stays until the new one can be loaded (true). */
static bool set_entry(struct npk_array *a, struct npki_entry *e, bool keep)
{
	bool kept;

	pthread_mutex_lock(&a->lock);
	kept = keep && a->cur;
	pthread_mutex_unlock(&a->lock);
	set_state(a, &(struct state){.entry = e, .keep = kept});
	return kept;
}

int npki_add_change(struct npki_changes *c, struct npk_array *a, enum npk_change what)
{
	struct npki_change *more;

	if (!c || (a->told == a->store->refreshes && what == NPK_CHANGED) ||
		strncmp(a->name, ".npk-", 5) == 0) /* an exchange goes by such a name, for a moment */
		return 0;
	a->told = a->store->refreshes;
	if ((c->n & (c->n - 1)) == 0) {
		more = realloc(c->list, (c->n ? 2 * c->n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		c->list = more;
	}
	c->list[c->n++] = (struct npki_change){npk_array_ref(a), what};
	return 0;
}

void npki_tell_changes(struct npki_changes *c, npk_change_fn *fn, void *ctx)
{
	for (size_t i = 0; i < c->n; i++) {
		if (fn)
			fn(ctx, c->list[i].a, c->list[i].what);
		npk_array_put(c->list[i].a);
	}
	free(c->list);
}

struct npk_array *npki_table_find(struct npk_store *s, const void *name, size_t len)
{
	struct npk_array *a;

	pthread_rwlock_rdlock(&s->table_lock);
	a = find(s, name, len);
	if (a)
		npk_array_ref(a);
	pthread_rwlock_unlock(&s->table_lock);
	return a;
}

/* Takes over what `to` refers to. */
static int table_put(struct npk_store *s, const void *name, size_t len, const struct state *to)
{
	struct npki_entry *e = to->entry;
	enum npk_change what = NPK_CHANGED;
	struct npk_array *a;
	int rc = 0;

	pthread_rwlock_wrlock(&s->table_lock);
	a = find(s, name, len);
	if (!a) {
		what = NPK_APPEARED;
		rc = insert(s, name, len, e, &a);
		if (rc == 0) /* the table's own reference, which set_state() lets go */
			npki_entry_ref(e);
	}
	if (rc == 0)
		rc = npki_add_change(s->telling, a, what);
	if (rc == 0)
		set_state(a, to);
	pthread_rwlock_unlock(&s->table_lock);
	if (rc != 0) {
		npki_entry_put(e);
		npki_rowmap_put(to->live);
		npk_gen_put(to->cur);
	}
	return rc;
}

int npki_table_put(struct npk_store *s, const void *name, size_t len, struct npki_entry *e, struct npki_rowmap *live,
	struct npk_gen *cur)
{
	return table_put(s, name, len, &(struct state){.entry = e, .live = live, .known = true, .cur = cur});
}

int npki_table_take(struct npk_store *s, const void *name, size_t len, struct npki_entry *e)
{
	return table_put(s, name, len, &(struct state){.entry = e});
}

/* Under table_lock. */
static void unlink_array(struct npk_store *s, struct npk_array **link)
{
	struct npk_array *a = *link;

	*link = a->next;
	a->next = NULL;
	s->narrays--;
	set_entry(a, NULL, false);
}

int npki_table_del(struct npk_store *s, const void *name, size_t len)
{
	struct npk_array **link, *a;
	int rc = 0;

	pthread_rwlock_wrlock(&s->table_lock);
	a = find(s, name, len);
	if (a) {
		for (link = &s->bucket[a->hash & (s->nbuckets - 1)]; *link != a;)
			link = &(*link)->next;
		unlink_array(s, link);
		rc = npki_add_change(s->telling, a, NPK_GONE);
	}
	pthread_rwlock_unlock(&s->table_lock);
	npk_array_put(a);
	return rc;
}

static int copy_array(struct npk_store *to, struct npk_array *from)
{
	struct npk_array *a;
	struct npki_entry *e;
	int rc;

	pthread_mutex_lock(&from->lock);
	e = npki_entry_ref(from->entry);
	rc = e ? insert(to, from->name, from->name_len, e, &a) : 0;
	if (rc != 0) {
		npki_entry_put(e);
	} else if (e) {
		a->known = from->known || from->cur;
		a->live = npki_rowmap_ref(from->known ? from->live : from->cur ? from->cur->live : NULL);
		a->origin = npk_array_ref(from);
		a->origin_version = from->version;
	}
	pthread_mutex_unlock(&from->lock);
	return rc;
}

int npki_table_copy(struct npk_store *to, struct npk_store *from, struct npk_err *err)
{
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(from, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = copy_array(to, list[i]);
	npk_store_list_free(list, n);
	return rc == 0 ? 0 : npk_fail(err, ENOMEM, "no memory for a transaction");
}

/* Arrays hold the store and the table holds the arrays: this is where the circle opens. */
void npki_store_empty(struct npk_store *s)
{
	struct npk_array *a, *next;

	pthread_rwlock_wrlock(&s->table_lock);
	for (size_t i = 0; i < s->nbuckets; i++) {
		for (a = s->bucket[i]; a; a = next) {
			next = a->next;
			a->next = NULL;
			npk_array_put(a);
		}
		s->bucket[i] = NULL;
	}
	s->narrays = 0;
	pthread_rwlock_unlock(&s->table_lock);
}

/* --- out of metadata ----------------------------------------------------------------------------------------------- */

/* The entries of a metadata file, before any of them counts. */
struct entries {
	struct parsed {
		const char *name; /* in the file's bytes */
		size_t len;
		uint64_t at;
		struct npki_entry *e;
	} * list;
	size_t n;
};

static int collect(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct entries *p = ctx;
	struct parsed *more;

	if ((p->n & (p->n - 1)) == 0) {
		more = realloc(p->list, (p->n ? 2 * p->n : 1) * sizeof(*more));
		if (!more)
			return npk_fail(err, ENOMEM, NPKI_META_FILE ": no memory for the list of arrays");
		p->list = more;
	}
	p->list[p->n] = (struct parsed){m->name, m->name_len, m->at, npki_entry_new(m)};
	if (!p->list[p->n].e)
		return npk_fail(err, ENOMEM, NPKI_META_FILE ": no memory for the list of arrays");
	p->n++;
	return 0;
}

static void free_entries(struct entries *p)
{
	for (size_t i = 0; i < p->n; i++)
		npki_entry_put(p->list[i].e);
	free(p->list);
}

struct take_over {
	struct npk_store *s;
	struct npki_changes *changes; /* NULL: the first time, nobody wants to know */
	bool duplicate;
	char why[NPK_ERR_MAX];
};

/* One entry goes into the table. They come last one first: of several with one name the last counts. */
static int take_entry(struct take_over *t, struct parsed *p)
{
	struct npk_array *a = find(t->s, p->name, p->len);
	struct npk_err twice;
	bool kept;

	if (a && a->seen == t->s->round) {
		npk_fail(&twice, EUCLEAN, NPKI_META_FILE ": byte %" PRIu64 ": array '%.100s' is there twice", p->at,
			a->name);
		memcpy(t->why, twice.msg, sizeof(t->why));
		t->duplicate = true;
		return 0;
	}
	if (!a) {
		if (insert(t->s, p->name, p->len, p->e, &a) != 0)
			return -ENOMEM;
		p->e = NULL;
		a->seen = t->s->round;
		return npki_add_change(t->changes, a, NPK_APPEARED);
	}
	a->seen = t->s->round;
	if (npki_entry_same(a->entry, p->e) && !a->known)
		return 0;
	kept = set_entry(a, p->e, t->changes != NULL);
	p->e = NULL;
	return kept ? 0
		    : npki_add_change(
			      t->changes, a, NPK_CHANGED); /* kept: check_files() tells, once it has the new one */
}

/* Arrays that the metadata no longer names. */
static int drop_unseen(struct npk_store *s, struct npki_changes *c)
{
	struct npk_array **link, *a;
	int rc = 0;

	for (size_t i = 0; i < s->nbuckets; i++)
		for (link = &s->bucket[i]; (a = *link) != NULL;) {
			if (a->seen == s->round) {
				link = &a->next;
				continue;
			}
			unlink_array(s, link);
			if (rc == 0)
				rc = npki_add_change(c, a, NPK_GONE);
			npk_array_put(a);
		}
	return rc;
}

/* Makes the table what `buf` says (NULL: a new store). A header that is no header leaves the table as it was; so does,
 * once the store is open, a list that breaks off: what it lacks may be on its way to the disk. */
int npki_take_metadata(struct npk_store *s, const uint8_t *buf, size_t len, const struct npki_file_id *id,
	struct npki_changes *c, struct npk_err *err)
{
	struct take_over t = {.s = s, .changes = c};
	struct npki_notes notes = {0};
	struct npki_meta meta = {0};
	struct entries p = {0};
	int rc = buf ? npki_meta_parse(buf, len, &meta, collect, &p, &notes, err) : 0;

	if (rc == 0 && c && meta.cut)
		rc = npk_fail(err, EUCLEAN, "%s", meta.why);
	if (rc != 0) {
		free_entries(&p);
		return rc;
	}
	pthread_rwlock_wrlock(&s->table_lock);
	s->round++;
	for (size_t i = p.n; i-- > 0 && rc == 0;)
		rc = take_entry(&t, &p.list[i]);
	if (rc == 0)
		rc = drop_unseen(s, c);
	if (rc == 0) {
		s->meta_id = *id;
		s->read_only = meta.cut || t.duplicate;
		memcpy(s->why, meta.cut ? meta.why : t.why, sizeof(s->why));
		memcpy(s->warning, notes.warning, sizeof(s->warning));
	}
	pthread_rwlock_unlock(&s->table_lock);
	free_entries(&p);
	return rc == 0 ? 0 : npk_fail(err, ENOMEM, NPKI_META_FILE ": no memory for the list of arrays");
}

/* --- for everybody ------------------------------------------------------------------------------------------------- */

static int by_name(const void *x, const void *y)
{
	const struct npk_array *a = *(struct npk_array *const *)x, *b = *(struct npk_array *const *)y;
	size_t n = a->name_len < b->name_len ? a->name_len : b->name_len;
	int c = memcmp(a->name, b->name, n);

	return c ? c : (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

int npk_store_list(struct npk_store *s, struct npk_array ***out, size_t *n, struct npk_err *err)
{
	struct npk_array **list, *a;
	size_t k = 0;

	pthread_rwlock_rdlock(&s->table_lock);
	list = malloc((s->narrays + 1) * sizeof(struct npk_array *));
	for (size_t i = 0; list && i < s->nbuckets; i++)
		for (a = s->bucket[i]; a; a = a->next)
			list[k++] = npk_array_ref(a);
	pthread_rwlock_unlock(&s->table_lock);
	if (!list)
		return npk_fail(err, ENOMEM, "no memory for the list of arrays");
	qsort(list, k, sizeof(struct npk_array *), by_name);
	*out = list;
	*n = k;
	return 0;
}

void npk_store_list_free(struct npk_array **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		npk_array_put(list[i]);
	free(list);
}

int npk_array_get_n(struct npk_array **out, struct npk_store *s, const void *name, size_t len, struct npk_err *err)
{
	struct npk_array *a = npki_table_find(s, name, len);

	if (!a)
		return npk_fail(err, ENOENT, "no array '%.*s'", (int)(len < 256 ? len : 256), (const char *)name);
	*out = a;
	return 0;
}

int npk_array_get(struct npk_array **out, struct npk_store *s, const char *name, struct npk_err *err)
{
	return npk_array_get_n(out, s, name, strlen(name), err);
}
