#include "cpu/token_ffn.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#include "cpu/deal_choice.h"
#include "cpu/kernels.h"
#include "cpu/tiles.h"

#define MAX_TILE_ROWS 256 /* bounds each thread's room; a multiple of every grain */
#define ALIGN         64

/* One of the two trios: n experts, each a hidden row. */
typedef struct {
    const fr_cpu_trio *w; /* NULL: there is none */
    const cpu_kernel *k_gate, *k_up, *k_down;
    fr_act_type gate_act, up_act, down_act;
    int64_t n, n_ff, up_rows, up_least, up_grain, down_grain;
    size_t hidden_at, act_at, act_row; /* in the scratch, bytes */
    float *hidden;                     /* [n][n_ff] */
    char *act;                         /* [n] rows of down_act; hidden itself where that is F32 */
    cpu_tiles tiles;                   /* of gate and up */
} trio;

enum { ROUTED, DENSE, TRIOS, ACTS = FR_ACT_Q8_256 + 1 };
enum { START, SELECT, UP, HIDDEN, DOWN, END, N_MOMENTS }; /* when a stage begins */

typedef struct {
    fr_cpu *cpu;
    const fr_cpu_token_ffn_args *args;
    trio trios[TRIOS];
    int64_t n_embd, n_macs, down_rows, down_least, down_grain;
    size_t x_at[ACTS], rooms_at, room_bytes, total;
    const char *x[ACTS]; /* prepared */
    bool x_read[ACTS];   /* somebody reads that type */
    char *rooms;
    cpu_tiles router_tiles, down_tiles;
    cpu_deal_shape *deals; /* of the routed experts, or NULL; down's is of both trios together */
    double at[N_MOMENTS];  /* seconds, as the caller comes by */
} ffn_job;

/* ---- planning
 * ------------------------------------------------------------------------------------------- */

static size_t take(size_t *total, size_t bytes)
{
    size_t at = *total;
    *total = (at + bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t grain_of(const cpu_kernel *k, int64_t n_rows, int n_threads)
{
    return cpu_kernel_grain(k, n_rows, 1, n_threads);
}

static int64_t bounded_rows(const ffn_job *j, const fr_weight *w, int64_t n_rows, int64_t grain)
{
    int64_t rows = cpu_tile_rows(n_rows, fr_row_bytes(w->type, w->layout, w->cols), grain,
                                 fr_cpu_n_threads(j->cpu));
    return rows < MAX_TILE_ROWS ? rows : MAX_TILE_ROWS;
}

static void plan_trio(ffn_job *j, trio *t, const fr_cpu_trio *w, int64_t n)
{
    const cpu_table *table = &j->cpu->table;
    const int n_threads = fr_cpu_n_threads(j->cpu);
    if (!w->gate)
        return;
    t->w = w;
    t->n = n;
    t->n_ff = w->gate->rows;
    t->gate_act = fr_cpu_act_type(j->cpu, w->gate);
    t->up_act = fr_cpu_act_type(j->cpu, w->up);
    t->down_act = fr_cpu_act_type(j->cpu, w->down);
    t->k_gate = cpu_kernel_for(table, w->gate, t->gate_act);
    t->k_up = cpu_kernel_for(table, w->up, t->up_act);
    t->k_down = cpu_kernel_for(table, w->down, t->down_act);
    j->x_read[t->gate_act] = j->x_read[t->up_act] = true;
    int64_t rows = n * t->n_ff;
    t->up_grain = larger(grain_of(t->k_gate, rows, n_threads), grain_of(t->k_up, rows, n_threads));
    t->up_rows = bounded_rows(j, w->gate, rows, t->up_grain);
    t->up_least = cpu_least_rows(w->gate, t->up_grain, &t->up_rows);
    t->down_grain = grain_of(t->k_down, w->down->rows, n_threads);
    t->hidden_at = take(&j->total, (size_t)rows * sizeof(float));
    t->act_row = fr_act_row_bytes(t->down_act, t->n_ff);
    t->act_at = take(&j->total, t->down_act == FR_ACT_F32 ? 0 : (size_t)n * t->act_row);
    j->n_embd = w->gate->cols;
    j->n_macs += 3 * rows * j->n_embd;
    j->down_grain = larger(j->down_grain, t->down_grain);
}

static void plan_down(ffn_job *j)
{
    for (int k = 0; k < TRIOS; k++)
        if (j->trios[k].w) {
            const fr_weight *down = j->trios[k].w->down;
            int64_t rows = bounded_rows(j, down, down->rows, j->down_grain);
            if (j->down_rows == 0 || rows < j->down_rows) {
                j->down_rows = rows;
                j->down_least = cpu_least_rows(down, j->down_grain, &j->down_rows);
            }
        }
    take(&j->room_bytes,
         (size_t)larger(j->down_rows, larger(j->trios[ROUTED].up_rows, j->trios[DENSE].up_rows)) *
             sizeof(float));
}

static void plan(ffn_job *j, fr_cpu *cpu, const fr_cpu_token_ffn_args *a)
{
    *j = (ffn_job){.cpu = cpu, .args = a};
    plan_trio(j, &j->trios[ROUTED], &a->routed, a->routed.gate ? a->select->n_used : 0);
    plan_trio(j, &j->trios[DENSE], &a->dense, 1);
    if (a->routed.gate)
        j->x_read[fr_cpu_act_type(cpu, a->router_weight)] = true;
    plan_down(j);
    for (int t = 0; t < ACTS; t++)
        if (j->x_read[t] && t != FR_ACT_F32)
            j->x_at[t] = take(&j->total, fr_act_row_bytes((fr_act_type)t, j->n_embd));
    j->rooms_at = take(&j->total, (size_t)fr_cpu_n_threads(cpu) * j->room_bytes);
}

size_t fr_cpu_token_ffn_bytes(const fr_cpu *cpu, const fr_cpu_token_ffn_args *args)
{
    ffn_job j;
    plan(&j, (fr_cpu *)(uintptr_t)cpu, args);
    return j.total + ALIGN;
}

/* ---- stages
 * --------------------------------------------------------------------------------------------- */

static void note_moment(ffn_job *j, int moment, int i_thread)
{
    struct timespec t;
    if (i_thread > 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    j->at[moment] = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A thread of the job. */
typedef struct {
    float *room;
    int i, n;
    const void *asked; /* rows that a kernel has asked memory for, as what comes next */
} thread;

/* All threads go on to a stage together. */
static void stage_begin(ffn_job *j, int moment, const thread *me)
{
    if (me->n > 1)
        fr_cpu_barrier(j->cpu, me->i);
    note_moment(j, moment, me->i);
}

static void encode(const ffn_job *j, fr_act_type type, const float *x, int64_t n_rows, int64_t cols,
                   const char *dst, const thread *me)
{
    if (type == FR_ACT_F32)
        return; /* it is x itself */
    cpu_encode_job job = {&j->cpu->table, type, x, cols, n_rows, cols, (char *)(uintptr_t)dst};
    cpu_encode_part(&job, me->i, me->n);
}

static const void *row_of(const fr_weight *w, int64_t mat, int64_t row)
{
    return (const char *)w->data + (size_t)mat * w->mat_bytes +
           (size_t)row * fr_row_bytes(w->type, w->layout, w->cols);
}

/* Rows [from, to) of matrix mat times one row of activations; the thread then reads `next`. */
static void dot(const cpu_kernel *k, const fr_weight *w, int64_t mat, fr_act_type act,
                const void *x, int64_t from, int64_t to, float *y, thread *me, const void *next)
{
    k->dot(&(cpu_dot_args){.type = w->type,
                           .layout = w->layout,
                           .act = act,
                           .n_tokens = 1,
                           .cols = w->cols,
                           .base = row_of(w, mat, 0),
                           .row_from = from,
                           .row_to = to,
                           .x = &x,
                           .y = &y,
                           .next = next,
                           .asked = me->asked && me->asked == row_of(w, mat, from)});
    me->asked = next;
}

static void router_stage(ffn_job *j, thread *me)
{
    const fr_weight *w = j->args->router_weight;
    fr_act_type act = fr_cpu_act_type(j->cpu, w);
    const cpu_kernel *k = cpu_kernel_for(&j->cpu->table, w, act);
    float *logits = (float *)(uintptr_t)j->args->select->logits;
    if (act != FR_ACT_F32 && me->n > 1)
        fr_cpu_barrier(j->cpu, me->i); /* x is being encoded */
    cpu_walk walk = cpu_tiles_walk(&j->router_tiles, me->i, me->n);
    for (cpu_tile t; cpu_tiles_next(&j->router_tiles, &walk, &t);)
        dot(k, w, 0, act, j->x[act], t.from, t.to, logits + t.from, me, NULL);
}

/* `after`: what the thread reads then. */
static void up_stage(ffn_job *j, trio *t, const int32_t *ids, thread *me, const void *after)
{
    const fr_weight *gate = t->w->gate, *up = t->w->up;
    cpu_walk walk = cpu_tiles_walk(&t->tiles, me->i, me->n);
    for (cpu_tile tile, then; cpu_tiles_next(&t->tiles, &walk, &tile);) {
        int64_t mat = ids ? ids[tile.mat] : 0;
        float *y = t->hidden + tile.mat * t->n_ff + tile.from;
        const void *next = after;
        if (cpu_tiles_peek(&t->tiles, &walk, &then))
            next = row_of(gate, ids ? ids[then.mat] : 0, then.from);
        dot(t->k_gate, gate, mat, t->gate_act, j->x[t->gate_act], tile.from, tile.to, y, me,
            row_of(up, mat, tile.from));
        dot(t->k_up, up, mat, t->up_act, j->x[t->up_act], tile.from, tile.to, me->room, me, next);
        j->cpu->table.silu_mul(y, me->room, tile.to - tile.from);
    }
}

/* room[r] = row from + r of down times hidden row k. */
static void down_rows(const trio *t, int64_t k, int64_t mat, int64_t from, int64_t to, thread *me,
                      const void *next)
{
    const void *x = t->down_act == FR_ACT_F32 ? (const void *)(t->hidden + k * t->n_ff)
                                              : (const void *)(t->act + (size_t)k * t->act_row);
    dot(t->k_down, t->w->down, mat, t->down_act, x, from, to, me->room, me, next);
}

static void add_rows(const float *x, int64_t n, bool first, float *y)
{
    for (int64_t r = 0; r < n; r++)
        y[r] = first ? x[r] : y[r] + x[r];
}

/* Down's matrices in the order in which a tile reads them: the chosen experts, the dense one; past
 * the last one, `after`. */
static const void *down_row_of(const ffn_job *j, int64_t k, int64_t row, const void *after)
{
    const trio *routed = &j->trios[ROUTED], *dense = &j->trios[DENSE];
    if (k < routed->n)
        return row_of(routed->w->down, j->args->select->ids[k], row);
    return k == routed->n && dense->w ? row_of(dense->w->down, 0, row) : after;
}

static void down_tile(const ffn_job *j, int64_t from, int64_t to, thread *me, const void *after)
{
    const fr_cpu_token_ffn_args *a = j->args;
    const trio *routed = &j->trios[ROUTED], *dense = &j->trios[DENSE];
    float sum[MAX_TILE_ROWS] = {0}, *y = a->y + from;
    int64_t n = to - from;
    bool first = !a->onto;
    if (a->onto && a->onto != a->y)
        memcpy(y, a->onto + from, (size_t)n * sizeof *y);
    for (int64_t k = 0; k < routed->n; k++) {
        float weight = a->select->weights[k];
        down_rows(routed, k, a->select->ids[k], from, to, me, down_row_of(j, k + 1, from, after));
        for (int64_t r = 0; r < n; r++)
            sum[r] += weight * me->room[r];
    }
    if (routed->n > 0) {
        add_rows(sum, n, first, y);
        first = false;
    }
    if (dense->w) {
        down_rows(dense, 0, 0, from, to, me, after);
        add_rows(me->room, n, first, y);
    }
}

/* What the thread will read in the next tile of down. */
static const void *down_next(const ffn_job *j, const cpu_walk *walk)
{
    cpu_tile t;
    return cpu_tiles_peek(&j->down_tiles, walk, &t) ? down_row_of(j, 0, t.from, NULL) : NULL;
}

static void down_stage(ffn_job *j, thread *me)
{
    cpu_walk walk = cpu_tiles_walk(&j->down_tiles, me->i, me->n);
    for (cpu_tile t; cpu_tiles_next(&j->down_tiles, &walk, &t);)
        down_tile(j, t.from, t.to, me, down_next(j, &walk));
}

static void up_stages(ffn_job *j, thread *me)
{
    trio *routed = &j->trios[ROUTED], *dense = &j->trios[DENSE];
    const cpu_walk down = cpu_tiles_walk(&j->down_tiles, me->i, me->n);
    if (dense->w) /* experts may not be chosen yet */
        up_stage(j, dense, NULL, me, routed->w ? NULL : down_next(j, &down));
    if (routed->w) {
        stage_begin(j, UP, me);
        up_stage(j, routed, j->args->select->ids, me, down_next(j, &down));
    } else {
        note_moment(j, UP, me->i);
    }
}

static void ffn_thread(void *arg, int i_thread, int n_threads)
{
    ffn_job *j = arg;
    char *room = j->rooms + (size_t)i_thread * j->room_bytes;
    thread me = {(float *)(void *)room, i_thread, n_threads, NULL};
    for (int t = 0; t < ACTS; t++)
        if (j->x_read[t])
            encode(j, (fr_act_type)t, j->args->x, 1, j->n_embd, j->x[t], &me);
    if (j->trios[ROUTED].w)
        router_stage(j, &me);
    stage_begin(j, SELECT, &me);
    if (j->trios[ROUTED].w && i_thread == 0)
        fr_cpu_router_here(j->args->select);
    up_stages(j, &me);
    stage_begin(j, HIDDEN, &me);
    for (int k = 0; k < TRIOS; k++)
        if (j->trios[k].w)
            encode(j, j->trios[k].down_act, j->trios[k].hidden, j->trios[k].n, j->trios[k].n_ff,
                   j->trios[k].act, &me);
    stage_begin(j, DOWN, &me);
    down_stage(j, &me);
}

/* ---- the call
 * ------------------------------------------------------------------------------------------- */

/* How tiles of a stage of the routed experts are dealt out now. */
static cpu_deal deal_of(const ffn_job *j, int stage, int n_ways)
{
    return j->deals ? cpu_deal_now(&j->deals->stages[stage], n_ways) : CPU_DEAL_CLAIM;
}

static void settle(ffn_job *j, char *base)
{
    const fr_cpu_token_ffn_args *a = j->args;
    if (a->routed.gate)
        j->deals = cpu_deal_shape_of(j->cpu, a->routed.gate, a->routed.up, a->routed.down, 1,
                                     a->select->n_used, j->n_macs);
    for (int t = 0; t < ACTS; t++)
        j->x[t] = t == FR_ACT_F32 ? (const char *)a->x : base + j->x_at[t];
    j->rooms = base + j->rooms_at;
    for (int k = 0; k < TRIOS; k++) {
        trio *t = &j->trios[k];
        t->hidden = (float *)(void *)(base + t->hidden_at);
        t->act = base + t->act_at;
        if (t->w)
            cpu_tiles_cut_ending(&t->tiles, j->cpu,
                                 k == ROUTED ? deal_of(j, CPU_STAGE_UP, CPU_UP_WAYS)
                                             : CPU_DEAL_CLAIM,
                                 t->n, t->n_ff, t->up_rows, t->up_least, t->up_grain);
    }
    cpu_tiles_cut_ending(&j->down_tiles, j->cpu, deal_of(j, CPU_STAGE_DOWN, CPU_DOWN_WAYS), 1,
                         j->n_embd, j->down_rows, j->down_least, j->down_grain);
    if (j->trios[ROUTED].w) {
        const fr_weight *w = a->router_weight;
        const cpu_kernel *k = cpu_kernel_for(&j->cpu->table, w, fr_cpu_act_type(j->cpu, w));
        int64_t grain = grain_of(k, w->rows, fr_cpu_n_threads(j->cpu));
        int64_t rows = bounded_rows(j, w, w->rows, grain), least = cpu_least_rows(w, grain, &rows);
        cpu_tiles_cut_ending(&j->router_tiles, j->cpu, CPU_DEAL_CLAIM, 1, w->rows, rows, least,
                             grain);
    }
}

/* Bytes of the down matrices that are read. */
static double down_bytes(const trio *t)
{
    return t->w ? (double)t->n * (double)t->w->down->rows *
                      (double)fr_row_bytes(t->w->down->type, t->w->down->layout, t->w->down->cols)
                : 0;
}

static void note_times(const ffn_job *j)
{
    const double *at = j->at;
    double *s = j->args->seconds, down = at[END] - at[DOWN];
    double dense = down_bytes(&j->trios[DENSE]), routed = down_bytes(&j->trios[ROUTED]);
    double of_dense = down * dense / (dense + routed);
    if (!s)
        return;
    s[FR_CPU_FFN_ROUTER] += at[SELECT] - at[START];
    s[dense > 0 ? FR_CPU_FFN_DENSE : FR_CPU_FFN_ROUTER] += at[UP] - at[SELECT];
    s[routed > 0 ? FR_CPU_FFN_UP : FR_CPU_FFN_DENSE] += at[HIDDEN] - at[UP];
    s[FR_CPU_FFN_REST] += at[DOWN] - at[HIDDEN];
    s[FR_CPU_FFN_DENSE] += of_dense;
    s[FR_CPU_FFN_DOWN] += down - of_dense;
}

static void note_deals(const ffn_job *j)
{
    const double *at = j->at, work = (double)j->n_macs;
    if (!j->deals)
        return;
    cpu_deal_took(&j->deals->stages[CPU_STAGE_UP], CPU_UP_WAYS, j->trios[ROUTED].tiles.deal,
                  (at[HIDDEN] - at[UP]) / work);
    cpu_deal_took(&j->deals->stages[CPU_STAGE_DOWN], CPU_DOWN_WAYS, j->down_tiles.deal,
                  (at[END] - at[DOWN]) / work);
}

void fr_cpu_token_ffn(fr_cpu *cpu, const fr_cpu_token_ffn_args *a)
{
    ffn_job j;
    assert(a->routed.gate || a->dense.gate);
    assert(!a->routed.gate || (a->router_weight && a->select->n_tokens == 1));
    plan(&j, cpu, a);
    settle(&j, (char *)(((uintptr_t)a->scratch + ALIGN - 1) / ALIGN * ALIGN));
    note_moment(&j, START, 0);
    cpu_run_sized(cpu, j.n_macs, ffn_thread, &j);
    note_moment(&j, END, 0);
    note_times(&j);
    note_deals(&j);
}
