/* csv_number.c - numbers to decimal text and back, without the locale and without the C library's big numbers.
 *
 * To text: the shortest decimal that reads back, by Raffaello Giulietti's "The Schubfach way to render doubles": of the
 * decimals within the interval that rounds to the value, one with fewer digits if it is alone there, else the nearest. To
 * numbers: Daniel Lemire's "Number parsing at a gigabyte per second": the digits times a power of ten to 128 bits; in the
 * rare case that this leaves two candidates, strtod() of the C locale decides. */
#include "csv.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 u128;

/* --- whole numbers ---------------------------------------------------------------------------------------------------- */

static const char pairs[] =
	"00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
	"4950515253545556575859606162636465666768697071727374757677787980818283848586878889909192939495969798"
	"99";

static unsigned count_digits(uint64_t v)
{
	unsigned n = 1;

	for (; v >= 10000; v /= 10000)
		n += 4;
	return n + (v >= 10) + (v >= 100) + (v >= 1000);
}

static void put_digits(char *out, uint64_t v, unsigned n)
{
	for (; n >= 2; n -= 2, v /= 100)
		memcpy(out + n - 2, pairs + 2 * (v % 100), 2);
	if (n)
		out[0] = (char)('0' + v);
}

size_t npki_put_uint(char *out, uint64_t v)
{
	unsigned n = count_digits(v);

	put_digits(out, v, n);
	return n;
}

/* --- real numbers to text --------------------------------------------------------------------------------------------- */

struct decimal {
	uint64_t digits;
	int exponent; /* value = digits * 10^exponent */
};

/* floor(cp * g / 2^128), with the lowest bit set when bits were lost. */
static uint64_t round_to_odd(struct npki_u128 g, uint64_t cp)
{
	u128 x = (u128)g.lo * cp, y = (u128)g.hi * cp + (uint64_t)(x >> 64);

	return (uint64_t)(y >> 64) | ((uint64_t)y > 1);
}

/* The value c * 2^q, whose neighbour below is at half the distance when `closer`. */
static struct decimal shortest(uint64_t c, int q, bool closer)
{
	int k = (q * 1262611 - (closer ? 524031 : 0)) >> 22, h = q + ((-k * 1741647) >> 19) + 1;
	struct npki_u128 g = npki_pow10(-k);
	uint64_t low = round_to_odd(g, (4 * c - 2 + closer) << h), mid = round_to_odd(g, (4 * c) << h),
		 high = round_to_odd(g, (4 * c + 2) << h), s = mid / 4, s10 = s / 10;
	bool under, over;

	low += c & 1; /* the ends of the interval round to even numbers only */
	high -= c & 1;
	if (s >= 10) {
		under = low <= 40 * s10;
		over = 40 * s10 + 40 <= high;
		if (under != over)
			return (struct decimal){s10 + over, k + 1};
	}
	under = low <= 4 * s;
	over = 4 * s + 4 <= high;
	if (under != over)
		return (struct decimal){s + over, k};
	return (struct decimal){s + (mid > 4 * s + 2 || (mid == 4 * s + 2 && (s & 1))), k};
}

/* As %g with that many digits or, when the number needs more, as many as it has. */
static size_t put_decimal(char *out, struct decimal d, int precision)
{
	char digits[20] = "0";
	int n, point;
	char *p = out;

	while (d.digits % 10 == 0) {
		d.digits /= 10;
		d.exponent++;
	}
	n = (int)count_digits(d.digits);
	put_digits(digits, d.digits, (unsigned)n);
	point = n + d.exponent; /* digits before the point */
	if (precision < n)
		precision = n;
	if (point < -3 || point > precision) {
		unsigned e = (unsigned)(point > 0 ? point - 1 : 1 - point);

		*p++ = digits[0];
		if (n > 1)
			*p++ = '.';
		memcpy(p, digits + 1, (size_t)n - 1);
		p += n - 1;
		*p++ = 'e';
		*p++ = point > 0 ? '+' : '-';
		if (e >= 100)
			*p++ = (char)('0' + e / 100);
		memcpy(p, pairs + 2 * (e % 100), 2);
		return (size_t)(p + 2 - out);
	}
	if (point <= 0) {
		memcpy(p, "0.000", 5);
		p += 2 - point;
		memcpy(p, digits, (size_t)n);
		return (size_t)(p + n - out);
	}
	for (int i = 0; i < point; i++)
		*p++ = i < n ? digits[i] : '0';
	if (n > point) {
		*p++ = '.';
		memcpy(p, digits + point, (size_t)(n - point));
		p += n - point;
	}
	return (size_t)(p - out);
}

static size_t put_word(char *out, const char *word)
{
	size_t n = strlen(word);

	memcpy(out, word, n);
	return n;
}

size_t npki_put_real(char *out, double value, bool single)
{
	float f = (float)value;
	uint64_t c;
	uint32_t bits;
	size_t sign = signbit(value) != 0;
	int e;

	if (value != value)
		return put_word(out, "nan");
	if (sign)
		out[0] = '-';
	out += sign;
	if (isinf(value))
		return sign + put_word(out, "inf");
	if (value == 0)
		return sign + put_word(out, "0");
	if (single) {
		memcpy(&bits, &f, sizeof(bits));
		e = bits >> 23 & 0xFF;
		c = bits & 0x7FFFFF;
		return sign + put_decimal(out, shortest(e ? c | 0x800000 : c, (e ? e : 1) - 150, c == 0 && e > 1), 6);
	}
	memcpy(&c, &value, sizeof(c));
	e = c >> 52 & 0x7FF;
	c &= 0xFFFFFFFFFFFFF;
	return sign + put_decimal(out, shortest(e ? c | 1ULL << 52 : c, (e ? e : 1) - 1075, c == 0 && e > 1), 15);
}

/* --- text to real numbers --------------------------------------------------------------------------------------------- */

static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;
static locale_t c_locale;

static void make_c_locale(void)
{
	c_locale = newlocale(LC_ALL_MASK, "C", NULL);
}

/* The slow way, for numbers of more than 19 digits in hard places: the digits in [p, end), which may have a point among
 * them, times 10^exponent. Digits beyond the 800th only tell whether more follow. */
static double by_strtod(const char *p, const char *end, int64_t exponent)
{
	char buf[900];
	size_t n = 0;
	bool more = false;

	pthread_once(&c_locale_once, make_c_locale);
	for (; p < end; p++) {
		if (*p == '.')
			continue;
		if (n < 800) {
			buf[n++] = *p;
			continue;
		}
		more |= *p != '0';
		exponent++;
	}
	if (more) {
		buf[n++] = '1';
		exponent--;
	}
	snprintf(buf + n, sizeof(buf) - n, "e%d", (int)exponent); /* within 2^31: a line has fewer digits */
	return c_locale ? strtod_l(buf, NULL, c_locale) : strtod(buf, NULL);
}

/* digits * 10^exponent, digits not 0; false when 128 bits cannot tell. */
static bool to_double(uint64_t digits, int64_t exponent, double *out)
{
	int lz = __builtin_clzll(digits), upper_bit, e2;
	struct npki_u128 g;
	uint64_t hi, lo, m;
	u128 p;

	if (exponent < NPKI_POW10_MIN || exponent > 308) {
		*out = exponent < 0 ? 0 : (double)INFINITY;
		return true;
	}
	g = npki_pow10((int)exponent);
	if (exponent > 55) { /* rounded down, here; the inverse ones up */
		g.hi -= g.lo == 0;
		g.lo--;
	}
	digits <<= lz;
	p = (u128)digits * g.hi;
	hi = (uint64_t)(p >> 64);
	lo = (uint64_t)p;
	if ((hi & 0x1FF) == 0x1FF) {
		uint64_t second = (uint64_t)((u128)digits * g.lo >> 64);

		lo += second;
		hi += lo < second;
	}
	if (lo == UINT64_MAX && (exponent < -27 || exponent > 55))
		return false;
	upper_bit = (int)(hi >> 63);
	m = hi >> (upper_bit + 9);
	e2 = (int)((217706 * exponent) >> 16) + 63 + upper_bit - lz + 1023;
	if (e2 <= 0) { /* subnormal */
		if (1 - e2 >= 64) {
			*out = 0;
			return true;
		}
		m >>= 1 - e2;
		m += m & 1;
		m >>= 1;
		e2 = m < 1ULL << 52 ? 0 : 1;
	} else {
		if (lo <= 1 && exponent >= -4 && exponent <= 23 && (m & 3) == 1 && m << (upper_bit + 9) == hi)
			m &= ~1ULL;
		m += m & 1;
		m >>= 1;
		if (m >= 1ULL << 53) {
			m = 1ULL << 52;
			e2++;
		}
	}
	m &= ~(1ULL << 52);
	if (e2 >= 0x7FF) {
		*out = (double)INFINITY;
		return true;
	}
	m |= (uint64_t)e2 << 52;
	memcpy(out, &m, sizeof(*out));
	return true;
}

static bool is_digit(char c)
{
	return (unsigned)(c - '0') < 10;
}

/* A word in any case. */
static bool take(const char **p, const char *end, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(end - *p) < n || strncasecmp(*p, word, n) != 0)
		return false;
	*p += n;
	return true;
}

static const char *take_special(const char *p, const char *end, double *out)
{
	if (take(&p, end, "nan"))
		*out = (double)NAN;
	else if (take(&p, end, "infinity") || take(&p, end, "inf"))
		*out = (double)INFINITY;
	else
		return NULL;
	return p;
}

/* The exponent at p, just behind its 'e'. Beyond five digits it says nothing new. */
static const char *take_exponent(const char *p, const char *end, int64_t *out)
{
	bool minus = p < end && *p == '-';
	int64_t e = 0;

	p += p < end && (*p == '-' || *p == '+');
	if (p == end || !is_digit(*p))
		return NULL;
	for (; p < end && is_digit(*p); p++)
		e = e < 100000 ? e * 10 + (*p - '0') : e;
	*out = minus ? -e : e;
	return p;
}

static const double small_power[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
	1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

const char *npki_take_real(const char *p, const char *end, double *out)
{
	const char *start, *first, *after, *point = NULL;
	uint64_t digits = 0;
	int64_t exponent = 0, said = 0;
	bool minus = p < end && *p == '-', cut = false, ok = true;
	int64_t all;
	double v, next;
	size_t n;

	p += p < end && (*p == '-' || *p == '+');
	start = p;
	while (p < end && *p == '0')
		p++;
	for (first = p; p < end && is_digit(*p); p++)
		digits = digits * 10 + (uint64_t)(*p - '0'); /* may overflow: then it is made anew */
	if (p < end && *p == '.') {
		point = p++;
		if (digits == 0 && first == point)
			while (p < end && *p == '0')
				p++;
		first = digits == 0 && first == point ? p : first;
		for (; p < end && is_digit(*p); p++)
			digits = digits * 10 + (uint64_t)(*p - '0');
		exponent = -(p - point - 1);
	}
	if (p - start - (point != NULL) == 0) {
		p = take_special(start, end, &v);
		if (p)
			*out = minus ? -v : v;
		return p;
	}
	n = (size_t)(p - first) - (point && first <= point);
	after = p;
	if (p < end && (*p == 'e' || *p == 'E')) {
		after = take_exponent(p + 1, end, &said);
		if (!after)
			return NULL;
		exponent += said;
	}
	all = exponent;
	if (n > 19) { /* the first 19 digits, and whether they are all */
		const char *d = first;

		digits = 0;
		for (n = 0; n < 19; d++)
			if (*d != '.') {
				digits = digits * 10 + (uint64_t)(*d - '0');
				n++;
			}
		for (; d < p; d++) {
			cut |= *d != '0' && *d != '.';
			exponent += *d != '.';
		}
	}
	if (digits == 0) {
		v = 0;
	} else if (!cut && digits >> 53 == 0 && exponent >= -22 && exponent <= 22) { /* both exact: one rounding */
		v = exponent < 0 ? (double)digits / small_power[-exponent] : (double)digits * small_power[exponent];
	} else {
		ok = to_double(digits, exponent, &v);
		if (ok && cut)
			ok = to_double(digits + 1, exponent, &next) && next == v;
		if (!ok)
			v = by_strtod(first, p, all);
	}
	*out = minus ? -v : v;
	return after;
}

/* --- float16 ---------------------------------------------------------------------------------------------------------- */

float npki_half(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, frac = h & 0x3FF, bits;
	float f;

	if (exp == 0) { /* zero and subnormals: frac * 2^-24 */
		f = (float)frac * 0x1p-24f;
		return sign ? -f : f;
	}
	bits = sign | (exp == 31 ? 0x7F800000u : (exp + 112) << 23) | frac << 13;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

uint16_t npki_to_half(double value)
{
	uint16_t sign = signbit(value) ? 0x8000 : 0;
	double a = fabs(value), m;
	int e;

	if (value != value)
		return 0x7E00;
	if (a >= 65520) /* half-way to the next that there would be, and even */
		return sign | 0x7C00;
	if (a < 0x1p-14) /* subnormals count in 2^-24; 1024 of them are the first normal number */
		return (uint16_t)(sign | (uint16_t)nearbyint(a * 0x1p24));
	m = frexp(a, &e);        /* 0.5 <= m < 1 */
	m = nearbyint(m * 2048); /* 1024 .. 2048; 2048 carries into the exponent by itself */
	return (uint16_t)(sign | ((uint16_t)((e + 13) << 10) + (uint16_t)m));
}

/* --- elements --------------------------------------------------------------------------------------------------------- */

static double load_real(unsigned dtype, const uint8_t *p)
{
	uint16_t h;
	float f;
	double d;

	switch (dtype) {
	case NPK_F16:
		memcpy(&h, p, sizeof(h));
		return (double)npki_half(h);
	case NPK_F32:
	case NPK_C64:
		memcpy(&f, p, sizeof(f));
		return (double)f;
	default:
		memcpy(&d, p, sizeof(d));
		return d;
	}
}

size_t npk_element_text(char out[NPK_ELEMENT_MAX], unsigned dtype, const void *element)
{
	const uint8_t *p = element;
	size_t size = npk_dtype_size(dtype), n;
	bool single = dtype == NPK_F16 || dtype == NPK_F32 || dtype == NPK_C64;
	uint64_t u = 0;

	if (dtype >= NPK_F16) {
		n = npki_put_real(out, load_real(dtype, p), single);
		if (dtype < NPK_C64)
			return n;
		out[n] = '+';
		size = npki_put_real(out + n + 1, load_real(dtype, p + size / 2), single);
		if (out[n + 1] == '-') /* the number brings its own sign */
			memmove(out + n, out + n + 1, size--);
		n += 1 + size;
		out[n] = 'j';
		return n + 1;
	}
	memcpy(&u, p, size); /* little-endian, as the bytes on disk */
	if (dtype == NPK_BOOL)
		u = u != 0;
	if (dtype >= NPK_I8) {
		int64_t i = (int64_t)(u << (64 - 8 * size)) >> (64 - 8 * size);

		out[0] = '-';
		return i < 0 ? 1 + npki_put_uint(out + 1, -(uint64_t)i) : npki_put_uint(out, (uint64_t)i);
	}
	return npki_put_uint(out, u);
}

static int parse_integer(void *element, unsigned dtype, const char *p, const char *end)
{
	size_t size = npk_dtype_size(dtype);
	bool is_signed = dtype >= NPK_I8, minus = p < end && *p == '-';
	uint64_t v = 0, max = is_signed ? (((uint64_t)1 << (8 * size - 1)) - !minus) : UINT64_MAX >> (64 - 8 * size);
	bool over = false;

	p += p < end && (*p == '-' || *p == '+');
	if (p == end)
		return -EINVAL;
	for (; p < end; p++) {
		if (!is_digit(*p))
			return -EINVAL;
		over |= __builtin_mul_overflow(v, (uint64_t)10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
	}
	if (over || v > max || (minus && !is_signed && v != 0))
		return -ERANGE;
	v = minus ? -v : v;
	memcpy(element, &v, size);
	return 0;
}

static void store_real(void *element, unsigned dtype, double v)
{
	uint16_t h;
	float f;

	switch (dtype) {
	case NPK_F16:
		h = npki_to_half(v);
		memcpy(element, &h, sizeof(h));
		break;
	case NPK_F32:
	case NPK_C64:
		f = (float)v;
		memcpy(element, &f, sizeof(f));
		break;
	default:
		memcpy(element, &v, sizeof(v));
	}
}

/* "1", "1+2j", "-2j", "(1+2j)". */
static int parse_complex(void *element, unsigned dtype, const char *p, const char *end)
{
	double re, im = 0;

	if (end - p > 2 && *p == '(' && end[-1] == ')') {
		p++;
		end--;
	}
	p = npki_take_real(p, end, &re);
	if (!p)
		return -EINVAL;
	if (p < end && (*p == '+' || *p == '-')) {
		p = npki_take_real(p, end, &im);
		if (!p || p == end || (*p != 'j' && *p != 'J'))
			return -EINVAL;
		p++;
	} else if (p < end && (*p == 'j' || *p == 'J')) {
		im = re;
		re = 0;
		p++;
	}
	if (p != end)
		return -EINVAL;
	store_real(element, dtype, re);
	store_real((uint8_t *)element + npk_dtype_size(dtype) / 2, dtype, im);
	return 0;
}

static int parse_bool(uint8_t *element, const char *p, const char *end)
{
	const char *q = p;

	if (take(&q, end, "true") || take(&q, end, "1"))
		*element = 1;
	else if (take(&q, end, "false") || take(&q, end, "0"))
		*element = 0;
	else
		return -EINVAL;
	return q == end ? 0 : -EINVAL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

int npk_element_parse(void *element, unsigned dtype, const char *text, size_t len)
{
	const char *p = text, *end = text + len;
	double v;

	while (p < end && is_blank(*p))
		p++;
	while (p < end && is_blank(end[-1]))
		end--;
	if (dtype >= NPK_DTYPE_COUNT)
		return -EINVAL;
	if (dtype == NPK_BOOL)
		return parse_bool(element, p, end);
	if (dtype < NPK_F16)
		return parse_integer(element, dtype, p, end);
	if (dtype >= NPK_C64)
		return parse_complex(element, dtype, p, end);
	if (npki_take_real(p, end, &v) != end || p == end)
		return -EINVAL;
	store_real(element, dtype, v);
	return 0;
}
