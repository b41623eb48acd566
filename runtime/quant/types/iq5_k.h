/* iq5_k: 256 weights in 176 bytes, w = d * (sc - 32) * V5[q, x] per 16 weights; x picks the half
 * of the table.
 *
 *   plain
 *     0         d (f16)
 *     2         x bits
 *     4         two high bits of sc
 *     8         nibbles of sc
 *     16        nibbles: 32 bytes per 64 weights
 *     144       fifth bits: bit n of a byte is for sub-block n of 32
 *   iq5_k_r4: 4 rows, 704 bytes
 *     0         d of the rows
 *     8         x
 *     16        high bits of sc, split
 *     32        nibbles of sc, split
 *     64        nibbles, N4
 *     576       fifth bits, from bit 0: weights i + 0, 8, 16, 24, 4, 12, 20, 28
 *   native: 16 rows, 2816 bytes
 *     0         d of the rows
 *     32        x
 *     64        sc
 *     256       fifth bits
 *     768       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_IQ5_K_H
#define FR_QUANT_TYPES_IQ5_K_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq5_k
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(x, 16, uint8_t) F(sc, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(x, 2, s, 1, 0)                                                                               \
    FR_SCALE_NIBBLES(P, sc, 8)                                                                     \
    FR_SCALE_HIGH_2(P, sc, 4)                                                                      \
    FR_NIBBLES_64(P, q, 16, 0)                                                                     \
    FR_BITS_256(P, q, 144, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(x, 8 + 4 * (s % 2) + k, s / 2, 1, 0)                                                         \
    FR_SPLIT_NIBBLES(P, sc, 32, 4)                                                                 \
    FR_SPLIT_HIGH_2(P, sc, 16, 4)                                                                  \
    FR_N4(P, q, 64, 0)                                                                             \
    FR_B4(P, q, 576, 2 * h + j / 2 + 4 * (j % 2), 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_ROW_BITS_16(P, x, 32, 0)                                                                    \
    FR_SCALES_6X16(P, sc, 64)                                                                      \
    FR_B16_FIFTH(P, q, 256)                                                                        \
    FR_N16(P, q, 768)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (F(sc, e / 16) - 32) *                                                   \
        FR_TABLE_AT(fr_iq5nl_values)[F(q, e) + 32 * F(x, e / 16)]
#include "quant/type_code.inc"

#endif
