#include "engine/engine_internal.h"

#include "base/log.h"
#include "engine/engine_threads.h"

fr_engine_config fr_engine_defaults(void)
{
    return (fr_engine_config){
        .n_ubatch = 512,
        .max_isa = FR_ISA_AUTO,
        .mla = FR_MLA_AUTO,
        .type_k = FR_TYPE_F16,
        .type_v = FR_TYPE_F16,
        .kv_window = FR_KV_WINDOW,
        .expand_bytes = 256u << 20,
        .mmap = true,
        .reading = FR_READ_AUTO,
        .pages = FR_PAGES_ADVISE,
        .repack = true,
        .place.options = fr_plan_defaults(),
    };
}

static fr_status check_config(const fr_engine_config *cfg, fr_err *err)
{
    if (!cfg->model_path || !cfg->model_path[0])
        return fr_fail(err, FR_EINVAL, "model: no file named; use -m FILE");
    if (cfg->n_ctx < 0 || cfg->n_ctx > INT32_MAX)
        return fr_fail(err, FR_ERANGE, "context: found %lld tokens, expected 0 to %d",
                       (long long)cfg->n_ctx, INT32_MAX);
    if (cfg->n_ubatch < 1 || cfg->n_ubatch > 1 << 20)
        return fr_fail(err, FR_ERANGE, "ubatch: found %lld tokens, expected 1 to %d",
                       (long long)cfg->n_ubatch, 1 << 20);
    return FR_OK;
}

/* Numbers of threads that are not given. */
static fr_status tune_threads(fr_engine *e, const fr_cpu_config *cpu, fr_err *err)
{
    fr_engine_config *cfg = &e->cfg;
    fr_thread_counts n;
    if (!cfg->autotune_threads || (cfg->n_threads > 0 && cfg->n_threads_batch > 0))
        return FR_OK;
    FR_TRY(engine_thread_counts(e->model, cpu, cfg->thread_cache, &n, err));
    cfg->n_threads = cfg->n_threads > 0 ? cfg->n_threads : n.n_single;
    cfg->n_threads_batch = cfg->n_threads_batch > 0 ? cfg->n_threads_batch : n.n_batch;
    fr_log_info("threads: %d for single tokens, %d for batches", cfg->n_threads,
                cfg->n_threads_batch);
    return FR_OK;
}

static fr_status open_pools(fr_engine *e, fr_err *err)
{
    fr_cpu_config cfg = {.max_isa = e->cfg.max_isa,
                         .cpu_mask = e->cfg.cpu_mask,
                         .cpu_range = e->cfg.cpu_range,
                         .bind_cores = e->cfg.cpu_strict,
                         .numa = e->cfg.numa};
    FR_TRY(tune_threads(e, &cfg, err));
    cfg.n_threads = e->cfg.n_threads;
    FR_TRY(fr_cpu_open(&cfg, &e->cpu_single, err));
    int n_single = fr_cpu_n_threads(e->cpu_single);
    e->cpu_batch = e->cpu_single;
    if (e->cfg.n_threads_batch > 0 && e->cfg.n_threads_batch != n_single) {
        cfg.n_threads = e->cfg.n_threads_batch;
        e->cpu_batch = NULL;
        FR_TRY(fr_cpu_open(&cfg, &e->cpu_batch, err));
    }
    return FR_OK;
}

static fr_status read_model(fr_engine *e, fr_err *err)
{
    const fr_engine_config *cfg = &e->cfg;
    FR_TRY(fr_gguf_open(cfg->model_path, cfg->mmap ? 0 : FR_GGUF_NO_MMAP, &e->gguf, err));
    FR_TRY(fr_model_open(e->gguf, cfg->mla, &e->model, err));
    if (!cfg->repack)
        fr_model_set_layouts(e->model, false);
    FR_TRY(fr_vocab_open(e->gguf, &e->vocab, err));
    if (fr_vocab_size(e->vocab) > e->model->hp.n_vocab)
        return fr_fail(err, FR_EFORMAT,
                       "vocabulary: found %d tokens, but token_embd.weight has %lld rows",
                       fr_vocab_size(e->vocab), (long long)e->model->hp.n_vocab);
    fr_str name = FR_STR("");
    if (fr_gguf_find(e->gguf, "general.name"))
        FR_TRY(fr_gguf_get_str(e->gguf, "general.name", &name, err));
    e->name = fr_mem_strndup(FR_MEM_ENGINE, name.p, name.n, err);
    return e->name ? FR_OK : FR_ENOMEM;
}

static bool streams_experts(const fr_plan *p)
{
    for (int i = 1; i < p->n_devices; i++)
        if (p->devices[i].staging > 0)
            return true;
    return false;
}

static fr_status load_weights(fr_engine *e, fr_err *err)
{
    const fr_engine_config *cfg = &e->cfg;
    fr_store_config store = {.mmap = cfg->mmap,
                             .reading = cfg->reading,
                             .pages = cfg->pages,
                             .repack_cache = cfg->repack_cache,
                             .lock = cfg->mlock,
                             .check = cfg->check_tensors,
                             .progress = cfg->progress,
                             .progress_user = cfg->progress_user,
                             .plan = e->plan,
                             .gpu = e->gpu,
                             .pin = streams_experts(e->plan)};
    return fr_store_open(e->model, e->cpu_batch, &store, &e->store, err);
}

static fr_status place(fr_engine *e, fr_err *err)
{
    FR_TRY(engine_plan(e, err));
    FR_TRY(engine_take_gpus(e, err));
    if (e->cfg.expand_bytes == 0)
        e->cfg.expand_bytes = UINT64_MAX;
    if (e->cfg.mla != FR_MLA_PLAIN && e->cfg.type_v != e->cfg.type_k)
        fr_log_info("KV cache: V is a view of the latent K rows (-mla %d); -ctv has no effect",
                    (int)e->cfg.mla);
    return fr_kv_layout_make(e->model, e->cfg.type_k, e->cfg.type_v, e->cfg.kv_window, &e->kv, err);
}

static fr_status open_exec(fr_engine *e, fr_err *err)
{
    fr_exec_config cfg = {
        .n_ctx = e->cfg.n_ctx,
        .n_ubatch = e->cfg.n_ubatch,
        .n_outputs = engine_n_outputs(e) > engine_n_seq(e) ? engine_n_outputs(e) : engine_n_seq(e),
        .expand_bytes = e->cfg.expand_bytes,
        .kv = e->kv,
        .plan = e->plan,
        .gpu = e->gpu,
        .huge_pages = e->cfg.pages != FR_PAGES_SMALL,
    };
    FR_TRY(fr_exec_open(e->model, e->store, e->cpu_single, e->cpu_batch, &cfg, &e->exec, err));
    return engine_together_open(e, err);
}

fr_status fr_engine_open(const fr_engine_config *cfg, fr_engine **out, fr_err *err)
{
    *out = NULL;
    FR_TRY(check_config(cfg, err));
    fr_engine *e = FR_NEW(fr_engine, FR_MEM_ENGINE, 1, err);
    if (!e)
        return FR_ENOMEM;
    e->cfg = *cfg;
    fr_status st;
    FR_TRY_OUT(st, read_model(e, err));
    FR_TRY_OUT(st, open_pools(e, err));
    FR_TRY_OUT(st, place(e, err));
    FR_TRY_OUT(st, load_weights(e, err));
    FR_TRY_OUT(st, open_exec(e, err));
    e->cfg.model_path = NULL;
    e->cfg.place = (fr_placement_config){.options = e->plan->opts};
    *out = e;
    return FR_OK;
out:
    fr_engine_close(e);
    return st;
}

void fr_engine_close(fr_engine *e)
{
    if (!e)
        return;
    engine_together_close(&e->together);
    fr_exec_close(e->exec);
    fr_store_close(e->store);
    engine_give_gpus(e);
    fr_plan_free(e->plan);
    fr_rules_free(e->rules);
    fr_vocab_free(e->vocab);
    fr_model_close(e->model);
    fr_gguf_close(e->gguf);
    if (e->cpu_batch != e->cpu_single)
        fr_cpu_close(e->cpu_batch);
    fr_cpu_close(e->cpu_single);
    fr_mem_free(e->name);
    fr_mem_free(e);
}

fr_engine_info fr_engine_describe(const fr_engine *e)
{
    return (fr_engine_info){
        .name = e->name,
        .arch = e->model->arch_name,
        .n_params = e->model->n_params,
        .n_layer = e->model->hp.n_layer,
        .n_vocab = e->model->hp.n_vocab,
        .n_ctx_train = e->model->hp.n_ctx_train,
        .n_ctx = e->cfg.n_ctx,
        .file_bytes = e->model->file_bytes,
        .derived_bytes = e->model->derived_bytes,
        .kv_bytes = (fr_kv_layer_bytes(&e->kv, e->cfg.n_ctx) + fr_kv_recent_bytes(&e->kv)) *
                    (uint64_t)e->kv.n_layer,
        .workspace_bytes = fr_exec_bytes(e->exec) + engine_together_bytes(e),
        .planned = e->planned,
        .loading = fr_store_loaded(e->store),
        .logits_bytes =
            (uint64_t)e->model->hp.n_vocab * sizeof(float) * (uint64_t)engine_n_outputs(e),
        .n_threads = fr_cpu_n_threads(e->cpu_single),
        .n_threads_batch = fr_cpu_n_threads(e->cpu_batch),
        .isa = fr_cpu_isa(e->cpu_single),
    };
}

const fr_plan *fr_engine_plan(const fr_engine *e)
{
    return e->plan;
}

fr_gpu_bytes fr_engine_gpu_bytes(const fr_engine *e, int device)
{
    fr_gpu_bytes b = {.weights = fr_store_bytes(e->store, device),
                      .kv = e->kv_now[device],
                      .kv_peak = e->kv_peak[device]};
    fr_exec_gpu_bytes(e->exec, device, &b.workspace, &b.staging);
    return b;
}

fr_status fr_engine_observe(fr_engine *e, fr_observe_fn fn, void *user, fr_err *err)
{
    return fr_exec_observe(e->exec, fn, user, err);
}

fr_status fr_engine_profile(fr_engine *e, bool on, fr_err *err)
{
    return fr_exec_profile(e->exec, on, err);
}

const fr_profile *fr_engine_profiled(const fr_engine *e)
{
    return fr_exec_profiled(e->exec);
}

const fr_vocab *fr_engine_vocab(const fr_engine *e)
{
    return e->vocab;
}

fr_str fr_engine_chat_template(const fr_engine *e)
{
    fr_str text = FR_STR("");
    if (fr_gguf_get_str(e->gguf, "tokenizer.chat_template", &text, NULL) != FR_OK)
        return FR_STR("");
    return text;
}
