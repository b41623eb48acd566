/* iq2_kl: 256 weights in 86 bytes and a scale per row, w = d * (sc - 32) * grid per 32 weights;
 * a 5-bit index gives a pair of weights.
 *
 *   plain: row header d (f16)
 *     0         two high bits of sc
 *     2         nibbles of sc: s, s + 4
 *     6         nibbles of g: 16 bytes per 32 pairs
 *     70        fifth bits of g: bit n of a byte is for the 16 pairs n
 *   iq2_kl_r4 (ferry's own): 4 rows, row headers d, 344 bytes
 *     0         high bits of sc, two bytes a row
 *     8         nibbles of sc, number 4s + k in byte n % 16
 *     24        per 32 weights 32 bytes: 16l + 4k + i has pair 4l + i low, 8 + 4l + i high
 *     280       fifth bits: per 64 weights 16 bytes, byte 4k + i has pairs i, 4 + i, .. 28 + i
 *               from bit 0 up
 *   native: 16 rows, 1376 bytes; the rows' headers stand before all blocks
 *     0         high bits of sc, byte n % 32 of number n = 16s + k
 *     32        nibbles of sc
 *     96        fifth bits: per 64 weights 64 bytes, byte 4k + i has pairs i, 4 + i, .. 28 + i
 *               from bit 0 up
 *     352       per 32 weights 128 bytes: byte 64l + 4k + i has pair 4l + i low, 8 + 4l + i high
 */
#ifndef FR_QUANT_TYPES_IQ2_KL_H
#define FR_QUANT_TYPES_IQ2_KL_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_kl
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(sc, 8, uint8_t) F(g, 128, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 16, 0)                                                                              \
    FR_SCALE_NIBBLES_4(P, sc, 2)                                                                   \
    P(sc, 0, 2 * s, 2, 4)                                                                          \
    P(g, 6 + 16 * (t / 32) + t % 16, 4 * (t / 16 % 2), 4, 0)                                       \
    P(g, 70 + t % 16, t / 16, 1, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SPLIT_NIBBLES_8(P, sc, 8)                                                                   \
    P(sc, 2 * k, 2 * s, 2, 4)                                                                      \
    P(g, 24 + 32 * (t / 16) + 16 * (t / 4 % 2) + 4 * k + t % 4, 4 * (t / 8 % 2), 4, 0)             \
    P(g, 280 + 16 * (t / 32) + 4 * k + t % 4, t / 4 % 8, 1, 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    P(sc, (16 * s + k) % 32, 2 * (s / 2), 2, 4)                                                    \
    P(sc, 32 + (16 * s + k) % 64, 4 * (s / 4), 4, 0)                                               \
    P(g, 96 + 64 * (t / 32) + 4 * k + t % 4, t / 4 % 8, 1, 4)                                      \
    P(g, 352 + 128 * (t / 16) + 64 * (t / 4 % 2) + 4 * k + t % 4, 4 * (t / 8 % 2), 4, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (F(sc, e / 32) - 32) *                                                   \
        fr_grid_i8(FR_TABLE_AT(fr_iq2kl_values)[F(g, e / 2)], e % 2)
#include "quant/type_code.inc"

#endif
