/* f32: binary32. Plain only. */
#ifndef FR_QUANT_TYPES_F32_H
#define FR_QUANT_TYPES_F32_H

#include "quant/fields.h"

#define FR_T                f32
#define FR_T_WEIGHTS        32
#define FR_T_FIELDS(F)      F(v, 32, uint32_t)
#define FR_T_PLAIN(P, M, X) P(v, 4 * e, 0, 32, 0)
#define FR_T_INTERLEAVED(P, M, X)
#define FR_T_VALUE(F) fr_val_f32(F(v, e))
#include "quant/type_code.inc"

#endif
