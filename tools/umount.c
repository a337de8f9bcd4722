/* umount.c - npk umount, and the same for umount(8): ends a mount, and is done when its store is at rest. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_SECONDS 60
#define STEP_US 20000

enum {
	LAZY,
	WAIT
};

static const struct npkt_opt opts[] = {
	[LAZY] = {"lazy", NULL, 'l', "detach it now, even if files of it are open; it ends with the last of them"},
	[WAIT] = {"wait", "SECONDS", 'w', "how long to wait for the daemon to end; 60 by default"},
	{0},
};

void npkt_unescape(char *p)
{
	char *q = p;

	for (; *p; q++)
		if (p[0] == '\\' && p[1] && p[2] && p[3]) {
			*q = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
			p += 4;
		} else {
			*q = *p++;
		}
	*q = 0;
}

/* Field `n` of a line, from 0 on; the line is cut up. */
static char *field(char *line, int n)
{
	char *save = NULL, *p = strtok_r(line, " \n", &save);

	while (p && n-- > 0)
		p = strtok_r(NULL, " \n", &save);
	return p;
}

bool npkt_find_mount(const char *mountpoint, const char *store, char point[NPKT_PATH_MAX], char of[NPKT_PATH_MAX])
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *copy, *at, *what;
	size_t cap = 0;
	bool found = false;

	while (f && getline(&line, &cap, f) > 0) { /* the last one that fits is on top */
		char *dash = strstr(line, " - ");

		if (!dash || strncmp(dash + 3, "fuse.numpackfs ", 15) != 0)
			continue;
		what = field(dash + 3, 1);
		copy = strdup(line);
		at = copy ? field(copy, 4) : NULL;
		if (what && at) {
			npkt_unescape(what);
			npkt_unescape(at);
			if ((mountpoint && strcmp(at, mountpoint) == 0) || (store && strcmp(what, store) == 0)) {
				found = true;
				snprintf(point, NPKT_PATH_MAX, "%s", at);
				snprintf(of, NPKT_PATH_MAX, "%s", what);
			}
		}
		free(copy);
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

bool npkt_resolve(const char *path, char out[NPKT_PATH_MAX])
{
	char *copy = strdup(path), *slash, parent[PATH_MAX];
	size_t n = copy ? strlen(copy) : 0;
	bool ok = false;

	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = 0;
	slash = copy ? strrchr(copy, '/') : NULL;
	if (copy && strcmp(copy, "/") != 0) {
		if (slash)
			*slash = 0;
		if (realpath(!slash ? "." : slash == copy ? "/" : copy, parent))
			ok = snprintf(out, NPKT_PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
				     slash ? slash + 1 : copy) < NPKT_PATH_MAX;
	}
	free(copy);
	return ok;
}

static int run_fusermount(const char *mountpoint, bool lazy)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", lazy ? "-z" : "--", lazy ? "--" : mountpoint,
			lazy ? mountpoint : NULL, (char *)NULL);
		npkt_complain("fusermount3: %s", strerror(errno));
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		npkt_complain("fusermount3: %s", strerror(errno));
		return NPKT_FAILED;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? NPKT_OK : NPKT_FAILED;
}

static int detach(const char *mountpoint, bool lazy)
{
	if (geteuid() != 0)
		return run_fusermount(mountpoint, lazy); /* says itself what is wrong */
	if (umount2(mountpoint, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0)
		return NPKT_OK;
	npkt_complain("%s: %s", mountpoint, errno == EBUSY ? "files of it are in use" : strerror(errno));
	return errno == EBUSY ? NPKT_BUSY : NPKT_FAILED;
}

/* What the lock file says of a mount's daemon; it cuts long paths. */
#define OWNER_MAX 300

/* Whether the daemon of this mount still holds the store's lock: behind a read-only mount it may be another's. A lock without a
 * name is being taken or given up, and whose it is cannot be told. */
static bool is_held(const char *store, const char *mountpoint)
{
	char path[NPKT_PATH_MAX], wanted[NPKT_PATH_MAX + 16], text[512];
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	bool held = false;
	ssize_t n;
	char *at;
	int fd;

	if (snprintf(path, sizeof(path), "%s/.numpackfs.lock", store) >= (int)sizeof(path))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) {
		close(fd);
		return false;
	}
	n = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	if (n == 0)
		return true;
	if (n > 0) {
		text[n] = 0;
		if (text[n - 1] == '\n')
			text[n - 1] = 0;
		at = strstr(text, ", mounted at ");
		snprintf(wanted, sizeof(wanted), "mounted at %s", mountpoint);
		wanted[OWNER_MAX] = 0;
		held = at && strcmp(at + 2, wanted) == 0;
	}
	return held;
}

static int wait_for_end(const char *store, const char *mountpoint, double seconds)
{
	for (double waited = 0; is_held(store, mountpoint); waited += STEP_US / 1e6) {
		if (waited >= seconds) {
			npkt_complain("%s: its daemon has not ended within %g seconds", store, seconds);
			return NPKT_BUSY;
		}
		usleep(STEP_US);
	}
	return NPKT_OK;
}

static int end_mount(const char *operand, bool lazy, double seconds)
{
	char wanted[NPKT_PATH_MAX], mountpoint[NPKT_PATH_MAX], store[NPKT_PATH_MAX];
	int status;

	if (!npkt_resolve(operand, wanted) || !npkt_find_mount(wanted, NULL, mountpoint, store)) {
		npkt_complain("%s: no store is mounted there", operand);
		return NPKT_FAILED;
	}
	status = detach(mountpoint, lazy);
	return status || lazy ? status : wait_for_end(store, mountpoint, seconds);
}

static int run(const struct npkt_args *args)
{
	char *end;
	const char *wait = args->opt[WAIT];
	double seconds = wait ? strtod(wait, &end) : WAIT_SECONDS;

	if (wait && (*wait < '0' || *wait > '9' || *end || !(seconds <= 86400))) {
		npkt_complain("--wait '%s' is not a number of seconds from 0 to 86400", wait);
		return NPKT_USAGE;
	}
	return end_mount(args->operand[0], args->opt[LAZY], seconds);
}

/* --- as umount.fuse.numpackfs ------------------------------------------------------------------------------------------ */

#define UMOUNT_FAILED 32 /* umount(8)'s exit status */

bool npkt_is_umount_helper(const char *program)
{
	const char *slash = strrchr(program, '/');

	program = slash ? slash + 1 : program;
	return strcmp(program, "umount.fuse.numpackfs") == 0 || strcmp(program, "umount.numpackfs") == 0;
}

static int misused(const char *why)
{
	npkt_complain("%s; usage: umount.fuse.numpackfs [-flnv] [-t TYPE] MOUNTPOINT", why);
	return NPKT_USAGE;
}

/* umount(8) puts the flags behind the mountpoint. -f asks for what is done anyway: the daemon is no server that may not
 * answer. What cannot be done, to go on read-only or to act in another namespace, is refused. */
int npkt_umount_helper(int argc, char **argv)
{
	bool lazy = false;
	int key;

	opterr = 0;
	while ((key = getopt(argc, argv, "flnvt:rN:")) != -1)
		if (key == 'l')
			lazy = true;
		else if (key == 'r' || key == 'N')
			return misused(
				key == 'r' ? "-r: a mount cannot become read-only" : "-N: namespaces are not entered");
		else if (key == '?')
			return misused("there is no such option, or its value is missing");
	if (argc - optind != 1)
		return misused("it takes one mountpoint");
	return end_mount(argv[optind], lazy, WAIT_SECONDS) == NPKT_OK ? NPKT_OK : UMOUNT_FAILED;
}

const struct npkt_cmd npkt_umount = {
	.name = "umount",
	.operands = "MOUNTPOINT",
	.min = 1,
	.max = 1,
	.help = "end a mount, and wait until its store is at rest",
	.more = "umount(8) returns before the daemon has written everything; this command waits for it, so that the "
		"store can be\n"
		"copied, packed or mounted anew. With --lazy it does not wait. The exit status is 3 when files of the "
		"mount are\n"
		"in use, or the daemon does not end in time.\n"
		"\n"
		"Examples:\n"
		"  mkdir mnt && numpackfs digits.npk mnt && npk umount mnt\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
