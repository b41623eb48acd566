/* Routed experts: one job on all threads, a barrier per stage.
 *
 *   group    (caller)  sort the pairs (token, k) by expert: each gets a "place" (expert_groups.h)
 *   encode   activations of the tokens for gate and up
 *   gate/up  tiles (expert, rows of n_ff): hidden[place] = silu(gate x) * (up x)
 *   encode   activations of hidden for down; with many tokens done in the tiles of gate and up, as
 *            floats that never leave the cache
 *   down     tiles (rows of n_embd, all experts): out[place] in the thread's own room, then
 *            y[t] = sum over ascending k; a tile owns its rows of y for all tokens, so the sum
 *            needs no barrier and no room for all of out. */
#include <assert.h>
#include <string.h>
#include <time.h>

#include "cpu/deal_choice.h"
#include "cpu/expert_groups.h"
#include "cpu/kernels.h"
#include "cpu/mix.h"
#include "cpu/pool.h"

#define MAX_TILE_ROWS 256 /* bounds each thread's room; a multiple of every grain */
#define ALIGN         64

typedef struct {
    int64_t n_embd, n_ff, n_experts, n_pairs;
    int64_t ff_rows, ff_grain, down_rows, down_grain; /* of a tile, and what it is a multiple of */
    fr_act_type gate_act, up_act, down_act;
    bool own_up;         /* up reads other activations than gate */
    bool encodes_hidden; /* tiles of gate and up are whole blocks of activations for down */
    /* places in the scratch, in bytes */
    size_t groups, x_gate, x_up, hidden, hidden_act, rooms, room_bytes, total;
} plan;

enum { START, FF, HIDDEN, DOWN, END, N_MOMENTS }; /* when a stage begins */

typedef struct {
    fr_cpu *cpu;
    const fr_cpu_moe_args *args;
    const plan *p;
    const cpu_kernel *k_gate, *k_up, *k_down;
    cpu_groups groups;
    fr_act x_gate, x_up, hidden_act;
    float *hidden; /* [n_pairs][n_ff] by place */
    char *rooms;   /* room_bytes per thread */
    cpu_tiles ff_tiles, down_tiles;
    double at[N_MOMENTS]; /* seconds, as the caller comes by */
} moe_job;

static size_t take(size_t *total, int64_t n, size_t size)
{
    size_t at = *total;
    *total = (at + (size_t)n * size + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* Room of the encoded rows; floats that lie in rows of their own already need none. */
static size_t act_bytes(fr_act_type type, int64_t n_rows, int64_t cols)
{
    return type == FR_ACT_F32 ? 0 : fr_cpu_act_bytes(type, n_rows, cols);
}

/* Rows of a tile in which both weights (they may be the same) are cut; n_rows in all, n_tokens of
 * an expert. */
static int64_t tile_rows(const fr_cpu *cpu, const fr_weight *a, const fr_weight *b, int64_t n_rows,
                         int64_t n_tokens, int64_t *grain)
{
    const int n_threads = fr_cpu_n_threads(cpu);
    int64_t grain_a =
        cpu_kernel_grain(&cpu->table.dot[a->type][a->layout], n_rows, n_tokens, n_threads);
    int64_t grain_b =
        cpu_kernel_grain(&cpu->table.dot[b->type][b->layout], n_rows, n_tokens, n_threads);
    *grain = grain_a > grain_b ? grain_a : grain_b; /* powers of two */
    size_t row_bytes = fr_row_bytes(a->type, a->layout, a->cols);
    int64_t rows = cpu_tile_rows(n_rows, row_bytes, *grain, n_threads);
    return rows < MAX_TILE_ROWS ? rows : MAX_TILE_ROWS;
}

/* Tiles start and end at multiples of their grain where memory is in one node. */
static bool encodes_hidden(const fr_cpu *cpu, plan *p, int64_t per_expert)
{
    int64_t block = fr_act_block(p->down_act);
    if (p->down_act == FR_ACT_F32 || per_expert < CPU_FEW_TOKENS || p->n_ff % block != 0 ||
        p->ff_rows % block != 0 || cpu_pool_n_shares(cpu->pool) > 1)
        return false;
    p->ff_grain = p->ff_grain > block ? p->ff_grain : block;
    return p->ff_grain % block == 0;
}

static plan make_plan(const fr_cpu *cpu, const fr_weight *gate, const fr_weight *up,
                      const fr_weight *down, int64_t n_tokens, int64_t n_used)
{
    plan p = {.n_embd = gate->cols,
              .n_ff = gate->rows,
              .n_experts = gate->n_mat,
              .n_pairs = n_tokens * n_used,
              .gate_act = fr_cpu_act_type(cpu, gate),
              .up_act = fr_cpu_act_type(cpu, up),
              .down_act = fr_cpu_act_type(cpu, down)};
    p.own_up = p.up_act != p.gate_act;
    int64_t per_expert = p.n_pairs / p.n_experts;
    p.ff_rows = tile_rows(cpu, gate, up, gate->rows * p.n_pairs, per_expert, &p.ff_grain);
    p.encodes_hidden = encodes_hidden(cpu, &p, per_expert);
    p.down_rows = tile_rows(cpu, down, down, down->rows, per_expert, &p.down_grain);
    p.groups = take(&p.total, 1, cpu_groups_bytes(p.n_experts, p.n_pairs));
    p.x_gate = take(&p.total, 1, act_bytes(p.gate_act, n_tokens, p.n_embd));
    p.x_up = take(&p.total, 1, p.own_up ? act_bytes(p.up_act, n_tokens, p.n_embd) : 0);
    p.hidden = take(&p.total, p.n_pairs * p.n_ff, sizeof(float));
    p.hidden_act = take(&p.total, 1, act_bytes(p.down_act, p.n_pairs, p.n_ff));
    int64_t ff_tokens = p.n_pairs < CPU_MANY_TOKENS ? p.n_pairs : CPU_MANY_TOKENS;
    int64_t ff_room = 2 * ff_tokens * p.ff_rows, down_room = p.n_pairs * p.down_rows;
    take(&p.room_bytes, ff_room > down_room ? ff_room : down_room, sizeof(float));
    p.rooms = take(&p.total, fr_cpu_n_threads(cpu), p.room_bytes);
    return p;
}

size_t fr_cpu_moe_scratch_bytes(const fr_cpu *cpu, const fr_weight *gate, const fr_weight *up,
                                const fr_weight *down, int64_t n_tokens, int64_t n_used)
{
    return make_plan(cpu, gate, up, down, n_tokens, n_used).total + ALIGN;
}

static void encode(const moe_job *j, fr_act *dst, const float *x, int i_thread, int n_threads)
{
    if (dst->type == FR_ACT_F32)
        return; /* refers to x itself */
    cpu_encode_job job = {&j->cpu->table,
                          dst->type,
                          x,
                          dst->cols,
                          dst->n_rows,
                          dst->cols,
                          (char *)(uintptr_t)dst->data};
    cpu_encode_part(&job, i_thread, n_threads);
}

/* ---- gate and up
 * -------------------------------------------------------------------------------------- */

static cpu_dot_args dot_args(const fr_weight *w, int64_t expert, fr_act_type act, int64_t from,
                             int64_t to)
{
    return (cpu_dot_args){.type = w->type,
                          .layout = w->layout,
                          .act = act,
                          .cols = w->cols,
                          .base = (const char *)w->data + (size_t)expert * w->mat_bytes,
                          .row_from = from,
                          .row_to = to};
}

static const void *act_row(const fr_act *a, int64_t row)
{
    return (const char *)a->data + (size_t)row * a->row_bytes;
}

/* Who wants to see what down reads gets floats. */
static bool encodes_early(const moe_job *j)
{
    return j->p->encodes_hidden && !j->args->hidden;
}

/* Columns from .. from + n of the row at a place. */
static void encode_hidden(const moe_job *j, int64_t place, int64_t from, int64_t n, const float *x)
{
    const fr_act *a = &j->hidden_act;
    char *row = (char *)(uintptr_t)a->data + (size_t)place * a->row_bytes;
    j->cpu->table.act_encode(a->type, x, n, row + fr_act_row_bytes(a->type, from));
}

static void ff_tile(const moe_job *j, int64_t expert, int64_t from, int64_t to, float *room)
{
    const fr_cpu_moe_args *g = j->args;
    const void *xg[CPU_MANY_TOKENS], *xu[CPU_MANY_TOKENS];
    float *yg[CPU_MANY_TOKENS], *yu[CPU_MANY_TOKENS];
    const int most_gate = cpu_kernel_tokens(j->k_gate), most_up = cpu_kernel_tokens(j->k_up);
    const int most = most_gate < most_up ? most_gate : most_up;
    cpu_dot_args gate = dot_args(g->gate, expert, j->x_gate.type, from, to);
    cpu_dot_args up = dot_args(g->up, expert, j->x_up.type, from, to);
    gate.x = xg, gate.y = yg, up.x = xu, up.y = yu;
    int64_t n_rows = to - from;
    const bool encodes = encodes_early(j);
    for (int64_t at = j->groups.starts[expert]; at < j->groups.starts[expert + 1];
         at += gate.n_tokens) {
        int64_t left = j->groups.starts[expert + 1] - at;
        gate.n_tokens = up.n_tokens = left < most ? (int)left : most;
        for (int i = 0; i < gate.n_tokens; i++) {
            int64_t token = j->groups.pair_at[at + i] / g->n_used;
            xg[i] = act_row(&j->x_gate, token);
            xu[i] = act_row(&j->x_up, token);
            yg[i] = encodes ? room + (gate.n_tokens + i) * n_rows
                            : j->hidden + (at + i) * j->p->n_ff + from;
            yu[i] = room + i * n_rows;
        }
        j->k_gate->dot(&gate);
        j->k_up->dot(&up);
        for (int i = 0; i < gate.n_tokens; i++) {
            j->cpu->table.silu_mul(yg[i], yu[i], n_rows);
            if (encodes)
                encode_hidden(j, at + i, from, n_rows, yg[i]);
        }
    }
}

static void ff_stage(moe_job *j, float *room, int i_thread, int n_threads)
{
    cpu_walk walk = cpu_tiles_walk(&j->ff_tiles, i_thread, n_threads);
    for (cpu_tile t; cpu_tiles_next(&j->ff_tiles, &walk, &t);)
        ff_tile(j, j->groups.active[t.mat], t.from, t.to, room);
}

/* Multiply-adds. */
static int64_t work_of(const moe_job *j)
{
    return 3 * j->groups.n_placed * j->p->n_ff * j->p->n_embd;
}

/* ---- down and sum
 * --------------------------------------------------------------------------------------- */

void cpu_mix_rows(const cpu_mix *m)
{
    float sum[MAX_TILE_ROWS] = {0};
    for (int64_t k = 0; k < m->n_used; k++) {
        if (m->places[k] < 0)
            continue;
        const float *row = m->rows + m->places[k] * m->n;
        float weight = m->weights[k];
        for (int64_t i = 0; i < m->n; i++)
            sum[i] += weight * row[i];
    }
    for (int64_t i = 0; i < m->n; i++)
        m->y[i] = m->add ? m->y[i] + sum[i] : sum[i];
}

static bool has_picks(const moe_job *j, int64_t token)
{
    const int64_t n = j->args->n_used, *places = j->groups.place_of + token * n;
    int64_t k = 0;
    while (k < n && places[k] < 0)
        k++;
    return k < n;
}

/* y rows [from, to) of all tokens: the expert outputs lie in room[place][to - from]. A token
 * without picks here is zero, or left as it is when adding. */
static void sum_tokens(const moe_job *j, int64_t from, int64_t to, const float *room)
{
    const fr_cpu_moe_args *g = j->args;
    const bool by_avx2 = j->cpu->isa >= FR_ISA_AVX2;
    cpu_mix m = {.rows = room,
                 .n_used = g->n_used,
                 .n = to - from,
                 .add = g->add,
                 .far = cpu_is_far(g->n_tokens, j->p->n_embd)};
    for (int64_t t = 0; t < g->n_tokens; t++) {
        if (g->add && !has_picks(j, t))
            continue;
        m.weights = g->weights + t * g->n_used;
        m.places = j->groups.place_of + t * g->n_used;
        m.next = t + 1 < g->n_tokens ? m.places + g->n_used : NULL;
        m.y = g->y + t * j->p->n_embd + from;
        if (by_avx2)
            cpu_mix_rows_avx2(&m);
        else
            cpu_mix_rows(&m);
    }
    if (by_avx2 && m.far)
        cpu_mix_end_avx2();
}

static void down_tile(const moe_job *j, int64_t from, int64_t to, float *room)
{
    const void *x[CPU_MANY_TOKENS];
    float *y[CPU_MANY_TOKENS];
    const int most = cpu_kernel_tokens(j->k_down);
    for (int64_t i_active = 0; i_active < j->groups.n_active; i_active++) {
        int64_t expert = j->groups.active[i_active];
        cpu_dot_args a = dot_args(j->args->down, expert, j->hidden_act.type, from, to);
        a.x = x, a.y = y;
        for (int64_t at = j->groups.starts[expert]; at < j->groups.starts[expert + 1];
             at += a.n_tokens) {
            int64_t left = j->groups.starts[expert + 1] - at;
            a.n_tokens = left < most ? (int)left : most;
            for (int i = 0; i < a.n_tokens; i++) {
                x[i] = act_row(&j->hidden_act, at + i);
                y[i] = room + (at + i) * (to - from);
            }
            j->k_down->dot(&a);
        }
    }
    sum_tokens(j, from, to, room);
}

static void down_stage(moe_job *j, float *room, int i_thread, int n_threads)
{
    cpu_walk walk = cpu_tiles_walk(&j->down_tiles, i_thread, n_threads);
    for (cpu_tile t; cpu_tiles_next(&j->down_tiles, &walk, &t);)
        down_tile(j, t.from, t.to, room);
}

/* ---- the job
 * ------------------------------------------------------------------------------------------- */

static void note_moment(moe_job *j, int moment, int i_thread)
{
    struct timespec t;
    if (i_thread > 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    j->at[moment] = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* All threads go on to a stage together. */
static void stage_begin(moe_job *j, int moment, int i_thread, int n_threads)
{
    if (n_threads > 1)
        fr_cpu_barrier(j->cpu, i_thread);
    note_moment(j, moment, i_thread);
}

static void moe_thread(void *arg, int i_thread, int n_threads)
{
    moe_job *j = arg;
    float *room = (float *)(void *)(j->rooms + (size_t)i_thread * j->p->room_bytes);
    encode(j, &j->x_gate, j->args->x, i_thread, n_threads);
    if (j->p->own_up)
        encode(j, &j->x_up, j->args->x, i_thread, n_threads);
    stage_begin(j, FF, i_thread, n_threads);
    ff_stage(j, room, i_thread, n_threads);
    stage_begin(j, HIDDEN, i_thread, n_threads);
    if (j->hidden_act.type != FR_ACT_F32 && !encodes_early(j)) {
        encode(j, &j->hidden_act, j->hidden, i_thread, n_threads);
        stage_begin(j, DOWN, i_thread, n_threads);
    } else {
        note_moment(j, DOWN, i_thread);
    }
    down_stage(j, room, i_thread, n_threads);
}

/* ---- how tiles are dealt out
 * ------------------------------------------------------------------------------------- */

static void cut(moe_job *j, const cpu_deal_shape *shape)
{
    cpu_deal up = CPU_DEAL_CLAIM, down = CPU_DEAL_CLAIM;
    if (shape) {
        up = cpu_deal_now(&shape->stages[CPU_STAGE_UP], CPU_UP_WAYS);
        down = cpu_deal_now(&shape->stages[CPU_STAGE_DOWN], CPU_DOWN_WAYS);
    }
    const plan *p = j->p;
    cpu_tiles_cut(&j->ff_tiles, j->cpu, up, j->groups.n_active, p->n_ff, p->ff_rows, p->ff_grain);
    cpu_tiles_cut(&j->down_tiles, j->cpu, down, 1, p->n_embd, p->down_rows, p->down_grain);
}

static void note_times(const moe_job *j, cpu_deal_shape *shape)
{
    const double *at = j->at;
    double *seconds = j->args->seconds;
    if (seconds) {
        seconds[FR_CPU_MOE_REST] += at[FF] - at[START] + at[DOWN] - at[HIDDEN];
        seconds[FR_CPU_MOE_UP] += at[HIDDEN] - at[FF];
        seconds[FR_CPU_MOE_DOWN] += at[END] - at[DOWN];
    }
    if (!shape)
        return;
    double work = (double)work_of(j);
    cpu_deal_took(&shape->stages[CPU_STAGE_UP], CPU_UP_WAYS, j->ff_tiles.deal,
                  (at[HIDDEN] - at[FF]) / work);
    cpu_deal_took(&shape->stages[CPU_STAGE_DOWN], CPU_DOWN_WAYS, j->down_tiles.deal,
                  (at[END] - at[DOWN]) / work);
}

int fr_cpu_moe_choices(const fr_cpu *cpu, fr_cpu_moe_choice *out, int most)
{
    const cpu_deal_table *t = cpu->deals;
    for (int i = 0; i < t->n && i < most; i++) {
        const cpu_deal_shape *s = &t->shapes[i];
        fr_cpu_moe_choice *c = &out[i];
        *c = (fr_cpu_moe_choice){.n_embd = s->key.n_embd,
                                 .n_ff = s->key.n_ff,
                                 .n_experts = s->key.n_experts,
                                 .n_used = s->key.n_used};
        cpu_deal_class(s->key.tokens, &c->tokens_from, &c->tokens_to);
        const cpu_deal_stage *up = &s->stages[CPU_STAGE_UP], *down = &s->stages[CPU_STAGE_DOWN];
        c->up = up->decided ? cpu_deal_name(up->chosen) : NULL;
        c->down = down->decided ? cpu_deal_name(down->chosen) : NULL;
        c->up_gain = up->gain;
        c->down_gain = down->gain;
    }
    return t->n < most ? t->n : most;
}

/* ---- the call
 * ------------------------------------------------------------------------------------------ */

static fr_act act_view(fr_act_type type, int64_t n_rows, int64_t cols, const float *x, void *room)
{
    const void *data = type == FR_ACT_F32 ? (const void *)x : room;
    return (fr_act){type, n_rows, cols, fr_act_row_bytes(type, cols), data};
}

void fr_cpu_moe(fr_cpu *cpu, const fr_cpu_moe_args *a)
{
    assert(a->up->cols == a->gate->cols && a->up->rows == a->gate->rows);
    assert(a->down->cols == a->gate->rows && a->down->rows == a->gate->cols);
    const plan p = make_plan(cpu, a->gate, a->up, a->down, a->n_tokens, a->n_used);
    char *base = (char *)(((uintptr_t)a->scratch + ALIGN - 1) / ALIGN * ALIGN);
    moe_job j = {.cpu = cpu,
                 .args = a,
                 .p = &p,
                 .k_gate = cpu_kernel_for(&cpu->table, a->gate, p.gate_act),
                 .k_up = cpu_kernel_for(&cpu->table, a->up, p.up_act),
                 .k_down = cpu_kernel_for(&cpu->table, a->down, p.down_act),
                 .hidden = (float *)(void *)(base + p.hidden),
                 .rooms = base + p.rooms};
    note_moment(&j, START, 0);
    j.groups = cpu_groups_make(base + p.groups, p.n_experts, p.n_pairs, a->ids, a->first_expert);
    j.x_gate = act_view(p.gate_act, a->n_tokens, p.n_embd, a->x, base + p.x_gate);
    j.x_up = p.own_up ? act_view(p.up_act, a->n_tokens, p.n_embd, a->x, base + p.x_up) : j.x_gate;
    j.hidden_act = act_view(p.down_act, j.groups.n_placed, p.n_ff, j.hidden, base + p.hidden_act);
    cpu_deal_shape *shape =
        cpu_deal_shape_of(cpu, a->gate, a->up, a->down, a->n_tokens, a->n_used, work_of(&j));
    cut(&j, shape);
    cpu_run_sized(cpu, work_of(&j), moe_thread, &j);
    note_moment(&j, END, 0);
    note_times(&j, shape);
    for (int64_t i = 0; a->hidden && i < j.groups.n_placed; i++)
        memcpy(a->hidden + j.groups.pair_at[i] * p.n_ff, j.hidden + i * p.n_ff,
               (size_t)p.n_ff * sizeof(float));
}
