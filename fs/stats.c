/* stats.c - the counters' names and the latency histogram. */
#include "stats.h"

static const char *const op_names[NPKFS_OP_COUNT] = {
	[NPKFS_OP_LOOKUP] = "lookup",
	[NPKFS_OP_FORGET] = "forget",
	[NPKFS_OP_GETATTR] = "getattr",
	[NPKFS_OP_OPEN] = "open",
	[NPKFS_OP_READ] = "read",
	[NPKFS_OP_WRITE] = "write",
	[NPKFS_OP_FLUSH] = "flush",
	[NPKFS_OP_RELEASE] = "release",
	[NPKFS_OP_OPENDIR] = "opendir",
	[NPKFS_OP_READDIR] = "readdir",
	[NPKFS_OP_READDIRPLUS] = "readdirplus",
	[NPKFS_OP_RELEASEDIR] = "releasedir",
	[NPKFS_OP_STATFS] = "statfs",
	[NPKFS_OP_GETXATTR] = "getxattr",
	[NPKFS_OP_LISTXATTR] = "listxattr",
	[NPKFS_OP_LSEEK] = "lseek",
	[NPKFS_OP_CHANGE] = "change",
};

const char *npkfs_op_name(enum npkfs_op op)
{
	return op_names[op];
}

/* 1, 2.5, 5 us and so on up to 25 ms: from a hot reply to a slow disk. */
uint64_t npkfs_latency_bound_ns(unsigned i)
{
	static const uint64_t step[3] = {1000, 2500, 5000};
	uint64_t scale = 1;

	if (i + 1 >= NPKFS_LATENCY_BUCKETS)
		return UINT64_MAX;
	for (unsigned k = i / 3; k > 0; k--)
		scale *= 10;
	return step[i % 3] * scale;
}

void npkfs_stats_read(struct npkfs_stats *st, uint64_t bytes, uint64_t borrowed, uint64_t ns)
{
	unsigned i = 0;

	while (ns > npkfs_latency_bound_ns(i))
		i++;
	NPKFS_COUNT(st->read_time[i]);
	NPKFS_ADD(st->read_ns, ns);
	NPKFS_ADD(st->read_bytes, bytes);
	NPKFS_ADD(st->borrowed_bytes, borrowed);
}
