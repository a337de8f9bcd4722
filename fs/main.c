/* main.c - numpackfs: from the arguments to a mount that is served, and to its end. */
#include "background.h"
#include "log.h"
#include "mountpoint.h"
#include "notify.h"
#include "settings.h"
#include "signals.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct serving {
	const struct npkfs_config *config;
	int report; /* to the waiting parent; -1: none, or told */
};

static void show_help(void)
{
	struct npk_text settings = {0};

	npkfs_settings_help(&settings);
	printf("usage: numpackfs [-f|-d] [-o opt,...] STORE MOUNTPOINT\n"
	       "Mounts a NumPack array store; each array is a .npy file. See numpackfs(1).\n\n"
	       "    -f, --foreground   stay in the foreground, log to stderr\n"
	       "    -d, --debug        as -f, and log every request\n"
	       "    -o, --options LIST the mount options below, separated by commas\n"
	       "    -h, --help         this text\n"
	       "    -V, --version      what this program is made of\n\n"
	       "Mount options, which are also the settings of numpackfs.conf(5):\n%s\n"
	       "Unmount with 'fusermount3 -u MOUNTPOINT' or 'umount MOUNTPOINT'.\n"
	       "Exit status: 1 usage, 2 store, 3 store is busy, 4 mountpoint, 5 FUSE.\n",
		settings.p != NULL ? settings.p : "");
	npk_text_fini(&settings);
}

static void show_version(void)
{
	struct npk_err err = {0};
	const char *level;

	printf("numpackfs %s\nlibfuse %s\n", npk_version(), fuse_pkgversion());
	fflush(stdout);
	fuse_lowlevel_version(); /* prints the protocol's version, and asks fusermount3 for its own */
	if (npk_search_level(&level, NULL, &err) == 0)
		printf("simd %s\n", level);
	else
		printf("simd none: %s\n", err.msg);
	printf("codecs: zstd, zlib and none in packages; arrays of a store are as they are\n");
}

/* Array data has no place in a core file. Not PR_SET_DUMPABLE: it would take /proc/PID away from the user who mounted. */
static int confine(struct npkfs_session *s, const struct npkfs_config *c, struct npk_err *err)
{
	struct rlimit none = {0, 0};

	if (!c->debug && setrlimit(RLIMIT_CORE, &none) != 0)
		return npk_fail(err, errno, "no core files: %s", strerror(errno));
	npkfs_notify_open();
	return npkfs_session_confine(s, err);
}

static int open_session(
	struct npkfs_session **s, const struct npkfs_config *c, enum npkfs_exit *status, struct npk_err *err)
{
	struct npk_text said = {0};
	int saved, caught, rc;

	caught = npkfs_stderr_catch(&saved);
	rc = npkfs_session_open(s, c, status, err);
	npkfs_stderr_end(caught, saved, &said);
	if (said.p != NULL)
		npkfs_log(NPKFS_DEBUG, "while mounting: %s", said.p);
	if (rc != 0 && (*status == NPKFS_EXIT_FUSE || *status == NPKFS_EXIT_MOUNTPOINT)) {
		npk_text_printf(&said, "%s\n", err->msg);
		npkfs_mount_cause(c, said.p != NULL ? said.p : "", status, err);
	}
	npk_text_fini(&said);
	return rc;
}

static void ready(void *ctx)
{
	struct serving *sv = ctx;

	npkfs_notify("READY=1");
	npkfs_background_tell(&sv->report, NPKFS_OK, NULL);
}

static enum npkfs_exit serve(struct npkfs_session *s, struct serving *sv, struct npk_err *err)
{
	enum npkfs_exit status;
	struct npk_err why;
	int rc, finished;

	rc = npkfs_session_own(s, err);
	if (rc == 0)
		rc = confine(s, sv->config, err);
	if (rc == 0)
		rc = npkfs_signals_start(s, err);
	if (rc == 0) {
		rc = npkfs_session_serve(s, ready, sv, err);
		npkfs_signals_end();
	}
	npkfs_notify("STOPPING=1");
	finished = npkfs_session_finish(s, &why);
	npkfs_session_close(s);
	status = rc == 0 && finished == 0 ? NPKFS_OK : rc != 0 ? NPKFS_EXIT_FUSE : NPKFS_EXIT_STORE;
	if (rc == 0 && finished != 0) {
		*err = why;
		rc = finished;
	}
	if (rc != 0 && (!sv->config->foreground || sv->config->log_file != NULL)) /* else main() tells */
		npkfs_log(NPKFS_ERROR, "%s", err->msg);
	npkfs_background_tell(&sv->report, status, err);
	return status;
}

static int complain(enum npkfs_exit status, const struct npk_err *err)
{
	if (status != NPKFS_OK && err->code != 0)
		fprintf(stderr, "numpackfs: %s\n", err->msg);
	return (int)status;
}

/* The parent's half of a background start. The child owns the session: closing it here would unmount. */
static _Noreturn void wait_for_child(struct npkfs_session *s, int report)
{
	struct npk_err err = {0};
	enum npkfs_exit status;
	bool died;

	npkfs_signals_unblock();
	status = npkfs_background_wait(report, &died, &err);
	if (died)
		npkfs_session_abandon(s);
	_exit(complain(status, &err));
}

static enum npkfs_exit mount_and_serve(const struct npkfs_config *c, struct npk_err *err)
{
	struct serving sv = {.config = c, .report = -1};
	enum npkfs_exit status = NPKFS_EXIT_FUSE;
	struct npkfs_session *s;
	pid_t pid = 0;

	if (npkfs_mountpoint_check(c, err) != 0)
		return NPKFS_EXIT_MOUNTPOINT;
	npkfs_signals_block();
	if (open_session(&s, c, &status, err) != 0)
		return status;
	if (!c->foreground)
		pid = npkfs_background_fork(&sv.report, err);
	if (pid > 0)
		wait_for_child(s, sv.report);
	if (pid == 0)
		return serve(s, &sv, err);
	npkfs_session_close(s);
	npkfs_background_tell(&sv.report, NPKFS_EXIT_FUSE, err);
	return NPKFS_EXIT_FUSE;
}

int main(int argc, char **argv)
{
	struct npkfs_config c;
	struct npk_err err = {0};
	enum npkfs_exit status = NPKFS_EXIT_USAGE;
	int show, rc;

	rc = npkfs_config_load(&c, argc, argv, &show, &err);
	if (rc == 0 && (show != 0 || c.fake)) {
		if (show != 0)
			(show == 'h' ? show_help : show_version)();
		status = fflush(stdout) == 0 ? NPKFS_OK : NPKFS_EXIT_USAGE;
	} else if (rc == 0) {
		rc = npkfs_log_open(c.log_level, c.log_file, c.foreground, &err);
		if (rc == 0)
			status = mount_and_serve(&c, &err);
	}
	npkfs_log_close();
	npkfs_config_fini(&c);
	return complain(status, &err);
}
