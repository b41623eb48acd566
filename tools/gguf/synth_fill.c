/* Random weights at the speed of the disk: a few rows of a type are encoded, and a matrix is made
 * of their blocks, shuffled anew in each row. A block of a row with a header only makes sense
 * behind that header, so blocks stay in their row (or group of rows); and each is used once,
 * because the header may hold a sum over them. */
#include <string.h>

#include "synth.h"

enum {
    POOL_WEIGHTS = 1 << 18, /* encoded for each kind of matrix */
    MIN_UNIT = 32,          /* weights that move together, at least */
    CHUNK_BYTES = 4 << 20   /* written at a time */
};

/* Encoded rows of one kind. A group is a row, or the rows that stand together; it has `head` bytes
 * of row headers and then units, which are blocks of all its rows. */
typedef struct {
    fr_type type;
    fr_layout layout;
    int64_t cols;
    float sigma;
    int64_t rows; /* in a group */
    size_t n_groups, head, unit, n_units, group;
    uint8_t *bytes; /* owned */
} pool;

struct synth_filler {
    uint64_t rng;
    pool *pools; /* owned */
    size_t n_pools, pool_cap;
    uint32_t *order; /* of units; owned */
    size_t order_cap;
    uint8_t *chunk; /* owned */
    size_t chunk_cap;
};

/* ---- random numbers ------------------------------------------------------------------------- */

/* xorshift64*: the same on every machine. */
static uint64_t draw(synth_filler *f)
{
    f->rng ^= f->rng >> 12;
    f->rng ^= f->rng << 25;
    f->rng ^= f->rng >> 27;
    return f->rng * 0x2545F4914F6CDD1Dull;
}

static size_t draw_below(synth_filler *f, size_t n)
{
    return (size_t)((draw(f) >> 32) * (uint64_t)n >> 32);
}

/* Mean 0, deviation 1, bell-shaped: the sum of four uniform numbers. */
static float draw_normal(synth_filler *f)
{
    uint64_t u = draw(f);
    uint32_t sum = (uint32_t)(u & 0xFFFF) + (uint32_t)(u >> 16 & 0xFFFF) +
                   (uint32_t)(u >> 32 & 0xFFFF) + (uint32_t)(u >> 48);
    return ((float)sum - 131070.0f) * (1.7320508f / 65536.0f);
}

static void draw_normals(synth_filler *f, float mean, float sigma, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = mean + sigma * draw_normal(f);
}

fr_status synth_filler_open(uint64_t seed, synth_filler **out, fr_err *err)
{
    synth_filler *f = FR_NEW(synth_filler, FR_MEM_MISC, 1, err);
    if (!f)
        return FR_ENOMEM;
    f->rng = seed * 0x9E3779B97F4A7C15ull | 1; /* never 0; small seeds far apart */
    for (int i = 0; i < 8; i++)
        draw(f);
    *out = f;
    return FR_OK;
}

void synth_filler_close(synth_filler *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n_pools; i++)
        fr_mem_free(f->pools[i].bytes);
    fr_mem_free(f->pools);
    fr_mem_free(f->order);
    fr_mem_free(f->chunk);
    fr_mem_free(f);
}

/* ---- pools ---------------------------------------------------------------------------------- */

/* Weights that move together: a block, or some where blocks are small. */
static int64_t unit_weights(fr_type type, int64_t cols)
{
    int64_t n = fr_type_get(type)->weights;
    if (n < MIN_UNIT)
        n = MIN_UNIT;
    return cols % n == 0 ? n : cols;
}

static pool pool_of(fr_type type, fr_layout layout, int64_t cols, float sigma)
{
    pool p = {.type = type, .layout = layout, .cols = cols, .sigma = sigma, .rows = 1};
    int64_t unit = unit_weights(type, cols);
    size_t row = fr_row_bytes(type, layout, cols);
    if (layout == FR_LAYOUT_INTERLEAVED)
        p.rows = fr_type_get(type)->group;
    p.n_units = (size_t)(cols / unit);
    p.unit = p.n_units > 1
                 ? (fr_row_bytes(type, layout, 2 * unit) - fr_row_bytes(type, layout, unit)) *
                       (size_t)p.rows
                 : row * (size_t)p.rows;
    p.group = row * (size_t)p.rows;
    p.head = p.group - p.unit * p.n_units;
    p.n_groups = (size_t)(POOL_WEIGHTS / (cols * p.rows));
    if (p.n_groups < 2)
        p.n_groups = 2;
    return p;
}

/* Encodes the rows of one group. */
static fr_status encode_group(synth_filler *f, const pool *p, float *x, uint8_t *plain,
                              uint8_t *dst, fr_err *err)
{
    bool direct = p->layout == FR_LAYOUT_PLAIN;
    size_t row = fr_row_bytes(p->type, FR_LAYOUT_PLAIN, p->cols);
    for (int64_t r = 0; r < p->rows; r++) {
        draw_normals(f, 0, p->sigma, p->cols, x);
        fr_encode_row(p->type, x, p->cols, NULL, (direct ? dst : plain) + (size_t)r * row);
    }
    if (direct)
        return FR_OK;
    return fr_repack(p->type, FR_LAYOUT_PLAIN, p->layout, p->rows, p->cols, plain, dst, err);
}

static fr_status encode_pool(synth_filler *f, pool *p, fr_err *err)
{
    float *x = FR_NEW(float, FR_MEM_MISC, (size_t)p->cols, err);
    uint8_t *plain = x ? fr_mem_array(FR_MEM_MISC, (size_t)p->rows,
                                      fr_row_bytes(p->type, FR_LAYOUT_PLAIN, p->cols), err)
                       : NULL;
    p->bytes = plain ? fr_mem_array(FR_MEM_MISC, p->n_groups, p->group, err) : NULL;
    fr_status st = p->bytes ? FR_OK : FR_ENOMEM;
    for (size_t g = 0; st == FR_OK && g < p->n_groups; g++)
        st = encode_group(f, p, x, plain, p->bytes + g * p->group, err);
    fr_mem_free(x);
    fr_mem_free(plain);
    return st;
}

static fr_status find_pool(synth_filler *f, fr_type type, fr_layout layout, int64_t cols,
                           float sigma, const pool **out, fr_err *err)
{
    for (size_t i = 0; i < f->n_pools; i++) {
        const pool *p = &f->pools[i];
        if (p->type == type && p->layout == layout && p->cols == cols && p->sigma == sigma) {
            *out = p;
            return FR_OK;
        }
    }
    void *items = f->pools;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &items, &f->pool_cap, f->n_pools + 1, sizeof *f->pools, err));
    f->pools = items;
    pool *p = &f->pools[f->n_pools];
    *p = pool_of(type, layout, cols, sigma);
    fr_status st = encode_pool(f, p, err);
    if (st != FR_OK) {
        fr_mem_free(p->bytes);
        return st;
    }
    f->n_pools++;
    *out = p;
    return FR_OK;
}

/* ---- matrices ------------------------------------------------------------------------------- */

static void make_group(synth_filler *f, const pool *p, uint8_t *dst)
{
    const uint8_t *src = p->bytes + draw_below(f, p->n_groups) * p->group;
    memcpy(dst, src, p->head);
    for (size_t i = 0; i < p->n_units; i++) {
        size_t k = i + draw_below(f, p->n_units - i);
        uint32_t chosen = f->order[k];
        f->order[k] = f->order[i];
        f->order[i] = chosen;
        memcpy(dst + p->head + i * p->unit, src + p->head + chosen * p->unit, p->unit);
    }
}

static fr_status reserve_chunk(synth_filler *f, size_t bytes, fr_err *err)
{
    void *items = f->chunk;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &items, &f->chunk_cap, bytes, 1, err));
    f->chunk = items;
    return FR_OK;
}

static fr_status fill_matrix(synth_filler *f, fr_gguf_writer *w, const synth_tensor *t,
                             fr_type type, fr_layout layout, fr_err *err)
{
    const pool *p;
    FR_TRY(find_pool(f, type, layout, t->dims[0], t->sigma, &p, err));
    void *items = f->order;
    FR_TRY(fr_mem_grow(FR_MEM_MISC, &items, &f->order_cap, p->n_units, sizeof *f->order, err));
    f->order = items;
    for (size_t i = 0; i < p->n_units; i++)
        f->order[i] = (uint32_t)i;
    size_t step = p->group < CHUNK_BYTES ? CHUNK_BYTES / p->group : 1;
    FR_TRY(reserve_chunk(f, step * p->group, err));
    for (size_t left = (size_t)(t->dims[1] * t->dims[2] / p->rows); left > 0;) {
        size_t n = left < step ? left : step;
        for (size_t i = 0; i < n; i++)
            make_group(f, p, f->chunk + i * p->group);
        FR_TRY(fr_gguf_write_data(w, f->chunk, n * p->group, err));
        left -= n;
    }
    return FR_OK;
}

/* Number by number: the few tensors in float32. */
static fr_status fill_floats(synth_filler *f, fr_gguf_writer *w, const synth_tensor *t, fr_err *err)
{
    bool norm = t->kind == SYNTH_NORM, bias = t->kind == SYNTH_BIAS;
    size_t bytes = (size_t)t->dims[0] * sizeof(float);
    FR_TRY(reserve_chunk(f, bytes, err));
    for (int64_t r = 0; r < t->dims[1] * t->dims[2]; r++) {
        draw_normals(f, norm ? 1.0f : 0.0f,
                     norm   ? 0.05f
                     : bias ? 0.02f
                            : t->sigma,
                     t->dims[0], (float *)(void *)f->chunk);
        FR_TRY(fr_gguf_write_data(w, f->chunk, bytes, err));
    }
    return FR_OK;
}

fr_status synth_fill(synth_filler *f, fr_gguf_writer *w, const synth_tensor *t, fr_type type,
                     fr_layout layout, fr_err *err)
{
    if (t->kind == SYNTH_MATRIX || t->kind == SYNTH_LOOKUP)
        return fill_matrix(f, w, t, type, layout, err);
    return fill_floats(f, w, t, err);
}
