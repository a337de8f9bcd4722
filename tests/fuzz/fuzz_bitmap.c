/* fuzz_bitmap.c - any bytes as a deletion bitmap of an array of any length. What is accepted covers the array and lies
 * in the file; the row map made of it agrees with counting bits one by one. */
#include "fuzz.h"

#include "bitmap.h"
#include "rowmap.h"

#include <endian.h>
#include <errno.h>

struct words {
	const uint8_t *p;
	size_t n;
};

static int fill(void *ctx, uint64_t first, uint64_t *out, size_t nwords)
{
	struct words *w = ctx;

	CHECK(first % 64 == 0 && first / 64 + nwords <= w->n);
	for (size_t i = 0; i < nwords; i++)
		out[i] = npki_le(w->p + 8 * (first / 64 + i), 8);
	return 0;
}

static bool bit(const struct words *w, uint64_t slot)
{
	return w->p[slot / 8] >> slot % 8 & 1;
}

static uint64_t word(const struct words *w, uint64_t i)
{
	uint64_t v;

	memcpy(&v, w->p + 8 * i, 8); /* npki_le() would be the slowest part of the target */
	return le64toh(v);
}

static void check_slot(const struct npki_rowmap *m, const struct words *w, uint64_t slot, uint64_t live)
{
	CHECK(npki_rowmap_live(m, slot) == bit(w, slot));
	CHECK(npki_rowmap_rank(m, slot) == live);
	if (bit(w, slot))
		CHECK(npki_rowmap_select(m, live) == slot);
	else
		CHECK(npki_rowmap_select_dead(m, slot - live) == slot);
}

/* One slot of some words, and the count at the end. */
static void check_map(const struct npki_rowmap *m, const struct words *w)
{
	uint64_t full = m->nslots / 64, stride = full / 32 + 1, live = 0, low;

	for (uint64_t i = 0; i < full; i++) {
		if (i % stride == 0) {
			low = word(w, i) & ((1ull << (i * 7 % 64)) - 1);
			check_slot(m, w, 64 * i + i * 7 % 64, live + (unsigned)__builtin_popcountll(low));
		}
		live += (unsigned)__builtin_popcountll(word(w, i));
	}
	for (uint64_t slot = 64 * full; slot < m->nslots; live += bit(w, slot), slot++)
		check_slot(m, w, slot, live);
	CHECK(live == m->nlive && npki_rowmap_rank(m, m->nslots) == m->nlive);
}

/* The first runs: between them all slots are dead, in them all are live. */
static void check_runs(const struct npki_rowmap *m, const struct words *w)
{
	uint64_t slot = 0, next = 0, len;

	for (unsigned i = 0; i < 4 && slot < m->nslots && npki_rowmap_run(m, &slot, 200, &len); i++) {
		CHECK(len > 0 && len <= 200 && slot >= next && len <= m->nslots - slot);
		for (; next < slot && next % 64; next++)
			CHECK(!bit(w, next));
		for (; next + 64 <= slot; next += 64)
			CHECK(word(w, next / 64) == 0);
		for (; next < slot; next++)
			CHECK(!bit(w, next));
		for (; next < slot + len; next++)
			CHECK(bit(w, next));
		CHECK(len == 200 || next == m->nslots || !bit(w, next));
		slot = next;
	}
}

static void check_rows(struct words w, uint64_t nslots)
{
	struct npki_rowmap *m;
	bool padding, want = nslots % 64 && npki_le(w.p + 8 * (nslots / 64), 8) >> nslots % 64;

	CHECK(npki_rowmap_build(&m, nslots, fill, &w, &padding) == 0);
	CHECK(m->nslots == nslots && padding == want);
	check_map(m, &w);
	check_runs(m, &w);
	npki_rowmap_put(m);
}

/* The array's length, often one that the file could fit. */
static uint64_t pick(uint64_t number, unsigned how, const uint8_t *file, size_t len)
{
	switch (how & 3) {
	case 0:
		return number;
	case 1:
		return len >= 8 ? npki_le(file, 8) - (number & 1) : 0;
	case 2:
		return 8 * len - (number & 63);
	default:
		return 8 * (len >= NPKI_BITMAP_HEAD ? len - NPKI_BITMAP_HEAD : 0) - (number & 63);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct npki_rd r = npki_rd_init(data, size);
	unsigned how = npki_rd_u8(&r);
	uint64_t number = npki_rd_u64(&r), nslots, nheld, nwords;
	struct npki_notes notes = {0};
	struct npki_bitmap_form f;
	struct npk_err err;
	size_t len;
	int rc;

	if (r.bad)
		return 0;
	len = (size_t)(r.end - r.p);
	nslots = pick(number, how, r.p, len);
	nheld = nslots + (how >> 2 & 31);
	rc = npki_bitmap_form(r.p, len, nslots, nheld, "deleted_x.npkb", &f, &notes, &err);
	if (rc != 0) {
		CHECK(rc == -EUCLEAN);
		check_err(rc, &err);
		return 0;
	}
	nwords = nslots / 64 + (nslots % 64 != 0);
	CHECK(len % 8 == 0 && f.rows >= nslots && (f.rows == nslots || f.rows <= nheld));
	CHECK(f.words_at == (f.header ? NPKI_BITMAP_HEAD : 0) && nwords <= (len - f.words_at) / 8);
	check_rows((struct words){r.p + f.words_at, (len - f.words_at) / 8}, nslots);
	return 0;
}
