/* cpu.h - how many threads are worth it. */
#ifndef NPKI_CPU_H
#define NPKI_CPU_H

/* The CPUs that this process may run on, at least 1. */
unsigned npki_cpu_count(void);

#endif
