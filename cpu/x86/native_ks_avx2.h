/* Types with a scale per row: how their native forms become eight rows side by side (rows_avx2.h).
 * Byte maps: the types' headers (runtime/quant/types). */
#ifndef FR_CPU_X86_NATIVE_KS_AVX2_H
#define FR_CPU_X86_NATIVE_KS_AVX2_H

#include "cpu/x86/native_rows_avx2.h"

CPU_INLINE __m256 half_header_halves(const rows_at *at)
{
    return eight_halves(at->meta[0] + 16 * at->half);
}

/* ---- scales of five bits: nibbles in lanes, fifth bits beside them, minus 16
 * ------------------------------------------------------------------------ */

CPU_INLINE void half_ks_head(const rows_at *at, rows_head *h)
{
    const __m128i bits = _mm_set1_epi64x((long long)0x8040201008040201);
    h->d = half_header_halves(at);
    half_scale_lanes(at, 32, 1, -16, h->sc);
    for (int n = 0; n < 4; n++) {
        const uint8_t *p = at->p[0] + 16 + 4 * n + at->half;
        __m128i both = _mm_unpacklo_epi64(_mm_set1_epi8((char)p[0]), _mm_set1_epi8((char)p[2]));
        __m128i set = _mm_cmpeq_epi8(_mm_and_si128(both, bits), bits);
        __m128i sc = avx2_load_half(h->sc[2 * n]);
        put_two(h->sc, n, _mm_add_epi8(sc, _mm_and_si128(set, _mm_set1_epi8(16))));
    }
}

/* Adds `step` to the codes of sub-block b where the row's bit is set. */
CPU_INLINE void half_ks_step(const rows_at *at, int b, const int step, __m256i w[8])
{
    shift_by_row_bits(at, 0, b, step, w);
    shift_by_row_bits(at, 0, b, step, w + 4);
}

R_HEAD(iq2_ks)
{
    half_ks_head(at, h);
}

R_CODES(iq2_ks)
{
    const __m256i low = rows_load_4(fr_iq2nl_values);
    codes_t16(at, 96, b, w);
    for (int j = 0; j < 8; j++)
        w[j] = _mm256_shuffle_epi8(low, w[j]);
    half_ks_step(at, b, 5, w);
}

R_HEAD(iq3_ks)
{
    half_ks_head(at, h);
}

R_CODES(iq3_ks)
{
    codes_t16(at, 608, b, w);
    half_thirds(at, 96, b, w);
    look_up(fr_iq3nl_values, w);
    look_up(fr_iq3nl_values, w + 4);
    half_ks_step(at, b, 4, w);
}

/* ---- words that hold their scales' bits
 * ------------------------------------------------------------------------------ */

/* Bits 0 and 16 of register j's lanes are bits 2j and 2j + 1 of the scale of sub-block b. */
CPU_INLINE __m256i half_kss_scales(const rows_at *at, int b)
{
    __m256i bits = _mm256_setzero_si256();
    for (int j = 0; j < 4; j++) {
        __m256i two = _mm256_and_si256(half_lanes(at, 256 * b + 64 * j), _mm256_set1_epi32(65537));
        bits = _mm256_or_si256(bits, _mm256_slli_epi32(two, 2 * j));
    }
    bits = _mm256_or_si256(bits, _mm256_srli_epi32(bits, 15));
    return _mm256_and_si256(bits, _mm256_set1_epi32(255));
}

R_HEAD(iq4_kss)
{
    h->d = _mm256_loadu_ps((const float *)(const void *)at->meta[0] + ROWS * at->half);
    for (int b = 0; b < 8; b++) {
        __m256i even = _mm256_and_si256(half_kss_scales(at, b), _mm256_set1_epi32(254));
        put_eight_lanes(_mm256_sub_epi32(even, _mm256_set1_epi32(127)), h->sc[b]);
    }
}

R_CODES(iq4_kss)
{
    const __m256i not_scale = _mm256_set1_epi16((short)0xFFFE);
    for (int j = 0; j < 4; j++) {
        __m256i v = half_lanes(at, 256 * b + 64 * j);
        __m256i q = _mm256_xor_si256(_mm256_and_si256(v, not_scale), _mm256_srli_epi16(v, 1));
        w[j] = low_nibbles(q);
        w[4 + j] = high_nibbles(q);
    }
    look_up(fr_iq4k_values, w);
    look_up(fr_iq4k_values, w + 4);
    const __m256i lanes = half_lanes(at, 256 * b);
    shift_by_rows(lanes, 0, 4, w);
    shift_by_rows(lanes, 0, 4, w + 4);
}

/* ---- pairs of weights ------------------------------------------------------------------------ */

R_HEAD(iq2_kl)
{
    h->d = half_header_halves(at);
    half_scales_6x8_only(at, 0, h);
}

/* Words of two weights in the halves of each lane from bytes of first and of second ones. */
CPU_INLINE __m256i half_weave(__m256i first, __m256i second, __m256i from)
{
    const __m256i odd = _mm256_set1_epi16((short)0xFF00);
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(first, from), _mm256_shuffle_epi8(second, from),
                              odd);
}

R_CODES(iq2_kl)
{
    const __m256i low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13));
    const __m256i high = _mm256_add_epi8(low, _mm256_set1_epi8(2));
    const __m256i fifth = half_lanes(at, 96 + 64 * (b / 2));
    __m256i pair[2][4];
    for (int i = 0; i < 4; i++) {
        __m256i v = half_lanes(at, 352 + 128 * b + 64 * (i % 2));
        pair[0][i] = _mm256_or_si256(i < 2 ? low_nibbles(v) : high_nibbles(v),
                                     moved_bit(fifth, 4 * (b % 2) + i, 4));
        pair[1][i] = pair[0][i];
    }
    look_up_32(cpu_native_books.iq2_kl[0], pair[0]);
    look_up_32(cpu_native_books.iq2_kl[1], pair[1]);
    for (int i = 0; i < 4; i++) {
        w[2 * i] = half_weave(pair[0][i], pair[1][i], low);
        w[2 * i + 1] = half_weave(pair[0][i], pair[1][i], high);
    }
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

CPU_INLINE __m256 half_header_eighths(const rows_at *at)
{
    return _mm256_mul_ps(half_header_halves(at), _mm256_set1_ps(0.125f));
}

/* The eight rows' words of 16 bits behind their lanes. */
CPU_INLINE __m256i half_words(const rows_at *at)
{
    return _mm256_cvtepu16_epi32(avx2_load_half(at->p[0] + 64 + 16 * at->half));
}

R_HEAD(iq1_s_r4)
{
    __m256i sc = lanes_and(_mm256_srli_epi32(half_words(at), 11), 14); /* twice */
    sc = _mm256_or_si256(sc, _mm256_set1_epi32(1));
    h->d = _mm256_mul_ps(half_header_eighths(at), _mm256_cvtepi32_ps(sc));
}

R_CODES(iq1_s_r4)
{
    (void)b;
    const __m256i two = half_lanes(at, 0), more = half_words(at);
    const __m256i x = lanes_and(_mm256_srli_epi32(more, 4), 2048);
    const __m256i tops = _mm256_or_si256(lanes_and(_mm256_slli_epi32(more, 10), 1024), x);
    weights_of_iq1(_mm256_or_si256(lanes_and(two, 2047), x), w);
    weights_of_iq1(_mm256_or_si256(lanes_and(_mm256_srli_epi32(two, 11), 2047), x), w + 2);
    weights_of_iq1(_mm256_or_si256(_mm256_srli_epi32(two, 22), tops), w + 4);
    weights_of_iq1(_mm256_or_si256(lanes_and(_mm256_srli_epi32(more, 1), 2047), x), w + 6);
}

R_CODES(iq1_m_r4)
{
    (void)b;
    const __m256i two = half_lanes(at, 0), more = half_words(at);
    const __m256i tops = lanes_and(_mm256_slli_epi32(more, 8), 0xF00);
    weights_of_iq1(lanes_and(two, 4095), w);
    weights_of_iq1(lanes_and(_mm256_srli_epi32(two, 12), 4095), w + 2);
    weights_of_iq1(_mm256_or_si256(_mm256_srli_epi32(two, 24), tops), w + 4);
    weights_of_iq1(_mm256_srli_epi32(more, 4), w + 6);
}

/* The scales of the first and the last 16 columns. */
CPU_INLINE void half_iq1_m_r4_scales(const rows_at *at, __m256 d[2])
{
    const __m256 eighths = half_header_eighths(at);
    const uint8_t *p = at->p[0] + 96 + 8 * at->half;
    __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    d[0] = _mm256_mul_ps(eighths, _mm256_cvtepi32_ps(lanes_and(both, 15)));
    d[1] = _mm256_mul_ps(eighths, _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4)));
}

#endif
