/* iq2_ks: 256 weights in 70 bytes and a scale per row, w = d * (sc - 16) * V2[q, x] per 32
 * weights; x picks the half of the table.
 *
 *   plain: row header d (f16)
 *     0         a 16-bit word: 8 x, 8 fifth bits of sc
 *     2         nibbles of sc
 *     6         2-bit codes: 32 bytes per 128 weights
 *   iq2_ks_r4 (ferry's own): 4 rows, row headers d, 280 bytes
 *     0         the words of the rows
 *     8         nibbles of sc, number 4s + k in byte n % 16
 *     24        codes, T4
 *   native: 16 rows, 1120 bytes; the rows' headers stand before all blocks
 *     0         x
 *     16        fifth bits of sc
 *     32        nibbles of sc
 *     96        codes, T16
 */
#ifndef FR_QUANT_TYPES_IQ2_KS_H
#define FR_QUANT_TYPES_IQ2_KS_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_ks
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(x, 8, uint8_t) F(sc, 8, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 16, 0)                                                                              \
    P(x, 0, s, 1, 0)                                                                               \
    FR_SCALE_NIBBLES(P, sc, 2)                                                                     \
    P(sc, 0, 8 + s, 1, 4)                                                                          \
    FR_PAIRS_128(P, q, 6, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    P(x, 2 * k, s, 1, 0)                                                                           \
    FR_SPLIT_NIBBLES_8(P, sc, 8)                                                                   \
    P(sc, 2 * k, 8 + s, 1, 4)                                                                      \
    FR_T4(P, q, 24, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    FR_ROW_BITS_16(P, x, 0, 0)                                                                     \
    FR_ROW_BITS_16(P, sc, 16, 4)                                                                   \
    FR_SCALE_LANES_8(P, sc, 32)                                                                    \
    FR_T16(P, q, 96)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (F(sc, e / 32) - 16) *                                                   \
        FR_TABLE_AT(fr_iq2nl_values)[F(q, e) + 4 * F(x, e / 32)]
#include "quant/type_code.inc"

#endif
