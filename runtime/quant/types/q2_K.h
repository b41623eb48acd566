/* q2_K: 256 weights in 84 bytes, w = d * sc * q - m * mn per 16 weights.
 *
 *   plain
 *     0..15     sc low, mn high nibble
 *     16        2-bit codes: 32 bytes per 128 weights
 *     80        d (f16)
 *     82        m (f16)
 *   q2_k_r4: 4 rows, 336 bytes
 *     0         d of the rows
 *     8         m
 *     16        scale bytes
 *     80        codes, T4
 *   native: 16 rows, 1344 bytes
 *     0         d of the rows
 *     32        m
 *     64        sc
 *     192       mn: bytes of scales 2n and 2n + 1 in turn, n and n + 4 in a byte
 *     320       codes, T16
 */
#ifndef FR_QUANT_TYPES_Q2_K_H
#define FR_QUANT_TYPES_Q2_K_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint8_t scales[16], q[64];
    uint16_t d, m;
} fr_block_q2_K;
FR_BLOCK_SIZE(fr_block_q2_K, 84);

typedef struct {
    uint16_t d[4], m[4];
    uint8_t scales[64], q[256];
} fr_block_q2_K_r4;
FR_BLOCK_SIZE(fr_block_q2_K_r4, 336);

#define FR_T         q2_K
#define FR_T_WEIGHTS 256
#define FR_T_FIELDS(F)                                                                             \
    F(d, 1, uint16_t) F(m, 1, uint16_t) F(sc, 16, uint8_t) F(mn, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(sc, s, 0, 4, 0)                                                                              \
    P(mn, s, 4, 4, 0)                                                                              \
    FR_PAIRS_128(P, q, 16, 0)                                                                      \
    P(d, 80, 0, 16, 0)                                                                             \
    P(m, 82, 0, 16, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 8 + 2 * k, 0, 16, 0)                                                                      \
    P(sc, 16 + 4 * s + k, 0, 4, 0)                                                                 \
    P(mn, 16 + 4 * s + k, 4, 4, 0)                                                                 \
    FR_T4(P, q, 80, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 32 + 2 * k, 0, 16, 0)                                                                     \
    FR_SCALE_LANES_16(P, sc, 64)                                                                   \
    P(mn, 192 + 32 * (s / 2 % 4) + 2 * k + s % 2, 4 * (s / 8), 4, 0)                               \
    FR_T16(P, q, 320)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * F(sc, e / 16) * F(q, e) - fr_val_f16(F(m, 0)) * F(mn, e / 16)
#include "quant/type_code.inc"

#endif
