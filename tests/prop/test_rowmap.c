/* The row map against a plain list of live slots, over 100,000 random bitmaps: every rank, select, run and deleted slot. */
#include "../t.h"

#include <rowmap.h>

#define BITMAPS 100000
#define SLOTS_MAX 70000 /* a little more than two chunks */

static uint8_t live[SLOTS_MAX];
static uint32_t slots[SLOTS_MAX], dead[SLOTS_MAX];

struct model {
	size_t nslots, nlive;
};

/* Bits beyond nslots are sometimes set: they must not count. */
static int fill(void *ctx, uint64_t first, uint64_t *words, size_t nwords)
{
	const struct model *m = ctx;

	for (size_t w = 0; w < nwords; w++) {
		words[w] = 0;
		for (unsigned b = 0; b < 64; b++) {
			uint64_t slot = first + 64 * w + b;

			if (slot < m->nslots ? live[slot] : m->nslots % 3 == 0)
				words[w] |= (uint64_t)1 << b;
		}
	}
	return 0;
}

/* Sizes around the borders of words, blocks and chunks come often; so do all, none, few, most, and long runs. */
static struct model random_bitmap(uint64_t *rnd)
{
	static const uint32_t borders[] = {0, 1, 63, 64, 65, 511, 512, 513, 32767, 32768, 32769, 65536, 65537};
	struct model m = {0};
	uint64_t kind = t_rand(rnd) % 100, density = t_rand(rnd) % 101, run = 0, value = 0;

	if (kind < 1)
		m.nslots = borders[t_rand(rnd) % (sizeof(borders) / sizeof(borders[0]))];
	else if (kind < 2)
		m.nslots = t_rand(rnd) % SLOTS_MAX;
	else
		m.nslots = t_rand(rnd) % 700;
	for (size_t i = 0; i < m.nslots; i++) {
		if (run-- == 0) {
			run = kind % 2 ? 0 : t_rand(rnd) % 200;
			value = t_rand(rnd) % 100 < density;
		}
		live[i] = (uint8_t)value;
		if (live[i])
			slots[m.nlive++] = (uint32_t)i;
		else
			dead[i - m.nlive] = (uint32_t)i;
	}
	return m;
}

static void check_select_and_rank(const struct npki_rowmap *map, const struct model *m, uint64_t seed)
{
	size_t rank = 0;

	for (size_t i = 0; i < m->nlive; i++)
		T_CHECKF(
			npki_rowmap_select(map, i) == slots[i], "seed %#llx: select(%zu)", (unsigned long long)seed, i);
	for (size_t i = 0; i < m->nslots - m->nlive; i++)
		T_CHECKF(npki_rowmap_select_dead(map, i) == dead[i], "seed %#llx: deleted %zu",
			(unsigned long long)seed, i);
	for (size_t s = 0; s <= m->nslots; s++) {
		T_CHECKF(npki_rowmap_rank(map, s) == rank, "seed %#llx: rank(%zu)", (unsigned long long)seed, s);
		if (s < m->nslots) {
			T_CHECKF(npki_rowmap_live(map, s) == live[s], "seed %#llx: live(%zu)", (unsigned long long)seed,
				s);
			rank += live[s];
		}
	}
}

static void check_runs(const struct npki_rowmap *map, const struct model *m, uint64_t *rnd, uint64_t seed)
{
	uint64_t slot = 0, n, want = t_rand(rnd) % 100 ? UINT64_MAX : t_rand(rnd) % 64 + 1;
	size_t i = 0;

	while (npki_rowmap_run(map, &slot, want, &n)) {
		T_CHECKF(
			n > 0 && n <= want && i + n <= m->nlive, "seed %#llx: run at %zu", (unsigned long long)seed, i);
		for (uint64_t k = 0; k < n; k++)
			T_CHECKF(slots[i + k] == slot + k, "seed %#llx: run at row %zu", (unsigned long long)seed, i);
		i += n;
		slot += n;
		T_CHECK(n == want || slot == m->nslots || !live[slot]);
	}
	T_CHECKF(i == m->nlive, "seed %#llx: runs end at row %zu", (unsigned long long)seed, i);
}

static void check_many(const struct npki_rowmap *map, const struct model *m, uint64_t *rnd)
{
	uint64_t rows[64], want[64];

	if (m->nlive == 0)
		return;
	for (int i = 0; i < 64; i++) {
		rows[i] = t_rand(rnd) % m->nlive;
		want[i] = slots[rows[i]];
	}
	npki_rowmap_select_many(map, rows, 64, NULL);
	T_CHECK(memcmp(rows, want, sizeof(rows)) == 0);
}

TEST(rank_and_select_agree_with_a_plain_list)
{
	const char *scale = getenv("NPK_SCALE"); /* sanitizers are slow */
	int n = (int)(BITMAPS * (scale ? strtod(scale, NULL) : 1));
	uint64_t rnd = t_seed();

	for (int i = 0; i < n; i++) {
		uint64_t seed = rnd;
		struct model m = random_bitmap(&rnd);
		struct npki_rowmap *map = NULL;
		bool padding;

		T_CHECK(npki_rowmap_build(&map, m.nslots, fill, &m, &padding) == 0);
		T_CHECK(map->nslots == m.nslots && map->nlive == m.nlive);
		T_CHECK(padding == (m.nslots % 3 == 0 && m.nslots % 64 != 0));
		check_select_and_rank(map, &m, seed);
		check_runs(map, &m, &rnd, seed);
		check_many(map, &m, &rnd);
		npki_rowmap_put(map);
	}
}

T_MAIN()
