/* Trellis types: how their native forms become registers of unsigned codes (native_avx512.h). An
 * index is multiplied by powers of a constant; a weight is the sum of the low six bits of the
 * product's bytes, less 126 (fr_val_kt). All codes are 128 above. */
#ifndef FR_CPU_X86_NATIVE_KT_AVX512_H
#define FR_CPU_X86_NATIVE_KT_AVX512_H

#include "cpu/x86/native_books_avx512.h"
#include "cpu/x86/native_kt.h"

/* Numbers n .. n + 3 of each lane's generator, in its bytes. */
CPU_INLINE __m512i kt_four(__m512i x, const int n)
{
    const __m512i six_bits = _mm512_set1_epi8(63), ones = _mm512_set1_epi8(1);
    __m512i four = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) {
        __m512i v = _mm512_mullo_epi32(x, _mm512_set1_epi32((int)native_kt_power(n + i)));
        __m512i sum =
            _mm512_dpbusd_epi32(_mm512_set1_epi32(128 - 126), _mm512_and_si512(v, six_bits), ones);
        four = _mm512_or_si512(four, _mm512_slli_epi32(sum, 8 * (unsigned)i));
    }
    return four;
}

/* Eight numbers from an index. */
CPU_INLINE void kt_eight(__m512i index, __m512i w[2])
{
    const __m512i x = _mm512_add_epi32(index, _mm512_set1_epi32(NATIVE_KT_FIRST));
    w[0] = kt_four(x, 0);
    w[1] = kt_four(x, 4);
}

/* 32 columns from four indices of 16 bits, two a lane. */
CPU_INLINE void kt_by_16(const uint8_t *p, __m512i w[8])
{
    for (int i = 0; i < 2; i++) {
        __m512i two = load_64(p + 64 * i);
        kt_eight(_mm512_and_si512(two, _mm512_set1_epi32(0xFFFF)), w + 4 * i);
        kt_eight(_mm512_srli_epi32(two, 16), w + 4 * i + 2);
    }
}

/* The values of scales of four bits. */
CPU_INLINE __m512i kt_scales(void)
{
    return _mm512_castps_si512(scale_bytes(fr_iq4k_values));
}

CPU_INLINE __m512 kt_scale_of(__m512i index, const native_tables *t)
{
    return _mm512_permutexvar_ps(index, _mm512_castsi512_ps(t->t[0]));
}

N_TABLES(iq2_kt)
{
    t->t[0] = kt_scales();
}

N_HEAD(iq2_kt)
{
    h->d = _mm512_loadu_ps(meta);
    h->lanes[0] = load_64(p);
}

N_CODES(iq2_kt)
{
    (void)t;
    kt_by_16(p + 64 + 128 * b, w);
}

N_SCALE(iq2_kt)
{
    (void)p;
    return lane_scale(h->lanes[0], t->t[0], s);
}

N_TABLES(iq3_kt)
{
    t->t[0] = float_steps(0, 1);
}

N_HEAD(iq3_kt)
{
    head_16_iq2_kt(p, meta, h);
}

N_CODES(iq3_kt)
{
    const __m512i signs = load_64(p + 1088 + 64 * b), zero = _mm512_set1_epi8(-128);
    (void)t;
    kt_by_16(p + 64 + 128 * b, w);
    for (int j = 0; j < 8; j++) {
        __m512i v = _mm512_abs_epi8(_mm512_sub_epi8(w[j], zero));
        w[j] = _mm512_mask_sub_epi8(_mm512_add_epi8(zero, v), bit_mask(signs, j), zero, v);
    }
}

N_SCALE(iq3_kt)
{
    (void)p;
    return lane_scale(h->lanes[0], t->t[0], s);
}

N_TABLES(iq1_kt)
{
    t->t[0] = kt_scales();
}

N_HEAD(iq1_kt)
{
    (void)p;
    h->d = _mm512_loadu_ps(meta);
}

N_CODES(iq1_kt)
{
    const __m512i low = load_64(p + 64 * b), byte = _mm512_set1_epi32(255);
    const __m512i words = _mm512_cvtepu16_epi32(avx2_load(p + 512 + 32 * b));
    const __m512i bytes = _mm512_cvtepu8_epi32(avx2_load_half(p + 768 + 16 * b));
    (void)t;
    for (int i = 0; i < 4; i++) {
        __m512i high = i < 3 ? _mm512_srli_epi32(words, 5 * (unsigned)i) : bytes;
        high = _mm512_slli_epi32(_mm512_and_si512(high, _mm512_set1_epi32(31)), 8);
        __m512i below = _mm512_and_si512(_mm512_srli_epi32(low, 8 * (unsigned)i), byte);
        kt_eight(_mm512_or_si512(high, below), w + 2 * i);
    }
}

N_SCALE(iq1_kt)
{
    (void)h;
    const __m512i words = _mm512_cvtepu16_epi32(avx2_load(p + 512 + 32 * s));
    const __m512i bytes = _mm512_cvtepu8_epi32(avx2_load_half(p + 768 + 16 * s));
    const __m512i top = _mm512_slli_epi32(_mm512_srli_epi32(words, 15), 3);
    return kt_scale_of(_mm512_or_si512(top, _mm512_srli_epi32(bytes, 5)), t);
}

N_TABLES(iq4_kt)
{
    (void)t;
}

N_HEAD(iq4_kt)
{
    (void)p;
    h->d = _mm512_loadu_ps(meta);
}

N_CODES(iq4_kt)
{
    const __m512i x =
        _mm512_and_si512(_mm512_srli_epi32(load_64(p + 256 * b), 15), _mm512_set1_epi32(32768));
    const __m512i from = _mm512_add_epi32(x, _mm512_set1_epi32(NATIVE_KT_FIRST));
    const __m512i index = _mm512_set1_epi32(32767);
    (void)t;
    for (int i = 0; i < 4; i++) {
        __m512i v = load_64(p + 256 * b + 64 * i);
        __m512i second = _mm512_and_si512(_mm512_srli_epi32(v, 15), index);
        w[2 * i] = kt_four(_mm512_add_epi32(from, _mm512_and_si512(v, index)), 0);
        w[2 * i + 1] = kt_four(_mm512_add_epi32(from, second), 0);
    }
}

N_SCALE(iq4_kt)
{
    (void)h, (void)t;
    __m512i sc = _mm512_srli_epi32(load_64(p + 256 * s), 31);
    for (int i = 1; i < 4; i++) {
        __m512i two = _mm512_srli_epi32(load_64(p + 256 * s + 64 * i), 30);
        sc = _mm512_or_si512(sc, _mm512_slli_epi32(two, 2 * (unsigned)i - 1));
    }
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sc, _mm512_set1_epi32(64)));
}

#endif
