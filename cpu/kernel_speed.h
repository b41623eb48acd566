/* How fast the kernels of a type are, through fr_cpu_matmul on all threads: for ferry-bench
 * --kernels and for the kernel tests. Nothing is timed that does not compute what the scalar
 * kernels compute. */
#ifndef FR_CPU_KERNEL_SPEED_H
#define FR_CPU_KERNEL_SPEED_H

#include "cpu/cpu.h"

/* Columns of the matrices, and tokens of the product with many. */
enum { FR_SPEED_COLS = 4096, FR_SPEED_TOKENS = 512 };

/* bytes: GB/s of weights; ops: GOPS (a multiplication and an addition count 2); scalar: how many
 * times faster than the scalar tier. */
typedef struct {
    double bytes, ops, scalar;
} fr_product_speed;

typedef struct {
    const char *kernel;    /* which one took the weights */
    fr_product_speed one;  /* one token, a matrix as large as the room */
    fr_product_speed many; /* FR_SPEED_TOKENS tokens, a matrix that stays in the cache */
    double cached;         /* one token, one thread, weights that stay in its cache: GB/s that the
                              arithmetic         allows when memory does not hold it up */
} fr_kernel_speed;

/* Two CPUs and what they work on. */
typedef struct fr_speed_meter fr_speed_meter;

/* fast and scalar (opened with FR_ISA_SCALAR) must outlive the meter. `bytes` is the room for
 * weights: several times the size of the caches, or one token shows the speed of these. FR_ENOMEM.
 */
fr_status fr_speed_meter_open(fr_cpu *fast, fr_cpu *scalar, size_t bytes, fr_speed_meter **out,
                              fr_err *err);
void fr_speed_meter_close(fr_speed_meter *m);

/* The room, for fr_cpu_read_speed: all of its bytes have been written. */
const void *fr_speed_meter_room(const fr_speed_meter *m, size_t *bytes);

/* Whether a type has matrices in this layout. */
bool fr_speed_possible(fr_type type, fr_layout layout);

/* Measures for about a second and a half. FR_EINTERNAL when the results differ from the scalar
 * tier's by more than rounding. */
fr_status fr_kernel_speed_measure(fr_speed_meter *m, fr_type type, fr_layout layout,
                                  fr_kernel_speed *out, fr_err *err);

#endif
