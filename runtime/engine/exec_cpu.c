/* Nodes on the CPU, and the scratch they need. */
#include <math.h>
#include <string.h>

#include "engine/exec_internal.h"

/* ---- values
 * ----------------------------------------------------------------------------------------------------
 */

static int64_t rows_of(const fr_exec *x, int value)
{
    return exec_rows(x, value);
}

static float *data_of(const fr_exec *x, fr_view v)
{
    return exec_host(x, v.value) + v.at;
}

static int64_t ld_of(const fr_exec *x, fr_view v)
{
    return exec_ld(x, v);
}

static const fr_weight *weight_of(const fr_exec *x, int i)
{
    return fr_store_weight(x->store, i);
}

static const float *vector_of(const fr_exec *x, int i)
{
    return i < 0 ? NULL : weight_of(x, i)->data;
}

/* ---- matrix products
 * --------------------------------------------------------------------------------------------- */

static bool same_view(fr_view a, fr_view b)
{
    return a.value == b.value && a.at == b.at && a.width == b.width && a.n == b.n &&
           a.stride == b.stride;
}

/* Several matrices in a row often read one input (gate and up, q_a and kv_a): it is prepared once.
 */
static const fr_act *prepare(fr_exec *x, fr_view in, fr_act_type type)
{
    exec_prepared *p = &x->prep;
    if (!p->valid || !same_view(p->view, in) || p->act.type != type) {
        int64_t ld = in.n > 1 ? in.stride : ld_of(x, in);
        p->act = fr_cpu_act_prepare(x->cpu, type, data_of(x, in), ld, rows_of(x, in.value) * in.n,
                                    in.width, x->act);
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

static fr_status run_matmul(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_weight w = exec_as_read_by(weight_of(x, n->weight[0]), n->in[0]);
    const fr_act *act = prepare(x, n->in[0], fr_cpu_act_type(x->cpu, &w));
    int64_t ldx = n->in[0].n > 1 ? n->in[0].stride : ld_of(x, n->in[0]);
    tell(x, n->weight[0], w.n_mat, data_of(x, n->in[0]), ldx, act->n_rows, act->cols, NULL, 0);
    fr_cpu_matmul(x->cpu, &w, act, rows_of(x, n->in[0].value), data_of(x, n->out[0]),
                  ld_of(x, n->out[0]));
    return FR_OK;
}

/* ---- small operations
 * --------------------------------------------------------------------------------------------- */

static fr_status run_embed(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_embed(x->cpu, weight_of(x, n->weight[0]), x->batch->tokens, x->batch->n_tokens,
                 data_of(x, n->out[0]), ld_of(x, n->out[0]));
    return FR_OK;
}

static fr_status run_rms_norm(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_rms_norm(x->cpu, data_of(x, n->in[0]), ld_of(x, n->in[0]), rows_of(x, n->in[0].value),
                    n->in[0].width, vector_of(x, n->weight[0]), x->m->hp.rms_eps,
                    data_of(x, n->out[0]), ld_of(x, n->out[0]));
    return FR_OK;
}

static fr_status run_rope(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_view v = n->in[0];
    fr_cpu_rope(x->cpu, data_of(x, v), ld_of(x, v), rows_of(x, v.value), v.n, v.stride, v.width,
                x->turns);
    return FR_OK;
}

static int64_t count_of(const fr_exec *x, fr_view v)
{
    return rows_of(x, v.value) * ld_of(x, v);
}

static fr_status run_add(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_add(x->cpu, data_of(x, n->in[0]), data_of(x, n->in[1]), count_of(x, n->in[0]),
               data_of(x, n->out[0]));
    return FR_OK;
}

static fr_status run_swiglu(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_swiglu(x->cpu, data_of(x, n->in[0]), data_of(x, n->in[1]), count_of(x, n->in[0]),
                  data_of(x, n->out[0]));
    return FR_OK;
}

static fr_status run_gather(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    int64_t cols = ld_of(x, n->in[0]);
    const float *from = data_of(x, n->in[0]);
    float *to = data_of(x, n->out[0]);
    for (int64_t i = 0; i < x->batch->n_outputs; i++)
        memcpy(to + i * cols, from + x->batch->outputs[i] * cols, (size_t)cols * sizeof *to);
    return FR_OK;
}

static fr_status run_router(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    const fr_hparams *hp = &x->m->hp;
    float *logits = data_of(x, n->in[0]);
    fr_cpu_router(x->cpu, &(fr_cpu_router_args){
                              .n_tokens = rows_of(x, n->in[0].value),
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
                              .ids = (int32_t *)(void *)data_of(x, n->out[0]),
                              .weights = data_of(x, n->out[1]),
                              .scratch = x->router,
                          });
    return FR_OK;
}

/* One part after the other: usually there is one, with all experts. */
static fr_status run_moe(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    const fr_store_part *gate;
    fr_cpu_moe_args a = {
        .n_tokens = rows_of(x, n->in[0].value),
        .n_used = x->m->hp.n_expert_used,
        .ids = (const int32_t *)(const void *)data_of(x, n->in[1]),
        .weights = data_of(x, n->in[2]),
        .x = data_of(x, n->in[0]),
        .y = data_of(x, n->out[0]),
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
        .n_tokens = rows_of(x, in.value),
        .n_used = x->m->hp.n_expert_used,
        .ids = (const int32_t *)(const void *)data_of(x, n->in[1]),
        .x = data_of(x, in),
        .ldx = ld_of(x, in),
        .x_stride = in.n > 1 ? in.stride : 0,
        .y = data_of(x, out),
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
                           .x = data_of(x, n->in[0]),
                           .weights = data_of(x, n->in[1]),
                           .y = data_of(x, n->out[0]),
                           .n_tokens = rows_of(x, n->in[0].value),
                           .n_used = n->in[0].n,
                           .cols = n->in[0].width,
                           .ldy = ld_of(x, n->out[0]),
                       });
    return FR_OK;
}

/* ---- attention
 * --------------------------------------------------------------------------------------------------
 */

static fr_cpu_kv cache_rows(const fr_kv_rows *r, uint8_t *base)
{
    return (fr_cpu_kv){.type = r->type,
                       .width = r->width,
                       .stored = r->stored,
                       .per_pos = r->per_pos,
                       .row_bytes = r->row_bytes,
                       .base = r->width ? base : NULL};
}

static fr_cpu_kv with_window(const fr_exec *x, fr_cpu_kv rows, float *recent, float *staged)
{
    rows.window = rows.base ? x->cfg.kv.window : 0;
    rows.recent = recent;
    rows.staged = staged;
    rows.pos0 = x->batch->pos0;
    rows.exact_from = x->batch->kv->exact_from;
    return rows;
}

static fr_cpu_kv cache_k(const fr_exec *x, int layer)
{
    const fr_kv *kv = x->batch->kv;
    return with_window(x, cache_rows(&x->cfg.kv.k, fr_kv_k(kv, layer)), fr_kv_recent_k(kv, layer),
                       x->staged_k);
}

static fr_cpu_kv cache_v(const fr_exec *x, int layer)
{
    const fr_kv *kv = x->batch->kv;
    return with_window(x, cache_rows(&x->cfg.kv.v, fr_kv_v(kv, layer)), fr_kv_recent_v(kv, layer),
                       x->staged_v);
}

static fr_status run_kv_store(fr_exec *x, const fr_node *n, fr_err *err)
{
    fr_view k = n->in[0], rope = n->in[1], v = n->in[2];
    fr_cpu_kv_store_args args = {
        .a = data_of(x, k),
        .lda = ld_of(x, k),
        .a_width = k.width,
        .a_stride = k.stride,
        .b = data_of(x, rope),
        .ldb = ld_of(x, rope),
        .b_width = rope.width,
        .n_tokens = x->batch->n_tokens,
        .pos0 = x->batch->pos0,
        .dst = cache_k(x, n->layer),
        .scratch = x->kv_row,
    };
    if (!fr_cpu_kv_store(x->cpu, &args))
        return exec_not_finite(n->layer, err);
    if (v.value >= 0) {
        args.a = data_of(x, v);
        args.lda = ld_of(x, v);
        args.a_width = v.width;
        args.a_stride = v.stride;
        args.b_width = 0;
        args.dst = cache_v(x, n->layer);
        if (!fr_cpu_kv_store(x->cpu, &args))
            return exec_not_finite(n->layer, err);
    }
    return FR_OK;
}

/* q1 and q2 are the parts of each head's query that meet k1 and k2. */
static fr_cpu_attn_args attn_args(const fr_exec *x, fr_view q1, fr_view q2, fr_view o)
{
    return (fr_cpu_attn_args){
        .n_tokens = x->batch->n_tokens,
        .n_heads = q1.n,
        .pos0 = x->batch->pos0,
        .scale = fr_hparams_attn_scale(&x->m->hp),
        .q1 = data_of(x, q1),
        .ldq1 = ld_of(x, q1),
        .q1_stride = q1.stride,
        .w1 = q1.width,
        .q2 = q2.value >= 0 ? data_of(x, q2) : NULL,
        .ldq2 = q2.value >= 0 ? ld_of(x, q2) : 0,
        .q2_stride = q2.stride,
        .w2 = q2.value >= 0 ? q2.width : 0,
        .wv = o.width,
        .o = data_of(x, o),
        .ldo = ld_of(x, o),
        .o_stride = o.stride,
        .state = x->state,
    };
}

static fr_status run_attn_cached(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    fr_cpu_attn_args args = attn_args(x, n->in[0], n->in[1], n->out[0]);
    fr_cpu_kv k = cache_k(x, n->layer), v = cache_v(x, n->layer);
    fr_cpu_attn_cached(x->cpu, &args, &k, &v, x->attn);
    fr_cpu_kv_keep(&k, x->batch->n_tokens);
    fr_cpu_kv_keep(&v, x->batch->n_tokens);
    return FR_OK;
}

/* rows = W latent for the positions of a chunk. */
static void expand(fr_exec *x, int weight, int64_t n, float *rows)
{
    const exec_expand *e = &x->expand;
    fr_weight w = *weight_of(x, weight);
    w = exec_as_read_by(&w, (fr_view){.n = 1});
    fr_act act = fr_cpu_act_prepare(x->cpu, fr_cpu_act_type(x->cpu, &w), e->latent,
                                    x->cfg.kv.k.stored, n, w.cols, e->act);
    fr_cpu_matmul(x->cpu, &w, &act, n, rows, w.rows);
}

static fr_status run_attn_expand(fr_exec *x, const fr_node *n, fr_err *err)
{
    (void)err;
    const fr_hparams *hp = &x->m->hp;
    const exec_expand *e = &x->expand;
    int64_t n_pos = x->batch->pos0 + x->batch->n_tokens, heads = hp->n_head, nope = hp->qk_nope;
    bool whole = n->weight[1] < 0; /* kv_b gives K and V side by side */
    int64_t k_stride = whole ? nope + hp->v_head : nope, v_stride = whole ? k_stride : hp->v_head;
    fr_view q = n->in[0];
    fr_view q_nope = graph_part(q.value, q.at, nope, heads, q.stride);
    fr_view q_rope = graph_part(q.value, q.at + nope, hp->qk_rope, heads, q.stride);
    fr_cpu_attn_args args = attn_args(x, q_nope, q_rope, n->out[0]);
    fr_cpu_kv cache = cache_k(x, n->layer);
    for (int64_t from = 0; from < n_pos; from += e->chunk) {
        int64_t to = from + e->chunk < n_pos ? from + e->chunk : n_pos;
        fr_cpu_kv_load(x->cpu, &cache, from, to - from, e->latent);
        expand(x, n->weight[0], to - from, e->k);
        if (!whole)
            expand(x, n->weight[1], to - from, e->v);
        fr_cpu_attn_expanded(x->cpu, &args,
                             &(fr_cpu_attn_chunk){
                                 .from = from,
                                 .to = to,
                                 .first = from == 0,
                                 .last = to == n_pos,
                                 .k1 = e->k,
                                 .ldk1 = heads * k_stride,
                                 .k1_stride = k_stride,
                                 .k2 = e->latent + hp->kv_lora_rank,
                                 .ldk2 = cache.stored,
                                 .v = whole ? e->k + nope : e->v,
                                 .ldv = heads * v_stride,
                                 .v_stride = v_stride,
                             },
                             x->attn);
    }
    fr_cpu_kv_keep(&cache, x->batch->n_tokens);
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

void exec_cpu_begin(fr_exec *x)
{
    x->prep.valid = false;
    int64_t n_rot = x->m->hp.qk_rope;
    for (int64_t t = 0; t < x->batch->n_tokens; t++)
        for (int64_t i = 0; i < n_rot / 2; i++) {
            double angle = (double)(x->batch->pos0 + t) * x->freqs[i];
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

/* ---- opening
 * ----------------------------------------------------------------------------------------------------
 */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bool is_here(const fr_exec *x, int weight)
{
    return x->places.weights[weight] >> FR_PLAN_CPU & 1;
}

/* The largest prepared input of a matrix product. */
static size_t act_bytes(const fr_exec *x)
{
    size_t most = 0;
    for (int p = 0; p < x->n_paths; p++)
        for (int i = 0; i < x->graphs[p].n_nodes; i++) {
            const fr_node *n = &x->graphs[p].nodes[i];
            if (n->op != FR_OP_MATMUL || !is_here(x, n->weight[0]))
                continue;
            fr_act_type type = fr_cpu_act_type(x->cpu_batch, weight_of(x, n->weight[0]));
            most = max_size(most,
                            fr_cpu_act_bytes(type, x->path_tokens[p] * n->in[0].n, n->in[0].width));
        }
    return most;
}

static size_t node_moe_bytes(const fr_exec *x, const fr_node *n)
{
    int64_t used = x->m->hp.n_expert_used, rows = x->cfg.n_ubatch;
    const fr_weight *gate = weight_of(x, n->weight[0]);
    if (n->op == FR_OP_MATMUL_IDS) {
        int64_t stride = n->in[0].n > 1 ? n->in[0].stride : 0;
        return max_size(fr_cpu_expert_rows_scratch_bytes(x->cpu_batch, gate, rows, used, stride),
                        fr_cpu_expert_rows_scratch_bytes(x->cpu_single, gate, 1, used, stride));
    }
    const fr_weight *up = weight_of(x, n->weight[1]), *down = weight_of(x, n->weight[2]);
    return max_size(fr_cpu_moe_scratch_bytes(x->cpu_batch, gate, up, down, rows, used),
                    fr_cpu_moe_scratch_bytes(x->cpu_single, gate, up, down, 1, used));
}

static size_t moe_bytes(const fr_exec *x)
{
    size_t most = 0;
    const fr_graph *g = &x->graphs[PATH_DIRECT];
    for (int i = 0; i < g->n_nodes; i++) {
        const fr_node *n = &g->nodes[i];
        if ((n->op == FR_OP_MOE || n->op == FR_OP_MATMUL_IDS) && is_here(x, n->weight[0]))
            most = max_size(most, node_moe_bytes(x, n));
    }
    return most;
}

/* As many positions as the bound allows, in whole blocks, at least one block. */
static int64_t chunk_positions(const fr_exec *x, size_t pos_bytes)
{
    int64_t chunk = (int64_t)(x->cfg.expand_bytes / pos_bytes / FR_ATTN_BLOCK * FR_ATTN_BLOCK);
    int64_t most = (x->cfg.n_ctx + FR_ATTN_BLOCK - 1) / FR_ATTN_BLOCK * FR_ATTN_BLOCK;
    if (chunk < FR_ATTN_BLOCK)
        chunk = FR_ATTN_BLOCK;
    return chunk < most ? chunk : most;
}

static void find_kv_b_forms(const fr_model *m, bool *any_whole, bool *any_split)
{
    *any_whole = *any_split = false;
    for (int il = 0; il < m->hp.n_layer; il++)
        *(fr_model_weight_of(m, il, FR_ROLE_ATTN_KV_B) >= 0 ? any_whole : any_split) = true;
}

static fr_status open_expand(fr_exec *x, fr_err *err)
{
    if (x->n_paths == 1)
        return FR_OK;
    const fr_hparams *hp = &x->m->hp;
    exec_expand *e = &x->expand;
    size_t latent = (size_t)x->cfg.kv.k.stored * sizeof(float);
    size_t act = fr_cpu_act_bytes(FR_ACT_F32, 1, hp->kv_lora_rank); /* the widest of the forms */
    bool any_whole, any_split;
    find_kv_b_forms(x->m, &any_whole, &any_split);
    size_t k = (size_t)(hp->n_head * (hp->qk_nope + (any_whole ? hp->v_head : 0))) * sizeof(float);
    size_t v = any_split ? (size_t)(hp->n_head * hp->v_head) * sizeof(float) : 0;
    e->chunk = chunk_positions(x, latent + act + k + v);
    e->latent = exec_take(x, latent * (size_t)e->chunk, err);
    e->act = exec_take(x, act * (size_t)e->chunk, err);
    e->k = exec_take(x, k * (size_t)e->chunk, err);
    e->v = exec_take(x, v * (size_t)e->chunk, err);
    return e->latent && e->act && e->k && e->v ? FR_OK : FR_ENOMEM;
}

static size_t attn_bytes(const fr_exec *x)
{
    const fr_hparams *hp = &x->m->hp;
    uint8_t mark = 0; /* only whether there are V rows counts here */
    fr_cpu_kv k = cache_rows(&x->cfg.kv.k, &mark), v = cache_rows(&x->cfg.kv.v, &mark);
    fr_cpu_attn_args heads = {
        .n_heads = hp->n_head, .w1 = hp->qk_nope, .w2 = hp->qk_rope, .wv = hp->v_head};
    fr_cpu_attn_args cached = heads;
    if (x->m->mla != FR_MLA_PLAIN)
        cached.w1 = cached.wv = hp->kv_lora_rank;
    size_t most = max_size(fr_cpu_attn_cached_bytes(x->cpu_batch, &cached, &k, &v),
                           fr_cpu_attn_cached_bytes(x->cpu_single, &cached, &k, &v));
    return x->n_paths > 1 ? max_size(most, fr_cpu_attn_expanded_bytes(x->cpu_batch, &heads)) : most;
}

static size_t staged_bytes(const fr_exec *x, const fr_kv_rows *r)
{
    return x->cfg.kv.window ? (size_t)(x->cfg.n_ubatch * r->per_pos * r->stored) * sizeof(float)
                            : 0;
}

static fr_status open_scratch(fr_exec *x, fr_err *err)
{
    const fr_hparams *hp = &x->m->hp;
    size_t rows = (size_t)x->cfg.n_ubatch, f = sizeof(float);
    size_t threads =
        max_size((size_t)fr_cpu_n_threads(x->cpu_batch), (size_t)fr_cpu_n_threads(x->cpu_single));
    size_t kv_row =
        (size_t)(x->cfg.kv.k.stored > x->cfg.kv.v.stored ? x->cfg.kv.k.stored : x->cfg.kv.v.stored);
    x->act = exec_take(x, act_bytes(x), err);
    x->moe = exec_take(x, moe_bytes(x), err);
    x->router = exec_take(x, rows * 2 * (size_t)hp->n_expert * f, err);
    x->state = exec_take(x, rows * (size_t)hp->n_head * 2 * f, err);
    x->attn = exec_take(x, attn_bytes(x), err);
    x->kv_row = exec_take(x, threads * kv_row * f, err);
    x->staged_k = exec_take(x, staged_bytes(x, &x->cfg.kv.k), err);
    x->staged_v = exec_take(x, staged_bytes(x, &x->cfg.kv.v), err);
    x->turns = exec_take(x, rows * (size_t)hp->qk_rope * f, err);
    x->freqs = exec_take(x, (size_t)hp->qk_rope / 2 * sizeof *x->freqs, err);
    if (!x->act || !x->moe || !x->router || !x->state || !x->attn || !x->kv_row || !x->staged_k ||
        !x->staged_v || !x->turns || !x->freqs)
        return FR_ENOMEM;
    fr_hparams_rope_freqs(hp, x->freqs);
    return FR_OK;
}

/* Room for a part of a sum: of experts in several places. */
static size_t moved_bytes(const fr_exec *x)
{
    const fr_graph *g = &x->graphs[PATH_DIRECT];
    int64_t most = 0;
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == FR_OP_MATMUL_IDS || (x->cfg.gpu && g->nodes[i].op == FR_OP_MOE)) {
            int64_t cols = g->values[g->nodes[i].out[0].value].cols;
            most = cols > most ? cols : most;
        }
    return (size_t)(x->cfg.n_ubatch * most) * sizeof(float);
}

fr_status exec_cpu_open(fr_exec *x, fr_err *err)
{
    size_t moved = moved_bytes(x);
    if (moved > 0 && !(x->moved_h = exec_take(x, moved, err)))
        return FR_ENOMEM;
    FR_TRY(open_scratch(x, err));
    return open_expand(x, err);
}

void exec_cpu_close(fr_exec *x)
{
    void *blocks[] = {x->hidden,        x->moved_h,    x->act,      x->moe,
                      x->router,        x->state,      x->attn,     x->kv_row,
                      x->staged_k,      x->staged_v,   x->turns,    x->freqs,
                      x->expand.latent, x->expand.act, x->expand.k, x->expand.v};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        fr_mem_free(blocks[i]);
}
