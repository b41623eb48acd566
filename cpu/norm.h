/* A row's RMS norm, which one thread computes while the others wait: so there is one for wide
 * registers as well, with the same bits. Inside the cpu box. */
#ifndef FR_CPU_NORM_H
#define FR_CPU_NORM_H

#include <stdint.h>

/* y[i] = x[i] / sqrt(mean of squares + eps) * w[i] for i < n; y may be x. Squares are exact in
 * double and added up in eight sums, one for each i modulo 8; what is behind the last whole eight
 * joins the total. */
typedef void cpu_norm_fn(const float *x, const float *w, int64_t n, float eps, float *y);

cpu_norm_fn cpu_norm_base;
cpu_norm_fn cpu_norm_avx2; /* for AVX2 and above */

#endif
