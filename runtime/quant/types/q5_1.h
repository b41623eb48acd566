/* q5_1: 32 weights in 24 bytes, w = d * q + m.
 *
 *   plain
 *     0         d (f16)
 *     2         m (f16)
 *     4..7      fifth bits: bit e is weight e
 *     8..23     nibbles, as q4_0
 *   q5_1_r4 (ferry's own): 4 rows, 96 bytes
 *     0         d of the rows
 *     8         m
 *     16        fifth bits, as q5_0_r4
 *     32        nibbles, N4
 *   native: 16 rows, 384 bytes
 *     0         d of the rows
 *     32        m
 *     64        fifth bits
 *     128       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q5_1_H
#define FR_QUANT_TYPES_Q5_1_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d, m;
    uint8_t qh[4], q[16];
} fr_block_q5_1;
FR_BLOCK_SIZE(fr_block_q5_1, 24);

typedef struct {
    uint16_t d[4], m[4];
    uint8_t qh[16], q[64];
} fr_block_q5_1_r4;
FR_BLOCK_SIZE(fr_block_q5_1_r4, 96);

#define FR_T           q5_1
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(m, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(m, 2, 0, 16, 0)                                                                              \
    FR_NIBBLES_32(P, q, 8, 0)                                                                      \
    P(q, 4, e, 1, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 8 + 2 * k, 0, 16, 0)                                                                      \
    FR_N4(P, q, 32, 0)                                                                             \
    FR_B4(P, q, 16, h + 2 * (j % 2) + 4 * (j / 2), 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 32 + 2 * k, 0, 16, 0)                                                                     \
    FR_B16_FIFTH(P, q, 64)                                                                         \
    FR_N16(P, q, 128)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * F(q, e) + fr_val_f16(F(m, 0))
#include "quant/type_code.inc"

#endif
