/* q3_K: 256 weights in 110 bytes, w = d * (sc - 32) * (q - 4) per 16 weights.
 *
 *   plain
 *     0..31     third bits: bit n of a byte is for sub-block n of 32
 *     32..95    2-bit codes: 32 bytes per 128 weights
 *     96..103   nibbles of sc: s, s + 8
 *     104..107  two high bits of sc: s, s + 4, s + 8, s + 12
 *     108       d (f16)
 *   q3_k_r4: 4 rows, 440 bytes
 *     0         d of the rows
 *     8         high bits of sc, split
 *     24        nibbles of sc, split
 *     56        third bits, bit 4h + j
 *     184       codes, T4
 *   native: 16 rows, 1760 bytes
 *     0         d of the rows
 *     32        sc
 *     224       third bits
 *     736       low two bits, T16
 */
#ifndef FR_QUANT_TYPES_Q3_K_H
#define FR_QUANT_TYPES_Q3_K_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint8_t qh[32], q[64], scales[12];
    uint16_t d;
} fr_block_q3_K;
FR_BLOCK_SIZE(fr_block_q3_K, 110);

typedef struct {
    uint16_t d[4];
    uint8_t scales_h[16], scales_l[32];
    uint8_t qh[128], q[256];
} fr_block_q3_K_r4;
FR_BLOCK_SIZE(fr_block_q3_K_r4, 440);

#define FR_T           q3_K
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(sc, 16, uint8_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    FR_PAIRS_128(P, q, 32, 0)                                                                      \
    FR_BITS_256(P, q, 0, 2)                                                                        \
    P(sc, 96 + s % 8, 4 * (s / 8), 4, 0)                                                           \
    P(sc, 104 + s % 4, 2 * (s / 4), 2, 4)                                                          \
    P(d, 108, 0, 16, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SPLIT_NIBBLES(P, sc, 24, 4)                                                                 \
    FR_SPLIT_HIGH_2(P, sc, 8, 4)                                                                   \
    FR_T4(P, q, 184, 0)                                                                            \
    FR_B4(P, q, 56, 4 * h + j, 2)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_SCALES_6X16(P, sc, 32)                                                                      \
    FR_B16_THIRD(P, q, 224)                                                                        \
    FR_T16(P, q, 736)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * (F(sc, e / 16) - 32) * (F(q, e) - 4)
#include "quant/type_code.inc"

#endif
