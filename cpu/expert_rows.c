/* One matrix of routed experts: a job of two stages, activations and zeros, then tiles (expert,
 * rows). */
#include <assert.h>
#include <string.h>

#include "cpu/expert_groups.h"
#include "cpu/kernels.h"
#include "cpu/tiles.h"

#define ALIGN 64
#define PIECE 256 /* columns that threads share out; a multiple of every activation block */

typedef struct {
    fr_cpu *cpu;
    const fr_cpu_expert_rows_args *args;
    const cpu_kernel *kernel;
    cpu_groups groups;
    fr_act_type type;
    char *act; /* encoded rows: of tokens when all picks read one, else by place */
    size_t row_bytes;
    cpu_tiles tiles;
} rows_job;

static size_t groups_room(const fr_weight *w, int64_t n_pairs)
{
    return (cpu_groups_bytes(w->n_mat, n_pairs) + ALIGN - 1) / ALIGN * ALIGN;
}

size_t fr_cpu_expert_rows_scratch_bytes(const fr_cpu *cpu, const fr_weight *w, int64_t n_tokens,
                                        int64_t n_used, int64_t x_stride)
{
    fr_act_type type = fr_cpu_act_type(cpu, w);
    int64_t n_rows = x_stride ? n_tokens * n_used : n_tokens;
    size_t act = type == FR_ACT_F32 ? 0 : fr_cpu_act_bytes(type, n_rows, w->cols);
    return groups_room(w, n_tokens * n_used) + act + ALIGN;
}

/* What pair (t, k) reads. */
static const float *input_of(const rows_job *j, int64_t pair)
{
    const fr_cpu_expert_rows_args *a = j->args;
    return a->x + pair / a->n_used * a->ldx + pair % a->n_used * a->x_stride;
}

/* A thread's part of all rows laid end to end. */
static void encode(const rows_job *j, int i_thread, int n_threads)
{
    const fr_cpu_expert_rows_args *a = j->args;
    if (j->type == FR_ACT_F32)
        return;
    int64_t n_rows = a->x_stride ? j->groups.n_placed : a->n_tokens;
    int64_t cols = a->w->cols, per_row = (cols + PIECE - 1) / PIECE, at, to;
    fr_cpu_share(n_rows * per_row, 1, i_thread, n_threads, &at, &to);
    for (int64_t n; at < to; at += n) {
        int64_t row = at / per_row, from = at % per_row * PIECE;
        n = per_row - at % per_row < to - at ? per_row - at % per_row : to - at;
        int64_t n_cols = n * PIECE < cols - from ? n * PIECE : cols - from;
        const float *x = a->x_stride ? input_of(j, j->groups.pair_at[row]) : a->x + row * a->ldx;
        j->cpu->table.act_encode(j->type, x + from, n_cols,
                                 j->act + (size_t)row * j->row_bytes +
                                     fr_act_row_bytes(j->type, from));
    }
}

static void clear_left_out(const rows_job *j, int i_thread, int n_threads)
{
    int64_t from, to;
    fr_cpu_share(j->groups.n_pairs, 1, i_thread, n_threads, &from, &to);
    for (int64_t pair = from; pair < to; pair++)
        if (j->groups.place_of[pair] < 0)
            memset(j->args->y + pair * j->args->ldy, 0, (size_t)j->args->w->rows * sizeof(float));
}

static const void *act_of(const rows_job *j, int64_t place)
{
    int64_t pair = j->groups.pair_at[place];
    if (j->type == FR_ACT_F32)
        return input_of(j, pair);
    int64_t row = j->args->x_stride ? place : pair / j->args->n_used;
    return j->act + (size_t)row * j->row_bytes;
}

static void compute_tile(const rows_job *j, int64_t expert, int64_t from, int64_t to)
{
    const fr_weight *w = j->args->w;
    const void *x[CPU_MANY_TOKENS];
    float *y[CPU_MANY_TOKENS];
    const int most = cpu_kernel_tokens(j->kernel);
    cpu_dot_args a = {.type = w->type,
                      .layout = w->layout,
                      .act = j->type,
                      .cols = w->cols,
                      .base = (const char *)w->data + (size_t)expert * w->mat_bytes,
                      .row_from = from,
                      .row_to = to,
                      .x = x,
                      .y = y};
    for (int64_t at = j->groups.starts[expert]; at < j->groups.starts[expert + 1];
         at += a.n_tokens) {
        int64_t left = j->groups.starts[expert + 1] - at;
        a.n_tokens = left < most ? (int)left : most;
        for (int i = 0; i < a.n_tokens; i++) {
            x[i] = act_of(j, at + i);
            y[i] = j->args->y + j->groups.pair_at[at + i] * j->args->ldy + from;
        }
        j->kernel->dot(&a);
    }
}

static void rows_thread(void *arg, int i_thread, int n_threads)
{
    rows_job *j = arg;
    encode(j, i_thread, n_threads);
    clear_left_out(j, i_thread, n_threads);
    if (n_threads > 1)
        fr_cpu_barrier(j->cpu, i_thread);
    cpu_walk walk = cpu_tiles_walk(&j->tiles, i_thread, n_threads);
    for (cpu_tile t; cpu_tiles_next(&j->tiles, &walk, &t);)
        compute_tile(j, j->groups.active[t.mat], t.from, t.to);
}

void fr_cpu_expert_rows(fr_cpu *cpu, const fr_cpu_expert_rows_args *a)
{
    const fr_weight *w = a->w;
    int64_t n_pairs = a->n_tokens * a->n_used;
    uint8_t *base = (uint8_t *)(((uintptr_t)a->scratch + ALIGN - 1) / ALIGN * ALIGN);
    rows_job j = {.cpu = cpu, .args = a, .type = fr_cpu_act_type(cpu, w)};
    j.kernel = cpu_kernel_for(&cpu->table, w, j.type);
    j.groups = cpu_groups_make(base, w->n_mat, n_pairs, a->ids, a->first_expert);
    j.act = (char *)base + groups_room(w, n_pairs);
    j.row_bytes = fr_act_row_bytes(j.type, w->cols);
    const int n_threads = fr_cpu_n_threads(cpu);
    int64_t per_expert = j.groups.n_active ? j.groups.n_placed / j.groups.n_active : 1;
    int64_t n_rows = w->rows * (j.groups.n_active ? j.groups.n_active : 1);
    int64_t grain = cpu_kernel_grain(j.kernel, n_rows, per_expert, n_threads);
    int64_t tile_rows =
        cpu_tile_rows(n_rows, fr_row_bytes(w->type, w->layout, w->cols), grain, n_threads);
    cpu_tiles_cut(&j.tiles, cpu, CPU_DEAL_CLAIM, j.groups.n_active, w->rows, tile_rows, grain);
    cpu_run_sized(cpu, j.groups.n_placed * w->rows * w->cols, rows_thread, &j);
}
