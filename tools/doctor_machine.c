/* doctor_machine.c - what mounting and searching need of the machine. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SAID_MAX 4096

/* "3.14.0" and "6.1.0-13-amd64" from `text` on; 0 when it is no version. */
static unsigned version_of(const char *text)
{
	unsigned major, minor;

	return sscanf(text, "%u.%u", &major, &minor) == 2 && minor < 1000 ? major * 1000 + minor : 0;
}

#define VERSION(major, minor) ((major)*1000 + (minor))

/* --- programs ---------------------------------------------------------------------------------------------------------- */

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool find_program(const char *name, char out[NPKT_PATH_MAX])
{
	const char *path = getenv("PATH"), *end;

	for (path = path ? path : ""; *path; path = *end ? end + 1 : end) {
		end = strchrnul(path, ':');
		snprintf(out, NPKT_PATH_MAX, "%.*s/%s", (int)(end - path), path, name);
		if (end > path && is_program(out))
			return true;
	}
	return false;
}

/* The one that lies beside npk is its sister. */
static bool find_daemon(char out[NPKT_PATH_MAX])
{
	char self[NPKT_PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		slash = strrchr(self, '/');
		if (slash &&
			snprintf(out, NPKT_PATH_MAX, "%.*s/numpackfs", (int)(slash - self), self) < NPKT_PATH_MAX &&
			is_program(out))
			return true;
	}
	return find_program("numpackfs", out);
}

/* *libfuse: the version that it was built with, 0 when it does not say. */
static void check_daemon(struct npkt_report *r, unsigned *libfuse)
{
	char path[NPKT_PATH_MAX], said[SAID_MAX], *word[] = {path, "-V", NULL}, *fuse;
	char wanted[64];
	int status;

	*libfuse = 0;
	if (!find_daemon(path)) {
		npkt_report(r, NPKT_ODD, "numpackfs", "install it, or add its directory to PATH",
			"is neither beside npk nor in PATH: nothing can be mounted");
		return;
	}
	status = npkt_listen(word, said, sizeof(said));
	fuse = strstr(said, "libfuse ");
	if (status == 0 && fuse)
		*libfuse = version_of(fuse + strlen("libfuse "));
	npkt_one_line(said, sizeof(said));
	snprintf(wanted, sizeof(wanted), "numpackfs %s;", npk_version());
	if (status != 0)
		npkt_report(r, NPKT_BAD, "numpackfs", "what it says is why it cannot mount", "%s -V: status %d: %s",
			path, status, said);
	else if (strncmp(said, wanted, strlen(wanted)) != 0)
		npkt_report(r, NPKT_ODD, "numpackfs", "install both from one build",
			"%s is of another version than npk %s: %s", path, npk_version(), said);
	else
		npkt_report(r, NPKT_SOUND, "numpackfs", NULL, "%s: %s", path, said);
}

static void check_fusermount(struct npkt_report *r)
{
	char path[NPKT_PATH_MAX], said[SAID_MAX], *word[] = {path, "-V", NULL};
	bool root = geteuid() == 0;
	struct stat st;

	if (!find_program("fusermount3", path)) {
		npkt_report(r, root ? NPKT_ODD : NPKT_BAD, "fusermount3", "install the package fuse3",
			"is not in PATH: only root can mount and unmount");
		return;
	}
	if (npkt_listen(word, said, sizeof(said)) != 0) {
		npkt_one_line(said, sizeof(said));
		npkt_report(r, root ? NPKT_ODD : NPKT_BAD, "fusermount3", "install the package fuse3 anew", "%s -V: %s",
			path, said);
		return;
	}
	npkt_one_line(said, sizeof(said));
	if (!root && stat(path, &st) == 0 && !(st.st_uid == 0 && (st.st_mode & S_ISUID)) &&
		getxattr(path, "security.capability", NULL, 0) < 0)
		npkt_report(r, NPKT_BAD, "fusermount3", "chmod u+s it, as root",
			"%s: is not setuid root: only root can mount", path);
	else
		npkt_report(r, NPKT_SOUND, "fusermount3", NULL, "%s: %s", path, said);
}

/* --- the kernel -------------------------------------------------------------------------------------------------------- */

static void check_device(struct npkt_report *r)
{
	static const char name[] = "/dev/fuse";
	int fd = open(name, O_RDWR | O_CLOEXEC), code = errno;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISCHR(st.st_mode))
		npkt_report(r, NPKT_BAD, name, "remove it and run 'modprobe fuse'", "is no device");
	else if (fd >= 0)
		npkt_report(r, NPKT_SOUND, name, NULL, "can be opened");
	else if (code == ENOENT || code == ENODEV || code == ENXIO)
		npkt_report(r, NPKT_BAD, name, "'modprobe fuse' as root, or give the container the device", "%s",
			strerror(code));
	else if (code == EACCES && geteuid() != 0)
		npkt_report(r, NPKT_ODD, name, "chmod 666 it, as root", "%s: only an old fusermount3 can mount then",
			strerror(code));
	else
		npkt_report(r, NPKT_BAD, name, "give the container the device, and the right to open it", "%s",
			strerror(code));
	if (fd >= 0)
		close(fd);
}

#define CAP_SYS_ADMIN_BIT 21

static void check_right_to_mount(struct npkt_report *r)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long caps = 0;
	bool known = false;
	char line[256];

	while (f && !known && fgets(line, sizeof(line), f))
		known = sscanf(line, "CapEff: %llx", &caps) == 1;
	if (f)
		fclose(f);
	if (geteuid() != 0)
		npkt_report(r, NPKT_SOUND, "right to mount", NULL, "uid %u mounts by fusermount3", (unsigned)geteuid());
	else if (!known)
		npkt_report(r, NPKT_ODD, "right to mount", "mount /proc", "/proc/self/status does not tell");
	else if (!(caps >> CAP_SYS_ADMIN_BIT & 1))
		npkt_report(r, NPKT_BAD, "right to mount", "give the container the capability SYS_ADMIN",
			"root, but without CAP_SYS_ADMIN");
	else
		npkt_report(r, NPKT_SOUND, "right to mount", NULL, "root, with CAP_SYS_ADMIN");
}

static void check_kernel(struct npkt_report *r, unsigned libfuse)
{
	long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct utsname u;
	unsigned version;

	if (uname(&u) != 0) {
		npkt_report(r, NPKT_ODD, "kernel", NULL, "%s", strerror(errno));
		return;
	}
	version = version_of(u.release);
	npkt_report(r, NPKT_SOUND, "kernel", NULL, "%s %s on %s", u.sysname, u.release, u.machine);
	if (landlock < 0)
		npkt_report(r, NPKT_ODD, "sandbox", "boot with landlock in lsm=, or a kernel from 5.13 on",
			"no Landlock: a mount keeps the right to open other files");
	else
		npkt_report(r, NPKT_SOUND, "sandbox", NULL, "Landlock %ld", landlock);
	npkt_report(r, NPKT_SOUND, "passthrough", NULL, "the kernel %s, libfuse %s; this numpackfs does without",
		version >= VERSION(6, 9) ? "may have it (6.9 and later)" : "does not have it (6.9 and later do)",
		libfuse == 0                ? "is not known"
		: libfuse >= VERSION(3, 17) ? "has it (3.17 and later)"
					    : "does not have it (3.17 and later do)");
}

/* A line that has nothing but the word. */
static bool conf_says(const char *file, const char *word, int *code)
{
	FILE *f = fopen(file, "re");
	char line[256], first[256], second[2];
	bool said = false;

	*code = f ? 0 : errno;
	while (f && !said && fgets(line, sizeof(line), f))
		said = sscanf(line, "%255s %1s", first, second) == 1 && strcmp(first, word) == 0;
	if (f)
		fclose(f);
	return said;
}

static void check_allow_other(struct npkt_report *r)
{
	static const char file[] = "/etc/fuse.conf";
	int code;

	if (conf_says(file, "user_allow_other", &code))
		npkt_report(r, NPKT_SOUND, "allow_other", NULL, "%s has user_allow_other: every user may", file);
	else if (code != 0 && code != ENOENT)
		npkt_report(r, NPKT_ODD, "allow_other", "chmod a+r it, as root", "%s: %s", file, strerror(code));
	else
		npkt_report(r, NPKT_SOUND, "allow_other",
			"other users need a line 'user_allow_other' in /etc/fuse.conf", "only root may mount with it");
}

/* --- limits ------------------------------------------------------------------------------------------------------------ */

#define FILES_WANTED 1024
#define MAPS_WANTED 65530 /* the kernel's own default */

static const char *limit_text(char out[24], rlim_t n)
{
	if (n == RLIM_INFINITY)
		return "no limit";
	snprintf(out, 24, "%" PRIu64, (uint64_t)n);
	return out;
}

static bool read_number(const char *file, uint64_t *out)
{
	FILE *f = fopen(file, "re");
	bool ok = f && fscanf(f, "%" SCNu64, out) == 1;

	if (f)
		fclose(f);
	return ok;
}

static void check_limits(struct npkt_report *r)
{
	char soft[24], hard[24];
	uint64_t maps, watches, instances;
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0)
		npkt_report(r, l.rlim_cur < FILES_WANTED ? NPKT_ODD : NPKT_SOUND, "open files",
			l.rlim_cur < FILES_WANTED ? "ulimit -n 1024, or more" : NULL, "%s (at most %s)",
			limit_text(soft, l.rlim_cur), limit_text(hard, l.rlim_max));
	if (getrlimit(RLIMIT_FSIZE, &l) == 0 && l.rlim_cur != RLIM_INFINITY)
		npkt_report(r, NPKT_ODD, "file size", "ulimit -f unlimited", "no file may have more than %s bytes",
			limit_text(soft, l.rlim_cur));
	if (getrlimit(RLIMIT_AS, &l) == 0 && l.rlim_cur != RLIM_INFINITY)
		npkt_report(r, NPKT_ODD, "address space", "ulimit -v unlimited",
			"%s bytes, and arrays are mapped as a whole", limit_text(soft, l.rlim_cur));
	if (read_number("/proc/sys/vm/max_map_count", &maps))
		npkt_report(r, maps < MAPS_WANTED ? NPKT_ODD : NPKT_SOUND, "mappings",
			maps < MAPS_WANTED ? "sysctl vm.max_map_count=65530, or more" : NULL,
			"%" PRIu64 " for each process", maps);
	if (read_number("/proc/sys/fs/inotify/max_user_watches", &watches) &&
		read_number("/proc/sys/fs/inotify/max_user_instances", &instances))
		npkt_report(r, watches && instances ? NPKT_SOUND : NPKT_ODD, "inotify",
			watches && instances ? NULL : "mount with -o watch=poll:MS",
			"%" PRIu64 " watches, %" PRIu64 " instances for each user", watches, instances);
	else
		npkt_report(r, NPKT_ODD, "inotify", "mount with -o watch=poll:MS", "this kernel has none");
}

static void check_search(struct npkt_report *r)
{
	const char *used = NULL, *best, *asked = getenv("NPKV_LEVEL");
	struct npk_err err;

	if (npk_search_level(&used, &best, &err) != 0)
		npkt_report(r, NPKT_BAD, "search", "unset NPKV_LEVEL", "%s; this CPU has %s", err.msg, best);
	else if (strcmp(used, best) != 0)
		npkt_report(r, NPKT_ODD, "search", "unset NPKV_LEVEL", "%s, as NPKV_LEVEL=%s wants it; this CPU has %s",
			used, asked ? asked : "", best);
	else
		npkt_report(r, NPKT_SOUND, "search", NULL, "%s", used);
}

/* --- all together ------------------------------------------------------------------------------------------------------ */

/* Names only: looking at one may take as long as its daemon does not answer. */
static void check_mounts(struct npkt_report *r)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *point, list[NPKT_PATH_MAX] = "";
	size_t cap = 0, len = 0, n = 0;

	if (!f) {
		npkt_report(r, NPKT_BAD, "mounts", "mount /proc", "/proc/self/mountinfo: %s", strerror(errno));
		return;
	}
	while (getline(&line, &cap, f) > 0) {
		point = NULL;
		if (!strstr(line, " - fuse.numpackfs ") || sscanf(line, "%*s %*s %*s %*s %ms", &point) != 1)
			continue;
		if (len < sizeof(list))
			len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", n ? ", " : ": ", point);
		n++;
		free(point);
	}
	free(line);
	fclose(f);
	npkt_report(r, NPKT_SOUND, "mounts", NULL, "%zu%s", n, list);
}

void npkt_check_machine(struct npkt_report *r)
{
	unsigned libfuse;

	r->part = "machine";
	npkt_report(r, NPKT_SOUND, "npk", NULL, "%s", npk_version());
	check_daemon(r, &libfuse);
	check_kernel(r, libfuse);
	check_device(r);
	check_right_to_mount(r);
	check_fusermount(r);
	check_allow_other(r);
	check_search(r);
	check_limits(r);
	check_mounts(r);
}
