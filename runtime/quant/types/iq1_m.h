/* iq1_m: 256 weights in 56 bytes, w = d * (2 * sc + 1) * (grid +- 1/8); grid and x as iq1_s, but
 * x per 8 weights and sc per 16.
 *
 *   plain
 *     0         indices g
 *     32        per 8 weights a nibble: 3 high bits of g, x
 *     48        four 16-bit words: 4 x 3 bits sc; their top nibbles are d (f16), lowest first
 *   ferry's own (not iq1_m_r4, which codes other numbers): 4 rows, 224 bytes
 *     0         indices, 4 a row
 *     128       the nibbles, 2 bytes a row
 *     192       first words of the rows, second, ..
 *   native: 16 rows, 896 bytes; entries are indices with x above
 *     0         d of the rows
 *     32        bits 0..31 of the scales of a row
 *     96        bits 32..47
 *     128       per 32 weights 4 bytes a row: two entries, low byte of the third
 *     640       per 64 weights 4 bytes a row, from bit 0: the fourth entry, high bits of the third;
 *               then, for the second 32, those bits, the fourth entry
 */
#ifndef FR_QUANT_TYPES_IQ1_M_H
#define FR_QUANT_TYPES_IQ1_M_H

#include "quant/fields.h"
#include "quant/tables.h"

#define FR_T           iq1_m
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 32, uint16_t) F(x, 32, uint8_t) F(sc, 16, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(g, t, 0, 8, 0)                                                                               \
    P(g, 32 + t / 2, 4 * (t % 2), 3, 8)                                                            \
    P(x, 32 + t / 2, 4 * (t % 2) + 3, 1, 0)                                                        \
    P(sc, 48 + 2 * (s / 4), 3 * (s % 4), 3, 0)                                                     \
    P(d, 49, 4, 4, 0)                                                                              \
    P(d, 51, 4, 4, 4)                                                                              \
    P(d, 53, 4, 4, 8)                                                                              \
    P(d, 55, 4, 4, 12)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(g, 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                                    \
    P(g, 128 + 8 * (t / 4) + 2 * k + t / 2 % 2, 4 * (t % 2), 3, 8)                                 \
    P(x, 128 + 8 * (t / 4) + 2 * k + t / 2 % 2, 4 * (t % 2) + 3, 1, 0)                             \
    P(sc, 192 + 8 * (s / 4) + 2 * k, 3 * (s % 4), 3, 0)                                            \
    P(d, 193 + 2 * k, 4, 4, 0)                                                                     \
    P(d, 201 + 2 * k, 4, 4, 4)                                                                     \
    P(d, 209 + 2 * k, 4, 4, 8)                                                                     \
    P(d, 217 + 2 * k, 4, 4, 12)
#define FR_IQ1_M_SC(P, i) P(sc, 3 * s + i < 32 ? 32 + 4 * k : 96 + 2 * k, (3 * s + i) % 32, 1, i)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_IQ1_M_SC(P, 0)                                                                              \
    FR_IQ1_M_SC(P, 1)                                                                              \
    FR_IQ1_M_SC(P, 2)                                                                              \
    P(g, t % 4 < 3 ? 128 + 64 * (t / 4) + 4 * k : 640 + 64 * (t / 8) + 4 * k,                      \
      t % 4 < 3 ? 12 * (t % 4) : 20 * (t / 4 % 2), 8, 0)                                           \
    P(g, t % 4 < 2 ? 128 + 64 * (t / 4) + 4 * k : 640 + 64 * (t / 8) + 4 * k,                      \
      t % 4 < 2    ? 12 * (t % 4) + 8                                                              \
      : t % 4 == 2 ? 12 + 4 * (t / 4 % 2)                                                          \
                   : 8 + 20 * (t / 4 % 2),                                                         \
      3, 8)                                                                                        \
    P(x, t % 4 < 2 ? 128 + 64 * (t / 4) + 4 * k : 640 + 64 * (t / 8) + 4 * k,                      \
      t % 4 < 2    ? 12 * (t % 4) + 11                                                             \
      : t % 4 == 2 ? 15 + 4 * (t / 4 % 2)                                                          \
                   : 11 + 20 * (t / 4 % 2),                                                        \
      1, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (2 * F(sc, e / 16) + 1) *                                                \
        (fr_grid_i8(FR_TABLE_AT(fr_iq1s_grid)[F(g, e / 8)], e % 8) +                               \
         0.125f * fr_val_sign(F(x, e / 8), 0))
#include "quant/type_code.inc"

#endif
