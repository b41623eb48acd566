/* iq4_xs: 256 weights in 136 bytes, w = d * (sc - 32) * V4[q] per 32 weights.
 *
 *   plain
 *     0         d (f16)
 *     2         two high bits of sc
 *     4         nibbles of sc
 *     8         nibbles: 16 bytes per 32 weights
 *   iq4_xs_r8: 8 rows, 1088 bytes
 *     0         d of the rows
 *     16        high bits of sc, split
 *     32        nibbles of sc, split
 *     64        nibbles, 128 bytes per 32 weights: byte 32l + 4k + i has weight 8l + i low, 8l +
 *               4 + i high
 *   native: 16 rows, 2176 bytes
 *     0         d of the rows
 *     32        high bits of sc
 *     64        nibbles of sc
 *     128       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_IQ4_XS_H
#define FR_QUANT_TYPES_IQ4_XS_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

typedef struct {
    uint16_t d, scales_h;
    uint8_t scales_l[4], q[128];
} fr_block_iq4_xs;
FR_BLOCK_SIZE(fr_block_iq4_xs, 136);

typedef struct {
    uint16_t d[8];
    uint8_t scales_h[16], scales_l[32], q[1024];
} fr_block_iq4_xs_r8;
FR_BLOCK_SIZE(fr_block_iq4_xs_r8, 1088);

#define FR_T           iq4_xs
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(sc, 8, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    FR_SCALE_NIBBLES(P, sc, 4)                                                                     \
    FR_SCALE_HIGH_2(P, sc, 2)                                                                      \
    FR_NIBBLES_32(P, q, 8, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SPLIT_NIBBLES(P, sc, 32, 8)                                                                 \
    FR_SPLIT_HIGH_2(P, sc, 16, 8)                                                                  \
    P(q, 64 + 128 * b + 32 * (e % 32 / 8) + 4 * k + i, 4 * (j % 2), 4, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(sc, 32 + (16 * s + k) % 32, 2 * (s / 2), 2, 4)                                               \
    P(sc, 64 + (16 * s + k) % 64, 4 * (s / 4), 4, 0)                                               \
    FR_N16(P, q, 128)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (F(sc, e / 32) - 32) * FR_TABLE_AT(fr_iq4k_values)[F(q, e)]
#include "quant/type_code.inc"

#endif
