/* q8_KV: 32 weights in 32 bytes and a scale per row, w = d * q.
 *
 *   plain: row header d (f32), sum of the row's q (int32)
 *     0         q, signed
 *   q8_KV_r8: 8 rows, row headers d (no sums: a row is 4 bytes shorter), 256 bytes
 *     0         q: 32 bytes per 4 weights, row k's at 4k
 */
#ifndef FR_QUANT_TYPES_Q8_KV_H
#define FR_QUANT_TYPES_Q8_KV_H

#include "quant/fields.h"

#define FR_T           q8_KV
#define FR_T_WEIGHTS   32
#define FR_T_FIELDS(F) F(d, 1, uint32_t) F(sum, 1, uint32_t) F(q, 32, uint8_t)
#define FR_T_PLAIN(P, M, X)                                                                        \
    M(d, 0, 0, 32, 0)                                                                              \
    M(sum, 4, 0, 32, 0)                                                                            \
    P(q, e, 0, 8, 0)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    M(d, 4 * k, 0, 32, 0)                                                                          \
    P(q, 32 * (e / 4) + 4 * k + e % 4, 0, 8, 0)
#define FR_T_VALUE(F) fr_val_f32(F(d, 0)) * fr_val_i8(F(q, e))
#include "quant/type_code.inc"

/* Writes the sum into the header of a plain row. */
static inline void fr_q8_KV_seal(uint8_t *row, int64_t cols)
{
    uint32_t sum = 0;
    for (int64_t e = 0; e < cols; e++)
        sum += (uint32_t)(int8_t)row[8 + e];
    memcpy(row + 4, &sum, 4);
}

#endif
