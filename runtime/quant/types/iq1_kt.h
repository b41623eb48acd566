/* iq1_kt: 256 weights in 56 bytes and a scale per row, w = d * V4[sc] * kt(4096 + g): a 13-bit
 * index starts a generator of 8 weights.
 *
 *   plain: row header d (f32)
 *     0         per 32 weights a byte: sc low, four thirteenth bits of g high
 *     8         low bytes of g
 *     40        nibbles of g: t, t + 16
 *   iq1_kt_r4 (ferry's own): 4 rows, row headers d, 224 bytes
 *     0         the scale bytes
 *     32        low bytes of g, 4 a row
 *     160       the nibbles, 4 bytes a row
 *   native: 16 rows, 896 bytes; the rows' headers stand before all blocks
 *     0         low bytes of g, 4 a row
 *     512       per 32 weights 16-bit words: high bits of three g, top bit of sc
 *     768       bytes: high bits of the fourth, low bits of sc
 */
#ifndef FR_QUANT_TYPES_IQ1_KT_H
#define FR_QUANT_TYPES_IQ1_KT_H

#include "quant/fields.h"
#include "quant/tables.h"

#define FR_T           iq1_kt
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint32_t) F(sc, 8, uint8_t) F(g, 32, uint16_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 32, 0)                                                                              \
    P(sc, s, 0, 4, 0)                                                                              \
    P(g, 8 + t, 0, 8, 0)                                                                           \
    P(g, 40 + t % 16, 4 * (t / 16), 4, 8)                                                          \
    P(g, t / 4, 4 + t % 4, 1, 12)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(sc, 4 * s + k, 0, 4, 0)                                                                      \
    P(g, 32 + 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                               \
    P(g, 160 + 16 * (t / 4 % 4) + 4 * k + t % 4, 4 * (t / 16), 4, 8)                               \
    P(g, 4 * (t / 4) + k, 4 + t % 4, 1, 12)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(g, 64 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                                    \
    P(g, t % 4 < 3 ? 512 + 32 * (t / 4) + 2 * k : 768 + 16 * (t / 4) + k,                          \
      t % 4 < 3 ? 5 * (t % 4) : 0, 5, 8)                                                           \
    P(sc, 768 + 16 * s + k, 5, 3, 0)                                                               \
    P(sc, 512 + 32 * s + 2 * k, 15, 1, 3)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f32(F(d, 0)) * FR_TABLE_AT(fr_iq4k_values)[F(sc, e / 32)] *                             \
        fr_val_kt(4096 + F(g, e / 8), e % 8)
#include "quant/type_code.inc"

#endif
