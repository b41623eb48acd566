/* q5_0: 32 weights in 22 bytes, w = d * (q - 16).
 *
 *   plain
 *     0         d (f16)
 *     2..5      fifth bits: bit e is weight e
 *     6..21     nibbles, as q4_0
 *   q5_0_r4: 4 rows, 88 bytes
 *     0         d of the rows
 *     8         fifth bits, from bit 0: weights i + 0, 16, 4, 20, 8, 24, 12, 28
 *     24        nibbles, N4
 *   native: 16 rows, 352 bytes
 *     0         d of the rows
 *     32        fifth bits
 *     96        nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q5_0_H
#define FR_QUANT_TYPES_Q5_0_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d;
    uint8_t qh[4], q[16];
} fr_block_q5_0;
FR_BLOCK_SIZE(fr_block_q5_0, 22);

typedef struct {
    uint16_t d[4];
    uint8_t qh[16], q[64];
} fr_block_q5_0_r4;
FR_BLOCK_SIZE(fr_block_q5_0_r4, 88);

#define FR_T           q5_0
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    FR_NIBBLES_32(P, q, 6, 0)                                                                      \
    P(q, 2, e, 1, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_N4(P, q, 24, 0)                                                                             \
    FR_B4(P, q, 8, h + 2 * (j % 2) + 4 * (j / 2), 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_B16_FIFTH(P, q, 32)                                                                         \
    FR_N16(P, q, 96)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * (F(q, e) - 16)
#include "quant/type_code.inc"

#endif
