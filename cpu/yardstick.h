/* What this machine can do at most, measured now: the yardsticks that speeds of kernels and models
 * are held against. They use the threads and the instruction set of an fr_cpu, so both sides of a
 * comparison have the same means. */
#ifndef FR_CPU_YARDSTICK_H
#define FR_CPU_YARDSTICK_H

#include "cpu/cpu.h"

/* Reads `bytes` at p (aligned to 64) with all threads and does nothing else: GB/s (10^9 bytes) of
 * the fastest of several passes within about `seconds`, at least two. For the speed of memory,
 * `bytes` must be several times the size of the caches. */
double fr_cpu_read_speed(fr_cpu *cpu, const void *p, size_t bytes, double seconds);

/* Sums products of bytes in registers with all threads: GOPS (10^9 multiplications and additions,
 * each counts 1) of the fastest of several rounds within about `seconds`. AVX-512: VPDPBUSD on 64
 * bytes. AVX2: VPMADDUBSW on 32 bytes and an addition in 16 bits, which wraps: no kernel that keeps
 * its sums exact comes up to it. Scalar: a loop in C. */
double fr_cpu_int8_speed(fr_cpu *cpu, double seconds);

#endif
