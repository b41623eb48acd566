/* iq1_s_r4: 32 weights in 6 bytes and a scale per row, w = d * (2 * sc + 1) * (grid +- 1/8), as
 * iq1_s. Files have it in this one form, of 4 rows: a type of its own, for iq1_s has a scale per
 * 256 weights.
 *
 *   row headers
 *     0         d (f16) of the rows
 *   24 bytes
 *     0         indices: g[t] of the 4 rows, t = 0..3
 *     16        16-bit words of the rows: 4 x 3 high bits of g, 3 bits sc, x
 *   native: 16 rows, 96 bytes; the rows' headers stand before all blocks
 *     0         4 bytes a row: two indices, low ten bits of the third
 *     64        16-bit words of the rows: the third's high bit, the fourth, sc, x
 */
#ifndef FR_QUANT_TYPES_IQ1_S_R4_H
#define FR_QUANT_TYPES_IQ1_S_R4_H

#include "quant/fields.h"
#include "quant/tables.h"

#define FR_T           iq1_s_r4
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 4, uint16_t) F(sc, 1, uint8_t) F(x, 1, uint8_t)
#define FR_T_PLAIN(P, M, X)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, 4 * t + k, 0, 8, 0)                                                                       \
    P(g, 16 + 2 * k, 3 * t, 3, 8)                                                                  \
    P(sc, 16 + 2 * k, 12, 3, 0)                                                                    \
    P(x, 16 + 2 * k, 15, 1, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, t < 3 ? 4 * k : 64 + 2 * k, t < 3 ? 11 * t : 1, 10, 0)                                    \
    P(g, t < 2 ? 4 * k : 64 + 2 * k, t < 2 ? 11 * t + 10 : t == 2 ? 0 : 11, 1, 10)                 \
    P(sc, 64 + 2 * k, 12, 3, 0)                                                                    \
    P(x, 64 + 2 * k, 15, 1, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (2 * F(sc, 0) + 1) *                                                     \
        (fr_grid_i8(FR_TABLE_AT(fr_iq1s_grid)[F(g, e / 8)], e % 8) +                               \
         0.125f * fr_val_sign(F(x, 0), 0))
#include "quant/type_code.inc"

#endif
