/* q5_K: 256 weights in 176 bytes, w = d * sc * q - m * mn per 32 weights.
 *
 *   plain
 *     0         d (f16)
 *     2         m (f16)
 *     4..15     sc, mn of 6 bits, as q4_K
 *     16..47    fifth bits: bit n of a byte is for sub-block n
 *     48        nibbles: 32 bytes per 64 weights
 *   q5_k_r4: 4 rows, 704 bytes
 *     0         d of the rows
 *     8         m
 *     16        high bits of sc, mn
 *     32        their nibbles
 *     64        fifth bits, from bit 0: weights i + 0, 8, 4, 12, 16, 24, 20, 28
 *     192       nibbles, N4
 *   native: 16 rows, 2816 bytes
 *     0         d of the rows
 *     32        m
 *     64        sc, mn
 *     256       fifth bits
 *     768       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q5_K_H
#define FR_QUANT_TYPES_Q5_K_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d, m;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t q[128];
} fr_block_q5_K;
FR_BLOCK_SIZE(fr_block_q5_K, 176);

typedef struct {
    uint16_t d[4], m[4];
    uint8_t scales_h[16], scales_l[32];
    uint8_t qh[128];
    uint8_t q[512];
} fr_block_q5_K_r4;
FR_BLOCK_SIZE(fr_block_q5_K_r4, 704);

#define FR_T         q5_K
#define FR_T_WEIGHTS 256
#define FR_T_FIELDS(F)                                                                             \
    F(d, 1, uint16_t) F(m, 1, uint16_t) F(sc, 8, uint8_t) F(mn, 8, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(m, 2, 0, 16, 0)                                                                              \
    FR_SCALES_6X8(P, sc, mn, 4)                                                                    \
    FR_NIBBLES_64(P, q, 48, 0)                                                                     \
    FR_BITS_256(P, q, 16, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 8 + 2 * k, 0, 16, 0)                                                                      \
    FR_SCALES_6X8_R4(P, sc, mn, 16)                                                                \
    FR_N4(P, q, 192, 0)                                                                            \
    FR_B4(P, q, 64, 4 * h + 2 * (j % 2) + j / 2, 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 32 + 2 * k, 0, 16, 0)                                                                     \
    FR_SCALES_6X8_16(P, sc, mn, 64)                                                                \
    FR_B16_FIFTH(P, q, 256)                                                                        \
    FR_N16(P, q, 768)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * F(sc, e / 32) * F(q, e) - fr_val_f16(F(m, 0)) * F(mn, e / 32)
#include "quant/type_code.inc"

#endif
