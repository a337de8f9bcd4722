/* disk.h - a disk that loses what was not synced: records every change of a directory, then makes the directory as a
 * power cut after any of them may leave it.
 *
 * Writes to a file that were not synced may be kept or lost one by one; names that were not synced are lost from some
 * point on, in their order, as ext4, XFS and btrfs do. */
#ifndef CRASH_DISK_H
#define CRASH_DISK_H

#include <stdint.h>
#include <stddef.h>

struct disk;

struct disk *disk_new(void);
void disk_free(struct disk *d);
void disk_record(struct disk *d); /* from now on changes through engine/io.c are recorded */
void disk_stop(void);
size_t disk_length(const struct disk *d); /* calls so far */

enum disk_policy {
	DISK_NONE,
	DISK_ALL,
	DISK_RANDOM,
	DISK_PREFIX,
	DISK_POLICIES
};

/* What the disk holds after a power cut behind `calls` calls, in the new directory `path`. Returns 0 or -errno. */
int disk_cut(const struct disk *d, size_t calls, enum disk_policy policy, uint64_t seed, const char *path);

/* From now on the call number `nth` (from 0) fails with errno `code`, and with `lasting` all that follow it. `code` 0: none. */
void disk_fail(struct disk *d, size_t nth, int code, int lasting);
/* Whether it came to that, and the kind (enum npki_io_op) and the path of the first call that failed. */
int disk_failed(const struct disk *d, int *op, const char **path);

/* Bugs that are put into the recorded calls, while the real ones go on as they should: what the disk then holds is what an
 * engine with that bug would leave. */
enum disk_bug {
	DISK_NO_BUG,
	DISK_IMAGES_NOT_SYNCED, /* temp images are renamed without a sync */
	DISK_DATA_NOT_SYNCED,   /* a seal does not sync the data files */
	DISK_WRITTEN_IN_PLACE,  /* metadata and bitmaps are overwritten, not renamed over */
	DISK_METADATA_EARLY,    /* the metadata is renamed before the checkpoint's record and the data are durable */
	DISK_BUGS
};
void disk_plant(struct disk *d, enum disk_bug bug); /* before disk_record() */

void disk_print(const struct disk *d, size_t from, size_t calls); /* to stderr, for a failed test */

#endif
