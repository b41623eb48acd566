#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

bench_mean bench_mean_of(const double *v, int n)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += v[i];
    double mean = sum / n;
    for (int i = 0; i < n; i++)
        squares += (v[i] - mean) * (v[i] - mean);
    return (bench_mean){mean, n > 1 ? sqrt(squares / (n - 1)) : 0};
}

void bench_axis_value(const bench_result *r, bench_axis a, char *out, size_t n)
{
    bool gpu = strcmp(r->backend, "CPU") != 0;
    if (a == BENCH_THREADS)
        snprintf(out, n, "%d", r->test->n_gen > 0 ? r->n_threads : r->n_threads_batch);
    else if (a == BENCH_NGL && (!gpu || r->o->n_gpu_layers < 0))
        snprintf(out, n, "%d", gpu ? 999 : r->o->n_gpu_layers < 0 ? 0 : r->o->n_gpu_layers);
    else
        bench_axis_text(r->o, a, out, n);
}

double bench_speed(const bench_result *r, int i)
{
    return (double)(r->test->n_prompt + r->test->n_gen) / r->seconds[i];
}

double bench_roofline(const bench_result *r, const char **of)
{
    const tool_model_work *m = r->model;
    const bench_test *t = r->test;
    double read = (r->before.read + r->after.read) / 2 * 1e9;
    double int8 = (r->before.int8 + r->after.int8) / 2 * 1e9;
    *of = t->n_gen == 0 ? "int8" : t->n_prompt == 0 ? "read" : "both";
    if (!r->has_yards || read <= 0 || int8 <= 0)
        return 0;
    double least = (double)t->n_gen * m->token_bytes / read;
    if (t->n_prompt > 0)
        least += ((double)t->n_prompt * m->token_ops + m->output_ops) / int8;
    return least / bench_mean_of(r->seconds, r->n).mean;
}
