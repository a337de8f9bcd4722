/* A repair that is ended at any of its changes to the disk: sound arrays stay as they are, nothing gets more damaged, and the next
 * repair ends where an undisturbed one does. */
#include "../t.h"
#include "../tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <io.h>
#include <numpack.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS 100
#define WIDTH 8

static char scratch[64];

static void save(struct npk_store *s, const char *name, unsigned seed)
{
	const struct npk_shape shape = {2, {ROWS, WIDTH}};
	uint8_t bytes[ROWS * WIDTH];
	uint64_t rnd = seed;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)t_rand(&rnd);
	T_CHECK(npk_store_save(s, name, NPK_U8, &shape, bytes, NULL) == 0);
}

static void drop(struct npk_store *s, const char *name)
{
	struct npk_array *a;

	T_CHECK(npk_array_get(&a, s, name, NULL) == 0 && npk_array_drop(a, "0,3,70,99", NULL, NULL) == 0);
	npk_array_put(a);
}

static const char *in_store(const char *path, const char *file)
{
	static char name[256];

	snprintf(name, sizeof(name), "%s/%s", path, file);
	return name;
}

static void add_bytes(const char *path, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);

	T_CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
	close(fd);
}

/* Every kind of step: a cut with its bitmap, a bitmap alone, one that goes, the list of arrays, leftovers. */
static void make_damaged(const char *path)
{
	static const char *const names[] = {"cut", "good", "marks", "stale"};
	struct npk_store *s;

	t_remove_tree(path);
	T_CHECK(npk_store_open(&s, path, NPK_RDWR | NPK_CREATE, NULL) == 0);
	for (unsigned i = 0; i < 4; i++) {
		save(s, names[i], i + 1);
		drop(s, names[i]);
	}
	T_CHECK(npk_store_finish(s, NULL) == 0);
	T_CHECK(truncate(in_store(path, "data_cut.npkd"), 90 * WIDTH + 3) == 0);
	T_CHECK(truncate(in_store(path, "deleted_marks.npkb"), 24) == 0);
	T_CHECK(truncate(in_store(path, "deleted_stale.npkb"), 0) == 0);
	add_bytes(in_store(path, "metadata.npkm"), "junk", 4);
	add_bytes(in_store(path, "data_cut.npkd.tmp"), "x", 1);
}

/* The rows of an array; nothing when it cannot be read. */
static void look(const char *path, const char *name, struct npk_text *out)
{
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	struct npk_store *s;
	uint8_t rows[ROWS * WIDTH];

	T_CHECK(npk_store_open(&s, path, NPK_RDONLY, NULL) == 0);
	if (npk_array_get(&a, s, name, NULL) == 0 && npk_gen_get(&g, a, NULL) == 0) {
		const struct npk_gen_info *info = npk_gen_info(g);

		T_CHECK(info->rows <= ROWS && npk_gen_read_rows(g, 0, info->rows, rows, NULL) == 0);
		npk_text_printf(out, "%s %" PRIu64 ":", name, info->rows);
		npk_text_add(out, rows, info->rows * WIDTH);
	}
	npk_gen_put(g);
	npk_array_put(a);
	npk_store_close(s);
}

static void look_at_all(const char *path, struct npk_text *out)
{
	look(path, "cut", out);
	look(path, "good", out);
	look(path, "marks", out);
	look(path, "stale", out);
}

static bool same(const struct npk_text *a, const struct npk_text *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

struct fault {
	size_t left; /* calls that still work */
	bool hit;
};

static int fail_later(void *ctx, const struct npki_io_call *c)
{
	struct fault *f = ctx;

	(void)c;
	if (f->left == 0) {
		f->hit = true;
		return EIO;
	}
	f->left--;
	return 0;
}

static void none(void *ctx, const struct npk_finding *f)
{
	(void)ctx;
	(void)f;
}

static uint64_t damage(const char *path)
{
	uint64_t n;

	T_CHECK(npk_store_verify(path, none, NULL, &n, NULL) == 0);
	return n;
}

/* 0, or -errno. */
static int repair(const char *path, struct npk_repair_result *result)
{
	struct npk_repair how = {.apply = true};
	struct npk_err err;

	return npk_repair(path, &how, NULL, NULL, result, &err);
}

TEST(a_repair_can_end_anywhere)
{
	struct npk_text want = {0}, good = {0};
	struct npk_repair_result result;
	char path[128];
	uint64_t damaged;
	bool hit = true;

	snprintf(scratch, sizeof(scratch), "/tmp/npk-repair-XXXXXX");
	T_CHECK(mkdtemp(scratch) != NULL);
	snprintf(path, sizeof(path), "%s/s.npk", scratch);
	make_damaged(path);
	damaged = damage(path);
	look(path, "good", &good);
	T_CHECK(damaged == 3 && good.len > 90 * WIDTH);
	T_CHECK(repair(path, &result) == 0 && result.nleft == 0 && result.nchanges >= 8 && result.kept[0]);
	T_CHECK(damage(path) == 0);
	look_at_all(path, &want);
	for (size_t at = 0; hit; at++) {
		struct npk_text after = {0}, still = {0};
		struct fault fault = {.left = at};
		int rc;

		make_damaged(path);
		npki_io_set_hook(&(struct npki_io_hook){fail_later, &fault, NULL});
		rc = repair(path, &result);
		npki_io_set_hook(NULL);
		hit = fault.hit;
		T_CHECKF(hit == (rc == -EIO) && (hit || rc == 0), "call %zu: %d", at, rc);
		look(path, "good", &still);
		T_CHECKF(same(&still, &good) && damage(path) <= damaged, "call %zu", at);
		rc = repair(path, &result);
		T_CHECKF(rc == 0 && result.nleft == 0 && damage(path) == 0, "call %zu: %d", at, rc);
		look_at_all(path, &after);
		T_CHECKF(same(&after, &want), "call %zu", at);
		npk_text_fini(&after);
		npk_text_fini(&still);
		T_CHECK(at < 1000);
	}
	npk_text_fini(&want);
	npk_text_fini(&good);
	t_remove_tree(scratch);
}

T_MAIN()
