/* Registers of 8 floats for the inner loops of attention, as in attn_vec_avx512.h. */
#ifndef FR_CPU_ATTN_VEC_AVX2_H
#define FR_CPU_ATTN_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

typedef __m256 vec;
enum { LANES = 8, TILE = 2 };

#define v_load(p)        _mm256_loadu_ps(p)
#define v_store(p, v)    _mm256_storeu_ps(p, v)
#define v_set1(x)        _mm256_set1_ps(x)
#define v_zero()         _mm256_setzero_ps()
#define v_fmadd(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_mul(a, b)      _mm256_mul_ps(a, b)
#define v_add(a, b)      _mm256_add_ps(a, b)
#define v_sub(a, b)      _mm256_sub_ps(a, b)
#define v_max(a, b)      _mm256_max_ps(a, b)

static inline vec v_load_n(const float *p, int64_t n)
{
    static const int32_t ones[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
    if (n >= LANES)
        return v_load(p);
    return _mm256_maskload_ps(p, _mm256_loadu_si256((const __m256i *)(ones + LANES - n)));
}

static inline vec v_power_of_2(vec n)
{
    __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(power, 23));
}

static inline vec v_exp(vec v)
{
    vec near = _mm256_cmp_ps(v, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
    vec n = _mm256_round_ps(_mm256_mul_ps(v, _mm256_set1_ps(1.44269504f)),
                            _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), v);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    vec p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_and_ps(near, _mm256_mul_ps(p, v_power_of_2(n)));
}

/* As for AVX-512, but 0 already below -126. */
static inline vec v_exp2(vec v)
{
    vec near = _mm256_cmp_ps(v, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ);
    vec n = _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm256_sub_ps(v, n), p = _mm256_set1_ps(0x1.5bba14p-10f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.3cea88p-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.c6b752p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.ebf9bcp-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.62e42ap-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_and_ps(near, _mm256_mul_ps(p, v_power_of_2(n)));
}

static inline __m128 v_fold_to_128(vec v)
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

static inline void v_sums(const vec acc[TILE], float *out)
{
    __m128 ab = _mm_hadd_ps(v_fold_to_128(acc[0]), v_fold_to_128(acc[1]));
    _mm_storel_pi((__m64 *)(void *)out, _mm_hadd_ps(ab, ab));
}

static inline float v_sum(vec v)
{
    __m128 s = v_fold_to_128(v);
    s = _mm_hadd_ps(s, s);
    return _mm_cvtss_f32(_mm_hadd_ps(s, s));
}

static inline float v_highest(vec v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline __attribute__((always_inline)) void v_transpose(vec m[LANES])
{
    vec t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_ps(m[i], m[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(m[i], m[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            m[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
            m[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xEE);
        }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(m[j], m[4 + j], 0x20);
        t[4 + j] = _mm256_permute2f128_ps(m[j], m[4 + j], 0x31);
    }
    for (int i = 0; i < LANES; i++)
        m[i] = t[i];
}

#endif
