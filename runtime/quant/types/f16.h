/* f16: binary16.
 *
 * Interleaved f16_r16 (ferry's own, as bf16_r16): 16 rows, 64 bytes per pair of weights; bytes
 * 4k.. are the pair of row k.
 */
#ifndef FR_QUANT_TYPES_F16_H
#define FR_QUANT_TYPES_F16_H

#include "quant/fields.h"

#define FR_T                      f16
#define FR_T_WEIGHTS              32
#define FR_T_FIELDS(F)            F(v, 32, uint16_t)
#define FR_T_PLAIN(P, M, X)       P(v, 2 * e, 0, 16, 0)
#define FR_T_INTERLEAVED(P, M, X) P(v, 64 * (e / 2) + 4 * k + 2 * (e % 2), 0, 16, 0)
#define FR_T_VALUE(F)             fr_val_f16(F(v, e))
#include "quant/type_code.inc"

#endif
