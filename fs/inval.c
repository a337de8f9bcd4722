/* inval.c - a queue of notifications and the one thread that sends them. */
#include "inval.h"
#include "log.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

enum npkfs_inval_kind {
	ENTRY,
	NODE,
	RANGE,
	CALL
};

struct npkfs_inval_item {
	struct npkfs_inval_item *next, *hash_next;
	uint64_t id, hash;
	enum npkfs_inval_kind kind;
	uint64_t off, len;  /* of RANGE */
	npkfs_inval_fn *fn; /* of CALL */
	void *ctx;
	char name[]; /* of ENTRY */
};

void npkfs_inval_init(struct npkfs_inval *q, struct fuse_session *fuse, struct npkfs_stats *stats)
{
	memset(q, 0, sizeof(*q));
	q->fuse = fuse;
	q->stats = stats;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->wake, NULL);
}

void npkfs_inval_fini(struct npkfs_inval *q)
{
	struct npkfs_inval_item *next;

	if (q->fuse == NULL)
		return;
	for (struct npkfs_inval_item *i = q->head; i != NULL; i = next) {
		next = i->next;
		free(i);
	}
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
	memset(q, 0, sizeof(*q));
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

/* Takes the first item, waiting for one; NULL: the thread shall end. */
static struct npkfs_inval_item *take(struct npkfs_inval *q)
{
	struct npkfs_inval_item *item = NULL, **p;

	pthread_mutex_lock(&q->lock);
	q->busy = false;
	while (!q->stop && q->head == NULL)
		pthread_cond_wait(&q->wake, &q->lock);
	if (!q->stop) {
		q->busy = true;
		item = q->head;
		q->head = item->next;
		if (q->head == NULL)
			q->tail = NULL;
		for (p = &q->pending[item->hash % NPKFS_INVAL_BUCKETS]; *p != item;)
			p = &(*p)->hash_next;
		*p = item->hash_next;
	}
	pthread_mutex_unlock(&q->lock);
	return item;
}

static int send_to_kernel(struct npkfs_inval *q, const struct npkfs_inval_item *i)
{
	switch (i->kind) {
	case ENTRY:
		return fuse_lowlevel_notify_inval_entry(q->fuse, i->id, i->name, strlen(i->name));
	case NODE:
		return fuse_lowlevel_notify_inval_inode(q->fuse, i->id, 0, 0);
	case RANGE: /* a negative offset: attributes only */
		return fuse_lowlevel_notify_inval_inode(q->fuse, i->id, i->len > 0 ? (off_t)i->off : -1, (off_t)i->len);
	default:
		return 0;
	}
}

/* ENOENT: the kernel does not know the name or node, so there was nothing to forget. */
static void note_sent(struct npkfs_inval *q, int rc, uint64_t id, const char *what)
{
	NPKFS_COUNT(q->stats->invalidations);
	if (rc != 0 && rc != -ENOENT && rc != -ENOTDIR && rc != -ENODEV && rc != -ENOTCONN)
		npkfs_log(NPKFS_WARN, "invalidating %s of node %llu: %s", what, (unsigned long long)id, strerror(-rc));
}

static void send_item(struct npkfs_inval *q, const struct npkfs_inval_item *i)
{
	if (i->kind == CALL)
		i->fn(i->ctx);
	else
		note_sent(q, send_to_kernel(q, i), i->id, i->kind == ENTRY ? i->name : "the pages");
}

/* At the end of the mount nobody reads any more, and nobody may be there to let a page go. */
static bool has_stopped(struct npkfs_inval *q)
{
	bool stop;

	pthread_mutex_lock(&q->lock);
	stop = q->stop;
	pthread_mutex_unlock(&q->lock);
	return stop;
}

void npkfs_inval_range_now(struct npkfs_inval *q, uint64_t id, uint64_t off, uint64_t len)
{
	const struct npkfs_inval_item item = {.kind = RANGE, .id = id, .off = off, .len = len};

	if (!has_stopped(q))
		note_sent(q, send_to_kernel(q, &item), id, "the pages");
}

void npkfs_inval_store_now(struct npkfs_inval *q, uint64_t id, uint64_t off, const void *bytes, size_t len)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(len);

	v.buf[0].mem = (void *)(uintptr_t)bytes; /* which libfuse only reads */
	if (!has_stopped(q))
		note_sent(
			q, fuse_lowlevel_notify_store(q->fuse, id, (off_t)off, &v, FUSE_BUF_NO_SPLICE), id, "the size");
}

static void *inval_main(void *arg)
{
	struct npkfs_inval *q = arg;
	struct npkfs_inval_item *item;

	while ((item = take(q)) != NULL) {
		send_item(q, item);
		free(item);
	}
	return NULL;
}

int npkfs_inval_start(struct npkfs_inval *q, struct npk_err *err)
{
	int rc = pthread_create(&q->thread, NULL, inval_main, q);

	if (rc != 0)
		return npk_fail(err, rc, "starting the notify thread: %s", strerror(rc));
	q->started = true;
	return 0;
}

/* Notifications that nobody needs any more are dropped; requests that wait for their reply get it. */
static void run_calls(struct npkfs_inval *q)
{
	struct npkfs_inval_item *item;

	while ((item = q->head) != NULL) {
		q->head = item->next;
		if (item->kind == CALL)
			item->fn(item->ctx);
		free(item);
	}
	q->tail = NULL;
	memset(q->pending, 0, sizeof(q->pending));
}

void npkfs_inval_stop(struct npkfs_inval *q)
{
	if (!q->started)
		return;
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	q->started = false;
	run_calls(q);
}

/* --- the queue ----------------------------------------------------------------------------------------------------- */

static uint64_t hash_item(const struct npkfs_inval_item *i)
{
	uint64_t h = 0xcbf29ce484222325u ^ (i->id * 4 + i->kind) ^ i->off << 20 ^ i->len << 40;

	for (const char *name = i->name; *name != '\0'; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3u;
	return h ^ h >> 32;
}

static bool is_same(const struct npkfs_inval_item *a, const struct npkfs_inval_item *b)
{
	return a->hash == b->hash && a->kind == b->kind && a->id == b->id && a->off == b->off && a->len == b->len &&
	       strcmp(a->name, b->name) == 0;
}

/* Needs the lock. */
static bool is_pending(const struct npkfs_inval *q, const struct npkfs_inval_item *item)
{
	const struct npkfs_inval_item *i = q->pending[item->hash % NPKFS_INVAL_BUCKETS];

	while (i != NULL && !is_same(i, item))
		i = i->hash_next;
	return i != NULL;
}

/* Needs the lock. */
static void append(struct npkfs_inval *q, struct npkfs_inval_item *item)
{
	struct npkfs_inval_item **bucket = &q->pending[item->hash % NPKFS_INVAL_BUCKETS];

	item->hash_next = *bucket;
	*bucket = item;
	if (q->tail != NULL)
		q->tail->next = item;
	else
		q->head = item;
	q->tail = item;
	pthread_cond_signal(&q->wake);
}

static void enqueue(
	struct npkfs_inval *q, enum npkfs_inval_kind kind, uint64_t id, const char *name, uint64_t off, uint64_t len)
{
	struct npkfs_inval_item *item = calloc(1, sizeof(*item) + strlen(name) + 1);
	bool merged;

	if (item == NULL) {
		npkfs_log(NPKFS_ERROR, "no memory: the kernel is not told that %s of node %llu changed", name,
			(unsigned long long)id);
		return;
	}
	item->kind = kind;
	item->id = id;
	item->off = off;
	item->len = len;
	strcpy(item->name, name);
	item->hash = hash_item(item);
	pthread_mutex_lock(&q->lock);
	merged = is_pending(q, item);
	if (!merged)
		append(q, item);
	pthread_mutex_unlock(&q->lock);
	if (merged) {
		NPKFS_COUNT(q->stats->invalidations_merged);
		free(item);
	}
}

void npkfs_inval_entry(struct npkfs_inval *q, uint64_t parent, const char *name)
{
	enqueue(q, ENTRY, parent, name, 0, 0);
}

void npkfs_inval_node(struct npkfs_inval *q, uint64_t id)
{
	enqueue(q, NODE, id, "", 0, 0);
}

void npkfs_inval_range(struct npkfs_inval *q, uint64_t id, uint64_t off, uint64_t len)
{
	enqueue(q, RANGE, id, "", off, len);
}

int npkfs_inval_call(struct npkfs_inval *q, npkfs_inval_fn *fn, void *ctx)
{
	struct npkfs_inval_item *item = calloc(1, sizeof(*item) + 1);
	bool stopped;

	if (item == NULL)
		return -ENOMEM;
	item->kind = CALL;
	item->fn = fn;
	item->ctx = ctx;
	pthread_mutex_lock(&q->lock);
	stopped = q->stop;
	if (!stopped)
		append(q, item);
	pthread_mutex_unlock(&q->lock);
	if (stopped) { /* nobody is left to wait for */
		fn(ctx);
		free(item);
	}
	return 0;
}

bool npkfs_inval_idle(struct npkfs_inval *q)
{
	bool idle;

	pthread_mutex_lock(&q->lock);
	idle = q->head == NULL && !q->busy;
	pthread_mutex_unlock(&q->lock);
	return idle;
}
