/* lasterr.h - the last 64 errors that programs got, for .numpack/last_error (interface.md section 4.2). Any thread. */
#ifndef NPKFS_LASTERR_H
#define NPKFS_LASTERR_H

#include <numpack.h>
#include <pthread.h>
#include <sys/types.h>

#define NPKFS_LASTERR_COUNT 64

struct npkfs_lasterr_entry {
	int64_t time_us;
	uid_t uid;
	pid_t pid;
	int code;
	char *path, *message;
};

struct npkfs_lasterr {
	pthread_mutex_t lock;
	uint64_t n; /* ever added; lock */
	struct npkfs_lasterr_entry ring[NPKFS_LASTERR_COUNT];
};

void npkfs_lasterr_init(struct npkfs_lasterr *l);
void npkfs_lasterr_fini(struct npkfs_lasterr *l);
/* Copies both texts; forgets the oldest entry when there are 64. Does nothing when memory is short. */
void npkfs_lasterr_add(struct npkfs_lasterr *l, uid_t uid, pid_t pid, int code, const char *path, const char *message);
/* One JSON object per line, oldest first; only those of `uid`, unless it is root. */
void npkfs_lasterr_print(struct npkfs_lasterr *l, uid_t uid, struct npk_text *out);

#endif
