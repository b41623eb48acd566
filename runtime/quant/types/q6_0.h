/* q6_0: 32 weights in 26 bytes, w = d * (q - 32).
 *
 *   plain
 *     0         d (f16)
 *     2..9      two high bits: byte n has weights n, n + 16, n + 8, n + 24 from bit 0 up
 *     10..25    nibbles, as q4_0
 *   q6_0_r4: 4 rows, 104 bytes
 *     0         d of the rows
 *     8         two high bits, T4
 *     40        nibbles, N4
 *   native: 16 rows, 416 bytes
 *     0         d of the rows
 *     32        two high bits
 *     160       nibbles, N16
 */
#ifndef FR_QUANT_TYPES_Q6_0_H
#define FR_QUANT_TYPES_Q6_0_H

#include "quant/fields.h"
#include "quant/maps.h"

typedef struct {
    uint16_t d;
    uint8_t qh[8], q[16];
} fr_block_q6_0;
FR_BLOCK_SIZE(fr_block_q6_0, 26);

typedef struct {
    uint16_t d[4];
    uint8_t qh[32], q[64];
} fr_block_q6_0_r4;
FR_BLOCK_SIZE(fr_block_q6_0_r4, 104);

#define FR_T           q6_0
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    P(d, 0, 0, 16, 0)                                                                              \
    FR_NIBBLES_32(P, q, 10, 0)                                                                     \
    P(q, 2 + e % 8, 4 * (e / 8 % 2) + 2 * h, 2, 4)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_N4(P, q, 40, 0)                                                                             \
    FR_T4(P, q, 8, 4)
#define FR_T_NATIVE(P, M, X)                                                                       \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    FR_T16_UPPER(P, q, 32)                                                                         \
    FR_N16(P, q, 160)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * (F(q, e) - 32)
#include "quant/type_code.inc"

#endif
