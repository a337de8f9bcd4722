/* config.h - what the user wants of a mount: built-in values, ini files, NUMPACKFS_* variables and -o options in one
 * struct, with the origin of each value. interface.md section 9 is the contract. */
#ifndef NPKFS_CONFIG_H
#define NPKFS_CONFIG_H

#include <numpack.h>

enum npkfs_watch {
	NPKFS_WATCH_OFF,
	NPKFS_WATCH_INOTIFY,
	NPKFS_WATCH_POLL
};

enum npkfs_sync {
	NPKFS_SYNC_COMMIT, /* durable every `commit` seconds and at fsync */
	NPKFS_SYNC_ALWAYS, /* before every reply */
	NPKFS_SYNC_FSYNC   /* at fsync only */
};

#define NPKFS_SETTINGS 23 /* rows of the table in settings.c */

struct npkfs_config {
	char *store;      /* absolute path */
	char *mountpoint; /* absolute path */
	bool foreground, debug;
	bool helper; /* called as mount.numpackfs */
	bool fake;   /* mount(8)'s -f: check the arguments and end */
	bool sloppy; /* mount(8)'s -s: unknown options are no error */

	bool ro;
	bool create;         /* make the store when it is not there */
	bool drop_if_exists; /* empty it first */
	enum npkfs_sync sync;
	unsigned commit;       /* seconds between seals, of NPKFS_SYNC_COMMIT */
	unsigned lock_timeout; /* seconds to wait for another writer */
	unsigned staging_ttl;  /* seconds that an incomplete file outlives its last close */
	bool show_control;     /* list .numpack in the root */
	bool allow_other;
	enum npkfs_watch watch;
	unsigned watch_ms;      /* of NPKFS_WATCH_POLL */
	double attr_ttl;        /* seconds the kernel may keep attributes and names of arrays */
	unsigned threads;       /* that serve requests, 1..64 */
	uint64_t ctl_max;       /* bytes of a payload or reply of a conversation */
	unsigned header;        /* alignment of the .npy header: 64 (numpy) or 4096 */
	unsigned read_ahead_kb; /* of the mount's backing device info; 0: leave it */
	bool set_uid, set_gid, set_umask;
	uid_t uid;
	gid_t gid;
	mode_t umask;
	bool sandbox;         /* give up what serving does not need */
	unsigned autocompact; /* percent of deleted rows from which on arrays are compacted; 0: never */
	int log_level;        /* enum npkfs_level */
	char *cache_dir;      /* of packages; NULL: the directory of temporary files */
	char *log_file;       /* NULL: stderr with -f or -d, else syslog */

	char *origin[NPKFS_SETTINGS]; /* where the value comes from, "/etc/numpackfs.conf:3"; NULL: built-in */
};

/* Fills *c from argv and all other sources, in their order of precedence. Returns 0, or -EINVAL with the sentence the
 * user should see. -h and -V set *show to 'h' or 'V'; then the rest of *c need not be complete. */
int npkfs_config_load(struct npkfs_config *c, int argc, char **argv, int *show, struct npk_err *err);
/* One line per setting, "name = value  # origin", as .numpack/config shows it. */
void npkfs_config_print(const struct npkfs_config *c, struct npk_text *out);
void npkfs_config_fini(struct npkfs_config *c);

#endif
