/* Matrix products and activation preparation, cut into tiles of rows that threads claim one by one.
 * A tile is computed whole by one thread, so the split never shows in the result. */
#include <assert.h>

#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"

#define TILES_PER_THREAD      8
#define MANY_TILES_PER_THREAD 4 /* at least, before tiles get smaller than a kernel likes */
#define TILE_BYTES            (256 << 10) /* of weights: they stay in the cache while tokens pass by */
#define MIN_TILE_BYTES        (8 << 10) /* below, claiming costs more than computing */
#define ENCODE_MACS           4         /* the work on one activation, in multiply-adds */
#define MIN_SHARED_MACS       65536     /* below, the caller is done before the others are awake */
#define SMALL_BYTES           (1 << 20) /* of a matrix that the second cache holds */
#define TOKENS_OF_TILE        32
#define FAR_BYTES             (1 << 20) /* of results: more than the second cache keeps for long */

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

int64_t cpu_least_rows(const fr_weight *w, int64_t grain, int64_t *tile_rows)
{
    int64_t bytes = (int64_t)fr_row_bytes(w->type, w->layout, w->cols), least = grain;
    while (least * bytes < MIN_TILE_BYTES && 2 * least <= *tile_rows)
        least *= 2;
    *tile_rows -= *tile_rows % least;
    return least;
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

bool cpu_is_shared(int64_t n_macs)
{
    return n_macs >= MIN_SHARED_MACS;
}

void cpu_run_sized(fr_cpu *cpu, int64_t n_macs, fr_cpu_fn fn, void *arg)
{
    if (cpu_is_shared(n_macs))
        cpu_pool_run(cpu->pool, fn, arg);
    else
        fn(arg, 0, 1);
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
    const fr_cpu_product *product;
    const cpu_kernel *kernel;
    int64_t n_tokens;
    bool by_tokens; /* tiles are of tokens and have all rows */
    cpu_tiles tiles;
} matmul_part;

typedef struct {
    int n;
    matmul_part parts[FR_CPU_MOST_PRODUCTS];
} matmul_job;

bool cpu_is_far(int64_t n_rows, int64_t cols)
{
    return n_rows * cols * (int64_t)sizeof(float) >= FAR_BYTES;
}

static const void *row_of(const matmul_part *p, int64_t mat, int64_t row)
{
    const fr_weight *w = p->product->w;
    return (const char *)w->data + (size_t)mat * w->mat_bytes +
           (size_t)row * fr_row_bytes(w->type, w->layout, w->cols);
}

/* What a thread reads after a tile, and what it asked memory for before. */
typedef struct {
    const void *next, *asked;
} ahead;

/* The weights of a tile come from memory once; later groups of tokens find them in the cache.
 * Tokens [from, to). */
static void compute_tile(const matmul_part *p, const cpu_tile *tile, int64_t from, int64_t to,
                         ahead look)
{
    const fr_weight *w = p->product->w;
    const fr_act *act = p->product->x;
    const void *x[CPU_MANY_TOKENS];
    float *y[CPU_MANY_TOKENS];
    const int most = cpu_kernel_tokens(p->kernel);
    cpu_dot_args a = {.type = w->type,
                      .layout = w->layout,
                      .act = act->type,
                      .cols = w->cols,
                      .base = (const char *)w->data + (size_t)tile->mat * w->mat_bytes,
                      .row_from = tile->from,
                      .row_to = tile->to,
                      .x = x,
                      .y = y,
                      .next = look.next,
                      .asked = look.asked && look.asked == row_of(p, tile->mat, tile->from),
                      .far = cpu_is_far(p->n_tokens, w->n_mat * w->rows)};
    for (int64_t t0 = from; t0 < to; t0 += a.n_tokens) {
        int64_t left = to - t0;
        a.n_tokens = left < most ? (int)left : most;
        for (int i = 0; i < a.n_tokens; i++) {
            size_t x_row = (size_t)((t0 + i) * w->n_mat + tile->mat);
            x[i] = (const char *)act->data + x_row * act->row_bytes;
            y[i] = p->product->y + (t0 + i) * p->product->ldy + tile->mat * w->rows + tile->from;
        }
        p->kernel->dot(&a);
    }
}

/* Where the thread reads on: in this product, or at the start of the next one. */
static const void *next_of(const matmul_job *j, int i, const cpu_walk *walk, int i_thread,
                           int n_threads)
{
    cpu_tile t;
    const matmul_part *p = &j->parts[i];
    if (p->n_tokens > 1)
        return NULL; /* kernels for several tokens do not look ahead */
    if (cpu_tiles_peek(&p->tiles, walk, &t))
        return row_of(p, t.mat, t.from);
    if (++p == j->parts + j->n)
        return NULL;
    cpu_walk first = cpu_tiles_walk(&p->tiles, i_thread, n_threads);
    return cpu_tiles_peek(&p->tiles, &first, &t) ? row_of(p, t.mat, t.from) : NULL;
}

static void matmul_thread(void *arg, int i_thread, int n_threads)
{
    matmul_job *j = arg;
    ahead look = {NULL, NULL};
    for (int i = 0; i < j->n; i++) {
        matmul_part *p = &j->parts[i];
        cpu_walk walk = cpu_tiles_walk(&p->tiles, i_thread, n_threads);
        for (cpu_tile tile; cpu_tiles_next(&p->tiles, &walk, &tile); look.asked = look.next) {
            if (p->by_tokens) {
                compute_tile(p, &(cpu_tile){0, 0, p->product->w->rows}, tile.from, tile.to, look);
                continue;
            }
            look.next = next_of(j, i, &walk, i_thread, n_threads);
            compute_tile(p, &tile, 0, p->n_tokens, look);
        }
    }
}

/* A small matrix of floats (a router) is read again for every few tokens anyway, and activations
 * are what should come from memory once. */
static bool is_by_tokens(const matmul_part *p)
{
    const fr_weight *w = p->product->w;
    return p->kernel->act == FR_ACT_F32 && p->kernel->many_rows == 0 && w->n_mat == 1 &&
           w->mat_bytes <= SMALL_BYTES && p->n_tokens >= TOKENS_OF_TILE;
}

static void plan_part(const fr_cpu *cpu, matmul_part *p, int64_t n_tokens)
{
    const fr_weight *w = p->product->w;
    assert(p->product->x->cols == w->cols && p->product->x->n_rows >= n_tokens * w->n_mat);
    p->kernel = cpu_kernel_for(&cpu->table, w, p->product->x->type);
    p->n_tokens = n_tokens;
    p->by_tokens = is_by_tokens(p);
    if (p->by_tokens) {
        cpu_tiles_cut(&p->tiles, cpu, CPU_DEAL_CLAIM, 1, n_tokens, TOKENS_OF_TILE, TOKENS_OF_TILE);
        return;
    }
    const int n_threads = fr_cpu_n_threads(cpu);
    int64_t n_rows = w->rows * w->n_mat;
    int64_t grain = cpu_kernel_grain(p->kernel, n_rows, n_tokens, n_threads);
    int64_t tile_rows =
        cpu_tile_rows(n_rows, fr_row_bytes(w->type, w->layout, w->cols), grain, n_threads);
    int64_t least = tile_rows;
    if (n_tokens < CPU_FEW_TOKENS)
        least = cpu_least_rows(w, grain, &tile_rows);
    cpu_tiles_cut_ending(&p->tiles, cpu, CPU_DEAL_CLAIM, w->n_mat, w->rows, tile_rows, least,
                         grain);
}

void fr_cpu_products(fr_cpu *cpu, const fr_cpu_product *products, int n, int64_t n_tokens)
{
    assert(n <= FR_CPU_MOST_PRODUCTS);
    matmul_job j;
    int64_t n_macs = 0;
    j.n = n;
    for (int i = 0; i < n; i++) {
        const fr_weight *w = products[i].w;
        j.parts[i].product = &products[i];
        plan_part(cpu, &j.parts[i], n_tokens);
        n_macs += w->rows * w->cols * w->n_mat * n_tokens;
    }
    cpu_run_sized(cpu, n_macs, matmul_thread, &j);
}

void fr_cpu_matmul(fr_cpu *cpu, const fr_weight *w, const fr_act *x, int64_t n_tokens, float *y,
                   int64_t ldy)
{
    fr_cpu_products(cpu, &(fr_cpu_product){w, x, y, ldy}, 1, n_tokens);
}
