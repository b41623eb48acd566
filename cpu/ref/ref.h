/* The scalar kernels: what the fast tiers compute, said as plainly as possible. Integer parts are
 * exact, sums over blocks are in double, so the difference to a fast kernel is that kernel's own
 * rounding. They stay in every build (--isa scalar) and are never compiled for more than the base
 * instruction set. */
#ifndef FR_CPU_REF_H
#define FR_CPU_REF_H

#include "cpu/kernels.h"

/* The slots of types that have a scalar kernel of their own: those whose fast kernels read
 * quantized activations. */
void cpu_ref_fill_dot(cpu_table *t);

/* The portable kernel: any type, layout and activation type. */
void cpu_ref_dot_any(const cpu_dot_args *a);

#endif
