/* iq4_kt: 256 weights in 128 bytes and a scale per row, w = d * (sc - 64) * kt(4096 + 32768 * x
 * + g): a 15-bit index starts a generator of 4 weights.
 *
 *   plain: row header d (f32)
 *     0         per 32 weights a 32-bit word: x, 7 bits sc, 8 x 3 top bits of g
 *     32        low bytes of g
 *     96        nibbles of g: t, t + 32
 *   iq4_kt_r4 (ferry's own): 4 rows, row headers d, 512 bytes
 *     0         the words
 *     128       low bytes of g, 4 a row
 *     384       the nibbles, 4 bytes a row
 *   native: 16 rows, 2048 bytes; the rows' headers stand before all blocks
 *     0         per 8 weights 4 bytes a row: two g, two bits of 32 weights' x and sc above it
 */
#ifndef FR_QUANT_TYPES_IQ4_KT_H
#define FR_QUANT_TYPES_IQ4_KT_H

#include "quant/fields.h"

#define FR_T           iq4_kt
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint32_t) F(x, 8, uint8_t) F(sc, 8, uint8_t) F(g, 64, uint16_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 32, 0)                                                                              \
    P(x, 4 * s, 0, 1, 0)                                                                           \
    P(sc, 4 * s, 1, 7, 0)                                                                          \
    P(g, 32 + t, 0, 8, 0)                                                                          \
    P(g, 96 + t % 32, 4 * (t / 32), 4, 8)                                                          \
    P(g, 4 * (t / 8), 8 + 3 * (t % 8), 3, 12)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(x, 16 * s + 4 * k, 0, 1, 0)                                                                  \
    P(sc, 16 * s + 4 * k, 1, 7, 0)                                                                 \
    P(g, 128 + 16 * (t / 4) + 4 * k + t % 4, 0, 8, 0)                                              \
    P(g, 384 + 16 * (t / 4 % 8) + 4 * k + t % 4, 4 * (t / 32), 4, 8)                               \
    P(g, 16 * (t / 8) + 4 * k, 8 + 3 * (t % 8), 3, 12)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(g, 64 * (t / 2) + 4 * k, 15 * (t % 2), 15, 0)                                                \
    P(x, 256 * s + 4 * k, 30, 1, 0)                                                                \
    P(sc, 256 * s + 4 * k, 31, 1, 0)                                                               \
    P(sc, 256 * s + 64 + 4 * k, 30, 2, 1)                                                          \
    P(sc, 256 * s + 128 + 4 * k, 30, 2, 3)                                                         \
    P(sc, 256 * s + 192 + 4 * k, 30, 2, 5)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f32(F(d, 0)) * (F(sc, e / 32) - 64) *                                                   \
        fr_val_kt(4096 + 32768 * F(x, e / 32) + F(g, e / 4), e % 4)
#include "quant/type_code.inc"

#endif
