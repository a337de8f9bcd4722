/* A device that does not give bytes back: npk_verify() names the file and the bytes, all of them, and goes on behind them. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <io.h>
#include <numpack.h>

#define BYTES 3000000

static uint8_t bytes[BYTES];

struct bad {
	const char *path;
	uint64_t from, to;
};

/* Reads that touch [from, to) of that file fail. */
static int read_bad(void *ctx, const char *path, uint64_t off, uint64_t len)
{
	const struct bad *b = ctx;

	return strcmp(path, b->path) == 0 && off < b->to && off + len > b->from ? EIO : 0;
}

struct found {
	struct npk_text damage;
};

static void keep_damage(void *ctx, const struct npk_finding *f)
{
	struct found *found = ctx;

	if (f->severity == NPK_DAMAGE)
		npk_text_printf(&found->damage, "%s\n", f->text);
}

static bool count_up(void *ctx, uint64_t done, uint64_t all)
{
	uint64_t *last = ctx;

	T_CHECK(done >= *last && done <= all && all > BYTES);
	*last = done;
	return true;
}

static void check_bad(const char *dir, struct bad b, const char *want)
{
	struct npk_verify how = {.deep = true};
	struct found found = {{0}};
	uint64_t ndamage, last = 0;
	struct npk_err err;
	int rc;

	how.progress = count_up;
	how.ctx = &last;
	npki_io_set_hook(&(struct npki_io_hook){NULL, &b, read_bad});
	rc = npk_verify(dir, &how, keep_damage, &found, &ndamage, &err);
	npki_io_set_hook(NULL);
	T_CHECKF(rc == 0, "%s", err.msg);
	T_CHECKF(strcmp(found.damage.len ? found.damage.p : "", want) == 0, "%s, not %s", found.damage.p, want);
	T_CHECK(ndamage == (want[0] != 0) && last >= BYTES);
	npk_text_fini(&found.damage);
}

TEST(a_bad_sector_is_named)
{
	struct mk_array a = {.name = "x", .dtype = NPK_U8, .ndim = 1, .dim = {BYTES}, .data = bytes};
	const char *dir = mk_dir();

	mk_store(dir, &a, 1);
	check_bad(dir, (struct bad){"data_x.npkd", 0, 0}, "");
	check_bad(dir, (struct bad){"data_x.npkd", 8192, 12288},
		"data_x.npkd: byte 8192: cannot be read, 4096 bytes: Input/output error\n");
	check_bad(dir, (struct bad){"data_x.npkd", 1048575, 1048577},
		"data_x.npkd: byte 1044480: cannot be read, 8192 bytes: Input/output error\n");
	check_bad(dir, (struct bad){"data_x.npkd", 2999999, 3000000},
		"data_x.npkd: byte 2998272: cannot be read, 1728 bytes: Input/output error\n");
	check_bad(dir, (struct bad){"data_x.npkd", 0, BYTES},
		"data_x.npkd: byte 0: cannot be read, 3000000 bytes: Input/output error\n");
}

static bool stop(void *ctx, uint64_t done, uint64_t all)
{
	(void)ctx;
	(void)all;
	return done == 0;
}

TEST(a_check_can_be_ended)
{
	struct mk_array a = {.name = "x", .dtype = NPK_U8, .ndim = 1, .dim = {BYTES}, .data = bytes};
	struct npk_verify how = {.deep = true, .progress = stop};
	const char *dir = mk_dir();
	struct found found = {{0}};
	uint64_t ndamage;
	struct npk_err err;

	mk_store(dir, &a, 1);
	T_CHECK(npk_verify(dir, &how, keep_damage, &found, &ndamage, &err) == -ECANCELED && err.code == ECANCELED);
	T_CHECK(found.damage.len == 0);
	npk_text_fini(&found.damage);
}

/* The list of a directory breaks off behind its first names. */
struct torn_list {
	const char *path;
	uint64_t left;
};

static int read_list(void *ctx, const char *path, uint64_t off, uint64_t len)
{
	const struct torn_list *l = ctx;

	return strcmp(path, l->path) == 0 && len == 0 && off >= l->left ? EIO : 0;
}

/* What is not listed must not look like what is not there: a stray file, a lost segment, a store without metadata. */
TEST(a_list_that_breaks_off_is_an_error)
{
	struct mk_array a = {.name = "x", .dtype = NPK_U8, .ndim = 1, .dim = {100}, .data = bytes, .segment_rows = 40};
	const struct npk_verify how = {.deep = true};
	struct npk_repair_result result;
	struct found found = {{0}};
	struct npk_store *s;
	struct npk_err err;
	struct torn_list l;
	uint64_t ndamage;
	const struct npki_io_hook hook = {NULL, &l, read_list};
	const char *dir = mk_dir();
	char want[600];

	mk_store(dir, &a, 1);
	npki_io_set_hook(&hook);
	for (unsigned names = 0; names < 3; names++) {
		l = (struct torn_list){".", names};
		T_CHECK(npk_verify(dir, &how, keep_damage, &found, &ndamage, &err) == -EIO);
		T_CHECKF(strcmp(err.msg, "Input/output error") == 0, "%s", err.msg);
		l = (struct torn_list){"data_x_segments", names};
		T_CHECK(npk_verify(dir, &how, keep_damage, &found, &ndamage, &err) == -EIO);
		T_CHECKF(strcmp(err.msg, "data_x_segments: Input/output error") == 0, "%s", err.msg);
		l = (struct torn_list){".", names};
		T_CHECK(npk_repair(dir, &(struct npk_repair){.apply = true}, NULL, NULL, &result, &err) == -EIO);
		snprintf(want, sizeof(want), "%s: Input/output error", dir);
		T_CHECKF(strcmp(err.msg, want) == 0, "%s", err.msg);
	}
	npki_io_set_hook(NULL);
	mk_remove(dir, "metadata.npkm");
	npki_io_set_hook(&hook);
	l = (struct torn_list){".", 0};
	T_CHECK(npk_store_open(&s, dir, NPK_RDWR, &err) == -EIO);
	T_CHECKF(strcmp(err.msg, want) == 0, "%s", err.msg);
	npki_io_set_hook(NULL);
	T_CHECK(found.damage.len == 0);
	npk_text_fini(&found.damage);
}

T_MAIN()
