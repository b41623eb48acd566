/* Activations prepared for dot products with quantized weights: quantized once per batch, shared by
 * every matrix (and expert) that reads them. In-memory forms of ferry's own, never in files.
 *
 * Scales are float32 and sums are float32 or integers: sums in half precision overflow for the
 * activations of real models. */
#ifndef FR_QUANT_ACT_H
#define FR_QUANT_ACT_H

#include "quant/qtype.h"

/* A kernel may add products of q and codes that are 128 above their value. Its sums then start from
 * -128 times the sum of q; where sums stay below 2^22, from the bits of this float, 1.5 * 2^23,
 * too, so that they are floats without a conversion: FR_ACT_MAGIC + sum. */
#define FR_ACT_MAGIC      0x1.8p23f
#define FR_ACT_MAGIC_BITS 0x4B400000

typedef struct {
    float d;       /* scale: x = d * q */
    float s;       /* d * sum of q, for types with a minimum or offset */
    int32_t start; /* FR_ACT_MAGIC_BITS - 128 * sum of q */
    int8_t q[32];
} fr_act_q8_32;

typedef struct {
    float d;           /* scale */
    uint16_t most_abs; /* the largest sum of |q| of 16 consecutive q (from a multiple of 16 on) */
    uint16_t
        most_half;    /* the largest sum of all positive, or of all negative, of 32, without sign */
    int16_t sums[16]; /* of 16 consecutive q */
    int16_t sums_32[8]; /* of 32 */
    int32_t unused[2];  /* 0: q begins a cache line where the blocks do */
    int8_t q[256];
} fr_act_q8_256;

/* Bytes of one row of cols activations; cols must be a multiple of fr_act_block(type). */
size_t fr_act_row_bytes(fr_act_type type, int64_t cols);
int fr_act_block(fr_act_type type); /* 1, 32, 256 */

/* Reference: quantizes cols floats; q = round-half-away(x / d), d = max|x| / 127. Values must be
 * finite; a block with NaN or infinity gives d = NaN, so that the fault shows in the result. */
void fr_act_encode_row(fr_act_type type, const float *x, int64_t cols, void *dst);
void fr_act_decode_row(fr_act_type type, const void *src, int64_t cols, float *out);

#endif
