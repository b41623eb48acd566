/* q4_1: 32 weights in 20 bytes, w = d * q + m.
 *
 *   plain
 *     0         d (f16)
 *     2         m (f16)
 *     4..19     nibbles: byte n has weight n low, weight n + 16 high
 *   q4_1_r4 (ferry's own): 4 rows, 80 bytes
 *     0         d of the rows
 *     8         m
 *     16        nibbles, N4
 *   native: 16 rows, 320 bytes
 *     0         d of the rows
 *     32        m
 *     64        nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q4_1_H
#define FR_QUANT_TYPES_Q4_1_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d, m;
    uint8_t q[16];
} fr_block_q4_1;
FR_BLOCK_SIZE(fr_block_q4_1, 20);

typedef struct {
    uint16_t d[4], m[4];
    uint8_t q[64];
} fr_block_q4_1_r4;
FR_BLOCK_SIZE(fr_block_q4_1_r4, 80);

#define FR_T           q4_1
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(m, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(m, 2, 0, 16, 0)                                                                              \
    FR_NIBBLES_32(P, q, 4, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 8 + 2 * k, 0, 16, 0)                                                                      \
    FR_N4(P, q, 16, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 32 + 2 * k, 0, 16, 0)                                                                     \
    FR_N16(P, q, 64)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * F(q, e) + fr_val_f16(F(m, 0))
#include "quant/type_code.inc"

#endif
