/* iq1_m_r4: 32 weights in 7 bytes and a scale per row, w = d * sc * (grid +- 1/8): grid and x as
 * iq1_m, sc of 4 bits per 16 weights (a block can be zero). Files have it in this one form, of 4
 * rows: a type of its own.
 *
 *   row headers
 *     0         d (f16) of the rows
 *   28 bytes
 *     0         indices: g[t] of the 4 rows, t = 0..3
 *     16        nibbles of 3 high bits of g, x
 *     24        scale bytes
 */
#ifndef FR_QUANT_TYPES_IQ1_M_R4_H
#define FR_QUANT_TYPES_IQ1_M_R4_H

#include "quant/fields.h"
#include "quant/tables.h"

#define FR_T           iq1_m_r4
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 4, uint16_t) F(x, 4, uint8_t) F(sc, 2, uint8_t)
#define FR_T_PLAIN(P, M, X)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, 4 * t + k, 0, 8, 0)                                                                       \
    P(g, 16 + 4 * (t / 2) + k, 4 * (t % 2), 3, 8)                                                  \
    P(x, 16 + 4 * (t / 2) + k, 4 * (t % 2) + 3, 1, 0)                                              \
    P(sc, 24 + k, 4 * s, 4, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * F(sc, e / 16) *                                                          \
        (fr_grid_i8(FR_TABLE_AT(fr_iq1s_grid)[F(g, e / 8)], e % 8) +                               \
         0.125f * fr_val_sign(F(x, e / 8), 0))
#include "quant/type_code.inc"

#endif
