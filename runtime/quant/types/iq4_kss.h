/* iq4_kss: 256 weights in 128 bytes and a scale per row, w as iq4_ks. Eight 16-bit words v per
 * 32 weights: their lowest bits are sc (the first word's is bit 0); without it, v xor v >> 1
 * gives four nibbles, byte 2n and 2n + 1 of the 16 that iq4_ks has. (So the bits of a word's
 * nibbles have even parity.)
 *
 *   plain: row header d (f32)
 *     0         v
 *   iq4_kss_r4 (ferry's own): 4 rows, row headers d, 512 bytes
 *     0         v: 64 bytes per 32 weights, two words a row
 *   native: 16 rows, 2048 bytes; the rows' headers stand before all blocks
 *     0         v: where nibbles stand in N16
 *
 * sc is listed as a field of its own although v holds its bits: to pack, set both.
 */
#ifndef FR_QUANT_TYPES_IQ4_KSS_H
#define FR_QUANT_TYPES_IQ4_KSS_H

#include "quant/fields.h"
#include "quant/tables.h"

#define FR_T           iq4_kss
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint32_t) F(v, 64, uint16_t) F(sc, 8, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 32, 0)                                                                              \
    P(v, 2 * t, 0, 16, 0)                                                                          \
    P(sc, 16 * s, 0, 1, 0)                                                                         \
    P(sc, 16 * s + 2, 0, 1, 1)                                                                     \
    P(sc, 16 * s + 4, 0, 1, 2)                                                                     \
    P(sc, 16 * s + 6, 0, 1, 3)                                                                     \
    P(sc, 16 * s + 8, 0, 1, 4)                                                                     \
    P(sc, 16 * s + 10, 0, 1, 5)                                                                    \
    P(sc, 16 * s + 12, 0, 1, 6)                                                                    \
    P(sc, 16 * s + 14, 0, 1, 7)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(v, 64 * (t / 8) + 16 * (t / 2 % 4) + 4 * k + 2 * (t % 2), 0, 16, 0)                          \
    P(sc, 64 * s + 4 * k, 0, 1, 0)                                                                 \
    P(sc, 64 * s + 2 + 4 * k, 0, 1, 1)                                                             \
    P(sc, 64 * s + 16 + 4 * k, 0, 1, 2)                                                            \
    P(sc, 64 * s + 18 + 4 * k, 0, 1, 3)                                                            \
    P(sc, 64 * s + 32 + 4 * k, 0, 1, 4)                                                            \
    P(sc, 64 * s + 34 + 4 * k, 0, 1, 5)                                                            \
    P(sc, 64 * s + 48 + 4 * k, 0, 1, 6)                                                            \
    P(sc, 64 * s + 50 + 4 * k, 0, 1, 7)
#define FR_T_NATIVE(P, M, X)                                                                       \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(v, 256 * (t / 8) + 64 * (t / 2 % 4) + 4 * k + 2 * (t % 2), 0, 16, 0)                         \
    P(sc, 256 * s + 4 * k, 0, 1, 0)                                                                \
    P(sc, 256 * s + 2 + 4 * k, 0, 1, 1)                                                            \
    P(sc, 256 * s + 64 + 4 * k, 0, 1, 2)                                                           \
    P(sc, 256 * s + 66 + 4 * k, 0, 1, 3)                                                           \
    P(sc, 256 * s + 128 + 4 * k, 0, 1, 4)                                                          \
    P(sc, 256 * s + 130 + 4 * k, 0, 1, 5)                                                          \
    P(sc, 256 * s + 192 + 4 * k, 0, 1, 6)                                                          \
    P(sc, 256 * s + 194 + 4 * k, 0, 1, 7)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f32(F(d, 0)) * ((F(sc, e / 32) & 254) - 127) *                                          \
        FR_TABLE_AT(                                                                               \
            fr_iq4k_values)[fr_val_gray4(F(v, e / 32 * 8 + e % 16 / 2), e % 2 * 2 + e / 16 % 2) +  \
                            16 * (F(sc, e / 32) & 1)]
#include "quant/type_code.inc"

#endif
