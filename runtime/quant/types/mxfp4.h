/* mxfp4: 32 weights in 17 bytes, w = 2^(d - 128) * MX[q]; MX has twice the FP4 (e2m1) values.
 *
 *   plain
 *     0         d (exponent)
 *     1..16     nibbles, as q4_0
 *   mxfp4_r8: 8 rows, 136 bytes
 *     0         d of the rows
 *     8         quant bytes as q4_0_r8
 *   native: 16 rows, 272 bytes
 *     0         d of the rows
 *     16        nibbles, N16
 */
#ifndef FR_QUANT_TYPES_MXFP4_H
#define FR_QUANT_TYPES_MXFP4_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

typedef struct {
    uint8_t d, q[16];
} fr_block_mxfp4;
FR_BLOCK_SIZE(fr_block_mxfp4, 17);

typedef struct {
    uint8_t d[8], q[128];
} fr_block_mxfp4_r8;
FR_BLOCK_SIZE(fr_block_mxfp4_r8, 136);

#define FR_T                      mxfp4
#define FR_T_WEIGHTS              32
#define FR_T_FIELDS(F)            F(d, 1, uint8_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)       P(d, 0, 0, 8, 0) FR_NIBBLES_32(P, q, 1, 0)
#define FR_T_INTERLEAVED(P, M, X) P(d, k, 0, 8, 0) FR_NIBBLES_R8(P, q, 8)
#define FR_T_NATIVE(P, M, X)      P(d, k, 0, 8, 0) FR_N16(P, q, 16)
#define FR_T_VALUE(F)             fr_val_pow2(F(d, 0) - 128) * FR_TABLE_AT(fr_mxfp4_values)[F(q, e)]
#include "quant/type_code.inc"

#endif
