/* iq1_s: 256 weights in 50 bytes, w = d * (2 * sc + 1) * (grid +- 1/8); a grid word gives 8
 * weights of -1, 0, 1. x = 1 stands for -1/8.
 *
 *   plain
 *     0         d (f16)
 *     2         indices g
 *     34        per 32 weights a 16-bit word: 4 x 3 high bits of g, 3 bits sc, x
 *   ferry's own (not iq1_s_r4, which codes other numbers): 4 rows, 200 bytes
 *     0         d of the rows
 *     8         indices, 4 a row
 *     136       per 32 weights the words of the rows
 *   native: 16 rows, 800 bytes
 *     0         d of the rows
 *     32        per 32 weights 4 bytes a row: two indices of 11 bits, ten bits of the third
 *     544       per 64 weights 4 bytes a row, from bit 0: the fourth index, sc, the eleventh bit of
 *               the third, x; then, for the second 32, sc, the eleventh bit, x, the fourth index
 */
#ifndef FR_QUANT_TYPES_IQ1_S_H
#define FR_QUANT_TYPES_IQ1_S_H

#include "quant/fields.h"
#include "quant/tables.h"

#define FR_T           iq1_s
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 32, uint16_t) F(sc, 8, uint8_t) F(x, 8, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(g, 2 + t, 0, 8, 0)                                                                           \
    P(g, 34 + 2 * (t / 4), 3 * (t % 4), 3, 8)                                                      \
    P(sc, 34 + 2 * s, 12, 3, 0)                                                                    \
    P(x, 34 + 2 * s, 15, 1, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, 8 + 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                                \
    P(g, 136 + 8 * (t / 4) + 2 * k, 3 * (t % 4), 3, 8)                                             \
    P(sc, 136 + 8 * s + 2 * k, 12, 3, 0)                                                           \
    P(x, 136 + 8 * s + 2 * k, 15, 1, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, t % 4 < 3 ? 32 + 64 * (t / 4) + 4 * k : 544 + 64 * (t / 8) + 4 * k,                       \
      t % 4 < 3 ? 11 * (t % 4) : 21 * (t / 4 % 2), 10, 0)                                          \
    P(g, t % 4 < 2 ? 32 + 64 * (t / 4) + 4 * k : 544 + 64 * (t / 8) + 4 * k,                       \
      t % 4 < 2    ? 11 * (t % 4) + 10                                                             \
      : t % 4 == 2 ? 14 + 5 * (t / 4 % 2)                                                          \
                   : 10 + 21 * (t / 4 % 2),                                                        \
      1, 10)                                                                                       \
    P(sc, 544 + 64 * (s / 2) + 4 * k, 11 + 5 * (s % 2), 3, 0)                                      \
    P(x, 544 + 64 * (s / 2) + 4 * k, 15 + 5 * (s % 2), 1, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (2 * F(sc, e / 32) + 1) *                                                \
        (fr_grid_i8(FR_TABLE_AT(fr_iq1s_grid)[F(g, e / 8)], e % 8) +                               \
         0.125f * fr_val_sign(F(x, e / 32), 0))
#include "quant/type_code.inc"

#endif
