/* What the AVX-512 files share. Only included by files whose name ends in _avx512.c. Such a file
 * holds intrinsics only: GCC 12 turns plain loops over int8 products wrong under its flags when it
 * vectorizes them by itself (the build forbids it as well). */
#ifndef FR_CPU_X86_AVX512_H
#define FR_CPU_X86_AVX512_H

#include "cpu/x86/avx2.h"

/* Types of blocks of 256 whose sums of products, times the scales, are added in 32-bit integers and
 * become a float at the end of the block; others' do so one by one, in ascending order. All kernels
 * of this tier do the same. */
CPU_INLINE bool avx512_is_whole(fr_type type)
{
    return type == FR_TYPE_Q6_K;
}

void cpu_avx512_fill_float(cpu_table *t);
void cpu_avx512_fill_rows(cpu_table *t);
void cpu_avx512_fill_plain(cpu_table *t);
void cpu_avx512_fill_native(cpu_table *t);
void cpu_avx512_fill_iq6(cpu_table *t);
void cpu_avx512_fill_act(cpu_table *t);

#endif
