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

void disk_print(const struct disk *d, size_t from, size_t calls); /* to stderr, for a failed test */

#endif
