/* iq2_xs: 256 weights in 74 bytes, w = d * (0.5 + sc) / 4 * grid * sign; a grid word gives 8
 * weights, a scale covers 16.
 *
 *   plain
 *     0         d (f16)
 *     2         per 8 weights a 16-bit word: 9 bits index, 7 sign bits (the eighth makes their
 *               number even)
 *     66        nibbles of sc
 *   iq2_xs_r4: 4 rows, 296 bytes
 *     0         d of the rows
 *     8         the words, 4 a row, signs as their running xor
 *     264       scale bytes
 *   native: 16 rows, 1184 bytes
 *     0         d of the rows
 *     32        sc
 *     160       the words as in iq2_xs_r4, 128 bytes per 32 weights: first two, then two, of each
 * row
 */
#ifndef FR_QUANT_TYPES_IQ2_XS_H
#define FR_QUANT_TYPES_IQ2_XS_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_xs
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 32, uint16_t) F(s7, 32, uint8_t) F(sc, 16, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(g, 2 + 2 * t, 0, 9, 0)                                                                       \
    P(s7, 2 + 2 * t, 9, 7, 0)                                                                      \
    FR_SCALE_NIBBLES(P, sc, 66)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, 8 + 2 * (16 * (t / 4) + 4 * k + t % 4), 0, 9, 0)                                          \
    X(s7, 8 + 2 * (16 * (t / 4) + 4 * k + t % 4), 9, 7, 0, fr_code_running_xor)                    \
    P(sc, 264 + 4 * (s / 2) + k, 4 * (s % 2), 4, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SCALE_LANES_16(P, sc, 32)                                                                   \
    P(g, 160 + 64 * (t / 2) + 4 * k + 2 * (t % 2), 0, 9, 0)                                        \
    X(s7, 160 + 64 * (t / 2) + 4 * k + 2 * (t % 2), 9, 7, 0, fr_code_running_xor)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (0.5f + F(sc, e / 16)) * 0.25f *                                         \
        fr_grid_u8(FR_TABLE_AT(fr_iq2xs_grid)[F(g, e / 8)], e % 8) *                               \
        fr_val_sign(fr_val_par7(F(s7, e / 8)), e % 8)
#include "quant/type_code.inc"

#endif
