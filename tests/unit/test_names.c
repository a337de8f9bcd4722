/* The canonical names, which sync gives back, beside another thread's changes: a name is taken when nothing on disk needs
 * what it named. And names of arrays that no bitmap can have. */
#include "../t.h"
#include "mkstore.h"
#include "io.h"

#include <errno.h>
#include <numpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct npk_shape one = {2, {1, 2}}, three = {2, {3, 2}};
static const uint8_t rows[] = {1, 2, 3, 4, 5, 6};

/* Appends to "x" and saves over it while a checkpoint whose snapshot has the rows of before is being finished, and keeps what
 * a kill at the next call after the name was taken would leave. */
struct beside {
	struct npk_store *s;
	const char *dir, *left;
	int saved, taken, kept;
};

static int look(void *ctx, const struct npki_io_call *c)
{
	struct beside *b = ctx;
	struct npk_array *a;
	char command[512];

	if (b->saved == 0 && c->op == NPKI_IO_RENAME && strcmp(c->path, "numpackfs.journal.next") == 0) {
		b->saved = 1;
		T_CHECK(npk_array_get(&a, b->s, "x", NULL) == 0 && npk_array_append(a, rows, 1, NULL) == 0);
		npk_array_put(a);
		T_CHECK(npk_store_save(b->s, "x", NPK_U8, &one, rows, NULL) == 0);
	}
	if (b->taken && !b->kept) {
		b->kept = 1;
		snprintf(command, sizeof(command), "cp -a %s %s", b->dir, b->left);
		T_CHECK(system(command) == 0);
	}
	if (b->saved && c->op == NPKI_IO_RENAME && strcmp(c->to, "data_x.npkd") == 0)
		b->taken = 1;
	return 0;
}

static uint64_t rows_of(struct npk_store *s, const char *name)
{
	struct npk_array_info info;
	struct npk_array *a;
	uint64_t n = 0;

	if (npk_array_get(&a, s, name, NULL) != 0)
		return 0;
	if (npk_array_info(a, &info, NULL) == 0 && !info.damaged)
		n = info.rows;
	npk_array_put(a);
	return n;
}

TEST(a_name_that_the_disk_still_needs_is_not_taken)
{
	const char *dir = mk_dir();
	char left[256];
	struct beside b = {.dir = dir, .left = left};
	struct npk_err err;
	struct npk_store *s;

	snprintf(left, sizeof(left), "%s/left", mk_dir());
	T_CHECK(npk_store_open(&s, dir, NPK_RDWR | NPK_CREATE, NULL) == 0);
	T_CHECK(npk_store_save(s, "x", NPK_U8, &three, rows, NULL) == 0 && npk_store_finish(s, NULL) == 0);
	T_CHECK(npk_store_open(&b.s, dir, NPK_RDWR, NULL) == 0);
	T_CHECK(npk_store_save(b.s, "y", NPK_U8, &three, rows, NULL) == 0);
	npki_io_set_hook(&(struct npki_io_hook){look, &b, NULL});
	T_CHECKF(npk_store_sync(b.s, &err) == 0, "%s", err.msg);
	T_CHECKF(npk_store_sync(b.s, &err) == 0, "%s", err.msg);
	npki_io_set_hook(NULL);
	T_CHECK(b.saved && b.kept && rows_of(b.s, "x") == 1);
	T_CHECK(npk_store_finish(b.s, NULL) == 0);
	T_CHECKF(npk_store_open(&s, left, NPK_RDWR, &err) == 0, "%s", err.msg);
	T_CHECK(rows_of(s, "x") == 1 && rows_of(s, "y") == 3);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

/* --- deleted rows ------------------------------------------------------------------------------------------------------ */

static uint8_t many[100];

/* A store with one array of that name, which other programs made: ours give no such names. */
static const char *store_of(const char *name)
{
	const char *dir = mk_dir();
	struct mk_array a = {
		.name = name, .file = "data_.npkd", .dtype = NPK_U8, .ndim = 1, .dim = {sizeof(many)}, .data = many};

	mk_data(dir, &a);
	mk_metadata(dir, &a, 1);
	return dir;
}

/* Drops a row outside of a transaction and inside of one, and says what came of it; the store is sound after either. */
static int drop_of(const char *dir, const char *name, struct npk_err *err)
{
	struct npk_store *s, *in;
	struct npk_array *a;
	struct npk_txn *t;
	struct npk_err own;
	int rc, inside;

	T_CHECK(npk_store_open(&s, dir, NPK_RDWR, NULL) == 0);
	T_CHECK(npk_txn_begin(&t, s, NULL) == 0);
	in = npk_txn_store(t);
	T_CHECK(npk_array_get(&a, in, name, NULL) == 0);
	inside = npk_array_drop(a, "1", NULL, &own);
	npk_array_put(a);
	npk_txn_abort(t);
	T_CHECK(npk_array_get(&a, s, name, NULL) == 0);
	rc = npk_array_drop(a, "0,5:7", NULL, err);
	npk_array_put(a);
	T_CHECKF(inside == rc, "%s", inside ? own.msg : "inside it works");
	T_CHECKF(npk_store_finish(s, &own) == 0, "%zu bytes: %s", strlen(name), own.msg);
	T_CHECKF(npk_store_open(&s, dir, NPK_RDWR, &own) == 0, "%zu bytes: %s", strlen(name), own.msg);
	T_CHECK(rows_of(s, name) == sizeof(many) - (rc == 0 ? 3 : 0));
	T_CHECK(npk_store_finish(s, NULL) == 0);
	return rc;
}

/* The bitmap of deleted rows has the array's name in its own: where no such file can be, no row is deleted. It was found out
 * by the checkpoint, after which the store could not be opened any more. */
TEST(no_row_is_deleted_where_no_bitmap_can_be)
{
	static const char cannot[] = "no row of it can be deleted: deleted_";
	char name[256], sub[256];
	struct npk_err err;
	const char *dir;

	for (size_t len = 236; len <= 250; len++) {
		memset(name, 'n', len);
		name[len] = 0;
		dir = store_of(name);
		if (len + strlen("deleted_.npkb") <= 255) {
			T_CHECKF(drop_of(dir, name, &err) == 0, "%zu bytes", len);
			continue;
		}
		T_CHECKF(drop_of(dir, name, &err) == -EINVAL, "%zu bytes", len);
		T_CHECKF(strstr(err.msg, cannot) && strstr(err.msg, "File name too long"), "%s", err.msg);
	}
	dir = store_of("a/b");
	T_CHECK(drop_of(dir, "a/b", &err) == -EINVAL);
	T_CHECKF(strstr(err.msg, "'a/b'") && strstr(err.msg, cannot) && strstr(err.msg, "No such file"), "%s", err.msg);
	snprintf(sub, sizeof(sub), "%s/deleted_a", dir);
	T_CHECK(mkdir(sub, 0777) == 0 && drop_of(dir, "a/b", &err) == 0);
	T_CHECK(mk_exists(dir, "deleted_a/b.npkb"));
	mk_remove(dir, "deleted_a/b.npkb");
	T_CHECK(rmdir(sub) == 0);
}

T_MAIN()
