/* iq6_k: 256 weights in 212 bytes, w = d * sc * (p(q) + x) per 16 weights, sc signed, p a
 * polynomial of the third degree in binary32 with fused multiply-adds.
 *
 *   plain
 *     0         d (f16)
 *     2         x bits
 *     4         sc (int8)
 *     20        nibbles: 32 bytes per 64 weights
 *     148       two high bits: 32 bytes per 128 weights
 *   iq6_k_r4 (ferry's own): 4 rows, 848 bytes
 *     0         d of the rows
 *     8         x, as iq5_k_r4
 *     16        sc
 *     80        two high bits, T4
 *     336       nibbles, N4
 *   native: 16 rows, 3392 bytes
 *     0         d of the rows
 *     32        x
 *     64        sc, 16 bytes a scale
 *     320       two high bits, T16_UPPER
 *     1344      nibbles, N16
 */
#ifndef FR_QUANT_TYPES_IQ6_K_H
#define FR_QUANT_TYPES_IQ6_K_H

#include "quant/fields.h"
#include "quant/maps.h"

#define FR_T           iq6_k
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(x, 16, uint8_t) F(sc, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(x, 2, s, 1, 0)                                                                               \
    P(sc, 4 + s, 0, 8, 0)                                                                          \
    FR_NIBBLES_64(P, q, 20, 0)                                                                     \
    FR_PAIRS_128(P, q, 148, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(x, 8 + 4 * (s % 2) + k, s / 2, 1, 0)                                                         \
    P(sc, 16 + 4 * s + k, 0, 8, 0)                                                                 \
    FR_T4(P, q, 80, 4)                                                                             \
    FR_N4(P, q, 336, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_ROW_BITS_16(P, x, 32, 0)                                                                    \
    P(sc, 64 + 16 * s + k, 0, 8, 0)                                                                \
    FR_T16_UPPER(P, q, 320)                                                                        \
    FR_N16(P, q, 1344)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * fr_val_i8(F(sc, e / 16)) * (fr_val_poly6(F(q, e)) + F(x, e / 16))
#include "quant/type_code.inc"

#endif
