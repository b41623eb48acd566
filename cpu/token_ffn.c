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
    int64_t n, n_ff, up_rows, up_grain, down_grain;
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
    int64_t n_embd, n_macs, down_rows, down_grain;
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
            if (j->down_rows == 0 || rows < j->down_rows)
                j->down_rows = rows;
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

/* All threads go on to a stage together. */
static void stage_begin(ffn_job *j, int moment, int i_thread, int n_threads)
{
    if (n_threads > 1)
        fr_cpu_barrier(j->cpu, i_thread);
    note_moment(j, moment, i_thread);
}

static void encode(const ffn_job *j, fr_act_type type, const float *x, int64_t n_rows, int64_t cols,
                   const char *dst, int i_thread, int n_threads)
{
    if (type == FR_ACT_F32)
        return; /* it is x itself */
    cpu_encode_job job = {&j->cpu->table, type, x, cols, n_rows, cols, (char *)(uintptr_t)dst};
    cpu_encode_part(&job, i_thread, n_threads);
}

/* Rows [from, to) of matrix mat times one row of activations. */
static void dot(const cpu_kernel *k, const fr_weight *w, int64_t mat, fr_act_type act,
                const void *x, int64_t from, int64_t to, float *y)
{
    k->dot(&(cpu_dot_args){.type = w->type,
                           .layout = w->layout,
                           .act = act,
                           .n_tokens = 1,
                           .cols = w->cols,
                           .base = (const char *)w->data + (size_t)mat * w->mat_bytes,
                           .row_from = from,
                           .row_to = to,
                           .x = &x,
                           .y = &y});
}

static void router_stage(ffn_job *j, int i_thread, int n_threads)
{
    const fr_weight *w = j->args->router_weight;
    fr_act_type act = fr_cpu_act_type(j->cpu, w);
    const cpu_kernel *k = cpu_kernel_for(&j->cpu->table, w, act);
    float *logits = (float *)(uintptr_t)j->args->select->logits;
    if (act != FR_ACT_F32 && n_threads > 1)
        fr_cpu_barrier(j->cpu, i_thread); /* x is being encoded */
    cpu_walk walk = cpu_tiles_walk(&j->router_tiles, i_thread, n_threads);
    for (cpu_tile t; cpu_tiles_next(&j->router_tiles, &walk, &t);)
        dot(k, w, 0, act, j->x[act], t.from, t.to, logits + t.from);
}

static void up_stage(ffn_job *j, trio *t, const int32_t *ids, float *room, int i_thread,
                     int n_threads)
{
    cpu_walk walk = cpu_tiles_walk(&t->tiles, i_thread, n_threads);
    for (cpu_tile tile; cpu_tiles_next(&t->tiles, &walk, &tile);) {
        int64_t mat = ids ? ids[tile.mat] : 0;
        float *y = t->hidden + tile.mat * t->n_ff + tile.from;
        dot(t->k_gate, t->w->gate, mat, t->gate_act, j->x[t->gate_act], tile.from, tile.to, y);
        dot(t->k_up, t->w->up, mat, t->up_act, j->x[t->up_act], tile.from, tile.to, room);
        j->cpu->table.silu_mul(y, room, tile.to - tile.from);
    }
}

/* out[r] = row from + r of down times hidden row k. */
static void down_rows(const trio *t, int64_t k, int64_t mat, int64_t from, int64_t to, float *out)
{
    const void *x = t->down_act == FR_ACT_F32 ? (const void *)(t->hidden + k * t->n_ff)
                                              : (const void *)(t->act + (size_t)k * t->act_row);
    dot(t->k_down, t->w->down, mat, t->down_act, x, from, to, out);
}

static void add_rows(const float *x, int64_t n, bool first, float *y)
{
    for (int64_t r = 0; r < n; r++)
        y[r] = first ? x[r] : y[r] + x[r];
}

static void down_tile(const ffn_job *j, int64_t from, int64_t to, float *room)
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
        down_rows(routed, k, a->select->ids[k], from, to, room);
        for (int64_t r = 0; r < n; r++)
            sum[r] += weight * room[r];
    }
    if (routed->n > 0) {
        add_rows(sum, n, first, y);
        first = false;
    }
    if (dense->w) {
        down_rows(dense, 0, 0, from, to, room);
        add_rows(room, n, first, y);
    }
}

static void down_stage(ffn_job *j, float *room, int i_thread, int n_threads)
{
    cpu_walk walk = cpu_tiles_walk(&j->down_tiles, i_thread, n_threads);
    for (cpu_tile t; cpu_tiles_next(&j->down_tiles, &walk, &t);)
        down_tile(j, t.from, t.to, room);
}

static void ffn_thread(void *arg, int i_thread, int n_threads)
{
    ffn_job *j = arg;
    trio *routed = &j->trios[ROUTED], *dense = &j->trios[DENSE];
    float *room = (float *)(void *)(j->rooms + (size_t)i_thread * j->room_bytes);
    for (int t = 0; t < ACTS; t++)
        if (j->x_read[t])
            encode(j, (fr_act_type)t, j->args->x, 1, j->n_embd, j->x[t], i_thread, n_threads);
    if (routed->w)
        router_stage(j, i_thread, n_threads);
    stage_begin(j, SELECT, i_thread, n_threads);
    if (routed->w && i_thread == 0)
        fr_cpu_router_here(j->args->select);
    if (dense->w)
        up_stage(j, dense, NULL, room, i_thread, n_threads);
    if (routed->w) {
        stage_begin(j, UP, i_thread, n_threads);
        up_stage(j, routed, j->args->select->ids, room, i_thread, n_threads);
    } else {
        note_moment(j, UP, i_thread);
    }
    stage_begin(j, HIDDEN, i_thread, n_threads);
    for (int k = 0; k < TRIOS; k++)
        if (j->trios[k].w)
            encode(j, j->trios[k].down_act, j->trios[k].hidden, j->trios[k].n, j->trios[k].n_ff,
                   j->trios[k].act, i_thread, n_threads);
    stage_begin(j, DOWN, i_thread, n_threads);
    down_stage(j, room, i_thread, n_threads);
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
            cpu_tiles_cut(&t->tiles, j->cpu,
                          k == ROUTED ? deal_of(j, CPU_STAGE_UP, CPU_UP_WAYS) : CPU_DEAL_CLAIM,
                          t->n, t->n_ff, t->up_rows, t->up_grain);
    }
    cpu_tiles_cut(&j->down_tiles, j->cpu, deal_of(j, CPU_STAGE_DOWN, CPU_DOWN_WAYS), 1, j->n_embd,
                  j->down_rows, j->down_grain);
    if (j->trios[ROUTED].w) {
        const fr_weight *w = a->router_weight;
        const cpu_kernel *k = cpu_kernel_for(&j->cpu->table, w, fr_cpu_act_type(j->cpu, w));
        int64_t grain = grain_of(k, w->rows, fr_cpu_n_threads(j->cpu));
        cpu_tiles_cut(&j->router_tiles, j->cpu, CPU_DEAL_CLAIM, 1, w->rows,
                      bounded_rows(j, w, w->rows, grain), grain);
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
