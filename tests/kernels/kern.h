/* kern.h - what the kernel checks share: levels, guarded buffers, values, failures. It needs no test library, so that
 * the same checks run where there is none (under an emulator, linked statically).  */
#ifndef T_KERN_H
#define T_KERN_H

#include "npkv.h"

struct k_level {
	char name[48];
	unsigned cpu;
	struct npkv_ops ops;
};

enum {
	K_LEVELS_MAX = 8
};

/* Every table that this CPU can run, from the scalar one up, one feature more each time; only that of `k_only`, if set. */
size_t k_levels(struct k_level *out);
extern const char *k_only;

/* Whether a case is to be checked: all are, or one in `k_share` at random, for where the CPU is emulated. */
bool k_take(void);
extern unsigned k_share;

/* `bytes` bytes whose end touches an unmapped page; any alignment that gives. Slots 0..3; valid until the next call
 * for the slot. */
void *k_guarded(unsigned slot, size_t bytes);

/* How numbers are chosen. */
enum k_values {
	K_PLAIN,
	K_SMALL_INTS,
	K_PROBABILITIES,
	K_SPECIAL,
	K_HUGE,
	K_TINY,
	K_OFFSET,
	K_VALUES
};

void k_fill(enum npkv_dtype t, enum k_values v, uint64_t *rng, size_t n, void *to);
double k_get(enum npkv_dtype t, const void *from, size_t i);
uint64_t k_rand(uint64_t *state);

/* Reports what went wrong, at most a few dozen times. */
void k_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned k_failures(void);

void check_one(const struct k_level *l); /* single-query kernels */
void check_tiles(const struct k_level *l);
void check_convert(const struct k_level *l); /* widening, logs, norms, comparisons, checksums */
void check_pairs(const struct k_level *l);   /* npkv_pair(): values, and the same on every level */
void check_search(const struct k_level *l);  /* scan and limits against sorting all scores */
void check_plans(const struct k_level *l);   /* what is refused */

#endif
