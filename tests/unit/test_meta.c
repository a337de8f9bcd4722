/* metadata.npkm: what is delimited is believed, what is not ends the list, and no length is trusted before its bytes are
 * there. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <inttypes.h>
#include <meta.h>

/* What a parse saw. */
struct seen {
	struct npki_meta meta;
	struct npki_notes notes;
	struct npk_err err;
	struct npki_ameta array[8];
	size_t n;
};

static int see(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct seen *s = ctx;

	(void)err;
	if (s->n < 8)
		s->array[s->n] = *m;
	s->n++;
	return 0;
}

static int parse(const void *buf, size_t len, struct seen *s)
{
	memset(s, 0, sizeof(*s));
	return npki_meta_parse(buf, len, &s->meta, see, s, &s->notes, &s->err);
}

static const struct mk_array three[] = {
	{.name = "a", .dtype = NPK_I32, .ndim = 1, .dim = {15}, .mtime_us = 1700000000000000},
	{.name = "b\xC3\xA9 \n/x",
		.dtype = NPK_C128,
		.ndim = 3,
		.dim = {2, 0, 7},
		.segment_rows = 1,
		.mtime_us = UINT64_MAX},
	{.name = "", .dtype = NPK_BOOL, .ndim = 0},
};

static struct mk_bytes metadata(const struct mk_array *a, size_t n)
{
	struct mk_bytes b = {0};

	mk_header(&b, 0, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		mk_entry(&b, &a[i]);
	return b;
}

TEST(entries_come_back_as_written)
{
	struct mk_bytes b = metadata(three, 3);
	struct seen s;

	T_CHECK(parse(b.p, b.len, &s) == 0 && s.n == 3 && s.meta.narrays == 3 && s.meta.count == 3 && !s.meta.cut);
	T_CHECK(s.notes.warning[0] == 0 && s.notes.ndamage == 0);
	for (size_t i = 0; i < 3; i++) {
		const struct npki_ameta *m = &s.array[i];
		const struct mk_array *a = &three[i];

		T_CHECK(m->name_len == strlen(a->name) && memcmp(m->name, a->name, m->name_len) == 0);
		T_CHECK(m->ndim == a->ndim && m->dtype == a->dtype && m->mtime_us == a->mtime_us && m->damage == 0);
		T_CHECK(m->size_bytes == mk_rows(a) * mk_row_bytes(a));
		for (unsigned d = 0; d < m->ndim; d++)
			T_CHECK(m->dims[8 * d] == a->dim[d]);
		T_CHECK(m->at == (i ? s.array[i - 1].at + s.array[i - 1].len : 20));
		T_CHECK(m->len == 51 + m->name_len + 8 * m->ndim + m->file_len);
	}
	T_CHECK(s.array[2].at + s.array[2].len == b.len);
	T_CHECK(s.array[0].file_len == 11 && memcmp(s.array[0].file, "data_a.npkd", 11) == 0);
	T_CHECK(memcmp(s.array[1].file + s.array[1].file_len - 7, ".npkseg", 7) == 0);
	mk_free(&b);
}

/* The 91 bytes of the format's example. */
TEST(the_example)
{
	static const char bytes[] = "NPKB\1\0\0\0\x3C\0\0\0\0\0\0\0\1\0\0\0"
				    "\1\0\0\0a\1\0\0\0\x0F\0\0\0\0\0\0\0\x0B\0\0\0data_a.npkd"
				    "\0\0\0\0\0\0\0\0\x3C\0\0\0\0\0\0\0\7\0\0\0\0\0"
				    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
	struct mk_bytes b = {0};
	struct seen s;

	T_CHECK(sizeof(bytes) - 1 == 91 && parse(bytes, 91, &s) == 0 && s.n == 1 && s.meta.total_bytes == 60);
	mk_header(&b, 60, 1);
	mk_entry(&b, &(struct mk_array){.name = "a", .dtype = NPK_I32, .ndim = 1, .dim = {15}});
	T_CHECK(b.len == 91 && memcmp(b.p, bytes, 91) == 0);
	mk_free(&b);
}

/* Cut after any byte: the whole entries before the cut are there, and the store knows where it broke off. */
TEST(every_prefix_keeps_its_whole_entries)
{
	struct mk_bytes b = metadata(three, 3);
	struct seen whole, s;

	T_CHECK(parse(b.p, b.len, &whole) == 0);
	for (size_t len = 0; len < b.len; len++) {
		uint8_t *copy = malloc(len + !len);
		size_t n = 0;
		int rc;

		memcpy(copy, b.p, len);
		rc = parse(copy, len, &s);
		while (n < 3 && whole.array[n].at + whole.array[n].len <= len)
			n++;
		if (len < 20) {
			T_CHECKF(rc == -EUCLEAN && strstr(s.err.msg, "metadata.npkm: byte 0"), "%zu bytes", len);
		} else {
			char where[60];

			snprintf(where, sizeof(where), "metadata.npkm: byte %" PRIu64 ":", whole.array[n].at);
			T_CHECKF(rc == 0 && s.n == n && s.meta.cut && strstr(s.meta.why, where), "%zu bytes: %s", len,
				s.meta.why);
		}
		free(copy);
	}
	mk_free(&b);
}

/* One entry between two sound ones, changed by `change`: what does the list look like? */
static struct seen with_second(const struct mk_array *second, size_t at_from_entry, const void *bytes, size_t n)
{
	static struct mk_bytes b;
	struct seen s;
	size_t at;

	mk_free(&b);
	mk_header(&b, 0, 3);
	mk_entry(&b, &three[0]);
	at = b.len;
	mk_entry(&b, second);
	mk_entry(&b, &three[2]);
	if (n)
		memcpy(b.p + at + at_from_entry, bytes, n);
	T_CHECK(parse(b.p, b.len, &s) == 0);
	return s;
}

TEST(an_entry_without_sense_damages_only_itself)
{
	const struct mk_array v = {.name = "v", .dtype = NPK_I16, .ndim = 2, .dim = {3, 4}}; /* file: data_v.npkd */
	const size_t dims = 4 + 1 + 4, file = dims + 16 + 4, dtype = file + 11 + 16;
	const struct {
		size_t at;
		const char *bytes;
		size_t n;
		int code;
		const char *msg;
	} cases[] = {
		{dtype, "\x0E", 1, ENOTSUP, "dtype 14 is unknown"},
		{dtype, "\xFF", 1, ENOTSUP, "dtype 255 is unknown"},
		{dtype + 1, "\1", 1, ENOTSUP, "compression 1"},
		{dims, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8, EUCLEAN, "the shape overflows"},
		{dims, "\0\0\0\0\0\0\0\x10", 8, EUCLEAN, "the shape overflows"},
		{dims + 8, "\0\0\0\0\0\0\0\x80", 8, EUCLEAN, "the shape overflows"},
		{4, "\0", 1, EUCLEAN, "name '\\x00' is not legal"},
		{4, "/", 1, EUCLEAN, "name '/' is not legal"},
		{file, "/ata_v.npkd", 11, EUCLEAN, "leaves the store"},
		{file, "../_v.npkd", 10, EUCLEAN, "leaves the store"},
		{file, "a/../v.npkd", 11, EUCLEAN, "leaves the store"},
		{file, "data_v.np\0d", 11, EUCLEAN, "leaves the store"},
		{file, "data_v.np\xFFx", 11, EUCLEAN, "leaves the store"},
		{file, "data_v.npk/", 11, EUCLEAN, "leaves the store"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct seen s = with_second(&v, cases[i].at, cases[i].bytes, cases[i].n);

		T_CHECKF(s.n == 3 && !s.meta.cut, "case %zu", i);
		T_CHECKF(s.array[0].damage == 0 && s.array[2].damage == 0, "case %zu", i);
		T_CHECKF(s.array[1].damage == cases[i].code && strstr(s.array[1].why, cases[i].msg) &&
				 strncmp(s.array[1].why, "metadata.npkm: byte ", 20) == 0,
			"case %zu: %s", i, s.array[1].why);
	}
}

/* What cannot be delimited, or has a name that nobody can ask for, ends the list. */
TEST(an_entry_without_an_end_ends_the_list)
{
	const struct mk_array v = {.name = "v", .dtype = NPK_I16, .ndim = 2, .dim = {3, 4}};
	const struct {
		size_t at;
		const char *bytes;
		size_t n;
	} cases[] = {{0, "\xF0\xFF\xFF\xFF", 4}, {0, "\0\0\1\0", 4}, {5, "\xFF\xFF\xFF\xFF", 4}, {5, "\0\0\0\x20", 4},
		{5 + 4 + 16, "\xFF\xFF\xFF\xFF", 4}, {4, "\xFF", 1}, {4, "\xC3", 1}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct seen s = with_second(&v, cases[i].at, cases[i].bytes, cases[i].n);

		T_CHECKF(s.n == 1 && s.meta.cut && strstr(s.meta.why, "metadata.npkm: byte "), "case %zu: %zu, %s", i,
			s.n, s.meta.why);
	}
}

TEST(dimensions_end_at_32)
{
	struct mk_array v = {.name = "v", .dtype = NPK_U8};

	for (v.ndim = 0; v.ndim < 32; v.ndim++)
		v.dim[v.ndim] = 1;
	T_CHECK(with_second(&v, 0, NULL, 0).array[1].damage == 0);
	for (unsigned n = 33; n < 300; n += 89) { /* 33 dimensions that are really there: damaged, and passed over */
		struct mk_bytes b = {0};
		struct seen s;

		mk_header(&b, 0, 2);
		mk_le(&b, 1, 4);
		mk_text(&b, "v");
		mk_le(&b, n, 4);
		for (unsigned i = 0; i < n; i++)
			mk_le(&b, 1, 8);
		mk_le(&b, 1, 4);
		mk_text(&b, "f");
		for (int i = 0; i < 39; i++)
			mk_le(&b, 0, 1);
		mk_entry(&b, &three[0]);
		T_CHECK(parse(b.p, b.len, &s) == 0 && s.n == 2 && !s.meta.cut);
		T_CHECK(s.array[0].damage == EUCLEAN && strstr(s.array[0].why, "at most 32") && s.array[1].damage == 0);
		mk_free(&b);
	}
}

TEST(a_block_list_is_passed_over)
{
	for (uint64_t claimed = 0; claimed <= 3; claimed++) {
		struct mk_bytes b = {0};
		struct seen s;

		mk_header(&b, 0, 2);
		mk_entry(&b, &three[0]);
		b.p[b.len - 1] = 1;
		mk_le(&b, 1, 1);       /* enabled */
		mk_le(&b, 4096, 8);    /* block size */
		mk_le(&b, 2, 8);       /* block count */
		mk_le(&b, claimed, 4); /* list length */
		for (int i = 0; i < 2 * 3; i++)
			mk_le(&b, (uint64_t)i, 8);
		if (claimed == 2)
			mk_entry(&b, &three[2]);
		T_CHECK(parse(b.p, b.len, &s) == 0);
		if (claimed == 2)
			T_CHECK(s.n == 2 && !s.meta.cut && s.array[0].damage == ENOTSUP && s.array[1].damage == 0);
		if (claimed == 3)
			T_CHECK(s.n == 0 && s.meta.cut);
		mk_free(&b);
	}
}

TEST(headers_that_are_none)
{
	struct mk_bytes b = metadata(three, 3);
	struct seen s;

	b.p[0] = 'n';
	T_CHECK(parse(b.p, b.len, &s) == -EUCLEAN && s.n == 0 && strstr(s.err.msg, "byte 0: magic 'nPKB'"));
	b.p[0] = 'N';
	for (int v = 0; v < 256; v++) {
		b.p[4] = (uint8_t)v;
		T_CHECK(parse(b.p, b.len, &s) == (v == 1 ? 0 : -EUCLEAN));
	}
	b.p[4] = 1;
	b.p[7] = 1;
	T_CHECK(parse(b.p, b.len, &s) == -EUCLEAN && strstr(s.err.msg, "byte 4: version 16777217"));
	mk_free(&b);
}

TEST(counts_and_sizes_are_not_trusted)
{
	struct mk_bytes b = metadata(three, 3);
	struct seen s;

	b.p[16] = 2; /* one less than there are */
	T_CHECK(parse(b.p, b.len, &s) == 0 && s.n == 2 && !s.meta.cut &&
		strstr(s.notes.warning, "follow the last entry"));
	memset(b.p + 16, 0xFF, 4);
	T_CHECK(parse(b.p, b.len, &s) == 0 && s.n == 3 && s.meta.cut);
	memset(b.p + 8, 0xFF, 8);
	memset(b.p + 16, 0, 4);
	T_CHECK(parse(b.p, b.len, &s) == 0 && s.n == 0 && !s.meta.cut && s.meta.total_bytes == UINT64_MAX);
	mk_free(&b);
}

static int stop_at_second(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	(void)m;
	return ++*(int *)ctx == 2 ? npk_fail(err, ECANCELED, "enough") : 0;
}

TEST(the_callback_can_end_the_parse)
{
	struct mk_bytes b = metadata(three, 3);
	struct npki_meta meta;
	struct npk_err err;
	int calls = 0;

	T_CHECK(npki_meta_parse(b.p, b.len, &meta, stop_at_second, &calls, NULL, &err) == -ECANCELED);
	T_CHECK(calls == 2 && strcmp(err.msg, "enough") == 0);
	mk_free(&b);
}

TEST(shapes_are_multiplied_with_care)
{
	const uint64_t max = INT64_MAX;
	const struct {
		struct npk_shape shape;
		size_t item;
		int64_t row, all; /* -1: too much */
	} cases[] = {
		{{0, {0}}, 8, 8, 8},
		{{1, {0}}, 8, 8, 0},
		{{1, {max}}, 1, 1, INT64_MAX},
		{{1, {max / 8}}, 8, 8, INT64_MAX / 8 * 8},
		{{1, {max / 8 + 1}}, 8, -1, -1},
		{{1, {UINT64_MAX}}, 1, -1, -1},
		{{2, {0, max / 16 + 1}}, 16, -1, -1}, /* one row alone is too much */
		{{2, {max, 0}}, 16, 0, 0},
		{{3, {1, (uint64_t)1 << 32, (uint64_t)1 << 32}}, 1, -1, -1},
		{{3, {5, 3, 2}}, 4, 24, 120},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t row = 7, all = 7;
		int rc = npki_shape_bytes(&cases[i].shape, cases[i].item, &row, &all);

		T_CHECKF(rc == (cases[i].all < 0 ? -1 : 0), "case %zu", i);
		T_CHECKF(rc != 0 || (row == (uint64_t)cases[i].row && all == (uint64_t)cases[i].all), "case %zu", i);
		T_CHECKF(rc == 0 || (row == 7 && all == 7), "case %zu", i);
	}
}

TEST(paths_stay_below_the_store)
{
	static const char *const plain[] = {
		"a", "a/b", "...", "..a", "a..", ".a", "a/.b/..c", "a b\n\\", "data_a.npkd"};
	static const char *const other[] = {
		"", ".", "..", "/", "/a", "a/", "a//b", "./a", "../a", "a/.", "a/..", "a/../b", "a/./b", "//"};

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		T_CHECKF(npki_is_plain_path(plain[i], strlen(plain[i])) &&
				 npki_is_legal_name(plain[i], strlen(plain[i])),
			"'%s'", plain[i]);
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		T_CHECKF(!npki_is_plain_path(other[i], strlen(other[i])), "'%s'", other[i]);
		T_CHECKF(npki_is_legal_name(other[i], strlen(other[i])) == !strchr(other[i], '/'), "'%s'", other[i]);
	}
	T_CHECK(!npki_is_plain_path("a\0b", 3) && !npki_is_legal_name("a\0b", 3) && !npki_is_legal_name("\0", 1));
}

/* Any bytes at all: no crash, and what is seen lies within the buffer. The fuzz target does more of this. */
TEST(random_changes_never_lead_outside_the_buffer)
{
	struct mk_bytes b = metadata(three, 3);
	uint64_t rnd = t_seed();

	for (int i = 0; i < 20000; i++) {
		uint8_t *copy = malloc(b.len);
		struct seen s;

		memcpy(copy, b.p, b.len);
		for (uint64_t k = t_rand(&rnd) % 4; k < 5; k++)
			copy[t_rand(&rnd) % b.len] = (uint8_t)(t_rand(&rnd) % 3 ? t_rand(&rnd) : 0xFF);
		if (parse(copy, b.len, &s) == 0)
			for (size_t k = 0; k < s.n && k < 8; k++)
				T_CHECK(s.array[k].at + s.array[k].len <= b.len && (uint8_t *)s.array[k].name >= copy &&
					(uint8_t *)s.array[k].file + s.array[k].file_len <= copy + b.len);
		free(copy);
	}
	mk_free(&b);
}

T_MAIN()
