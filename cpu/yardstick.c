#include "cpu/yardstick.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "cpu/kernels.h"
#include "cpu/yardstick_loops.h"

enum {
    READ_CHUNK = 1 << 20, /* claimed by a thread at a time: a slow thread must not hold up all */
    INT8_ROUNDS = 1 << 18 /* of one measurement: about a millisecond */
};

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the portable loops ---------------------------------------------------------------------- */

static uint64_t read_base(const uint8_t *p, size_t n)
{
    uint64_t a = 0, b = 0, c = 0, d = 0, w[4];
    for (size_t i = 0; i < n; i += sizeof w) {
        memcpy(w, p + i, sizeof w);
        a ^= w[0], b ^= w[1], c ^= w[2], d ^= w[3];
    }
    return a ^ b ^ c ^ d;
}

static uint64_t int8_base(int64_t n, int64_t *ops)
{
    enum { N = 256 };
    uint8_t x[N];
    int8_t y[N];
    uint64_t sum = 0;
    *ops = 2 * N;
    for (int i = 0; i < N; i++)
        x[i] = (uint8_t)(i * 7), y[i] = (int8_t)(i * 5);
    for (int64_t r = 0; r < n; r++) {
        int32_t dot = 0;
        x[r % N]++; /* or every round would be the same, and done once */
        for (int i = 0; i < N; i++)
            dot += x[i] * y[i];
        sum += (uint64_t)(int64_t)dot;
    }
    return sum;
}

static cpu_read_fn read_loop(fr_isa isa)
{
#if defined(__x86_64__)
    if (isa == FR_ISA_AVX512)
        return cpu_read_avx512;
    if (isa == FR_ISA_AVX2)
        return cpu_read_avx2;
#endif
    (void)isa;
    return read_base;
}

static cpu_int8_fn int8_loop(fr_isa isa)
{
#if defined(__x86_64__)
    if (isa == FR_ISA_AVX512)
        return cpu_int8_avx512;
    if (isa == FR_ISA_AVX2)
        return cpu_int8_avx2;
#endif
    (void)isa;
    return int8_base;
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct {
    cpu_read_fn loop;
    const uint8_t *p;
    int64_t n_chunks;
    _Atomic int64_t next;
    _Atomic uint64_t sink; /* keeps the loops from being left out */
} read_job;

static void read_thread(void *arg, int i_thread, int n_threads)
{
    read_job *j = arg;
    uint64_t sum = 0;
    (void)i_thread;
    (void)n_threads;
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (i >= j->n_chunks)
            break;
        sum ^= j->loop(j->p + i * READ_CHUNK, READ_CHUNK);
    }
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

double fr_cpu_read_speed(fr_cpu *cpu, const void *p, size_t bytes, double seconds)
{
    read_job j = {.loop = read_loop(cpu->isa), .p = p, .n_chunks = (int64_t)(bytes / READ_CHUNK)};
    double least = 1e9, begin = now_seconds(), end = begin;
    if (j.n_chunks == 0)
        return 0;
    for (int i = 0; i < 2 || end - begin < seconds; i++) {
        double start = end;
        atomic_store(&j.next, 0);
        fr_cpu_run(cpu, read_thread, &j);
        end = now_seconds();
        least = end - start < least ? end - start : least;
    }
    return (double)j.n_chunks * READ_CHUNK / least * 1e-9;
}

/* ---- products of bytes ----------------------------------------------------------------------- */

typedef struct {
    cpu_int8_fn loop;
    _Atomic int64_t ops; /* of all threads */
    _Atomic uint64_t sink;
} int8_job;

static void int8_thread(void *arg, int i_thread, int n_threads)
{
    int8_job *j = arg;
    int64_t ops;
    (void)i_thread;
    (void)n_threads;
    uint64_t sum = j->loop(INT8_ROUNDS, &ops);
    atomic_fetch_add_explicit(&j->ops, ops * INT8_ROUNDS, memory_order_relaxed);
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

double fr_cpu_int8_speed(fr_cpu *cpu, double seconds)
{
    int8_job j = {.loop = int8_loop(cpu->isa)};
    double best = 0, begin = now_seconds(), end = begin;
    for (int i = 0; i < 3 || end - begin < seconds; i++) {
        double start = end;
        atomic_store(&j.ops, 0);
        fr_cpu_run(cpu, int8_thread, &j);
        end = now_seconds();
        double speed = (double)atomic_load(&j.ops) / (end - start) * 1e-9;
        best = speed > best ? speed : best;
    }
    return best;
}
