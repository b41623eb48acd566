/* Matrix products and activation preparation, cut into tiles of rows that threads claim one by one.
 * A tile is computed whole by one thread, so the split never shows in the result. */
#include <assert.h>
#include <stdatomic.h>

#include "cpu/kernels.h"
#include "cpu/pool.h"

#define TILES_PER_THREAD      8
#define MANY_TILES_PER_THREAD 4 /* at least, before tiles get smaller than a kernel likes */
#define TILE_BYTES            (256 << 10) /* of weights: they stay in the cache while tokens pass by */
#define MIN_TILE_BYTES        (8 << 10) /* below, claiming costs more than computing */
#define ENCODE_MACS           4         /* the work on one activation, in multiply-adds */
#define MIN_SHARED_MACS       65536     /* below, the caller is done before the others are awake */

int64_t cpu_tile_rows(int64_t n_rows, size_t row_bytes, int64_t grain, int n_threads)
{
    int64_t bytes = row_bytes > 0 ? (int64_t)row_bytes : 1;
    int64_t rows = n_rows / ((int64_t)n_threads * TILES_PER_THREAD);
    if (rows * bytes > TILE_BYTES)
        rows = TILE_BYTES / bytes;
    if (rows * bytes < MIN_TILE_BYTES)
        rows = MIN_TILE_BYTES / bytes;
    rows = (rows + grain - 1) / grain * grain;
    return rows > 0 ? rows : grain;
}

int64_t cpu_kernel_grain(const cpu_kernel *k, int64_t n_rows, int64_t n_tokens, int n_threads)
{
    int64_t grain = k->many_rows;
    if (n_tokens < CPU_FEW_TOKENS)
        return k->grain;
    while (grain > k->grain && n_rows < grain * n_threads * MANY_TILES_PER_THREAD)
        grain /= 2;
    return grain > k->grain ? grain : k->grain;
}

void cpu_run_sized(fr_cpu *cpu, int64_t n_macs, fr_cpu_fn fn, void *arg)
{
    if (n_macs < MIN_SHARED_MACS)
        fn(arg, 0, 1);
    else
        cpu_pool_run(cpu->pool, fn, arg);
}

/* ---- activations
 * ------------------------------------------------------------------------------------ */

size_t fr_cpu_act_bytes(fr_act_type type, int64_t n_rows, int64_t cols)
{
    return (size_t)n_rows * fr_act_row_bytes(type, cols);
}

#define PIECE 256 /* columns; a multiple of every activation block */

void cpu_encode_part(const cpu_encode_job *j, int i_thread, int n_threads)
{
    int64_t row_from, row_to, from = 0, to = j->cols;
    bool by_rows = j->n_rows >= n_threads;
    fr_cpu_share(j->n_rows, 1, by_rows ? i_thread : 0, by_rows ? n_threads : 1, &row_from, &row_to);
    if (!by_rows)
        fr_cpu_share(j->cols, PIECE, i_thread, n_threads, &from, &to);
    size_t row_bytes = fr_act_row_bytes(j->type, j->cols), skip = fr_act_row_bytes(j->type, from);
    for (int64_t r = row_from; r < row_to; r++)
        j->table->act_encode(j->type, j->x + r * j->ldx + from, to - from,
                             j->dst + (size_t)r * row_bytes + skip);
}

static void encode_thread(void *arg, int i_thread, int n_threads)
{
    cpu_encode_part(arg, i_thread, n_threads);
}

fr_act fr_cpu_act_prepare(fr_cpu *cpu, fr_act_type type, const float *x, int64_t ldx,
                          int64_t n_rows, int64_t cols, void *dst)
{
    fr_act act = {type, n_rows, cols, fr_act_row_bytes(type, cols), dst};
    if (!dst) {
        assert(type == FR_ACT_F32 && ldx == cols);
        act.data = x;
        return act;
    }
    cpu_encode_job job = {&cpu->table, type, x, ldx, n_rows, cols, dst};
    cpu_run_sized(cpu, n_rows * cols * ENCODE_MACS, encode_thread, &job);
    return act;
}

/* ---- products
 * ---------------------------------------------------------------------------------------- */

typedef struct {
    const fr_weight *w;
    const fr_act *x;
    const cpu_kernel *kernel;
    int64_t n_tokens;
    float *y;
    int64_t ldy;
    int64_t tile_rows, tiles_per_mat;
    _Atomic int64_t next_tile;
} matmul_job;

/* One tile: rows [from, to) of matrix m, for all tokens. The weights of the tile come from memory
 * once; later groups of tokens find them in the cache. */
static void compute_tile(const matmul_job *j, int64_t m, int64_t from, int64_t to)
{
    const fr_weight *w = j->w;
    const void *x[CPU_MANY_TOKENS];
    float *y[CPU_MANY_TOKENS];
    const int most = cpu_kernel_tokens(j->kernel);
    cpu_dot_args a = {.type = w->type,
                      .layout = w->layout,
                      .act = j->x->type,
                      .cols = w->cols,
                      .base = (const char *)w->data + (size_t)m * w->mat_bytes,
                      .row_from = from,
                      .row_to = to,
                      .x = x,
                      .y = y};
    for (int64_t t0 = 0; t0 < j->n_tokens; t0 += a.n_tokens) {
        int64_t left = j->n_tokens - t0;
        a.n_tokens = left < most ? (int)left : most;
        for (int i = 0; i < a.n_tokens; i++) {
            size_t x_row = (size_t)((t0 + i) * w->n_mat + m);
            x[i] = (const char *)j->x->data + x_row * j->x->row_bytes;
            y[i] = j->y + (t0 + i) * j->ldy + m * w->rows + from;
        }
        j->kernel->dot(&a);
    }
}

static void matmul_thread(void *arg, int i_thread, int n_threads)
{
    matmul_job *j = arg;
    (void)i_thread;
    (void)n_threads;
    int64_t n_tiles = j->tiles_per_mat * j->w->n_mat;
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&j->next_tile, 1, memory_order_relaxed);
        if (i >= n_tiles)
            return;
        int64_t from = i % j->tiles_per_mat * j->tile_rows, to = from + j->tile_rows;
        compute_tile(j, i / j->tiles_per_mat, from, to < j->w->rows ? to : j->w->rows);
    }
}

void fr_cpu_matmul(fr_cpu *cpu, const fr_weight *w, const fr_act *x, int64_t n_tokens, float *y,
                   int64_t ldy)
{
    assert(x->cols == w->cols && x->n_rows >= n_tokens * w->n_mat);
    matmul_job j = {.w = w, .x = x, .n_tokens = n_tokens, .y = y, .ldy = ldy};
    j.kernel = cpu_kernel_for(&cpu->table, w, x->type);
    const int n_threads = fr_cpu_n_threads(cpu);
    int64_t n_rows = w->rows * w->n_mat;
    j.tile_rows = cpu_tile_rows(n_rows, fr_row_bytes(w->type, w->layout, w->cols),
                                cpu_kernel_grain(j.kernel, n_rows, n_tokens, n_threads), n_threads);
    j.tiles_per_mat = (w->rows + j.tile_rows - 1) / j.tile_rows;
    cpu_run_sized(cpu, w->rows * w->cols * w->n_mat * n_tokens, matmul_thread, &j);
}
