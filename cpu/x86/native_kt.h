/* The generator of the trellis types, for the kernels of all tiers (fr_val_kt is the reference). */
#ifndef FR_CPU_X86_NATIVE_KT_H
#define FR_CPU_X86_NATIVE_KT_H

#include <stdint.h>

enum { NATIVE_KT_FIRST = 4096 }; /* what is added to an index */

/* What an index is multiplied by for number n. */
static inline __attribute__((always_inline)) uint32_t native_kt_power(int n)
{
    uint32_t v = 1;
    for (int i = 0; i <= n; i++)
        v *= 0xCBAC1FEDu;
    return v;
}

#endif
