/* Q4_K, Q5_K and Q6_K: blocks of 256 with small integer scales, times activations of 256 with one
 * scale. Everything within a block is exact in 32-bit integers: codes <= 63, |x| <= 127: a pair of
 * products fits 16 bits (16002); times a scale (<= 127 in size) and summed over the block it stays
 * below 2^26. */
#include "cpu/x86/avx2.h"

/* Byte masks that spread 16-bit scale number s of eight over a register. */
#define SPREAD_2(s)  (char)(2 * (s)), (char)(2 * (s) + 1)
#define SPREAD_8(s)  SPREAD_2(s), SPREAD_2(s), SPREAD_2(s), SPREAD_2(s)
#define SPREAD_32(s) SPREAD_8(s), SPREAD_8(s), SPREAD_8(s), SPREAD_8(s)
static const char spread_16[8][32]
    __attribute__((aligned(32))) = {{SPREAD_32(0)}, {SPREAD_32(1)}, {SPREAD_32(2)}, {SPREAD_32(3)},
                                    {SPREAD_32(4)}, {SPREAD_32(5)}, {SPREAD_32(6)}, {SPREAD_32(7)}};

/* Byte masks that give bytes 2p and 2p + 1 eight times each. */
#define TIMES_8(b)     b, b, b, b, b, b, b, b
#define SPREAD_PAIR(p) TIMES_8(2 * (p)), TIMES_8(2 * (p) + 1)
static const char spread_pair[8][16] __attribute__((aligned(16))) = {
    {SPREAD_PAIR(0)}, {SPREAD_PAIR(1)}, {SPREAD_PAIR(2)}, {SPREAD_PAIR(3)},
    {SPREAD_PAIR(4)}, {SPREAD_PAIR(5)}, {SPREAD_PAIR(6)}, {SPREAD_PAIR(7)}};

/* The scales and minima of a q4_K or q5_K block as 16-bit numbers. */
typedef struct {
    __m256i scale; /* the eight of them twice */
    __m128i min;
    float d, m;
} scales_6;

CPU_INLINE scales_6 unpack_scales_6(const uint8_t *b)
{
    uint32_t p[3];
    memcpy(p, b + 4, sizeof p);
    uint32_t scale_hi = (p[2] & 0x0F0F0F0F) | (p[0] >> 2 & 0x30303030);
    uint32_t min_hi = (p[2] >> 4 & 0x0F0F0F0F) | (p[1] >> 2 & 0x30303030);
    uint64_t scale = (p[0] & 0x3F3F3F3F) | (uint64_t)scale_hi << 32;
    uint64_t min = (p[1] & 0x3F3F3F3F) | (uint64_t)min_hi << 32;
    __m128i scale_16 = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)scale));
    return (scales_6){.scale = _mm256_broadcastsi128_si256(scale_16),
                      .min = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)min)),
                      .d = avx2_half(b),
                      .m = avx2_half(b + 2)};
}

/* acc + scale * sums, lane by lane. */
CPU_INLINE __m256 add_scaled(__m256 acc, float scale, __m256i sums)
{
    return _mm256_fmadd_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sums), acc);
}

/* The sums of 32 codes of an activation block, from its sums of 16. */
CPU_INLINE __m128i sums_32(const fr_act_q8_256 *x)
{
    return _mm_hadd_epi16(avx2_load_half(x->sums), avx2_load_half(x->sums + 8));
}

/* acc + d * sum(scale * q * x) - m * sum(min * x) for the finished integer sums. */
CPU_INLINE __m256 finish_6(__m256 acc, const scales_6 *s, const fr_act_q8_256 *x, __m256i sums)
{
    __m128i min_sums = _mm_madd_epi16(s->min, sums_32(x));
    acc = add_scaled(acc, s->d * x->d, sums);
    return add_scaled(acc, -s->m * x->d, _mm256_zextsi128_si256(min_sums));
}

CPU_INLINE __m256i scale_of(const scales_6 *s, int i)
{
    return _mm256_shuffle_epi8(s->scale, _mm256_load_si256((const __m256i *)spread_16[i]));
}

/* sums + scale * (pairs of codes times x). */
CPU_INLINE __m256i add_codes(__m256i sums, __m256i codes, const int8_t *x, __m256i scale)
{
    __m256i pairs = _mm256_maddubs_epi16(codes, avx2_load(x));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, scale));
}

/* ---- one block of one row, times nc tokens
 * --------------------------------------------------------------- */

typedef void block_fn(const uint8_t *b, const fr_act_q8_256 *const *x, int nc, __m256 *acc);

CPU_INLINE void block_q4_K(const uint8_t *b, const fr_act_q8_256 *const *x, const int nc,
                           __m256 *acc)
{
    const __m256i low = _mm256_set1_epi8(15);
    const scales_6 s = unpack_scales_6(b);
    __m256i sums[4];
    for (int t = 0; t < nc; t++)
        sums[t] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i packed = avx2_load(b + 16 + 32 * i);
        __m256i w0 = _mm256_and_si256(packed, low);
        __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
        __m256i scale0 = scale_of(&s, 2 * i), scale1 = scale_of(&s, 2 * i + 1);
        for (int t = 0; t < nc; t++) {
            sums[t] = add_codes(sums[t], w0, x[t]->q + 64 * i, scale0);
            sums[t] = add_codes(sums[t], w1, x[t]->q + 64 * i + 32, scale1);
        }
    }
    for (int t = 0; t < nc; t++)
        acc[t] = finish_6(acc[t], &s, x[t], sums[t]);
}

/* Bit `from` of every byte, moved to bit 4. */
CPU_INLINE __m256i fifth_bit(__m256i bits, const int from)
{
    __m256i moved =
        from < 4 ? _mm256_slli_epi16(bits, 4 - from) : _mm256_srli_epi16(bits, from - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(16));
}

CPU_INLINE void block_q5_K(const uint8_t *b, const fr_act_q8_256 *const *x, const int nc,
                           __m256 *acc)
{
    const __m256i low = _mm256_set1_epi8(15);
    const scales_6 s = unpack_scales_6(b);
    const __m256i high = avx2_load(b + 16);
    __m256i sums[4];
    for (int t = 0; t < nc; t++)
        sums[t] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i packed = avx2_load(b + 48 + 32 * i);
        __m256i w0 = _mm256_or_si256(_mm256_and_si256(packed, low), fifth_bit(high, 2 * i));
        __m256i w1 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(packed, 4), low),
                                     fifth_bit(high, 2 * i + 1));
        __m256i scale0 = scale_of(&s, 2 * i), scale1 = scale_of(&s, 2 * i + 1);
        for (int t = 0; t < nc; t++) {
            sums[t] = add_codes(sums[t], w0, x[t]->q + 64 * i, scale0);
            sums[t] = add_codes(sums[t], w1, x[t]->q + 64 * i + 32, scale1);
        }
    }
    for (int t = 0; t < nc; t++)
        acc[t] = finish_6(acc[t], &s, x[t], sums[t]);
}

/* Two bits of every byte, from bit 2 * i on, moved to bits 4 and 5. */
CPU_INLINE __m256i high_bits(__m256i bits, const int i)
{
    __m256i moved = i < 2 ? _mm256_slli_epi16(bits, 4 - 2 * i) : _mm256_srli_epi16(bits, 2 * i - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(48));
}

/* Codes are stored with an offset of 32: 32 * sum(scale * x) comes off at the end. */
CPU_INLINE void block_q6_K(const uint8_t *b, const fr_act_q8_256 *const *x, const int nc,
                           __m256 *acc)
{
    const __m256i low = _mm256_set1_epi8(15);
    const __m128i scales = avx2_load_half(b + 192);
    const __m256i scales_16 = _mm256_cvtepi8_epi16(scales);
    const float d = avx2_half(b + 208);
    __m256i sums[4];
    for (int t = 0; t < nc; t++) {
        __m256i offset = _mm256_madd_epi16(scales_16, avx2_load(x[t]->sums));
        sums[t] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(offset, 5));
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i high = avx2_load(b + 128 + 32 * half);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) { /* 32 codes each; nibbles low, low, high, high */
            __m256i packed = avx2_load(b + 64 * half + 32 * (i & 1));
            __m256i nibbles = i < 2 ? packed : _mm256_srli_epi16(packed, 4);
            __m256i w = _mm256_or_si256(_mm256_and_si256(nibbles, low), high_bits(high, i));
            const __m128i *spread = (const __m128i *)spread_pair[4 * half + i];
            __m256i scale = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, _mm_load_si128(spread)));
            for (int t = 0; t < nc; t++)
                sums[t] = add_codes(sums[t], w, x[t]->q + 128 * half + 32 * i, scale);
        }
    }
    for (int t = 0; t < nc; t++)
        acc[t] = add_scaled(acc[t], d * x[t]->d, sums[t]);
}

/* ---- tiles
 * ------------------------------------------------------------------------------------------------
 */

CPU_INLINE void tile_blocks(const avx2_tile *j, const int nr, const int nc, block_fn *block,
                            size_t bytes)
{
    __m256 acc[4][4];
    for (int r = 0; r < nr; r++) {
        for (int t = 0; t < nc; t++)
            acc[r][t] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < j->cols / 256; i++) {
        const fr_act_q8_256 *x[4];
        for (int t = 0; t < nc; t++)
            x[t] = (const fr_act_q8_256 *)j->x[t] + i;
        for (int r = 0; r < nr; r++) {
            const uint8_t *b = j->w + (size_t)r * j->row_bytes + (size_t)i * bytes;
            if (nc == 1)
                avx2_prefetch(b + (size_t)nr * j->row_bytes, bytes);
            block(b, x, nc, acc[r]);
        }
    }
    for (int r = 0; r < nr; r++) {
        for (int t = 0; t < nc; t++)
            j->y[t][j->y_at + r] = avx2_sum(acc[r][t]);
    }
}

#define TILE_Q4_K(J, NR, NC) tile_blocks(J, NR, NC, block_q4_K, 144)
#define TILE_Q5_K(J, NR, NC) tile_blocks(J, NR, NC, block_q5_K, 176)
#define TILE_Q6_K(J, NR, NC) tile_blocks(J, NR, NC, block_q6_K, 210)

AVX2_TILED(dot_q4_K, TILE_Q4_K, FR_TYPE_Q4_K, 4)
AVX2_TILED(dot_q5_K, TILE_Q5_K, FR_TYPE_Q5_K, 4)
AVX2_TILED(dot_q6_K, TILE_Q6_K, FR_TYPE_Q6_K, 4)

void cpu_avx2_fill_q256(cpu_table *t)
{
    t->dot[FR_TYPE_Q4_K][FR_LAYOUT_PLAIN] = (cpu_kernel){"q4_K.avx2", dot_q4_K, FR_ACT_Q8_256, 4};
    t->dot[FR_TYPE_Q5_K][FR_LAYOUT_PLAIN] = (cpu_kernel){"q5_K.avx2", dot_q5_K, FR_ACT_Q8_256, 4};
    t->dot[FR_TYPE_Q6_K][FR_LAYOUT_PLAIN] = (cpu_kernel){"q6_K.avx2", dot_q6_K, FR_ACT_Q8_256, 4};
}
