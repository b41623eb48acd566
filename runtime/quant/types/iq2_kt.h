/* iq2_kt: 256 weights in 68 bytes and a scale per row, w = d * V4[sc] * kt(4096 + g): a 16-bit
 * index starts a generator of 8 weights.
 *
 *   plain: row header d (f32)
 *     0         nibbles of sc: s, s + 4
 *     4         g
 *   iq2_kt_r4 (ferry's own): 4 rows, row headers d, 272 bytes
 *     0         nibbles of sc, number 4s + k in byte n % 16
 *     16        g, four a row
 *   native: 16 rows, 1088 bytes; the rows' headers stand before all blocks
 *     0         sc
 *     64        g, two a row
 */
#ifndef FR_QUANT_TYPES_IQ2_KT_H
#define FR_QUANT_TYPES_IQ2_KT_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_kt
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint32_t) F(sc, 8, uint8_t) F(g, 32, uint16_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 32, 0)                                                                              \
    FR_SCALE_NIBBLES_4(P, sc, 0)                                                                   \
    P(g, 4 + 2 * t, 0, 16, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    FR_SPLIT_NIBBLES_8(P, sc, 0)                                                                   \
    P(g, 16 + 2 * (16 * (t / 4) + 4 * k + t % 4), 0, 16, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    FR_SCALE_LANES_8(P, sc, 0)                                                                     \
    P(g, 64 + 64 * (t / 2) + 4 * k + 2 * (t % 2), 0, 16, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f32(F(d, 0)) * FR_TABLE_AT(fr_iq4k_values)[F(sc, e / 32)] *                             \
        fr_val_kt(4096 + F(g, e / 8), e % 8)
#include "quant/type_code.inc"

#endif
