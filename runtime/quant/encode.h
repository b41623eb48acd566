/* Inside of fr_encode_row: one function a type, registered in encode.def.
 *
 * Each writes one row of cols floats (a multiple of the type's weights per block, all finite) to
 * dst in the plain form, all fr_row_bytes of it. `importance` has cols floats >= 0 or is NULL.
 * fr_NAME_pack_plain (types.h) puts a block's fields into zeroed bytes. */
#ifndef FR_QUANT_ENCODE_H
#define FR_QUANT_ENCODE_H

#include "quant/qtype.h"

typedef void quant_encode_fn(const float *x, int64_t cols, const float *importance, void *dst);

#define ENCODE(ID, fn) quant_encode_fn fn;
#include "quant/encode.def"
#undef ENCODE

#endif
