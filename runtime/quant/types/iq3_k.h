/* iq3_k: 256 weights in 110 bytes, w = d * +-(2 * sc + 1) * V3[q, x] per 16 weights; x picks the
 * half of the table, sg = 1 is the minus.
 *
 *   plain
 *     0         d (f16)
 *     2         x bits
 *     4         sg bits
 *     6         nibbles of sc
 *     14        2-bit codes: 32 bytes per 128 weights
 *     78        third bits: bit n of a byte is for sub-block n of 32
 *   iq3_k_r4: 4 rows, 440 bytes
 *     0         d of the rows
 *     8         x
 *     16        sg, number 4s + k in byte n % 8, bit n / 8
 *     24        nibbles of sc, split
 *     56        codes, T4
 *     312       third bits, bit 4h + j
 *   native: 16 rows, 1760 bytes
 *     0         d of the rows
 *     32        x
 *     64        signs of the scales
 *     96        sc
 *     224       third bits
 *     736       low two bits, T16
 */
#ifndef FR_QUANT_TYPES_IQ3_K_H
#define FR_QUANT_TYPES_IQ3_K_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T         iq3_k
#define FR_T_WEIGHTS 256
#define FR_T_FIELDS(F)                                                                             \
    F(d, 1, uint16_t) F(x, 16, uint8_t) F(sg, 16, uint8_t) F(sc, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(x, 2, s, 1, 0)                                                                               \
    P(sg, 4, s, 1, 0)                                                                              \
    FR_SCALE_NIBBLES(P, sc, 6)                                                                     \
    FR_PAIRS_128(P, q, 14, 0)                                                                      \
    FR_BITS_256(P, q, 78, 2)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(x, 8 + 4 * (s % 2) + k, s / 2, 1, 0)                                                         \
    P(sg, 16 + (4 * s + k) % 8, (4 * s + k) / 8, 1, 0)                                             \
    FR_SPLIT_NIBBLES(P, sc, 24, 4)                                                                 \
    FR_T4(P, q, 56, 0)                                                                             \
    FR_B4(P, q, 312, 4 * h + j, 2)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_ROW_BITS_16(P, x, 32, 0)                                                                    \
    FR_ROW_BITS_16(P, sg, 64, 0)                                                                   \
    FR_SCALE_LANES_16(P, sc, 96)                                                                   \
    FR_B16_THIRD(P, q, 224)                                                                        \
    FR_T16(P, q, 736)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * ((2 * F(sc, e / 16) + 1) * fr_val_sign(F(sg, e / 16), 0)) *              \
        FR_TABLE_AT(fr_iq3nl_values)[F(q, e) + 8 * F(x, e / 16)]
#include "quant/type_code.inc"

#endif
