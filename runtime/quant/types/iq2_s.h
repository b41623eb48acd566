/* iq2_s: 256 weights in 82 bytes, w = d * (0.5 + sc) / 4 * grid * sign; a grid word gives 8
 * weights, a scale covers 16.
 *
 *   plain
 *     0         d (f16)
 *     2         indices g
 *     34        sign bytes
 *     66        two high bits of g
 *     74        nibbles of sc
 *   iq2_s_r4: 4 rows, 328 bytes
 *     0         d of the rows
 *     8         indices, 4 a row
 *     136       their high bits
 *     168       sign bytes, 4 a row
 *     296       scale bytes
 *   native: 16 rows, 1312 bytes
 *     0         d of the rows
 *     32        sc
 *     160       per 32 weights 4 bytes a row: three indices of 10 bits and the two high bits of the
 *               fourth
 *     672       signs
 *     1184      low bytes of every fourth index: 64 bytes per 128 weights
 */
#ifndef FR_QUANT_TYPES_IQ2_S_H
#define FR_QUANT_TYPES_IQ2_S_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq2_s
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 32, uint16_t) F(s8, 32, uint8_t) F(sc, 16, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(g, 2 + t, 0, 8, 0)                                                                           \
    P(g, 66 + t / 4, 2 * (t % 4), 2, 8)                                                            \
    P(s8, 34 + t, 0, 8, 0)                                                                         \
    FR_SCALE_NIBBLES(P, sc, 74)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, 8 + 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                                \
    P(g, 136 + 4 * (t / 4) + k, 2 * (t % 4), 2, 8)                                                 \
    P(s8, 168 + 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                             \
    P(sc, 296 + 4 * (s / 2) + k, 4 * (s % 2), 4, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SCALE_LANES_16(P, sc, 32)                                                                   \
    P(g, t % 4 < 3 ? 160 + 64 * (t / 4) + 4 * k : 1184 + 64 * (t / 16) + 4 * k + t / 4 % 4,        \
      t % 4 < 3 ? 10 * (t % 4) : 0, 8, 0)                                                          \
    P(g, 160 + 64 * (t / 4) + 4 * k, 10 * (t % 4) + 8 - 8 * (t % 4 / 3), 2, 8)                     \
    P(s8, FR_GROUPS_8(672), 0, 8, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (0.5f + F(sc, e / 16)) * 0.25f *                                         \
        fr_grid_u8(FR_TABLE_AT(fr_iq2s_grid)[F(g, e / 8)], e % 8) *                                \
        fr_val_sign(F(s8, e / 8), e % 8)
#include "quant/type_code.inc"

#endif
