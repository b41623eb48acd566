/* The plan of an engine: this machine without its GPUs, which the engine cannot use yet. */
#include "base/log.h"
#include "engine/engine_internal.h"
#include "planner/plan.h"

static fr_plan_options options_of(const fr_engine *e)
{
    const fr_engine_config *cfg = &e->cfg;
    fr_plan_options o = fr_plan_defaults();
    int n_single = fr_cpu_n_threads(e->cpu_single), n_batch = fr_cpu_n_threads(e->cpu_batch);
    o.n_ctx = cfg->n_ctx;
    o.n_ubatch = cfg->n_ubatch;
    o.n_outputs = cfg->all_logits ? cfg->n_ubatch : 1;
    o.type_k = cfg->type_k;
    o.type_v = cfg->type_v;
    o.kv_window = cfg->kv_window;
    o.expand_bytes = cfg->expand_bytes;
    o.n_threads = n_single > n_batch ? n_single : n_batch;
    return o;
}

static void keep_plan(fr_engine *e, const fr_plan *p)
{
    const fr_plan_device *ram = &p->devices[FR_PLAN_CPU];
    uint64_t derived = 0;
    for (int i = 0; i < p->n_placements; i++)
        if (e->model->weights[p->placements[i].tensor].derive != FR_DERIVE_NONE)
            derived += p->placements[i].bytes;
    e->planned =
        (fr_planned_bytes){ram->weights - derived, derived, ram->kv, ram->workspace + ram->logits};
    if (e->cfg.n_ctx == 0 && p->opts.n_ctx < e->model->hp.n_ctx_train)
        fr_log_info("context: %lld tokens fit into memory; the model was trained for %lld",
                    (long long)p->opts.n_ctx, (long long)e->model->hp.n_ctx_train);
    e->cfg.n_ctx = p->opts.n_ctx;
    e->cfg.n_ubatch = p->opts.n_ubatch;
}

fr_status engine_plan(fr_engine *e, fr_err *err)
{
    fr_hardware hw;
    fr_rules *rules = NULL;
    fr_plan *p = NULL;
    fr_plan_options o = options_of(e);
    fr_status st;
    FR_TRY(fr_hardware_probe(&hw, err));
    hw.n_gpus = 0;
    FR_TRY_OUT(st, fr_rules_new(&rules, err));
    FR_TRY_OUT(st, fr_plan_make(e->model, &hw, rules, &o, &p, NULL, err));
    keep_plan(e, p);
out:
    fr_plan_free(p);
    fr_rules_free(rules);
    return st;
}
