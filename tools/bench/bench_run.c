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
    const fr_options *o;
    fr_engine *engine;
    fr_session *session;
    tool_workload load;
    tool_gauge gauge;
    double *seconds; /* of repetitions */
} bench;

static fr_status open_engine(bench *b, const bench_plan *p, const bench_setting *s, fr_err *err)
{
    fr_engine_config cfg;
    fr_layout layout;
    FR_TRY(tool_engine_config(b->o, &cfg, err));
    cfg.model_path = s->model;
    cfg.n_ctx = p->n_ctx;
    cfg.n_ubatch = s->n_ubatch < s->n_batch ? s->n_ubatch : s->n_batch;
    cfg.n_threads = (int)s->n_threads;
    cfg.mla = (fr_mla_mode)s->mla;
    cfg.mmap = b->o->mmap && b->o->bench_mmap;
    if (!fr_type_from_name(fr_str_of(s->type_k), &cfg.type_k, &layout) ||
        !fr_type_from_name(fr_str_of(s->type_v), &cfg.type_v, &layout))
        return fr_fail(err, FR_EINTERNAL, "KV cache types: the registry does not know them");
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
    bool shown = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO) && !b->o->log_disable;
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
    r->when = time(NULL);
    fr_session_truncate(b->session, 0);
    if (t->n_depth > 0)
        FR_TRY(tool_fill(&b->load, b->session, t->n_depth, strcmp(b->o->fill_depth, "fast") == 0,
                         r->setting->n_ubatch, err));
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

static fr_status run_setting(bench *b, const bench_plan *p, const bench_setting *s,
                             bench_printer *printer, fr_err *err)
{
    tool_model_work model;
    fr_status st;
    FR_TRY(tool_model_work_read(s->model, (fr_mla_mode)s->mla, &model, err));
    FR_TRY_OUT(st, open_engine(b, p, s, err));
    fr_engine_info i = fr_engine_describe(b->engine);
    for (size_t t = 0; t < p->n_tests; t++) {
        bench_result r = {.setting = s,
                          .test = &p->tests[t],
                          .model = &model,
                          .n_threads = i.n_threads,
                          .n_threads_batch = i.n_threads_batch,
                          .isa = i.isa};
        st = time_test(b, &p->tests[t], &r, err);
        if (st != FR_OK) {
            st = fr_err_context(err, st, "%s", p->tests[t].name);
            goto out;
        }
        FR_TRY_OUT(st, bench_print(printer, &r, err));
    }
    if (b->o->memory_report)
        tool_memory_report(b->engine);
out:
    close_engine(b);
    return st;
}

fr_status bench_run(const fr_options *o, const bench_plan *p, bench_printer *printer, fr_err *err)
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
        FR_TRY_OUT(st, run_setting(&b, p, &p->settings[i], printer, err));
    st = FR_OK;
out:
    tool_gauge_close(&b.gauge);
    fr_mem_free(b.seconds);
    return st;
}
