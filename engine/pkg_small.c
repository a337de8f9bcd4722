/* pkg_small.c - see pkg_small.h.
 *
 * A ring of slots, one for a part: a thread takes the next part once its slot is free, whoever asks takes them in order. So a
 * slow part holds up no more than the ring is long, and memory is that of the ring. */
#include "pkg_small.h"
#include "crc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SMALL_MOST ((size_t)1 << 20)
#define SLOTS_MORE 2 /* than threads */

struct slot {
	const struct npki_part *p;
	bool ready; /* lock of the ring */
	bool coded;
	size_t len;
	uint32_t crc;
	int rc;
	struct npk_err err;
	uint8_t in[SMALL_MOST], out[SMALL_MOST];
};

struct npki_smalls {
	const struct npki_moment *m;
	const struct npk_pack *how;
	struct slot **slot;
	unsigned nslots, nthreads;
	pthread_t *thread;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	size_t at;             /* lock; where the search for the next small part goes on */
	uint64_t begun, taken; /* lock; small parts */
	bool held;             /* of the thread that asks: the slot of part `taken` is lent to it */
	bool stop;             /* lock */
};

/* What one thread compresses with. */
struct coder {
	ZSTD_CCtx *zstd;
	z_stream zlib;
	bool has_zlib;
};

bool npki_is_small(const struct npki_part *p)
{
	return p->len > 0 && p->len <= SMALL_MOST;
}

ZSTD_CCtx *npki_zstd_new(int level)
{
	ZSTD_CCtx *z = ZSTD_createCCtx();

	if (z && !ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, level ? level : 3)) &&
		!ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0)))
		return z;
	ZSTD_freeCCtx(z);
	return NULL;
}

int npki_zlib_level(int level)
{
	return level ? level : 6;
}

static bool coder_init(struct coder *c, const struct npk_pack *how)
{
	*c = (struct coder){0};
	if (how->codec == NPK_CODEC_ZSTD)
		c->zstd = npki_zstd_new(how->level);
	else
		c->has_zlib = deflateInit(&c->zlib, npki_zlib_level(how->level)) == Z_OK;
	return c->zstd || c->has_zlib;
}

static void coder_fini(struct coder *c)
{
	ZSTD_freeCCtx(c->zstd);
	if (c->has_zlib)
		deflateEnd(&c->zlib);
}

/* The room is one byte less than the contents: what does not fit is not smaller. */
static int code_zstd(struct coder *c, struct slot *t, size_t len, struct npk_err *err)
{
	ZSTD_inBuffer in = {t->in, len, 0};
	ZSTD_outBuffer out = {t->out, len - 1, 0};
	size_t left;

	if (ZSTD_isError(ZSTD_CCtx_reset(c->zstd, ZSTD_reset_session_only)) ||
		ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(c->zstd, len)))
		return npk_fail(err, ENOMEM, "no memory to compress");
	left = ZSTD_compressStream2(c->zstd, &out, &in, ZSTD_e_end);
	if (ZSTD_isError(left))
		return npk_fail(err, ENOMEM, "zstd: %s", ZSTD_getErrorName(left));
	t->coded = left == 0;
	t->len = out.pos;
	return 0;
}

static int code_zlib(struct coder *c, struct slot *t, size_t len, struct npk_err *err)
{
	int rc;

	if (deflateReset(&c->zlib) != Z_OK)
		return npk_fail(err, ENOMEM, "no memory to compress");
	c->zlib.next_in = t->in;
	c->zlib.avail_in = (uInt)len;
	c->zlib.next_out = t->out;
	c->zlib.avail_out = (uInt)len - 1;
	rc = deflate(&c->zlib, Z_FINISH);
	if (rc == Z_STREAM_ERROR)
		return npk_fail(err, ENOMEM, "zlib: %s", c->zlib.msg ? c->zlib.msg : "cannot compress");
	t->coded = rc == Z_STREAM_END;
	t->len = len - 1 - c->zlib.avail_out;
	return 0;
}

static int code(const struct npki_smalls *s, struct coder *c, struct slot *t, struct npk_err *err)
{
	size_t len = (size_t)t->p->len;
	int rc = npki_part_read(s->m, t->p, 0, t->in, len, err);

	if (rc != 0)
		return rc;
	t->crc = npki_crc32(0, t->in, len);
	rc = s->how->codec == NPK_CODEC_ZSTD ? code_zstd(c, t, len, err) : code_zlib(c, t, len, err);
	if (!t->coded)
		t->len = len;
	return rc;
}

/* The slot of the next small part, or NULL when there is none, or nobody wants it. */
static struct slot *begin_next(struct npki_smalls *s)
{
	struct slot *t = NULL;

	pthread_mutex_lock(&s->lock);
	while (s->begun - s->taken == s->nslots && !s->stop)
		pthread_cond_wait(&s->moved, &s->lock);
	while (s->at < s->m->n && !npki_is_small(&s->m->part[s->at]))
		s->at++;
	if (!s->stop && s->at < s->m->n) {
		t = s->slot[s->begun++ % s->nslots];
		t->p = &s->m->part[s->at++];
		t->coded = false;
	}
	pthread_mutex_unlock(&s->lock);
	return t;
}

static void *work(void *ctx)
{
	struct npki_smalls *s = ctx;
	struct coder c;
	bool able = coder_init(&c, s->how);
	struct slot *t;

	while ((t = begin_next(s)) != NULL) {
		t->rc = able ? code(s, &c, t, &t->err) : npk_fail(&t->err, ENOMEM, "no memory to compress");
		pthread_mutex_lock(&s->lock);
		t->ready = true;
		pthread_cond_broadcast(&s->moved);
		pthread_mutex_unlock(&s->lock);
	}
	coder_fini(&c);
	return NULL;
}

int npki_smalls_next(struct npki_smalls *s, struct npki_small *out, struct npk_err *err)
{
	struct slot *t;

	pthread_mutex_lock(&s->lock);
	if (s->held) {
		s->slot[s->taken++ % s->nslots]->ready = false;
		pthread_cond_broadcast(&s->moved);
	}
	s->held = true;
	t = s->slot[s->taken % s->nslots];
	while (!t->ready)
		pthread_cond_wait(&s->moved, &s->lock);
	pthread_mutex_unlock(&s->lock);
	if (t->rc != 0) {
		if (err)
			*err = t->err;
		return t->rc;
	}
	*out = (struct npki_small){t->coded ? t->out : t->in, t->len, t->coded, t->crc};
	return 0;
}

static size_t count_smalls(const struct npki_moment *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n; i++)
		n += npki_is_small(&m->part[i]);
	return n;
}

static int start(struct npki_smalls *s, unsigned threads, struct npk_err *err)
{
	int rc;

	s->slot = calloc(threads + SLOTS_MORE, sizeof(*s->slot));
	s->thread = calloc(threads, sizeof(*s->thread));
	while (s->slot && s->nslots < threads + SLOTS_MORE) {
		s->slot[s->nslots] = malloc(sizeof(struct slot));
		if (!s->slot[s->nslots])
			break;
		s->slot[s->nslots++]->ready = false;
	}
	if (!s->thread || s->nslots < threads + SLOTS_MORE)
		return npk_fail(err, ENOMEM, "no memory to compress");
	while (s->nthreads < threads) {
		rc = pthread_create(&s->thread[s->nthreads], NULL, work, s);
		if (rc != 0)
			return npk_fail(err, rc, "no thread to compress: %s", strerror(rc));
		s->nthreads++;
	}
	return 0;
}

int npki_smalls_open(struct npki_smalls **out, const struct npki_moment *m, const struct npk_pack *how,
	unsigned threads, struct npk_err *err)
{
	size_t n = count_smalls(m);
	struct npki_smalls *s;
	int rc;

	*out = NULL;
	if (n < 2)
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return npk_fail(err, ENOMEM, "no memory to compress");
	s->m = m;
	s->how = how;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->moved, NULL);
	rc = start(s, n < threads ? (unsigned)n : threads, err);
	if (rc == 0)
		*out = s;
	else
		npki_smalls_close(s);
	return rc;
}

void npki_smalls_close(struct npki_smalls *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->moved);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->nthreads; i++)
		pthread_join(s->thread[i], NULL);
	for (unsigned i = 0; i < s->nslots; i++)
		free(s->slot[i]);
	free(s->slot);
	free(s->thread);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->moved);
	free(s);
}
