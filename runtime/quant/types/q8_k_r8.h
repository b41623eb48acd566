/* q8_k_r8: 256 weights in 258 bytes, w = d * q. Files have it in this one form, of 8 rows.
 *
 *   2064 bytes
 *     0         d (f16) of the rows
 *     16        q, signed, 32 bytes per 4 weights, row k's at 4k
 */
#ifndef FR_QUANT_TYPES_Q8_K_R8_H
#define FR_QUANT_TYPES_Q8_K_R8_H

#include "quant/fields.h"

#define FR_T           q8_k_r8
#define FR_T_WEIGHTS   256
#define FR_T_FIELDS(F) F(d, 1, uint16_t) F(q, 256, uint8_t)
#define FR_T_PLAIN(P, M, X)
#define FR_T_INTERLEAVED(P, M, X)                                                                  \
    P(d, 2 * k, 0, 16, 0)                                                                          \
    P(q, 16 + 32 * (e / 4) + 4 * k + e % 4, 0, 8, 0)
#define FR_T_VALUE(F) fr_val_f16(F(d, 0)) * fr_val_i8(F(q, e))
#include "quant/type_code.inc"

#endif
