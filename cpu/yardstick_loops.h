/* The loops of the yardsticks, one pair for each tier. */
#ifndef FR_CPU_YARDSTICK_LOOPS_H
#define FR_CPU_YARDSTICK_LOOPS_H

#include <stddef.h>
#include <stdint.h>

enum { CPU_READ_STEP = 512 }; /* bytes; a read loop takes multiples of it */

/* Reads n bytes; the result depends on all of them. */
typedef uint64_t (*cpu_read_fn)(const uint8_t *p, size_t n);

/* n rounds of products of bytes; *ops: operations of one round. */
typedef uint64_t (*cpu_int8_fn)(int64_t n, int64_t *ops);

uint64_t cpu_read_avx2(const uint8_t *p, size_t n);
uint64_t cpu_int8_avx2(int64_t n, int64_t *ops);
uint64_t cpu_read_avx512(const uint8_t *p, size_t n);
uint64_t cpu_int8_avx512(int64_t n, int64_t *ops);

#endif
