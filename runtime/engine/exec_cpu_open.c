/* The scratch that nodes on the CPU need. */
#include "engine/exec_cpu_internal.h"

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bool is_here(const fr_exec *x, int weight)
{
    return x->places.weights[weight] >> FR_PLAN_CPU & 1;
}

/* The prepared input of a matrix product; 0 where that is not computed here. */
static size_t input_bytes(const fr_exec *x, int path, const fr_node *n)
{
    if (n->op != FR_OP_MATMUL || !is_here(x, n->weight[0]))
        return 0;
    fr_act_type type = fr_cpu_act_type(x->cpu_batch, exec_cpu_weight(x, n->weight[0]));
    return fr_cpu_act_bytes(type, x->path_tokens[path] * n->in[0].n, n->in[0].width);
}

/* The most that is prepared at a time: the input of a product, and while SwiGLU is part of the
 * products before it, of the one behind it too (exec_cpu_fuse.c). */
static size_t act_bytes(const fr_exec *x)
{
    size_t most = 0;
    for (int p = 0; p < x->n_paths; p++)
        for (int i = 0; i < x->graphs[p].n_nodes; i++) {
            const fr_node *n = &x->graphs[p].nodes[i];
            size_t bytes = input_bytes(x, p, n);
            bool between = n->op == FR_OP_SWIGLU && i > 0 && i + 1 < x->graphs[p].n_nodes;
            if (between && n[-1].op == FR_OP_MATMUL && n[1].op == FR_OP_MATMUL)
                bytes = input_bytes(x, p, n - 1) + input_bytes(x, p, n + 1);
            most = max_size(most, bytes);
        }
    return most;
}

static size_t node_moe_bytes(const fr_exec *x, const fr_node *n)
{
    int64_t used = x->m->hp.n_expert_used, rows = x->cfg.n_ubatch;
    const fr_weight *gate = exec_cpu_weight(x, n->weight[0]);
    if (n->op == FR_OP_MATMUL_IDS) {
        int64_t stride = n->in[0].n > 1 ? n->in[0].stride : 0;
        return max_size(fr_cpu_expert_rows_scratch_bytes(x->cpu_batch, gate, rows, used, stride),
                        fr_cpu_expert_rows_scratch_bytes(x->cpu_single, gate, 1, used, stride));
    }
    const fr_weight *up = exec_cpu_weight(x, n->weight[1]),
                    *down = exec_cpu_weight(x, n->weight[2]);
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
    fr_cpu_kv k = exec_cpu_cache(&x->cfg.kv.k, &mark), v = exec_cpu_cache(&x->cfg.kv.v, &mark);
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
    x->act_bytes = act_bytes(x);
    x->act = exec_take(x, x->act_bytes, err);
    x->moe = exec_take(x, max_size(moe_bytes(x), exec_cpu_ffn_bytes(x)), err);
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
