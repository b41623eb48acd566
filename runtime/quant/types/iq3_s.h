/* iq3_s: 256 weights in 110 bytes, w = d * (1 + 2 * sc) * grid * sign; a grid word gives 4
 * weights.
 *
 *   plain
 *     0         d (f16)
 *     2         indices g
 *     66        ninth bits of g
 *     74        sign bytes, one per 8 weights
 *     106       nibbles of sc
 *   iq3_s_r4: 4 rows, 440 bytes
 *     0         d of the rows
 *     8         indices, per group of 4 weights those of the 4 rows
 *     264       ninth bits
 *     296       signs: byte 4k + i has weights i, 4 + i, .. 28 + i from bit 0 up
 *     424       nibbles of sc, split
 *   native: 16 rows, 1760 bytes
 *     0         d of the rows
 *     32        sc
 *     96        ninth bits of the indices: 64 bytes per 128 weights, bits 2b, 2b + 1 of sub-block b
 *               for the even and the odd groups
 *     224       signs
 *     736       low bytes of the indices
 */
#ifndef FR_QUANT_TYPES_IQ3_S_H
#define FR_QUANT_TYPES_IQ3_S_H

#include "quant/fields.h"
#include "quant/maps.h"
#include "quant/tables.h"

#define FR_T           iq3_s
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(g, 64, uint16_t) F(s8, 32, uint8_t) F(sc, 8, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(g, 2 + t, 0, 8, 0)                                                                           \
    P(g, 66 + t / 8, t % 8, 1, 8)                                                                  \
    P(s8, 74 + t, 0, 8, 0)                                                                         \
    FR_SCALE_NIBBLES(P, sc, 106)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(g, 8 + 32 * (t / 8) + 8 * (t % 4) + 4 * (t / 4 % 2) + k, 0, 8, 0)                            \
    P(g, 264 + 4 * (t / 8) + k, t % 8, 1, 8)                                                       \
    P(s8, 296 + 16 * (t / 4) + 4 * k, 2 * (t % 4), 1, 0)                                           \
    P(s8, 296 + 16 * (t / 4) + 4 * k + 1, 2 * (t % 4), 1, 1)                                       \
    P(s8, 296 + 16 * (t / 4) + 4 * k + 2, 2 * (t % 4), 1, 2)                                       \
    P(s8, 296 + 16 * (t / 4) + 4 * k + 3, 2 * (t % 4), 1, 3)                                       \
    P(s8, 296 + 16 * (t / 4) + 4 * k, 2 * (t % 4) + 1, 1, 4)                                       \
    P(s8, 296 + 16 * (t / 4) + 4 * k + 1, 2 * (t % 4) + 1, 1, 5)                                   \
    P(s8, 296 + 16 * (t / 4) + 4 * k + 2, 2 * (t % 4) + 1, 1, 6)                                   \
    P(s8, 296 + 16 * (t / 4) + 4 * k + 3, 2 * (t % 4) + 1, 1, 7)                                   \
    FR_SPLIT_NIBBLES_8(P, sc, 424)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SCALE_LANES_8(P, sc, 32)                                                                    \
    P(g, 96 + 64 * (t / 32) + 4 * k + t % 8 / 2, 2 * (t / 8 % 4) + t % 2, 1, 8)                    \
    P(s8, FR_GROUPS_8(224), 0, 8, 0)                                                               \
    P(g, FR_GROUPS_4(736), 0, 8, 0)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * (1 + 2 * F(sc, e / 32)) *                                                \
        fr_grid_u8(FR_TABLE_AT(fr_iq3s_grid)[F(g, e / 4)], e % 4) *                                \
        fr_val_sign(F(s8, e / 8), e % 8)
#include "quant/type_code.inc"

#endif
