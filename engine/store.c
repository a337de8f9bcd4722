/* store.c - an open directory: its table of arrays, and taking over what another process changed. */
#include "pkg_store.h"
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_MAX ((size_t)1 << 32) /* bytes; a store of 10,000 arrays has about one million */

static uint32_t hash_name(const void *name, size_t len)
{
	const uint8_t *p = name;
	uint32_t h = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

bool npki_is_store_file(const char *file)
{
	size_t n = strlen(file);

	if (strncmp(file, "data_", 5) == 0)
		return (n >= 10 && strcmp(file + n - 5, ".npkd") == 0) ||
		       (n >= 12 && strcmp(file + n - 7, ".npkseg") == 0);
	return strncmp(file, "deleted_", 8) == 0 && n >= 13 && strcmp(file + n - 5, ".npkb") == 0;
}

static int refuse_store_file(void *ctx, int fd, const char *name, struct npk_err *err)
{
	(void)ctx;
	(void)fd;
	return npki_is_store_file(name) ? npk_fail(err, EUCLEAN, NPKI_META_FILE ": is missing beside %.255s", name) : 0;
}

/* *buf is NULL for a new store, which has no metadata yet. -EUCLEAN when the directory has files of arrays: without metadata
 * they must not look like an empty store. */
int npki_read_metadata(int dirfd, uint8_t **buf, size_t *len, struct npki_file_id *id, struct npk_err *err)
{
	int rc = npki_read_file(dirfd, NPKI_META_FILE, META_MAX, buf, len, id, err);

	if (rc != -ENOENT)
		return rc;
	*buf = NULL;
	*len = 0;
	*id = (struct npki_file_id){0};
	return npki_each_name(dirfd, ".", refuse_store_file, NULL, err);
}

static struct npki_entry *entry_alloc(
	const char *file, size_t file_len, const char *why, const void *raw, size_t raw_len)
{
	size_t why_len = strlen(why);
	struct npki_entry *e = calloc(1, sizeof(*e) + file_len + why_len + 2 + raw_len);
	char *text = (char *)(e + 1);

	if (!e)
		return NULL;
	e->refs = 1;
	e->file = text;
	memcpy(text, file, file_len);
	text += file_len + 1;
	e->why = text;
	memcpy(text, why, why_len);
	if (raw_len) {
		e->raw = (const uint8_t *)text + why_len + 1;
		e->raw_len = raw_len;
		memcpy(text + why_len + 1, raw, raw_len);
	}
	return e;
}

struct npki_entry *npki_entry_new(const struct npki_ameta *m)
{
	struct npki_entry *e =
		entry_alloc(m->file, m->file_len, m->damage ? m->why : "", m->raw, m->damage ? m->len : 0);

	if (!e)
		return NULL;
	e->dtype = m->dtype;
	e->mtime_us = m->mtime_us;
	e->damage = m->damage;
	if (m->ndim <= NPK_MAX_NDIM) {
		e->shape.ndim = m->ndim;
		for (unsigned i = 0; i < m->ndim; i++)
			e->shape.dim[i] = npki_le(m->dims + 8 * (size_t)i, 8);
	}
	return e;
}

struct npki_entry *npki_entry_make(
	unsigned dtype, const struct npk_shape *shape, const char *file, size_t file_len, uint64_t mtime_us)
{
	struct npki_entry *e = entry_alloc(file, file_len, "", NULL, 0);

	if (!e)
		return NULL;
	e->dtype = (uint8_t)dtype;
	e->shape = *shape;
	e->mtime_us = mtime_us;
	return e;
}

struct npki_entry *npki_entry_with(
	const struct npki_entry *e, const struct npk_shape *shape, const char *file, uint64_t mtime_us)
{
	if (!file)
		file = e->file;
	return npki_entry_make(e->dtype, shape ? shape : &e->shape, file, strlen(file), mtime_us);
}

struct npki_entry *npki_entry_ref(struct npki_entry *e)
{
	if (e)
		atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}

void npki_entry_put(struct npki_entry *e)
{
	if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
		free(e);
}

bool npki_entry_same(const struct npki_entry *a, const struct npki_entry *b)
{
	return a->dtype == b->dtype && a->mtime_us == b->mtime_us && a->damage == b->damage &&
	       strcmp(a->file, b->file) == 0 && strcmp(a->why, b->why) == 0 && a->shape.ndim == b->shape.ndim &&
	       memcmp(a->shape.dim, b->shape.dim, a->shape.ndim * sizeof(a->shape.dim[0])) == 0;
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

static int add_change(struct npki_changes *c, struct npk_array *a, enum npk_change what);

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
		rc = add_change(s->telling, a, what);
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
		rc = add_change(s->telling, a, NPK_GONE);
	}
	pthread_rwlock_unlock(&s->table_lock);
	npk_array_put(a);
	return rc;
}

static int add_change(struct npki_changes *c, struct npk_array *a, enum npk_change what)
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
		return add_change(t->changes, a, NPK_APPEARED);
	}
	a->seen = t->s->round;
	if (npki_entry_same(a->entry, p->e) && !a->known)
		return 0;
	kept = set_entry(a, p->e, t->changes != NULL);
	p->e = NULL;
	return kept ? 0
		    : add_change(t->changes, a, NPK_CHANGED); /* kept: check_files() tells, once it has the new one */
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
				rc = add_change(c, a, NPK_GONE);
			npk_array_put(a);
		}
	return rc;
}

/* Makes the table what `buf` says (NULL: a new store). A header that is no header leaves the table as it was; so does,
 * once the store is open, a list that breaks off: what it lacks may be on its way to the disk. */
static int take_metadata(struct npk_store *s, const uint8_t *buf, size_t len, const struct npki_file_id *id,
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

/* A package without metadata has no arrays, and then no file either. */
static int read_packed_metadata(struct npk_store *s, uint8_t **buf, size_t *len, struct npk_err *err)
{
	const struct npk_package *p = npki_packed_package(s->packed);
	uint64_t off, size;
	int fd, rc;

	if (p->info.nfiles == 0)
		return 0;
	rc = npki_packed_member(s->packed, NPKI_META_FILE, &fd, &off, &size, err);
	if (rc == -ENOENT)
		return npk_fail(err, EUCLEAN, NPKI_META_FILE ": is missing beside %.200s", p->member[0].name);
	if (rc != 0)
		return rc;
	*buf = size <= META_MAX ? malloc((size_t)size + 1) : NULL;
	if (!*buf)
		rc = npk_fail(err, size <= META_MAX ? ENOMEM : EUCLEAN,
			NPKI_META_FILE ": %" PRIu64 " bytes are too many", size);
	if (rc == 0)
		rc = npki_pread_all(fd, *buf, (size_t)size, off, NPKI_META_FILE, err);
	*len = (size_t)size;
	close(fd);
	return rc;
}

int npki_reload_metadata(struct npk_store *s, struct npk_err *err)
{
	struct npki_file_id id = {0};
	uint8_t *buf = NULL;
	size_t len = 0;
	int rc = s->packed ? read_packed_metadata(s, &buf, &len, err)
			   : npki_read_metadata(s->dirfd, &buf, &len, &id, err);

	if (rc == 0)
		rc = take_metadata(s, buf, len, &id, s->telling, err);
	free(buf);
	return rc;
}

void npki_note_metadata(struct npk_store *s)
{
	struct npki_file_id id;

	if (npki_stat_file(s->dirfd, NPKI_META_FILE, &id, NULL) != 0)
		return; /* the next checkpoint looks at what is there */
	pthread_rwlock_wrlock(&s->table_lock);
	s->meta_id = id;
	pthread_rwlock_unlock(&s->table_lock);
}

static int open_directory(struct npk_store *s, unsigned flags, struct npk_err *err)
{
	if ((flags & NPK_CREATE) && mkdir(s->path, 0777) != 0 && errno != EEXIST)
		return npk_fail(err, errno, "%s", strerror(errno));
	s->dirfd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return s->dirfd < 0 ? npk_fail(err, errno, "%s", strerror(errno)) : 0;
}

static _Thread_local const struct npk_store *refreshing; /* by this thread: it is about to find out what the store is */

/* What a writer that is alive, or died, has changed since the metadata was written. */
static int look_behind(struct npk_store *s, struct npk_err *err)
{
	int rc = npki_stat_file(s->dirfd, NPKI_JOURNAL, &s->journal_id, err);

	refreshing = s;
	if (rc == 0)
		rc = npki_replay_readonly(s, err);
	refreshing = NULL;
	return rc;
}

static int new_store(struct npk_store **out, const char *path, struct npk_err *err)
{
	struct npk_store *s = calloc(1, sizeof(*s));

	if (s)
		s->path = strdup(path);
	if (!s || !s->path) {
		free(s);
		return npk_fail(err, ENOMEM, "%.300s: no memory", path);
	}
	s->refs = 1;
	s->next_gen = 1;
	s->dirfd = -1;
	pthread_mutex_init(&s->refresh_lock, NULL);
	pthread_rwlock_init(&s->table_lock, NULL);
	*out = s;
	return 0;
}

int npk_store_open_package(struct npk_store **out, const char *path, const char *cache_dir, struct npk_err *err)
{
	struct npk_store *s;
	int rc = new_store(&s, path, err);

	if (rc != 0)
		return rc;
	rc = npki_packed_open(&s->packed, path, cache_dir, err);
	if (rc == 0) {
		s->dirfd = fcntl(npki_packed_package(s->packed)->fd, F_DUPFD_CLOEXEC, 0);
		rc = s->dirfd < 0 ? npk_fail(err, errno, "%s", strerror(errno)) : npki_reload_metadata(s, err);
		if (rc != 0)
			npk_err_context(err, rc, "%.300s", path);
	}
	if (rc != 0)
		npk_store_close(s);
	else
		*out = s;
	return rc;
}

bool npk_store_is_package(const struct npk_store *s)
{
	return s->packed != NULL;
}

static bool is_regular(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int npk_store_open(struct npk_store **out, const char *path, unsigned flags, struct npk_err *err)
{
	bool write = flags & NPK_RDWR;
	struct npk_store *s;
	int rc;

	if ((flags & ~(NPK_RDONLY | NPK_RDWR | NPK_CREATE)) || !(flags & (NPK_RDONLY | NPK_RDWR)) ||
		((flags & NPK_RDONLY) && (flags & ~NPK_RDONLY)))
		return npk_fail(err, EINVAL, "%.300s: flags 0x%x make no sense", path, flags);
	if (flags == NPK_RDONLY && is_regular(path))
		return npk_store_open_package(out, path, NULL, err);
	rc = new_store(&s, path, err);
	if (rc != 0)
		return rc;
	rc = open_directory(s, flags, err);
	if (rc == 0)
		rc = npki_reload_metadata(s, err);
	if (rc == 0 && write)
		rc = npki_writer_new(s, err);
	if (rc == 0 && write)
		rc = npki_recover_at_open(s, err);
	if (rc == 0)
		rc = look_behind(s, err);
	if (rc != 0) {
		npk_err_context(err, rc, "%.300s", path);
		npk_store_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int npki_store_bare(struct npk_store **out, const char *path, struct npk_err *err)
{
	struct npk_store *s;
	int rc = new_store(&s, path, err);

	if (rc != 0)
		return rc;
	rc = open_directory(s, NPK_RDONLY, err);
	if (rc != 0) {
		npk_err_context(err, rc, "%.300s", path);
		npk_store_close(s);
	} else {
		*out = s;
	}
	return rc;
}

void npki_store_ref(struct npk_store *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void npki_store_put(struct npk_store *s)
{
	struct npk_store *base = s->base;

	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (!base) {
		npki_writer_free(s);
		npki_packed_close(s->packed);
		if (s->dirfd >= 0)
			close(s->dirfd);
	}
	pthread_mutex_destroy(&s->refresh_lock);
	pthread_rwlock_destroy(&s->table_lock);
	free(s->bucket);
	free(s->path);
	free(s);
	if (base)
		npki_store_put(base);
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

static void tell(struct npki_changes *c, npk_change_fn *fn, void *ctx)
{
	for (size_t i = 0; i < c->n; i++) {
		if (fn)
			fn(ctx, c->list[i].a, c->list[i].what);
		npk_array_put(c->list[i].a);
	}
	free(c->list);
}

void npk_store_close(struct npk_store *s)
{
	if (!s)
		return;
	npki_finish(s, NULL); /* what cannot be finished stays in the journal; npk_store_finish() tells */
	tell(&s->missed, NULL, NULL);
	s->missed = (struct npki_changes){0};
	npki_store_empty(s);
	npki_store_put(s);
}

struct npk_store *npki_store_inside(struct npk_store *s)
{
	struct npk_store *in = calloc(1, sizeof(*in));

	if (in)
		in->path = strdup(s->path);
	if (!in || !in->path) {
		free(in);
		return NULL;
	}
	in->refs = 1;
	in->dirfd = s->dirfd;
	in->flags = s->flags;
	in->writer = s->writer;
	in->base = s;
	npki_store_ref(s);
	pthread_mutex_init(&in->refresh_lock, NULL);
	pthread_rwlock_init(&in->table_lock, NULL);
	return in;
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

void npk_store_info(struct npk_store *s, struct npk_store_info *out)
{
	pthread_rwlock_rdlock(&s->table_lock);
	out->narrays = s->narrays;
	out->read_only = s->read_only;
	memcpy(out->why, s->why, sizeof(out->why));
	memcpy(out->warning, s->warning, sizeof(out->warning));
	pthread_rwlock_unlock(&s->table_lock);
}

const char *npk_store_path(const struct npk_store *s)
{
	return s->path;
}

int npk_store_dirfd(const struct npk_store *s)
{
	return s->dirfd;
}

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

static bool same_map(const struct npki_rowmap *a, const struct npki_rowmap *b)
{
	size_t na, nb;

	if (!a || !b || a == b)
		return a == b;
	if (a->nslots != b->nslots || a->nlive != b->nlive || a->nchunks != b->nchunks)
		return false;
	for (size_t c = 0; c < a->nchunks; c++) {
		const uint64_t *wa = npki_rowmap_words(a, c, &na), *wb = npki_rowmap_words(b, c, &nb);

		if (na != nb || memcmp(wa, wb, na * sizeof(*wa)) != 0)
			return false;
	}
	return true;
}

/* The same rows in the same files, whose bytes nobody touched: a writer's checkpoint has brought to the metadata what we knew
 * from its journal. */
static bool same_rows(const struct npk_gen *a, const struct npk_gen *b)
{
	if (a->info.dtype != b->info.dtype || a->info.mtime_us != b->info.mtime_us || a->info.slots != b->info.slots ||
		a->info.row_bytes != b->info.row_bytes || a->info.shape.ndim != b->info.shape.ndim ||
		memcmp(a->info.shape.dim, b->info.shape.dim, a->info.shape.ndim * sizeof(a->info.shape.dim[0])) != 0 ||
		a->nsegs != b->nsegs || !same_map(a->live, b->live))
		return false;
	for (size_t i = 0; i < a->nsegs; i++)
		if (strcmp(a->seg[i].file->path, b->seg[i].file->path) != 0 ||
			!npki_file_id_same(&a->seg[i].file->id, &b->seg[i].file->id))
			return false;
	return true;
}

/* Loads anew what is in use and not what it was. While that fails, most likely because somebody is writing, the old
 * generation stays. Needs a->lock. */
static int reload(struct npk_array *a, struct npk_gen **old, struct npk_err *err)
{
	const struct npki_layout from = {.entry = a->entry, .live = a->live, .known = a->known};
	struct npki_notes notes = {0};
	struct npk_gen *fresh;
	int rc;

	*old = NULL;
	if (!a->cur || (!a->stale && npki_gen_is_current(a->cur)))
		return 0;
	rc = npki_gen_load(&fresh, a->store, a->name, a->name_len, &from, &notes, err);
	if (rc != 0)
		return rc;
	memcpy(a->warning, notes.warning, sizeof(a->warning));
	if (same_rows(a->cur, fresh)) {
		fresh->info.number = a->cur->info.number;
		fresh->rows_id = a->cur->rows_id;
		npk_gen_put(a->cur);
	} else {
		*old = a->cur;
	}
	a->cur = fresh;
	a->stale = false;
	return 0;
}

/* The first array that cannot be loaded gives the error; the others are taken over all the same. */
static int check_files(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npk_array **list;
	struct npk_gen *old;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err), one;

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		struct npk_array *a = list[i];

		pthread_mutex_lock(&a->lock);
		one = reload(a, &old, rc == 0 ? err : NULL);
		pthread_mutex_unlock(&a->lock);
		if (rc == 0)
			rc = one;
		if (old && add_change(c, a, NPK_CHANGED) != 0)
			rc = npk_fail(err, ENOMEM, "no memory");
		npk_gen_put(old);
	}
	npk_store_list_free(list, n);
	return rc;
}

/* The files that say what the store is, as they are now; *same: as they were when they were read. */
static int stat_state(
	struct npk_store *s, struct npki_file_id *meta, struct npki_file_id *journal, bool *same, struct npk_err *err)
{
	int rc = npki_stat_file(s->dirfd, NPKI_META_FILE, meta, err);

	if (rc == 0)
		rc = npki_stat_file(s->dirfd, NPKI_JOURNAL, journal, err);
	if (rc != 0)
		return rc;
	pthread_rwlock_rdlock(&s->table_lock);
	*same = npki_file_id_same(meta, &s->meta_id) && npki_file_id_same(journal, &s->journal_id);
	pthread_rwlock_unlock(&s->table_lock);
	return 0;
}

static int refresh(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npki_file_id id, journal;
	uint8_t *buf = NULL;
	size_t len = 0;
	bool same;
	int rc;

	if (s->packed || (s->writer && atomic_load(&s->writer->writing))) /* never changes; only we change it */
		return 0;
	rc = stat_state(s, &id, &journal, &same, err);
	if (rc != 0)
		return rc;
	if (!same && npki_file_id_same(&id, &s->meta_id) && (rc = npki_follow_journal(s, err)) > 0) {
		s->journal_id = journal;
		return check_files(s, c, err);
	}
	if (rc == 0 && !same) {
		rc = npki_read_metadata(s->dirfd, &buf, &len, &id, err);
		if (rc == 0)
			rc = take_metadata(s, buf, len, &id, c, err);
		free(buf);
		if (rc == 0 && journal.exists)
			rc = npki_replay_readonly(s, err);
		s->journal_id = journal;
	}
	return rc == 0 ? check_files(s, c, err) : rc;
}

static int refresh_locked(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	int rc;

	refreshing = s;
	s->telling = c;
	s->refreshes++;
	rc = refresh(s, c, err);
	s->telling = NULL;
	refreshing = NULL;
	return rc;
}

bool npki_is_refreshing(const struct npk_store *s)
{
	return refreshing == s;
}

/* The files of an array are not what its entry says: most likely another process changed the store since it was looked at,
 * which may have renamed them. True: it did, and now the table is up to date. */
bool npki_look_again(struct npk_store *s)
{
	struct npki_file_id meta, journal;
	bool same, fresh;

	if (s->writer || s->base || s->packed || refreshing == s)
		return false;
	pthread_mutex_lock(&s->refresh_lock);
	fresh = !(stat_state(s, &meta, &journal, &same, NULL) == 0 && same) && refresh_locked(s, &s->missed, NULL) == 0;
	pthread_mutex_unlock(&s->refresh_lock);
	return fresh;
}

/* As the writer: what is in memory is newer than what is on disk, and ours, but for what another program wrote. */
static int refresh_writer(struct npk_store *s, struct npki_changes *c, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	int rc;

	pthread_mutex_lock(&w->sync_lock);
	pthread_mutex_lock(&w->lock);
	pthread_mutex_lock(&s->refresh_lock);
	s->telling = c;
	s->refreshes++;
	rc = w->closed ? npk_fail(err, ESTALE, "%.300s: was closed", s->path) : npki_take_foreign(s, err);
	s->telling = NULL;
	pthread_mutex_unlock(&s->refresh_lock);
	pthread_mutex_unlock(&w->lock);
	pthread_mutex_unlock(&w->sync_lock);
	return rc;
}

int npk_store_refresh(struct npk_store *s, npk_change_fn *fn, void *ctx, struct npk_err *err)
{
	struct npki_changes c = {0}, missed = {0};
	int rc;

	if (s->base) /* a transaction shows the store as of its begin */
		return 0;
	if (s->writer && atomic_load(&s->writer->writing)) {
		rc = refresh_writer(s, &c, err);
		tell(&c, fn, ctx);
		return rc > 0 ? npki_checkpoint(s, err) : rc;
	}
	pthread_mutex_lock(&s->refresh_lock);
	rc = refresh_locked(s, &c, err);
	missed = s->missed;
	s->missed = (struct npki_changes){0};
	pthread_mutex_unlock(&s->refresh_lock);
	tell(&missed, fn, ctx);
	tell(&c, fn, ctx);
	return rc;
}
