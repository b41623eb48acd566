/* Workspace: values by lifetime, and scratch as runtime/engine/exec.c, cpu/moe.c and cpu/attn*.c
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
    CHUNK_ROWS = 516, /* of queries on expanded K and V */
    PANEL = 128,      /* positions of those that are packed together */
    MAX_SPANS = 32,
    SPLIT_16 = 32,        /* columns of a query that share a factor, in integers of 16 bits */
    MIN_HEADS_16 = 8,     /* that integers are taken for */
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

fr_status plan_passes_open(const fr_model *m, const bool *apart, bool direct_only, plan_passes *out,
                           fr_err *err)
{
    fr_status st;
    bool expands = (m->mla == FR_MLA_EXPAND || m->mla == FR_MLA_AUTO) && !direct_only;
    int n = expands ? 2 : 1, most = 0;
    *out = (plan_passes){.n_graphs = 0};
    for (int p = 0; p < n; p++) {
        fr_graph_config cfg = {.expand = p == PASS_EXPAND, .apart = apart};
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

int64_t plan_pass_tokens(const fr_model *m, int n_graphs, int pass, int64_t n_ubatch)
{
    const fr_hparams *hp = &m->hp;
    int64_t absorbed = 2 * hp->kv_lora_rank + hp->qk_rope;
    int64_t expanded = hp->qk_nope + hp->qk_rope + hp->v_head;
    int64_t once = (hp->qk_nope + hp->v_head) * hp->kv_lora_rank;
    if (n_graphs == 1 || pass == PASS_EXPAND)
        return n_ubatch;
    if (m->mla == FR_MLA_EXPAND)
        return 1;
    if (absorbed <= expanded)
        return n_ubatch;
    int64_t most = once / (absorbed - expanded);
    return min_i64(n_ubatch, most > 0 ? most : 1);
}

static int64_t pass_tokens(const sizes *s, int pass)
{
    return plan_pass_tokens(s->m, s->p->n_graphs, pass, s->n_ubatch);
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

/* Whether kv_b is there as one matrix, as two, or one here and two there. */
static void kv_b_forms(const fr_model *m, bool *any_whole, bool *any_split)
{
    *any_whole = *any_split = false;
    for (int il = 0; il < m->hp.n_layer; il++)
        *(fr_model_weight_of(m, il, FR_ROLE_ATTN_KV_B) >= 0 ? any_whole : any_split) = true;
}

static uint64_t bounded(uint64_t bytes, int64_t n)
{
    uint64_t all;
    return __builtin_mul_overflow(bytes, (uint64_t)n, &all) || all > TOO_MUCH ? TOO_MUCH : all;
}

static uint64_t expand_bytes(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    bool any_whole, any_split;
    if (s->p->n_graphs == 1)
        return 0;
    kv_b_forms(s->m, &any_whole, &any_split);
    int64_t k = hp->n_head * (hp->qk_nope + (any_whole ? hp->v_head : 0));
    int64_t v = any_split ? hp->n_head * hp->v_head : 0;
    uint64_t pos = (uint64_t)(s->kv.k.stored + hp->kv_lora_rank + k + v) * sizeof(float);
    return bounded(pos, chunk_positions(s, pos)) + 4 * FR_MEM_ALIGN;
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

/* Columns of the widest value that several devices may have a part of. */
static int64_t widest_sum(const sizes *s)
{
    int64_t most = 0;
    for (int i = 0; i < s->p->graphs[PASS_DIRECT].n_nodes; i++) {
        const fr_node *n = &s->p->graphs[PASS_DIRECT].nodes[i];
        int64_t cols =
            s->p->graphs[PASS_DIRECT].values[n->out[0].value < 0 ? 0 : n->out[0].value].cols;
        if ((n->op == FR_OP_MOE || n->op == FR_OP_MATMUL_IDS) && cols > most)
            most = cols;
    }
    return most;
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
    uint64_t rooms = max_u64(2 * at_once * tile_rows(s, gate, gate->rows * n_pairs),
                             (uint64_t)n_pairs * tile_rows(s, down, down->rows));
    return lists + inputs + hidden + (uint64_t)s->n_threads * aligned(rooms * sizeof(float)) +
           FR_MEM_ALIGN;
}

/* The feed-forward part of a layer for one token (cpu/token_ffn.c). */
static uint64_t token_ffn_bytes(const sizes *s, int layer)
{
    static const fr_role gates[] = {FR_ROLE_FFN_GATE, FR_ROLE_FFN_GATE_SHEXP,
                                    FR_ROLE_FFN_GATE_EXPS};
    uint64_t bytes = 2 * act_bytes(1, s->m->hp.n_embd) + FR_MEM_ALIGN +
                     (uint64_t)s->n_threads * aligned(MAX_TILE_ROWS * sizeof(float));
    for (int i = 0; i < 3; i++) {
        int w = fr_model_weight_of(s->m, layer, gates[i]);
        if (w < 0)
            continue;
        int64_t n = gates[i] == FR_ROLE_FFN_GATE_EXPS ? s->m->hp.n_expert_used : 1;
        int64_t n_ff = s->m->weights[w].shape.rows;
        bytes += aligned((uint64_t)(n * n_ff) * sizeof(float)) + act_bytes(n, n_ff);
    }
    return bytes;
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
    for (int il = 0; il < s->m->hp.n_layer; il++)
        most = max_u64(most, token_ffn_bytes(s, il));
    return most;
}

/* ---- attention on the CPU (cpu/attn*.c) --------------------------------------------------------
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

/* What integers take besides: twice as many positions of K, packed queries, and what rounding does
 * to each row, once for a span and once for all. */
static uint64_t attn_room_16(int64_t wk, int64_t stored_k)
{
    uint64_t queries = padded(wk) / 2 + padded(wk) / SPLIT_16 + 2;
    return 2 * BLOCK * padded(stored_k) + ATTN_ROWS * queries + 4 * ATTN_ROWS;
}

/* The same on expanded K and V, which are packed, and made in the same room. */
static uint64_t expanded_room(const fr_hparams *hp)
{
    uint64_t w = padded(hp->qk_nope) + padded(hp->qk_rope), wv = padded(hp->v_head);
    return (CHUNK_ROWS + 2 * PANEL) * (w + wv) + CHUNK_ROWS * 2 + ATTN_LANES;
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
    if (s->m->mla != FR_MLA_PLAIN && hp->n_head >= MIN_HEADS_16)
        room += attn_room_16(wk, k->stored);
    uint64_t parts = (uint64_t)hp->n_head * MAX_SPANS * (padded(wv) + ATTN_LANES);
    uint64_t cached = room * (uint64_t)s->n_threads + parts, expanded = 0;
    if (s->p->n_graphs > 1)
        expanded = expanded_room(hp) * (uint64_t)s->n_threads;
    int64_t row = k->stored > v->stored ? k->stored : v->stored; /* while it is stored */
    return (max_u64(cached, expanded) + (uint64_t)(s->n_threads * row)) * sizeof(float);
}

/* ---- totals ------------------------------------------------------------------------------------
 */

static uint64_t cpu_bytes(const sizes *s)
{
    uint64_t values = 0, input = 0;
    for (int p = 0; p < s->p->n_graphs; p++) {
        values = max_u64(values, values_bytes(s, p, pass_tokens(s, p)));
        input = max_u64(input, input_numbers(s, p, pass_tokens(s, p)));
    }
    uint64_t moved = (uint64_t)(s->n_ubatch * widest_sum(s));
    return values + (input + moved) * sizeof(float) + cpu_moe_bytes(s) + cpu_attn_bytes(s) +
           common_bytes(s) + expand_bytes(s) + 4 * FR_MEM_ALIGN;
}

/* ---- GPUs --------------------------------------------------------------------------------------
 */

enum {
    DOWN_BYTES = 32 << 20,
    HIDDEN_BYTES = 256 << 20,
    MATMUL_BYTES = 8 << 20,
    MIN_EXPERT_TOKENS = 512 /* enough to keep products busy */
};

static uint64_t gpu_aligned(uint64_t bytes)
{
    return (bytes + PLAN_WEIGHT_ALIGN - 1) / PLAN_WEIGHT_ALIGN * PLAN_WEIGHT_ALIGN;
}

/* Rows of the down matrices whose results stand for all pairs at once: the rest waits its turn. */
static int64_t down_rows(const sizes *s, int64_t n_pairs)
{
    int64_t step = PLAN_GPU_TILE_ROWS, rows = DOWN_BYTES / 4 / (n_pairs > 0 ? n_pairs : 1);
    rows = rows / step * step;
    return min_i64(rows < step ? step : rows, s->m->hp.n_embd);
}

/* Tokens whose rows of gate and up stand at once, likewise. */
static int64_t expert_tokens(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    int64_t row = 2 * 4 * hp->n_expert_used * hp->n_ff_exp;
    int64_t n = HIDDEN_BYTES / (row > 0 ? row : 1);
    return min_i64(n < MIN_EXPERT_TOKENS ? MIN_EXPERT_TOKENS : n, s->n_ubatch);
}

static uint64_t widest_row(const fr_model *m)
{
    uint64_t most = 0;
    for (int i = 0; i < m->n_weights; i++)
        most = max_u64(most, (uint64_t)m->weights[i].shape.cols);
    return most;
}

static void expert_parts(const sizes *s, plan_gpu_parts *g)
{
    const fr_hparams *hp = &s->m->hp;
    if (hp->n_expert == 0)
        return;
    g->expert_tokens = expert_tokens(s);
    int64_t n_pairs = g->expert_tokens * hp->n_expert_used;
    g->down_rows = down_rows(s, n_pairs);
    g->bytes[PLAN_GPU_GATE] = g->bytes[PLAN_GPU_UP] = (uint64_t)(n_pairs * hp->n_ff_exp) * 4;
    g->bytes[PLAN_GPU_DOWN] = (uint64_t)(n_pairs * g->down_rows) * 4;
    g->bytes[PLAN_GPU_GROUPS] = (uint64_t)(s->n_ubatch * hp->n_expert_used + hp->n_expert + 1) * 4;
}

static void attention_parts(const sizes *s, plan_gpu_parts *g)
{
    const fr_hparams *hp = &s->m->hp;
    const fr_kv_rows *k = &s->kv.k, *v = &s->kv.v;
    if (s->p->n_graphs > 1) {
        bool whole, split;
        kv_b_forms(s->m, &whole, &split);
        uint64_t latent = (uint64_t)k->stored * 4;
        uint64_t k_bytes = (uint64_t)(hp->n_head * (hp->qk_nope + (whole ? hp->v_head : 0))) * 4;
        uint64_t v_bytes = split ? (uint64_t)(hp->n_head * hp->v_head) * 4 : 0;
        g->chunk = chunk_positions(s, latent + k_bytes + v_bytes);
        g->bytes[PLAN_GPU_LATENT] = bounded(latent, g->chunk);
        g->bytes[PLAN_GPU_K] = bounded(k_bytes, g->chunk);
        g->bytes[PLAN_GPU_V] = bounded(v_bytes, g->chunk);
        g->bytes[PLAN_GPU_STATE] = (uint64_t)(s->n_ubatch * hp->n_head) * 2 * 4;
    }
    if (s->kv.window > 0) {
        g->bytes[PLAN_GPU_STAGED_K] = (uint64_t)(s->n_ubatch * k->per_pos * k->stored) * 4;
        g->bytes[PLAN_GPU_STAGED_V] = (uint64_t)(s->n_ubatch * v->per_pos * v->stored) * 4;
    }
}

static plan_gpu_parts gpu_parts(const sizes *s)
{
    const fr_hparams *hp = &s->m->hp;
    plan_gpu_parts g = {.total = 0};
    for (int p = 0; p < s->p->n_graphs; p++)
        g.bytes[PLAN_GPU_VALUES] =
            max_u64(g.bytes[PLAN_GPU_VALUES], values_bytes(s, p, pass_tokens(s, p)));
    uint64_t rows = widest_row(s->m) * 4;
    g.bytes[PLAN_GPU_MATMUL] = max_u64(PLAN_GPU_TILE_ROWS * rows, MATMUL_BYTES / rows * rows);
    g.bytes[PLAN_GPU_MOVED] = (uint64_t)(s->n_ubatch * widest_sum(s)) * 4;
    g.bytes[PLAN_GPU_TURNS] = (uint64_t)(s->n_ubatch * hp->qk_rope) * 4;
    g.bytes[PLAN_GPU_TOKENS] = (uint64_t)s->n_ubatch * 4;
    g.bytes[PLAN_GPU_OUTPUTS] = (uint64_t)s->n_outputs * 4;
    g.bytes[PLAN_GPU_FLAGS] = (uint64_t)hp->n_layer * 4;
    expert_parts(s, &g);
    attention_parts(s, &g);
    for (int i = 0; i < PLAN_GPU_PARTS; i++) {
        g.bytes[i] = gpu_aligned(g.bytes[i]);
        g.total += g.bytes[i];
    }
    return g;
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static bool make_sizes(const fr_model *m, const plan_passes *p, const fr_plan_options *o,
                       int64_t n_ctx, int64_t n_ubatch, sizes *s)
{
    *s = (sizes){.m = m,
                 .p = p,
                 .o = o,
                 .n_ctx = n_ctx,
                 .n_ubatch = n_ubatch,
                 .n_outputs = o->n_outputs,
                 .n_threads = o->n_threads > 0 ? o->n_threads : DEFAULT_THREADS};
    return fr_kv_layout_make(m, o->type_k, o->type_v, o->kv_window, &s->kv, NULL) == FR_OK;
}

plan_workspace plan_workspace_bytes(const fr_model *m, const plan_passes *p,
                                    const fr_plan_options *o, int64_t n_ctx, int64_t n_ubatch)
{
    sizes s;
    if (!make_sizes(m, p, o, n_ctx, n_ubatch, &s))
        return (plan_workspace){0, 0};
    return (plan_workspace){cpu_bytes(&s), gpu_parts(&s).total};
}

plan_gpu_parts plan_gpu_workspace(const fr_model *m, const plan_passes *p, const fr_plan_options *o,
                                  int64_t n_ctx, int64_t n_ubatch)
{
    sizes s;
    if (!make_sizes(m, p, o, n_ctx, n_ubatch, &s))
        return (plan_gpu_parts){.total = 0};
    return gpu_parts(&s);
}
