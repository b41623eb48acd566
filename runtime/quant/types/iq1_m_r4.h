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
 *   native: 16 rows, 112 bytes; the rows' headers stand before all blocks; entries are indices
 *   with x above
 *     0         4 bytes a row: two entries, low byte of the third
 *     64        16-bit words of the rows: the third's high bits, the fourth entry
 *     96        scale bytes
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
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, t < 3 ? 4 * k : 64 + 2 * k, t < 3 ? 12 * t : 4, 8, 0)                                     \
    P(g, t < 2 ? 4 * k : 64 + 2 * k, t < 2 ? 12 * t + 8 : t == 2 ? 0 : 12, 3, 8)                   \
    P(x, t < 2 ? 4 * k : 64 + 2 * k, t < 2 ? 12 * t + 11 : t == 2 ? 3 : 15, 1, 0)                  \
    P(sc, 96 + k, 4 * s, 4, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * F(sc, e / 16) *                                                          \
        (fr_grid_i8(FR_TABLE_AT(fr_iq1s_grid)[F(g, e / 8)], e % 8) +                               \
         0.125f * fr_val_sign(F(x, e / 8), 0))
#include "quant/type_code.inc"

#endif
