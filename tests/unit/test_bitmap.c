/* The form of a bitmap file, against the rules of the format written down once more, in arithmetic that cannot overflow. */
#include "../t.h"

#include <bitmap.h>
#include <errno.h>

typedef unsigned __int128 wide;

struct file {
	uint64_t len, rows, deleted; /* T and D are read only when the file is long enough */
	uint64_t nslots, nheld;
};

enum verdict {
	DAMAGED,
	HEADER,
	HEADERLESS
};

static enum verdict rules(const struct file *f)
{
	bool header, plain;

	if (f->len % 8 != 0)
		return DAMAGED;
	header = f->len >= 16 && f->len == 16 + 8 * (((wide)f->rows + 63) / 64);
	plain = f->len == 8 * (((wide)f->nslots + 63) / 64);
	if (header && plain)
		return f->deleted > f->rows ? HEADERLESS : DAMAGED;
	if (plain)
		return HEADERLESS;
	if (!header)
		return DAMAGED;
	if (f->rows == f->nslots)
		return HEADER;
	return f->rows > f->nslots && f->nheld >= f->rows ? HEADER : DAMAGED;
}

static void put(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* `head` has exactly the bytes that the caller promises to give. */
static void check(const struct file *f)
{
	size_t n = f->len < 16 ? (size_t)f->len : 16;
	uint8_t bytes[16], *head = bytes + 16 - n;
	struct npki_bitmap_form form = {.rows = 12345};
	struct npki_notes notes = {0};
	struct npk_err err = {0};
	enum verdict want = rules(f);
	int rc;

	put(bytes, f->rows);
	put(bytes + 8, f->deleted);
	memmove(head, bytes, n);
	rc = npki_bitmap_form(head, f->len, f->nslots, f->nheld, "deleted_x.npkb", &form, &notes, &err);
	T_CHECKF(rc == (want == DAMAGED ? -EUCLEAN : 0) && (want == DAMAGED || form.header == (want == HEADER)),
		"L %llu T %llu D %llu R %llu held %llu: %d, header %d", (unsigned long long)f->len,
		(unsigned long long)f->rows, (unsigned long long)f->deleted, (unsigned long long)f->nslots,
		(unsigned long long)f->nheld, rc, form.header);
	if (want == DAMAGED) {
		T_CHECK(form.rows == 12345 && err.code == EUCLEAN && strstr(err.msg, "deleted_x.npkb: byte "));
		return;
	}
	T_CHECK(form.words_at == (want == HEADER ? 16 : 0) && form.rows == (want == HEADER ? f->rows : f->nslots));
	T_CHECK(want != HEADER || form.deleted == f->deleted);
	T_CHECK((notes.warning[0] != 0) == (want == HEADER && f->rows > f->nslots));
}

static void check_held(struct file f)
{
	const uint64_t held[] = {f.nslots, f.rows - 1, f.rows, UINT64_MAX};
	const uint64_t deleted[] = {0, 1, f.rows, f.rows + 1, UINT64_MAX};

	for (size_t i = 0; i < 4; i++)
		for (size_t k = 0; k < 5; k++) {
			f.nheld = held[i];
			f.deleted = deleted[k];
			check(&f);
		}
}

TEST(every_small_file_gets_the_verdict_of_the_rules)
{
	static const uint64_t rows[] = {0, 1, 2, 63, 64, 65, 66, 127, 128, 129, 191, 192, 193, 255, 256, 257, 319, 320,
		321, 383, 384, 385, 448, 449, 512, 513};
	const size_t n = sizeof(rows) / sizeof(rows[0]);

	for (uint64_t len = 0; len <= 72; len += getenv("NPK_SCALE") ? 4 : 1)
		for (size_t t = 0; t < n; t++)
			for (size_t r = 0; r < n; r++)
				check_held((struct file){.len = len, .rows = rows[t], .nslots = rows[r]});
}

TEST(every_row_count_up_to_300_has_one_header_length)
{
	uint64_t every = getenv("NPK_SCALE") ? 7 : 1; /* sanitizers are slow */

	for (uint64_t len = 0; len <= 64; len += 8)
		for (uint64_t t = 0; t < 300; t += every + t / 100)
			for (uint64_t r = t > 70 ? t - 70 : 0; r < t + 70; r += 1 + (r + 9 < t || r > t + 9) * 6)
				check_held((struct file){.len = len, .rows = t, .nslots = r});
}

/* Rounding up to words must not wrap around. */
TEST(row_counts_near_2_to_the_64_do_not_wrap)
{
	for (uint64_t back = 0; back < 200; back++)
		for (uint64_t len = 0; len <= 64; len += 8)
			for (uint64_t r = 0; r < 400; r += 13)
				check_held((struct file){.len = len, .rows = UINT64_MAX - back, .nslots = r});
}

TEST(long_files_are_measured_in_64_bits)
{
	static const uint64_t rows[] = {0, 1, UINT32_MAX, (uint64_t)1 << 32, (uint64_t)1 << 38, (uint64_t)1 << 62,
		INT64_MAX, (uint64_t)1 << 63, UINT64_MAX};
	const size_t n = sizeof(rows) / sizeof(rows[0]);

	for (size_t t = 0; t < n; t++)
		for (size_t r = 0; r < n; r++)
			for (int d = -16; d <= 16; d += 8) {
				uint64_t base = (rows[t] / 64 + (rows[t] % 64 != 0)) * 8;

				check_held((struct file){base + 16 + (uint64_t)d, rows[t], 0, rows[r], 0});
				base = (rows[r] / 64 + (rows[r] % 64 != 0)) * 8;
				check_held((struct file){base + (uint64_t)d, rows[t], 0, rows[r], 0});
			}
}

/* The examples of the format's description. */
TEST(the_examples)
{
	check(&(struct file){24, 10, 1, 10, 10});
	T_CHECK(rules(&(struct file){24, 10, 1, 10, 10}) == HEADER);
	T_CHECK(rules(&(struct file){16, UINT64_MAX, 12, 100, 100}) == HEADERLESS);
	T_CHECK(rules(&(struct file){16, 0, 1, 100, 100}) == HEADERLESS); /* more deleted than rows: words */
	T_CHECK(rules(&(struct file){16, 0, 0, 100, 100}) == DAMAGED);
	T_CHECK(rules(&(struct file){32, 120, 0, 100, 120}) == HEADER);
	T_CHECK(rules(&(struct file){32, 120, 0, 100, 119}) == DAMAGED);
}

T_MAIN()
