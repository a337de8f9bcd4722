/* rowmap.c - rank and select over the chunks of a bitmap; see rowmap.h. */
#include "rowmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A count of ones is one instruction on every x86-64 since 2008, but not in the baseline: these functions exist twice
 * and the loader picks. Sanitizers cannot run the picking code so early, and clang gives the picked function a name that
 * other files do not know. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&               \
	!defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "popcnt")))
#endif
#ifndef CLONES
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

#define SAMPLE_ROWS 32768u

/* Never freed, never written: every chunk without a deleted slot. */
static struct npki_chunk full_chunk;

__attribute__((constructor)) static void full_chunk_init(void)
{
	full_chunk.refs = 1;
	full_chunk.live = NPKI_CHUNK_BITS;
	memset(full_chunk.word, 0xFF, sizeof(full_chunk.word));
	for (unsigned b = 0; b < NPKI_CHUNK_BLOCKS; b++)
		full_chunk.before[b] = (uint16_t)(512 * b);
}

INLINE unsigned ones(uint64_t w)
{
	return (unsigned)__builtin_popcountll(w);
}

/* The position of one number `r` (from 0) of a word that has more than r ones: byte sums by multiplication, then the
 * byte, then its bits. */
INLINE unsigned select_word(uint64_t w, unsigned r)
{
	uint64_t s = w - ((w >> 1) & 0x5555555555555555u), sums;
	unsigned at;

	s = (s & 0x3333333333333333u) + ((s >> 2) & 0x3333333333333333u);
	s = (s + (s >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
	sums = s * 0x0101010101010101u; /* byte i: ones in bytes 0..i */
	/* Bytes whose sum is <= r come before the one wanted; sums are at most 64, r at most 63. */
	at = (unsigned)((((((r * 0x0101010101010101u) | 0x8080808080808080u) - sums) & 0x8080808080808080u) >> 7) *
				0x0101010101010101u >>
			56) *
	     8;
	r -= (unsigned)((sums << 8 >> at) & 0xFF);
	for (w >>= at; r > 0; r--)
		w &= w - 1;
	return at + (unsigned)__builtin_ctzll(w);
}

/* The bit number `r` within a chunk; `flip` all ones looks for dead slots. */
INLINE unsigned select_chunk(const struct npki_chunk *c, unsigned r, uint64_t flip)
{
	unsigned b = 0, k, w;

	for (unsigned half = NPKI_CHUNK_BLOCKS / 2; half > 0; half /= 2) {
		unsigned before = flip ? 512 * (b + half) - c->before[b + half] : c->before[b + half];

		b += before <= r ? half : 0;
	}
	r -= flip ? 512 * b - c->before[b] : c->before[b];
	for (w = 8 * b;; w++) {
		k = ones(c->word[w] ^ flip);
		if (r < k)
			return 64 * w + select_word(c->word[w] ^ flip, r);
		r -= k;
	}
}

/* The last chunk with rank[] <= row; the sample brackets it. */
INLINE size_t find_chunk(const struct npki_rowmap *m, uint64_t row)
{
	size_t lo = m->sample[row / SAMPLE_ROWS], hi = m->sample[row / SAMPLE_ROWS + 1] + 1, mid;

	while (hi - lo > 1) {
		mid = lo + (hi - lo) / 2;
		if (m->rank[mid] <= row)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

INLINE uint64_t select_live(const struct npki_rowmap *m, uint64_t row)
{
	size_t c = find_chunk(m, row);
	const struct npki_chunk *k = m->chunk[c];
	uint64_t r = row - m->rank[c];

	return (uint64_t)c * NPKI_CHUNK_BITS + (k == &full_chunk ? r : select_chunk(k, (unsigned)r, 0));
}

CLONES uint64_t npki_rowmap_select(const struct npki_rowmap *m, uint64_t row)
{
	return select_live(m, row);
}

CLONES void npki_rowmap_select_many(const struct npki_rowmap *m, uint64_t *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		rows[i] = select_live(m, rows[i]);
}

CLONES uint64_t npki_rowmap_select_dead(const struct npki_rowmap *m, uint64_t i)
{
	size_t lo = 0, hi = m->nchunks, mid;

	while (hi - lo > 1) { /* the chunk before which at most i slots are dead */
		mid = lo + (hi - lo) / 2;
		if ((uint64_t)mid * NPKI_CHUNK_BITS - m->rank[mid] <= i)
			lo = mid;
		else
			hi = mid;
	}
	i -= (uint64_t)lo * NPKI_CHUNK_BITS - m->rank[lo];
	return (uint64_t)lo * NPKI_CHUNK_BITS + select_chunk(m->chunk[lo], (unsigned)i, ~(uint64_t)0);
}

CLONES uint64_t npki_rowmap_rank(const struct npki_rowmap *m, uint64_t slot)
{
	size_t c = (size_t)(slot / NPKI_CHUNK_BITS);
	unsigned bit = (unsigned)(slot % NPKI_CHUNK_BITS), n;
	const struct npki_chunk *k;

	if (slot == m->nslots)
		return m->nlive;
	k = m->chunk[c];
	n = k->before[bit / 512];
	for (unsigned w = bit / 512 * 8; w < bit / 64; w++)
		n += ones(k->word[w]);
	n += ones(k->word[bit / 64] & (((uint64_t)1 << bit % 64) - 1));
	return m->rank[c] + n;
}

bool npki_rowmap_live(const struct npki_rowmap *m, uint64_t slot)
{
	return m->chunk[slot / NPKI_CHUNK_BITS]->word[slot % NPKI_CHUNK_BITS / 64] >> slot % 64 & 1;
}

/* The first slot at or after `slot`, but before `end`, whose bit is `live`; else `end`. */
static uint64_t find_bit(const struct npki_rowmap *m, uint64_t slot, uint64_t end, bool live)
{
	uint64_t flip = live ? 0 : ~(uint64_t)0;

	while (slot < end) {
		const struct npki_chunk *c = m->chunk[slot / NPKI_CHUNK_BITS];
		uint64_t w;

		if (c->live == (live ? 0 : NPKI_CHUNK_BITS)) {
			slot = (slot / NPKI_CHUNK_BITS + 1) * NPKI_CHUNK_BITS;
			continue;
		}
		w = (c->word[slot % NPKI_CHUNK_BITS / 64] ^ flip) >> slot % 64;
		if (w) {
			slot += (unsigned)__builtin_ctzll(w);
			return slot < end ? slot : end;
		}
		slot = (slot / 64 + 1) * 64;
	}
	return end;
}

bool npki_rowmap_run(const struct npki_rowmap *m, uint64_t *slot, uint64_t want, uint64_t *len)
{
	uint64_t first = find_bit(m, *slot, m->nslots, true), end;

	if (first == m->nslots || want == 0)
		return false;
	end = want < m->nslots - first ? first + want : m->nslots;
	*slot = first;
	*len = find_bit(m, first, end, false) - first;
	return true;
}

/* Zeroes the bits from nslots on and counts; returns the chunk to keep. */
CLONES static struct npki_chunk *finish_chunk(struct npki_chunk *c, uint64_t nslots, bool *padding)
{
	uint32_t live = 0;

	if (nslots < NPKI_CHUNK_BITS) {
		uint64_t *last = &c->word[nslots / 64];
		uint64_t keep = ((uint64_t)1 << nslots % 64) - 1;

		*padding = nslots % 64 != 0 && (*last & ~keep) != 0;
		*last &= keep;
		memset(last + 1, 0, (NPKI_CHUNK_WORDS - 1 - nslots / 64) * 8);
	}
	for (unsigned b = 0; b < NPKI_CHUNK_BLOCKS; b++) {
		c->before[b] = (uint16_t)live;
		for (unsigned w = 8 * b; w < 8 * b + 8; w++)
			live += ones(c->word[w]);
	}
	c->live = live;
	c->refs = 1;
	if (live != NPKI_CHUNK_BITS)
		return c;
	free(c);
	return &full_chunk;
}

static int build_samples(struct npki_rowmap *m)
{
	size_t n = (size_t)(m->nlive / SAMPLE_ROWS) + 2, c = 0;

	m->sample = malloc(n * sizeof(*m->sample));
	if (!m->sample)
		return -ENOMEM;
	for (size_t i = 0; i + 1 < n; i++) {
		while (c + 1 < m->nchunks && m->rank[c + 1] <= (uint64_t)i * SAMPLE_ROWS)
			c++;
		m->sample[i] = (uint32_t)c;
	}
	m->sample[n - 1] = (uint32_t)(m->nchunks ? m->nchunks - 1 : 0);
	return 0;
}

static int build_chunk(struct npki_rowmap *m, size_t i, npki_fill_fn *fill, void *ctx, bool *padding)
{
	uint64_t first = (uint64_t)i * NPKI_CHUNK_BITS, left = m->nslots - first;
	size_t nwords = left < NPKI_CHUNK_BITS ? (size_t)((left + 63) / 64) : NPKI_CHUNK_WORDS;
	struct npki_chunk *c = aligned_alloc(64, (sizeof(*c) + 63) / 64 * 64);
	int rc;

	if (!c)
		return -ENOMEM;
	rc = fill(ctx, first, c->word, nwords);
	if (rc != 0) {
		free(c);
		return rc;
	}
	m->chunk[i] = finish_chunk(c, left, padding);
	return 0;
}

struct npki_rowmap *npki_rowmap_ref(struct npki_rowmap *m)
{
	if (m)
		atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

static void chunk_put(struct npki_chunk *c)
{
	if (c && c != &full_chunk && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		free(c);
}

static struct npki_chunk *chunk_ref(struct npki_chunk *c)
{
	if (c != &full_chunk)
		atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void npki_rowmap_put(struct npki_rowmap *m)
{
	if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; m->chunk && i < m->nchunks; i++)
		chunk_put(m->chunk[i]);
	free(m->chunk);
	free(m->rank);
	free(m->sample);
	free(m);
}

/* --- changed copies --------------------------------------------------------------------------------------------------- */

static uint64_t slots_in(const struct npki_rowmap *m, size_t c)
{
	uint64_t left = m->nslots - (uint64_t)c * NPKI_CHUNK_BITS;

	return left < NPKI_CHUNK_BITS ? left : NPKI_CHUNK_BITS;
}

/* Chunk c of a map that is being made, to be written to; finish_chunk() closes it. Bits from the old number of slots up
 * to the new one are set. */
static int open_chunk(struct npki_rowmap *m, const struct npki_rowmap *old, size_t c)
{
	struct npki_chunk *k = aligned_alloc(64, (sizeof(*k) + 63) / 64 * 64);

	if (!k)
		return -ENOMEM;
	memset(k->word, 0xFF, sizeof(k->word));
	if (old && c < old->nchunks) {
		uint64_t n = slots_in(old, c);

		memcpy(k->word, old->chunk[c]->word, (n + 63) / 64 * 8);
		if (n % 64)
			k->word[n / 64] |= ~(uint64_t)0 << n % 64;
	}
	chunk_put(m->chunk[c]);
	m->chunk[c] = k;
	return 0;
}

static void close_chunk(struct npki_rowmap *m, size_t c)
{
	bool padding;

	m->chunk[c] = finish_chunk(m->chunk[c], slots_in(m, c), &padding);
}

/* All chunks as in `old`, those beyond it live. The last one of `old`, when it grows, and the last one at all, when it is
 * not whole, are opened and closed. */
static int copy_chunks(struct npki_rowmap *m, const struct npki_rowmap *old)
{
	for (size_t c = 0; c < m->nchunks; c++) {
		bool whole = slots_in(m, c) == NPKI_CHUNK_BITS, same = old && c < old->nchunks && slots_in(old, c) == slots_in(m, c);

		if (same)
			m->chunk[c] = chunk_ref(old->chunk[c]);
		else if (whole && !(old && c < old->nchunks))
			m->chunk[c] = &full_chunk;
		else if (open_chunk(m, old, c) != 0)
			return -ENOMEM;
		else
			close_chunk(m, c);
	}
	return 0;
}

static struct npki_rowmap *map_new(uint64_t nslots)
{
	struct npki_rowmap *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->refs = 1;
	m->nslots = nslots;
	m->nchunks = (size_t)((nslots + NPKI_CHUNK_BITS - 1) / NPKI_CHUNK_BITS);
	m->chunk = calloc(m->nchunks ? m->nchunks : 1, sizeof(struct npki_chunk *));
	m->rank = calloc(m->nchunks + 1, sizeof(*m->rank));
	if (m->chunk && m->rank)
		return m;
	npki_rowmap_put(m);
	return NULL;
}

static int finish_map(struct npki_rowmap *m, int rc, struct npki_rowmap **out)
{
	for (size_t i = 0; i < m->nchunks && rc == 0; i++)
		m->rank[i + 1] = m->rank[i] + m->chunk[i]->live;
	if (rc == 0) {
		m->nlive = m->rank[m->nchunks];
		rc = build_samples(m);
	}
	if (rc != 0)
		npki_rowmap_put(m);
	else
		*out = m;
	return rc;
}

int npki_rowmap_build(struct npki_rowmap **out, uint64_t nslots, npki_fill_fn *fill, void *ctx, bool *padding)
{
	struct npki_rowmap *m = map_new(nslots);
	bool pad = false;
	int rc = m ? 0 : -ENOMEM;

	for (size_t i = 0; m && i < m->nchunks && rc == 0; i++)
		rc = build_chunk(m, i, fill, ctx, &pad);
	if (padding)
		*padding = pad;
	return m ? finish_map(m, rc, out) : rc;
}

/* The part of a run that lies in chunk `c` loses its bits. */
static void clear_bits(struct npki_chunk *k, size_t c, uint64_t from, uint64_t to)
{
	uint64_t base = (uint64_t)c * NPKI_CHUNK_BITS;

	for (uint64_t s = from; s < to;) {
		uint64_t bit = s % 64, n = to - s < 64 - bit ? to - s : 64 - bit;

		k->word[(s - base) / 64] &= ~((n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << bit);
		s += n;
	}
}

/* Chunk c of `m`, which others may share or which is the full one, as a copy of its own to write to. */
static int reopen_chunk(struct npki_rowmap *m, size_t c)
{
	struct npki_chunk *k = aligned_alloc(64, (sizeof(*k) + 63) / 64 * 64);

	if (!k)
		return -ENOMEM;
	memcpy(k->word, m->chunk[c]->word, sizeof(k->word));
	chunk_put(m->chunk[c]);
	m->chunk[c] = k;
	return 0;
}

int npki_rowmap_clear(const struct npki_rowmap *old, uint64_t nslots, const struct npki_run *run, size_t nruns,
	struct npki_rowmap **out)
{
	struct npki_rowmap *m = map_new(nslots);
	size_t open = SIZE_MAX; /* the chunk that is being written */
	int rc = m ? copy_chunks(m, old) : -ENOMEM;

	for (size_t i = 0; i < nruns && rc == 0; i++)
		for (uint64_t s = run[i].slot, end = s + run[i].n, stop; s < end && rc == 0; s = stop) {
			size_t c = (size_t)(s / NPKI_CHUNK_BITS);

			stop = (uint64_t)(c + 1) * NPKI_CHUNK_BITS < end ? (uint64_t)(c + 1) * NPKI_CHUNK_BITS : end;
			if (c != open) {
				if (open != SIZE_MAX)
					close_chunk(m, open);
				open = SIZE_MAX;
				rc = reopen_chunk(m, c);
				if (rc == 0)
					open = c;
			}
			if (rc == 0)
				clear_bits(m->chunk[c], c, s, stop);
		}
	if (open != SIZE_MAX)
		close_chunk(m, open);
	return m ? finish_map(m, rc, out) : rc;
}

int npki_rowmap_grow(const struct npki_rowmap *old, uint64_t nslots, struct npki_rowmap **out)
{
	struct npki_rowmap *m = map_new(nslots);

	return m ? finish_map(m, copy_chunks(m, old), out) : -ENOMEM;
}

const uint64_t *npki_rowmap_words(const struct npki_rowmap *m, size_t c, size_t *nwords)
{
	*nwords = (size_t)((slots_in(m, c) + 63) / 64);
	return m->chunk[c]->word;
}
