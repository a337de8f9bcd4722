/* rowmap.h - from rows to slots and back: a bitmap of live slots with a directory of counts.
 *
 * The bits lie in chunks of 4 KiB, each with the count of live slots before every block of 512 bits; a generation holds
 * an array of chunk pointers and the count before each chunk. Generations share chunks that did not change, and a chunk
 * without deletions is one static chunk for all. select() looks up a sample (the chunk of every 8192th row), which is
 * the chunk or the one before it, then 64 counts, then 8 words, without a branch: flat in the number of rows and in how
 * they are deleted. The directory costs 4 % of the bitmap. Rank and select as in Vigna, "Broadword implementation of
 * rank/select queries" (2008). */
#ifndef NPKI_ROWMAP_H
#define NPKI_ROWMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NPKI_CHUNK_BITS 32768u
#define NPKI_CHUNK_WORDS (NPKI_CHUNK_BITS / 64)
#define NPKI_CHUNK_BLOCKS (NPKI_CHUNK_BITS / 512)

struct npki_chunk {                         /* 64-byte aligned, so that a block is one cache line */
	uint64_t word[NPKI_CHUNK_WORDS];    /* bit b of word w is slot 64 w + b; 1 = live */
	uint16_t before[NPKI_CHUNK_BLOCKS]; /* live slots of the chunk before each block */
	_Atomic uint32_t refs;              /* rowmaps that hold it */
	uint32_t live;                      /* bits that are 1 */
};

struct npki_rowmap {
	_Atomic uint32_t refs;
	uint64_t nslots, nlive;
	size_t nchunks;
	struct npki_chunk **chunk;
	uint64_t *rank;   /* nchunks + 1: live slots before each chunk */
	uint32_t *sample; /* chunk that holds row 8192 i; one more at the end */
};

/* A map of `nslots` slots whose bits `fill` gives: it is called for chunk 0, 1, ... and writes the words of slots from
 * `first` on, NPKI_CHUNK_WORDS of them at most (those beyond nslots are ignored). 0, -ENOMEM, or what fill returned.
 * *padding (may be NULL) tells whether a bit beyond nslots in the last word was set. */
typedef int npki_fill_fn(void *ctx, uint64_t first, uint64_t *words, size_t nwords);
int npki_rowmap_build(struct npki_rowmap **out, uint64_t nslots, npki_fill_fn *fill, void *ctx, bool *padding);
struct npki_rowmap *npki_rowmap_ref(struct npki_rowmap *m); /* `m` may be NULL */
void npki_rowmap_put(struct npki_rowmap *m);

/* A changed copy, which shares all chunks that did not change: O(change) but for 20 bytes per chunk. `m` NULL is a map
 * of `nslots` live slots. clear() makes the slots of the runs dead; grow() adds live slots up to `nslots`. -ENOMEM. */
struct npki_run {
	uint64_t slot, n;
};
int npki_rowmap_clear(const struct npki_rowmap *m, uint64_t nslots, const struct npki_run *run, size_t nruns,
	struct npki_rowmap **out);
int npki_rowmap_grow(const struct npki_rowmap *m, uint64_t nslots, struct npki_rowmap **out);
/* The words of chunk `c` and how many of them the map has. */
const uint64_t *npki_rowmap_words(const struct npki_rowmap *m, size_t c, size_t *nwords);

uint64_t npki_rowmap_select(const struct npki_rowmap *m, uint64_t row);    /* row < nlive */
uint64_t npki_rowmap_rank(const struct npki_rowmap *m, uint64_t slot);     /* live slots before it; slot <= nslots */
bool npki_rowmap_live(const struct npki_rowmap *m, uint64_t slot);         /* slot < nslots */
uint64_t npki_rowmap_select_dead(const struct npki_rowmap *m, uint64_t i); /* i < nslots - nlive */
/* Each row becomes its slot. The bytes of the slot are sent for, if `data` (may be NULL) says where they are. */
struct npki_data {
	const uint8_t *base; /* of slot 0 */
	size_t row_bytes;
};
void npki_rowmap_select_many(const struct npki_rowmap *m, uint64_t *rows, size_t n, const struct npki_data *data);

/* The first live slot at or after `slot`, and how many live slots follow it without a gap, at most `want`. False when
 * there is none. */
bool npki_rowmap_run(const struct npki_rowmap *m, uint64_t *slot, uint64_t want, uint64_t *len);

/* The next `n` live slots at or after `slot`; there must be as many. Cheaper than runs where runs are short. */
void npki_rowmap_list(const struct npki_rowmap *m, uint64_t slot, uint64_t *out, size_t n);

#endif
