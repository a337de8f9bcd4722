/* cpu.c - see cpu.h. */
#include "cpu.h"

#include <sched.h>
#include <unistd.h>

/* A machine with more CPUs than a cpu_set_t holds refuses to tell which of them are ours. */
unsigned npki_cpu_count(void)
{
	cpu_set_t ours;
	long online;

	if (sched_getaffinity(0, sizeof(ours), &ours) == 0)
		return (unsigned)CPU_COUNT(&ours);
	online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}
