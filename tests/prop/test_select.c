/* The select of every CPU: the code for those without BMI2 finds what the code for this one finds, which test_rowmap
 * holds against a plain list. */
#include "../../engine/rowmap.c"

#include "../t.h"

#define SLOTS 100000

struct density {
	uint64_t *rnd;
	uint64_t percent; /* of the slots that live */
};

static int fill(void *ctx, uint64_t first, uint64_t *words, size_t nwords)
{
	const struct density *d = ctx;

	(void)first;
	for (size_t w = 0; w < nwords; w++) {
		words[w] = 0;
		for (unsigned b = 0; b < 64; b++)
			words[w] |= (uint64_t)(t_rand(d->rnd) % 100 < d->percent) << b;
	}
	return 0;
}

TEST(every_cpu_selects_the_same_slots)
{
	uint64_t rnd = t_seed(), any[BATCH], here[BATCH], listed[BATCH];

	for (uint64_t percent = 1; percent <= 100; percent++) {
		struct density d = {&rnd, percent};
		struct npki_rowmap *m = NULL;

		T_CHECK(npki_rowmap_build(&m, SLOTS, fill, &d, NULL) == 0);
		for (uint64_t first = 0; first + BATCH <= m->nlive; first += BATCH) {
			for (unsigned i = 0; i < BATCH; i++)
				any[i] = here[i] = first + i;
			select_any_cpu(m, any, BATCH, NULL);
			npki_rowmap_select_many(m, here, BATCH, NULL);
			npki_rowmap_list(m, here[0], listed, BATCH);
			T_CHECKF(memcmp(any, here, sizeof(any)) == 0 && memcmp(listed, here, sizeof(here)) == 0,
				"%llu %% live: rows from %llu", (unsigned long long)percent, (unsigned long long)first);
		}
		npki_rowmap_put(m);
	}
}

T_MAIN()
