/* Transactions and changes of several arrays: what they refuse, what they leave alone, and who is told. What they do to
 * rows is in prop/test_changes.c, against a model. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <fcntl.h>
#include <numpack.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct npk_shape shape = {2, {3, 2}};
static const uint8_t rows[] = {1, 2, 3, 4, 5, 6};

/* A store with the arrays "a" and "b" of 3 rows. */
static struct npk_store *make(const char *path)
{
	struct npk_store *s;

	T_CHECK(npk_store_open(&s, path, NPK_RDWR | NPK_CREATE, NULL) == 0);
	T_CHECK(npk_store_save(s, "a", NPK_U8, &shape, rows, NULL) == 0);
	T_CHECK(npk_store_save(s, "b", NPK_U8, &shape, rows, NULL) == 0);
	return s;
}

static struct npk_array *get(struct npk_store *s, const char *name)
{
	struct npk_array *a;

	T_CHECK(npk_array_get(&a, s, name, NULL) == 0);
	return a;
}

static struct npk_array_info info_of(struct npk_store *s, const char *name)
{
	struct npk_array *a = get(s, name);
	struct npk_array_info info;

	T_CHECK(npk_array_info(a, &info, NULL) == 0 && !info.damaged);
	npk_array_put(a);
	return info;
}

static void append(struct npk_store *s, const char *name)
{
	struct npk_array *a = get(s, name);

	T_CHECK(npk_array_append(a, rows, 1, NULL) == 0);
	npk_array_put(a);
}

TEST(a_conflict_leaves_everything_and_the_transaction_goes_on)
{
	struct npk_store *s = make(mk_dir());
	struct npk_txn *t, *other;
	struct npk_err err;

	T_CHECK(npk_txn_begin(&t, s, NULL) == 0 && npk_txn_begin(&other, s, NULL) == 0);
	append(npk_txn_store(t), "a");
	append(npk_txn_store(t), "b");
	append(npk_txn_store(other), "a");
	T_CHECK(npk_txn_commit(other, NULL, NULL, &err) == 0);
	T_CHECK(npk_txn_commit(t, NULL, NULL, &err) == -EBUSY && strstr(err.msg, "'a'"));
	T_CHECK(info_of(s, "a").rows == 4 && info_of(s, "b").rows == 3);
	append(npk_txn_store(t), "b");
	T_CHECK(info_of(npk_txn_store(t), "b").rows == 5 && info_of(npk_txn_store(t), "a").rows == 4);
	npk_txn_abort(t);
	T_CHECK(info_of(s, "b").rows == 3);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

TEST(rows_written_in_place_outside_are_a_conflict_too)
{
	struct npk_store *s = make(mk_dir());
	struct npk_array *a = get(s, "a");
	struct npk_txn *t;
	struct npk_view *v;
	struct npk_gen *g;

	T_CHECK(npk_txn_begin(&t, s, NULL) == 0);
	append(npk_txn_store(t), "a");
	T_CHECK(npk_gen_get(&g, a, NULL) == 0 && npk_view_open(&v, g, NULL, NULL) == 0);
	T_CHECK(npk_view_pwrite(v, a, 0, "x", 1, NULL) == 0);
	T_CHECK(npk_txn_commit(t, NULL, NULL, NULL) == -EBUSY);
	npk_txn_abort(t);
	npk_view_close(v);
	npk_gen_put(g);
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

TEST(a_transaction_in_a_transaction_is_refused)
{
	struct npk_store *s = make(mk_dir()), *r;
	struct npk_txn *t, *inner;
	const char *path = npk_store_path(s);

	T_CHECK(npk_txn_begin(&t, s, NULL) == 0);
	T_CHECK(npk_txn_begin(&inner, npk_txn_store(t), NULL) == -EINVAL);
	T_CHECK(npk_store_open(&r, path, NPK_RDONLY, NULL) == 0);
	T_CHECK(npk_txn_begin(&inner, r, NULL) == -EROFS);
	npk_store_close(r);
	T_CHECK(npk_txn_commit(t, NULL, NULL, NULL) == 0); /* nothing was done in it */
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

TEST(the_end_of_a_store_ends_its_transactions)
{
	struct npk_store *s = make(mk_dir()), *inside;
	struct npk_array *held;
	struct npk_txn *t;

	T_CHECK(npk_txn_begin(&t, s, NULL) == 0);
	inside = npk_txn_store(t);
	append(inside, "a");
	held = get(inside, "a");
	T_CHECK(npk_store_finish(s, NULL) == 0);
	T_CHECK(npk_array_append(held, rows, 1, NULL) == -ESTALE);
	T_CHECK(npk_store_save(inside, "c", NPK_U8, &shape, rows, NULL) == -ESTALE);
	T_CHECK(npk_txn_commit(t, NULL, NULL, NULL) == -ESTALE);
	npk_txn_abort(t);
	npk_array_put(held);
}

TEST(one_step_that_cannot_be_leaves_all_arrays)
{
	struct npk_store *s = make(mk_dir());
	struct npk_array *a = get(s, "a"), *b = get(s, "b");
	const int64_t bad = 3;
	struct npk_err err;
	struct npk_step st[2] = {{.verb = NPK_APPEND, .array = a, .data = rows, .nrows = 2},
		{.verb = NPK_DROP, .array = b, .rows = &bad, .nrows = 1}};

	T_CHECK(npk_store_change(s, st, 2, 0, &err) == -ERANGE && strstr(err.msg, "'b': row 3 of 3"));
	st[1].sel = "0:2";
	st[0].verb = (enum npk_verb)9;
	T_CHECK(npk_store_change(s, st, 2, 0, &err) == -EINVAL);
	st[0].verb = NPK_APPEND;
	st[1].array = a;
	T_CHECK(npk_store_change(s, st, 2, 0, &err) == -EINVAL && strstr(err.msg, "twice"));
	T_CHECK(npk_store_change(s, st, 1, 8, &err) == -EINVAL);
	T_CHECK(info_of(s, "a").physical_rows == 3 && info_of(s, "b").deleted == 0);
	st[1].array = b;
	T_CHECK(npk_store_change(s, st, 2, 0, &err) == 0 && st[0].done == 2 && st[1].done == 2);
	T_CHECK(info_of(s, "a").rows == 5 && info_of(s, "b").rows == 1);
	npk_array_put(a);
	npk_array_put(b);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

TEST(mode_stays_through_save_and_compact_and_can_be_chosen)
{
	struct npk_store *s = make(mk_dir());
	struct npk_array *a = get(s, "a");
	struct npk_save *w;

	T_CHECK(npk_array_set_mode(a, 0640, NULL) == 0 && info_of(s, "a").mode == 0640);
	T_CHECK(npk_store_save(s, "a", NPK_U8, &shape, rows, NULL) == 0 && info_of(s, "a").mode == 0640);
	T_CHECK(npk_array_drop(a, "0", NULL, NULL) == 0 && npk_array_compact(a, NULL) == 0);
	T_CHECK(info_of(s, "a").mode == 0640 && info_of(s, "a").physical_rows == 2);
	T_CHECK(npk_save_open(&w, s, NPK_U8, &shape, NULL) == 0 && npk_save_set_mode(w, 0604, NULL) == 0);
	T_CHECK(npk_save_commit(w, "a", NULL) == 0 && info_of(s, "a").mode == 0604);
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

static struct npk_gen *gen_of(struct npk_array *a)
{
	struct npk_gen *g;

	T_CHECK(npk_gen_get(&g, a, NULL) == 0);
	return g;
}

/* Objects of one number may reach who shows them in any order: the moment tells which is the later state, also when rows,
 * time and mode say nothing about it. */
TEST(every_state_of_an_array_has_a_later_moment)
{
	struct npk_store *s = make(mk_dir());
	struct npk_array *a = get(s, "a");
	struct npk_gen *before = gen_of(a), *now;

	for (int step = 0; step < 6; step++) {
		switch (step) {
		case 0:
			T_CHECK(npk_array_set_mode(a, 0640, NULL) == 0);
			break;
		case 1:
			T_CHECK(npk_array_set_mode(a, 0600, NULL) == 0);
			break;
		case 2:
			T_CHECK(npk_array_set_mtime(a, 1000, NULL) == 0);
			break;
		case 3:
			T_CHECK(npk_array_append(a, rows, 1, NULL) == 0);
			break;
		case 4:
			T_CHECK(npk_array_replace(a, 0, 1, rows, 0, NULL) == 0);
			break;
		default:
			T_CHECK(npk_array_drop(a, "0", NULL, NULL) == 0);
		}
		now = gen_of(a);
		T_CHECK((npk_gen_info(now)->number == npk_gen_info(before)->number) == (step < 5));
		T_CHECK(npk_gen_info(now)->moment > npk_gen_info(before)->moment);
		npk_gen_put(before);
		before = now;
	}
	npk_gen_put(before);
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

TEST(the_lock_file_says_what_it_is_told_last)
{
	const char *dir = mk_dir();
	struct npk_store *s = make(dir);
	struct mk_bytes text;
	char pid[32];

	T_CHECK(npk_store_set_owner(s, "mounted on /mnt/x", NULL) == 0);
	text = mk_read(dir, ".numpackfs.lock");
	snprintf(pid, sizeof(pid), "pid %d ", (int)getpid());
	T_CHECK(strncmp((char *)text.p, pid, strlen(pid)) == 0 && strstr((char *)text.p, "mounted on /mnt/x"));
	mk_free(&text);
	T_CHECK(npk_store_finish(s, NULL) == 0);
}

T_MAIN()
