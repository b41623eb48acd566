#include "cpu/thread_tune.h"

#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cpu/topology.h"

enum { MOST = 6, ROUNDS = 3, TOKENS = 256 };

#define SLICE   0.1  /* seconds that a number of threads is timed at once */
#define ENOUGH  5.0  /* seconds after which no further round begins */
#define WORTH   1.02 /* what more threads must gain */
#define PATTERN 0x38 /* bytes of weights: small positive numbers in all float types */

bool fr_threads_possible(const fr_thread_counts *c)
{
    return c->n_single >= 1 && c->n_batch >= 1 && c->n_single <= CPU_MAX_CPUS &&
           c->n_batch <= CPU_MAX_CPUS;
}

typedef struct {
    fr_cpu *cpus[MOST];
    int n_threads[MOST], n;
    double single[MOST], batch[MOST]; /* seconds of a product, the best of all rounds */
    fr_weight stack, one;             /* all matrices, and the first of them */
    void *weights, *act;
    float *x, *y;
    int64_t next; /* matrix of the stack */
} tuner;

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Ascending, each once. */
static void add_candidate(tuner *t, int n)
{
    if (n >= 1 && (t->n == 0 || n > t->n_threads[t->n - 1]))
        t->n_threads[t->n++] = n;
}

static fr_status open_cpus(tuner *t, const fr_cpu_config *base, fr_err *err)
{
    cpu_topology top;
    FR_TRY(cpu_topology_read(&top, err));
    fr_status st = cpu_topology_restrict(&top, base, err);
    int cores = top.n_cores, cpus = top.n_units;
    cpu_topology_free(&top);
    FR_TRY(st);
    add_candidate(t, cores / 4);
    add_candidate(t, cores / 2);
    add_candidate(t, cores * 3 / 4);
    add_candidate(t, cores);
    add_candidate(t, (cores + cpus) / 2);
    add_candidate(t, cpus);
    for (int i = 0; i < t->n; i++) {
        fr_cpu_config cfg = *base;
        cfg.n_threads = t->n_threads[i];
        FR_TRY(fr_cpu_open(&cfg, &t->cpus[i], err));
    }
    return FR_OK;
}

static fr_status make_weights(tuner *t, const fr_weight *shape, fr_err *err)
{
    t->one = fr_weight_make(shape->type, shape->layout, shape->cols, shape->rows, 1);
    int64_t n = (int64_t)(FR_TUNE_BYTES / t->one.mat_bytes);
    t->stack = fr_weight_make(shape->type, shape->layout, shape->cols, shape->rows, n > 0 ? n : 1);
    size_t bytes = t->stack.mat_bytes * (size_t)t->stack.n_mat;
    fr_act_type type = fr_cpu_act_type(t->cpus[0], &t->one);
    t->weights = fr_mem_array(FR_MEM_CPU, bytes, 1, err);
    t->x = FR_NEW(float, FR_MEM_CPU, (size_t)(TOKENS * shape->cols), err);
    t->y = FR_NEW(float, FR_MEM_CPU, (size_t)(TOKENS * shape->rows), err);
    t->act = fr_mem_array(FR_MEM_CPU, fr_cpu_act_bytes(type, TOKENS, shape->cols), 1, err);
    if (!t->weights || !t->x || !t->y || !t->act)
        return FR_ENOMEM;
    memset(t->weights, PATTERN, bytes);
    for (int64_t i = 0; i < TOKENS * shape->cols; i++)
        t->x[i] = (float)(i % 61) - 30;
    return FR_OK;
}

/* The best time of a product of n_tokens in `seconds`, or a little more for one; the next matrix
 * each time. */
static double time_products(tuner *t, fr_cpu *cpu, int64_t n_tokens, double seconds)
{
    fr_act_type type = fr_cpu_act_type(cpu, &t->one);
    fr_act act = fr_cpu_act_prepare(cpu, type, t->x, t->one.cols, n_tokens, t->one.cols, t->act);
    double start = now_seconds(), best = 0;
    for (double from = start, to; from - start < seconds; from = to) {
        fr_weight w = t->one;
        enum { IN_A_ROW = 8 }; /* so that waking up and falling asleep do not count much */
        int n = 0;
        do {
            w.data = (const char *)t->weights + (size_t)t->next * w.mat_bytes;
            t->next = (t->next + 1) % t->stack.n_mat;
            fr_cpu_matmul(cpu, &w, &act, n_tokens, t->y, w.rows);
            to = now_seconds();
        } while (++n < IN_A_ROW && to - from < seconds / 4);
        if (best == 0 || (to - from) / n < best)
            best = (to - from) / n;
    }
    return best;
}

static void keep_best(double *best, double seconds)
{
    if (*best == 0 || seconds < *best)
        *best = seconds;
}

/* The fewest threads within reach of the fastest. */
static int choose(const tuner *t, const double *seconds)
{
    double best = seconds[0];
    for (int i = 1; i < t->n; i++)
        best = seconds[i] < best ? seconds[i] : best;
    int i = 0;
    while (seconds[i] > best * WORTH)
        i++;
    return t->n_threads[i];
}

fr_status fr_threads_tune(const fr_cpu_config *cfg, const fr_weight *shape, fr_thread_counts *out,
                          fr_err *err)
{
    tuner t = {.n = 0};
    fr_status st;
    FR_TRY_OUT(st, open_cpus(&t, cfg, err));
    FR_TRY_OUT(st, make_weights(&t, shape, err));
    double start = now_seconds();
    for (int round = 0; round < ROUNDS && now_seconds() - start < ENOUGH; round++)
        for (int i = 0; i < t.n; i++) {
            keep_best(&t.single[i], time_products(&t, t.cpus[i], 1, SLICE));
            keep_best(&t.batch[i], time_products(&t, t.cpus[i], TOKENS, SLICE));
        }
    *out = (fr_thread_counts){choose(&t, t.single), choose(&t, t.batch)};
out:
    for (int i = 0; i < MOST; i++)
        fr_cpu_close(t.cpus[i]);
    void *blocks[] = {t.weights, t.act, t.x, t.y};
    for (int i = 0; i < 4; i++)
        fr_mem_free(blocks[i]);
    return st;
}
