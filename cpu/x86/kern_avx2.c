#include "cpu/x86/avx2.h"

void cpu_avx2_fill(cpu_table *t)
{
    cpu_avx2_fill_any(t); /* first: it looks for slots of the portable kernel */
    cpu_avx2_fill_float(t);
    cpu_avx2_fill_rows(t);
    cpu_avx2_fill_native(t);
    cpu_avx2_fill_iq6(t);
    cpu_avx2_fill_plain(t); /* kernels of their own */
    cpu_avx2_fill_act(t);
}
