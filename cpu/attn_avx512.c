#include <immintrin.h>
#include <math.h>

#include "cpu/attn.h"

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

/* v = n ln 2 + r with |r| <= ln 2 / 2, then the power series of exp(r) up to r^7 / 7!: within 2
 * units in the last place down to -87, 0 below. */
static vec v_exp(vec v)
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

static __m128 fold_to_128(vec v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

static void v_sums(const vec acc[TILE], float *out)
{
    __m128 ab = _mm_hadd_ps(fold_to_128(acc[0]), fold_to_128(acc[1]));
    __m128 cd = _mm_hadd_ps(fold_to_128(acc[2]), fold_to_128(acc[3]));
    _mm_storeu_ps(out, _mm_hadd_ps(ab, cd));
}

static float v_sum(vec v)
{
    __m128 s = fold_to_128(v);
    s = _mm_hadd_ps(s, s);
    return _mm_cvtss_f32(_mm_hadd_ps(s, s));
}

#include "cpu/attn_simd.inc"

static void decode(fr_type type, const void *row, int64_t n, float *out)
{
    if (type != FR_TYPE_F16 || n % LANES != 0) {
        attn_decode_avx2(type, row, n, out);
        return;
    }
    for (int64_t i = 0; i < n; i += LANES) {
        __m256i half = _mm256_loadu_si256((const __m256i *)((const uint16_t *)row + i));
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(half));
    }
}

const attn_kernels attn_kernels_avx512 = {add_block, fold, decode};
