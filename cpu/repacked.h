/* Plain weights of types whose only integer kernel reads the interleaved form. */
#ifndef FR_CPU_REPACKED_H
#define FR_CPU_REPACKED_H

#include "cpu/kernels.h"

/* A cpu_dot_fn for plain rows, given the kernel of the type's interleaved form: the same bits as
 * that kernel gives for the same matrix interleaved. Rows too wide for its room (more than 4 rows
 * of 98,304 columns at 4 bits would take) go through the portable kernel. */
void cpu_dot_repacked(const cpu_dot_args *a, cpu_dot_fn interleaved);

#endif
