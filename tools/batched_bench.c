/* ferry-batched-bench: tokens a second of several sequences at the same time: prompts one after the
 * other, then a token of every sequence in each step. */
#include <stdio.h>
#include <string.h>

#include "common/gauge.h"
#include "common/int_list.h"
#include "common/interrupt.h"
#include "common/json_out.h"
#include "common/model_work.h"
#include "common/placement.h"
#include "common/tool.h"
#include "common/workload.h"

typedef struct {
    int64_t pp, tg, pl; /* tokens of each sequence, and sequences */
    double t_pp, t_tg;  /* seconds, of all sequences */
    double of_int8, of_read;
} batched_row;

typedef struct {
    const fr_options *o;
    tool_ints pp, tg, pl;
    fr_engine *engine;
    fr_engine_info info;
    fr_session **sessions; /* n_sessions, owned */
    int32_t *tokens;       /* of a step, [n_sessions], owned */
    int64_t n_sessions, n_ctx;
    tool_workload load;
    tool_model_work model;
    batched_row *rows; /* n_rows, owned */
    size_t n_rows, row_cap;
    tool_row_gauge gauge;
    bool lines; /* of JSON instead of a table */
} batched;

/* ---- opening --------------------------------------------------------------------------------- */

static int64_t most_of(const tool_ints *list)
{
    int64_t most = 0;
    for (size_t i = 0; i < list->n; i++)
        most = list->v[i] > most ? list->v[i] : most;
    return most;
}

/* Positions of the cache that a row fills. */
static int64_t n_kv_of(const batched *b, int64_t pp, int64_t tg, int64_t pl)
{
    return b->o->prompt_shared ? pp + pl * tg : pl * (pp + tg);
}

static bool too_long(const batched *b, int64_t pp, int64_t tg, int64_t pl)
{
    return b->o->ctx_size > 0 && n_kv_of(b, pp, tg, pl) > b->o->ctx_size;
}

/* The longest sequence, and the most of them: of the rows that fit into -c. */
static void measure_rows(batched *b, int64_t *longest)
{
    b->n_ctx = b->n_sessions = *longest = 0;
    for (size_t i = 0; i < b->pp.n; i++)
        for (size_t k = 0; k < b->tg.n; k++)
            for (size_t l = 0; l < b->pl.n; l++) {
                int64_t pp = b->pp.v[i], tg = b->tg.v[k], pl = b->pl.v[l];
                if (too_long(b, pp, tg, pl))
                    continue;
                b->n_ctx = pp + tg > b->n_ctx ? pp + tg : b->n_ctx;
                b->n_sessions = pl > b->n_sessions ? pl : b->n_sessions;
                *longest = pp > *longest ? pp : *longest;
                *longest = tg > *longest ? tg : *longest;
            }
}

static fr_status read_lists(batched *b, int64_t *longest, fr_err *err)
{
    const fr_options *o = b->o;
    FR_TRY(tool_ints_of("-npp", &o->batched_pp, 1, 1 << 24, 512, &b->pp, err));
    FR_TRY(tool_ints_of("-ntg", &o->batched_tg, 1, 1 << 24, 128, &b->tg, err));
    FR_TRY(tool_ints_of("-npl", &o->batched_pl, 1, 4096, 1, &b->pl, err));
    measure_rows(b, longest);
    if (b->n_ctx == 0)
        return fr_fail(err, FR_ERANGE,
                       "-c: found %d tokens, expected room for one row at least; the longest of "
                       "-npp %lld, -ntg %lld and -npl %lld takes %lld",
                       o->ctx_size, (long long)most_of(&b->pp), (long long)most_of(&b->tg),
                       (long long)most_of(&b->pl),
                       (long long)n_kv_of(b, most_of(&b->pp), most_of(&b->tg), most_of(&b->pl)));
    return FR_OK;
}

static fr_status open_batched(batched *b, fr_err *err)
{
    fr_engine_config cfg;
    int64_t longest;
    FR_TRY(fr_opts_require(b->o, FR_OPT_model, err));
    FR_TRY(read_lists(b, &longest, err));
    FR_TRY(tool_engine_config(b->o, &cfg, err));
    FR_TRY(tool_model_work_read(cfg.model_path, cfg.mla, &b->model, err));
    cfg.n_ctx = b->n_ctx;
    cfg.n_seq = b->n_sessions;
    b->lines = strcmp(b->o->table_format, "jsonl") == 0;
    FR_TRY(fr_engine_open(&cfg, &b->engine, err));
    b->info = fr_engine_describe(b->engine);
    b->sessions = FR_NEW(fr_session *, FR_MEM_MISC, (size_t)b->n_sessions, err);
    b->tokens = FR_NEW(int32_t, FR_MEM_MISC, (size_t)b->n_sessions, err);
    if (!b->sessions || !b->tokens)
        return FR_ENOMEM;
    for (int64_t i = 0; i < b->n_sessions; i++)
        FR_TRY(fr_session_open(b->engine, &b->sessions[i], err));
    return tool_workload_open(b->engine, longest, &b->load, err);
}

static void close_batched(batched *b)
{
    for (int64_t i = 0; b->sessions && i < b->n_sessions; i++)
        fr_session_close(b->sessions[i]);
    fr_mem_free(b->sessions);
    fr_mem_free(b->tokens);
    tool_row_gauge_close(&b->gauge);
    tool_workload_close(&b->load);
    fr_engine_close(b->engine);
    fr_mem_free(b->pp.v);
    fr_mem_free(b->tg.v);
    fr_mem_free(b->pl.v);
    fr_mem_free(b->rows);
}

/* ---- printing -------------------------------------------------------------------------------- */

/* What follows from a row, under the peers' names. */
typedef struct {
    int64_t n_kv;
    double s_pp, s_tg, t, s;
} sums;

static sums sums_of(const batched *b, const batched_row *r)
{
    sums s = {.n_kv = n_kv_of(b, r->pp, r->tg, r->pl), .t = r->t_pp + r->t_tg};
    s.s_pp = (double)((b->o->prompt_shared ? 1 : r->pl) * r->pp) / r->t_pp;
    s.s_tg = (double)(r->pl * r->tg) / r->t_tg;
    s.s = (double)s.n_kv / s.t;
    return s;
}

static int n_gpu_layers(const batched *b)
{
    return tool_n_gpu_layers(b->o, b->engine);
}

static void print_head(const batched *b)
{
    if (b->lines)
        return;
    printf("\nmain: n_kv_max = %lld, n_batch = %d, n_ubatch = %d, flash_attn = %d, is_pp_shared = "
           "%d, n_gpu_layers = %d, n_threads = %d, n_threads_batch = %d\n\n",
           (long long)(b->o->ctx_size > 0 ? b->o->ctx_size : b->n_ctx * b->n_sessions),
           b->o->batch_size, b->o->ubatch_size, 1, b->o->prompt_shared, n_gpu_layers(b),
           b->info.n_threads, b->info.n_threads_batch);
    printf("|%6s | %6s | %4s | %6s | %8s | %8s | %8s | %8s | %8s | %8s |%s\n", "PP", "TG", "B",
           "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s",
           b->gauge.on ? " of int8 | of read |" : "");
    printf("|-------|--------|------|--------|----------|----------|----------|----------|---------"
           "-|----------|%s\n",
           b->gauge.on ? "---------|---------|" : "");
}

static fr_status print_row(const batched *b, const batched_row *r, fr_err *err)
{
    sums s = sums_of(b, r);
    if (b->lines)
        printf(
            "{\"n_kv_max\": %lld, \"n_batch\": %d, \"n_ubatch\": %d, \"flash_attn\": %d, "
            "\"is_pp_shared\": %d, \"n_gpu_layers\": %d, \"n_threads\": %d, \"n_threads_batch\": "
            "%d, \"pp\": %lld, \"tg\": %lld, \"pl\": %lld, \"n_kv\": %lld, \"t_pp\": %f, "
            "\"speed_pp\": %f, \"t_tg\": %f, \"speed_tg\": %f, \"t\": %f, \"speed\": %f",
            (long long)(b->o->ctx_size > 0 ? b->o->ctx_size : b->n_ctx * b->n_sessions),
            b->o->batch_size, b->o->ubatch_size, 1, b->o->prompt_shared, n_gpu_layers(b),
            b->info.n_threads, b->info.n_threads_batch, (long long)r->pp, (long long)r->tg,
            (long long)r->pl, (long long)s.n_kv, r->t_pp, s.s_pp, r->t_tg, s.s_tg, s.t, s.s);
    else
        printf("|%6lld | %6lld | %4lld | %6lld | %8.3f | %8.2f | %8.3f | %8.2f | %8.3f | %8.2f |",
               (long long)r->pp, (long long)r->tg, (long long)r->pl, (long long)s.n_kv, r->t_pp,
               s.s_pp, r->t_tg, s.s_tg, s.t, s.s);
    if (b->gauge.on)
        printf(b->lines ? ", \"of_int8\": %.4f, \"of_read\": %.4f" : " %5.0f %% | %5.0f %% |",
               r->of_int8 * (b->lines ? 1 : 100), r->of_read * (b->lines ? 1 : 100));
    fputs(b->lines ? "}\n" : "\n", stdout);
    return fflush(stdout) != 0 || ferror(stdout) ? tool_fail_output(err) : FR_OK;
}

static json_t *row_json(const batched *b, const batched_row *r)
{
    sums s = sums_of(b, r);
    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "pp",
                     (json_int_t)r->pp, "tg", (json_int_t)r->tg, "pl", (json_int_t)r->pl, "n_kv",
                     (json_int_t)s.n_kv, "t_pp", r->t_pp, "speed_pp", s.s_pp, "t_tg", r->t_tg,
                     "speed_tg", s.s_tg, "t", s.t, "speed", s.s, "of_int8", r->of_int8, "of_read",
                     r->of_read);
}

static fr_status write_json(const batched *b, fr_err *err)
{
    json_t *rows = json_array();
    bool failed = !rows;
    for (size_t i = 0; i < b->n_rows; i++)
        failed |= json_array_append_new(rows, row_json(b, &b->rows[i])) != 0;
    json_t *all = json_pack(
        "{s:s, s:o, s:s, s:I, s:I, s:i, s:i, s:b, s:i, s:i, s:s, s:o}", "program",
        "ferry-batched-bench " FERRY_VERSION, "model_filename", tool_json_text(b->o->model),
        "model_type", b->model.description, "model_size", (json_int_t)b->model.bytes,
        "model_n_params", (json_int_t)b->model.n_params, "n_batch", b->o->batch_size, "n_ubatch",
        b->o->ubatch_size, "is_pp_shared", (int)b->o->prompt_shared, "n_threads", b->info.n_threads,
        "n_threads_batch", b->info.n_threads_batch, "isa", fr_isa_name(b->info.isa), "rows", rows);
    if (failed) {
        json_decref(all);
        all = NULL;
    }
    return tool_json_write(b->o->table_json, all, err);
}

/* ---- measuring ------------------------------------------------------------------------------- */

static fr_status warm_up(batched *b, fr_err *err)
{
    int64_t n = b->n_ctx < 16 ? b->n_ctx : 16;
    if (n > b->load.cap)
        n = b->load.cap;
    return b->o->warmup ? tool_run_prompt(&b->load, b->sessions[0], n, NULL, err) : FR_OK;
}

/* With -pps the first sequence's prompt is copied to the others, as part of the prompt's time. */
static fr_status run_prompts(batched *b, batched_row *r, fr_err *err)
{
    double seconds, start;
    for (int64_t i = 0; i < r->pl; i++)
        fr_session_truncate(b->sessions[i], 0);
    for (int64_t i = 0; i < (b->o->prompt_shared ? 1 : r->pl); i++) {
        FR_TRY(tool_run_prompt(&b->load, b->sessions[i], r->pp, &seconds, err));
        r->t_pp += seconds;
    }
    start = tool_seconds();
    for (int64_t i = 1; b->o->prompt_shared && i < r->pl; i++)
        FR_TRY(fr_session_copy(b->sessions[i], b->sessions[0], err));
    r->t_pp += tool_seconds() - start;
    return FR_OK;
}

static fr_status measure(batched *b, batched_row *r, fr_err *err)
{
    FR_TRY(run_prompts(b, r, err));
    for (int64_t t = 0; t < r->tg; t++) {
        double seconds;
        FR_TRY(tool_run_step(&b->load, b->engine, b->sessions, b->tokens, r->pl, &seconds, err));
        r->t_tg += seconds;
    }
    tool_yards y = tool_row_gauge_measure(&b->gauge);
    if (y.int8 > 0 && y.read > 0) {
        double prompts = b->o->prompt_shared ? 1 : (double)r->pl;
        r->of_int8 = prompts * ((double)r->pp * b->model.token_ops + b->model.output_ops) /
                     r->t_pp / (y.int8 * 1e9);
        r->of_read = (double)r->tg * tool_step_bytes(&b->model, r->pl) / r->t_tg / (y.read * 1e9);
    }
    return FR_OK;
}

static fr_status run_row(batched *b, int64_t pp, int64_t tg, int64_t pl, fr_err *err)
{
    batched_row row = {.pp = pp, .tg = tg, .pl = pl};
    if (too_long(b, pp, tg, pl))
        return FR_OK; /* as the peers do */
    FR_TRY(measure(b, &row, err));
    FR_TRY(print_row(b, &row, err));
    void *p = b->rows;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &p, &b->row_cap, b->n_rows + 1, sizeof *b->rows, err));
    b->rows = p;
    b->rows[b->n_rows++] = row;
    return FR_OK;
}

static fr_status run(const fr_options *o, fr_err *err)
{
    batched b = {.o = o};
    fr_status st;
    FR_TRY_OUT(st, open_batched(&b, err));
    tool_catch_interrupts();
    FR_TRY_OUT(st, warm_up(&b, err));
    int n = b.info.n_threads > b.info.n_threads_batch ? b.info.n_threads : b.info.n_threads_batch;
    FR_TRY_OUT(st, tool_row_gauge_open(o->table_roofline, n, b.info.isa, &b.gauge, err));
    print_head(&b);
    for (size_t i = 0; i < b.pp.n; i++)
        for (size_t k = 0; k < b.tg.n; k++)
            for (size_t l = 0; l < b.pl.n; l++)
                FR_TRY_OUT(st, run_row(&b, b.pp.v[i], b.tg.v[k], b.pl.v[l], err));
    if (o->table_json)
        FR_TRY_OUT(st, write_json(&b, err));
    if (o->memory_report)
        tool_memory_report(b.engine);
out:
    close_batched(&b);
    return st;
}

int main(int argc, char **argv)
{
    fr_options o;
    fr_err err = {0};
    int status;
    if (!tool_options(argc, argv, FR_TOOL_BATCHED, &o, &status))
        return status;
    status = run(&o, &err) == FR_OK ? 0 : tool_fail(FR_TOOL_BATCHED, &err);
    fr_opts_free(&o);
    return status;
}
