/* doctor_store.c - what npk doctor looks at in a store: its contents, who writes it, and what it lies on. */
#include "doctor.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SHOWN 5 /* findings of each kind; npk verify has all */
#define MIB ((uint64_t)1 << 20)

struct store {
	struct npkt_report *r;
	const char *path;
	char real[PATH_MAX];
	int dirfd;
	bool may_write;
	char owner[NPK_OWNER_MAX]; /* empty: nobody writes */
	uint64_t found[3];         /* by severity */
	uint64_t largest;          /* bytes of an array */
	char largest_name[NPKT_PATH_MAX];
};

/* --- contents ---------------------------------------------------------------------------------------------------------- */

static void found(void *ctx, const struct npk_finding *f)
{
	struct store *s = ctx;

	if (++s->found[f->severity] > SHOWN || f->severity == NPK_NOTE)
		return;
	npkt_report(s->r, f->severity == NPK_DAMAGE ? NPKT_BAD : NPKT_ODD, f->array ? "array" : "contents",
		f->severity == NPK_DAMAGE ? "npk verify --deep tells all, npk repair what can be mended" : NULL,
		"%s%s%s", f->array ? f->array : "", f->array ? ": " : "", f->text);
}

static void tell_hidden(struct store *s, enum npk_severity severity, enum npkt_health health, const char *what)
{
	if (s->found[severity] > SHOWN)
		npkt_report(s->r, health, "contents", "npk verify lists them", "%" PRIu64 " more %s",
			s->found[severity] - SHOWN, what);
}

static void look_for_largest(struct store *s, struct npk_store *store)
{
	struct npk_array **list;
	struct npk_array_info info;
	size_t n;

	if (npk_store_list(store, &list, &n, NULL) != 0)
		return; /* without memory for this there is only no advice about room */
	for (size_t i = 0; i < n; i++)
		if (npk_array_info(list[i], &info, NULL) == 0 && info.size_bytes > s->largest) {
			s->largest = info.size_bytes;
			snprintf(s->largest_name, sizeof(s->largest_name), "%s", npk_array_name(list[i], NULL));
		}
	npk_store_list_free(list, n);
}

static const char *advice_for(int code)
{
	switch (code) {
	case ENOENT:
		return "npk create makes an empty store";
	case EACCES:
	case EPERM:
		return "ask its owner for the right to read it";
	case EBUSY:
		return "npk repair tells what can be done";
	default:
		return "npk verify --deep tells more";
	}
}

static void check_contents(struct store *s)
{
	struct npk_store_info info;
	struct npk_store *store;
	uint64_t ndamage = 0;
	struct npk_err err;

	if (npk_store_verify(s->path, found, s, &ndamage, &err) != 0) {
		npkt_report(s->r, NPKT_BAD, "contents", advice_for(err.code), "%s", err.msg);
		return;
	}
	tell_hidden(s, NPK_DAMAGE, NPKT_BAD, "findings of damage");
	tell_hidden(s, NPK_WARNING, NPKT_ODD, "warnings");
	if (npk_store_open(&store, s->path, NPK_RDONLY, &err) != 0) {
		if (ndamage == 0) /* it changed since */
			npkt_report(s->r, NPKT_BAD, "contents", advice_for(err.code), "%s", err.msg);
		return;
	}
	npk_store_info(store, &info);
	look_for_largest(s, store);
	npk_store_close(store);
	if (ndamage == 0 && faccessat(s->dirfd, "metadata.npkm", F_OK, 0) != 0 && info.narrays == 0)
		npkt_report(s->r, NPKT_ODD, "contents", "look for the right directory; npk create makes a store of it",
			"no metadata.npkm and no arrays: it is taken for an empty store");
	else if (ndamage == 0)
		npkt_report(s->r, NPKT_SOUND, "contents", NULL, "%" PRIu64 " arrays, sound as far as npk verify looks",
			info.narrays);
}

static void check_package(struct npkt_report *r, const char *path)
{
	const struct npk_package_info *info;
	struct npk_package *p;
	struct npk_err err;

	if (npk_package_open(&p, path, &err) != 0) {
		npkt_report(
			r, NPKT_BAD, "package", "a store is a directory, a package a file of npk pack", "%s", err.msg);
		return;
	}
	info = npk_package_info(p);
	npkt_report(r, NPKT_SOUND, "package", "npk pkginfo --check reads all of it",
		"version %u, %" PRIu64 " files, %" PRIu64 " of %" PRIu64 " bytes", info->version, info->nfiles,
		info->stored_bytes, info->original_bytes);
	npk_package_close(p);
}

/* --- who writes -------------------------------------------------------------------------------------------------------- */

static void check_rights(struct store *s)
{
	s->may_write = faccessat(s->dirfd, ".", W_OK, AT_EACCESS) == 0;
	if (s->may_write)
		npkt_report(s->r, NPKT_SOUND, "directory", NULL, "%s: may be read and written by uid %u", s->real,
			(unsigned)geteuid());
	else
		npkt_report(s->r, NPKT_ODD, "directory", "as long as that is so, mount it with -o ro",
			"%s: uid %u cannot write: %s", s->real, (unsigned)geteuid(), strerror(errno));
}

static void check_writer(struct store *s)
{
	struct npk_err err;
	int rc = npk_lock_owner(s->path, s->owner, &err);

	if (rc <= 0)
		s->owner[0] = 0;
	if (rc < 0)
		npkt_report(s->r, NPKT_ODD, "writer", "look at .numpackfs.lock", "%s", err.msg);
	else if (rc == 0)
		npkt_report(s->r, NPKT_SOUND, "writer", NULL, "nobody");
	else
		npkt_report(s->r, NPKT_SOUND, "writer", "another one gets EBUSY until it ends", "%s", s->owner);
}

static void check_journal(struct store *s)
{
	static const char *const names[] = {"numpackfs.journal", "numpackfs.journal.next", "numpackfs.journal.new"};
	uint64_t bytes = 0;
	struct stat st;
	bool any = false;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (fstatat(s->dirfd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0) {
			bytes += (uint64_t)st.st_size;
			any = true;
		}
	if (!any)
		npkt_report(s->r, NPKT_SOUND, "journal", NULL, "none: metadata and bitmaps are up to date");
	else if (s->owner[0])
		npkt_report(s->r, NPKT_SOUND, "journal", NULL, "%" PRIu64 " bytes, of the writer", bytes);
	else
		npkt_report(s->r, NPKT_ODD, "journal",
			"a mount, or any npk command that changes the store, carries it out; until then NumPack itself "
			"sees the "
			"older state",
			"%" PRIu64 " bytes, left by a writer that was killed", bytes);
}

/* Of an open file: whether it was opened for writing. */
static bool is_for_writing(const char *pid, const char *fd)
{
	char path[300], line[128];
	unsigned flags = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.200s", pid, fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "flags: %o", &flags) == 1)
			break;
	if (f)
		fclose(f);
	return (flags & O_ACCMODE) != O_RDONLY;
}

/* The name, in the store, of a file that the process has open for writing: true. */
static bool has_open(const struct store *s, const char *pid, char name[NPKT_PATH_MAX], bool *seen)
{
	char path[300], target[NPKT_PATH_MAX];
	size_t n = strlen(s->real);
	struct dirent *e;
	bool has = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	d = opendir(path);
	*seen = d != NULL;
	while (d && !has && (e = readdir(d)) != NULL) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

		if (len <= (ssize_t)n)
			continue;
		target[len] = 0;
		has = memcmp(target, s->real, n) == 0 && target[n] == '/' && is_for_writing(pid, e->d_name);
	}
	if (has)
		snprintf(name, NPKT_PATH_MAX, "%s", target + n + 1);
	if (d)
		closedir(d);
	return has;
}

static void program_of(const char *pid, char out[32])
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(out, 32, f))
		snprintf(out, 32, "?");
	out[strcspn(out, "\n")] = 0;
	if (f)
		fclose(f);
}

/* "pid 4711 on host, mounted at /mnt" */
static bool is_owner(const struct store *s, const char *pid)
{
	char begin[64];

	snprintf(begin, sizeof(begin), "pid %.20s ", pid);
	return strncmp(s->owner, begin, strlen(begin)) == 0;
}

/* NumPack itself knows no lock. A process that only has a store open is not seen: it opens its files when it needs them. */
static void check_others(struct store *s)
{
	char name[NPKT_PATH_MAX], program[32];
	unsigned writers = 0, hidden = 0;
	DIR *d = opendir("/proc");
	struct dirent *e;
	bool seen;

	while (d && (e = readdir(d)) != NULL) {
		if (!isdigit((unsigned char)e->d_name[0]) || is_owner(s, e->d_name))
			continue;
		if (has_open(s, e->d_name, name, &seen)) {
			program_of(e->d_name, program);
			if (strcmp(program, "numpackfs") == 0)
				continue; /* it knows the lock */
			npkt_report(s->r, NPKT_ODD, "other programs", "close the store there before it is changed here",
				"pid %s (%s) has %s open for writing, and no lock", e->d_name, program, name);
			writers++;
		}
		hidden += !seen;
	}
	if (d)
		closedir(d);
	if (!d)
		npkt_report(s->r, NPKT_ODD, "other programs", "mount /proc", "/proc: %s", strerror(errno));
	else if (writers == 0)
		npkt_report(s->r, NPKT_SOUND, "other programs", NULL,
			"none has files of it open for writing now (%u could not be looked into)", hidden);
}

/* --- what it lies on --------------------------------------------------------------------------------------------------- */

struct kind {
	const char *type; /* or how it begins, when a dot ends it */
	enum npkt_health health;
	const char *found, *advice;
};

static const char network[] = "locks and renames are as the other side keeps them";
static const char follow[] = "on other machines mount with -o ro,watch=poll:MS, and let one of them write";

static const struct kind kinds[] = {
	{"nfs", NPKT_ODD, network, follow},
	{"nfs4", NPKT_ODD, network, follow},
	{"cifs", NPKT_ODD, network, follow},
	{"smb3", NPKT_ODD, network, follow},
	{"ceph", NPKT_ODD, network, follow},
	{"9p", NPKT_ODD, network, follow},
	{"virtiofs", NPKT_ODD, network, follow},
	{"fuse.", NPKT_ODD, network, follow},
	{"tmpfs", NPKT_ODD, "is gone with the machine", "keep what matters on a disk"},
	{"ramfs", NPKT_ODD, "is gone with the machine", "keep what matters on a disk"},
	{"vfat", NPKT_ODD, "no hard links, and no order of renames", "use ext4, XFS or btrfs"},
	{"exfat", NPKT_ODD, "no hard links, and no order of renames", "use ext4, XFS or btrfs"},
};

/* They exchange two names in one step. */
static const char *const exchanging[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay"};

static bool is_type(const char *type, const char *of)
{
	size_t n = strlen(of);

	return of[n - 1] == '.' ? strncmp(type, of, n) == 0 : strcmp(type, of) == 0;
}

/* The filesystem that is mounted nearest above the path, the last of several on one point. */
static bool find_filesystem(const char *path, char type[64], char point[NPKT_PATH_MAX], bool *read_only)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *at, *options, *dash;
	size_t cap = 0, best = 0, n;

	while (f && getline(&line, &cap, f) > 0) {
		at = options = NULL;
		dash = strstr(line, " - ");
		if (dash && sscanf(line, "%*s %*s %*s %*s %ms %ms", &at, &options) == 2) {
			npkt_unescape(at);
			n = strcmp(at, "/") == 0 ? 0 : strlen(at);
			if (n >= best && strncmp(at, path, n) == 0 && (path[n] == '/' || path[n] == 0) &&
				sscanf(dash, " - %63s", type) == 1) {
				snprintf(point, NPKT_PATH_MAX, "%s", at);
				*read_only = strncmp(options, "ro", 2) == 0 && (options[2] == ',' || options[2] == 0);
				best = n;
			}
		}
		free(at);
		free(options);
	}
	free(line);
	if (f)
		fclose(f);
	return type[0] != 0;
}

/* On two files without names, so that nothing in the store changes. */
static void check_shared_blocks(struct store *s)
{
	static const char zeros[65536];
	int a = openat(s->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), code = errno;
	int b = a < 0 ? -1 : openat(s->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (a < 0) {
		npkt_report(s->r, NPKT_SOUND, "files without a name", NULL, "none here: %s", strerror(code));
		return;
	}
	npkt_report(s->r, NPKT_SOUND, "files without a name", NULL, "can be made (O_TMPFILE)");
	if (b < 0 || write(a, zeros, sizeof(zeros)) != (ssize_t)sizeof(zeros))
		npkt_report(s->r, NPKT_ODD, "shared blocks", NULL, "not known: %s", strerror(errno));
	else if (ioctl(b, FICLONE, a) == 0)
		npkt_report(s->r, NPKT_SOUND, "shared blocks", NULL,
			"yes: a clone, and a transaction's first write in place, copy nothing");
	else
		npkt_report(s->r, NPKT_SOUND, "shared blocks", NULL,
			"none (%s): a clone, and a transaction's first write in place, copy the array",
			strerror(errno));
	close(a);
	if (b >= 0)
		close(b);
}

static void check_filesystem(struct store *s)
{
	char type[64] = "", point[NPKT_PATH_MAX] = "";
	bool read_only = false, exchanges = false;
	const struct kind *kind = NULL;

	if (!find_filesystem(s->real, type, point, &read_only)) {
		npkt_report(s->r, NPKT_ODD, "filesystem", "mount /proc", "/proc/self/mountinfo does not tell");
		return;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (is_type(type, kinds[i].type))
			kind = &kinds[i];
	for (size_t i = 0; i < sizeof(exchanging) / sizeof(*exchanging); i++)
		exchanges |= strcmp(type, exchanging[i]) == 0;
	if (kind)
		npkt_report(s->r, kind->health, "filesystem", kind->advice, "%s on %s: %s", type, point, kind->found);
	else
		npkt_report(s->r, NPKT_SOUND, "filesystem", NULL, "%s on %s", type, point);
	if (read_only)
		npkt_report(
			s->r, NPKT_ODD, "filesystem", "mount the store with -o ro", "%s is mounted read-only", point);
	npkt_report(s->r, NPKT_SOUND, "renames", NULL, "%s %s", type,
		exchanges ? "exchanges two names in one step"
			  : "may not exchange two names in one step: npk unpack --overwrite then has a moment without "
			    "a store");
	if (s->may_write && !read_only)
		check_shared_blocks(s);
}

static void check_room(struct store *s)
{
	struct statvfs st;
	uint64_t room;

	if (fstatvfs(s->dirfd, &st) != 0) {
		npkt_report(s->r, NPKT_ODD, "free space", NULL, "%s", strerror(errno));
		return;
	}
	if (__builtin_mul_overflow((uint64_t)st.f_bavail, (uint64_t)st.f_frsize, &room))
		room = UINT64_MAX;
	if (room < MIB)
		npkt_report(s->r, NPKT_BAD, "free space", "make room; drop and unlink work all the same",
			"%" PRIu64 " bytes", room);
	else if (st.f_files > 0 && st.f_favail == 0)
		npkt_report(s->r, NPKT_BAD, "free space", "remove files of that filesystem",
			"no file can be made: all inodes are taken");
	else if (room < s->largest)
		npkt_report(s->r, NPKT_ODD, "free space", "make room before it is compacted or saved anew",
			"%" PRIu64 " MiB, less than the %" PRIu64 " MiB of the array %s", room / MIB, s->largest / MIB,
			s->largest_name);
	else
		npkt_report(s->r, NPKT_SOUND, "free space", NULL, "%" PRIu64 " MiB", room / MIB);
}

void npkt_check_store(struct npkt_report *r, const char *path)
{
	struct store *s;
	struct stat st;

	r->part = "store";
	if (stat(path, &st) != 0) {
		npkt_report(r, NPKT_BAD, "path", advice_for(errno), "%s: %s", path, strerror(errno));
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		check_package(r, path);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s || !realpath(path, s->real) || (s->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
		npkt_report(r, NPKT_BAD, "path", advice_for(errno), "%s: %s", path, strerror(errno));
		free(s);
		return;
	}
	s->r = r;
	s->path = path;
	check_rights(s);
	check_contents(s);
	check_writer(s);
	check_journal(s);
	check_others(s);
	check_filesystem(s);
	check_room(s);
	close(s->dirfd);
	free(s);
}
