#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/gauge.h"
#include "common/interrupt.h"
#include "common/json_out.h"
#include "common/model_work.h"
#include "common/placement.h"
#include "common/workload.h"
#include "sweep_bench/sweep.h"

typedef struct {
    const fr_options *o;
    fr_engine *engine;
    fr_session *session;
    fr_engine_info info;
    tool_workload load;
    tool_model_work model;
    int64_t n_batch, pp, tg;
    tool_row_gauge gauge;
    bool lines; /* of JSON instead of a table */
} sweep;

/* ---- settings -------------------------------------------------------------------------------- */

static fr_status open_sweep(sweep *s, fr_err *err)
{
    fr_engine_config cfg;
    FR_TRY(tool_engine_config(s->o, &cfg, err));
    FR_TRY(tool_model_work_read(cfg.model_path, cfg.mla, &s->model, err));
    s->pp = cfg.n_ubatch;
    s->tg = s->o->sweep_gen > 0 ? s->o->sweep_gen : s->pp / 4;
    s->n_batch = s->o->batch_size;
    s->lines = strcmp(s->o->table_format, "jsonl") == 0;
    if (s->tg < 1)
        s->tg = 1;
    FR_TRY(fr_engine_open(&cfg, &s->engine, err));
    s->info = fr_engine_describe(s->engine);
    int64_t longest = s->pp > s->tg ? s->pp : s->tg;
    if (s->info.n_ctx < longest)
        return fr_fail(
            err, FR_ERANGE,
            "-c: found %lld tokens of context, expected at least %lld for one depth (-ub "
            "%lld, %lld to generate)",
            (long long)s->info.n_ctx, (long long)longest, (long long)s->pp, (long long)s->tg);
    FR_TRY(fr_session_open(s->engine, &s->session, err));
    return tool_workload_open(s->engine, longest, &s->load, err);
}

static void close_sweep(sweep *s)
{
    tool_row_gauge_close(&s->gauge);
    tool_workload_close(&s->load);
    fr_session_close(s->session);
    fr_engine_close(s->engine);
}

/* ---- printing -------------------------------------------------------------------------------- */

/* The peers' settings; ferry has one attention path, which is their flash attention. */
static void print_head(const sweep *s)
{
    if (s->lines)
        return;
    printf("\nmain: n_kv_max = %lld, n_batch = %lld, n_ubatch = %lld, flash_attn = %d, "
           "n_gpu_layers = %d, n_threads = %d, n_threads_batch = %d\n\n",
           (long long)s->info.n_ctx, (long long)s->n_batch, (long long)s->pp, 1,
           tool_n_gpu_layers(s->o, s->engine), s->info.n_threads, s->info.n_threads_batch);
    printf("|%6s | %6s | %6s | %8s | %8s | %8s | %8s |%s%s\n", "PP", "TG", "N_KV", "T_PP s",
           "S_PP t/s", "T_TG s", "S_TG t/s", s->o->sweep_memory ? "    RSS HWM | VRAM delta |" : "",
           s->gauge.on ? " of int8 | of read |" : "");
    printf("|-------|--------|--------|----------|----------|----------|----------|%s%s\n",
           s->o->sweep_memory ? "------------|------------|" : "",
           s->gauge.on ? "---------|---------|" : "");
}

/* MiB: the most of RAM so far, and GPUs; < 0: there are none. */
static void memory_of(const sweep *s, double *ram, double *gpus)
{
    struct rusage u;
    uint64_t bytes = 0;
    const fr_plan *p = fr_engine_plan(s->engine);
    *ram = getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_maxrss / 1024 : -1;
    for (int d = 1; d < p->n_devices; d++) {
        fr_gpu_bytes b = fr_engine_gpu_bytes(s->engine, d);
        bytes += b.weights + b.workspace + b.staging + b.kv;
    }
    *gpus = bytes > 0 ? (double)bytes / (1 << 20) : -1;
}

static void print_memory(const sweep *s)
{
    double ram, gpus;
    memory_of(s, &ram, &gpus);
    if (s->lines)
        printf(", \"rss_hwm_mib\": %.3f, \"vram_delta_mib\": ", ram);
    else
        printf(" %10.1f |", ram);
    if (s->lines)
        printf(gpus < 0 ? "null" : "%.3f", gpus);
    else
        printf(gpus < 0 ? "        n/a |" : " %10.1f |", gpus);
}

static fr_status print_row(const sweep *s, const sweep_row *r, fr_err *err)
{
    if (s->lines)
        printf("{\"n_kv_max\": %lld, \"n_batch\": %lld, \"n_ubatch\": %lld, \"flash_attn\": %d, "
               "\"n_gpu_layers\": %d, \"n_threads\": %d, \"n_threads_batch\": %d, \"pp\": %lld, "
               "\"tg\": %lld, \"n_kv\": %lld, \"t_pp\": %f, \"speed_pp\": %f, \"t_tg\": %f, "
               "\"speed_tg\": %f",
               (long long)s->info.n_ctx, (long long)s->n_batch, (long long)s->pp, 1,
               tool_n_gpu_layers(s->o, s->engine), s->info.n_threads, s->info.n_threads_batch,
               (long long)r->pp, (long long)r->tg, (long long)r->n_kv, r->t_pp, r->speed_pp,
               r->t_tg, r->speed_tg);
    else
        printf("| %5lld | %6lld | %6lld | %8.3f | %8.2f | %8.3f | %8.2f |", (long long)r->pp,
               (long long)r->tg, (long long)r->n_kv, r->t_pp, r->speed_pp, r->t_tg, r->speed_tg);
    if (s->o->sweep_memory)
        print_memory(s);
    if (s->gauge.on)
        printf(s->lines ? ", \"of_int8\": %.4f, \"of_read\": %.4f" : " %5.0f %% | %5.0f %% |",
               r->of_int8 * (s->lines ? 1 : 100), r->of_read * (s->lines ? 1 : 100));
    fputs(s->lines ? " }\n" : "\n", stdout);
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}

static json_t *row_json(const sweep_row *r)
{
    return json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "pp", (json_int_t)r->pp, "tg",
                     (json_int_t)r->tg, "n_kv", (json_int_t)r->n_kv, "t_pp", r->t_pp, "speed_pp",
                     r->speed_pp, "t_tg", r->t_tg, "speed_tg", r->speed_tg, "of_int8", r->of_int8,
                     "of_read", r->of_read);
}

static fr_status write_json(const sweep *s, const sweep_table *t, fr_err *err)
{
    json_t *rows = json_array();
    bool failed = !rows;
    for (size_t i = 0; i < t->n; i++)
        failed |= json_array_append_new(rows, row_json(&t->rows[i])) != 0;
    json_t *all = json_pack(
        "{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:s, s:o}", "program",
        "ferry-sweep-bench " FERRY_VERSION, "model_filename", tool_json_text(s->o->model),
        "model_type", s->model.description, "model_size", (json_int_t)s->model.bytes,
        "model_n_params", (json_int_t)s->model.n_params, "n_kv_max", (json_int_t)s->info.n_ctx,
        "n_batch", (json_int_t)s->n_batch, "n_ubatch", (json_int_t)s->pp, "flash_attn", 1,
        "n_gpu_layers", tool_n_gpu_layers(s->o, s->engine), "n_threads", s->info.n_threads,
        "n_threads_batch", s->info.n_threads_batch, "isa", fr_isa_name(s->info.isa), "rows", rows);
    if (failed) {
        json_decref(all);
        all = NULL;
    }
    return tool_json_write(s->o->table_json, all, err);
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* As the peers do: a token, or a whole ubatch. */
static fr_status warm_up(sweep *s, fr_err *err)
{
    if (s->o->warmup)
        FR_TRY(tool_run_generation(&s->load, s->session, 1, NULL, err));
    fr_session_truncate(s->session, 0);
    if (s->o->warmup_batch)
        FR_TRY(tool_run_prompt(&s->load, s->session, s->pp, NULL, err));
    fr_session_truncate(s->session, 0);
    return FR_OK;
}

/* Both at the same depth: what is generated is forgotten before the prompt, which stays. */
static fr_status measure_depth(sweep *s, int64_t n_kv, int n_times, sweep_row *row, fr_err *err)
{
    *row = (sweep_row){.pp = s->pp, .tg = s->tg, .n_kv = n_kv};
    for (int i = 0; i < n_times; i++) {
        double seconds;
        fr_session_truncate(s->session, n_kv);
        FR_TRY(tool_run_generation(&s->load, s->session, s->tg, &seconds, err));
        row->t_tg += seconds / n_times;
    }
    for (int i = 0; i < n_times; i++) {
        double seconds;
        fr_session_truncate(s->session, n_kv);
        FR_TRY(tool_run_prompt(&s->load, s->session, s->pp, &seconds, err));
        row->t_pp += seconds / n_times;
    }
    row->speed_pp = (double)row->pp / row->t_pp;
    row->speed_tg = (double)row->tg / row->t_tg;
    tool_yards y = tool_row_gauge_measure(&s->gauge);
    if (y.int8 > 0 && y.read > 0) {
        row->of_int8 = ((double)row->pp * s->model.token_ops + s->model.output_ops) / row->t_pp /
                       (y.int8 * 1e9);
        row->of_read = row->speed_tg * s->model.token_bytes / (y.read * 1e9);
    }
    return FR_OK;
}

static fr_status run_depths(sweep *s, sweep_table *out, fr_err *err)
{
    int64_t room = s->pp > s->tg ? s->pp : s->tg, i = 0;
    for (int64_t n_kv = 0; n_kv + room <= s->info.n_ctx; n_kv += s->pp, i++) {
        sweep_row row;
        if (i % s->o->sweep_stride)
            continue;
        FR_TRY(tool_fill(&s->load, s->session, n_kv, strcmp(s->o->fill_depth, "fast") == 0, s->pp,
                         err));
        FR_TRY(measure_depth(s, n_kv, i == 0 ? s->o->sweep_repetitions : 1, &row, err));
        FR_TRY(print_row(s, &row, err));
        FR_TRY(sweep_add_row(out, &row, err));
    }
    return FR_OK;
}

fr_status sweep_measure(const fr_options *o, sweep_table *out, fr_err *err)
{
    sweep s = {.o = o};
    fr_status st;
    *out = (sweep_table){0};
    FR_TRY_OUT(st, open_sweep(&s, err));
    out->label = fr_mem_strndup(FR_MEM_MISC, s.model.description, strlen(s.model.description), err);
    if (!out->label)
        FR_TRY_OUT(st, FR_ENOMEM);
    tool_catch_interrupts();
    FR_TRY_OUT(st, warm_up(&s, err));
    int n = s.info.n_threads > s.info.n_threads_batch ? s.info.n_threads : s.info.n_threads_batch;
    FR_TRY_OUT(st, tool_row_gauge_open(o->table_roofline, n, s.info.isa, &s.gauge, err));
    print_head(&s);
    FR_TRY_OUT(st, run_depths(&s, out, err));
    if (o->table_json)
        FR_TRY_OUT(st, write_json(&s, out, err));
    if (o->memory_report)
        tool_memory_report(s.engine);
out:
    close_sweep(&s);
    if (st != FR_OK)
        sweep_table_free(out);
    return st;
}
