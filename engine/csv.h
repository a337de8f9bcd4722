/* csv.h - numbers to text and back. Pure, any thread, the same in every locale. */
#ifndef NPKI_CSV_H
#define NPKI_CSV_H

#include "numpack.h"

/* 10^k as g * 2^(npki_pow10_exp(k)), 2^127 <= g < 2^128, for NPKI_POW10_MIN <= k <= NPKI_POW10_MAX: g rounded up unless it
 * is exact. */
#define NPKI_POW10_MIN (-342)
#define NPKI_POW10_MAX 324
struct npki_u128 {
	uint64_t hi, lo;
};
struct npki_u128 npki_pow10(int k);

/* The text of a finite or other real number at `out`, at most 25 bytes; `single`: of a float32's value. */
size_t npki_put_real(char *out, double value, bool single);
size_t npki_put_uint(char *out, uint64_t value); /* at most 20 bytes */

/* A real number at `p`, before `end`; returns where it ends, NULL when there is none. */
const char *npki_take_real(const char *p, const char *end, double *out);
float npki_half(uint16_t bits);
/* Rounds to nearest, ties to even, as NumPy does. */
uint16_t npki_to_half(double value);

#endif
