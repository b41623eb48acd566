#include "cpu/x86/avx512.h"

void cpu_avx512_fill(cpu_table *t)
{
    cpu_avx512_fill_float(t);
    cpu_avx512_fill_rows(t);
    cpu_avx512_fill_plain(t);
    cpu_avx512_fill_native(t);
    cpu_avx512_fill_iq6(t);
    cpu_avx512_fill_act(t);
}
