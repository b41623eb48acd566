/* Inner loops of attention, one set a tier (inside the cpu box only). */
#ifndef FR_CPU_ATTN_H
#define FR_CPU_ATTN_H

#include "cpu/ops.h"

/* K and V of n <= FR_ATTN_BLOCK positions for one head. */
typedef struct {
    const float *k1, *k2, *v;
    int64_t ldk1, ldk2, ldv, n;
} attn_block;

typedef struct {
    /* Adds a block to the running softmax of one (token, head): state[0] = maximum, state[1] = sum
     * of weights, acc[wv] = weighted sum of v. A fresh state is {-INFINITY, 0}. */
    void (*add_block)(const float *q1, int64_t w1, const float *q2, int64_t w2, const attn_block *b,
                      int64_t wv, float scale, float *state, float *acc);
    /* n numbers of a cache row, from its start. */
    void (*decode)(fr_type type, const void *row, int64_t n, float *out);
} attn_kernels;

extern const attn_kernels attn_kernels_base, attn_kernels_avx2;

#endif
