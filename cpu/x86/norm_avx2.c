#include "cpu/norm.h"

#include <math.h>

#include "cpu/x86/avx2.h"

/* Of four floats. A square of a float is exact in double, so that a fused addition rounds as two
 * operations do. */
static __m256d add_squares(__m256d sum, const float *x)
{
    __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(x));
    return _mm256_fmadd_pd(v, v, sum);
}

static double sum_of_squares(const float *x, int64_t n)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    double part[8], sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        low = add_squares(low, x + i);
        high = add_squares(high, x + i + 4);
    }
    for (; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    _mm256_storeu_pd(part, low);
    _mm256_storeu_pd(part + 4, high);
    for (int k = 0; k < 8; k++)
        sum += part[k];
    return sum;
}

void cpu_norm_avx2(const float *x, const float *w, int64_t n, float eps, float *y)
{
    for (int64_t i = 0; i < n; i += 16) /* not read since the last token: from memory */
        _mm_prefetch((const char *)(w + i), _MM_HINT_T0);
    float scale = (float)(1.0 / sqrt(sum_of_squares(x, n) / (double)n + (double)eps));
    __m256 all = _mm256_set1_ps(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), all);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(w + i)));
    }
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}
