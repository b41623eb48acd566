#include "engine/exec.h"

#include <string.h>

#include "base/log.h"
#include "engine/exec_cpu_internal.h"

const fr_store_part *exec_part(const fr_exec *x, int i, int device, int64_t *from)
{
    int n;
    const fr_store_part *parts = fr_store_parts(x->store, i, &n);
    for (int k = 0; k < n; k++)
        if (parts[k].device == device && parts[k].first >= *from) {
            *from = parts[k].first + parts[k].w.n_mat;
            return &parts[k];
        }
    return NULL;
}

fr_status exec_not_finite(int layer, fr_err *err)
{
    return fr_fail(err, FR_EINTERNAL,
                   "layer %d: found NaN or infinity for the KV cache, expected numbers; the model "
                   "file is damaged (--check-tensors names the tensor)",
                   layer);
}

/* ---- running
 * ----------------------------------------------------------------------------------------------------
 */

static int choose_path(const fr_exec *x, int64_t n_tokens)
{
    return n_tokens <= x->path_tokens[PATH_DIRECT] ? PATH_DIRECT : PATH_EXPAND;
}

int64_t fr_exec_most_seqs(const fr_exec *x)
{
    return x->gpu ? 1 : x->path_tokens[PATH_DIRECT];
}

static fr_stream_mode choose_stream(const fr_exec *x)
{
    if (x->batch->n_outputs >= x->stream_from)
        return FR_STREAM_ALL;
    return x->batch->n_tokens >= x->stream_from ? FR_STREAM_TOKENS : FR_STREAM_NONE;
}

/* *n: of the steps that follow one another; how many of them were run. */
static fr_status run_here(fr_exec *x, const fr_step *step, int *n, fr_err *err)
{
    const fr_node *node = &x->graph->nodes[step->node];
    int n_left = *n;
    *n = 1;
    if (step->device != FR_PLAN_CPU)
        return exec_gpu_run(x, node, step->device, err);
    FR_TRY(exec_gpus_meet(x, err));
    int done;
    FR_TRY(exec_cpu_run_fused(x, step, n_left, &done, err));
    *n = done > 0 ? done : 1;
    return done > 0 ? FR_OK : exec_cpu_run(x, node, err);
}

static fr_status run_step(fr_exec *x, const fr_step *step, int *n, fr_err *err)
{
    if (step->kind == FR_STEP_RUN)
        return run_here(x, step, n, err);
    *n = 1;
    switch (step->kind) {
    case FR_STEP_STREAM:
        return exec_stream(x, step, err);
    case FR_STEP_COPY:
        return exec_gpus_copy(x, step, err);
    case FR_STEP_SUM:
        return exec_gpus_sum(x, step, err);
    default:
        return FR_EINTERNAL;
    }
}

/* Of a node on a GPU, what is measured is the issuing. */
static fr_status run_measured(fr_exec *x, const fr_step *step, int *n, fr_err *err)
{
    if (!x->profile || step->node == x->graph->n_nodes)
        return run_step(x, step, n, err);
    memset(x->moe_seconds, 0, sizeof x->moe_seconds);
    memset(x->ffn_seconds, 0, sizeof x->ffn_seconds);
    exec_moment from = exec_profile_now(x->cpu);
    fr_status st = run_step(x, step, n, err);
    exec_moment to = exec_profile_now(x->cpu);
    exec_profile_node(x->profile, x->m, &x->graph->nodes[step->node], x->batch->n_tokens, &from,
                      &to, x->moe_seconds, x->ffn_seconds);
    return st;
}

/* The nodes that a batch without outputs runs: on the CPU, all that the last layer still has to do
 * is to write its cache. Who watches products wants to see them. */
static int n_nodes_for_cache(const fr_exec *x)
{
    int n = x->graph->first_output_node;
    while (!x->gpu && !x->observe && n > 0 && x->graph->nodes[n - 1].op != FR_OP_KV_STORE)
        n--;
    return n > 0 ? n : x->graph->first_output_node;
}

static fr_status run_steps(fr_exec *x, const fr_schedule *s, fr_err *err)
{
    int n_nodes = x->graph->n_nodes + 1, n;
    if (x->batch->n_outputs == 0)
        n_nodes = n_nodes_for_cache(x);
    for (int i = 0; i < s->n_steps; i += n) {
        n = s->n_steps - i;
        if (atomic_load_explicit(x->batch->cancel, memory_order_relaxed))
            return fr_fail(err, FR_ECANCELLED, "computation: stopped by the user");
        if (s->steps[i].node < n_nodes)
            FR_TRY(run_measured(x, &s->steps[i], &n, err));
        else
            n = 1;
    }
    if (n_nodes < x->graph->first_output_node)
        exec_cpu_kv_keep(x, x->graph->nodes[n_nodes - 1].layer);
    return FR_OK;
}

static fr_status run_on_all(fr_exec *x, const fr_schedule *s, fr_err *err)
{
    exec_cpu_begin(x);
    if (!x->gpu)
        return run_steps(x, s, err);
    fr_status st = exec_gpus_begin(x, s->used, err);
    if (st == FR_OK)
        st = run_steps(x, s, err);
    if (st == FR_OK)
        st = exec_gpus_end(x, s->used, err);
    if (st != FR_OK)
        exec_gpus_settle(x);
    return st;
}

fr_status fr_exec_run(fr_exec *x, const fr_exec_batch *batch, fr_err *err)
{
    int path = choose_path(x, batch->n_tokens);
    x->batch = batch;
    x->graph = &x->graphs[path];
    x->at = x->offsets[path];
    x->cpu = batch->n_tokens == 1 ? x->cpu_single : x->cpu_batch;
    exec_moment from = x->profile ? exec_profile_now(x->cpu) : (exec_moment){0};
    FR_TRY(run_on_all(x, &x->schedules[path][choose_stream(x)], err));
    if (x->profile)
        exec_profile_step(x->profile, batch->n_tokens, fr_cpu_n_threads(x->cpu),
                          exec_profile_now(x->cpu).wall - from.wall);
    return FR_OK;
}

/* ---- opening
 * ----------------------------------------------------------------------------------------------------
 */

void *exec_take(fr_exec *x, size_t bytes, fr_err *err)
{
    if (bytes == 0)
        bytes = 1; /* as the allocator counts it */
    void *p = fr_mem_array(FR_MEM_WORKSPACE, bytes, 1, err);
    if (!p)
        return NULL;
    x->bytes += bytes;
    if (x->cfg.huge_pages)
        fr_mem_want_huge_pages(p); /* rows of tokens lie on pages of their own else */
    return p;
}

static fr_status build_path(fr_exec *x, int p, size_t *most, fr_err *err)
{
    fr_graph *g = &x->graphs[p];
    fr_graph_config cfg = {.expand = p == PATH_EXPAND,
                           .apart = x->cfg.plan ? x->cfg.plan->apart : NULL};
    FR_TRY(fr_graph_build(x->m, &cfg, g, err));
    x->offsets[p] = FR_NEW(size_t, FR_MEM_ENGINE, (size_t)g->n_values, err);
    if (!x->offsets[p])
        return FR_ENOMEM;
    x->path_tokens[p] = plan_pass_tokens(x->m, x->n_paths, p, x->cfg.n_ubatch);
    int64_t n_outputs = x->cfg.n_outputs < x->path_tokens[p] ? x->cfg.n_outputs : x->path_tokens[p];
    size_t bytes = fr_graph_place(g, x->path_tokens[p], n_outputs, x->offsets[p]);
    *most = bytes > *most ? bytes : *most;
    for (int mode = 0; mode < FR_STREAM_MODES; mode++)
        FR_TRY(fr_schedule_make(x->m, g, &x->places, (fr_stream_mode)mode, &x->schedules[p][mode],
                                err));
    return FR_OK;
}

static fr_status build_paths(fr_exec *x, fr_err *err)
{
    bool expands = x->m->mla == FR_MLA_EXPAND || x->m->mla == FR_MLA_AUTO;
    x->n_paths = expands && !(x->cfg.plan && x->cfg.plan->direct_only) ? 2 : 1;
    FR_TRY(fr_places_make(x->m, x->cfg.plan, &x->places, err));
    x->stream_from = x->cfg.plan ? fr_schedule_stream_from(x->m, x->cfg.plan) : INT64_MAX;
    for (int p = 0; p < x->n_paths; p++)
        FR_TRY(build_path(x, p, &x->work_bytes, err));
    x->work = exec_take(x, x->work_bytes, err);
    return x->work ? FR_OK : FR_ENOMEM;
}

fr_status fr_exec_open(const fr_model *m, const fr_store *store, fr_cpu *cpu_single,
                       fr_cpu *cpu_batch, const fr_exec_config *cfg, fr_exec **out, fr_err *err)
{
    *out = NULL;
    fr_exec *x = FR_NEW(fr_exec, FR_MEM_ENGINE, 1, err);
    if (!x)
        return FR_ENOMEM;
    x->m = m;
    x->store = store;
    x->cpu_single = cpu_single;
    x->cpu_batch = cpu_batch;
    x->cfg = *cfg;
    fr_status st;
    FR_TRY_OUT(st, build_paths(x, err));
    FR_TRY_OUT(st, exec_cpu_open(x, err));
    FR_TRY_OUT(st, exec_gpus_open(x, err));
    *out = x;
    return FR_OK;
out:
    fr_exec_close(x);
    return st;
}

void fr_exec_close(fr_exec *x)
{
    if (!x)
        return;
    exec_gpus_close(x);
    for (int p = 0; p < N_PATHS; p++) {
        fr_graph_free(&x->graphs[p]);
        for (int mode = 0; mode < FR_STREAM_MODES; mode++)
            fr_schedule_free(&x->schedules[p][mode]);
        fr_mem_free(x->offsets[p]);
    }
    fr_places_free(&x->places);
    exec_cpu_close(x);
    fr_mem_free(x->work);
    exec_profile_close(x->profile);
    fr_mem_free(x);
}

fr_status fr_exec_observe(fr_exec *x, fr_observe_fn fn, void *user, fr_err *err)
{
    const fr_hparams *hp = &x->m->hp;
    fr_mem_free(x->hidden);
    x->hidden = NULL;
    x->observe = NULL;
    if (!fn)
        return FR_OK;
    if (x->gpu)
        return fr_fail(err, FR_EUNSUPPORTED,
                       "observing products: found weights on GPUs, expected all in RAM; use "
                       "--device none");
    size_t rows = (size_t)(x->cfg.n_ubatch * hp->n_expert_used);
    x->hidden = fr_mem_array(FR_MEM_WORKSPACE, rows, (size_t)hp->n_ff_exp * sizeof(float), err);
    if (!x->hidden)
        return FR_ENOMEM;
    x->observe = fn;
    x->observe_user = user;
    return FR_OK;
}

fr_status fr_exec_profile(fr_exec *x, bool on, fr_err *err)
{
    exec_profile_close(x->profile);
    x->profile = on ? exec_profile_open(x->m, err) : NULL;
    fr_cpu_clock(x->cpu_single, x->profile != NULL);
    fr_cpu_clock(x->cpu_batch, x->profile != NULL);
    return x->profile || !on ? FR_OK : FR_ENOMEM;
}

fr_profile *fr_exec_profiled(const fr_exec *x)
{
    return x->profile;
}

uint64_t fr_exec_bytes(const fr_exec *x)
{
    return x->bytes;
}
