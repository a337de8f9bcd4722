/* stats.h - what the daemon counts: requests, bytes, the time that reads take. Relaxed atomics, any thread. */
#ifndef NPKFS_STATS_H
#define NPKFS_STATS_H

#include <stdatomic.h>
#include <stdint.h>

enum npkfs_op {
	NPKFS_OP_LOOKUP,
	NPKFS_OP_FORGET,
	NPKFS_OP_GETATTR,
	NPKFS_OP_OPEN,
	NPKFS_OP_READ,
	NPKFS_OP_WRITE,
	NPKFS_OP_FLUSH,
	NPKFS_OP_RELEASE,
	NPKFS_OP_OPENDIR,
	NPKFS_OP_READDIR,
	NPKFS_OP_READDIRPLUS,
	NPKFS_OP_RELEASEDIR,
	NPKFS_OP_STATFS,
	NPKFS_OP_GETXATTR,
	NPKFS_OP_LISTXATTR,
	NPKFS_OP_LSEEK,
	NPKFS_OP_CHANGE, /* what a read-only mount refuses */
	NPKFS_OP_COUNT
};

#define NPKFS_LATENCY_BUCKETS 14

struct npkfs_stats {
	_Atomic uint64_t ops[NPKFS_OP_COUNT], errors[NPKFS_OP_COUNT];
	_Atomic uint64_t read_bytes;     /* of all READ replies */
	_Atomic uint64_t borrowed_bytes; /* of those, the ones that were sent straight from a mapping */
	_Atomic uint64_t written_bytes;
	_Atomic uint64_t read_time[NPKFS_LATENCY_BUCKETS]; /* replies by latency, see npkfs_latency_bound_ns() */
	_Atomic uint64_t read_ns;
	_Atomic uint64_t invalidations, invalidations_merged; /* sent to the kernel; asked for while already queued */
	_Atomic uint64_t refreshes, refresh_errors;
	_Atomic uint64_t searches, searches_failed; /* computed, and of these, those that gave no answer */
	_Atomic int64_t handles, directories;       /* open now */
};

const char *npkfs_op_name(enum npkfs_op op);
/* The upper bound of latency bucket i in nanoseconds; UINT64_MAX for the last one. */
uint64_t npkfs_latency_bound_ns(unsigned i);
void npkfs_stats_read(struct npkfs_stats *st, uint64_t bytes, uint64_t borrowed, uint64_t ns);

#define NPKFS_COUNT(field) atomic_fetch_add_explicit(&(field), 1, memory_order_relaxed)
#define NPKFS_ADD(field, n) atomic_fetch_add_explicit(&(field), (n), memory_order_relaxed)
#define NPKFS_LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)

#endif
