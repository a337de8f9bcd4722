/* A data file that shrinks under its mapping is an error of the one read, with the process and everything else alive. */
#include "../t.h"
#include "mkstore.h"

#include <errno.h>
#include <guard.h>
#include <numpack.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROWS 8192 /* of 8 bytes: 16 pages */

static uint8_t data[ROWS * 8], gone[ROWS];

struct open_array {
	const char *dir;
	struct npk_store *s;
	struct npk_gen *a, *b;
};

static struct open_array open_two(uint64_t segment_rows)
{
	struct open_array o = {.dir = mk_dir()};
	struct mk_array all[] = {
		{.name = "a", .dtype = NPK_U64, .ndim = 1, .dim = {ROWS}, .data = data, .segment_rows = segment_rows},
		{.name = "b", .dtype = NPK_U64, .ndim = 1, .dim = {ROWS}, .data = data, .deleted = gone}};
	struct npk_array *h;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	for (size_t i = 0; i < ROWS; i++)
		gone[i] = i % 5 == 0;
	mk_store(o.dir, all, 2);
	T_CHECK(npk_store_open(&o.s, o.dir, NPK_RDONLY, NULL) == 0);
	T_CHECK(npk_array_get(&h, o.s, "a", NULL) == 0 && npk_gen_get(&o.a, h, NULL) == 0);
	npk_array_put(h);
	T_CHECK(npk_array_get(&h, o.s, "b", NULL) == 0 && npk_gen_get(&o.b, h, NULL) == 0);
	npk_array_put(h);
	T_CHECK(npk_gen_map(o.a, NULL) == 0 && npk_gen_map(o.b, NULL) == 0);
	return o;
}

static void close_two(struct open_array *o)
{
	npk_gen_put(o->a);
	npk_gen_put(o->b);
	npk_store_close(o->s);
}

static void cut(const char *dir, const char *file, off_t len)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	T_CHECK(truncate(path, len) == 0);
}

static void check_other(struct npk_gen *g)
{
	uint64_t row;

	T_CHECK(npk_gen_read_rows(g, npk_gen_info(g)->rows - 1, 1, &row, NULL) == 0);
	T_CHECK(memcmp(&row, data + 8 * npk_gen_slot(g, npk_gen_info(g)->rows - 1), 8) == 0);
}

/* Every way of copying rows, over the part that is gone and over the part that is left. */
static void check_reads(struct npk_gen *g, uint64_t left, const char *file)
{
	static uint8_t out[ROWS * 8];
	int64_t list[] = {0, (int64_t)left - 1, ROWS - 1};
	struct npk_err err = {0};
	struct npk_view *v;
	struct npk_csv *c;

	T_CHECK(npk_gen_read_rows(g, 0, ROWS, out, &err) == -EIO && err.code == EIO);
	T_CHECKF(strstr(err.msg, file) && strstr(err.msg, "cut short") && strstr(err.msg, "'a'"), "%s", err.msg);
	T_CHECK(npk_gen_read_rows(g, 0, left, out, NULL) == 0 && memcmp(out, data, left * 8) == 0);
	T_CHECK(npk_gen_take(g, list, 3, out, &err) == -EIO);
	T_CHECK(npk_gen_take(g, list, 2, out, NULL) == 0 && memcmp(out + 8, data + 8 * (left - 1), 8) == 0);
	T_CHECK(npk_gen_read_step(g, ROWS - 1, -1, ROWS, out, &err) == -EIO);
	T_CHECK(npk_gen_read_step(g, left - 1, -1, left, out, NULL) == 0 && memcmp(out + 8 * (left - 1), data, 8) == 0);
	T_CHECK(npk_view_open(&v, g, "1::2,0", NULL) == 0);
	T_CHECK(npk_view_read(v, 0, out, npk_view_info(v)->bytes, &err) == -EIO);
	T_CHECK(npk_view_read(v, 3, out, 8 * left / 2 - 8, NULL) == 0 && out[0] == data[8 + 3]);
	npk_view_close(v);
	T_CHECK(npk_csv_open(&c, g, NULL) == 0);
	for (ssize_t n = 1; n > 0;)
		T_CHECK((n = npk_csv_read(c, out, sizeof(out), &err)) != 0);
	T_CHECK(err.code == EIO);
	npk_csv_close(c);
}

/* --- handlers that were there before: each in a process of its own; first, before this one
 * installs the guard --------------------------------------------------------------------------------------------------- */

static struct open_array child;
static const volatile uint8_t *past_end;

static void touch(void)
{
	(void)*past_end;
}

static void touch_guarded(void *ctx)
{
	(void)ctx;
	touch();
}

static int run_child(void (*before)(void))
{
	int status;
	pid_t pid = fork();

	T_CHECK(pid >= 0);
	if (pid == 0) {
		const void *p;
		uint64_t n;

		before();
		if (npk_guard_install(NULL) != 0 || npk_gen_borrow(child.a, ROWS - 1, &p, &n, NULL) != 0)
			_exit(50);
		past_end = p;
		if (npki_guarded(touch_guarded, NULL) != -EIO)
			_exit(51);
		touch(); /* not ours: the handler from before decides */
		_exit(52);
	}
	T_CHECK(waitpid(pid, &status, 0) == pid);
	return status;
}

static void info_handler(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	_exit(sig == SIGBUS && si->si_addr == (void *)past_end ? 41 : 43);
}

static void plain_handler(int sig)
{
	_exit(sig == SIGBUS ? 42 : 43);
}

static void with_info(void)
{
	struct sigaction sa = {.sa_sigaction = info_handler, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &sa, NULL);
}

static void with_plain(void)
{
	struct sigaction sa = {.sa_handler = plain_handler};

	sigaction(SIGBUS, &sa, NULL);
}

static void with_default(void)
{
	signal(SIGBUS, SIG_DFL);
}

static void with_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
}

static void prepare(void)
{
	child = open_two(0);
	cut(child.dir, "data_a.npkd", 4096);
}

TEST(handlers_from_before_still_work)
{
	int status;

	prepare();
	status = run_child(with_info);
	T_CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 41, "SA_SIGINFO: status %#x", status);
	status = run_child(with_plain);
	T_CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 42, "plain: status %#x", status);
	status = run_child(with_default);
	T_CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "default: status %#x", status);
	status = run_child(with_ignored);
	T_CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "ignored: status %#x", status);
	close_two(&child);
}

/* --- the guard -------------------------------------------------------------------------------------------------------- */

/* cmocka puts its own handler in place before each test; the guard is installed once and remembered. */
static void guard(void)
{
	static struct sigaction ours;

	if (ours.sa_sigaction) {
		T_CHECK(sigaction(SIGBUS, &ours, NULL) == 0);
		return;
	}
	T_CHECK(npk_guard_install(NULL) == 0 && sigaction(SIGBUS, NULL, &ours) == 0);
}

TEST(a_file_cut_under_its_mapping_is_an_error)
{
	struct open_array o = open_two(0);

	guard();
	T_CHECK(npk_guard_install(NULL) == 0); /* twice is fine */
	cut(o.dir, "data_a.npkd", 3 * 4096);
	for (int i = 0; i < 50; i++) {
		check_reads(o.a, 3 * 512, "data_a.npkd");
		check_other(o.b);
	}
	close_two(&o);
}

TEST(the_message_names_the_segment)
{
	struct open_array o = open_two(ROWS / 4);
	struct npk_err err;
	uint64_t row;

	guard();
	cut(o.dir, "data_a_segments/seg_000002.npkd", 0);
	T_CHECK(npk_gen_read_rows(o.a, ROWS / 2, 1, &row, &err) == -EIO);
	T_CHECKF(strstr(err.msg, "seg_000002.npkd"), "%s", err.msg);
	T_CHECK(npk_gen_read_rows(o.a, ROWS / 2 - 1, 1, &row, NULL) == 0);
	T_CHECK(npk_gen_read_rows(o.a, ROWS - 1, 1, &row, NULL) == 0);
	check_other(o.b);
	close_two(&o);
}

TEST(a_mask_that_shrinks_is_an_error_too)
{
	struct open_array o = open_two(0);
	struct npk_view *v = NULL;
	struct npk_err err = {0};

	guard();
	cut(o.dir, "data_a.npkd", 4096);
	T_CHECK(npk_view_open(&v, o.a, "mask=a", &err) == -EIO && v == NULL && err.code == EIO);
	close_two(&o);
}

static void *read_cut(void *arg)
{
	static _Thread_local uint8_t out[ROWS * 8];
	struct open_array *o = arg;
	intptr_t bad = 0;

	for (int i = 0; i < 200; i++) {
		bad += npk_gen_read_rows(o->a, 0, ROWS, out, NULL) != -EIO;
		bad += npk_gen_read_rows(o->b, 0, 1000, out, NULL) != 0;
	}
	return (void *)bad;
}

TEST(threads_fail_each_on_its_own)
{
	struct open_array o = open_two(0);
	pthread_t t[4];
	void *bad;

	guard();
	cut(o.dir, "data_a.npkd", 4096);
	for (int i = 0; i < 4; i++)
		T_CHECK(pthread_create(&t[i], NULL, read_cut, &o) == 0);
	for (int i = 0; i < 4; i++)
		T_CHECK(pthread_join(t[i], &bad) == 0 && bad == NULL);
	close_two(&o);
}

T_MAIN()
