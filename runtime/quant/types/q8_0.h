/* q8_0: 32 weights in 34 bytes, w = d * q.
 *
 *   plain
 *     0         d (f16)
 *     2..33     q, signed
 *   q8_0_r8: 8 rows, 272 bytes
 *     0         d of the rows
 *     16        q: 32 bytes per 4 weights, row k's at 4k
 *   native: 16 rows, 544 bytes
 *     0         d of the rows
 *     32        q + 128: 64 bytes per 4 weights, row k's at 4k
 */
#ifndef FR_QUANT_TYPES_Q8_0_H
#define FR_QUANT_TYPES_Q8_0_H

#include "quant/fields.h"

typedef struct {
    uint16_t d;
    int8_t q[32];
} fr_block_q8_0;
FR_BLOCK_SIZE(fr_block_q8_0, 34);

typedef struct {
    uint16_t d[8];
    int8_t q[256];
} fr_block_q8_0_r8;
FR_BLOCK_SIZE(fr_block_q8_0_r8, 272);

#define FR_T                q8_0
#define FR_T_WEIGHTS        32
#define FR_T_FIELDS(F)      F(d, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X) P(d, 0, 0, 16, 0) P(q, 2 + e, 0, 8, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0) P(q, 16 + 32 * (e / 4) + 4 * k + e % 4, 0, 8, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    X(q, 32 + 64 * (e / 4) + 4 * k + i, 0, 8, 0, fr_code_plus_128)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * fr_val_i8(F(q, e))
#include "quant/type_code.inc"

#endif
