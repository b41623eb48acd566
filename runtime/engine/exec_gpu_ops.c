/* Nodes on a GPU: each fills the arguments of one or a few operations of cuda.h. */
#include <string.h>

#include "engine/exec_internal.h"
#include "engine/gpu_kv.h"

/* Up to so many tokens, a matrix is read again for each (matvec); beyond, once for all. */
enum { FEW_TOKENS = 4 };

/* ---- operands ----------------------------------------------------------------------------------
 */

static float *data_of(const fr_exec *x, int d, fr_view v)
{
    return v.value < 0 ? NULL : exec_on_gpu(x, d, v.value) + v.at;
}

static int64_t ld_of(const fr_exec *x, fr_view v)
{
    return v.value < 0 ? 0 : exec_ld(x, v);
}

static float *floats(const exec_gpu *g, plan_gpu_part part)
{
    return (float *)(void *)g->part[part];
}

static int32_t *ints(const exec_gpu *g, plan_gpu_part part)
{
    return (int32_t *)(void *)g->part[part];
}

/* A weight that is on the device as a whole. */
static const fr_weight *weight_on(const fr_exec *x, int i, int d)
{
    int64_t from = 0;
    return i < 0 ? NULL : &exec_part(x, i, d, &from)->w;
}

static const float *vector_on(const fr_exec *x, int i, int d)
{
    const fr_weight *w = weight_on(x, i, d);
    return w ? w->data : NULL;
}

/* ---- products ----------------------------------------------------------------------------------
 */

static fr_status product(const fr_exec *x, int d, fr_gpu_matmul_args *a, fr_err *err)
{
    const exec_gpu *g = &x->gpus[d];
    if (a->n_tokens <= FEW_TOKENS)
        return x->gpu->matvec(a, g->s, err);
    plan_gpu_part scratch = a->ids_d ? PLAN_GPU_GROUPS : PLAN_GPU_MATMUL;
    a->scratch_d = g->part[scratch];
    a->scratch_bytes = x->parts.bytes[scratch];
    return x->gpu->matmul(a, g->s, err);
}

static fr_status run_matmul(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_view in = n->in[0];
    fr_weight w = exec_as_read_by(weight_on(x, n->weight[0], d), in);
    fr_gpu_matmul_args a = {
        .w = &w,
        .n_tokens = exec_rows(x, in.value),
        .n_pick = w.n_mat,
        .x_d = data_of(x, d, in),
        .ldx = ld_of(x, in),
        .x_stride = in.stride,
        .y_d = data_of(x, d, n->out[0]),
        .ldy = ld_of(x, n->out[0]),
        .y_stride = w.rows,
    };
    return product(x, d, &a, err);
}

static fr_status add_moved(fr_exec *x, int d, int64_t count, float *y, fr_err *err)
{
    return x->gpu->add(y, floats(&x->gpus[d], PLAN_GPU_MOVED), count, y, x->gpus[d].s, err);
}

/* Parts beyond the first one leave zeros where the others have rows, so rows add up. */
static fr_status run_matmul_ids(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_view in = n->in[0], out = n->out[0];
    const fr_store_part *part;
    float *y = data_of(x, d, out), *to = y;
    for (int64_t at = 0; (part = exec_part(x, n->weight[0], d, &at));) {
        fr_gpu_matmul_args a = {
            .w = &part->w,
            .n_tokens = exec_rows(x, in.value),
            .n_pick = x->m->hp.n_expert_used,
            .ids_d = (const int32_t *)(const void *)data_of(x, d, n->in[1]),
            .first = part->first,
            .x_d = data_of(x, d, in),
            .ldx = ld_of(x, in),
            .x_stride = in.n > 1 ? in.stride : 0,
            .y_d = to,
            .ldy = ld_of(x, out),
            .y_stride = out.stride,
        };
        FR_TRY(product(x, d, &a, err));
        if (to != y)
            FR_TRY(add_moved(x, d, exec_count(x, out.value), y, err));
        to = floats(&x->gpus[d], PLAN_GPU_MOVED);
    }
    return FR_OK;
}

static fr_status run_mix(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_gpu_mix_args a = {
        .x_d = data_of(x, d, n->in[0]),
        .weights_d = data_of(x, d, n->in[1]),
        .y_d = data_of(x, d, n->out[0]),
        .n_tokens = exec_rows(x, n->in[0].value),
        .n_used = n->in[0].n,
        .cols = n->in[0].width,
        .ldy = ld_of(x, n->out[0]),
    };
    return x->gpu->mix(&a, x->gpus[d].s, err);
}

/* ---- routed experts ----------------------------------------------------------------------------
 */

/* Rows [from, from + n) of all matrices: the matrices keep their distance. */
static fr_weight rows_of_weight(const fr_weight *w, int64_t from, int64_t n)
{
    fr_weight part = *w;
    part.data = (uint8_t *)w->data + (size_t)from * fr_row_bytes(w->type, w->layout, w->cols);
    part.rows = n;
    return part;
}

/* Tokens of a batch whose experts are computed together. */
typedef struct {
    int64_t n_tokens, ldx, ldy;
    const int32_t *ids;
    const float *x, *weights;
    float *y;
} token_span;

static token_span span_of(const fr_exec *x, const fr_node *n, int d, int64_t from)
{
    int64_t left = exec_rows(x, n->in[0].value) - from, n_used = x->m->hp.n_expert_used;
    int64_t ldx = ld_of(x, n->in[0]), ldy = ld_of(x, n->out[0]);
    return (token_span){
        .n_tokens = left < x->parts.expert_tokens ? left : x->parts.expert_tokens,
        .ldx = ldx,
        .ldy = ldy,
        .ids = (const int32_t *)(const void *)data_of(x, d, n->in[1]) + from * n_used,
        .x = data_of(x, d, n->in[0]) + from * ldx,
        .weights = data_of(x, d, n->in[2]) + from * n_used,
        .y = data_of(x, d, n->out[0]) + from * ldy,
    };
}

/* y = or += down of the hidden rows, some of its rows at a time: all of them, for all pairs of
 * token and expert, would be the largest value of the pass. */
static fr_status mix_down(fr_exec *x, const token_span *t, int d, int64_t first,
                          const fr_weight *down, const float *hidden, bool add, fr_err *err)
{
    int64_t n_used = x->m->hp.n_expert_used;
    float *rows = floats(&x->gpus[d], PLAN_GPU_DOWN);
    for (int64_t from = 0; from < down->rows; from += x->parts.down_rows) {
        int64_t left = down->rows - from;
        int64_t step = left < x->parts.down_rows ? left : x->parts.down_rows;
        fr_weight part = rows_of_weight(down, from, step);
        fr_gpu_matmul_args a = {
            .w = &part,
            .n_tokens = t->n_tokens,
            .n_pick = n_used,
            .ids_d = t->ids,
            .first = first,
            .x_d = hidden,
            .ldx = n_used * down->cols,
            .x_stride = down->cols,
            .y_d = rows,
            .ldy = n_used * step,
            .y_stride = step,
        };
        FR_TRY(product(x, d, &a, err));
        fr_gpu_mix_args mix = {
            .x_d = rows,
            .weights_d = t->weights,
            .y_d = t->y + from,
            .n_tokens = t->n_tokens,
            .n_used = n_used,
            .cols = step,
            .ldy = t->ldy,
            .add = add,
        };
        FR_TRY(x->gpu->mix(&mix, x->gpus[d].s, err));
    }
    return FR_OK;
}

static fr_status span_experts(fr_exec *x, const token_span *t, int d, int64_t first,
                              const fr_weight *gate, const fr_weight *up, const fr_weight *down,
                              bool add, fr_err *err)
{
    const exec_gpu *g = &x->gpus[d];
    int64_t n_used = x->m->hp.n_expert_used, n_ff = gate->rows;
    float *gate_rows = floats(g, PLAN_GPU_GATE), *up_rows = floats(g, PLAN_GPU_UP);
    fr_gpu_matmul_args a = {
        .w = gate,
        .n_tokens = t->n_tokens,
        .n_pick = n_used,
        .ids_d = t->ids,
        .first = first,
        .x_d = t->x,
        .ldx = t->ldx,
        .y_d = gate_rows,
        .ldy = n_used * n_ff,
        .y_stride = n_ff,
    };
    FR_TRY(product(x, d, &a, err));
    a.w = up;
    a.y_d = up_rows;
    FR_TRY(product(x, d, &a, err));
    FR_TRY(x->gpu->swiglu(gate_rows, up_rows, a.n_tokens * n_used * n_ff, gate_rows, g->s, err));
    return mix_down(x, t, d, first, down, gate_rows, add, err);
}

fr_status exec_gpu_experts(fr_exec *x, const fr_node *n, int d, int64_t first,
                           const fr_weight *gate, const fr_weight *up, const fr_weight *down,
                           bool add, fr_err *err)
{
    for (int64_t from = 0; from < exec_rows(x, n->in[0].value); from += x->parts.expert_tokens) {
        token_span t = span_of(x, n, d, from);
        FR_TRY(span_experts(x, &t, d, first, gate, up, down, add, err));
    }
    return FR_OK;
}

static fr_status run_moe(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    const fr_store_part *gate;
    bool add = false;
    for (int64_t at = 0; (gate = exec_part(x, n->weight[0], d, &at)); add = true) {
        int64_t same_up = gate->first, same_down = gate->first;
        const fr_store_part *up = exec_part(x, n->weight[1], d, &same_up);
        const fr_store_part *down = exec_part(x, n->weight[2], d, &same_down);
        FR_TRY(exec_gpu_experts(x, n, d, gate->first, &gate->w, &up->w, &down->w, add, err));
    }
    return FR_OK;
}

static fr_status run_router(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    const fr_hparams *hp = &x->m->hp;
    fr_gpu_router_args a = {
        .n_tokens = exec_rows(x, n->in[0].value),
        .n_expert = hp->n_expert,
        .n_used = hp->n_expert_used,
        .n_groups = hp->n_expert_group,
        .n_groups_used = hp->n_expert_group_used,
        .sigmoid = hp->gating == FR_GATING_SIGMOID,
        .norm = hp->expert_weights_norm,
        .scale = hp->expert_weights_scale,
        .logits_d = data_of(x, d, n->in[0]),
        .bias_d = vector_on(x, n->weight[0], d),
        .ids_d = (int32_t *)(void *)data_of(x, d, n->out[0]),
        .weights_d = data_of(x, d, n->out[1]),
    };
    return x->gpu->router(&a, x->gpus[d].s, err);
}

/* ---- small operations --------------------------------------------------------------------------
 */

static fr_status run_embed(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_gpu_rows_args a = {
        .w = weight_on(x, n->weight[0], d),
        .n_rows = x->batch->n_tokens,
        .ids_d = ints(&x->gpus[d], PLAN_GPU_TOKENS),
        .y_d = data_of(x, d, n->out[0]),
        .ldy = ld_of(x, n->out[0]),
    };
    return x->gpu->rows(&a, x->gpus[d].s, err);
}

static fr_status run_rms_norm(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_gpu_norm_args a = {
        .x_d = data_of(x, d, n->in[0]),
        .w_d = vector_on(x, n->weight[0], d),
        .y_d = data_of(x, d, n->out[0]),
        .ldx = ld_of(x, n->in[0]),
        .ldy = ld_of(x, n->out[0]),
        .n_tokens = exec_rows(x, n->in[0].value),
        .cols = (int32_t)n->in[0].width,
        .eps = x->m->hp.rms_eps,
    };
    return x->gpu->rms_norm(&a, x->gpus[d].s, err);
}

static fr_status run_rope(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_view v = n->in[0];
    fr_gpu_rope_args a = {
        .x_d = data_of(x, d, v),
        .ldx = ld_of(x, v),
        .n_tokens = exec_rows(x, v.value),
        .n_heads = v.n,
        .stride = v.stride,
        .n_rot = v.width,
        .turns_d = floats(&x->gpus[d], PLAN_GPU_TURNS),
    };
    return x->gpu->rope(&a, x->gpus[d].s, err);
}

static fr_status run_add(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    return x->gpu->add(data_of(x, d, n->in[0]), data_of(x, d, n->in[1]),
                       exec_count(x, n->in[0].value), data_of(x, d, n->out[0]), x->gpus[d].s, err);
}

static fr_status run_swiglu(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    return x->gpu->swiglu(data_of(x, d, n->in[0]), data_of(x, d, n->in[1]),
                          exec_count(x, n->in[0].value), data_of(x, d, n->out[0]), x->gpus[d].s,
                          err);
}

/* The rows of a value are the rows of a float matrix. */
static fr_status run_gather(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    int64_t cols = ld_of(x, n->in[0]);
    fr_weight rows = {.type = FR_TYPE_F32,
                      .layout = FR_LAYOUT_PLAIN,
                      .cols = cols,
                      .rows = x->batch->n_tokens,
                      .n_mat = 1,
                      .mat_bytes = (size_t)(x->batch->n_tokens * cols) * sizeof(float),
                      .data = data_of(x, d, n->in[0])};
    fr_gpu_rows_args a = {
        .w = &rows,
        .n_rows = x->batch->n_outputs,
        .ids_d = ints(&x->gpus[d], PLAN_GPU_OUTPUTS),
        .y_d = data_of(x, d, n->out[0]),
        .ldy = cols,
    };
    return x->gpu->rows(&a, x->gpus[d].s, err);
}

/* ---- attention ---------------------------------------------------------------------------------
 */

static fr_gpu_kv cache_rows(const fr_exec *x, const fr_kv_rows *r, uint8_t *base, float *recent,
                            float *staged)
{
    return (fr_gpu_kv){
        .type = r->type,
        .per_pos = (int32_t)r->per_pos,
        .stored = r->stored,
        .row_bytes = r->row_bytes,
        .base_d = r->width ? base : NULL,
        .window = r->width ? x->cfg.kv.window : 0,
        .pos0 = x->batch->pos0,
        .exact_from = x->batch->kv->exact_from,
        .recent_d = recent,
        .staged_d = staged,
    };
}

static fr_gpu_kv cache_k(const fr_exec *x, int layer, int d)
{
    const gpu_kv_layer *l = &x->batch->gpu_kv->layers[layer];
    return cache_rows(x, &x->cfg.kv.k, l->k, l->recent_k, floats(&x->gpus[d], PLAN_GPU_STAGED_K));
}

static fr_gpu_kv cache_v(const fr_exec *x, int layer, int d)
{
    const gpu_kv_layer *l = &x->batch->gpu_kv->layers[layer];
    return cache_rows(x, &x->cfg.kv.v, l->v, l->recent_v, floats(&x->gpus[d], PLAN_GPU_STAGED_V));
}

static fr_status run_kv_store(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_view k = n->in[0], rope = n->in[1], v = n->in[2];
    fr_gpu_kv_store_args a = {
        .a_d = data_of(x, d, k),
        .b_d = data_of(x, d, rope),
        .lda = ld_of(x, k),
        .a_width = k.width,
        .a_stride = k.stride,
        .ldb = ld_of(x, rope),
        .b_width = rope.width,
        .n_tokens = x->batch->n_tokens,
        .pos0 = x->batch->pos0,
        .not_finite_d = ints(&x->gpus[d], PLAN_GPU_FLAGS) + n->layer,
        .dst = cache_k(x, n->layer, d),
    };
    FR_TRY(x->gpu->kv_store(&a, x->gpus[d].s, err));
    if (v.value < 0)
        return FR_OK;
    a.a_d = data_of(x, d, v);
    a.lda = ld_of(x, v);
    a.a_width = v.width;
    a.a_stride = v.stride;
    a.b_d = NULL;
    a.b_width = 0;
    a.dst = cache_v(x, n->layer, d);
    return x->gpu->kv_store(&a, x->gpus[d].s, err);
}

/* q1 and q2 are the parts of each head's query that meet k1 and k2. */
static fr_gpu_attn_args attn_args(const fr_exec *x, int d, fr_view q1, fr_view q2, fr_view o)
{
    return (fr_gpu_attn_args){
        .n_tokens = x->batch->n_tokens,
        .n_heads = q1.n,
        .pos0 = x->batch->pos0,
        .wv = (int32_t)o.width,
        .scale = fr_hparams_attn_scale(&x->m->hp),
        .q1_d = data_of(x, d, q1),
        .q2_d = data_of(x, d, q2),
        .ldq1 = ld_of(x, q1),
        .q1_stride = q1.stride,
        .ldq2 = ld_of(x, q2),
        .q2_stride = q2.value >= 0 ? q2.stride : 0,
        .w1 = q1.width,
        .w2 = q2.value >= 0 ? q2.width : 0,
        .o_d = data_of(x, d, o),
        .ldo = ld_of(x, o),
        .o_stride = o.stride,
    };
}

static fr_status keep_exact(fr_exec *x, const fr_gpu_kv *kv, int d, fr_err *err)
{
    if (kv->window == 0 || !kv->base_d)
        return FR_OK;
    return x->gpu->kv_keep(kv, x->batch->n_tokens, x->gpus[d].s, err);
}

static fr_status run_attn_cached(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    fr_gpu_attn_args a = attn_args(x, d, n->in[0], n->in[1], n->out[0]);
    const uint64_t *bytes = x->parts.bytes;
    plan_gpu_part idle = bytes[PLAN_GPU_K] > bytes[PLAN_GPU_MATMUL] ? PLAN_GPU_K : PLAN_GPU_MATMUL;
    a.k = cache_k(x, n->layer, d);
    a.v = cache_v(x, n->layer, d);
    a.scratch_d = x->gpus[d].part[idle];
    a.scratch_bytes = bytes[idle];
    FR_TRY(x->gpu->attn(&a, x->gpus[d].s, err));
    FR_TRY(keep_exact(x, &a.k, d, err));
    return keep_exact(x, &a.v, d, err);
}

/* rows = W latent for n positions of a chunk. */
static fr_status expand(fr_exec *x, int d, int weight, int64_t n, int64_t stored, float *rows,
                        fr_err *err)
{
    fr_weight w = exec_as_read_by(weight_on(x, weight, d), (fr_view){.n = 1});
    fr_gpu_matmul_args a = {
        .w = &w,
        .n_tokens = n,
        .n_pick = 1,
        .x_d = floats(&x->gpus[d], PLAN_GPU_LATENT),
        .ldx = stored,
        .y_d = rows,
        .ldy = w.rows,
    };
    return product(x, d, &a, err);
}

static fr_status run_attn_expand(fr_exec *x, const fr_node *n, int d, fr_err *err)
{
    const fr_hparams *hp = &x->m->hp;
    const exec_gpu *g = &x->gpus[d];
    const exec_expanded f = exec_expanded_of(x, n);
    int64_t n_pos = x->batch->pos0 + x->batch->n_tokens, heads = hp->n_head;
    fr_gpu_attn_args a = attn_args(x, d, f.q_nope, f.q_rope, n->out[0]);
    fr_gpu_kv cache = cache_k(x, n->layer, d);
    float *latent = floats(g, PLAN_GPU_LATENT), *k = floats(g, PLAN_GPU_K),
          *v = f.whole ? k + hp->qk_nope : floats(g, PLAN_GPU_V);
    for (int64_t from = 0; from < n_pos; from += x->parts.chunk) {
        int64_t to = from + x->parts.chunk < n_pos ? from + x->parts.chunk : n_pos;
        FR_TRY(x->gpu->kv_load(&cache, from, to - from, latent, g->s, err));
        FR_TRY(expand(x, d, n->weight[0], to - from, cache.stored, k, err));
        if (!f.whole)
            FR_TRY(expand(x, d, n->weight[1], to - from, cache.stored, v, err));
        fr_gpu_attn_chunk chunk = {
            .from = from,
            .to = to,
            .first = from == 0,
            .last = to == n_pos,
            .k1_d = k,
            .k2_d = latent + hp->kv_lora_rank,
            .v_d = v,
            .ldk1 = heads * f.k_stride,
            .k1_stride = f.k_stride,
            .ldk2 = cache.stored,
            .ldv = heads * f.v_stride,
            .v_stride = f.v_stride,
            .state_d = floats(g, PLAN_GPU_STATE),
        };
        FR_TRY(x->gpu->attn_expanded(&a, &chunk, g->s, err));
    }
    return keep_exact(x, &cache, d, err);
}

/* ---- running -----------------------------------------------------------------------------------
 */

typedef fr_status (*run_fn)(fr_exec *x, const fr_node *n, int d, fr_err *err);

static const run_fn run_op[FR_OP_COUNT] = {
    [FR_OP_EMBED] = run_embed,
    [FR_OP_RMS_NORM] = run_rms_norm,
    [FR_OP_MATMUL] = run_matmul,
    [FR_OP_ROPE] = run_rope,
    [FR_OP_KV_STORE] = run_kv_store,
    [FR_OP_ATTN_LATENT] = run_attn_cached,
    [FR_OP_ATTN_EXPAND] = run_attn_expand,
    [FR_OP_ATTN_PLAIN] = run_attn_cached,
    [FR_OP_ADD] = run_add,
    [FR_OP_SWIGLU] = run_swiglu,
    [FR_OP_ROUTER] = run_router,
    [FR_OP_MOE] = run_moe,
    [FR_OP_GATHER] = run_gather,
    [FR_OP_MATMUL_IDS] = run_matmul_ids,
    [FR_OP_MIX] = run_mix,
};

fr_status exec_gpu_run(fr_exec *x, const fr_node *n, int device, fr_err *err)
{
    return run_op[n->op](x, n, device, err);
}
