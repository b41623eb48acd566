/* Value tables and codebooks of tables.def, for host and device code: FR_TABLE_AT(name)[i]. */
#ifndef FR_QUANT_TABLES_H
#define FR_QUANT_TABLES_H

#include <stdint.h>

#include "base/half.h"

#ifdef __cplusplus
extern "C" {
#endif
#define FR_TABLE(T, name, n, ...) extern const T name[n];
#include "quant/tables.def"
#undef FR_TABLE
#ifdef __cplusplus
}
#endif

#ifdef __CUDACC__
#define FR_TABLE(T, name, n, ...) static __device__ const T name##_device[n] = {__VA_ARGS__};
#include "quant/tables.def"
#undef FR_TABLE
#endif

#ifdef __CUDA_ARCH__
#define FR_TABLE_AT(name) name##_device
#else
#define FR_TABLE_AT(name) name
#endif

/* Lane n of a codebook word. */
static inline FR_HD int fr_grid_u8(uint64_t word, unsigned n)
{
    return (int)(word >> (8 * n) & 255);
}

static inline FR_HD int fr_grid_i8(uint64_t word, unsigned n)
{
    int v = fr_grid_u8(word, n);
    return v - 2 * (v & 128);
}

#endif
