/* The first half of a dense feed-forward part for many tokens: gate, up, SwiGLU and the encoding of
 * what down reads, tile by tile, so that no row of floats leaves the cache.
 *
 * A tile is some rows, in whole blocks of activations, times some tokens: rows alone would be too
 * few tiles, as blocks of 256 rows are the smallest that can be encoded. */
#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"

#define TILE_TOKENS      256
#define LEAST_TOKENS     64
#define TILES_PER_THREAD 4

typedef struct {
    const fr_cpu *cpu;
    const fr_cpu_gate_up_args *args;
    const cpu_kernel *k_gate, *k_up;
    int64_t rows, tokens; /* of a tile */
    int most;             /* tokens of a call of both kernels */
    cpu_tiles tiles;      /* a "matrix" is all rows for some tokens */
} gate_up_job;

static int64_t grain_of(const fr_cpu *cpu, const fr_weight *w, int64_t n_tokens)
{
    return cpu_kernel_grain(&cpu->table.dot[w->type][w->layout], w->rows * n_tokens, n_tokens,
                            fr_cpu_n_threads(cpu));
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Rows of a tile: a multiple of the kernels' grains and of a block, all powers of two. */
static int64_t tile_rows(const fr_cpu *cpu, const fr_cpu_gate_up_args *a)
{
    int64_t rows = larger(grain_of(cpu, a->gate, a->n_tokens), grain_of(cpu, a->up, a->n_tokens));
    return larger(rows, fr_act_block(a->type));
}

/* Enough tiles for all threads, which then have rooms enough too. */
static int64_t tile_tokens(const fr_cpu *cpu, const fr_cpu_gate_up_args *a, int64_t rows)
{
    int64_t per_token = a->gate->rows / rows, tokens = TILE_TOKENS;
    int64_t wanted = (int64_t)fr_cpu_n_threads(cpu) * TILES_PER_THREAD;
    while (tokens > LEAST_TOKENS && a->n_tokens / tokens * per_token < wanted)
        tokens /= 2;
    return tokens;
}

bool fr_cpu_gates_up(const fr_cpu *cpu, const fr_cpu_gate_up_args *a)
{
    int64_t n_ff = a->gate->rows, rows = tile_rows(cpu, a);
    int64_t tile = rows * tile_tokens(cpu, a, rows);
    return a->type != FR_ACT_F32 && a->n_tokens >= LEAST_TOKENS && a->gate->n_mat == 1 &&
           a->up->n_mat == 1 && a->up->rows == n_ff && n_ff % rows == 0 &&
           cpu_pool_n_shares(cpu->pool) == 1 && fr_cpu_n_threads(cpu) * tile <= a->n_tokens * n_ff;
}

static void multiply(const gate_up_job *j, const cpu_kernel *k, const fr_weight *w,
                     const cpu_tile *tile, const void **x, float **y, int n_tokens)
{
    k->dot(&(cpu_dot_args){.type = w->type,
                           .layout = w->layout,
                           .act = j->args->x->type,
                           .n_tokens = n_tokens,
                           .cols = w->cols,
                           .base = w->data,
                           .row_from = tile->from,
                           .row_to = tile->to,
                           .x = x,
                           .y = y});
}

/* Tokens t0 .. t0 + n of a tile's rows. */
static void compute(const gate_up_job *j, const cpu_tile *tile, int64_t t0, int n, float *gate,
                    float *up)
{
    const fr_cpu_gate_up_args *a = j->args;
    const void *x[CPU_MANY_TOKENS];
    float *y_gate[CPU_MANY_TOKENS], *y_up[CPU_MANY_TOKENS];
    const int64_t n_rows = tile->to - tile->from;
    const size_t row_bytes = fr_act_row_bytes(a->type, a->gate->rows);
    const size_t skip = fr_act_row_bytes(a->type, tile->from);
    for (int i = 0; i < n; i++) {
        x[i] = (const char *)a->x->data + (size_t)(t0 + i) * a->x->row_bytes;
        y_gate[i] = gate + i * n_rows;
        y_up[i] = up + i * n_rows;
    }
    multiply(j, j->k_gate, a->gate, tile, x, y_gate, n);
    multiply(j, j->k_up, a->up, tile, x, y_up, n);
    for (int i = 0; i < n; i++) {
        j->cpu->table.silu_mul(y_gate[i], y_up[i], n_rows);
        j->cpu->table.act_encode(a->type, y_gate[i], n_rows,
                                 (char *)a->dst + (size_t)(t0 + i) * row_bytes + skip);
    }
}

static void gate_up_thread(void *arg, int i_thread, int n_threads)
{
    gate_up_job *j = arg;
    const fr_cpu_gate_up_args *a = j->args;
    const int64_t room = (int64_t)i_thread * j->rows * j->tokens;
    cpu_walk walk = cpu_tiles_walk(&j->tiles, i_thread, n_threads);
    for (cpu_tile t; cpu_tiles_next(&j->tiles, &walk, &t);) {
        int64_t at = t.mat * j->tokens, end = at + j->tokens;
        end = end < a->n_tokens ? end : a->n_tokens;
        for (int n; at < end; at += n) {
            n = end - at < j->most ? (int)(end - at) : j->most;
            compute(j, &t, at, n, a->gate_room + room, a->up_room + room);
        }
    }
}

fr_act fr_cpu_gate_up(fr_cpu *cpu, const fr_cpu_gate_up_args *a)
{
    const int64_t n_ff = a->gate->rows, rows = tile_rows(cpu, a);
    gate_up_job j = {.cpu = cpu,
                     .args = a,
                     .k_gate = cpu_kernel_for(&cpu->table, a->gate, a->x->type),
                     .k_up = cpu_kernel_for(&cpu->table, a->up, a->x->type),
                     .rows = rows,
                     .tokens = tile_tokens(cpu, a, rows)};
    const int most_gate = cpu_kernel_tokens(j.k_gate), most_up = cpu_kernel_tokens(j.k_up);
    j.most = most_gate < most_up ? most_gate : most_up;
    cpu_tiles_cut(&j.tiles, cpu, CPU_DEAL_CLAIM, (a->n_tokens + j.tokens - 1) / j.tokens, n_ff,
                  rows, rows);
    cpu_run_sized(cpu, 2 * n_ff * a->gate->cols * a->n_tokens, gate_up_thread, &j);
    return (fr_act){a->type, a->n_tokens, n_ff, fr_act_row_bytes(a->type, n_ff), a->dst};
}
