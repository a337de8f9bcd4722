/* Damaged packages: whatever byte is wrong, wherever the file ends, unpacking says so and the target stays as it was. */
#include "../t.h"
#include "mkstore.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <io.h>
#include <numpack.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define GOLDEN "tests/golden"

static const char *const packages[] = {"packed_zstd.npkg", "packed_zlib.npkg", "packed_v1.npkg"};

static const int32_t numbers[3] = {1, 2, 3};

/* A directory with a store "old.npk" that must not change, and what it is. */
struct place {
	const char *dir;
	char target[256], package[64];
	int fd; /* of the package, a file in memory: nothing waits for a disk */
	uint64_t sum;
};

static struct place make_place(void)
{
	const struct mk_array a = {.name = "old", .dtype = NPK_I32, .ndim = 1, .dim = {3}, .data = numbers};
	struct place p = {.dir = mk_dir()};

	T_CHECKF(mk_exists(GOLDEN, "index.json"), "run this from the top of the tree: there is no " GOLDEN);
	snprintf(p.target, sizeof(p.target), "%s/old.npk", p.dir);
	p.fd = memfd_create("x.npkg", MFD_CLOEXEC);
	T_CHECK(p.fd >= 0);
	snprintf(p.package, sizeof(p.package), "/proc/self/fd/%d", p.fd);
	mk_store(p.target, &a, 1);
	p.sum = mk_tree_sum(p.target);
	return p;
}

static unsigned count_names(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	T_CHECK(d != NULL);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void put_package(const struct place *p, const void *bytes, size_t len)
{
	T_CHECK(ftruncate(p->fd, (off_t)len) == 0 && pwrite(p->fd, bytes, len, 0) == (ssize_t)len);
}

static void check_untouched(const struct place *p, const char *package, size_t at)
{
	T_CHECKF(mk_tree_sum(p->target) == p->sum, "%s, byte %zu: the target has changed", package, at);
}

/* Unpacks over the old store. What is refused has an error with the package's name, and has changed nothing. */
static int unpack(const struct place *p, const void *bytes, size_t len, const char *package, size_t at)
{
	const struct npk_unpack how = {.overwrite = true};
	struct npk_err err = {0};
	int rc;

	put_package(p, bytes, len);
	rc = npk_unpack(p->package, p->target, &how, &err);
	if (rc != 0) {
		T_CHECKF(rc == -EUCLEAN && err.code == EUCLEAN, "%s, byte %zu: %d %s", package, at, rc, err.msg);
		T_CHECKF(strstr(err.msg, ": byte "), "%s, byte %zu: %s", package, at, err.msg);
		check_untouched(p, package, at);
	}
	return rc;
}

/* Where the names of files lie in a package: the format has no checksum over them. */
static bool in_a_name(const uint8_t *b, size_t len, size_t at)
{
	size_t pos = 13, name;
	uint64_t original, stored;

	while (pos + 4 < len - 4) {
		name = b[pos] | (size_t)b[pos + 1] << 8;
		if (at >= pos + 4 && at < pos + 4 + name)
			return true;
		memcpy(&original, b + pos + 4 + name, 8);
		memcpy(&stored, b + pos + 12 + name, 8);
		pos += 20 + name + (stored ? stored : original);
	}
	return false;
}

/* Whether the package in p->package is refused. A few bits in a zstd frame say nothing of its contents, such as how much
 * memory its reader may want: what passes must be the golden store, to the byte. */
static bool refused(const struct place *p)
{
	struct npk_package *k = NULL;
	struct npk_err err = {0};
	int rc = npk_package_open(&k, p->package, &err);

	if (rc == 0)
		rc = npk_package_verify(k, NULL, NULL, &err);
	npk_package_close(k);
	if (rc != 0)
		T_CHECKF(rc == -EUCLEAN && err.code == EUCLEAN && strstr(err.msg, ": byte "), "%d %s", rc, err.msg);
	return rc != 0;
}

static void check_golden(const struct place *p, const char *package, size_t at)
{
	static const char *const files[] = {"data_empty.npkd", "data_holes.npkd", "data_noise.npkd", "data_zeros.npkd",
		"deleted_holes.npkb", "metadata.npkm"};
	char target[300];
	struct npk_err err;

	snprintf(target, sizeof(target), "%s/again.npk", p->dir);
	T_CHECKF(npk_unpack(p->package, target, &(struct npk_unpack){.overwrite = true}, &err) == 0, "%s, byte %zu: %s",
		package, at, err.msg);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		struct mk_bytes got = mk_read(target, files[i]), want = mk_read(GOLDEN "/packed.npk", files[i]);

		T_CHECKF(got.len == want.len && memcmp(got.p, want.p, got.len) == 0, "%s, byte %zu: %s differs",
			package, at, files[i]);
		mk_free(&got);
		mk_free(&want);
	}
}

/* All of them are checked; making and removing a directory for each would take a minute, so a sample is unpacked. */
#define SAMPLE 23
#define HEADERS 60 /* the package's header and that of its first file */

static void flip_each_byte(const char *package, uint8_t bits)
{
	struct place p = make_place();
	struct mk_bytes good = mk_read(GOLDEN, package);
	uint8_t *b = malloc(good.len);

	T_CHECK(b != NULL);
	for (size_t i = 0; i < good.len; i++) {
		/* The compression byte 0 says of files what the files say themselves: either value reads the same. */
		if (in_a_name(good.p, good.len, i) || (i == 8 && (good.p[8] ^ bits) < 2))
			continue;
		memcpy(b, good.p, good.len);
		b[i] ^= bits;
		put_package(&p, b, good.len);
		if (!refused(&p))
			check_golden(&p, package, i);
		else if (i < HEADERS || i % SAMPLE == 0)
			T_CHECKF(unpack(&p, b, good.len, package, i) != 0, "%s, byte %zu ^ 0x%02x", package, i, bits);
	}
	close(p.fd);
	free(b);
	mk_free(&good);
}

TEST(no_flipped_byte_passes)
{
	for (size_t i = 0; i < sizeof(packages) / sizeof(*packages); i++)
		flip_each_byte(packages[i], 0xFF);
}

TEST(no_flipped_bit_passes)
{
	uint64_t seed = t_seed();

	for (size_t i = 0; i < sizeof(packages) / sizeof(*packages); i++)
		flip_each_byte(packages[i], (uint8_t)(1u << t_rand(&seed) % 8));
}

/* A name may become another legal one, and then the file has that name; but it never leaves the directory. */
TEST(a_flipped_byte_in_a_name_leads_nowhere_else)
{
	struct mk_bytes good = mk_read(GOLDEN, packages[0]);
	struct place p = make_place();
	uint8_t *b = malloc(good.len);

	T_CHECK(b != NULL);
	for (size_t i = 0; i < good.len; i++) {
		if (!in_a_name(good.p, good.len, i))
			continue;
		for (unsigned bit = i % 2; bit < 8; bit += 2) {
			memcpy(b, good.p, good.len);
			b[i] ^= (uint8_t)(1u << bit);
			if (unpack(&p, b, good.len, packages[0], i) == 0) {
				p.sum = mk_tree_sum(p.target);
				T_CHECK(b[i] != '/' && b[i] != 0);
			}
		}
	}
	close(p.fd);
	free(b);
	mk_free(&good);
}

TEST(no_truncation_passes)
{
	for (size_t i = 0; i < sizeof(packages) / sizeof(*packages); i++) {
		struct mk_bytes good = mk_read(GOLDEN, packages[i]);
		struct place p = make_place();

		for (size_t len = 0; len < good.len; len++) {
			put_package(&p, good.p, len);
			T_CHECKF(refused(&p), "%s: %zu bytes passed", packages[i], len);
			if (len < HEADERS || len % SAMPLE == 0)
				T_CHECKF(unpack(&p, good.p, len, packages[i], len) != 0, "%s: %zu bytes", packages[i],
					len);
		}
		T_CHECK(unpack(&p, good.p, good.len, packages[i], 0) == 0);
		close(p.fd);
		mk_free(&good);
	}
}

TEST(no_byte_may_follow)
{
	for (size_t i = 0; i < sizeof(packages) / sizeof(*packages); i++) {
		struct mk_bytes b = mk_read(GOLDEN, packages[i]);
		struct place p = make_place();

		mk_put(&b, "", 1);
		T_CHECK(unpack(&p, b.p, b.len, packages[i], b.len) != 0);
		close(p.fd);
		mk_free(&b);
	}
}

static bool stop_at_once(void *ctx, uint64_t done, uint64_t all)
{
	(*(int *)ctx)++;
	return done > all;
}

/* Who is asked and wants no more gets -ECANCELED, and finds no file that was not there. */
TEST(a_stopped_call_leaves_nothing)
{
	struct place p = make_place();
	char target[300], golden[] = GOLDEN "/packed_none.npkg";
	int asked = 0;
	struct npk_pack pack = {.progress = stop_at_once, .ctx = &asked};
	struct npk_unpack up = {.progress = stop_at_once, .ctx = &asked};
	struct npk_package *k = NULL;
	struct npk_store *s = NULL;
	struct npk_err err;
	unsigned before = count_names(p.dir);

	T_CHECK(npk_store_open(&s, p.target, NPK_RDONLY, &err) == 0);
	snprintf(target, sizeof(target), "%s/new", p.dir);
	T_CHECK(npk_pack(s, target, &pack, &err) == -ECANCELED && asked == 1);
	T_CHECK(npk_unpack(golden, target, &up, &err) == -ECANCELED && asked == 2);
	T_CHECK(npk_package_open(&k, golden, &err) == 0);
	T_CHECK(npk_package_verify(k, stop_at_once, &asked, &err) == -ECANCELED && asked == 3);
	T_CHECK(npk_package_verify(k, NULL, NULL, &err) == 0);
	T_CHECK(count_names(p.dir) == before && mk_tree_sum(p.target) == p.sum);
	npk_package_close(k);
	npk_store_close(s);
	close(p.fd);
}

/* Nonsense is told before anything is made. */
TEST(what_pack_does_not_know_is_refused)
{
	static const struct npk_pack wrong[] = {{.codec = (enum npk_codec)3}, {.level = 20}, {.level = -1},
		{.version = 3}, {.codec = NPK_CODEC_ZLIB, .level = 10}, {.codec = NPK_CODEC_NONE, .level = 1}};
	struct place p = make_place();
	unsigned before = count_names(p.dir);
	struct npk_store *s = NULL;
	struct npk_err err;

	T_CHECK(npk_store_open(&s, p.target, NPK_RDONLY, &err) == 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		T_CHECKF(npk_pack(s, p.package, &wrong[i], &err) == -EINVAL, "%zu", i);
	T_CHECK(count_names(p.dir) == before && mk_tree_sum(p.target) == p.sum);
	npk_store_close(s);
	close(p.fd);
}

/* --- the disk --------------------------------------------------------------------------------------------------------- */

#define MANY 100

struct syncs {
	const char *target;
	int fail;                 /* which sync fails; 0: none */
	_Atomic int n, early;     /* syncs; those with another target than the old one */
	_Atomic uint64_t seen[2]; /* bits of the arrays whose files were synced */
	_Atomic bool metadata, directory;
};

/* Called by several threads at once. */
static int look_at_sync(void *ctx, const struct npki_io_call *c)
{
	struct syncs *y = ctx;
	unsigned i;

	if (c->op == NPKI_IO_SYNC_DIR)
		atomic_store(&y->directory, true);
	if (c->op != NPKI_IO_SYNC)
		return 0;
	if (mk_exists(y->target, "data_a0.npkd") || !mk_exists(y->target, "data_old.npkd"))
		atomic_fetch_add(&y->early, 1);
	if (sscanf(c->path, "data_a%u.npkd", &i) == 1 && i < MANY)
		atomic_fetch_or(&y->seen[i / 64], (uint64_t)1 << i % 64);
	else if (strcmp(c->path, "metadata.npkm") == 0)
		atomic_store(&y->metadata, true);
	return atomic_fetch_add(&y->n, 1) + 1 == y->fail ? EIO : 0;
}

static void pack_many(const struct place *p, char package[300])
{
	static struct mk_array many[MANY];
	static char names[MANY][8];
	struct npk_store *s = NULL;
	char path[300];
	struct npk_err err;

	for (int i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "a%d", i);
		many[i] = (struct mk_array){.name = names[i], .dtype = NPK_I32, .ndim = 1, .dim = {3}, .data = numbers};
	}
	snprintf(path, sizeof(path), "%s/many.npk", p->dir);
	snprintf(package, 300, "%s/many.npkg", p->dir);
	mk_store(path, many, MANY);
	T_CHECK(npk_store_open(&s, path, NPK_RDONLY, &err) == 0);
	T_CHECKF(npk_pack(s, package, &(struct npk_pack){0}, &err) == 0, "%s", err.msg);
	npk_store_close(s);
}

/* Every file, and then their directory, is on the disk before the target changes; one that does not get there leaves the target as it
 * was, and nothing beside it. */
TEST(all_files_are_on_the_disk_before_one_is_replaced)
{
	static const int fails[] = {0, 1, 2, 37, MANY, MANY + 1};
	const struct npk_unpack how = {.overwrite = true};
	struct place p = make_place();
	char package[300];
	struct npk_err err;

	pack_many(&p, package);
	for (size_t i = sizeof(fails) / sizeof(*fails); i-- > 0;) {
		struct syncs y = {.target = p.target, .fail = fails[i]};
		unsigned before = count_names(p.dir);
		int rc;

		npki_io_set_hook(&(struct npki_io_hook){look_at_sync, &y, NULL});
		rc = npk_unpack(package, p.target, &how, &err);
		npki_io_set_hook(NULL);
		T_CHECKF(
			y.early == 0 && count_names(p.dir) == before, "sync %d fails: %d came late", fails[i], y.early);
		if (fails[i]) {
			T_CHECKF(rc == -EIO && strstr(err.msg, "npk"), "sync %d fails: %d %s", fails[i], rc, err.msg);
			T_CHECK(mk_tree_sum(p.target) == p.sum && !y.directory);
			continue;
		}
		T_CHECKF(rc == 0, "%s", err.msg);
		T_CHECK(y.n == MANY + 1 && y.metadata && y.directory);
		T_CHECK(y.seen[0] == UINT64_MAX && y.seen[1] == ((uint64_t)1 << (MANY - 64)) - 1);
		T_CHECK(mk_tree_sum(p.target) != p.sum && mk_exists(p.target, "data_a99.npkd"));
	}
	close(p.fd);
}

T_MAIN()
