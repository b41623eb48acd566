/* iq2_k: 256 weights in 76 bytes, w = d * (sc - 8) * V2[q, x] per 16 weights; x picks the half
 * of the table.
 *
 *   plain
 *     0         d (f16)
 *     2         x bits
 *     4         nibbles of sc
 *     12        2-bit codes: 32 bytes per 128 weights
 *   iq2_k_r4: 4 rows, 304 bytes
 *     0         d of the rows
 *     8         x
 *     16        nibbles of sc, split
 *     48        codes, T4
 *   native: 16 rows, 1216 bytes
 *     0         d of the rows
 *     32        x
 *     64        sc
 *     192       codes, T16
 */
#ifndef FR_QUANT_TYPES_IQ2_K_H
#define FR_QUANT_TYPES_IQ2_K_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_k
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(x, 16, uint8_t) F(sc, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(x, 2, s, 1, 0)                                                                               \
    FR_SCALE_NIBBLES(P, sc, 4)                                                                     \
    FR_PAIRS_128(P, q, 12, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(x, 8 + 4 * (s % 2) + k, s / 2, 1, 0)                                                         \
    FR_SPLIT_NIBBLES(P, sc, 16, 4)                                                                 \
    FR_T4(P, q, 48, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_ROW_BITS_16(P, x, 32, 0)                                                                    \
    FR_SCALE_LANES_16(P, sc, 64)                                                                   \
    FR_T16(P, q, 192)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (F(sc, e / 16) - 8) *                                                    \
        FR_TABLE_AT(fr_iq2nl_values)[F(q, e) + 4 * F(x, e / 16)]
#include "quant/type_code.inc"

#endif
