#include <math.h>

#include "cpu/attn.h"
#include "cpu/x86/avx2.h"

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

/* As in attn_avx512.c. */
static vec v_exp(vec v)
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
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(near, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

static __m128 fold_to_128(vec v)
{
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

static void v_sums(const vec acc[TILE], float *out)
{
    __m128 ab = _mm_hadd_ps(fold_to_128(acc[0]), fold_to_128(acc[1]));
    _mm_storel_pi((__m64 *)(void *)out, _mm_hadd_ps(ab, ab));
}

static float v_sum(vec v)
{
    __m128 s = fold_to_128(v);
    s = _mm_hadd_ps(s, s);
    return _mm_cvtss_f32(_mm_hadd_ps(s, s));
}

static float v_highest(vec v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

#include "cpu/attn_simd.inc"

/* ---- rows of the cache
 * -------------------------------------------------------------------------------- */

static void decode_f16(const uint16_t *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
}

static void decode_bf16(const uint16_t *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 8) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(x + i)));
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
    }
}

/* out = d * (the 16 signed bytes of q). */
static void store_16(__m128i q, __m256 d, float *out)
{
    __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
    __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)));
    _mm256_storeu_ps(out, _mm256_mul_ps(d, low));
    _mm256_storeu_ps(out + 8, _mm256_mul_ps(d, high));
}

static __m128i load_16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

static void decode_q8_0(const uint8_t *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 32, x += 34) {
        __m256 d = _mm256_set1_ps(avx2_half(x));
        store_16(load_16(x + 2), d, out + i);
        store_16(load_16(x + 18), d, out + i + 16);
    }
}

static void decode_q4_0(const uint8_t *x, int64_t n, float *out)
{
    const __m128i low = _mm_set1_epi8(15), middle = _mm_set1_epi8(8);
    for (int64_t i = 0; i < n; i += 32, x += 18) {
        __m256 d = _mm256_set1_ps(avx2_half(x));
        __m128i q = load_16(x + 2), top = _mm_srli_epi16(q, 4);
        store_16(_mm_sub_epi8(_mm_and_si128(q, low), middle), d, out + i);
        store_16(_mm_sub_epi8(_mm_and_si128(top, low), middle), d, out + i + 16);
    }
}

/* The two high bits of weights n, n + 16, n + 8, n + 24 stand in byte n from bit 0 up. */
static void decode_q6_0(const uint8_t *x, int64_t n, float *out)
{
    const __m128i low = _mm_set1_epi8(15), bits = _mm_set1_epi8(0x30), middle = _mm_set1_epi8(32);
    for (int64_t i = 0; i < n; i += 32, x += 26) {
        __m256 d = _mm256_set1_ps(avx2_half(x));
        __m128i h = _mm_loadl_epi64((const __m128i *)(x + 2)), q = load_16(x + 10);
        __m128i h0 = _mm_unpacklo_epi64(_mm_slli_epi16(h, 4), h);
        __m128i h1 = _mm_unpacklo_epi64(_mm_slli_epi16(h, 2), _mm_srli_epi16(h, 2));
        __m128i q0 = _mm_or_si128(_mm_and_si128(q, low), _mm_and_si128(h0, bits));
        __m128i q1 = _mm_and_si128(_mm_srli_epi16(q, 4), low);
        q1 = _mm_or_si128(q1, _mm_and_si128(h1, bits));
        store_16(_mm_sub_epi8(q0, middle), d, out + i);
        store_16(_mm_sub_epi8(q1, middle), d, out + i + 16);
    }
}

void attn_decode_avx2(fr_type type, const void *row, int64_t n, float *out)
{
    if (type == FR_TYPE_F16 && n % 8 == 0)
        decode_f16(row, n, out);
    else if (type == FR_TYPE_BF16 && n % 8 == 0)
        decode_bf16(row, n, out);
    else if (type == FR_TYPE_Q8_0)
        decode_q8_0(row, n, out);
    else if (type == FR_TYPE_Q4_0)
        decode_q4_0(row, n, out);
    else if (type == FR_TYPE_Q6_0)
        decode_q6_0(row, n, out);
    else
        fr_decode_row(type, FR_LAYOUT_PLAIN, row, 0, n, out);
}

const attn_kernels attn_kernels_avx2 = {add_block, fold, attn_decode_avx2};
