/* deflate.c - see deflate.h. A ring of slots, one for a piece: threads compress the oldest that waits, the caller takes them in
 * order. Memory is that of the ring. */
#include "deflate.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define WINDOW ((size_t)32 << 10)
#define OUT_BYTES (NPKI_DEFLATE_PIECE + NPKI_DEFLATE_PIECE / 4) /* more than deflate ever makes of a piece */
#define SLOTS_MORE 2                                            /* than threads */

struct slot {
	size_t before, len; /* bytes of the stream that stand before `in + WINDOW`, and behind it */
	bool last;
	bool ready; /* lock */
	size_t out_len;
	int rc;
	struct npk_err err;
	uint8_t in[WINDOW + NPKI_DEFLATE_PIECE], out[OUT_BYTES];
};

struct npki_deflate {
	int level;
	struct slot **slot;
	unsigned nslots, nthreads;
	pthread_t *thread;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t put, begun, taken; /* lock; pieces */
	bool held;                  /* piece `taken` is lent to the caller */
	bool stop;                  /* lock */
	z_stream own;               /* without threads */
	bool has_own;
	uint8_t tail[WINDOW]; /* the end of the stream so far */
	size_t tail_len;
};

static int code(z_stream *z, bool *ready, int level, struct slot *t, struct npk_err *err)
{
	int said = *ready ? deflateReset(z) : deflateInit2(z, level, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);

	*ready |= said == Z_OK;
	if (said == Z_OK && t->before > 0)
		said = deflateSetDictionary(z, t->in + WINDOW - t->before, (uInt)t->before);
	if (said != Z_OK)
		return npk_fail(err, ENOMEM, "no memory to compress");
	z->next_in = t->in + WINDOW;
	z->avail_in = (uInt)t->len;
	z->next_out = t->out;
	z->avail_out = (uInt)OUT_BYTES;
	said = deflate(z, t->last ? Z_FINISH : Z_SYNC_FLUSH);
	if (said != (t->last ? Z_STREAM_END : Z_OK) || z->avail_in > 0 || z->avail_out == 0)
		return npk_fail(err, EIO, "zlib: %zu bytes did not become a piece of a stream: %d", t->len, said);
	t->out_len = OUT_BYTES - z->avail_out;
	return 0;
}

/* NULL: nobody wants more. */
static struct slot *begin_next(struct npki_deflate *d)
{
	struct slot *t = NULL;

	pthread_mutex_lock(&d->lock);
	while (d->begun == d->put && !d->stop)
		pthread_cond_wait(&d->moved, &d->lock);
	if (!d->stop)
		t = d->slot[d->begun++ % d->nslots];
	pthread_mutex_unlock(&d->lock);
	return t;
}

static void *work(void *ctx)
{
	struct npki_deflate *d = ctx;
	z_stream z = {0};
	bool ready = false;
	struct slot *t;

	while ((t = begin_next(d)) != NULL) {
		t->rc = code(&z, &ready, d->level, t, &t->err);
		pthread_mutex_lock(&d->lock);
		t->ready = true;
		pthread_cond_broadcast(&d->moved);
		pthread_mutex_unlock(&d->lock);
	}
	if (ready)
		deflateEnd(&z);
	return NULL;
}

static int start(struct npki_deflate *d, unsigned threads, struct npk_err *err)
{
	unsigned want = threads + SLOTS_MORE;
	int rc;

	d->slot = calloc(want, sizeof(*d->slot));
	d->thread = calloc(threads + 1, sizeof(*d->thread));
	while (d->slot && d->nslots < want) {
		d->slot[d->nslots] = malloc(sizeof(struct slot));
		if (!d->slot[d->nslots])
			break;
		d->slot[d->nslots++]->ready = false;
	}
	if (!d->thread || d->nslots < want)
		return npk_fail(err, ENOMEM, "no memory to compress");
	while (d->nthreads < threads) {
		rc = pthread_create(&d->thread[d->nthreads], NULL, work, d);
		if (rc != 0)
			return npk_fail(err, rc, "no thread to compress: %s", strerror(rc));
		d->nthreads++;
	}
	return 0;
}

int npki_deflate_open(struct npki_deflate **out, int level, unsigned threads, struct npk_err *err)
{
	struct npki_deflate *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return npk_fail(err, ENOMEM, "no memory to compress");
	d->level = level;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->moved, NULL);
	rc = start(d, threads > 1 ? threads : 0, err);
	if (rc == 0)
		*out = d;
	else
		npki_deflate_close(d);
	return rc;
}

void npki_deflate_close(struct npki_deflate *d)
{
	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_broadcast(&d->moved);
	pthread_mutex_unlock(&d->lock);
	for (unsigned i = 0; i < d->nthreads; i++)
		pthread_join(d->thread[i], NULL);
	for (unsigned i = 0; i < d->nslots; i++)
		free(d->slot[i]);
	if (d->has_own)
		deflateEnd(&d->own);
	free(d->slot);
	free(d->thread);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->moved);
	free(d);
}

/* `put` and `taken` are changed by the caller's thread alone, which needs no lock to read them. */
uint8_t *npki_deflate_room(struct npki_deflate *d)
{
	struct slot *t = d->slot[d->put % d->nslots];

	if (d->put - d->taken == d->nslots)
		return NULL;
	t->before = d->tail_len;
	memcpy(t->in + WINDOW - t->before, d->tail, t->before);
	return t->in + WINDOW;
}

void npki_deflate_put(struct npki_deflate *d, size_t len, bool last)
{
	struct slot *t = d->slot[d->put % d->nslots];
	size_t all = t->before + len;

	t->len = len;
	t->last = last;
	d->tail_len = last ? 0 : all < WINDOW ? all : WINDOW;
	memcpy(d->tail, t->in + WINDOW + len - d->tail_len, d->tail_len);
	pthread_mutex_lock(&d->lock);
	d->put++;
	pthread_cond_broadcast(&d->moved);
	pthread_mutex_unlock(&d->lock);
}

int npki_deflate_take(struct npki_deflate *d, struct npki_deflated *out, struct npk_err *err)
{
	struct slot *t;

	if (d->held) {
		d->slot[d->taken % d->nslots]->ready = false;
		d->taken++;
	}
	d->held = d->taken < d->put;
	if (!d->held)
		return 0;
	t = d->slot[d->taken % d->nslots];
	if (d->nthreads == 0) {
		t->rc = code(&d->own, &d->has_own, d->level, t, &t->err);
	} else {
		pthread_mutex_lock(&d->lock);
		while (!t->ready)
			pthread_cond_wait(&d->moved, &d->lock);
		pthread_mutex_unlock(&d->lock);
	}
	if (t->rc != 0) {
		if (err)
			*err = t->err;
		return t->rc;
	}
	*out = (struct npki_deflated){t->out, t->out_len, t->last};
	return 1;
}
