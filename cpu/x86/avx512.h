/* What the AVX-512 files share. Only included by files whose name ends in _avx512.c. Such a file
 * holds intrinsics only: GCC 12 turns plain loops over int8 products wrong under its flags when it
 * vectorizes them by itself (the build forbids it as well). */
#ifndef FR_CPU_X86_AVX512_H
#define FR_CPU_X86_AVX512_H

#include "cpu/x86/avx2.h"

void cpu_avx512_fill_float(cpu_table *t);
void cpu_avx512_fill_rows(cpu_table *t);
void cpu_avx512_fill_plain(cpu_table *t);
void cpu_avx512_fill_native(cpu_table *t);
void cpu_avx512_fill_iq6(cpu_table *t);
void cpu_avx512_fill_act(cpu_table *t);

#endif
