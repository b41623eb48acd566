/* Every type without kernels of its own: rows decoded piece by piece, float products with eight
 * sums. */
#include "cpu/x86/avx2.h"

static __m256 add_products(__m256 acc, const float *w, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        acc = _mm256_fmadd_ps(_mm256_loadu_ps(w + i), _mm256_loadu_ps(x + i), acc);
    if (i == n)
        return acc;
    __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n - i)),
                                       _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm256_fmadd_ps(_mm256_maskload_ps(w + i, lanes), _mm256_maskload_ps(x + i, lanes), acc);
}

/* add_products for four tokens: a weight is loaded once for all. */
static void add_products_4(__m256 acc[4], const float *w, const float *const x[4], int64_t n)
{
    __m256 a[4] = {acc[0], acc[1], acc[2], acc[3]};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(w + i);
        for (int t = 0; t < 4; t++)
            a[t] = _mm256_fmadd_ps(v, _mm256_loadu_ps(x[t] + i), a[t]);
    }
    for (int t = 0; t < 4; t++)
        acc[t] = add_products(a[t], w + i, x[t] + i, n - i);
}

static void dot_any_f32(const cpu_dot_args *a)
{
    float w[CPU_CHUNK];
    __m256 acc[CPU_MAX_TOKENS];
    cpu_chunk_room room;
    for (int64_t r = a->row_from; r < a->row_to; r++) {
        for (int t = 0; t < a->n_tokens; t++)
            acc[t] = _mm256_setzero_ps();
        for (int64_t c0 = 0; c0 < a->cols; c0 += CPU_CHUNK) {
            int64_t n = a->cols - c0 < CPU_CHUNK ? a->cols - c0 : CPU_CHUNK;
            cpu_decode_chunk(a, r, c0, n, &room, w);
            int t = 0;
            for (; t + 4 <= a->n_tokens; t += 4) {
                const float *x[4];
                for (int i = 0; i < 4; i++)
                    x[i] = (const float *)a->x[t + i] + c0;
                add_products_4(acc + t, w, x, n);
            }
            for (; t < a->n_tokens; t++)
                acc[t] = add_products(acc[t], w, (const float *)a->x[t] + c0, n);
        }
        for (int t = 0; t < a->n_tokens; t++)
            a->y[t][r - a->row_from] = avx2_sum(acc[t]);
    }
}

/* Takes the slots of float activations that the portable kernel still holds. */
void cpu_avx2_fill_any(cpu_table *t)
{
    for (int type = 0; type < FR_TYPE_COUNT; type++) {
        for (int layout = 0; layout < FR_LAYOUT_COUNT; layout++) {
            cpu_kernel *k = &t->dot[type][layout];
            if (k->dot == t->any.dot && k->act == FR_ACT_F32)
                *k = (cpu_kernel){"any.avx2", dot_any_f32, FR_ACT_F32, k->grain, 0};
        }
    }
}
