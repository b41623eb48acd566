/* What the kernels of the native layout look codebooks up in: the words of a codebook cut into
 * bytes, a table for each. Ready after cpu_native_tables_make, constant from then on. */
#ifndef FR_CPU_X86_NATIVE_TABLES_H
#define FR_CPU_X86_NATIVE_TABLES_H

#include <stdint.h>

typedef struct {
    /* Levels (value / 2) of lanes 0 and 1, and of 2 and 3, the second from bit 5 on. */
    _Alignas(64) uint8_t iq3_s[2][512];
    /* Words in the native order. Labels of pairs of words: the pair's place among the 16 of lanes 0
     * and 1, and of 2 and 3, cpu_iq3_xxs_lanes says in which bits. Values of a lane, 64 more, by
     * label, sign and which of the two (bit 5). The words as they are. */
    _Alignas(64) uint8_t iq3_xxs_labels[2][128];
    _Alignas(64) uint8_t iq3_xxs_values[4][64];
    uint32_t iq3_xxs[256];
    /* Levels 0..2 (values 8, 25, 43) of lanes 0..3 and 4..7, two bits each. */
    _Alignas(64) uint8_t iq2_xxs[2][256];
    /* A nibble a lane, of lanes 0..3 the low ones of four bytes, of 4..7 the high ones: level << 1,
     * which leaves room for a sign. */
    _Alignas(64) uint32_t iq2_xs[512];
    _Alignas(64) uint32_t iq2_s[1024];
    /* First and second weights of the pairs. */
    _Alignas(32) int8_t iq2_kl[2][32];
    /* Nibbles in the same order: lane + 1, and bit 2 where bit 11 of the index is set (x). */
    _Alignas(64) uint32_t iq1[4096];
} cpu_native_codebooks;

/* A lane's label is what stands in bits 0..4 of its pair's byte, shifted right; but for bit `sign`,
 * which is another lane's, and gives way to the sign. */
typedef struct {
    int shift, sign;
} cpu_iq3_xxs_lane;

static const cpu_iq3_xxs_lane cpu_iq3_xxs_lanes[4] = {{0, 3}, {3, 1}, {0, 4}, {3, 0}};

extern cpu_native_codebooks cpu_native_books;

/* Fills cpu_native_books; any thread, any number of times. */
void cpu_native_tables_make(void);

#endif
