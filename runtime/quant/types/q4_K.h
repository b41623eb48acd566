/* q4_K: 256 weights in 144 bytes, w = d * sc * q - m * mn per 32 weights.
 *
 *   plain
 *     0         d (f16)
 *     2         m (f16)
 *     4..15     sc, mn of 6 bits
 *     16        nibbles: 32 bytes per 64 weights
 *   q4_k_r4: 4 rows, 576 bytes
 *     0         d of the rows
 *     8         m
 *     16        high bits of sc, mn
 *     32        their nibbles (sc low, mn high)
 *     64        nibbles, N4
 *   native: 16 rows, 2304 bytes
 *     0         d of the rows
 *     32        m
 *     64        sc, mn
 *     256       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q4_K_H
#define FR_QUANT_TYPES_Q4_K_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d, m;
    uint8_t scales[12];
    uint8_t q[128];
} fr_block_q4_K;
FR_BLOCK_SIZE(fr_block_q4_K, 144);

typedef struct {
    uint16_t d[4], m[4];
    uint8_t scales_h[16], scales_l[32];
    uint8_t q[512];
} fr_block_q4_K_r4;
FR_BLOCK_SIZE(fr_block_q4_K_r4, 576);

#define FR_T         q4_K
#define FR_T_WEIGHTS 256
#define FR_T_FIELDS(F)                                                                             \
    F(d, 1, uint16_t) F(m, 1, uint16_t) F(sc, 8, uint8_t) F(mn, 8, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    P(m, 2, 0, 16, 0)                                                                              \
    FR_SCALES_6X8(P, sc, mn, 4)                                                                    \
    FR_NIBBLES_64(P, q, 16, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 8 + 2 * k, 0, 16, 0)                                                                      \
    FR_SCALES_6X8_R4(P, sc, mn, 16)                                                                \
    FR_N4(P, q, 64, 0)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(m, 32 + 2 * k, 0, 16, 0)                                                                     \
    FR_SCALES_6X8_16(P, sc, mn, 64)                                                                \
    FR_N16(P, q, 256)
#define FR_T_VALUE(F)                                                                              \
    fr_val_f16(F(d, 0)) * F(sc, e / 32) * F(q, e) - fr_val_f16(F(m, 0)) * F(mn, e / 32)
#include "quant/type_code.inc"

#endif
