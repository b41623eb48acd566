#include "planner/account.h"

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + PLAN_WEIGHT_ALIGN - 1) / PLAN_WEIGHT_ALIGN * PLAN_WEIGHT_ALIGN;
}

uint64_t plan_weight_bytes(const fr_model *m, int weight, int64_t from, int64_t to,
                           fr_layout layout)
{
    const fr_model_weight *w = &m->weights[weight];
    if (w->derive == FR_DERIVE_VIEW)
        return 0;
    uint64_t row = fr_row_bytes(w->shape.type, layout, w->shape.cols);
    return aligned((uint64_t)(to - from + 1) * (uint64_t)w->shape.rows * row);
}

fr_layout plan_weight_layout(const fr_model *m, int weight, int wanted)
{
    if (wanted >= 0 && fr_model_layout_possible(m, weight, (fr_layout)wanted))
        return (fr_layout)wanted;
    return m->weights[weight].shape.layout;
}

uint64_t plan_kv_layer_bytes(const fr_model *m, const fr_plan_options *o, int64_t n_ctx)
{
    fr_kv_layout l;
    if (fr_kv_layout_make(m, o->type_k, o->type_v, o->kv_window, &l, NULL) != FR_OK)
        return 0;
    return aligned(fr_kv_layer_bytes(&l, n_ctx) + fr_kv_recent_bytes(&l));
}

uint64_t plan_logits_bytes(const fr_model *m, int64_t n)
{
    return aligned((uint64_t)n * (uint64_t)m->hp.n_vocab * sizeof(float));
}

uint64_t plan_staging_bytes(const fr_model *m, int64_t n_experts)
{
    static const fr_role trio[] = {FR_ROLE_FFN_GATE_EXPS, FR_ROLE_FFN_UP_EXPS,
                                   FR_ROLE_FFN_DOWN_EXPS};
    uint64_t most = 0;
    for (int il = 0; n_experts > 0 && il < m->hp.n_layer; il++) {
        uint64_t bytes = 0;
        for (int r = 0; r < 3; r++) {
            int w = fr_model_weight_of(m, il, trio[r]);
            if (w >= 0)
                bytes += plan_weight_bytes(m, w, 0, n_experts - 1, plan_weight_layout(m, w, -1));
        }
        most = bytes > most ? bytes : most;
    }
    return 2 * most;
}
