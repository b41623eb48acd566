/* q8_k_r16: 256 weights in 258 bytes, w = d * (q - 128). Files have it in this one form, of 16
 * rows.
 *
 *   4128 bytes
 *     0         d (f16) of the rows
 *     32        q, unsigned, 64 bytes per 4 weights, row k's at 4k
 */
#ifndef FR_QUANT_TYPES_Q8_K_R16_H
#define FR_QUANT_TYPES_Q8_K_R16_H

#include "quant/fields.h"

#define FR_T           q8_k_r16
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(q, 32 + 64 * (e / 4) + 4 * k + e % 4, 0, 8, 0)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * (F(q, e) - 128)
#include "quant/type_code.inc"

#endif
