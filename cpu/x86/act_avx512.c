/* Activation quantization (bit for bit fr_act_encode_row) and SwiGLU by AVX-512. */
#include <float.h>

#include "cpu/x86/avx512.h"

/* ---- quantization ---------------------------------------------------------------------------- */

/* The largest of sixteen floats without sign, which are ordered as integers. */
CPU_INLINE float most_of(__m512i v)
{
    __m256i w = _mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

/* The largest |x|; infinity or NaN when there is one. */
CPU_INLINE float block_most(const float *x, const int n)
{
    const __m512i size = _mm512_set1_epi32(INT32_MAX);
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 16)
        most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), size));
    return most_of(most);
}

/* v with the float just below one half added to its size: cut off, it is v rounded half away from
 * zero (the sum's own rounding included). */
CPU_INLINE __m512 half_further(__m512 v)
{
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    const __m512i half = _mm512_castps_si512(_mm512_set1_ps(0x1.fffffep-2f));
    __m512i h = _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(v), half, 0xEA);
    return _mm512_add_ps(v, _mm512_castsi512_ps(h));
}

/* The numbers that are to be cut off for sixteen codes. */
CPU_INLINE __m512 by_division(const float *x, __m512 d)
{
    return half_further(_mm512_div_ps(_mm512_loadu_ps(x), d));
}

/* The same multiplied by 1 / d, at most 4e-5 off; *near: how near to an integer any came. */
CPU_INLINE __m512 by_product(const float *x, __m512 inverse, __m512 *near)
{
    __m512 v = half_further(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
    *near = _mm512_range_ps(*near, _mm512_reduce_ps(v, 8), 2 | 2 << 2); /* smaller size, no sign */
    return v;
}

/* 64 codes from four times sixteen numbers. Packing works within quarters: fours are put in order.
 */
CPU_INLINE __m512i codes_of(const __m512 v[4])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i ab = _mm512_packs_epi32(_mm512_cvttps_epi32(v[0]), _mm512_cvttps_epi32(v[1]));
    __m512i ce = _mm512_packs_epi32(_mm512_cvttps_epi32(v[2]), _mm512_cvttps_epi32(v[3]));
    return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, ce));
}

/* Codes of n numbers (a multiple of 64). Products decide, divisions only where one may be wrong. */
CPU_INLINE void encode_codes(const float *x, const int n, float d, __m512i *codes)
{
    const __m512 inverse = _mm512_set1_ps(1 / d), limit = _mm512_set1_ps(0x1p-14f);
    __m512 near = _mm512_set1_ps(1);
    for (int i = 0; i < n; i += 64) {
        __m512 v[4];
        for (int k = 0; k < 4; k++)
            v[k] = by_product(x + i + 16 * k, inverse, &near);
        codes[i / 64] = codes_of(v);
    }
    if (_mm512_cmp_ps_mask(near, limit, _CMP_LT_OQ) == 0)
        return;
    for (int i = 0; i < n; i += 64) {
        __m512 v[4];
        for (int k = 0; k < 4; k++)
            v[k] = by_division(x + i + 16 * k, _mm512_set1_ps(d));
        codes[i / 64] = codes_of(v);
    }
}

/* Sums of 16 bytes of the four registers, less `offset` each. */
CPU_INLINE __m256i sums_of_16(const __m512i bytes[4], const int offset)
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i words = _mm512_castsi256_si512(
        _mm256_setr_epi16(0, 8, 16, 24, 4, 12, 20, 28, 32, 40, 48, 56, 36, 44, 52, 60));
    __m512i eights[4], two[2];
    for (int i = 0; i < 4; i++)
        eights[i] = _mm512_sad_epu8(bytes[i], zero);
    for (int i = 0; i < 2; i++) /* quarters of one register and the next by turns */
        two[i] = _mm512_add_epi64(_mm512_unpacklo_epi64(eights[2 * i], eights[2 * i + 1]),
                                  _mm512_unpackhi_epi64(eights[2 * i], eights[2 * i + 1]));
    __m256i sums = _mm512_castsi512_si256(_mm512_permutex2var_epi16(two[0], words, two[1]));
    return _mm256_sub_epi16(sums, _mm256_set1_epi16((short)offset));
}

/* The largest of eight unsigned numbers of 16 bits. */
CPU_INLINE uint16_t most_of_8(__m128i v)
{
    const __m128i all = _mm_set1_epi16(-1);
    return (uint16_t)~_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(v, all)));
}

/* Sums of the codes and the largest ones of their parts (act.h). */
CPU_INLINE void note_sums(fr_act_q8_256 *a, const __m512i codes[4])
{
    const __m512i top = _mm512_set1_epi8(-128);
    const __m256i one = _mm256_set1_epi16(1);
    __m512i above[4], sizes[4];
    for (int i = 0; i < 4; i++) {
        above[i] = _mm512_xor_si512(codes[i], top);
        sizes[i] = _mm512_abs_epi8(codes[i]);
    }
    __m256i sums = sums_of_16(above, 16 * 128), abs = sums_of_16(sizes, 0);
    __m128i sums_32 = _mm256_cvtepi32_epi16(_mm256_madd_epi16(sums, one));
    __m128i abs_32 = _mm256_cvtepi32_epi16(_mm256_madd_epi16(abs, one));
    _mm256_storeu_si256((__m256i *)(void *)a->sums, sums);
    _mm_storeu_si128((__m128i *)(void *)a->sums_32, sums_32);
    a->most_abs =
        most_of_8(_mm_max_epu16(_mm256_castsi256_si128(abs), _mm256_extracti128_si256(abs, 1)));
    a->most_half = most_of_8(_mm_srli_epi16(_mm_add_epi16(abs_32, _mm_abs_epi16(sums_32)), 1));
}

/* Whether |x| / d stays within 127.5. Not for a d that is subnormal (inexact), zero, or not finite:
 * such blocks are rare and left to the reference. */
CPU_INLINE bool is_common(float d)
{
    return d >= FLT_MIN && d <= FLT_MAX;
}

CPU_INLINE void encode_256(const float *x, fr_act_q8_256 *a)
{
    const float d = block_most(x, 256) / 127;
    __m512i codes[4];
    if (!is_common(d)) {
        fr_act_encode_row(FR_ACT_Q8_256, x, 256, a);
        return;
    }
    encode_codes(x, 256, d, codes);
    a->d = d;
    note_sums(a, codes);
    memset(a->unused, 0, sizeof a->unused);
    for (int i = 0; i < 4; i++)
        _mm512_storeu_si512(a->q + 64 * i, codes[i]);
}

/* Of 32 numbers one is near to an integer so rarely that it does not matter what that costs. */
CPU_INLINE void encode_32(const float *x, fr_act_q8_32 *a)
{
    const float d = block_most(x, 32) / 127;
    if (!is_common(d)) {
        fr_act_encode_row(FR_ACT_Q8_32, x, 32, a);
        return;
    }
    const __m512 inverse = _mm512_set1_ps(1 / d), limit = _mm512_set1_ps(0x1p-14f);
    __m512 near = _mm512_set1_ps(1);
    __m512 v[2] = {by_product(x, inverse, &near), by_product(x + 16, inverse, &near)};
    if (_mm512_cmp_ps_mask(near, limit, _CMP_LT_OQ) != 0)
        for (int k = 0; k < 2; k++)
            v[k] = by_division(x + 16 * k, _mm512_set1_ps(d));
    __m128i low = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v[0]));
    __m128i high = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v[1]));
    __m256i codes = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    __m256i eights =
        _mm256_sad_epu8(_mm256_xor_si256(codes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(eights), _mm256_extracti128_si256(eights, 1));
    const int sum = _mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))) - 32 * 128;
    a->d = d;
    a->s = d * (float)sum;
    a->start = FR_ACT_MAGIC_BITS - 128 * sum;
    _mm256_storeu_si256((__m256i *)(void *)a->q, codes);
}

/* The largest |x| of four blocks of 32. */
CPU_INLINE __m128 most_of_blocks(const float *x)
{
    const __m512i size = _mm512_set1_epi32(INT32_MAX);
    __m512i most[4], two[2];
    for (int i = 0; i < 4; i++)
        most[i] = _mm512_max_epi32(_mm512_and_si512(_mm512_loadu_si512(x + 32 * i), size),
                                   _mm512_and_si512(_mm512_loadu_si512(x + 32 * i + 16), size));
    for (int i = 0; i < 2; i++)
        two[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(most[2 * i], most[2 * i + 1]),
                                  _mm512_unpackhi_epi32(most[2 * i], most[2 * i + 1]));
    __m512i v = _mm512_max_epi32(_mm512_unpacklo_epi64(two[0], two[1]),
                                 _mm512_unpackhi_epi64(two[0], two[1]));
    __m256i w = _mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_castsi128_ps(
        _mm_max_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}

/* The sums of four blocks of 32 codes. */
CPU_INLINE __m128i sums_of_blocks(const __m512i codes[2])
{
    const __m512i top = _mm512_set1_epi8(-128), zero = _mm512_setzero_si512();
    __m512i a = _mm512_sad_epu8(_mm512_xor_si512(codes[0], top), zero);
    __m512i b = _mm512_sad_epu8(_mm512_xor_si512(codes[1], top), zero);
    __m512i two = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m512i four = _mm512_add_epi64(two, _mm512_shuffle_i64x2(two, two, 0xB1));
    __m256i sums = _mm512_castsi512_si256(
        _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 0, 0, 0, 0), four));
    return _mm_sub_epi32(_mm256_cvtepi64_epi32(sums), _mm_set1_epi32(32 * 128));
}

/* Four blocks at once; false where some are not common. */
CPU_INLINE bool encode_4_of_32(const float *x, fr_act_q8_32 *a)
{
    const __m128 d = _mm_div_ps(most_of_blocks(x), _mm_set1_ps(127));
    const __m512 limit = _mm512_set1_ps(0x1p-14f);
    if ((_mm_cmp_ps_mask(d, _mm_set1_ps(FLT_MIN), _CMP_GE_OQ) &
         _mm_cmp_ps_mask(d, _mm_set1_ps(FLT_MAX), _CMP_LE_OQ)) != 15)
        return false;
    float inverse[4], ds[4], ss[4];
    int32_t starts[4];
    __m512i codes[2];
    __m512 near = _mm512_set1_ps(1), v[2][4];
    _mm_storeu_ps(ds, d);
    _mm_storeu_ps(inverse, _mm_div_ps(_mm_set1_ps(1), d));
    for (int i = 0; i < 8; i++)
        v[i / 4][i % 4] = by_product(x + 16 * i, _mm512_set1_ps(inverse[i / 2]), &near);
    if (_mm512_cmp_ps_mask(near, limit, _CMP_LT_OQ) != 0)
        for (int i = 0; i < 8; i++)
            v[i / 4][i % 4] = by_division(x + 16 * i, _mm512_set1_ps(ds[i / 2]));
    for (int i = 0; i < 2; i++)
        codes[i] = codes_of(v[i]);
    const __m128i sums = sums_of_blocks(codes);
    _mm_storeu_ps(ss, _mm_mul_ps(d, _mm_cvtepi32_ps(sums)));
    _mm_storeu_si128((__m128i *)(void *)starts,
                     _mm_sub_epi32(_mm_set1_epi32(FR_ACT_MAGIC_BITS), _mm_slli_epi32(sums, 7)));
    for (int i = 0; i < 4; i++) {
        a[i].d = ds[i], a[i].s = ss[i], a[i].start = starts[i];
        _mm256_storeu_si256((__m256i *)(void *)a[i].q,
                            i % 2 ? _mm512_extracti64x4_epi64(codes[i / 2], 1)
                                  : _mm512_castsi512_si256(codes[i / 2]));
    }
    return true;
}

static void encode_32s(const float *x, int64_t n, fr_act_q8_32 *a)
{
    int64_t i = 0;
    while (i < n) {
        if (n - i >= 4 && encode_4_of_32(x + 32 * i, a + i))
            i += 4;
        else
            encode_32(x + 32 * i, a + i), i++;
    }
}

static void act_encode(fr_act_type type, const float *x, int64_t cols, void *dst)
{
    if (type == FR_ACT_F32)
        memcpy(dst, x, (size_t)cols * sizeof(float));
    if (type == FR_ACT_Q8_32)
        encode_32s(x, cols / 32, dst);
    if (type == FR_ACT_Q8_256)
        for (int64_t i = 0; i < cols / 256; i++)
            encode_256(x + 256 * i, (fr_act_q8_256 *)dst + i);
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

/* exp(v), infinity from 88.8 on, 2^-126 below its logarithm; within 2 units in the last place.
 * v = n ln 2 + r with |r| <= ln 2 / 2, then the power series of exp(r) up to r^7 / 7!. */
CPU_INLINE __m512 exp_ps(__m512 v)
{
    v = _mm512_max_ps(_mm512_set1_ps(-87.3f),
                      _mm512_min_ps(_mm512_set1_ps(88.8f), v)); /* this order keeps NaN */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), v); /* ln 2 in two parts */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    static const float inverse_factorial[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                              1.0f / 6,    1.0f / 2,   1.0f,       1.0f};
    __m512 p = _mm512_set1_ps(inverse_factorial[0]);
    for (int i = 1; i < 8; i++)
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(inverse_factorial[i]));
    return _mm512_scalef_ps(p, n);
}

CPU_INLINE __m512 silu_mul_16(__m512 g, __m512 up)
{
    __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), g));
    __m512 silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1), e));
    return _mm512_mul_ps(silu, up);
}

static void silu_mul(float *gate, const float *up, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(gate + i, silu_mul_16(_mm512_loadu_ps(gate + i), _mm512_loadu_ps(up + i)));
    if (i == n)
        return;
    const __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
    _mm512_mask_storeu_ps(
        gate + i, rest,
        silu_mul_16(_mm512_maskz_loadu_ps(rest, gate + i), _mm512_maskz_loadu_ps(rest, up + i)));
}

void cpu_avx512_fill_act(cpu_table *t)
{
    t->act_encode = act_encode;
    t->silu_mul = silu_mul;
}
