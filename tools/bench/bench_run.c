#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/interrupt.h"
#include "common/profile.h"
#include "common/workload.h"

/* An open engine, and what it takes to time tests on it. */
typedef struct {
    fr_options *o;
    int n_test; /* measured so far; for --delay */
    fr_engine *engine;
    fr_session *session;
    tool_workload load;
    tool_gauge gauge;
    double *seconds; /* of repetitions */
} bench;

/* auto: as --mmap, --mlock and --direct-io say. */
static void apply_load_mode(const char *mode, fr_engine_config *cfg)
{
    if (strcmp(mode, "auto") == 0)
        return;
    cfg->mmap = strstr(mode, "mmap") != NULL;
    cfg->mlock = strstr(mode, "mlock") != NULL;
    cfg->reading = strcmp(mode, "dio") == 0 ? FR_READ_DIRECT : FR_READ_THROUGH;
}

static fr_status open_engine(bench *b, const bench_plan *p, const bench_setting *s, fr_err *err)
{
    fr_engine_config cfg;
    FR_TRY(tool_engine_config(b->o, &cfg, err));
    apply_load_mode(b->o->bench_load_mode, &cfg);
    cfg.model_path = s->model;
    cfg.n_ctx = p->n_ctx;
    FR_TRY(fr_engine_open(&cfg, &b->engine, err));
    FR_TRY(fr_session_open(b->engine, &b->session, err));
    FR_TRY(tool_workload_open(b->engine, p->longest, &b->load, err));
    fr_engine_info i = fr_engine_describe(b->engine);
    int n = i.n_threads > i.n_threads_batch ? i.n_threads : i.n_threads_batch;
    return b->o->bench_roofline ? tool_gauge_use(&b->gauge, n, i.isa, err) : FR_OK;
}

static void close_engine(bench *b)
{
    tool_workload_close(&b->load);
    fr_session_close(b->session);
    fr_engine_close(b->engine);
    b->session = NULL;
    b->engine = NULL;
}

/* Once through a test, from its depth on. */
static fr_status repeat(bench *b, const bench_test *t, double *seconds, fr_err *err)
{
    double prompt = 0, gen = 0;
    fr_session_truncate(b->session, t->n_depth);
    if (t->n_prompt > 0)
        FR_TRY(tool_run_prompt(&b->load, b->session, t->n_prompt, &prompt, err));
    if (t->n_gen > 0)
        FR_TRY(tool_run_generation(&b->load, b->session, t->n_gen, &gen, err));
    *seconds = prompt + gen;
    return FR_OK;
}

static void show_progress(const bench *b, const bench_test *t, int i)
{
    bool shown = b->o->bench_progress ||
                 (isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO) && !b->o->log_disable);
    if (shown && i < 0)
        fprintf(stderr, "%s: warming up\n", t->name);
    else if (shown)
        fprintf(stderr, "%s: %d of %d\n", t->name, i + 1, (int)b->o->bench_repetitions);
}

static fr_status end_profile(const bench *b, const bench_test *t, fr_err *err)
{
    fprintf(stderr, "\n%s", t->name);
    FR_TRY(tool_print_profile(b->engine, err));
    return fr_engine_profile(b->engine, false, err);
}

/* Fills what repetitions and yardsticks say. The first yardstick stands before the warm-up, which
 * brings back to the caches what it has driven out. */
static fr_status time_test(bench *b, const bench_test *t, bench_result *r, fr_err *err)
{
    double unused;
    int n = b->o->bench_repetitions;
    if (b->n_test++ > 0 && b->o->bench_delay > 0)
        sleep((unsigned)b->o->bench_delay);
    r->when = time(NULL);
    fr_session_truncate(b->session, 0);
    if (t->n_depth > 0)
        FR_TRY(tool_fill(&b->load, b->session, t->n_depth, strcmp(b->o->fill_depth, "fast") == 0,
                         b->o->ubatch_size, err));
    if (b->o->bench_roofline)
        r->before = tool_gauge_measure(&b->gauge);
    show_progress(b, t, -1);
    if (b->o->warmup)
        FR_TRY(repeat(b, t, &unused, err));
    if (b->o->profile)
        FR_TRY(fr_engine_profile(b->engine, true, err));
    for (int i = 0; i < n; i++) {
        show_progress(b, t, i);
        FR_TRY(repeat(b, t, &b->seconds[i], err));
    }
    if (b->o->profile)
        FR_TRY(end_profile(b, t, err));
    if (b->o->bench_roofline)
        r->after = tool_gauge_measure(&b->gauge);
    r->seconds = b->seconds;
    r->n = n;
    r->has_yards = b->o->bench_roofline;
    return FR_OK;
}

/* The names of the plan's GPUs that hold anything, joined by "/"; false when there is none. */
static bool gpus_of(const fr_plan *p, char *out, size_t n)
{
    size_t at = 0;
    out[0] = 0;
    for (int d = 1; d < p->n_devices; d++)
        if (p->devices[d].used > p->devices[d].reserve && at < n)
            at += (size_t)snprintf(out + at, n - at, "%s%s", at ? "/" : "", p->devices[d].name);
    return at > 0;
}

static fr_status run_tests(bench *b, const bench_plan *p, bench_result *r, bench_printer *printers,
                           int n_printers, fr_err *err)
{
    for (size_t t = 0; t < p->n_tests; t++) {
        r->test = &p->tests[t];
        fr_status st = time_test(b, r->test, r, err);
        if (st != FR_OK)
            return fr_err_context(err, st, "%s", r->test->name);
        for (int i = 0; i < n_printers; i++)
            FR_TRY(bench_print(&printers[i], r, err));
    }
    return FR_OK;
}

static fr_status run_setting(bench *b, const bench_plan *p, const bench_setting *s,
                             bench_printer *printers, int n_printers, fr_err *err)
{
    tool_model_work model;
    char gpus[512];
    fr_status st;
    for (int a = 0; a < BENCH_AXES; a++)
        if (s->value[a])
            FR_TRY(bench_axis_assign(b->o, (bench_axis)a, s->value[a], err));
    FR_TRY(tool_model_work_read(s->model, (fr_mla_mode)b->o->mla, &model, err));
    FR_TRY_OUT(st, open_engine(b, p, s, err));
    fr_engine_info i = fr_engine_describe(b->engine);
    bool gpu = gpus_of(fr_engine_plan(b->engine), gpus, sizeof gpus);
    bench_result r = {.o = b->o,
                      .model_path = s->model,
                      .backend = gpu ? "CUDA" : "CPU",
                      .gpu_info = gpus,
                      .model = &model,
                      .n_threads = i.n_threads,
                      .n_threads_batch = i.n_threads_batch,
                      .isa = i.isa};
    FR_TRY_OUT(st, run_tests(b, p, &r, printers, n_printers, err));
    if (b->o->memory_report)
        tool_memory_report(b->engine);
out:
    close_engine(b);
    return st;
}

fr_status bench_run(fr_options *o, const bench_plan *p, bench_printer *printers, int n, fr_err *err)
{
    bench b = {.o = o};
    fr_status st = FR_ENOMEM;
    b.seconds = FR_NEW(double, FR_MEM_MISC, (size_t)o->bench_repetitions, err);
    if (!b.seconds)
        goto out;
    if (o->bench_roofline)
        FR_TRY_OUT(st, tool_gauge_open(&b.gauge, err));
    tool_catch_interrupts();
    for (size_t i = 0; i < p->n_settings; i++)
        FR_TRY_OUT(st, run_setting(&b, p, &p->settings[i], printers, n, err));
    st = FR_OK;
out:
    tool_gauge_close(&b.gauge);
    fr_mem_free(b.seconds);
    return st;
}
