/* What the kernels of the native layout look codebooks up in: the words of a codebook cut into
 * bytes, a table for each. Ready after cpu_native_tables_make, constant from then on. */
#ifndef FR_CPU_X86_NATIVE_TABLES_H
#define FR_CPU_X86_NATIVE_TABLES_H

#include <stdint.h>

typedef struct {
    /* iq3_xxs: levels (value / 8) of lanes 0 and 1, and 2 and 3, the second from bit 5 on. */
    _Alignas(64) uint8_t iq3_xxs[2][256];
} cpu_native_codebooks;

extern cpu_native_codebooks cpu_native_books;

/* Fills cpu_native_books; any thread, any number of times. */
void cpu_native_tables_make(void);

#endif
