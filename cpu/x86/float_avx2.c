/* F32, F16 and BF16 weights: eight partial sums per element, in float32. */
#include "cpu/x86/avx2.h"

/* -1 for the first n lanes. */
static __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Eight weights, or the first n < 8 and zeros. */
CPU_INLINE __m256 load_f32(const uint8_t *w, int n)
{
    if (n < 8)
        return _mm256_maskload_ps((const float *)(const void *)w, first_lanes(n));
    return _mm256_loadu_ps((const float *)(const void *)w);
}

CPU_INLINE __m128i load_16(const uint8_t *w, int n)
{
    if (n == 8)
        return avx2_load_half(w);
    uint8_t room[16] = {0};
    memcpy(room, w, 2 * (size_t)n);
    return avx2_load_half(room);
}

CPU_INLINE __m256 load_f16(const uint8_t *w, int n)
{
    return _mm256_cvtph_ps(load_16(w, n));
}

CPU_INLINE __m256 load_bf16(const uint8_t *w, int n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(w, n)), 16));
}

#define FLOAT_TILE(NAME, BYTES)                                                                    \
    CPU_INLINE void tile_##NAME(const avx2_tile *j, const int nr, const int nc)                    \
    {                                                                                              \
        __m256 acc[4][4];                                                                          \
        for (int r = 0; r < nr; r++) {                                                             \
            for (int t = 0; t < nc; t++)                                                           \
                acc[r][t] = _mm256_setzero_ps();                                                   \
        }                                                                                          \
        int64_t i = 0;                                                                             \
        for (; i + 8 <= j->cols; i += 8) {                                                         \
            for (int r = 0; r < nr; r++) {                                                         \
                const uint8_t *p = j->w + (size_t)r * j->row_bytes + (size_t)i * BYTES;            \
                if (nc == 1 && i % (64 / BYTES) == 0)                                              \
                    avx2_ask(p, 64);                                                               \
                __m256 w = load_##NAME(p, 8);                                                      \
                for (int t = 0; t < nc; t++) {                                                     \
                    const float *x = (const float *)j->x[t] + i;                                   \
                    acc[r][t] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x), acc[r][t]);                 \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        int n = (int)(j->cols - i);                                                                \
        for (int r = 0; r < nr && n > 0; r++) {                                                    \
            __m256 w = load_##NAME(j->w + (size_t)r * j->row_bytes + (size_t)i * BYTES, n);        \
            for (int t = 0; t < nc; t++) {                                                         \
                const float *x = (const float *)j->x[t] + i;                                       \
                acc[r][t] = _mm256_fmadd_ps(w, _mm256_maskload_ps(x, first_lanes(n)), acc[r][t]);  \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < nr; r++) {                                                             \
            for (int t = 0; t < nc; t++)                                                           \
                j->y[t][j->y_at + r] = avx2_sum(acc[r][t]);                                        \
        }                                                                                          \
    }

FLOAT_TILE(f32, 4)
FLOAT_TILE(f16, 2)
FLOAT_TILE(bf16, 2)

AVX2_TILED(dot_f32, tile_f32, FR_TYPE_F32, 2)
AVX2_TILED(dot_f16, tile_f16, FR_TYPE_F16, 2)
AVX2_TILED(dot_bf16, tile_bf16, FR_TYPE_BF16, 2)

void cpu_avx2_fill_float(cpu_table *t)
{
    t->dot[FR_TYPE_F32][FR_LAYOUT_PLAIN] = (cpu_kernel){"f32.avx2", dot_f32, FR_ACT_F32, 4, 0};
    t->dot[FR_TYPE_F16][FR_LAYOUT_PLAIN] = (cpu_kernel){"f16.avx2", dot_f16, FR_ACT_F32, 4, 0};
    t->dot[FR_TYPE_BF16][FR_LAYOUT_PLAIN] = (cpu_kernel){"bf16.avx2", dot_bf16, FR_ACT_F32, 4, 0};
}
