#include <math.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx2.h"
#include "cpu/x86/avx2.h"

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

const attn_kernels attn_kernels_avx2 = {add_block, fold_states, fold_sums, attn_decode_avx2, NULL};
