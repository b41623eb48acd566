/* Bytes and operations of the parts of a layer, from the shapes of its weights. */
#include "planner/cost_layers.h"

#include "kv/kv.h"

static bool is_float(fr_type t)
{
    return t == FR_TYPE_F32 || t == FR_TYPE_F16 || t == FR_TYPE_BF16;
}

/* Adds the weight of a role, if there is one, of which a token uses `mats` matrices (0: all). */
static void add_role(const fr_model *m, int layer, fr_role role, int64_t mats, plan_work *out)
{
    int i = fr_model_weight_of(m, layer, role);
    if (i < 0)
        return;
    const fr_weight *w = &m->weights[i].shape;
    double rows = (double)w->rows * (double)w->n_mat;
    double used = (double)w->rows * (double)(mats > 0 ? mats : w->n_mat);
    double ops = 2 * used * (double)w->cols;
    out->bytes += rows * (double)fr_row_bytes(w->type, w->layout, w->cols);
    if (is_float(w->type)) {
        out->float_ops += ops;
    } else {
        out->int_ops += ops;
        out->weights += rows * (double)w->cols;
    }
}

static void add_roles(const fr_model *m, int layer, const fr_role *roles, size_t n, plan_work *out)
{
    for (size_t i = 0; i < n; i++)
        add_role(m, layer, roles[i], 0, out);
}

#define ADD_ROLES(m, layer, out, ...)                                                              \
    do {                                                                                           \
        static const fr_role roles_[] = {__VA_ARGS__};                                             \
        add_roles(m, layer, roles_, sizeof roles_ / sizeof *roles_, out);                          \
    } while (0)

/* With expanded K and V, kv_b is counted in the weights' bytes only: its operations are those of
 * the positions that are expanded (plan_attn_work). */
static void add_kv_b(const fr_model *m, int il, plan_layer_work *w)
{
    plan_work up = {0};
    if (fr_model_weight_of(m, il, FR_ROLE_ATTN_KV_B) >= 0)
        ADD_ROLES(m, il, &up, FR_ROLE_ATTN_KV_B);
    else
        ADD_ROLES(m, il, &up, FR_ROLE_ATTN_K_UP, FR_ROLE_ATTN_V_B);
    w->attn[1].bytes += up.bytes;
    w->attn[1].weights += up.weights;
    if (m->mla == FR_MLA_PLAIN) {
        w->attn[0].bytes += up.bytes;
        w->attn[0].weights += up.weights;
        w->attn[0].int_ops += up.int_ops;
        w->attn[0].float_ops += up.float_ops;
    } else {
        ADD_ROLES(m, il, &w->attn[0], FR_ROLE_ATTN_K_B, FR_ROLE_ATTN_V_B);
    }
}

plan_layer_work plan_layer_work_of(const fr_model *m, int il)
{
    plan_layer_work w = {.ffn = {.bytes = 0}};
    ADD_ROLES(m, il, &w.attn[0], FR_ROLE_ATTN_NORM, FR_ROLE_ATTN_Q, FR_ROLE_ATTN_Q_A,
              FR_ROLE_ATTN_Q_A_NORM, FR_ROLE_ATTN_Q_B, FR_ROLE_ATTN_KV_A_MQA,
              FR_ROLE_ATTN_KV_A_NORM, FR_ROLE_ATTN_OUTPUT, FR_ROLE_FFN_NORM, FR_ROLE_FFN_GATE_INP,
              FR_ROLE_EXP_PROBS_B);
    w.attn[1] = w.attn[0];
    add_kv_b(m, il, &w);
    ADD_ROLES(m, il, &w.ffn, FR_ROLE_FFN_GATE, FR_ROLE_FFN_UP, FR_ROLE_FFN_DOWN,
              FR_ROLE_FFN_GATE_SHEXP, FR_ROLE_FFN_UP_SHEXP, FR_ROLE_FFN_DOWN_SHEXP);
    int64_t used = m->hp.n_expert_used;
    add_role(m, il, FR_ROLE_FFN_GATE_EXPS, used, &w.experts);
    add_role(m, il, FR_ROLE_FFN_UP_EXPS, used, &w.experts);
    add_role(m, il, FR_ROLE_FFN_DOWN_EXPS, used, &w.experts);
    return w;
}

plan_work plan_output_work(const fr_model *m)
{
    plan_work w = {.bytes = 0};
    bool own = fr_model_weight_of(m, -1, FR_ROLE_OUTPUT) >= 0;
    add_role(m, -1, own ? FR_ROLE_OUTPUT : FR_ROLE_TOKEN_EMBD, 0, &w);
    return w;
}

plan_attn_work plan_attn_work_of(const fr_model *m, const fr_plan_options *o)
{
    const fr_hparams *hp = &m->hp;
    double heads = (double)hp->n_head, lora = (double)hp->kv_lora_rank;
    double nope = (double)hp->qk_nope, rope = (double)hp->qk_rope, v = (double)hp->v_head;
    plan_attn_work w = {.pair_ops = {2 * heads * (2 * lora + rope), 2 * heads * (nope + rope + v)},
                        .expand_ops = 2 * heads * (nope + v) * lora};
    fr_kv_layout l;
    if (m->mla == FR_MLA_PLAIN)
        w.pair_ops[0] = w.pair_ops[1];
    if (fr_kv_layout_make(m, o->type_k, o->type_v, o->kv_window, &l, NULL) == FR_OK)
        w.pos_bytes = (double)fr_kv_pos_bytes(&l) / (double)hp->n_layer;
    return w;
}
