/* q4_0: 32 weights in 18 bytes, w = d * (q - 8).
 *
 *   plain
 *     0         d (f16)
 *     2..17     nibbles: byte n has weight n low, weight n + 16 high
 *   q4_0_r8: 8 rows, 144 bytes
 *     0         d of the rows
 *     16        quant bytes, 32 bytes per 4 of them, row k's at 4k
 *   native: 16 rows, 288 bytes
 *     0         d of the rows
 *     32        nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q4_0_H
#define FR_QUANT_TYPES_Q4_0_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d;
    uint8_t q[16];
} fr_block_q4_0;
FR_BLOCK_SIZE(fr_block_q4_0, 18);

typedef struct {
    uint16_t d[8];
    uint8_t q[128];
} fr_block_q4_0_r8;
FR_BLOCK_SIZE(fr_block_q4_0_r8, 144);

#define FR_T                      q4_0
#define FR_T_WEIGHTS              32
#define FR_T_FIELDS(F)            F(d, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)       P(d, 0, 0, 16, 0) FR_NIBBLES_32(P, q, 2, 0)
#define FR_T_INTERLEAVED(P, M, X) P(d, 2 * k, 0, 16, 0) FR_NIBBLES_R8(P, q, 16)
#define FR_T_NATIVE(P, M, X)      P(d, 2 * k, 0, 16, 0) FR_N16(P, q, 32)
#define FR_T_VALUE(F)             fr_val_f16(F(d, 0)) * (F(q, e) - 8)
#include "quant/type_code.inc"

#endif
