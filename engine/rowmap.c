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
#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_FAST
#include <immintrin.h>
#endif
#define INLINE static inline __attribute__((always_inline))

#define SAMPLE_ROWS 8192u
#define DEAD (~(uint64_t)0)
#define BATCH 128 /* rows that select_many() takes through its steps together */

/* Never freed, never written: every chunk without a deleted slot. */
static struct npki_chunk full_chunk __attribute__((aligned(64)));

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

/* select() must not guess: where a row lies is random, and one mispredicted branch costs as much as all the rest. So
 * every step counts how many candidates come before the one wanted instead of looking for it, in loops of fixed length
 * that compilers unroll. */

typedef int16_t lanes __attribute__((vector_size(16), may_alias));
typedef uint64_t quads __attribute__((vector_size(16)));

#define BYTES 0x0101010101010101u
#define TOPS 0x8080808080808080u

/* How many of the 8 bytes of `sums`, each at most 64, are <= r, which is at most 63. */
INLINE unsigned count_le(uint64_t sums, unsigned r)
{
	return (unsigned)(((((r * BYTES | TOPS) - sums) & TOPS) >> 7) * BYTES >> 56);
}

/* The position of one number `r` (from 0) of a word that has more than r ones: the byte from the sums of ones up to each
 * byte, then the bit from the sums up to each bit of it. */
INLINE unsigned select_word(uint64_t w, unsigned r)
{
	uint64_t s = w - ((w >> 1) & 0x5555555555555555u), bits;
	unsigned at;

	s = (s & 0x3333333333333333u) + ((s >> 2) & 0x3333333333333333u);
	s = ((s + (s >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * BYTES; /* byte i: ones in bytes 0..i */
	at = 8 * count_le(s, r);
	r -= (unsigned)(s << 8 >> at & 0xFF);
	bits = (w >> at & 0xFF) * BYTES & 0x8040201008040201u; /* byte i: not 0 when bit i is set */
	bits = ((bits + (TOPS - BYTES)) | bits) >> 7 & BYTES;
	return at + count_le(bits * BYTES, r);
}

/* The last block before which at most `r` bits of the chunk are counted; `flip` all ones counts dead slots. All counts
 * are below 2^15, and a comparison of lanes gives -1 where it holds. */
INLINE unsigned find_block(const struct npki_chunk *c, unsigned r, uint64_t flip)
{
	const lanes *before = (const lanes *)c->before;
	lanes sum = {0}, wanted = sum + (int16_t)r;
	quads q;

#pragma GCC unroll 8
	for (unsigned i = 0; i < NPKI_CHUNK_BLOCKS / 8; i++) {
		lanes counted = before[i];

		if (flip)
			counted = (lanes){0, 512, 1024, 1536, 2048, 2560, 3072, 3584} + (int16_t)(4096 * i) - counted;
		sum -= counted <= wanted;
	}
	q = (quads)sum;
	return (unsigned)((q[0] + q[1]) * 0x0001000100010001u >> 48) - 1;
}

/* The bit number `r` of a chunk, which is known to lie in block `b`. */
INLINE unsigned select_block(const struct npki_chunk *c, unsigned b, unsigned r, uint64_t flip)
{
	const uint64_t *word = c->word + 8 * b;
	unsigned w = 0, sum = 0, base = 0;

	r -= flip ? 512 * b - c->before[b] : c->before[b];
#pragma GCC unroll 7
	for (unsigned i = 0; i < 7; i++) {
		sum += ones(word[i] ^ flip);
		w += sum <= r;
		base = sum <= r ? sum : base;
	}
	return 512 * b + 64 * w + select_word(word[w] ^ flip, r - base);
}

/* The last chunk with rank[] <= row. While a quarter of the slots is live, a sample is at most one chunk away. */
INLINE size_t find_chunk(const struct npki_rowmap *m, uint64_t row)
{
	size_t lo = m->sample[row / SAMPLE_ROWS], hi, mid;

	lo += m->rank[lo + 1] <= row;
	if (__builtin_expect(m->rank[lo + 1] > row, 1))
		return lo;
	hi = m->sample[row / SAMPLE_ROWS + 1] + 1;
	while (hi - lo > 1) {
		mid = lo + (hi - lo) / 2;
		if (m->rank[mid] <= row)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* The rows of a batch on their way. Each step leaves the memory of the next one on its way for all of them; the last one
 * the row itself, so that a CPU that waits for memory looks up further rows meanwhile. */
struct batch {
	const struct npki_chunk *chunk[BATCH];
	uint32_t r[BATCH], block[BATCH];
};

INLINE void find_chunks(const struct npki_rowmap *m, uint64_t *rows, size_t n, struct batch *b)
{
	for (size_t i = 0; i < n; i++) {
		size_t c = find_chunk(m, rows[i]);

		b->chunk[i] = m->chunk[c];
		b->r[i] = (uint32_t)(rows[i] - m->rank[c]);
		rows[i] = (uint64_t)c * NPKI_CHUNK_BITS;
		__builtin_prefetch(&b->chunk[i]->before[0]);
		__builtin_prefetch(&b->chunk[i]->before[NPKI_CHUNK_BLOCKS / 2]);
	}
}

INLINE void found_slot(uint64_t slot, const struct npki_data *data)
{
	if (data) {
		__builtin_prefetch(data->base + slot * data->row_bytes);
		__builtin_prefetch(data->base + (slot + 1) * data->row_bytes - 1);
	}
}

CLONES static void select_any_cpu(const struct npki_rowmap *m, uint64_t *rows, size_t n, const struct npki_data *data)
{
	struct batch b;

	find_chunks(m, rows, n, &b);
	for (size_t i = 0; i < n; i++) {
		b.block[i] = find_block(b.chunk[i], b.r[i], 0);
		__builtin_prefetch(&b.chunk[i]->word[8 * b.block[i]]);
	}
	for (size_t i = 0; i < n; i++) {
		rows[i] += select_block(b.chunk[i], b.block[i], b.r[i], 0);
		found_slot(rows[i], data);
	}
}

static void (*select_batch)(const struct npki_rowmap *m, uint64_t *rows, size_t n,
	const struct npki_data *data) = select_any_cpu; /* n <= BATCH */

#ifdef HAVE_FAST
#define FAST __attribute__((target("popcnt,bmi,bmi2,avx2")))

/* find_block() with 16 counts at a time. */
FAST INLINE unsigned find_block_fast(const struct npki_chunk *c, unsigned r)
{
	const __m256i *before = (const __m256i *)c->before, wanted = _mm256_set1_epi16((int16_t)r);
	__m256i low = _mm256_packs_epi16(_mm256_cmpgt_epi16(before[0], wanted), _mm256_cmpgt_epi16(before[1], wanted));
	__m256i high = _mm256_packs_epi16(_mm256_cmpgt_epi16(before[2], wanted), _mm256_cmpgt_epi16(before[3], wanted));
	uint64_t behind = (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;

	return NPKI_CHUNK_BLOCKS - 1 - ones(behind);
}

/* The ones of each of four words: those of each half byte by table, summed. */
FAST INLINE __m256i ones_of_words(__m256i w)
{
	const __m256i table = _mm256_setr_epi8(
		0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
	const __m256i half = _mm256_set1_epi8(15);
	__m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(w, half));
	__m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(w, 4), half));

	return _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
}

/* select_block() with the sums up to each of the 8 words side by side. */
FAST INLINE unsigned select_block_fast(const struct npki_chunk *c, unsigned b, unsigned r)
{
	const __m256i *word = (const __m256i *)(c->word + 8 * b);
	__m256i packed = _mm256_packus_epi32(ones_of_words(word[0]), ones_of_words(word[1]));
	__m128i sums = _mm_packus_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1)), behind,
		base;
	uint64_t bits;
	unsigned w;

	r -= c->before[b];
	sums = _mm_shuffle_epi8(
		sums, _mm_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15)); /* in order */
	sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 2));
	sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 4));
	sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 8));
	behind = _mm_cmpgt_epi16(sums, _mm_set1_epi16((int16_t)r));
	w = 8 - ones((unsigned)_mm_movemask_epi8(behind)) / 2;
	/* The largest sum that is not behind, or 0: of numbers turned around the smallest, for which there is an instruction. */
	base = _mm_minpos_epu16(_mm_xor_si128(_mm_andnot_si128(behind, sums), _mm_set1_epi16(-1)));
	r -= ~(unsigned)_mm_cvtsi128_si32(base) & 0xFFFF;
	bits = _pdep_u64((uint64_t)1 << r, c->word[8 * b + w]); /* moves bit r to where the word has its one number r */
	return 512 * b + 64 * w + (unsigned)__builtin_ctzll(bits);
}

FAST static void select_fast(const struct npki_rowmap *m, uint64_t *rows, size_t n, const struct npki_data *data)
{
	struct batch b;

	find_chunks(m, rows, n, &b);
	for (size_t i = 0; i < n; i++) {
		b.block[i] = find_block_fast(b.chunk[i], b.r[i]);
		__builtin_prefetch(&b.chunk[i]->word[8 * b.block[i]]);
	}
	for (size_t i = 0; i < n; i++) {
		rows[i] += select_block_fast(b.chunk[i], b.block[i], b.r[i]);
		found_slot(rows[i], data);
	}
}

/* On the first two Zen, pdep is a loop in microcode. */
__attribute__((constructor)) static void select_init(void)
{
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
		!__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2"))
		select_batch = select_fast;
}
#endif

uint64_t npki_rowmap_select(const struct npki_rowmap *m, uint64_t row)
{
	select_batch(m, &row, 1, NULL);
	return row;
}

void npki_rowmap_select_many(const struct npki_rowmap *m, uint64_t *rows, size_t n, const struct npki_data *data)
{
	for (; n > BATCH; rows += BATCH, n -= BATCH)
		select_batch(m, rows, BATCH, data);
	select_batch(m, rows, n, data);
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
	return (uint64_t)lo * NPKI_CHUNK_BITS +
	       select_block(m->chunk[lo], find_block(m->chunk[lo], (unsigned)i, DEAD), (unsigned)i, DEAD);
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

void npki_rowmap_list(const struct npki_rowmap *m, uint64_t slot, uint64_t *out, size_t n)
{
	uint64_t at = slot / 64, w;

	for (uint64_t skip = ~(uint64_t)0 << slot % 64;; skip = ~(uint64_t)0, at++) {
		w = m->chunk[at / NPKI_CHUNK_WORDS]->word[at % NPKI_CHUNK_WORDS] & skip;
		for (; w; w &= w - 1) {
			if (n-- == 0)
				return;
			*out++ = 64 * at + (unsigned)__builtin_ctzll(w);
		}
		if (n == 0)
			return;
	}
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
	size_t n = (size_t)(m->nlive / SAMPLE_ROWS) + 2, i = 0;

	m->sample = malloc(n * sizeof(*m->sample));
	if (!m->sample)
		return -ENOMEM;
	for (size_t c = 0; c < m->nchunks; c++)
		for (; i + 1 < n && (uint64_t)i * SAMPLE_ROWS < m->rank[c + 1]; i++)
			m->sample[i] = (uint32_t)c;
	for (; i < n; i++)
		m->sample[i] = (uint32_t)(m->nchunks ? m->nchunks - 1 : 0);
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
	size_t c = 0, both = (size_t)((old && old->nslots < m->nslots ? old->nslots : m->nslots) / NPKI_CHUNK_BITS);

	for (; c < both; c++)
		m->chunk[c] = old ? chunk_ref(old->chunk[c]) : &full_chunk;
	for (; c < m->nchunks; c++) {
		bool whole = slots_in(m, c) == NPKI_CHUNK_BITS,
		     same = old && c < old->nchunks && slots_in(old, c) == slots_in(m, c);

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

/* A chunk of a map that is being made, with the bits that each block has lost so far. */
struct losing {
	struct npki_chunk *k; /* NULL: none is open */
	size_t c;
	uint16_t lost[NPKI_CHUNK_BLOCKS];
};

/* Chunk c of `m`, which others may share or which is the full one, becomes a copy of its own. */
static int start_losing(struct losing *l, struct npki_rowmap *m, size_t c)
{
	struct npki_chunk *k = aligned_alloc(64, (sizeof(*k) + 63) / 64 * 64);

	if (!k)
		return -ENOMEM;
	memcpy(k->word, m->chunk[c]->word, sizeof(k->word));
	memcpy(k->before, m->chunk[c]->before, sizeof(k->before));
	k->live = m->chunk[c]->live;
	k->refs = 1;
	chunk_put(m->chunk[c]);
	m->chunk[c] = k;
	*l = (struct losing){.k = k, .c = c};
	return 0;
}

/* Bits [from, to) of the chunk. */
CLONES static void lose_bits(struct losing *l, unsigned from, unsigned to)
{
	for (unsigned s = from, n; s < to; s += n) {
		unsigned bit = s % 64;
		uint64_t mask;

		n = to - s < 64 - bit ? to - s : 64 - bit;
		mask = (n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << bit;
		l->lost[s / 512] += (uint16_t)ones(l->k->word[s / 64] & mask);
		l->k->word[s / 64] &= ~mask;
	}
}

static void end_losing(struct losing *l)
{
	uint16_t sum = 0;

	if (!l->k)
		return;
	for (unsigned b = 0; b < NPKI_CHUNK_BLOCKS; b++) {
		l->k->before[b] = (uint16_t)(l->k->before[b] - sum);
		sum = (uint16_t)(sum + l->lost[b]);
	}
	l->k->live -= sum;
	l->k = NULL;
}

int npki_rowmap_clear(const struct npki_rowmap *old, uint64_t nslots, const struct npki_run *run, size_t nruns,
	struct npki_rowmap **out)
{
	struct npki_rowmap *m = map_new(nslots);
	struct losing l = {0};
	int rc = m ? copy_chunks(m, old) : -ENOMEM;

	for (size_t i = 0; i < nruns && rc == 0; i++)
		for (uint64_t s = run[i].slot, end = s + run[i].n, stop; s < end && rc == 0; s = stop) {
			size_t c = (size_t)(s / NPKI_CHUNK_BITS);
			uint64_t base = (uint64_t)c * NPKI_CHUNK_BITS;

			stop = base + NPKI_CHUNK_BITS < end ? base + NPKI_CHUNK_BITS : end;
			if (!l.k || c != l.c) {
				end_losing(&l);
				rc = start_losing(&l, m, c);
			}
			if (rc == 0)
				lose_bits(&l, (unsigned)(s - base), (unsigned)(stop - base));
		}
	end_losing(&l);
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
