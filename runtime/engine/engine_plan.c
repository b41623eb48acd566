/* The plan of an engine: from its configuration to the plan that it keeps. */
#include "base/log.h"
#include "engine/engine_internal.h"

static fr_plan_options options_of(const fr_engine *e)
{
    const fr_engine_config *cfg = &e->cfg;
    fr_plan_options o = cfg->place.options;
    int n_single = fr_cpu_n_threads(e->cpu_single), n_batch = fr_cpu_n_threads(e->cpu_batch);
    o.n_ctx = cfg->n_ctx;
    o.n_ubatch = cfg->n_ubatch;
    o.n_seq = (int)engine_n_seq(e);
    o.n_outputs = engine_n_outputs(e);
    if (engine_n_seq(e) > 1) /* the logits of a step, and those that the session keeps */
        o.n_outputs += engine_n_seq(e);
    o.type_k = cfg->type_k;
    o.type_v = cfg->type_v;
    o.kv_window = cfg->kv_window;
    o.expand_bytes = cfg->expand_bytes;
    o.n_threads = n_single > n_batch ? n_single : n_batch;
    return o;
}

/* What follows from the plan for the engine. */
static void apply_plan(fr_engine *e)
{
    const fr_plan *p = e->plan;
    const fr_plan_device *ram = &p->devices[FR_PLAN_CPU];
    uint64_t derived = 0;
    for (int i = 0; i < p->n_placements; i++)
        if (p->placements[i].device == FR_PLAN_CPU &&
            e->model->weights[p->placements[i].tensor].derive != FR_DERIVE_NONE)
            derived += p->placements[i].bytes;
    e->planned =
        (fr_planned_bytes){ram->weights - derived, derived, ram->kv, ram->workspace + ram->logits};
    if (e->cfg.n_ctx == 0 && p->opts.n_ctx < e->model->hp.n_ctx_train)
        fr_log_info("context: %lld tokens fit into memory; the model was trained for %lld",
                    (long long)p->opts.n_ctx, (long long)e->model->hp.n_ctx_train);
    e->cfg.n_ctx = p->opts.n_ctx;
    e->cfg.n_ubatch = p->opts.n_ubatch;
}

/* An error is left out: the first one is what planning returns. */
static void log_findings(const fr_diagnostics *found)
{
    for (size_t i = 0; i < found->n; i++) {
        const fr_diagnostic *d = &found->items[i];
        if (d->severity != FR_ERROR)
            fr_log(d->severity == FR_WARNING ? FR_LOG_WARN : FR_LOG_INFO, "%s", d->text);
    }
}

static fr_status make_plan(fr_engine *e, const fr_hardware *hw, fr_err *err)
{
    fr_plan_options o = options_of(e);
    fr_diagnostics found = {0};
    fr_status st = fr_plan_make(e->model, hw, e->rules, &o, &e->plan, &found, err);
    log_findings(&found);
    fr_diagnostics_free(&found);
    if (st == FR_OK)
        log_findings(&e->plan->notes);
    return st;
}

fr_status engine_plan(fr_engine *e, fr_err *err)
{
    const fr_placement_config *place = &e->cfg.place;
    fr_hardware here;
    if (!place->hardware)
        FR_TRY(fr_engine_hardware(place->sim, &here, err));
    if (place->rules)
        FR_TRY(place->rules(place->rules_user, e->model, &e->rules, err));
    else
        FR_TRY(fr_rules_new(&e->rules, err));
    FR_TRY(make_plan(e, place->hardware ? place->hardware : &here, err));
    apply_plan(e);
    return FR_OK;
}
