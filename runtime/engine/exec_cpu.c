/* Nodes on the CPU but for attention. */
#include <math.h>
#include <string.h>

#include "engine/exec_cpu_internal.h"

static const float *vector_of(const fr_exec *x, int i)
{
    return i < 0 ? NULL : exec_cpu_weight(x, i)->data;
}

/* ---- matrix products
 * --------------------------------------------------------------------------------------------- */

static bool same_view(fr_view a, fr_view b)
{
    return a.value == b.value && a.at == b.at && a.width == b.width && a.n == b.n &&
           a.stride == b.stride;
}

/* Several matrices in a row often read one input (gate and up, q_a and kv_a): it is prepared once.
 * Floats in a row are read where they are. */
const fr_act *exec_cpu_prepare(fr_exec *x, fr_view in, fr_act_type type)
{
    exec_prepared *p = &x->prep;
    int64_t ld = in.n > 1 ? in.stride : exec_ld(x, in), n_rows = exec_rows(x, in.value) * in.n;
    if (type == FR_ACT_F32 && ld == in.width) {
        x->floats = fr_cpu_act_prepare(x->cpu, type, exec_cpu_data(x, in), ld, n_rows, ld, NULL);
        return &x->floats;
    }
    if (!p->valid || !same_view(p->view, in) || p->act.type != type) {
        p->act =
            fr_cpu_act_prepare(x->cpu, type, exec_cpu_data(x, in), ld, n_rows, in.width, x->act);
        p->view = in;
        p->valid = true;
    }
    return &p->act;
}

static void tell(const fr_exec *x, int weight, int64_t n_mat, const float *rows, int64_t ldx,
                 int64_t n_rows, int64_t cols, const int32_t *mats, int64_t per_row)
{
    const fr_model_weight *w = &x->m->weights[weight];
    if (x->observe && w->src)
        x->observe(x->observe_user,
                   &(fr_observation){w->name, n_mat, rows, ldx, n_rows, cols, mats, per_row});
}

fr_act_type exec_cpu_act_type(const fr_exec *x, const fr_node *n)
{
    fr_weight w = exec_as_read_by(exec_cpu_weight(x, n->weight[0]), n->in[0]);
    return fr_cpu_act_type(x->cpu, &w);
}

void exec_cpu_products(fr_exec *x, const fr_node *const *nodes, int n)
{
    fr_view in = nodes[0]->in[0];
    fr_weight w[FR_CPU_MOST_PRODUCTS];
    fr_cpu_product products[FR_CPU_MOST_PRODUCTS];
    const fr_act *act = exec_cpu_prepare(x, in, exec_cpu_act_type(x, nodes[0]));
    int64_t ldx = in.n > 1 ? in.stride : exec_ld(x, in);
    for (int i = 0; i < n; i++) {
        int weight = nodes[i]->weight[0];
        fr_view out = nodes[i]->out[0];
        w[i] = exec_as_read_by(exec_cpu_weight(x, weight), in);
        products[i] = (fr_cpu_product){&w[i], act, exec_cpu_data(x, out), exec_ld(x, out)};
        tell(x, weight, w[i].n_mat, exec_cpu_data(x, in), ldx, act->n_rows, act->cols, NULL, 0);
    }
    fr_cpu_products(x->cpu, products, n, exec_rows(x, in.value));
}

static fr_status run_matmul(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    exec_cpu_products(x, &n, 1);
    return FR_OK;
}

/* ---- small operations
 * --------------------------------------------------------------------------------------------- */

static fr_status run_embed(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_embed(x->cpu, exec_cpu_weight(x, n->weight[0]), x->batch->tokens, x->batch->n_tokens,
                 exec_cpu_data(x, n->out[0]), exec_ld(x, n->out[0]));
    return FR_OK;
}

static fr_status run_rms_norm(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_rms_norm(x->cpu, exec_cpu_data(x, n->in[0]), exec_ld(x, n->in[0]),
                    exec_rows(x, n->in[0].value), n->in[0].width, vector_of(x, n->weight[0]),
                    x->m->hp.rms_eps, exec_cpu_data(x, n->out[0]), exec_ld(x, n->out[0]));
    return FR_OK;
}

static fr_status run_rope(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_view v = n->in[0];
    fr_cpu_rope(x->cpu, exec_cpu_data(x, v), exec_ld(x, v), exec_rows(x, v.value), v.n, v.stride,
                v.width, x->turns);
    return FR_OK;
}

static int64_t count_of(const fr_exec *x, fr_view v)
{
    return exec_rows(x, v.value) * exec_ld(x, v);
}

static fr_status run_add(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_add(x->cpu, exec_cpu_data(x, n->in[0]), exec_cpu_data(x, n->in[1]),
               count_of(x, n->in[0]), exec_cpu_data(x, n->out[0]));
    return FR_OK;
}

static fr_status run_swiglu(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_swiglu(x->cpu, exec_cpu_data(x, n->in[0]), exec_cpu_data(x, n->in[1]),
                  count_of(x, n->in[0]), exec_cpu_data(x, n->out[0]));
    return FR_OK;
}

static fr_status run_gather(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    int64_t cols = exec_ld(x, n->in[0]);
    const float *from = exec_cpu_data(x, n->in[0]);
    float *to = exec_cpu_data(x, n->out[0]);
    for (int64_t i = 0; i < x->batch->n_outputs; i++)
        memcpy(to + i * cols, from + x->batch->outputs[i] * cols, (size_t)cols * sizeof *to);
    return FR_OK;
}

fr_cpu_router_args exec_cpu_router_args(const fr_exec *x, const fr_node *n)
{
    const fr_hparams *hp = &x->m->hp;
    float *logits = exec_cpu_data(x, n->in[0]);
    return (fr_cpu_router_args){
        .n_tokens = exec_rows(x, n->in[0].value),
        .n_expert = hp->n_expert,
        .n_used = hp->n_expert_used,
        .n_groups = hp->n_expert_group,
        .n_groups_used = hp->n_expert_group_used,
        .sigmoid = hp->gating == FR_GATING_SIGMOID,
        .norm = hp->expert_weights_norm,
        .scale = hp->expert_weights_scale,
        .logits = logits,
        .scores = logits,
        .bias = vector_of(x, n->weight[0]),
        .ids = (int32_t *)(void *)exec_cpu_data(x, n->out[0]),
        .weights = exec_cpu_data(x, n->out[1]),
        .scratch = x->router,
    };
}

static fr_status run_router(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_router_args args = exec_cpu_router_args(x, n);
    fr_cpu_router(x->cpu, &args);
    return FR_OK;
}

/* One part after the other: usually there is one, with all experts. */
static fr_status run_moe(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    const fr_store_part *gate;
    fr_cpu_moe_args a = {
        .n_tokens = exec_rows(x, n->in[0].value),
        .n_used = x->m->hp.n_expert_used,
        .ids = (const int32_t *)(const void *)exec_cpu_data(x, n->in[1]),
        .weights = exec_cpu_data(x, n->in[2]),
        .x = exec_cpu_data(x, n->in[0]),
        .y = exec_cpu_data(x, n->out[0]),
        .scratch = x->moe,
        .hidden = x->hidden,
        .seconds = x->profile ? x->moe_seconds : NULL,
    };
    for (int64_t at = 0; (gate = exec_part(x, n->weight[0], FR_PLAN_CPU, &at)); a.add = true) {
        int64_t same_up = gate->first, same_down = gate->first;
        a.gate = &gate->w;
        a.up = &exec_part(x, n->weight[1], FR_PLAN_CPU, &same_up)->w;
        a.down = &exec_part(x, n->weight[2], FR_PLAN_CPU, &same_down)->w;
        a.first_expert = gate->first;
        fr_cpu_moe(x->cpu, &a);
    }
    int64_t n_embd = a.gate->cols, n_ff = a.down->cols, n_mat = a.gate->n_mat;
    tell(x, n->weight[0], n_mat, a.x, n_embd, a.n_tokens, n_embd, a.ids, a.n_used);
    tell(x, n->weight[1], n_mat, a.x, n_embd, a.n_tokens, n_embd, a.ids, a.n_used);
    tell(x, n->weight[2], n_mat, x->hidden, n_ff, a.n_tokens * a.n_used, n_ff, a.ids, 1);
    return FR_OK;
}

static void add_rows(fr_exec *x, const float *from, int64_t count, float *to)
{
    fr_cpu_add(x->cpu, to, from, count, to);
}

static fr_status run_matmul_ids(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_view in = n->in[0], out = n->out[0];
    const fr_store_part *part;
    fr_cpu_expert_rows_args a = {
        .n_tokens = exec_rows(x, in.value),
        .n_used = x->m->hp.n_expert_used,
        .ids = (const int32_t *)(const void *)exec_cpu_data(x, n->in[1]),
        .x = exec_cpu_data(x, in),
        .ldx = exec_ld(x, in),
        .x_stride = in.n > 1 ? in.stride : 0,
        .y = exec_cpu_data(x, out),
        .ldy = out.stride,
        .scratch = x->moe,
    };
    float *y = a.y;
    for (int64_t at = 0; (part = exec_part(x, n->weight[0], FR_PLAN_CPU, &at)); a.y = x->moved_h) {
        a.w = &part->w;
        a.first_expert = part->first;
        fr_cpu_expert_rows(x->cpu, &a);
        if (a.y != y)
            add_rows(x, a.y, exec_count(x, out.value), y);
    }
    return FR_OK;
}

static fr_status run_mix(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_mix(x->cpu, &(fr_cpu_mix_args){
                           .x = exec_cpu_data(x, n->in[0]),
                           .weights = exec_cpu_data(x, n->in[1]),
                           .y = exec_cpu_data(x, n->out[0]),
                           .n_tokens = exec_rows(x, n->in[0].value),
                           .n_used = n->in[0].n,
                           .cols = n->in[0].width,
                           .ldy = exec_ld(x, n->out[0]),
                       });
    return FR_OK;
}

/* ---- running
 * ----------------------------------------------------------------------------------------------------
 */

typedef fr_status (*run_fn)(fr_exec *x, const fr_node *n, fr_err *err);

static const run_fn run_op[FR_OP_COUNT] = {
    [FR_OP_EMBED] = run_embed,
    [FR_OP_RMS_NORM] = run_rms_norm,
    [FR_OP_MATMUL] = run_matmul,
    [FR_OP_ROPE] = run_rope,
    [FR_OP_KV_STORE] = exec_cpu_kv_store,
    [FR_OP_ATTN_LATENT] = exec_cpu_attn_cached,
    [FR_OP_ATTN_EXPAND] = exec_cpu_attn_expand,
    [FR_OP_ATTN_PLAIN] = exec_cpu_attn_cached,
    [FR_OP_ADD] = run_add,
    [FR_OP_SWIGLU] = run_swiglu,
    [FR_OP_ROUTER] = run_router,
    [FR_OP_MOE] = run_moe,
    [FR_OP_GATHER] = run_gather,
    [FR_OP_MATMUL_IDS] = run_matmul_ids,
    [FR_OP_MIX] = run_mix,
};

void exec_cpu_begin(fr_exec *x)
{
    x->prep.valid = false;
    int64_t n_rot = x->m->hp.qk_rope;
    for (int64_t t = 0; t < x->batch->n_tokens; t++)
        for (int64_t i = 0; i < n_rot / 2; i++) {
            int64_t pos = x->batch->seqs ? x->batch->seqs[t].pos : x->batch->pos0 + t;
            double angle = (double)pos * x->freqs[i];
            x->turns[t * n_rot + 2 * i] = (float)cos(angle);
            x->turns[t * n_rot + 2 * i + 1] = (float)sin(angle);
        }
}

/* The prepared activations are stale once their value is written. */
static void forget_written(fr_exec *x, const fr_node *n)
{
    int prep = x->prep.view.value;
    if (n->out[0].value == prep || n->out[1].value == prep ||
        (n->op == FR_OP_ROPE && n->in[0].value == prep))
        x->prep.valid = false;
}

fr_status exec_cpu_run(fr_exec *x, const fr_node *n, fr_err *err)
{
    FR_TRY(run_op[n->op](x, n, err));
    forget_written(x, n);
    return FR_OK;
}
