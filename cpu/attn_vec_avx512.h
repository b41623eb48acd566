/* Registers of 16 floats for the inner loops of attention (attn_simd.inc, attn_prompt.inc). */
#ifndef FR_CPU_ATTN_VEC_AVX512_H
#define FR_CPU_ATTN_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 vec;
enum { LANES = 16, TILE = 4 };

#define v_load(p)        _mm512_loadu_ps(p)
#define v_store(p, v)    _mm512_storeu_ps(p, v)
#define v_set1(x)        _mm512_set1_ps(x)
#define v_zero()         _mm512_setzero_ps()
#define v_fmadd(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_mul(a, b)      _mm512_mul_ps(a, b)
#define v_add(a, b)      _mm512_add_ps(a, b)
#define v_sub(a, b)      _mm512_sub_ps(a, b)
#define v_max(a, b)      _mm512_max_ps(a, b)
#define v_highest(v)     _mm512_reduce_max_ps(v)

/* The first n numbers (all, if there are so many), zeros behind them. */
static inline vec v_load_n(const float *p, int64_t n)
{
    return n >= LANES ? v_load(p) : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

/* v = n ln 2 + r with |r| <= ln 2 / 2, then the power series of exp(r) up to r^7 / 7!: within 2
 * units in the last place down to -87, 0 below. */
static inline vec v_exp(vec v)
{
    __mmask16 near = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    vec n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(1.44269504f)),
                                 _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), v); /* ln 2 in two parts */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    vec p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(near, p, n);
}

/* 2^v for v <= 0, 2^0 = 1, 0 below -150: a polynomial whose largest relative error between -1/2
 * and 1/2 is 9e-8. */
static inline vec v_exp2(vec v)
{
    v = _mm512_max_ps(v, _mm512_set1_ps(-200.0f));
    vec n = _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm512_sub_ps(v, n), p = _mm512_set1_ps(0x1.5bba14p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3cea88p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b752p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf9bcp-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e42ap-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m128 v_fold_to_128(vec v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

static inline void v_sums(const vec acc[TILE], float *out)
{
    __m128 ab = _mm_hadd_ps(v_fold_to_128(acc[0]), v_fold_to_128(acc[1]));
    __m128 cd = _mm_hadd_ps(v_fold_to_128(acc[2]), v_fold_to_128(acc[3]));
    _mm_storeu_ps(out, _mm_hadd_ps(ab, cd));
}

static inline float v_sum(vec v)
{
    __m128 s = v_fold_to_128(v);
    s = _mm_hadd_ps(s, s);
    return _mm_cvtss_f32(_mm_hadd_ps(s, s));
}

/* m[i] lane j becomes m[j] lane i: pairs of rows, then of pairs within 128 bits, then the 128-bit
 * quarters. */
static inline __attribute__((always_inline)) void v_transpose(vec m[LANES])
{
    vec t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(m[i], m[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(m[i], m[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + 2 + j]);
            m[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            m[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int j = 0; j < 4; j++) {
        vec a = _mm512_shuffle_f32x4(m[j], m[4 + j], 0x88);
        vec b = _mm512_shuffle_f32x4(m[j], m[4 + j], 0xDD);
        vec c = _mm512_shuffle_f32x4(m[8 + j], m[12 + j], 0x88);
        vec d = _mm512_shuffle_f32x4(m[8 + j], m[12 + j], 0xDD);
        t[j] = _mm512_shuffle_f32x4(a, c, 0x88);
        t[8 + j] = _mm512_shuffle_f32x4(a, c, 0xDD);
        t[4 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
        t[12 + j] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
    for (int i = 0; i < LANES; i++)
        m[i] = t[i];
}

#endif
