/* q6_K: 256 weights in 210 bytes, w = d * sc * (q - 32), sc signed, per 16 weights.
 *
 *   plain
 *     0         nibbles: 64 bytes per 128 weights
 *     128       two high bits: 32 bytes per 128 weights
 *     192       sc (int8)
 *     208       d (f16)
 *   q6_k_r4: 4 rows, 840 bytes
 *     0         d of the rows
 *     8         sc
 *     72        two high bits, from bit 0: weights 16h + i + 0, 8, 4, 12
 *     328       nibbles, N4
 *   native: 16 rows, 3360 bytes
 *     0         d of the rows
 *     32        sc, 16 bytes a scale
 *     288       two high bits: byte 64h + 4k + i has weights 16h + i + 8, 12, 0, 4 of 32
 *     1312      nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q6_K_H
#define FR_QUANT_TYPES_Q6_K_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint8_t q[128], qh[64];
    int8_t sc[16];
    uint16_t d;
} fr_block_q6_K;
FR_BLOCK_SIZE(fr_block_q6_K, 210);

typedef struct {
    uint16_t d[4];
    int8_t sc[64];
    uint8_t qh[256], q[512];
} fr_block_q6_K_r4;
FR_BLOCK_SIZE(fr_block_q6_K_r4, 840);

#define FR_T           q6_K
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(sc, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(q, 64 * (e / 128) + e % 64, 4 * (e / 64 % 2), 4, 0)                                          \
    FR_PAIRS_128(P, q, 128, 4)                                                                     \
    P(sc, 192 + s, 0, 8, 0)                                                                        \
    P(d, 208, 0, 16, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(sc, 8 + 4 * s + k, 0, 8, 0)                                                                  \
    FR_N4(P, q, 328, 0)                                                                            \
    P(q, 72 + 32 * b + 16 * h + 4 * k + i, 2 * (2 * (j % 2) + j / 2), 2, 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(sc, 32 + 16 * s + k, 0, 8, 0)                                                                \
    FR_T16_UPPER(P, q, 288)                                                                        \
    FR_N16(P, q, 1312)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * fr_val_i8(F(sc, e / 16)) * (F(q, e) - 32)
#include "quant/type_code.inc"

#endif
