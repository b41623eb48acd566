/* Weights of types whose only integer kernel reads another layout. */
#ifndef FR_CPU_REPACKED_H
#define FR_CPU_REPACKED_H

#include "cpu/kernels.h"

/* A cpu_dot_fn for rows in the layout a->layout, given the type's kernel for the layout `to`: the
 * same bits as that kernel gives for the same matrix in that layout. Rows too wide for its room
 * (more than 16 rows of 19,784 columns at 6.6 bits would take) go through the portable kernel. */
void cpu_dot_repacked(const cpu_dot_args *a, fr_layout to, cpu_dot_fn kernel);

#endif
