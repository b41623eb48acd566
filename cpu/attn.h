/* Attention inside the cpu box: the inner loops, one set a tier, and reading of cache rows. */
#ifndef FR_CPU_ATTN_H
#define FR_CPU_ATTN_H

#include "cpu/ops.h"

enum {
    ATTN_ROWS = 32, /* most rows of one add_block */
    ATTN_MOST_PARTS = 32,
    ATTN_LANES = 16, /* widths are padded with zeros to multiples of this many numbers */
};

static inline int64_t attn_padded(int64_t n)
{
    return (n + ATTN_LANES - 1) / ATTN_LANES * ATTN_LANES;
}

/* Rows of queries (heads, tokens, or both) that meet the K and V of n <= FR_ATTN_BLOCK positions. w
 * and wv are padded; columns of k beyond the true width may hold anything finite if those of q hold
 * zeros. */
typedef struct {
    const float *q; /* n_rows x w */
    int64_t n_rows, w;
    const float *k, *v;
    int64_t ldk, ldv, n;
    int64_t wv;
    const int32_t *seen; /* positions that each row sees, at least 1; NULL: all n */
    float scale;
    float *state;        /* n_rows x 2: maximum and sum of weights; fresh: -INFINITY, 0 */
    float *acc;          /* n_rows x wv: weighted sum of v */
    const uint8_t *next; /* bytes that will be read next: asked for from memory on the way */
    size_t next_bytes;
} attn_block;

/* ---- the latent cache in integers of 16 bits (attn_16_avx512.c) */

enum {
    ATTN_BLOCK_16 = 2 * FR_ATTN_BLOCK,
    ATTN_SPLIT_16 = 32,   /* columns of a query that share a factor */
    ATTN_STRIDE_16 = 640, /* the most columns */
    ATTN_COLUMNS_16 = 64, /* widths are multiples */
};

/* What rounding has done to a row so far: the square of (its scores' errors times weights), whose
 * unit is that of the sum of weights, and the largest error of a score. Both are standard
 * deviations. */
typedef struct {
    float squares[ATTN_ROWS], most[ATTN_ROWS];
} attn_risk_16;

/* Rows of queries that meet n <= ATTN_BLOCK_16 positions, whose first wv columns are V as well. */
typedef struct {
    const float *q; /* packed */
    int64_t n_rows, w, wv;
    fr_type type; /* that `reads` names */
    const uint8_t *rows;
    size_t row_bytes;
    int64_t n;
    const int32_t *seen; /* ATTN_ROWS: positions that each row sees; 0: none, and behind the last */
    float scale;
    float *state, *acc; /* as in attn_block; state of ATTN_ROWS */
    bool fresh;         /* acc is to be set: nothing has been summed */
    attn_risk_16 *risk;
    const uint8_t *next;
    size_t next_bytes;
} attn_block_16;

/* Packed queries of ATTN_LANES rows, in floats. */
static inline int64_t attn_group_floats_16(int64_t w)
{
    return (w / 2 + w / ATTN_SPLIT_16 + 2) * ATTN_LANES;
}

/* Needs w and wv that are multiples of ATTN_COLUMNS_16. A row's result and risk
 * depend on the row and the positions that it sees only. */
typedef struct {
    /* q: n_rows x w, of which the first wv columns meet V's. */
    void (*pack_queries)(const float *q, int64_t n_rows, int64_t w, int64_t wv, float scale,
                         float *out);
    bool (*reads)(fr_type type);
    /* Adds a block to the running softmax of every row. acc is in an order of the tier's own. */
    void (*add_block)(const attn_block_16 *b);
    /* The numbers of acc times factor. */
    void (*finish)(const float *acc, int64_t wv, float factor, float *out);
} attn_kernels_16;

/* A row's result depends neither on the other rows nor on their number. */
typedef struct {
    /* Adds a block to the running softmax of every row. */
    void (*add_block)(const attn_block *b);
    /* The states of n <= ATTN_MOST_PARTS further softmaxes, ld apart, join `state` one after the
     * other; for each, what sums of earlier positions and its own are to be multiplied by. */
    void (*fold_states)(float *state, const float *parts, int64_t ld, int64_t n, float *shrink,
                        float *weight);
    /* Then so do their sums, ld apart, to one row. */
    void (*fold_sums)(float *acc, const float *parts, int64_t ld, int64_t n, const float *shrink,
                      const float *weight, int64_t wv);
    /* n numbers of a cache row, from its start. */
    void (*decode)(fr_type type, const void *row, int64_t n, float *out);
    const attn_kernels_16 *(*in_16)(void); /* NULL: there are none */
} attn_kernels;

/* ---- prompts: tokens of one head on K and V expanded to floats (attn_expanded.c) ------------- */

enum {
    ATTN_PANEL = 128,    /* positions that are packed together, at most */
    ATTN_TILE_ROWS = 12, /* rows of queries that are computed together */
};

/* n rows of two parts, w1 and w2 (or 0) wide; rows of V have the first only. */
typedef struct {
    const float *x1, *x2;
    int64_t ld1, ld2, w1, w2, n;
} attn_rows;

/* Numbers in a packed row, and packed rows of queries for n of them. */
static inline int64_t attn_width(int64_t w1, int64_t w2)
{
    return attn_padded(w1) + attn_padded(w2);
}

static inline int64_t attn_packed_rows(int64_t n)
{
    return (n + ATTN_TILE_ROWS - 1) / ATTN_TILE_ROWS * ATTN_TILE_ROWS;
}

/* ATTN_TILE_ROWS packed rows of queries that meet the packed K and V of n positions. */
typedef struct {
    const float *q; /* rows w apart */
    int64_t w;
    const float *k, *v;
    int64_t n, wv;       /* padded */
    const int32_t *seen; /* of the n positions, how many each row sees; may be below 1 */
    float *state;        /* rows x 2, as in attn_block, but in units of the tier's own */
    float *acc;          /* rows x wv */
} attn_tile;

/* Packed data are in an order and of numbers of the tier's own. A row's result depends on the
 * positions that it sees only. Room in floats: packed rows x width for queries, ATTN_PANEL x width
 * for K, ATTN_PANEL x attn_padded(w1) for V. */
typedef struct {
    void (*pack_queries)(const attn_rows *rows, float scale, float *out);
    void (*pack_keys)(const attn_rows *rows, float *out);
    void (*pack_values)(const attn_rows *rows, float *out);
    void (*add_tile)(const attn_tile *tile);
} attn_prompt;

extern const attn_prompt attn_prompt_base, attn_prompt_avx2, attn_prompt_avx512;

/* Rounds to integers of 16 bits. For widths that are multiples of ATTN_LANES, w1 + w2 at least
 * twice that. */
enum { ATTN_MOST_WIDTH_16 = 1024 };
extern const attn_prompt attn_prompt_16_avx512;

/* Pairs of numbers of a row w wide, in whole registers. */
static inline int64_t attn_pairs_16(int64_t w)
{
    return (w + 2 * ATTN_LANES - 1) / (2 * ATTN_LANES) * ATTN_LANES;
}

/* Floats that a packed panel takes: pairs, and a factor for each position. */
static inline size_t attn_packed_keys_16(int64_t w)
{
    return (size_t)(ATTN_PANEL * (attn_pairs_16(w) + 1));
}

static inline size_t attn_packed_values_16(int64_t wv)
{
    return (size_t)(ATTN_PANEL / 2 * wv + ATTN_PANEL);
}

/* ---- tiers ----------------------------------------------------------------------------------- */

extern const attn_kernels attn_kernels_base, attn_kernels_avx2, attn_kernels_avx512;
extern const attn_kernels_16 attn_kernels_16_avx512, attn_kernels_16_fp16;
const attn_kernels_16 *attn_kernels_16_best(void); /* of this machine, which has AVX-512 */
const attn_kernels *attn_kernels_of(const fr_cpu *cpu);

/* As attn_kernels.decode, with AVX2. */
void attn_decode_avx2(fr_type type, const void *row, int64_t n, float *out);

/* Rows of n <= FR_ATTN_BLOCK positions from p on, for head h, as a reader sees them who takes
 * positions above `beyond` exact: in place where they stand as floats in one place and `padded`
 * does not ask for zeros behind them, else in tmp, attn_padded(stored) apart. *ld: from row to row.
 */
const float *attn_read_block(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p, int64_t n,
                             int64_t beyond, int64_t h, bool padded, float *tmp, int64_t *ld);

/* The rows of n positions from p on of a cache with one row a position, as `reads` allows. tmp:
 * room as for attn_read_block. */
void attn_find_rows(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p, int64_t n,
                    int64_t beyond, float *tmp, attn_block_16 *b);

#endif
