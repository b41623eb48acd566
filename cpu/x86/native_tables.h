/* What the kernels of the native layout look codebooks up in: the words of a codebook cut into
 * bytes, a table for each. Ready after cpu_native_tables_make, constant from then on. */
#ifndef FR_CPU_X86_NATIVE_TABLES_H
#define FR_CPU_X86_NATIVE_TABLES_H

#include <stdint.h>

typedef struct {
    /* Levels of lanes 0 and 1, and of 2 and 3, the second from bit 5 on: value / 8 for iq3_xxs,
     * value / 2 for iq3_s. */
    _Alignas(64) uint8_t iq3_xxs[2][256];
    _Alignas(64) uint8_t iq3_s[2][512];
    /* Levels 0..2 (values 8, 25, 43) of lanes 0..3 and 4..7, two bits each. */
    _Alignas(64) uint8_t iq2_xxs[2][256];
    /* A nibble a lane, of lanes 0..3 the low ones of four bytes, of 4..7 the high ones: level << 1,
     * which leaves room for a sign. */
    _Alignas(64) uint32_t iq2_xs[512];
    _Alignas(64) uint32_t iq2_s[1024];
    /* Nibbles in the same order: lane + 1, and bit 2 where bit 11 of the index is set (x). */
    _Alignas(64) uint32_t iq1[4096];
} cpu_native_codebooks;

extern cpu_native_codebooks cpu_native_books;

/* Fills cpu_native_books; any thread, any number of times. */
void cpu_native_tables_make(void);

#endif
