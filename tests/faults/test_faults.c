/* Every changing call of every operation fails once, or from then on: the operation reports it, the store shows all of it or
 * nothing, goes on working when the fault has gone (or says that it is read-only), and a kill or a power cut at that moment
 * leaves a state that was there. The same with real limits: of open files, and of the size of files, which cuts writes short. */
#include "../crash/disk.h"
#include "../t.h"
#include "../tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <io.h>
#include <numpack.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[64];

/* What a kill of this process would leave. */
static void copy_dir(const char *from, const char *to)
{
	char a[512], b[512];
	DIR *d = opendir(from);
	struct dirent *e;

	T_CHECK(d && mkdir(to, 0777) == 0);
	while ((e = readdir(d)) != NULL) {
		static uint8_t buf[1 << 20];
		int in, out;
		ssize_t n;

		if (e->d_name[0] == '.' && (e->d_name[1] == 0 || e->d_name[1] == '.'))
			continue;
		snprintf(a, sizeof(a), "%s/%s", from, e->d_name);
		snprintf(b, sizeof(b), "%s/%s", to, e->d_name);
		in = open(a, O_RDONLY);
		out = open(b, O_WRONLY | O_CREAT | O_EXCL, 0666);
		T_CHECK(in >= 0 && out >= 0);
		while ((n = read(in, buf, sizeof(buf))) > 0)
			T_CHECK(write(out, buf, (size_t)n) == n);
		close(in);
		close(out);
	}
	closedir(d);
}

/* --- what a store shows, as bytes -------------------------------------------------------------------------------------- */

/* -errno when an array cannot be read. */
static int look(struct npk_store *s, struct npk_text *out, struct npk_err *err)
{
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct npk_gen *g;
		const struct npk_gen_info *info;
		uint8_t *rows;

		rc = npk_gen_get(&g, list[i], err);
		if (rc != 0)
			break;
		info = npk_gen_info(g);
		rows = malloc(info->rows * info->row_bytes + 1);
		rc = npk_gen_read_rows(g, 0, info->rows, rows, err);
		if (rc == 0) {
			npk_text_printf(out, "%s %u %" PRIu64 " of %" PRIu64 ":", npk_array_name(list[i], NULL),
				info->dtype, info->rows, info->row_bytes);
			npk_text_add(out, rows, info->rows * info->row_bytes);
		}
		free(rows);
		npk_gen_put(g);
	}
	npk_store_list_free(list, n);
	return rc;
}

static int same(const struct npk_text *a, const struct npk_text *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->p, b->p, a->len) == 0);
}

/* --- operations -------------------------------------------------------------------------------------------------------- */

static int with(
	struct npk_store *s, const char *name, int (*fn)(struct npk_array *, struct npk_err *), struct npk_err *err)
{
	struct npk_array *a;
	int rc = npk_array_get(&a, s, name, err);

	if (rc == 0) {
		rc = fn(a, err);
		npk_array_put(a);
	}
	return rc;
}

#define ROWS 40
#define WIDTH 64

static uint8_t bytes[ROWS * WIDTH];

static void fill(unsigned seed)
{
	uint64_t rnd = seed;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)t_rand(&rnd);
}

static int save(struct npk_store *s, const char *name, unsigned seed, struct npk_err *err)
{
	const struct npk_shape shape = {2, {ROWS, WIDTH}};

	fill(seed);
	return npk_store_save(s, name, NPK_U8, &shape, bytes, err);
}

static int append_3(struct npk_array *a, struct npk_err *err)
{
	fill(50);
	return npk_array_append(a, bytes, 3, err);
}

static int drop_some(struct npk_array *a, struct npk_err *err)
{
	return npk_array_drop(a, "1,5:20:2", NULL, err);
}

static int replace_rows(struct npk_array *a, unsigned flags, struct npk_err *err)
{
	const int64_t rows[] = {2, 30, 7};

	fill(60);
	return npk_array_replace(a, rows, 3, bytes, flags, err);
}

static int replace_plain(struct npk_array *a, struct npk_err *err)
{
	return replace_rows(a, 0, err);
}

static int replace_atomic(struct npk_array *a, struct npk_err *err)
{
	return replace_rows(a, NPK_REPLACE_ATOMIC, err);
}

static int write_view_at(struct npk_array *a, uint64_t off, struct npk_err *err)
{
	struct npk_gen *g;
	struct npk_view *v;
	int rc = npk_gen_get(&g, a, err);

	if (rc != 0)
		return rc;
	fill(70);
	rc = npk_view_open(&v, g, NULL, err);
	if (rc == 0) {
		rc = npk_view_pwrite(v, a, off, bytes, 17, err);
		npk_view_close(v);
	}
	npk_gen_put(g);
	return rc;
}

static int write_view(struct npk_array *a, struct npk_err *err)
{
	return write_view_at(a, 3 * WIDTH + 5, err);
}

static int write_over_replaced(struct npk_array *a, struct npk_err *err)
{
	return write_view_at(a, 7 * WIDTH, err);
}

static int extend_9(struct npk_array *a, struct npk_err *err)
{
	return npk_array_extend(a, 9, err);
}

static int set_time(struct npk_array *a, struct npk_err *err)
{
	return npk_array_set_mtime(a, 1234567, err);
}

static int op_save(struct npk_store *s, struct npk_err *err)
{
	return save(s, "new", 10, err);
}

static int op_save_over(struct npk_store *s, struct npk_err *err)
{
	return save(s, "x", 11, err);
}

static int op_save_stream(struct npk_store *s, struct npk_err *err)
{
	const struct npk_shape shape = {2, {0, WIDTH}};
	struct npk_save *w;
	int rc = npk_save_open(&w, s, NPK_U8, &shape, err);

	fill(12);
	if (rc != 0)
		return rc;
	for (size_t at = 0; at < sizeof(bytes) && rc == 0; at += sizeof(bytes) / 4)
		rc = npk_save_write(w, bytes + at, sizeof(bytes) / 4, err);
	if (rc == 0)
		return npk_save_commit(w, "x", err);
	npk_save_abort(w);
	return rc;
}

static int op_append(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", append_3, err);
}

static int op_extend(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", extend_9, err);
}

static int op_drop(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", drop_some, err);
}

static int op_drop_again(struct npk_store *s, struct npk_err *err)
{
	return with(s, "holes", drop_some, err);
}

static int op_replace(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", replace_plain, err);
}

static int op_replace_atomic(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", replace_atomic, err);
}

static int op_write_view(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", write_view, err);
}

static int op_compact(struct npk_store *s, struct npk_err *err)
{
	return with(s, "holes", npk_array_compact, err);
}

static int op_set_time(struct npk_store *s, struct npk_err *err)
{
	return with(s, "x", set_time, err);
}

static int op_remove(struct npk_store *s, struct npk_err *err)
{
	return npk_store_remove(s, "holes", err);
}

static int op_clone(struct npk_store *s, struct npk_err *err)
{
	return npk_store_clone(s, "holes", "copy", err);
}

static int op_rename(struct npk_store *s, struct npk_err *err)
{
	return npk_store_rename(s, "holes", "x", 0, err);
}

static int op_exchange(struct npk_store *s, struct npk_err *err)
{
	return npk_store_rename(s, "holes", "x", NPK_RENAME_EXCHANGE, err);
}

/* Every kind of step that makes files of the transaction's own: rows that wait, rows written in place, a save; and one over
 * that save. */
static int txn_steps(struct npk_store *in, struct npk_err *err)
{
	int rc = with(in, "x", append_3, err);

	if (rc == 0)
		rc = with(in, "holes", replace_plain, err);
	if (rc == 0)
		rc = with(in, "holes", drop_some, err);
	if (rc == 0)
		rc = save(in, "new", 13, err);
	if (rc == 0)
		rc = with(in, "new", write_view, err);
	if (rc == 0)
		rc = npk_store_clone(in, "new", "newer", err);
	return rc == 0 ? save(in, "new", 14, err) : rc;
}

static int op_txn(struct npk_store *s, struct npk_err *err)
{
	struct npk_txn *t;
	int rc = npk_txn_begin(&t, s, err);

	if (rc != 0)
		return rc;
	rc = txn_steps(npk_txn_store(t), err);
	if (rc == 0)
		rc = npk_txn_commit(t, NULL, NULL, err);
	if (rc != 0)
		npk_txn_abort(t);
	return rc;
}

/* What is discarded makes no difference, whatever fails. */
static int op_txn_abort(struct npk_store *s, struct npk_err *err)
{
	struct npk_txn *t;
	int rc = npk_txn_begin(&t, s, err);

	if (rc != 0)
		return rc;
	rc = txn_steps(npk_txn_store(t), err);
	npk_txn_abort(t);
	return rc;
}

static const struct op {
	const char *name;
	int (*run)(struct npk_store *, struct npk_err *);
	int durable;  /* once it returned 0, all before is */
	int in_parts; /* a power cut may leave a part of it */
	int half;     /* -EIO after the record leaves a part of it until the next open replays the record */
} ops[] = {
	{"save", op_save, 0, 0, 0},
	{"save over", op_save_over, 0, 0, 0},
	{"streamed save", op_save_stream, 0, 0, 0},
	{"append", op_append, 0, 0, 0},
	{"extend", op_extend, 0, 0, 0},
	{"drop", op_drop, 0, 0, 0},
	{"second drop", op_drop_again, 0, 0, 0},
	{"replace", op_replace, 0, 1, 1},
	{"atomic replace", op_replace_atomic, 0, 0, 1},
	{"in-place write", op_write_view, 0, 0, 0},
	{"compact", op_compact, 0, 0, 0},
	{"set time", op_set_time, 0, 0, 0},
	{"remove", op_remove, 0, 0, 0},
	{"clone", op_clone, 0, 0, 0},
	{"rename over", op_rename, 0, 0, 0},
	{"exchange", op_exchange, 0, 0, 0},
	{"reset", npk_store_reset, 0, 0, 0},
	{"fsync", npk_store_fsync, 1, 0, 0},
	{"sync", npk_store_sync, 1, 0, 0},
	{"transaction", op_txn, 0, 0, 1},
	{"discarded transaction", op_txn_abort, 0, 0, 0},
};

#define OPS (sizeof(ops) / sizeof(ops[0]))

/* What comes after the fault has gone. */
static int later(struct npk_store *s, struct npk_err *err)
{
	return save(s, "later", 99, err);
}

/* A store with a checkpoint behind it; with `busy` also sealed and unsealed records. Its last states, oldest first: the one
 * that is durable, and those after it. */
#define PREPARED 3

static struct npk_store *prepare(const char *path, int busy, struct npk_text state[PREPARED], size_t *n)
{
	struct npk_store *s;
	struct npk_array *a;

	t_remove_tree(path);
	T_CHECK(npk_store_open(&s, path, NPK_RDWR | NPK_CREATE, NULL) == 0);
	T_CHECK(save(s, "x", 1, NULL) == 0 && save(s, "holes", 2, NULL) == 0);
	T_CHECK(npk_array_get(&a, s, "holes", NULL) == 0 && npk_array_drop(a, "0,3,7:9", NULL, NULL) == 0);
	npk_array_put(a);
	T_CHECK(npk_store_finish(s, NULL) == 0);
	T_CHECK(npk_store_open(&s, path, NPK_RDWR, NULL) == 0);
	*n = 0;
	if (busy)
		T_CHECK(with(s, "x", append_3, NULL) == 0 && npk_store_fsync(s, NULL) == 0);
	T_CHECK(look(s, &state[(*n)++], NULL) == 0);
	if (busy) {
		T_CHECK(with(s, "x", append_3, NULL) == 0 && look(s, &state[(*n)++], NULL) == 0);
		T_CHECK(save(s, "fresh", 3, NULL) == 0 && look(s, &state[(*n)++], NULL) == 0);
	}
	return s;
}

/* --- one case ---------------------------------------------------------------------------------------------------------- */

#define STATES (PREPARED + 3)

struct truth {
	struct npk_text state[STATES]; /* prepared ones, then new, old + later, new + later */
	size_t prepared;
};

#define NEW(t) ((t)->prepared)
#define OLD(t) ((t)->prepared - 1)
#define OLD_LATER(t) ((t)->prepared + 1)
#define NEW_LATER(t) ((t)->prepared + 2)

/* Without faults. */
static void find_truth(struct truth *t, const struct op *op, int busy, const char *path)
{
	struct npk_store *s;
	struct npk_text again[PREPARED] = {{0}};
	size_t n;

	memset(t, 0, sizeof(*t));
	s = prepare(path, busy, t->state, &t->prepared);
	T_CHECK(op->run(s, NULL) == 0 && look(s, &t->state[NEW(t)], NULL) == 0);
	T_CHECK(later(s, NULL) == 0 && look(s, &t->state[NEW_LATER(t)], NULL) == 0);
	npk_store_close(s);
	s = prepare(path, busy, again, &n);
	T_CHECK(later(s, NULL) == 0 && look(s, &t->state[OLD_LATER(t)], NULL) == 0);
	npk_store_close(s);
	for (size_t i = 0; i < n; i++) {
		T_CHECK(same(&again[i], &t->state[i]));
		npk_text_fini(&again[i]);
	}
}

static void truth_fini(struct truth *t)
{
	for (size_t i = 0; i < STATES; i++)
		npk_text_fini(&t->state[i]);
}

struct fault {
	const char *what;
	const struct op *op;
	size_t nth;
	int code, lasting, busy;
	int call; /* the enum npki_io_op of the first that failed */
	const char *path;
};

#define FAULT_FMT "%s%s, %s from call %zu on%s (operation %d of %s), errno %d"
#define FAULT_ARGS(f)                                                                                                  \
	(f)->op->name, (f)->busy ? " of a store with records" : "", (f)->what, (f)->nth, (f)->lasting ? "" : ", once", \
		(f)->call, (f)->path, (f)->code

/* What opening the directory gives must be one of the states `may` (a bit each). */
static void check_opens(const struct truth *t, unsigned may, const char *path, const struct fault *f, const char *when)
{
	struct npk_store *s;
	struct npk_err err = {0};
	uint64_t damage = 0;
	unsigned found = 0;

	for (int twice = 0; twice < 2; twice++) {
		struct npk_text now = {0};
		int rc = npk_store_open(&s, path, NPK_RDWR, &err);

		T_CHECKF(rc == 0, FAULT_FMT ": %s: %s", FAULT_ARGS(f), when, err.msg);
		rc = look(s, &now, &err);
		T_CHECKF(rc == 0, FAULT_FMT ": %s: %s", FAULT_ARGS(f), when, err.msg);
		found = 0;
		for (unsigned i = 0; i < STATES; i++)
			if (same(&now, &t->state[i]))
				found |= 1u << i;
		T_CHECKF(found & may, FAULT_FMT ": %s: state %x, one of %x wanted%s", FAULT_ARGS(f), when, found, may,
			twice ? " when opened again" : "");
		npk_text_fini(&now);
		rc = twice ? npk_store_finish(s, &err) : (npk_store_close(s), 0);
		T_CHECKF(rc == 0, FAULT_FMT ": %s: %s", FAULT_ARGS(f), when, err.msg);
	}
	T_CHECK(npk_store_verify(path, NULL, NULL, &damage, &err) == 0);
	T_CHECKF(damage == 0, FAULT_FMT ": %s: verify finds damage", FAULT_ARGS(f), when);
}

static unsigned bit(size_t i)
{
	return 1u << i;
}

static unsigned bits(size_t from, size_t to)
{
	unsigned b = 0;

	for (size_t i = from; i <= to; i++)
		b |= bit(i);
	return b;
}

/* After the operation ended with `rc` and the fault is gone: what the handle shows, what can still be done, what a kill and a
 * power cut leave. `d` may be NULL: then the power is not cut. */
static void check_after(struct npk_store *s, int rc, const struct truth *t, const struct fault *f, struct disk *d,
	const char *path, const struct npk_err *said)
{
	char copy[128];
	struct npk_text now = {0};
	struct npk_err err = {0};
	unsigned may = rc == 0 ? bit(NEW(t)) : bit(OLD(t)) | bit(NEW(t)), at = 0, after;
	int rc2, later_rc;

	T_CHECKF(rc == 0 || (said->code == -rc && said->msg[0]), FAULT_FMT ": %d without a message", FAULT_ARGS(f), rc);
	snprintf(copy, sizeof(copy), "%s/copy", scratch);
	rc2 = look(s, &now, &err);
	T_CHECKF(rc2 == 0, FAULT_FMT ": the handle cannot be read: %s", FAULT_ARGS(f), err.msg);
	for (unsigned i = 0; i < STATES; i++)
		if (same(&now, &t->state[i]))
			at |= bit(i);
	T_CHECKF((at & may) || (f->op->half && rc == -EIO),
		FAULT_FMT ": returned %d (%s), the handle shows state %x, one of %x wanted", FAULT_ARGS(f), rc,
		said->msg, at, may);
	npk_text_fini(&now);
	copy_dir(path, copy);
	check_opens(t, may, copy, f, "killed then");
	t_remove_tree(copy);
	for (int policy = 0; d && policy < DISK_POLICIES; policy++) {
		T_CHECK(disk_cut(d, disk_length(d), (enum disk_policy)policy, f->nth * 31 + (size_t)policy, copy) == 0);
		if (!f->op->in_parts)
			check_opens(t, rc == 0 && f->op->durable ? bit(NEW(t)) | bit(OLD(t)) : bits(0, NEW(t)), copy, f,
				"power cut then");
		t_remove_tree(copy);
	}
	later_rc = later(s, &err);
	T_CHECKF(later_rc == 0 || ((later_rc == -EIO || later_rc == -EROFS) && err.msg[0]),
		FAULT_FMT ": returned %d (%s), then a save fails with %s", FAULT_ARGS(f), rc, said->msg, err.msg);
	/* Before anything was promised nothing is lost but the operation itself. */
	if (f->call == NPKI_IO_CREATE || f->call == NPKI_IO_TRUNCATE)
		T_CHECKF(later_rc == 0 || f->op->durable, FAULT_FMT ": returned %d (%s), the store is dead: %s",
			FAULT_ARGS(f), rc, said->msg, err.msg);
	after = later_rc == 0 ? (rc == 0 ? bit(NEW_LATER(t)) : bit(OLD_LATER(t)) | bit(NEW_LATER(t)))
			      : may | bit(OLD_LATER(t)) | bit(NEW_LATER(t));
	copy_dir(path, copy);
	check_opens(t, after, copy, f, "killed after a later save");
	t_remove_tree(copy);
	rc2 = npk_store_finish(s, &err);
	T_CHECKF(rc2 == 0 || later_rc != 0, FAULT_FMT ": cannot be closed: %s", FAULT_ARGS(f), err.msg);
	check_opens(t, after, path, f, "closed and opened");
}

/* --- the tests --------------------------------------------------------------------------------------------------------- */

static size_t sweep(const struct op *op, int busy, int code, int lasting, const struct truth *t)
{
	char path[128];
	int failed = 1;
	size_t nth;

	snprintf(path, sizeof(path), "%s/live", scratch);
	for (nth = 0; failed; nth++) {
		struct fault f = {"failing", op, nth, code, lasting, busy, 0, NULL};
		struct npk_text again[PREPARED] = {{0}};
		struct npk_err err = {0};
		struct disk *d = disk_new();
		struct npk_store *s;
		size_t n;
		int rc;

		disk_record(d);
		s = prepare(path, busy, again, &n);
		disk_fail(d, nth, code, lasting);
		rc = op->run(s, &err);
		disk_fail(d, 0, 0, 0);
		failed = disk_failed(d, &f.call, &f.path);
		T_CHECKF(failed || rc == 0, "%s: %s", op->name, err.msg);
		disk_stop(); /* what follows in copies is no business of this disk */
		if (failed)
			check_after(s, rc, t, &f, d, path, &err);
		else
			npk_store_close(s);
		for (size_t i = 0; i < n; i++)
			npk_text_fini(&again[i]);
		disk_free(d);
	}
	return nth - 1;
}

static void make_scratch(void)
{
	strcpy(scratch, "/dev/shm/npk_faults_XXXXXX");
	T_CHECK(mkdtemp(scratch) != NULL);
}

static void remove_scratch(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/live", scratch);
	t_remove_tree(path);
	T_CHECK(rmdir(scratch) == 0);
}

TEST(every_call_fails_once_and_for_long)
{
	static const int codes[] = {EIO, ENOSPC, EMFILE};
	char path[128];

	make_scratch();
	snprintf(path, sizeof(path), "%s/live", scratch);
	for (size_t i = 0; i < OPS; i++)
		for (int busy = 0; busy < 2; busy++) {
			struct truth t;
			size_t calls = 0;

			find_truth(&t, &ops[i], busy, path);
			for (size_t c = 0; c < 3; c++)
				for (int lasting = 0; lasting < 2; lasting++)
					calls = sweep(&ops[i], busy, codes[c], lasting, &t);
			T_CHECKF(
				calls > 0 || (ops[i].durable && !busy), "%s: changes nothing on the disk", ops[i].name);
			truth_fini(&t);
		}
	remove_scratch();
}

/* The limit that leaves so many files to be opened. */
static void limit_files(rlim_t more)
{
	struct rlimit l;
	int fd = open("/", O_RDONLY);

	T_CHECK(fd >= 0 && getrlimit(RLIMIT_NOFILE, &l) == 0);
	close(fd);
	l.rlim_cur = (rlim_t)fd + more;
	T_CHECK(setrlimit(RLIMIT_NOFILE, &l) == 0);
}

TEST(no_file_can_be_opened)
{
	struct rlimit before;
	char path[128];

	make_scratch();
	T_CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
	snprintf(path, sizeof(path), "%s/live", scratch);
	for (size_t i = 0; i < OPS; i++)
		for (int busy = 0; busy < 2; busy++) {
			struct truth t;
			int rc = -1;

			find_truth(&t, &ops[i], busy, path);
			for (size_t more = 0; rc != 0; more++) {
				struct fault f = {
					"no more than these files", &ops[i], more, EMFILE, 1, busy, -1, "any file"};
				struct npk_text again[PREPARED] = {{0}};
				struct npk_err err = {0};
				struct npk_store *s;
				size_t n;

				s = prepare(path, busy, again, &n);
				limit_files(more);
				rc = ops[i].run(s, &err);
				T_CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
				T_CHECKF(more < 20, "%s: needs more than 20 files: %s", ops[i].name, err.msg);
				check_after(s, rc, &t, &f, NULL, path, &err);
				for (size_t k = 0; k < n; k++)
					npk_text_fini(&again[k]);
			}
			truth_fini(&t);
		}
	remove_scratch();
}

/* A write that ends in the middle: files may not get longer than so many bytes. */
TEST(writes_are_cut_short)
{
	struct rlimit before;
	char path[128];

	make_scratch();
	signal(SIGXFSZ, SIG_IGN);
	T_CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
	snprintf(path, sizeof(path), "%s/live", scratch);
	for (size_t i = 0; i < OPS; i++)
		for (int busy = 0; busy < 2; busy++) {
			struct truth t;

			find_truth(&t, &ops[i], busy, path);
			for (size_t limit = 0; limit <= 4096; limit += limit < 640 ? 37 : 331) {
				struct fault f = {"no file longer than these bytes", &ops[i], limit, EFBIG, 1, busy, -1,
					"any file"};
				struct npk_text again[PREPARED] = {{0}};
				struct npk_err err = {0};
				struct npk_store *s;
				size_t n;
				int rc;

				s = prepare(path, busy, again, &n);
				T_CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, before.rlim_max}) == 0);
				rc = ops[i].run(s, &err);
				T_CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
				check_after(s, rc, &t, &f, NULL, path, &err);
				for (size_t k = 0; k < n; k++)
					npk_text_fini(&again[k]);
			}
			truth_fini(&t);
		}
	remove_scratch();
}

/* --- what is not called ------------------------------------------------------------------------------------------------ */

static int count_syncs(void *ctx, const struct npki_io_call *c)
{
	*(int *)ctx += c->op == NPKI_IO_SYNC || c->op == NPKI_IO_SYNC_DIR;
	return 0;
}

/* The record of the second is replayed behind that of the first. A write without a record must seal the first: its replay
 * would put the old row back. */
TEST(rows_replaced_again_wait_for_no_sync)
{
	struct npk_text states[PREPARED] = {{0}};
	struct npk_store *s;
	char path[128];
	int syncs = 0;
	size_t n;

	make_scratch();
	snprintf(path, sizeof(path), "%s/live", scratch);
	s = prepare(path, 0, states, &n);
	T_CHECK(op_replace(s, NULL) == 0);
	npki_io_set_hook(&(struct npki_io_hook){count_syncs, &syncs, NULL});
	for (int i = 0; i < 10; i++)
		T_CHECK(op_replace(s, NULL) == 0);
	T_CHECKF(syncs == 0, "%d syncs", syncs);
	T_CHECK(op_write_view(s, NULL) == 0);
	T_CHECKF(syncs == 0, "%d syncs for rows that nobody replaced", syncs);
	T_CHECK(with(s, "x", write_over_replaced, NULL) == 0);
	npki_io_set_hook(NULL);
	T_CHECKF(syncs > 0, "rows of an unsealed record were written over without a seal");
	for (size_t i = 0; i < n; i++)
		npk_text_fini(&states[i]);
	npk_store_close(s);
	remove_scratch();
}

T_MAIN()
