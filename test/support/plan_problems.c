#include "support/plan_problems.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/kv.h"

const problem_shape SHAPE_R1 = {.n_layer = 61,
                                .n_dense_lead = 3,
                                .n_embd = 7168,
                                .n_ff = 18432,
                                .n_ff_exp = 2048,
                                .n_expert = 256,
                                .n_used = 8,
                                .n_vocab = 129280,
                                .n_head = 128,
                                .dense_type = FR_TYPE_Q8_0,
                                .expert_type = FR_TYPE_Q4_K,
                                .down_type = FR_TYPE_Q4_K};

static void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "test support: memory exhausted\n");
        abort();
    }
    return p;
}

/* ---- model ------------------------------------------------------------------------------------
 */

static void add(fr_model *m, int il, fr_role role, fr_type type, int64_t cols, int64_t rows,
                int64_t mats)
{
    fr_model_weight *w = &m->weights[m->n_weights];
    *w = (fr_model_weight){.name = "synthetic", .role = role, .layer = il, .from = -1};
    w->shape = fr_weight_make(type, FR_LAYOUT_PLAIN, cols, rows, mats);
    w->bytes = w->shape.mat_bytes * (uint64_t)mats;
    int row = il < 0 ? (int)m->hp.n_layer : il;
    m->index[row * FR_ROLE_COUNT + role] = m->n_weights++;
}

static void add_layer(fr_model *m, const problem_shape *s, int il)
{
    const fr_hparams *hp = &m->hp;
    fr_type t = s->dense_type, te = s->expert_type, td = il % 2 ? s->down_type : te;
    int64_t e = hp->n_embd, head = hp->qk_nope + hp->qk_rope;
    add(m, il, FR_ROLE_ATTN_NORM, FR_TYPE_F32, e, 1, 1);
    add(m, il, FR_ROLE_ATTN_Q_A, t, e, hp->q_lora_rank, 1);
    add(m, il, FR_ROLE_ATTN_Q_B, t, hp->q_lora_rank, hp->n_head * head, 1);
    add(m, il, FR_ROLE_ATTN_KV_A_MQA, t, e, hp->kv_lora_rank + hp->qk_rope, 1);
    add(m, il, FR_ROLE_ATTN_K_B, FR_TYPE_Q8_0, hp->qk_nope, hp->kv_lora_rank, hp->n_head);
    add(m, il, FR_ROLE_ATTN_V_B, FR_TYPE_Q8_0, hp->kv_lora_rank, hp->v_head, hp->n_head);
    add(m, il, FR_ROLE_ATTN_K_UP, FR_TYPE_Q8_0, hp->kv_lora_rank, hp->qk_nope, hp->n_head);
    add(m, il, FR_ROLE_ATTN_OUTPUT, t, hp->n_head * hp->v_head, e, 1);
    add(m, il, FR_ROLE_FFN_NORM, FR_TYPE_F32, e, 1, 1);
    if (il < hp->n_layer_dense_lead || hp->n_expert == 0) {
        add(m, il, FR_ROLE_FFN_GATE, t, e, hp->n_ff, 1);
        add(m, il, FR_ROLE_FFN_UP, t, e, hp->n_ff, 1);
        add(m, il, FR_ROLE_FFN_DOWN, t, hp->n_ff, e, 1);
        return;
    }
    add(m, il, FR_ROLE_FFN_GATE_INP, FR_TYPE_F32, e, hp->n_expert, 1);
    add(m, il, FR_ROLE_FFN_GATE_EXPS, te, e, hp->n_ff_exp, hp->n_expert);
    add(m, il, FR_ROLE_FFN_UP_EXPS, te, e, hp->n_ff_exp, hp->n_expert);
    add(m, il, FR_ROLE_FFN_DOWN_EXPS, td, hp->n_ff_exp, e, hp->n_expert);
    add(m, il, FR_ROLE_FFN_GATE_SHEXP, t, e, hp->n_ff_exp, 1);
    add(m, il, FR_ROLE_FFN_UP_SHEXP, t, e, hp->n_ff_exp, 1);
    add(m, il, FR_ROLE_FFN_DOWN_SHEXP, t, hp->n_ff_exp, e, 1);
}

static void make_model(plan_problem *q, const problem_shape *s)
{
    fr_model *m = &q->m;
    m->mla = FR_MLA_AUTO;
    m->hp = (fr_hparams){.n_layer = s->n_layer,
                         .n_ctx_train = 163840,
                         .n_embd = s->n_embd,
                         .n_vocab = s->n_vocab,
                         .n_head = s->n_head,
                         .q_lora_rank = 1536,
                         .kv_lora_rank = 512,
                         .qk_nope = 128,
                         .qk_rope = 64,
                         .v_head = 128,
                         .n_ff = s->n_ff,
                         .n_layer_dense_lead = s->n_dense_lead,
                         .n_ff_exp = s->n_ff_exp,
                         .n_expert = s->n_expert,
                         .n_expert_used = s->n_used,
                         .n_expert_shared = 1};
    size_t cells = (size_t)(s->n_layer + 1) * FR_ROLE_COUNT;
    m->index = need(FR_ARENA_NEW(int, &q->arena, cells, NULL));
    for (size_t i = 0; i < cells; i++)
        m->index[i] = -1;
    m->weights = need(FR_ARENA_NEW(fr_model_weight, &q->arena, (size_t)s->n_layer * 20 + 3, NULL));
    add(m, -1, FR_ROLE_TOKEN_EMBD, s->dense_type, s->n_embd, s->n_vocab, 1);
    add(m, -1, FR_ROLE_OUTPUT_NORM, FR_TYPE_F32, s->n_embd, 1, 1);
    add(m, -1, FR_ROLE_OUTPUT, s->dense_type, s->n_embd, s->n_vocab, 1);
    for (int il = 0; il < s->n_layer; il++)
        add_layer(m, s, il);
}

/* ---- items ------------------------------------------------------------------------------------
 */

static fr_item *item_for(plan_problem *q, fr_item_kind kind, int layer)
{
    for (int i = 0; i < q->p.n_items; i++)
        if (q->items[i].kind == kind && q->items[i].layer == layer)
            return &q->items[i];
    fr_item *it = &q->items[q->p.n_items++];
    *it = (fr_item){.kind = kind, .layer = layer, .n_units = 1, .fixed_device = -1};
    it->allowed = (1u << (1 + q->hw.n_gpus)) - 1;
    return it;
}

static void make_items(plan_problem *q)
{
    fr_kv_layout kv;
    need(fr_kv_layout_make(&q->m, q->o.type_k, q->o.type_v, q->o.kv_window, &kv, NULL) == FR_OK
             ? &kv
             : NULL);
    q->items = need(FR_ARENA_NEW(fr_item, &q->arena, (size_t)q->m.hp.n_layer * 3 + 3, NULL));
    for (int i = 0; i < q->m.n_weights; i++) {
        const fr_model_weight *w = &q->m.weights[i];
        bool expert = w->role == FR_ROLE_FFN_GATE_EXPS || w->role == FR_ROLE_FFN_UP_EXPS ||
                      w->role == FR_ROLE_FFN_DOWN_EXPS;
        fr_item_kind kind = expert ? FR_ITEM_EXPERTS : FR_ITEM_DENSE;
        if (w->layer < 0)
            kind = w->role == FR_ROLE_TOKEN_EMBD ? FR_ITEM_EMBED : FR_ITEM_OUTPUT;
        fr_item *it = item_for(q, kind, w->layer);
        if (it->bytes == 0 && kind == FR_ITEM_DENSE && !q->o.kv_on_cpu)
            it->bytes += fr_kv_layer_bytes(&kv, q->o.n_ctx) + fr_kv_recent_bytes(&kv);
        it->bytes += w->bytes;
        if (expert)
            it->n_units = q->m.hp.n_expert;
    }
}

void problem_make(plan_problem *q, const problem_shape *shape, const fr_hardware *hw,
                  const fr_plan_options *o)
{
    memset(q, 0, sizeof *q);
    q->arena = fr_arena_make(FR_MEM_PLAN);
    q->hw = *hw;
    q->o = *o;
    make_model(q, shape);
    q->p = (fr_problem){.m = &q->m, .hw = &q->hw, .o = &q->o};
    make_items(q);
    q->p.items = q->items;
    q->p.room[FR_PLAN_CPU] = hw->ram_bytes;
    for (int i = 0; i < hw->n_gpus; i++)
        q->p.room[1 + i] = hw->gpus[i].vram_bytes;
}

void problem_free(plan_problem *q)
{
    fr_arena_free(&q->arena);
}

/* ---- machines ---------------------------------------------------------------------------------
 */

static fr_gpu_hw make_gpu(int device, uint64_t vram, double scale)
{
    return (fr_gpu_hw){.device = device,
                       .vram_bytes = vram,
                       .bandwidth = 936e9 * scale,
                       .f16_ops = 71e12 * scale,
                       .int8_ops = 284e12 * scale,
                       .h2d = 25e9,
                       .d2h = 25e9};
}

fr_hardware problem_machine(int n_gpus, uint64_t vram, uint64_t ram)
{
    fr_hardware hw = {.n_gpus = n_gpus,
                      .n_cores = 24,
                      .ram_bytes = ram,
                      .ram_bandwidth = 80e9,
                      .cpu_f32_ops = 1e12,
                      .cpu_int8_ops = 4e12};
    for (int i = 0; i < n_gpus; i++)
        hw.gpus[i] = make_gpu(i, vram, 1);
    return hw;
}

fr_plan_options problem_options(int64_t n_ctx, int64_t n_ubatch)
{
    return (fr_plan_options){.n_ctx = n_ctx,
                             .n_ubatch = n_ubatch,
                             .n_seq = 1,
                             .n_outputs = 1,
                             .type_k = FR_TYPE_F16,
                             .type_v = FR_TYPE_F16,
                             .n_gpu_layers = -1,
                             .fit = true};
}

/* ---- random -----------------------------------------------------------------------------------
 */

/* 0 .. n - 1; the generator of test/testing.h, which needs cmocka's headers. */
static int64_t pick(uint64_t *state, int64_t n)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (int64_t)((*state * 0x2545F4914F6CDD1Dull >> 33) % (uint64_t)n);
}

static problem_shape random_shape(uint64_t *r)
{
    static const fr_type types[] = {FR_TYPE_Q8_0, FR_TYPE_Q6_K, FR_TYPE_Q4_K, FR_TYPE_Q2_K,
                                    FR_TYPE_F16};
    problem_shape s = {.n_layer = 2 + pick(r, 23),
                       .n_embd = 256 * (1 + pick(r, 16)),
                       .n_ff = 256 * (1 + pick(r, 32)),
                       .n_ff_exp = 256 * (1 + pick(r, 8)),
                       .n_expert = pick(r, 8) ? 8 << pick(r, 6) : 0,
                       .n_vocab = 1024 * (1 + pick(r, 128)),
                       .n_head = 4 << pick(r, 5),
                       .dense_type = types[pick(r, 5)],
                       .expert_type = types[pick(r, 5)],
                       .down_type = types[pick(r, 5)]};
    s.n_dense_lead = pick(r, s.n_layer < 4 ? s.n_layer : 4);
    s.n_used = 1 + pick(r, 8);
    return s;
}

static void random_rules(plan_problem *q, uint64_t *r)
{
    int n_devices = 1 + q->hw.n_gpus;
    int share = (int)pick(r, 4) * 10; /* of the items, in percent */
    for (int i = 0; i < q->p.n_items; i++) {
        fr_item *it = &q->items[i];
        if (pick(r, 100) >= share)
            continue;
        int d = (int)pick(r, n_devices);
        if (pick(r, 3) == 0 && it->kind == FR_ITEM_EXPERTS) { /* a slice or one of the trio */
            it->fixed_bytes[d] = it->bytes / 3;
            it->bytes -= it->fixed_bytes[d];
            it->n_units -= it->n_units / 3;
        } else if (pick(r, 3) == 0) {
            it->allowed = 1u << d | 1u << pick(r, n_devices);
        } else {
            it->fixed_bytes[d] = it->bytes;
            it->bytes = 0;
            it->fixed_device = d;
            it->allowed = 1u << d;
        }
    }
}

static void random_rooms(plan_problem *q, uint64_t *r)
{
    uint64_t all = 0, fixed[FR_PLAN_MAX_DEVICES] = {0};
    for (int i = 0; i < q->p.n_items; i++) {
        all += q->items[i].bytes;
        for (int d = 0; d <= q->hw.n_gpus; d++)
            fixed[d] += q->items[i].fixed_bytes[d];
    }
    q->p.room[FR_PLAN_CPU] = fixed[0] + all / 100 * (uint64_t)(20 + pick(r, 120));
    for (int d = 1; d <= q->hw.n_gpus; d++)
        q->p.room[d] = fixed[d] + all / 100 * (uint64_t)pick(r, 50);
}

static void random_problem(plan_problem *q, uint64_t seed, bool tiny)
{
    uint64_t rng = seed * 0x9E3779B97F4A7C15ull + 1, *r = &rng;
    pick(r, 2);
    problem_shape shape = random_shape(r);
    if (tiny) {
        shape.n_layer = 2 + pick(r, 2);
        shape.n_dense_lead = pick(r, 2);
        shape.n_expert = 2 + 2 * pick(r, 2);
        shape.n_used = 1 + pick(r, 2);
    }
    fr_hardware hw = problem_machine((int)pick(r, tiny ? 3 : 7), 0, 0);
    hw.ram_bandwidth = 20e9 + 20e9 * (double)pick(r, 20);
    hw.cpu_int8_ops = 0.3e12 * (double)(1 + pick(r, 20));
    hw.cpu_f32_ops = hw.cpu_int8_ops / 4;
    bool mixed = pick(r, 2), virtual_gpus = pick(r, 6) == 0;
    for (int i = 0; i < hw.n_gpus; i++) {
        double scale = mixed ? 0.3 + 0.1 * (double)pick(r, 30) : 1;
        hw.gpus[i] = make_gpu(virtual_gpus ? i / 2 : i, 0, scale);
        if (mixed)
            hw.gpus[i].h2d = hw.gpus[i].d2h = 3e9 * (double)(1 + pick(r, 16));
    }
    fr_plan_options o = problem_options(256 << pick(r, 8), 1 << pick(r, 12));
    o.goal = (fr_goal)pick(r, 3);
    o.kv_on_cpu = pick(r, 8) == 0;
    problem_make(q, &shape, &hw, &o);
    random_rules(q, r);
    random_rooms(q, r);
}

void problem_random(plan_problem *q, uint64_t seed)
{
    random_problem(q, seed, false);
}

void problem_tiny(plan_problem *q, uint64_t seed)
{
    random_problem(q, seed, true);
}

/* Rules of the kinds that plans have: experts bound to the GPUs, slices and whole parts settled. */
static void plain_rules(plan_problem *q, uint64_t *r)
{
    int n_devices = 1 + q->hw.n_gpus, share = (int)pick(r, 3) * 2;
    for (int i = 0; i < q->p.n_items; i++) {
        fr_item *it = &q->items[i];
        int d = (int)pick(r, n_devices);
        if (it->kind != FR_ITEM_EXPERTS || pick(r, 100) >= share)
            continue;
        if (pick(r, 3) == 0) {
            it->fixed_bytes[d] = it->bytes / 3;
            it->bytes -= it->fixed_bytes[d];
            it->n_units -= it->n_units / 3;
        } else if (pick(r, 2) == 0) {
            it->fixed_bytes[d] = it->bytes;
            it->bytes = 0;
            it->fixed_device = d;
            it->allowed = 1u << d;
        } else {
            it->allowed &= ~1u;
        }
    }
}

void problem_alike(plan_problem *q, uint64_t seed)
{
    uint64_t rng = seed * 0x9E3779B97F4A7C15ull + 7, *r = &rng;
    pick(r, 2);
    problem_shape shape = random_shape(r);
    fr_hardware hw = problem_machine(1 + (int)pick(r, 8), 0, 0);
    shape.n_layer = 12 + pick(r, 50);
    fr_plan_options o = problem_options(256 << pick(r, 8), 128 << pick(r, 6));
    o.goal = (fr_goal)pick(r, 3);
    hw.ram_bandwidth = 20e9 + 20e9 * (double)pick(r, 10);
    problem_make(q, &shape, &hw, &o);
    plain_rules(q, r);
    random_rooms(q, r);
    q->p.room[FR_PLAN_CPU] *= 8;
}

/* Shapes like those of V2-Lite, V2, R1, Kimi-K2, and a small one. */
static problem_shape real_shape(uint64_t *r)
{
    static const fr_type types[] = {FR_TYPE_Q2_K, FR_TYPE_Q4_K, FR_TYPE_Q6_K, FR_TYPE_Q8_0};
    static const struct {
        int64_t n_layer, n_lead, n_embd, n_ff, n_ff_exp, n_expert, n_used, n_vocab, n_head;
    } shapes[] = {{27, 1, 2048, 10944, 1408, 64, 6, 102400, 16},
                  {60, 1, 5120, 12288, 1536, 160, 6, 102400, 128},
                  {61, 3, 7168, 18432, 2048, 256, 8, 129280, 128},
                  {61, 1, 7168, 18432, 2048, 384, 8, 163840, 64},
                  {24, 2, 2048, 8192, 768, 32, 4, 65536, 32}};
    size_t k = (size_t)pick(r, 5);
    problem_shape s = {.n_layer = shapes[k].n_layer,
                       .n_dense_lead = shapes[k].n_lead,
                       .n_embd = shapes[k].n_embd,
                       .n_ff = shapes[k].n_ff,
                       .n_ff_exp = shapes[k].n_ff_exp,
                       .n_expert = shapes[k].n_expert,
                       .n_used = shapes[k].n_used,
                       .n_vocab = shapes[k].n_vocab,
                       .n_head = shapes[k].n_head,
                       .dense_type = types[1 + pick(r, 3)],
                       .expert_type = types[pick(r, 3)]};
    s.down_type = pick(r, 2) ? s.expert_type : types[pick(r, 4)];
    return s;
}

/* As GPUs differ in practice: of memory, of arithmetic, of their links. */
static void real_gpus(fr_hardware *hw, uint64_t *r)
{
    static const struct {
        double read, f16, link;
    } cards[] = {{936e9, 71e12, 25e9},   {1008e9, 165e12, 25e9}, {360e9, 25e12, 12e9},
                 {347e9, 12e12, 12e9},   {768e9, 155e12, 25e9},  {1555e9, 312e12, 25e9},
                 {3350e9, 989e12, 50e9}, {448e9, 36e12, 6e9}};
    int64_t kinds[4], n_kinds = 1 + pick(r, 4);
    for (int64_t k = 0; k < n_kinds; k++)
        kinds[k] = pick(r, 8);
    for (int i = 0; i < hw->n_gpus; i++) {
        int64_t k = kinds[pick(r, n_kinds)];
        fr_gpu_hw *g = &hw->gpus[i];
        *g = make_gpu(i, 0, 1);
        g->bandwidth = cards[k].read;
        g->f16_ops = cards[k].f16;
        g->int8_ops = 2 * cards[k].f16;
        g->h2d = g->d2h = cards[k].link;
    }
}

void problem_mixed(plan_problem *q, uint64_t seed)
{
    uint64_t rng = seed * 0x9E3779B97F4A7C15ull + 5, *r = &rng;
    pick(r, 2);
    problem_shape shape = real_shape(r);
    fr_hardware hw = problem_machine(1 + (int)pick(r, 8), 0, 0);
    real_gpus(&hw, r);
    hw.ram_bandwidth = 30e9 + 20e9 * (double)pick(r, 25);
    hw.cpu_int8_ops = 1e12 * (double)(1 + pick(r, 12));
    hw.cpu_f32_ops = hw.cpu_int8_ops / 4;
    fr_plan_options o = problem_options(2048 << pick(r, 6), 128 << pick(r, 5));
    o.goal = (fr_goal)pick(r, 3);
    o.kv_on_cpu = pick(r, 8) == 0;
    problem_make(q, &shape, &hw, &o);
    if (pick(r, 4) == 0)
        plain_rules(q, r);
    random_rooms(q, r);
    for (int d = 1; d <= hw.n_gpus; d++) /* together some times the model, at most */
        q->p.room[d] = q->p.room[d] / 100 * (uint64_t)(20 + pick(r, 80));
    if (pick(r, 4) > 0)
        q->p.room[FR_PLAN_CPU] *= 4;
}

/* ---- assignment -------------------------------------------------------------------------------
 */

fr_assignment problem_assignment(plan_problem *q, int64_t (*units)[FR_PLAN_MAX_DEVICES])
{
    size_t n = (size_t)q->m.hp.n_layer;
    fr_assignment a = {.n_devices = 1 + q->hw.n_gpus, .n_layer = q->m.hp.n_layer};
    a.dense_device = need(FR_ARENA_NEW(int, &q->arena, n, NULL));
    a.expert_share = need(fr_arena_alloc(&q->arena, n, sizeof *a.expert_share, NULL));
    for (int i = 0; i < q->p.n_items; i++) {
        const fr_item *it = &q->items[i];
        double all = (double)it->bytes;
        for (int d = 0; d < a.n_devices; d++)
            all += (double)it->fixed_bytes[d];
        for (int d = 0; d < a.n_devices; d++) {
            double unit = (double)it->bytes / (double)it->n_units;
            double here = (double)it->fixed_bytes[d] + unit * (double)units[i][d];
            if (it->kind == FR_ITEM_EXPERTS)
                a.expert_share[it->layer][d] = here / all;
            else if (it->kind == FR_ITEM_DENSE && units[i][d] > 0)
                a.dense_device[it->layer] = d;
            else if (it->kind == FR_ITEM_OUTPUT && units[i][d] > 0)
                a.output_device = d;
        }
    }
    return a;
}
