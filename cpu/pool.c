#include "cpu/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

/* How long a waiting thread burns its core before it lets others run, and before it sleeps. */
#define SPIN_NS  20000
#define YIELD_NS 150000

/* A word that threads wait on to change. `sleepers` counts those that may be asleep in the kernel,
 * so that a change without sleepers needs no system call. Alone on its cache line. */
typedef struct {
    _Alignas(64) _Atomic uint32_t word;
    _Atomic uint32_t sleepers;
} event;

typedef struct {
    _Alignas(64) cpu_pool *pool;
    pthread_t handle;
    int i_thread;
    cpu_place place;
    cpu_seat seat;  /* what it is bound to */
    uint32_t sense; /* of the barrier, as this thread will see it next; only this thread's */
    int64_t busy_ns, wait_ns; /* on the pool's clock; for the caller only wait_ns counts */
} worker;

struct cpu_pool {
    event job;     /* number of the job */
    event pending; /* workers that are not yet done with it */
    event sense;   /* flips when all have come to the barrier */
    _Alignas(64) _Atomic uint32_t arrived;
    _Alignas(64) fr_cpu_fn fn; /* NULL: leave */
    void *arg;
    int n_threads, n_started, n_shares;
    int64_t spin_ns;
    cpu_topology topology; /* owned */
    bool whole;            /* it is all that the process may use */
    bool binds_caller;
    pthread_t bound; /* the caller, once it is */
    bool has_bound;
    bool timed;                 /* changed between jobs only */
    int64_t n_jobs, n_barriers; /* while it is; the caller's */
    worker *workers;            /* n_threads of them, owned; number 0 is the caller */
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* To be called after every change of e->word that somebody may wait for. The change, this read, and
 * the sleeper's two accesses are sequentially consistent: either we see the sleeper or it sees the
 * change. */
static void event_wake(event *e)
{
    if (atomic_load(&e->sleepers) > 0)
        futex_wake_all(&e->word);
}

static void event_wait(event *e, uint32_t old, int64_t spin_ns)
{
    int64_t start = 0, waited = 0;
    while (waited < YIELD_NS) {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(&e->word, memory_order_acquire) != old)
                return;
            relax();
        }
        int64_t now = now_ns();
        if (start == 0)
            start = now;
        waited = now - start;
        if (waited >= spin_ns)
            sched_yield();
    }
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->word) == old)
        futex_wait(&e->word, old);
    atomic_fetch_sub(&e->sleepers, 1);
}

/* A worker's part of the job. */
static void run_part(cpu_pool *p, worker *w)
{
    int64_t start = p->timed ? now_ns() - w->wait_ns : 0;
    p->fn(p->arg, w->i_thread, p->n_threads);
    if (p->timed)
        w->busy_ns += now_ns() - w->wait_ns - start;
}

/* event_wait, on the clock of thread w. */
static void timed_wait(cpu_pool *p, worker *w, event *e, uint32_t old)
{
    int64_t start = p->timed ? now_ns() : 0;
    event_wait(e, old, p->spin_ns);
    if (p->timed)
        w->wait_ns += now_ns() - start;
}

static void bind_thread(const worker *w)
{
    const cpu_pool *p = w->pool;
    cpu_mask m;
    if (p->whole && w->seat.node < 0 && w->seat.core < 0)
        return;
    cpu_seat_mask(&p->topology, w->seat, &m);
    cpu_bind_self(&m);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    cpu_pool *p = w->pool;
    bind_thread(w);
    for (uint32_t seen = 0;; seen++) {
        event_wait(&p->job, seen, p->spin_ns);
        if (!p->fn)
            return NULL;
        run_part(p, w);
        if (atomic_fetch_sub(&p->pending.word, 1) == 1)
            event_wake(&p->pending);
    }
}

static void announce(cpu_pool *p, fr_cpu_fn fn, void *arg)
{
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->pending.word, (uint32_t)p->n_started, memory_order_relaxed);
    atomic_fetch_add(&p->job.word, 1);
    event_wake(&p->job);
}

static void bind_caller(cpu_pool *p)
{
    if (p->has_bound && pthread_equal(p->bound, pthread_self()))
        return;
    p->bound = pthread_self();
    p->has_bound = true;
    bind_thread(&p->workers[0]);
}

void cpu_pool_run(cpu_pool *p, fr_cpu_fn fn, void *arg)
{
    if (p->binds_caller)
        bind_caller(p);
    if (p->n_threads == 1) {
        fn(arg, 0, 1);
        return;
    }
    p->n_jobs += p->timed;
    announce(p, fn, arg);
    fn(arg, 0, p->n_threads);
    for (;;) {
        uint32_t left = atomic_load_explicit(&p->pending.word, memory_order_acquire);
        if (left == 0)
            return;
        timed_wait(p, &p->workers[0], &p->pending, left);
    }
}

void cpu_pool_barrier(cpu_pool *p, int i_thread)
{
    if (p->n_threads == 1)
        return;
    if (i_thread == 0)
        p->n_barriers += p->timed;
    uint32_t before = p->workers[i_thread].sense;
    p->workers[i_thread].sense = !before;
    if (atomic_fetch_add(&p->arrived, 1) + 1 < (uint32_t)p->n_threads) {
        timed_wait(p, &p->workers[i_thread], &p->sense, before);
        return;
    }
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store(&p->sense.word, !before);
    event_wake(&p->sense);
}

void cpu_pool_clock(cpu_pool *p, bool on)
{
    p->timed = on;
    p->n_jobs = p->n_barriers = 0;
    for (int i = 0; i < p->n_threads; i++)
        p->workers[i].busy_ns = p->workers[i].wait_ns = 0;
}

fr_cpu_times cpu_pool_clock_read(const cpu_pool *p)
{
    fr_cpu_times t = {.caller_wait = (double)p->workers[0].wait_ns * 1e-9,
                      .n_jobs = p->n_jobs,
                      .n_barriers = p->n_barriers};
    for (int i = 1; i < p->n_threads; i++)
        t.others_busy += (double)p->workers[i].busy_ns * 1e-9;
    return t;
}

int cpu_pool_n_threads(const cpu_pool *p)
{
    return p->n_threads;
}

int cpu_pool_n_shares(const cpu_pool *p)
{
    return p->n_shares;
}

cpu_place cpu_pool_place(const cpu_pool *p, int i_thread)
{
    return p->workers[i_thread].place;
}

const cpu_topology *cpu_pool_topology(const cpu_pool *p)
{
    return &p->topology;
}

/* ---- opening
 * ---------------------------------------------------------------------------------------- */

/* Signals belong to the program's own threads: workers start with all of them blocked, but SIGBUS,
 * which is the thread's own doing and which the program may want to explain. */
static fr_status start_workers(cpu_pool *p, fr_err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    fr_status st = FR_OK;
    for (int i = 1; i < p->n_threads; i++) {
        if (pthread_create(&p->workers[i].handle, NULL, worker_main, &p->workers[i])) {
            st = fr_fail(err, FR_EIO,
                         "cpu threads: the system gave %d, expected %d; use fewer threads or raise "
                         "the limit of processes (ulimit -u)",
                         i, p->n_threads);
            break;
        }
        char name[32];
        snprintf(name, sizeof name, "ferry-cpu-%d", i);
        pthread_setname_np(p->workers[i].handle, name);
        p->n_started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}

/* A share is a node with threads. With more nodes than shares can be, or when a node has no thread,
 * nothing is dealt out. */
static void deal_shares(cpu_pool *p, bool distribute)
{
    int n_of[CPU_MAX_NODES] = {0}, n_nodes = p->topology.n_nodes;
    p->n_shares = distribute && n_nodes <= CPU_MAX_NODES ? n_nodes : 1;
    for (int i = 0; i < p->n_threads && p->n_shares > 1; i++)
        n_of[p->workers[i].seat.node]++;
    for (int s = 0; s < p->n_shares; s++)
        if (p->n_shares > 1 && n_of[s] == 0)
            p->n_shares = 1;
    int n_seen[CPU_MAX_NODES] = {0};
    for (int i = 0; i < p->n_threads; i++) {
        worker *w = &p->workers[i];
        int share = p->n_shares > 1 ? w->seat.node : 0;
        w->place =
            (cpu_place){share, n_seen[share]++, p->n_shares > 1 ? n_of[share] : p->n_threads};
    }
}

static fr_status seat_threads(cpu_pool *p, const fr_cpu_config *cfg, fr_err *err)
{
    cpu_seat *seats = FR_NEW(cpu_seat, FR_MEM_CPU, (size_t)p->n_threads, err);
    if (!seats)
        return FR_ENOMEM;
    cpu_topology_spread(&p->topology, p->n_threads, seats);
    for (int i = 0; i < p->n_threads; i++)
        p->workers[i] = (worker){.pool = p, .i_thread = i, .seat = seats[i]};
    deal_shares(p, cfg->numa == FR_NUMA_DISTRIBUTE);
    for (int i = 0; i < p->n_threads; i++)
        p->workers[i].seat = cpu_seat_bound(&p->topology, cfg, p->n_threads, seats[i]);
    fr_mem_free(seats);
    p->binds_caller = !p->whole || p->workers[0].seat.node >= 0;
    return FR_OK;
}

static fr_status copy_topology(cpu_pool *p, const cpu_topology *t, fr_err *err)
{
    p->topology = *t;
    p->topology.units = FR_NEW(cpu_unit, FR_MEM_CPU, (size_t)t->n_units, err);
    if (!p->topology.units)
        return FR_ENOMEM;
    memcpy(p->topology.units, t->units, (size_t)t->n_units * sizeof *t->units);
    return FR_OK;
}

static fr_status open_parts(cpu_pool *p, const fr_cpu_config *cfg, const cpu_topology *topology,
                            fr_err *err)
{
    if (topology)
        FR_TRY(copy_topology(p, topology, err));
    else
        FR_TRY(cpu_topology_read(&p->topology, err));
    int n_all = p->topology.n_units;
    FR_TRY(cpu_topology_restrict(&p->topology, cfg, err));
    p->whole = p->topology.n_units == n_all;
    p->n_threads = cfg->n_threads > 0 ? cfg->n_threads : p->topology.n_cores;
    if (p->n_threads > CPU_MAX_THREADS)
        return fr_fail(err, FR_ERANGE, "cpu threads: found %d, expected at most %d", p->n_threads,
                       CPU_MAX_THREADS);
    p->spin_ns = p->n_threads <= p->topology.n_units ? SPIN_NS : 0;
    p->workers = FR_NEW(worker, FR_MEM_CPU, (size_t)p->n_threads, err);
    if (!p->workers)
        return FR_ENOMEM;
    FR_TRY(seat_threads(p, cfg, err));
    return start_workers(p, err);
}

fr_status cpu_pool_open(const fr_cpu_config *cfg, const cpu_topology *topology, cpu_pool **out,
                        fr_err *err)
{
    cpu_pool *p = FR_NEW(cpu_pool, FR_MEM_CPU, 1, err);
    if (!p)
        return FR_ENOMEM;
    fr_status st = open_parts(p, cfg, topology, err);
    if (st != FR_OK) {
        cpu_pool_close(p);
        return st;
    }
    *out = p;
    return FR_OK;
}

void cpu_pool_close(cpu_pool *p)
{
    if (!p)
        return;
    if (p->n_started > 0)
        announce(p, NULL, NULL);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].handle, NULL);
    if (p->has_bound && pthread_equal(p->bound, pthread_self()))
        cpu_unbind_self();
    cpu_topology_free(&p->topology);
    fr_mem_free(p->workers);
    fr_mem_free(p);
}
