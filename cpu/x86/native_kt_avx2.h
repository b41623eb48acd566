/* Trellis types: how their native forms become eight rows side by side (rows_avx2.h);
 * native_kt_avx512.h says how weights are made. */
#ifndef FR_CPU_X86_NATIVE_KT_AVX2_H
#define FR_CPU_X86_NATIVE_KT_AVX2_H

#include "cpu/x86/native_kt.h"
#include "cpu/x86/native_rows_avx2.h"

/* Numbers n .. n + 3 of each lane's generator, in its bytes. */
CPU_INLINE __m256i half_kt_four(__m256i x, const int n)
{
    const __m256i six_bits = _mm256_set1_epi8(63);
    __m256i four = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        __m256i v = _mm256_mullo_epi32(x, _mm256_set1_epi32((int)native_kt_power(n + i)));
        __m256i pairs = _mm256_maddubs_epi16(_mm256_and_si256(v, six_bits), _mm256_set1_epi8(1));
        __m256i sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        four = _mm256_or_si256(four, _mm256_slli_epi32(sum, 8 * i));
    }
    return _mm256_sub_epi8(four, _mm256_set1_epi8(126));
}

CPU_INLINE void half_kt_eight(__m256i index, __m256i w[2])
{
    const __m256i x = _mm256_add_epi32(index, _mm256_set1_epi32(NATIVE_KT_FIRST));
    w[0] = half_kt_four(x, 0);
    w[1] = half_kt_four(x, 4);
}

CPU_INLINE void half_kt_by_16(const rows_at *at, int byte, __m256i w[8])
{
    for (int i = 0; i < 2; i++) {
        __m256i two = half_lanes(at, byte + 64 * i);
        half_kt_eight(lanes_and(two, 0xFFFF), w + 4 * i);
        half_kt_eight(_mm256_srli_epi32(two, 16), w + 4 * i + 2);
    }
}

CPU_INLINE __m256 half_header_floats(const rows_at *at)
{
    return _mm256_loadu_ps((const float *)(const void *)at->meta[0] + ROWS * at->half);
}

/* Numbers of values become the values. */
CPU_INLINE void half_kt_scales(rows_head *h)
{
    const __m128i values = avx2_load_half(fr_iq4k_values);
    for (int n = 0; n < 4; n++)
        put_two(h->sc, n, _mm_shuffle_epi8(values, avx2_load_half(h->sc[2 * n])));
}

R_HEAD(iq2_kt)
{
    h->d = half_header_floats(at);
    half_scale_lanes(at, 0, 1, 0, h->sc);
    half_kt_scales(h);
}

R_CODES(iq2_kt)
{
    half_kt_by_16(at, 64 + 128 * b, w);
}

R_HEAD(iq3_kt)
{
    h->d = half_header_floats(at);
    half_scale_lanes(at, 0, 1, 0, h->sc);
}

R_CODES(iq3_kt)
{
    const __m256i signs = half_lanes(at, 1088 + 64 * b);
    half_kt_by_16(at, 64 + 128 * b, w);
    for (int j = 0; j < 8; j++) {
        const __m256i bit = _mm256_set1_epi8((char)(1 << j));
        __m256i minus = _mm256_cmpeq_epi8(_mm256_and_si256(signs, bit), bit);
        w[j] = _mm256_sub_epi8(_mm256_xor_si256(_mm256_abs_epi8(w[j]), minus), minus);
    }
}

CPU_INLINE __m256i half_kt_words(const rows_at *at, int b)
{
    return _mm256_cvtepu16_epi32(avx2_load_half(at->p[0] + 512 + 32 * b + 16 * at->half));
}

CPU_INLINE __m256i half_kt_bytes(const rows_at *at, int b)
{
    const uint8_t *p = at->p[0] + 768 + 16 * b + 8 * at->half;
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

R_HEAD(iq1_kt)
{
    h->d = half_header_floats(at);
    for (int s = 0; s < 8; s++) {
        __m256i top = _mm256_slli_epi32(_mm256_srli_epi32(half_kt_words(at, s), 15), 3);
        put_eight_lanes(_mm256_or_si256(top, _mm256_srli_epi32(half_kt_bytes(at, s), 5)), h->sc[s]);
    }
    half_kt_scales(h);
}

R_CODES(iq1_kt)
{
    const __m256i low = half_lanes(at, 64 * b), words = half_kt_words(at, b);
    const __m256i bytes = half_kt_bytes(at, b);
    for (int i = 0; i < 4; i++) {
        __m256i high = lanes_and(i < 3 ? _mm256_srli_epi32(words, 5 * i) : bytes, 31);
        __m256i below = lanes_and(_mm256_srli_epi32(low, 8 * i), 255);
        half_kt_eight(_mm256_or_si256(_mm256_slli_epi32(high, 8), below), w + 2 * i);
    }
}

R_HEAD(iq4_kt)
{
    h->d = half_header_floats(at);
    for (int s = 0; s < 8; s++) {
        __m256i sc = _mm256_srli_epi32(half_lanes(at, 256 * s), 31);
        for (int i = 1; i < 4; i++) {
            __m256i two = _mm256_srli_epi32(half_lanes(at, 256 * s + 64 * i), 30);
            sc = _mm256_or_si256(sc, _mm256_slli_epi32(two, 2 * i - 1));
        }
        put_eight_lanes(_mm256_sub_epi32(sc, _mm256_set1_epi32(64)), h->sc[s]);
    }
}

R_CODES(iq4_kt)
{
    const __m256i x = lanes_and(_mm256_srli_epi32(half_lanes(at, 256 * b), 15), 32768);
    const __m256i from = _mm256_add_epi32(x, _mm256_set1_epi32(NATIVE_KT_FIRST));
    for (int i = 0; i < 4; i++) {
        __m256i v = half_lanes(at, 256 * b + 64 * i);
        __m256i second = lanes_and(_mm256_srli_epi32(v, 15), 32767);
        w[2 * i] = half_kt_four(_mm256_add_epi32(from, lanes_and(v, 32767)), 0);
        w[2 * i + 1] = half_kt_four(_mm256_add_epi32(from, second), 0);
    }
}

#endif
