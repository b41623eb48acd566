/* The deepseek2 family: DeepSeek V2, V3, R1, Kimi-K2 and relatives.
 *
 * Multi-head latent attention and mixture-of-experts layers as in "DeepSeek-V2" (2024) and
 * "DeepSeek-V3 Technical Report" (2024); tensor names and forms as GGUF files have them. */
#include "model/graph.h"
#include "model/model.h"

/* ---- weights
 * ----------------------------------------------------------------------------------------- */

static fr_status expect(fr_model *m, int layer, fr_role role, int64_t cols, int64_t rows,
                        fr_err *err)
{
    return model_expect(m, layer, role, cols, rows, 1, true, err);
}

static int have(const fr_model *m, int layer, fr_role role)
{
    return fr_model_weight_of(m, layer, role);
}

/* kv_b comes whole, or as k_b (transposed) and v_b, or both; what the attention mode needs and the
 * file lacks is derived. */
static fr_status declare_kv_b(fr_model *m, int il, fr_err *err)
{
    const fr_hparams *hp = &m->hp;
    int64_t heads = hp->n_head, lora = hp->kv_lora_rank, nope = hp->qk_nope, v = hp->v_head;
    int64_t step = nope + v; /* rows of a head in kv_b */
    bool absorbs = m->mla != FR_MLA_PLAIN, expands = m->mla != FR_MLA_ABSORB;

    FR_TRY(model_expect(m, il, FR_ROLE_ATTN_KV_B, lora, heads * step, 1, false, err));
    int kv_b = have(m, il, FR_ROLE_ATTN_KV_B);
    bool split = kv_b < 0;
    if (absorbs || split) {
        FR_TRY(model_expect(m, il, FR_ROLE_ATTN_K_B, nope, lora, heads, split, err));
        FR_TRY(model_expect(m, il, FR_ROLE_ATTN_V_B, lora, v, heads, split, err));
    }
    if (absorbs && have(m, il, FR_ROLE_ATTN_K_B) < 0)
        FR_TRY(model_derive(m, il, FR_ROLE_ATTN_K_B, FR_DERIVE_TRANSPOSE, kv_b, 0, step, nope, lora,
                            heads, err));
    if (absorbs && have(m, il, FR_ROLE_ATTN_V_B) < 0)
        FR_TRY(model_derive(m, il, FR_ROLE_ATTN_V_B, FR_DERIVE_VIEW, kv_b, nope, step, lora, v,
                            heads, err));
    if (expands && split)
        FR_TRY(model_derive(m, il, FR_ROLE_ATTN_K_UP, FR_DERIVE_TRANSPOSE,
                            have(m, il, FR_ROLE_ATTN_K_B), 0, lora, lora, nope, heads, err));
    return FR_OK;
}

static fr_status declare_attention(fr_model *m, int il, fr_err *err)
{
    const fr_hparams *hp = &m->hp;
    int64_t q_cols = hp->n_head * (hp->qk_nope + hp->qk_rope);
    FR_TRY(expect(m, il, FR_ROLE_ATTN_NORM, hp->n_embd, 1, err));
    if (hp->q_lora_rank > 0) {
        FR_TRY(expect(m, il, FR_ROLE_ATTN_Q_A, hp->n_embd, hp->q_lora_rank, err));
        FR_TRY(expect(m, il, FR_ROLE_ATTN_Q_A_NORM, hp->q_lora_rank, 1, err));
        FR_TRY(expect(m, il, FR_ROLE_ATTN_Q_B, hp->q_lora_rank, q_cols, err));
    } else {
        FR_TRY(expect(m, il, FR_ROLE_ATTN_Q, hp->n_embd, q_cols, err));
    }
    FR_TRY(expect(m, il, FR_ROLE_ATTN_KV_A_MQA, hp->n_embd, hp->kv_lora_rank + hp->qk_rope, err));
    FR_TRY(expect(m, il, FR_ROLE_ATTN_KV_A_NORM, hp->kv_lora_rank, 1, err));
    FR_TRY(declare_kv_b(m, il, err));
    return expect(m, il, FR_ROLE_ATTN_OUTPUT, hp->n_head * hp->v_head, hp->n_embd, err);
}

static fr_status declare_ffn(fr_model *m, int il, fr_err *err)
{
    const fr_hparams *hp = &m->hp;
    int64_t n_embd = hp->n_embd, n_ff = hp->n_ff_exp;
    FR_TRY(expect(m, il, FR_ROLE_FFN_NORM, n_embd, 1, err));
    if (il < hp->n_layer_dense_lead) {
        FR_TRY(expect(m, il, FR_ROLE_FFN_GATE, n_embd, hp->n_ff, err));
        FR_TRY(expect(m, il, FR_ROLE_FFN_UP, n_embd, hp->n_ff, err));
        return expect(m, il, FR_ROLE_FFN_DOWN, hp->n_ff, n_embd, err);
    }
    FR_TRY(expect(m, il, FR_ROLE_FFN_GATE_INP, n_embd, hp->n_expert, err));
    FR_TRY(model_expect(m, il, FR_ROLE_EXP_PROBS_B, hp->n_expert, 1, 1, false, err));
    FR_TRY(model_expect(m, il, FR_ROLE_FFN_GATE_EXPS, n_embd, n_ff, hp->n_expert, true, err));
    FR_TRY(model_expect(m, il, FR_ROLE_FFN_UP_EXPS, n_embd, n_ff, hp->n_expert, true, err));
    FR_TRY(model_expect(m, il, FR_ROLE_FFN_DOWN_EXPS, n_ff, n_embd, hp->n_expert, true, err));
    if (hp->n_expert_shared == 0)
        return FR_OK;
    int64_t n_shared = n_ff * hp->n_expert_shared;
    FR_TRY(expect(m, il, FR_ROLE_FFN_GATE_SHEXP, n_embd, n_shared, err));
    FR_TRY(expect(m, il, FR_ROLE_FFN_UP_SHEXP, n_embd, n_shared, err));
    return expect(m, il, FR_ROLE_FFN_DOWN_SHEXP, n_shared, n_embd, err);
}

static fr_status declare(fr_model *m, fr_err *err)
{
    const fr_hparams *hp = &m->hp;
    FR_TRY(expect(m, -1, FR_ROLE_TOKEN_EMBD, hp->n_embd, hp->n_vocab, err));
    FR_TRY(expect(m, -1, FR_ROLE_OUTPUT_NORM, hp->n_embd, 1, err));
    FR_TRY(model_expect(m, -1, FR_ROLE_OUTPUT, hp->n_embd, hp->n_vocab, 1, false, err));
    for (int il = 0; il < hp->n_layer; il++) {
        FR_TRY(declare_attention(m, il, err));
        FR_TRY(declare_ffn(m, il, err));
    }
    return FR_OK;
}

/* ---- graph
 * ------------------------------------------------------------------------------------------- */

typedef struct {
    const fr_model *m;
    const fr_hparams *hp;
    fr_graph *g;
    bool expand;
    const bool *apart;
    int x; /* the residual stream */
    fr_err *err;
} builder;

static int value(builder *b, const char *name, int64_t cols)
{
    return graph_value(b->g, name, cols, b->err);
}

static fr_status node(builder *b, fr_op op, int il, fr_view in0, fr_view in1, fr_view out, int w0,
                      int w1)
{
    return graph_node(b->g,
                      (fr_node){.op = op,
                                .layer = il,
                                .in = {in0, in1, GRAPH_NONE},
                                .out = {out, GRAPH_NONE},
                                .weight = {w0, w1, -1}},
                      b->err);
}

static fr_view all(builder *b, int v)
{
    return graph_all(b->g, v);
}

/* A new value y = W x; its width is the weight's rows (of all its matrices). */
static fr_status matmul(builder *b, int il, fr_role role, fr_view x, const char *name, int *y)
{
    int w = have(b->m, il, role);
    const fr_weight *shape = &b->m->weights[w].shape;
    *y = value(b, name, shape->rows * shape->n_mat);
    if (*y < 0)
        return FR_ENOMEM;
    return node(b, FR_OP_MATMUL, il, x, GRAPH_NONE, all(b, *y), w, -1);
}

static fr_status norm(builder *b, int il, fr_role role, fr_view x, fr_view y)
{
    return node(b, FR_OP_RMS_NORM, il, x, GRAPH_NONE, y, have(b->m, il, role), -1);
}

/* A new value: the norm of the whole of x. */
static fr_status norm_new(builder *b, int il, fr_role role, int x, const char *name, int *y)
{
    *y = value(b, name, b->g->values[x].cols);
    return *y < 0 ? FR_ENOMEM : norm(b, il, role, all(b, x), all(b, *y));
}

static fr_status add_to(builder *b, int il, int a, int v)
{
    return node(b, FR_OP_ADD, il, all(b, a), all(b, v), all(b, a), -1, -1);
}

static fr_status build_query(builder *b, int il, int h, int *q)
{
    const fr_hparams *hp = b->hp;
    if (hp->q_lora_rank > 0) {
        int q_a;
        FR_TRY(matmul(b, il, FR_ROLE_ATTN_Q_A, all(b, h), "q_a", &q_a));
        FR_TRY(norm(b, il, FR_ROLE_ATTN_Q_A_NORM, all(b, q_a), all(b, q_a)));
        FR_TRY(matmul(b, il, FR_ROLE_ATTN_Q_B, all(b, q_a), "q", q));
    } else {
        FR_TRY(matmul(b, il, FR_ROLE_ATTN_Q, all(b, h), "q", q));
    }
    int64_t head = hp->qk_nope + hp->qk_rope;
    fr_view rotated = graph_part(*q, hp->qk_nope, hp->qk_rope, hp->n_head, head);
    return node(b, FR_OP_ROPE, il, rotated, GRAPH_NONE, GRAPH_NONE, -1, -1);
}

/* One new latent row a token: c_kv after its norm, and the rotated part of K. */
static fr_status build_latent(builder *b, int il, int h, fr_view *c_kv, fr_view *k_rope)
{
    const fr_hparams *hp = b->hp;
    int kv_a;
    FR_TRY(matmul(b, il, FR_ROLE_ATTN_KV_A_MQA, all(b, h), "kv_a", &kv_a));
    *c_kv = graph_part(kv_a, 0, hp->kv_lora_rank, 1, hp->kv_lora_rank);
    *k_rope = graph_part(kv_a, hp->kv_lora_rank, hp->qk_rope, 1, hp->qk_rope);
    FR_TRY(norm(b, il, FR_ROLE_ATTN_KV_A_NORM, *c_kv, *c_kv));
    return node(b, FR_OP_ROPE, il, *k_rope, GRAPH_NONE, GRAPH_NONE, -1, -1);
}

static fr_status kv_store(builder *b, int il, fr_view k, fr_view k_rope, fr_view v)
{
    return graph_node(b->g,
                      (fr_node){.op = FR_OP_KV_STORE,
                                .layer = il,
                                .in = {k, k_rope, v},
                                .out = {GRAPH_NONE, GRAPH_NONE},
                                .weight = {-1, -1, -1}},
                      b->err);
}

/* Attention on latents: queries are taken through k_b into the latent space, results back through
 * v_b. */
static fr_status attend_absorbed(builder *b, int il, int q, int *o)
{
    const fr_hparams *hp = b->hp;
    int64_t head = hp->qk_nope + hp->qk_rope, lora = hp->kv_lora_rank;
    fr_view q_nope = graph_part(q, 0, hp->qk_nope, hp->n_head, head);
    fr_view q_rope = graph_part(q, hp->qk_nope, hp->qk_rope, hp->n_head, head);
    int q_lat, o_lat;
    FR_TRY(matmul(b, il, FR_ROLE_ATTN_K_B, q_nope, "q_latent", &q_lat));
    if ((o_lat = value(b, "o_latent", hp->n_head * lora)) < 0)
        return FR_ENOMEM;
    fr_view q_heads = graph_part(q_lat, 0, lora, hp->n_head, lora);
    fr_view o_heads = graph_part(o_lat, 0, lora, hp->n_head, lora);
    FR_TRY(node(b, FR_OP_ATTN_LATENT, il, q_heads, q_rope, o_heads, -1, -1));
    return matmul(b, il, FR_ROLE_ATTN_V_B, o_heads, "attn_v", o);
}

/* Attention on K and V of every head, expanded from the latent cache on the fly. */
static fr_status attend_expanded(builder *b, int il, int q, int *o)
{
    const fr_hparams *hp = b->hp;
    int64_t head = hp->qk_nope + hp->qk_rope;
    if ((*o = value(b, "attn_v", hp->n_head * hp->v_head)) < 0)
        return FR_ENOMEM;
    int kv_b = have(b->m, il, FR_ROLE_ATTN_KV_B);
    int k = kv_b >= 0 ? kv_b : have(b->m, il, FR_ROLE_ATTN_K_UP);
    int v = kv_b >= 0 ? -1 : have(b->m, il, FR_ROLE_ATTN_V_B);
    return node(b, FR_OP_ATTN_EXPAND, il, graph_part(q, 0, head, hp->n_head, head), GRAPH_NONE,
                graph_part(*o, 0, hp->v_head, hp->n_head, hp->v_head), k, v);
}

/* Attention on a cache that holds K and V of every head. */
static fr_status attend_plain(builder *b, int il, int q, fr_view c_kv, fr_view k_rope, int *o)
{
    const fr_hparams *hp = b->hp;
    int64_t n = hp->n_head, nope = hp->qk_nope, v = hp->v_head, head = nope + hp->qk_rope;
    fr_view k_heads, v_heads;
    if (have(b->m, il, FR_ROLE_ATTN_KV_B) >= 0) {
        int kv;
        FR_TRY(matmul(b, il, FR_ROLE_ATTN_KV_B, c_kv, "kv", &kv));
        k_heads = graph_part(kv, 0, nope, n, nope + v);
        v_heads = graph_part(kv, nope, v, n, nope + v);
    } else {
        /* The weights of the heads as one tall matrix: every head reads the same latent. */
        int k_up, v_up;
        FR_TRY(matmul(b, il, FR_ROLE_ATTN_K_UP, c_kv, "k_up", &k_up));
        FR_TRY(matmul(b, il, FR_ROLE_ATTN_V_B, c_kv, "v_up", &v_up));
        k_heads = graph_part(k_up, 0, nope, n, nope);
        v_heads = graph_part(v_up, 0, v, n, v);
    }
    FR_TRY(kv_store(b, il, k_heads, k_rope, v_heads));
    if ((*o = value(b, "attn_v", n * v)) < 0)
        return FR_ENOMEM;
    return node(b, FR_OP_ATTN_PLAIN, il, graph_part(q, 0, head, n, head), GRAPH_NONE,
                graph_part(*o, 0, v, n, v), -1, -1);
}

static fr_status build_attention(builder *b, int il)
{
    int h, q, o, y;
    fr_view c_kv, k_rope;
    FR_TRY(norm_new(b, il, FR_ROLE_ATTN_NORM, b->x, "attn_norm", &h));
    FR_TRY(build_query(b, il, h, &q));
    FR_TRY(build_latent(b, il, h, &c_kv, &k_rope));
    if (b->m->mla == FR_MLA_PLAIN) {
        FR_TRY(attend_plain(b, il, q, c_kv, k_rope, &o));
    } else {
        FR_TRY(kv_store(b, il, c_kv, k_rope, GRAPH_NONE));
        FR_TRY(b->expand ? attend_expanded(b, il, q, &o) : attend_absorbed(b, il, q, &o));
    }
    FR_TRY(matmul(b, il, FR_ROLE_ATTN_OUTPUT, all(b, o), "attn_out", &y));
    return add_to(b, il, b->x, y);
}

/* From here on only the tokens whose logits are wanted go on. */
static fr_status build_gather(builder *b, int il)
{
    b->g->first_output_node = b->g->n_nodes;
    int x = value(b, "x_out", b->hp->n_embd);
    if (x < 0)
        return FR_ENOMEM;
    FR_TRY(node(b, FR_OP_GATHER, il, all(b, b->x), GRAPH_NONE, all(b, x), -1, -1));
    b->x = x;
    return FR_OK;
}

/* y = down(silu(gate h) * up h) */
static fr_status build_swiglu(builder *b, int il, int h, fr_role gate_role, fr_role up_role,
                              fr_role down_role, int *y)
{
    int gate, up;
    FR_TRY(matmul(b, il, gate_role, all(b, h), "ffn_gate", &gate));
    FR_TRY(matmul(b, il, up_role, all(b, h), "ffn_up", &up));
    FR_TRY(node(b, FR_OP_SWIGLU, il, all(b, gate), all(b, up), all(b, gate), -1, -1));
    return matmul(b, il, down_role, all(b, gate), "ffn_down", y);
}

/* The chosen experts of every token, and their weights. */
static fr_status build_router(builder *b, int il, int h, int *ids, int *weights)
{
    int logits;
    FR_TRY(matmul(b, il, FR_ROLE_FFN_GATE_INP, all(b, h), "router_logits", &logits));
    *ids = value(b, "expert_ids", b->hp->n_expert_used);
    *weights = value(b, "expert_weights", b->hp->n_expert_used);
    if (*ids < 0 || *weights < 0)
        return FR_ENOMEM;
    return graph_node(b->g,
                      (fr_node){.op = FR_OP_ROUTER,
                                .layer = il,
                                .in = {all(b, logits), GRAPH_NONE, GRAPH_NONE},
                                .out = {all(b, *ids), all(b, *weights)},
                                .weight = {have(b->m, il, FR_ROLE_EXP_PROBS_B), -1, -1}},
                      b->err);
}

static fr_status build_experts(builder *b, int il, int h, int ids, int weights, int *y)
{
    if ((*y = value(b, "moe_out", b->hp->n_embd)) < 0)
        return FR_ENOMEM;
    return graph_node(b->g,
                      (fr_node){.op = FR_OP_MOE,
                                .layer = il,
                                .in = {all(b, h), all(b, ids), all(b, weights)},
                                .out = {all(b, *y), GRAPH_NONE},
                                .weight = {have(b->m, il, FR_ROLE_FFN_GATE_EXPS),
                                           have(b->m, il, FR_ROLE_FFN_UP_EXPS),
                                           have(b->m, il, FR_ROLE_FFN_DOWN_EXPS)}},
                      b->err);
}

/* One product of the chosen experts: a row of `cols` for each. */
static fr_status expert_rows(builder *b, int il, fr_role role, fr_view x, int ids, int64_t cols,
                             const char *name, int *rows)
{
    if ((*rows = value(b, name, b->hp->n_expert_used * cols)) < 0)
        return FR_ENOMEM;
    fr_view out = graph_part(*rows, 0, cols, b->hp->n_expert_used, cols);
    return node(b, FR_OP_MATMUL_IDS, il, x, all(b, ids), out, have(b->m, il, role), -1);
}

/* The same as build_experts, from single products. */
static fr_status build_experts_apart(builder *b, int il, int h, int ids, int weights, int *y)
{
    const fr_hparams *hp = b->hp;
    int gate, up, down;
    FR_TRY(expert_rows(b, il, FR_ROLE_FFN_GATE_EXPS, all(b, h), ids, hp->n_ff_exp, "gate_rows",
                       &gate));
    FR_TRY(expert_rows(b, il, FR_ROLE_FFN_UP_EXPS, all(b, h), ids, hp->n_ff_exp, "up_rows", &up));
    FR_TRY(node(b, FR_OP_SWIGLU, il, all(b, gate), all(b, up), all(b, gate), -1, -1));
    fr_view rows = graph_part(gate, 0, hp->n_ff_exp, hp->n_expert_used, hp->n_ff_exp);
    FR_TRY(expert_rows(b, il, FR_ROLE_FFN_DOWN_EXPS, rows, ids, hp->n_embd, "down_rows", &down));
    if ((*y = value(b, "moe_out", hp->n_embd)) < 0)
        return FR_ENOMEM;
    fr_view each = graph_part(down, 0, hp->n_embd, hp->n_expert_used, hp->n_embd);
    return node(b, FR_OP_MIX, il, each, all(b, weights), all(b, *y), -1, -1);
}

/* The shared expert comes before the routed ones: a GPU then computes it while the CPU is at
 * those. */
static fr_status build_routed(builder *b, int il, int h)
{
    bool shared = b->hp->n_expert_shared > 0;
    int ids, weights, y, y_shared = -1;
    FR_TRY(build_router(b, il, h, &ids, &weights));
    if (shared)
        FR_TRY(build_swiglu(b, il, h, FR_ROLE_FFN_GATE_SHEXP, FR_ROLE_FFN_UP_SHEXP,
                            FR_ROLE_FFN_DOWN_SHEXP, &y_shared));
    FR_TRY(b->apart && b->apart[il] ? build_experts_apart(b, il, h, ids, weights, &y)
                                    : build_experts(b, il, h, ids, weights, &y));
    FR_TRY(add_to(b, il, b->x, y));
    return shared ? add_to(b, il, b->x, y_shared) : FR_OK;
}

static fr_status build_ffn(builder *b, int il)
{
    int h, y;
    FR_TRY(norm_new(b, il, FR_ROLE_FFN_NORM, b->x, "ffn_norm", &h));
    if (il >= b->hp->n_layer_dense_lead)
        return build_routed(b, il, h);
    FR_TRY(build_swiglu(b, il, h, FR_ROLE_FFN_GATE, FR_ROLE_FFN_UP, FR_ROLE_FFN_DOWN, &y));
    return add_to(b, il, b->x, y);
}

static fr_status build(const fr_model *m, const fr_graph_config *cfg, fr_graph *g, fr_err *err)
{
    builder bd = {.m = m,
                  .hp = &m->hp,
                  .g = g,
                  .expand = cfg->expand,
                  .apart = cfg->apart,
                  .err = err},
            *b = &bd;
    int n_layer = (int)m->hp.n_layer, h;
    if ((b->x = value(b, "x", m->hp.n_embd)) < 0)
        return FR_ENOMEM;
    FR_TRY(node(b, FR_OP_EMBED, -1, GRAPH_NONE, GRAPH_NONE, all(b, b->x),
                have(m, -1, FR_ROLE_TOKEN_EMBD), -1));
    for (int il = 0; il < n_layer; il++) {
        FR_TRY(build_attention(b, il));
        if (il == n_layer - 1)
            FR_TRY(build_gather(b, il));
        FR_TRY(build_ffn(b, il));
    }
    FR_TRY(norm_new(b, -1, FR_ROLE_OUTPUT_NORM, b->x, "output_norm", &h));
    /* Without an output matrix of its own the model reads logits off the embedding. */
    fr_role out = have(m, -1, FR_ROLE_OUTPUT) >= 0 ? FR_ROLE_OUTPUT : FR_ROLE_TOKEN_EMBD;
    return matmul(b, -1, out, all(b, h), "logits", &g->logits);
}

const fr_arch_ops fr_deepseek2_ops = {declare, build};
