/* The thread pool: n threads that run one function together, and a barrier inside it.
 *
 * A waiting thread spins for some microseconds (operations follow one another quickly), then gives
 * up its time slices, then sleeps in the kernel, so that an idle or oversubscribed pool costs
 * nothing. There are no locks: a job is announced by a counter, and every wait is for a 32-bit word
 * to change. */
#ifndef FR_CPU_POOL_H
#define FR_CPU_POOL_H

#include "cpu/topology.h"

#define CPU_MAX_THREADS 1024

typedef struct cpu_pool cpu_pool;

/* fr_cpu_open with threads on another machine's topology (NULL: this one's); the threads run where
 * this one lets them. For tests. */
fr_status cpu_open_on(const fr_cpu_config *cfg, const cpu_topology *topology, fr_cpu **out,
                      fr_err *err);

/* Threads on `topology` (copied; NULL: this machine as cfg restricts it), as many as cfg says, in
 * 1..CPU_MAX_THREADS; one is the caller of cpu_pool_run, so one less are started. They take no
 * signals. FR_EIO when the system refuses a thread, FR_EINVAL, FR_ERANGE for the configuration. */
fr_status cpu_pool_open(const fr_cpu_config *cfg, const cpu_topology *topology, cpu_pool **out,
                        fr_err *err);
void cpu_pool_close(cpu_pool *pool); /* NULL is allowed; no job may be running */
int cpu_pool_n_threads(const cpu_pool *pool);

/* fr_cpu_run and fr_cpu_barrier. Not reentrant: fn must not call cpu_pool_run. */
void cpu_pool_run(cpu_pool *pool, fr_cpu_fn fn, void *arg);
void cpu_pool_barrier(cpu_pool *pool, int i_thread);

/* fr_cpu_clock and fr_cpu_clock_read. */
void cpu_pool_clock(cpu_pool *pool, bool on);
fr_cpu_times cpu_pool_clock_read(const cpu_pool *pool);

/* Rows of weights are dealt out to so many nodes (1: they are not), and the one of a thread; the
 * threads of a share count from 0. */
int cpu_pool_n_shares(const cpu_pool *pool);
typedef struct {
    int share, i_thread, n_threads;
} cpu_place;
cpu_place cpu_pool_place(const cpu_pool *pool, int i_thread);
const cpu_topology *cpu_pool_topology(const cpu_pool *pool);

#endif
