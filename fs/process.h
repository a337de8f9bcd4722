/* process.h - which process a thread belongs to, as FUSE names threads. */
#ifndef NPKFS_PROCESS_H
#define NPKFS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The process of thread `tid` and when it started (clock ticks since boot); false when it cannot be told. */
bool npkfs_process_of(pid_t tid, pid_t *tgid, uint64_t *started);
bool npkfs_process_lives(pid_t tgid, uint64_t started);

#endif
