#include <math.h>
#include <string.h>

#include "cpu/attn.h"

/* Compilers that know no other way to ask for the instructions do without. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC target("avx512fp16")

#include "cpu/attn_vec_avx512.h"

#define FP16
#define KERNELS_16 attn_kernels_16_fp16
#include "cpu/attn_16.inc"

const attn_kernels_16 *attn_kernels_16_best(void)
{
    return __builtin_cpu_supports("avx512fp16") ? &attn_kernels_16_fp16 : &attn_kernels_16_avx512;
}
#else
const attn_kernels_16 *attn_kernels_16_best(void)
{
    return &attn_kernels_16_avx512;
}
#endif
