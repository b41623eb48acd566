/* Workspace: values by lifetime, and scratch as runtime/engine/exec.c, cpu/moe.c and cpu/attn.c
 * take it. The planner may not see the CPU's kernels, so where their choice matters the larger
 * answer counts. */
#include "planner/account.h"

#include "quant/act.h"

enum {
    PASS_DIRECT,
    PASS_EXPAND,

    /* attention */
    BLOCK = 32, /* positions of a block */
    ATTN_LANES = 16,
    ATTN_ROWS = 32,
    CHUNK_ROWS = 128,
    MAX_SPANS = 32,
    DEFAULT_THREADS = 64, /* when nobody knows them */
    /* tiles of expert rows */
    TILES_PER_THREAD = 8,
    TILE_BYTES = 256 << 10,
    MIN_TILE_BYTES = 8 << 10,
    MAX_GRAIN = 64,
    MAX_TILE_ROWS = 256,
    KERNEL_TOKENS = 512 /* of one call, at most */
};

/* More than any machine has; sums of it still are a uint64_t. */
static const uint64_t TOO_MUCH = (uint64_t)1 << 58;

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + FR_MEM_ALIGN - 1) / FR_MEM_ALIGN * FR_MEM_ALIGN;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- passes ------------------------------------------------------------------------------------
 */

fr_status plan_passes_open(const fr_model *m, plan_passes *out, fr_err *err)
{
    fr_status st;
    int n = m->mla == FR_MLA_EXPAND || m->mla == FR_MLA_AUTO ? 2 : 1, most = 0;
    *out = (plan_passes){.n_graphs = 0};
    for (int p = 0; p < n; p++) {
        fr_graph_config cfg = {.expand = p == PASS_EXPAND};
        FR_TRY_OUT(st, fr_graph_build(m, &cfg, &out->graphs[p], err));
        out->n_graphs++;
        most = out->graphs[p].n_values > most ? out->graphs[p].n_values : most;
    }
    out->offsets = FR_NEW(size_t, FR_MEM_PLAN, (size_t)most, err);
    if (out->offsets)
        return FR_OK;
    st = FR_ENOMEM;
out:
    plan_passes_close(out);
    return st;
}

void plan_passes_close(plan_passes *p)
{
    for (int i = 0; i < p->n_graphs; i++)
        fr_graph_free(&p->graphs[i]);
    fr_mem_free(p->offsets);
    *p = (plan_passes){.n_graphs = 0};
}

/* ---- parts -------------------------------------------------------------------------------------
 */

typedef struct {
    const fr_model *m;
    const plan_passes *p;
    const fr_plan_options *o;
    fr_kv_layout kv;
    int64_t n_ctx, n_ubatch, n_outputs, n_threads;
} sizes;

/* The most tokens of a batch that runs a pass: those for which expanding does not pay go direct. */
static int64_t direct_tokens(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    int64_t absorbed = 2 * hp->kv_lora_rank + hp->qk_rope;
    int64_t expanded = hp->qk_nope + hp->qk_rope + hp->v_head;
    int64_t once = (hp->qk_nope + hp->v_head) * hp->kv_lora_rank;
    if (s->m->mla == FR_MLA_EXPAND)
        return 1;
    if (s->p->n_graphs == 1 || absorbed <= expanded)
        return s->n_ubatch;
    return min_i64(s->n_ubatch, once / (absorbed - expanded));
}

static uint64_t values_bytes(const sizes *s, int pass, int64_t n_tokens)
{
    return fr_graph_place(&s->p->graphs[pass], n_tokens, min_i64(s->n_outputs, n_tokens),
                          s->p->offsets);
}

/* The largest input of a matrix product, in numbers. */
static uint64_t input_numbers(const sizes *s, int pass, int64_t n_tokens)
{
    const fr_graph *g = &s->p->graphs[pass];
    uint64_t most = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const fr_view *in = &g->nodes[i].in[0];
        if (g->nodes[i].op == FR_OP_MATMUL)
            most = max_u64(most, (uint64_t)(n_tokens * in->n * in->width));
    }
    return most;
}

/* Positions whose K and V are expanded together. */
static int64_t chunk_positions(const sizes *s, uint64_t pos_bytes)
{
    int64_t most = (s->n_ctx + BLOCK - 1) / BLOCK * BLOCK;
    if (s->o->expand_bytes == 0)
        return most;
    uint64_t chunk = s->o->expand_bytes / pos_bytes / BLOCK * BLOCK;
    if (chunk < BLOCK)
        return BLOCK;
    return chunk < (uint64_t)most ? (int64_t)chunk : most;
}

static uint64_t expand_bytes(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    bool any_whole = false, any_split = false;
    if (s->p->n_graphs == 1)
        return 0;
    for (int il = 0; il < hp->n_layer; il++)
        *(fr_model_weight_of(s->m, il, FR_ROLE_ATTN_KV_B) >= 0 ? &any_whole : &any_split) = true;
    int64_t k = hp->n_head * (hp->qk_nope + (any_whole ? hp->v_head : 0));
    int64_t v = any_split ? hp->n_head * hp->v_head : 0;
    uint64_t pos = (uint64_t)(s->kv.k.stored + hp->kv_lora_rank + k + v) * sizeof(float), bytes;
    if (__builtin_mul_overflow(pos, (uint64_t)chunk_positions(s, pos), &bytes) || bytes > TOO_MUCH)
        return TOO_MUCH;
    return bytes + 4 * FR_MEM_ALIGN;
}

/* Router, running softmax, positions' turns and exact rows of the batch. */
static uint64_t common_bytes(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    const fr_kv_rows *k = &s->kv.k, *v = &s->kv.v;
    int64_t row = 2 * hp->n_expert + 2 * hp->n_head + hp->qk_rope;
    if (s->kv.window > 0)
        row += k->per_pos * k->stored + v->per_pos * v->stored;
    uint64_t freqs = (uint64_t)hp->qk_rope * sizeof(double);
    return (uint64_t)(s->n_ubatch * row) * sizeof(float) + freqs + 8 * FR_MEM_ALIGN;
}

/* ---- experts on the CPU (cpu/moe.c) ------------------------------------------------------------
 */

/* Most bytes that a row of quantized activations can take. */
static uint64_t act_bytes(int64_t n_rows, int64_t cols)
{
    uint64_t most = 0;
    for (int t = FR_ACT_Q8_32; t <= FR_ACT_Q8_256; t++)
        if (cols % fr_act_block((fr_act_type)t) == 0)
            most = max_u64(most, fr_act_row_bytes((fr_act_type)t, cols));
    return aligned((uint64_t)n_rows * most);
}

static uint64_t tile_rows(const sizes *s, const fr_weight *w, int64_t n_rows)
{
    uint64_t bytes = max_u64(1, fr_row_bytes(w->type, w->layout, w->cols));
    uint64_t rows = (uint64_t)(n_rows / (s->n_threads * TILES_PER_THREAD));
    if (rows * bytes > TILE_BYTES)
        rows = TILE_BYTES / bytes;
    rows = max_u64(rows, MIN_TILE_BYTES / bytes) + MAX_GRAIN;
    return rows < MAX_TILE_ROWS ? rows : MAX_TILE_ROWS;
}

static uint64_t layer_moe_bytes(const sizes *s, const fr_weight *gate, const fr_weight *up,
                                const fr_weight *down)
{
    int64_t n_pairs = s->n_ubatch * s->m->hp.n_expert_used;
    bool same = gate->type == up->type && gate->layout == up->layout;
    uint64_t lists = aligned((uint64_t)(gate->n_mat + 1) * 8) + aligned((uint64_t)gate->n_mat * 4) +
                     2 * aligned((uint64_t)n_pairs * 8);
    uint64_t inputs = act_bytes(s->n_ubatch, gate->cols) * (same ? 1 : 2);
    uint64_t hidden =
        aligned((uint64_t)(n_pairs * gate->rows) * sizeof(float)) + act_bytes(n_pairs, gate->rows);
    uint64_t at_once = (uint64_t)min_i64(n_pairs, KERNEL_TOKENS);
    uint64_t rooms = max_u64(at_once * tile_rows(s, gate, gate->rows * n_pairs),
                             (uint64_t)n_pairs * tile_rows(s, down, down->rows));
    return lists + inputs + hidden + (uint64_t)s->n_threads * aligned(rooms * sizeof(float)) +
           FR_MEM_ALIGN;
}

static uint64_t cpu_moe_bytes(const sizes *s)
{
    const fr_graph *g = &s->p->graphs[PASS_DIRECT];
    uint64_t most = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const fr_node *n = &g->nodes[i];
        if (n->op == FR_OP_MOE)
            most = max_u64(most, layer_moe_bytes(s, &s->m->weights[n->weight[0]].shape,
                                                 &s->m->weights[n->weight[1]].shape,
                                                 &s->m->weights[n->weight[2]].shape));
    }
    return most;
}

/* ---- attention on the CPU (cpu/attn.c) ---------------------------------------------------------
 */

static uint64_t padded(int64_t n)
{
    return (uint64_t)((n + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES);
}

/* Of one thread: a block of K and V, and for each row the query, two sums and their states. */
static uint64_t attn_room(int64_t wk, int64_t wv, int64_t stored_k, int64_t stored_v, uint64_t rows)
{
    return BLOCK * (padded(stored_k) + padded(stored_v)) +
           rows * (padded(wk) + 2 * padded(wv) + 4) + 2 * ATTN_LANES;
}

static uint64_t cpu_attn_bytes(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    const fr_kv_rows *k = &s->kv.k, *v = &s->kv.v;
    int64_t head = hp->qk_nope + hp->qk_rope, wk = head, wv = hp->v_head;
    if (s->m->mla != FR_MLA_PLAIN) {
        wv = hp->kv_lora_rank;
        wk = wv + hp->qk_rope;
    }
    uint64_t room = attn_room(wk, wv, k->stored, v->stored, ATTN_ROWS);
    uint64_t parts = (uint64_t)hp->n_head * MAX_SPANS * (padded(wv) + ATTN_LANES);
    uint64_t cached = room * (uint64_t)s->n_threads + parts, expanded = 0;
    if (s->p->n_graphs > 1)
        expanded =
            attn_room(head, hp->v_head, head, hp->v_head, CHUNK_ROWS) * (uint64_t)s->n_threads;
    int64_t row = k->stored > v->stored ? k->stored : v->stored; /* while it is stored */
    return (max_u64(cached, expanded) + (uint64_t)(s->n_threads * row)) * sizeof(float);
}

/* ---- totals ------------------------------------------------------------------------------------
 */

static uint64_t cpu_bytes(const sizes *s)
{
    uint64_t values = 0, input = 0;
    for (int p = 0; p < s->p->n_graphs; p++) {
        values = max_u64(values, values_bytes(s, p, s->n_ubatch));
        input = max_u64(input, input_numbers(s, p, s->n_ubatch));
    }
    return values + input * sizeof(float) + cpu_moe_bytes(s) + cpu_attn_bytes(s) + common_bytes(s) +
           expand_bytes(s) + 4 * FR_MEM_ALIGN;
}

static uint64_t gpu_bytes(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    int64_t direct = direct_tokens(s);
    uint64_t values = values_bytes(s, PASS_DIRECT, direct);
    uint64_t input = input_numbers(s, PASS_DIRECT, direct);
    if (s->p->n_graphs > 1) {
        values = max_u64(values, values_bytes(s, PASS_EXPAND, s->n_ubatch));
        input = max_u64(input, input_numbers(s, PASS_EXPAND, s->n_ubatch));
    }
    /* Per pair of token and expert: the hidden row, the same as an activation, and its place. */
    int64_t n_pairs = s->n_ubatch * hp->n_expert_used;
    uint64_t moe = (uint64_t)(n_pairs * (hp->n_ff_exp * 6 + 16) + s->n_ubatch * hp->n_embd * 2);
    return aligned(values + input * 2 + moe + common_bytes(s) + expand_bytes(s));
}

plan_workspace plan_workspace_bytes(const fr_model *m, const plan_passes *p,
                                    const fr_plan_options *o, int64_t n_ctx, int64_t n_ubatch)
{
    sizes s = {.m = m,
               .p = p,
               .o = o,
               .n_ctx = n_ctx,
               .n_ubatch = n_ubatch,
               .n_outputs = o->n_outputs,
               .n_threads = o->n_threads > 0 ? o->n_threads : DEFAULT_THREADS};
    if (fr_kv_layout_make(m, o->type_k, o->type_v, o->kv_window, &s.kv, NULL) != FR_OK)
        return (plan_workspace){0, 0};
    return (plan_workspace){cpu_bytes(&s), gpu_bytes(&s)};
}
