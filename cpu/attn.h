/* Attention inside the cpu box: the inner loops, one set a tier, and reading of cache rows. */
#ifndef FR_CPU_ATTN_H
#define FR_CPU_ATTN_H

#include "cpu/ops.h"

enum {
    ATTN_ROWS = 32,  /* most rows of one add_block */
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

/* A row's result depends neither on the other rows nor on their number. */
typedef struct {
    /* Adds a block to the running softmax of every row. */
    void (*add_block)(const attn_block *b);
    /* Adds the softmax of further positions, `part`, to that of earlier ones. */
    void (*fold)(float *state, float *acc, const float *part_state, const float *part_acc,
                 int64_t wv);
    /* n numbers of a cache row, from its start. */
    void (*decode)(fr_type type, const void *row, int64_t n, float *out);
} attn_kernels;

extern const attn_kernels attn_kernels_base, attn_kernels_avx2, attn_kernels_avx512;
const attn_kernels *attn_kernels_of(const fr_cpu *cpu);

/* As attn_kernels.decode, with AVX2. */
void attn_decode_avx2(fr_type type, const void *row, int64_t n, float *out);

/* Rows of n <= FR_ATTN_BLOCK positions from p on, for head h, as a reader sees them who takes
 * positions above `beyond` exact: in place where they stand as floats in one place and `padded`
 * does not ask for zeros behind them, else in tmp, attn_padded(stored) apart. *ld: from row to row.
 */
const float *attn_read_block(const attn_kernels *kernels, const fr_cpu_kv *kv, int64_t p, int64_t n,
                             int64_t beyond, int64_t h, bool padded, float *tmp, int64_t *ld);

#endif
