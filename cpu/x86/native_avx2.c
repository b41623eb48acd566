/* The native layout by AVX2: rows side by side. */
#include "cpu/x86/native_rows.inc"

#define NATIVE_SLOT(NAME, TYPE, ...)                                                               \
    t->dot[FR_TYPE_##TYPE][FR_LAYOUT_NATIVE] = (cpu_kernel){.name = #NAME ".native.avx2",          \
                                                            .dot = rows_dot_##NAME,                \
                                                            .act = FR_ACT_Q8_256,                  \
                                                            .grain = 2 * ROWS};

void cpu_avx2_fill_native(cpu_table *t)
{
    NATIVE_ROWS_ALL(NATIVE_SLOT)
}
