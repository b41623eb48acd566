/* Activation quantization (bit for bit fr_act_encode_row) and SwiGLU. */
#include <float.h>
#include <math.h>

#include "cpu/x86/avx2.h"

/* ---- quantization
 * --------------------------------------------------------------------------------------- */

/* The largest |x|; infinity or NaN when there is one. Floats without sign are ordered as integers.
 */
static float block_most(const float *x, int n)
{
    const __m256i size = _mm256_set1_epi32(INT32_MAX);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8)
        most = _mm256_max_epi32(most, _mm256_and_si256(avx2_load(x + i), size));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

/* x / d rounded half away from zero: with the float just below one half added to its size, a number
 * passes the next integer exactly when it was at least half way (the sum's own rounding included).
 */
static __m256i codes_of_8(const float *x, __m256 d)
{
    __m256 v = _mm256_div_ps(_mm256_loadu_ps(x), d);
    __m256 sign = _mm256_and_ps(v, _mm256_set1_ps(-0.0f));
    __m256 half = _mm256_or_ps(sign, _mm256_set1_ps(0x1.fffffep-2f));
    return _mm256_cvttps_epi32(_mm256_add_ps(v, half));
}

static __m256i codes_of_32(const float *x, __m256 d)
{
    __m256i a = codes_of_8(x, d), b = codes_of_8(x + 8, d);
    __m256i c = codes_of_8(x + 16, d), e = codes_of_8(x + 24, d);
    __m256i ab = _mm256_packs_epi32(a, b), ce = _mm256_packs_epi32(c, e);
    __m256i mixed =
        _mm256_packs_epi16(ab, ce); /* packing works within halves: put fours in order */
    return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The sums of the two halves of 32 codes. */
static void sums_of_16(__m256i codes, int sums[2])
{
    __m256i shifted = _mm256_xor_si256(codes, _mm256_set1_epi8(-128)); /* code + 128 */
    __m256i eights = _mm256_sad_epu8(shifted, _mm256_setzero_si256());
    sums[0] = _mm256_extract_epi16(eights, 0) + _mm256_extract_epi16(eights, 4) - 16 * 128;
    sums[1] = _mm256_extract_epi16(eights, 8) + _mm256_extract_epi16(eights, 12) - 16 * 128;
}

/* The largest sums of parts of a block (act.h). */
static void note_largest(fr_act_q8_256 *a)
{
    int most_half = 0;
    __m256i most_abs = _mm256_setzero_si256();
    for (int i = 0; i < 256; i += 32) {
        __m256i sizes = _mm256_abs_epi8(avx2_load(a->q + i));
        __m256i eights = _mm256_sad_epu8(sizes, _mm256_setzero_si256());
        __m256i sixteens = _mm256_add_epi32(eights, _mm256_shuffle_epi32(eights, 0x4E));
        most_abs = _mm256_max_epi32(most_abs, sixteens);
        int abs = _mm256_extract_epi16(sixteens, 0) + _mm256_extract_epi16(sixteens, 8);
        int sum = a->sums[i / 16] + a->sums[i / 16 + 1];
        int half = (abs + (sum < 0 ? -sum : sum)) / 2;
        most_half = half > most_half ? half : most_half;
    }
    int first = _mm256_extract_epi16(most_abs, 0), second = _mm256_extract_epi16(most_abs, 8);
    a->most_abs = (uint16_t)(first > second ? first : second);
    a->most_half = (uint16_t)most_half;
}

/* n codes (a multiple of 32) and their sums of 16; returns the scale. */
static float encode_block(const float *x, int n, int8_t *q, int *sums)
{
    float d = block_most(x, n) / 127;
    __m256 divisor = _mm256_set1_ps(d);
    for (int i = 0; i < n; i += 32) {
        __m256i codes = codes_of_32(x + i, divisor);
        _mm256_storeu_si256((__m256i *)(q + i), codes);
        sums_of_16(codes, sums + i / 16);
    }
    return d;
}

/* Whether |x| / d stays within 127.5. Not for a d that is subnormal (inexact), zero, or not finite:
 * such blocks are rare and left to the reference. */
static bool is_common(float d)
{
    return d >= FLT_MIN && d <= FLT_MAX;
}

static void act_encode(fr_act_type type, const float *x, int64_t cols, void *dst)
{
    int sums[16];
    if (type == FR_ACT_F32)
        memcpy(dst, x, (size_t)cols * sizeof(float));
    if (type == FR_ACT_Q8_32) {
        fr_act_q8_32 *a = dst;
        for (int64_t i = 0; i < cols; i += 32, a++) {
            a->d = encode_block(x + i, 32, a->q, sums);
            a->s = a->d * (float)(sums[0] + sums[1]);
            a->start = FR_ACT_MAGIC_BITS - 128 * (sums[0] + sums[1]);
            if (!is_common(a->d))
                fr_act_encode_row(type, x + i, 32, a);
        }
    }
    if (type == FR_ACT_Q8_256) {
        fr_act_q8_256 *a = dst;
        for (int64_t i = 0; i < cols; i += 256, a++) {
            a->d = encode_block(x + i, 256, a->q, sums);
            for (int s = 0; s < 16; s++)
                a->sums[s] = (int16_t)sums[s];
            for (int s = 0; s < 8; s++)
                a->sums_32[s] = (int16_t)(sums[2 * s] + sums[2 * s + 1]);
            memset(a->unused, 0, sizeof a->unused);
            note_largest(a);
            if (!is_common(a->d))
                fr_act_encode_row(type, x + i, 256, a);
        }
    }
}

/* ---- SwiGLU
 * ------------------------------------------------------------------------------------------------
 */

/* exp(v) for v <= 88.3, infinity above, 2^-126 below its logarithm; within 2 units in the last
 * place. v = n ln 2 + r with |r| <= ln 2 / 2, then the power series of exp(r) up to r^7 / 7!. */
static __m256 exp_ps(__m256 v)
{
    const __m256 top = _mm256_set1_ps(88.3f);
    __m256 big = _mm256_cmp_ps(v, top, _CMP_GT_OQ);
    v = _mm256_max_ps(_mm256_set1_ps(-87.3f), _mm256_min_ps(top, v)); /* this order keeps NaN */
    __m256 n = _mm256_round_ps(_mm256_mul_ps(v, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), v); /* ln 2 in two parts */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    static const float inverse_factorial[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                              1.0f / 6,    1.0f / 2,   1.0f,       1.0f};
    __m256 p = _mm256_set1_ps(inverse_factorial[0]);
    for (int i = 1; i < 8; i++)
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(inverse_factorial[i]));
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    return _mm256_blendv_ps(p, _mm256_set1_ps(INFINITY), big);
}

static void silu_mul_8(float *gate, const float *up)
{
    __m256 g = _mm256_loadu_ps(gate);
    __m256 e = exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), g));
    __m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1), e));
    _mm256_storeu_ps(gate, _mm256_mul_ps(silu, _mm256_loadu_ps(up)));
}

/* The rest goes through the same instructions: a value must not depend on where the array was cut.
 */
static void silu_mul(float *gate, const float *up, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        silu_mul_8(gate + i, up + i);
    if (i == n)
        return;
    size_t rest = (size_t)(n - i) * sizeof(float);
    float g[8] = {0}, u[8] = {0};
    memcpy(g, gate + i, rest);
    memcpy(u, up + i, rest);
    silu_mul_8(g, u);
    memcpy(gate + i, g, rest);
}

void cpu_avx2_fill_act(cpu_table *t)
{
    t->act_encode = act_encode;
    t->silu_mul = silu_mul;
}
