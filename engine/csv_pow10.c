/* csv_pow10.c - powers of ten to 128 bits, made once: 10^k is 5^k * 2^k, so only the bits of 5^k matter. */
#include "csv.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define LIMBS 40 /* of 32 bits, little end first: 5^324 has 753 bits, and the quotients need 795 + 128 */

static struct npki_u128 table[NPKI_POW10_MAX - NPKI_POW10_MIN + 1];

static uint32_t bit_length(const uint32_t *n)
{
	int i = LIMBS - 1;

	while (n[i] == 0)
		i--;
	return (uint32_t)(32 * i + 32 - __builtin_clz(n[i]));
}

static uint64_t bits_at(const uint32_t *n, int at) /* 64 bits from bit `at` on; bits below 0 are zeros */
{
	uint64_t out = 0;

	for (int i = 0; i < 64; i++)
		if (at + i >= 0 && (n[(at + i) / 32] >> ((at + i) % 32) & 1))
			out |= (uint64_t)1 << i;
	return out;
}

static bool any_below(const uint32_t *n, int at)
{
	for (int i = 0; i < at; i++)
		if (n[i / 32] >> (i % 32) & 1)
			return true;
	return false;
}

/* The first 128 bits of n, plus one where bits follow them. */
static struct npki_u128 leading(const uint32_t *n, bool round_up)
{
	int top = (int)bit_length(n);
	struct npki_u128 g = {bits_at(n, top - 64), bits_at(n, top - 128)};

	if (round_up || any_below(n, top - 128)) {
		g.lo++;
		g.hi += g.lo == 0;
	}
	return g;
}

static void make_table(void)
{
	uint32_t n[LIMBS] = {1};

	for (int k = 0; k <= NPKI_POW10_MAX; k++) {
		uint64_t carry = 0;

		table[k - NPKI_POW10_MIN] = leading(n, false);
		for (int i = 0; i < LIMBS; i++, carry >>= 32) {
			carry += (uint64_t)n[i] * 5;
			n[i] = (uint32_t)carry;
		}
	}
	memset(n, 0, sizeof(n));
	n[LIMBS - 1] = 1; /* 2^1248: floor(floor(x / 5) / 5) is floor(x / 25), so the quotient stays the true one */
	for (int k = -1; k >= NPKI_POW10_MIN; k--) {
		uint64_t rest = 0;

		for (int i = LIMBS; i-- > 0;) {
			rest = rest << 32 | n[i];
			n[i] = (uint32_t)(rest / 5);
			rest %= 5;
		}
		table[k - NPKI_POW10_MIN] = leading(n, true); /* never exact */
	}
}

struct npki_u128 npki_pow10(int k)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static _Atomic bool made;

	if (!atomic_load_explicit(&made, memory_order_acquire)) {
		pthread_once(&once, make_table);
		atomic_store_explicit(&made, true, memory_order_release);
	}
	return table[k - NPKI_POW10_MIN];
}
