/* The thread pool: n threads that run one function together, and a barrier inside it.
 *
 * A waiting thread spins for some microseconds (operations follow one another quickly), then gives
 * up its time slices, then sleeps in the kernel, so that an idle or oversubscribed pool costs
 * nothing. There are no locks: a job is announced by a counter, and every wait is for a 32-bit word
 * to change. */
#ifndef FR_CPU_POOL_H
#define FR_CPU_POOL_H

#include "cpu/cpu.h"

#define CPU_MAX_THREADS 1024

typedef struct cpu_pool cpu_pool;

/* n_threads in 1..CPU_MAX_THREADS; one is the caller of cpu_pool_run, so n_threads - 1 are started.
 * The workers take no signals. FR_EIO when the system refuses a thread. */
fr_status cpu_pool_open(int n_threads, cpu_pool **out, fr_err *err);
void cpu_pool_close(cpu_pool *pool); /* NULL is allowed; no job may be running */
int cpu_pool_n_threads(const cpu_pool *pool);

/* fr_cpu_run and fr_cpu_barrier. Not reentrant: fn must not call cpu_pool_run. */
void cpu_pool_run(cpu_pool *pool, fr_cpu_fn fn, void *arg);
void cpu_pool_barrier(cpu_pool *pool, int i_thread);

/* fr_cpu_clock and fr_cpu_clock_read. */
void cpu_pool_clock(cpu_pool *pool, bool on);
fr_cpu_times cpu_pool_clock_read(const cpu_pool *pool);

/* How many CPUs this process may run on, and on how many physical cores they are (both >= 1). */
int cpu_count_cpus(void);
int cpu_count_cores(void);

#endif
