#include "support/hybrid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static fr_status make_rules(void *user, const fr_model *m, fr_rules **out, fr_err *err)
{
    const hybrid_shape *s = user;
    FR_TRY(fr_rules_new(out, err));
    fr_status st = s->rules ? fr_rules_add_cli(*out, s->rules, err) : FR_OK;
    if (st == FR_OK && s->cpu_moe)
        st = fr_rules_add_cpu_moe(*out, s->cpu_moe, m->hp.n_layer_dense_lead, err);
    if (st != FR_OK) {
        fr_rules_free(*out);
        *out = NULL;
    }
    return st;
}

static void make_machine(const hybrid_shape *s, bool sim, fr_hardware *hw)
{
    fr_hardware_defaults(hw);
    hw->n_gpus = s->n_gpus;
    hw->ram_bandwidth = s->stream ? 1e8 : 1e12;
    hw->cpu_int8_ops = hw->cpu_f32_ops = s->stream ? 1e9 : 1e13;
    for (int i = 0; i < s->n_gpus; i++) {
        fr_gpu_hw *g = &hw->gpus[i];
        g->device = sim ? i : 0;
        g->vram_bytes = (uint64_t)HYBRID_GPU_MIB << 20;
        g->reserve_bytes = 0;
        g->h2d = g->d2h = s->stream ? 1e12 : 1e6;
    }
}

void hybrid_place(fr_engine_config *cfg, const hybrid_shape *shape, bool sim, hybrid_machine *m)
{
    fr_placement_config *p = &cfg->place;
    m->shape = shape;
    make_machine(shape, sim, &m->hw);
    *p = (fr_placement_config){.hardware = &m->hw,
                               .rules = make_rules,
                               .rules_user = (void *)(uintptr_t)shape,
                               .options = fr_plan_defaults(),
                               .sim = sim ? "" : NULL};
    p->options.fit = false;
    p->options.n_gpu_layers = shape->ngl;
    p->options.kv_on_cpu = shape->kv_on_cpu;
    for (int i = 0; i < HYBRID_GPUS; i++) {
        p->options.split[i] = shape->split[i];
        p->options.n_split = shape->split[i] > 0 ? i + 1 : p->options.n_split;
    }
}

typedef struct {
    hybrid_outcome *out;
    int64_t n_vocab;
} sink;

static fr_status keep(void *user, int64_t pos, int64_t n_rows, const float *logits, fr_err *err)
{
    (void)err;
    sink *s = user;
    memcpy(s->out->logits + pos * s->n_vocab, logits,
           (size_t)(n_rows * s->n_vocab) * sizeof *logits);
    return FR_OK;
}

static fr_status run_session(fr_session *s, const int32_t *ids, int64_t n, int64_t n_vocab,
                             hybrid_outcome *out, fr_err *err)
{
    sink k = {out, n_vocab};
    FR_TRY(fr_session_append_all(s, ids, n, keep, &k, err));
    for (int i = 0; i < HYBRID_GREEDY; i++) {
        const float *logits = fr_session_logits(s);
        int32_t best = 0;
        for (int32_t t = 1; t < n_vocab; t++)
            best = logits[t] > logits[best] ? t : best;
        out->greedy[i] = best;
        if (i + 1 < HYBRID_GREEDY)
            FR_TRY(fr_session_append(s, &best, 1, err));
    }
    return FR_OK;
}

fr_status hybrid_run(const fr_engine_config *cfg, const int32_t *ids, int64_t n,
                     hybrid_outcome *out, uint64_t planned[HYBRID_GPUS], fr_err *err)
{
    fr_engine *e = NULL;
    fr_session *s = NULL;
    fr_status st;
    *out = (hybrid_outcome){0};
    FR_TRY_OUT(st, fr_engine_open(cfg, &e, err));
    const fr_plan *p = fr_engine_plan(e);
    for (int i = 0; planned && i < HYBRID_GPUS; i++)
        planned[i] = i + 1 < p->n_devices ? p->devices[i + 1].used : 0;
    FR_TRY_OUT(st, fr_session_open(e, &s, err));
    int64_t n_vocab = fr_engine_describe(e).n_vocab;
    out->n = (size_t)(n * n_vocab);
    out->logits = calloc(out->n, sizeof *out->logits);
    if (!out->logits)
        abort();
    st = run_session(s, ids, n, n_vocab, out, err);
    if (st != FR_OK) {
        free(out->logits);
        out->logits = NULL;
    }
out:
    fr_session_close(s);
    fr_engine_close(e);
    return st;
}

static void errors_only(void *user, fr_log_level level, const char *line)
{
    (void)user;
    if (level == FR_LOG_ERROR)
        fprintf(stderr, "%s\n", line);
}

void hybrid_log_errors(void)
{
    fr_log_set_sink(errors_only, NULL);
}
