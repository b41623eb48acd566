/* The headers of all types: their block structs, and unpack, pack and value functions. For kernels,
 * encoders and device code; everybody else needs qtype.h only. */
#ifndef FR_QUANT_TYPES_H
#define FR_QUANT_TYPES_H

#define FR_TYPES_HEADERS
#include "quant/types.def"
#undef FR_TYPES_HEADERS

#endif
