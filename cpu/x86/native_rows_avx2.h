/* How the types' native forms become eight rows side by side (rows_avx2.h): half of their sixteen
 * rows, at->half says which. Byte maps: the types' headers (runtime/quant/types) and maps.h. */
#ifndef FR_CPU_X86_NATIVE_ROWS_AVX2_H
#define FR_CPU_X86_NATIVE_ROWS_AVX2_H

#include "cpu/x86/codes_avx2.h"
#include "cpu/x86/native_tables.h"

#define R_HEAD(NAME)  CPU_INLINE void head_8_##NAME(const rows_at *at, rows_head *h)
#define R_CODES(NAME) CPU_INLINE void codes_8_##NAME(const rows_at *at, int b, __m256i w[8])

/* ---- pieces ---------------------------------------------------------------------------------- */

/* Eight rows' numbers of 16 bits, 16 bytes a row of sixteen. */
CPU_INLINE __m256 half_halves(const rows_at *at, int byte)
{
    return eight_halves(at->p[0] + byte + 16 * at->half);
}

/* The eight rows' lanes of the register at `byte`. */
CPU_INLINE __m256i half_lanes(const rows_at *at, int byte)
{
    return avx2_load(at->p[0] + byte + 32 * at->half);
}

/* The eight rows' bytes of two neighbouring scales. */
CPU_INLINE __m128i two_eights(const rows_at *at, int byte)
{
    const uint8_t *p = at->p[0] + byte + 8 * at->half;
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(const void *)p),
                              _mm_loadl_epi64((const __m128i *)(const void *)(p + 16)));
}

CPU_INLINE void put_two(int8_t out[16][ROWS], int n, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)out[2 * n], v);
}

/* Adds `step` to four registers of codes where the row's bit of scale s is set. */
CPU_INLINE void shift_by_row_bits(const rows_at *at, int byte, int s, const int step, __m256i w[4])
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i all = _mm256_set1_epi32(at->p[0][byte + 2 * s + at->half]);
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(all, bits), bits);
    __m256i add = _mm256_and_si256(set, _mm256_set1_epi8((char)step));
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_add_epi8(w[j], add);
}

/* FR_N16. */
CPU_INLINE void codes_n16(const rows_at *at, int byte, int b, __m256i w[8])
{
    for (int j = 0; j < 4; j++) {
        __m256i v = half_lanes(at, byte + 256 * b + 64 * j);
        w[j] = low_nibbles(v);
        w[4 + j] = high_nibbles(v);
    }
}

/* ---- scales ---------------------------------------------------------------------------------- */

/* FR_SCALES_6X16: scales minus 32. */
CPU_INLINE void half_scales_6x16(const rows_at *at, int byte, rows_head *h)
{
    for (int n = 0; n < 8; n++) {
        __m128i low = bits_of(two_eights(at, byte + 64 + 32 * n % 128), 4 * (n / 4), 4);
        __m128i high = bits_of(two_eights(at, byte + 32 * n % 64), 2 * (n / 2), 2);
        put_two(h->sc, n, _mm_sub_epi8(with_high_2(low, high), _mm_set1_epi8(32)));
    }
}

/* FR_SCALES_6X8_16. */
CPU_INLINE void half_scales_6x8(const rows_at *at, int byte, rows_head *h)
{
    for (int n = 0; n < 4; n++) {
        __m128i low = bits_of(two_eights(at, byte + 64 + 32 * n), 0, 4);
        __m128i high = bits_of(two_eights(at, byte + 32 * n % 64), 2 * (n / 2), 2);
        put_two(h->sc, n, with_high_2(low, high));
        const uint8_t *p = at->p[0] + byte + 16 * at->half;
        low = bits_of(avx2_load_half(p + 64 + 32 * n), 4, 4);
        high = bits_of(avx2_load_half(p + 32 * n % 64), 4 + 2 * (n / 2), 2);
        __m128i both = with_high_2(low, high);
        put_two(
            h->mn, n,
            _mm_packus_epi16(_mm_and_si128(both, _mm_set1_epi16(255)), _mm_srli_epi16(both, 8)));
    }
}

/* Eight scales of 4 bits in each row's lane, as factor * sc + offset. */
CPU_INLINE void half_scale_lanes(const rows_at *at, int byte, const int factor, const int offset,
                                 int8_t out[8][ROWS])
{
    const __m256i by_byte = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i by_scale = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i v = half_lanes(at, byte);
    __m256i n[2] = {low_nibbles(v), high_nibbles(v)};
    for (int i = 0; i < 2; i++) {
        __m256i sc = factor == 2 ? _mm256_add_epi8(n[i], n[i]) : n[i];
        sc = _mm256_add_epi8(sc, _mm256_set1_epi8((char)offset));
        n[i] = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(sc, by_byte), by_scale);
    }
    __m256i low = _mm256_unpacklo_epi64(n[0], n[1]), high = _mm256_unpackhi_epi64(n[0], n[1]);
    _mm256_storeu_si256((__m256i *)(void *)out[0], _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)out[4], _mm256_permute2x128_si256(low, high, 0x31));
}

/* 2 * sc + 1 of the bits 7 of each row's four bytes, for eight sub-blocks. */
CPU_INLINE void half_sign_scales(const rows_at *at, int byte, rows_head *h)
{
    const __m128i nibble = _mm_set1_epi8(15);
    for (int b = 0; b < 8; b++) {
        __m128i v = _mm_cvtsi32_si128(_mm256_movemask_epi8(half_lanes(at, byte + 64 * b)));
        __m128i sc = _mm_unpacklo_epi8(_mm_and_si128(v, nibble),
                                       _mm_and_si128(_mm_srli_epi16(v, 4), nibble));
        sc = _mm_add_epi8(_mm_add_epi8(sc, sc), _mm_set1_epi8(1));
        _mm_storel_epi64((__m128i *)(void *)h->sc[b], sc);
    }
}

/* ---- minima and plain numbers
 * ------------------------------------------------------------------------------ */

R_HEAD(q4_K)
{
    h->d = half_halves(at, 0);
    h->m = half_halves(at, 32);
    half_scales_6x8(at, 64, h);
}

R_CODES(q4_K)
{
    codes_n16(at, 256, b, w);
}

R_HEAD(q6_K)
{
    h->d = half_halves(at, 0);
    for (int n = 0; n < 8; n++)
        put_two(h->sc, n, two_eights(at, 32 + 32 * n));
}

/* FR_T16_UPPER. */
CPU_INLINE void half_upper(const rows_at *at, int byte, int b, __m256i w[8])
{
    const __m256i mask = _mm256_set1_epi8(48);
    for (int i = 0; i < 2; i++) {
        __m256i v = half_lanes(at, byte + 128 * b + 64 * i);
        const __m256i high[4] = {v, _mm256_srli_epi16(v, 2), _mm256_slli_epi16(v, 4),
                                 _mm256_slli_epi16(v, 2)};
        for (int j = 0; j < 4; j++)
            w[4 * i + j] = _mm256_or_si256(w[4 * i + j], _mm256_and_si256(high[j], mask));
    }
}

CPU_INLINE void subtract_8(const int offset, __m256i w[8])
{
    subtract(offset, w);
    subtract(offset, w + 4);
}

R_CODES(q6_K)
{
    codes_n16(at, 1312, b, w);
    half_upper(at, 288, b, w);
    subtract_8(32, w);
}

R_HEAD(q5_K)
{
    head_8_q4_K(at, h);
}

/* Fifth bits, FR_B16_FIFTH. */
CPU_INLINE void half_fifths(const rows_at *at, int byte, int b, __m256i w[8])
{
    const __m256i v = half_lanes(at, byte + 64 * b);
    for (int j = 0; j < 8; j++)
        w[j] = _mm256_or_si256(w[j], moved_bit(v, j, 4));
}

R_CODES(q5_K)
{
    codes_n16(at, 768, b, w);
    half_fifths(at, 256, b, w);
}

/* FR_T16. */
CPU_INLINE void codes_t16(const rows_at *at, int byte, int b, __m256i w[8])
{
    const __m256i mask = _mm256_set1_epi8(3);
    for (int i = 0; i < 2; i++) {
        __m256i v = half_lanes(at, byte + 128 * b + 64 * i);
        for (int j = 0; j < 4; j++)
            w[4 * i + j] = _mm256_and_si256(_mm256_srli_epi16(v, 2 * j), mask);
    }
}

R_HEAD(q2_K)
{
    h->d = half_halves(at, 0);
    h->m = half_halves(at, 32);
    half_scale_lanes(at, 64, 1, 0, h->sc);
    half_scale_lanes(at, 128, 1, 0, h->sc + 8);
    for (int n = 0; n < 8; n++) {
        const uint8_t *p = at->p[0] + 192 + 16 * at->half + 32 * (n % 4);
        __m128i both = bits_of(avx2_load_half(p), 4 * (n / 4), 4);
        put_two(
            h->mn, n,
            _mm_packus_epi16(_mm_and_si128(both, _mm_set1_epi16(255)), _mm_srli_epi16(both, 8)));
    }
}

R_CODES(q2_K)
{
    codes_t16(at, 320, b, w);
}

/* Third bits, FR_B16_THIRD. */
CPU_INLINE void half_thirds(const rows_at *at, int byte, int b, __m256i w[8])
{
    const __m256i v = half_lanes(at, byte + 64 * b);
    for (int j = 0; j < 4; j++) {
        w[j] = _mm256_or_si256(w[j], moved_bit(v, 4 + j, 2));
        w[4 + j] = _mm256_or_si256(w[4 + j], moved_bit(v, j, 2));
    }
}

R_HEAD(q3_K)
{
    h->d = half_halves(at, 0);
    half_scales_6x16(at, 32, h);
}

R_CODES(q3_K)
{
    codes_t16(at, 736, b, w);
    half_thirds(at, 224, b, w);
    subtract(4, w);
    subtract(4, w + 4);
}

/* ---- tables of values
 * ---------------------------------------------------------------------------- */

R_HEAD(iq4_k)
{
    h->d = half_halves(at, 0);
    half_scales_6x16(at, 64, h);
}

R_CODES(iq4_k)
{
    codes_n16(at, 256, b, w);
    for (int i = 0; i < 2; i++) {
        look_up(fr_iq4k_values, w + 4 * i);
        shift_by_row_bits(at, 32, 2 * b + i, 4, w + 4 * i);
    }
}

R_HEAD(iq2_k)
{
    h->d = half_halves(at, 0);
    half_scale_lanes(at, 64, 1, -8, h->sc);
    half_scale_lanes(at, 128, 1, -8, h->sc + 8);
}

R_CODES(iq2_k)
{
    const __m256i low = rows_load_4(fr_iq2nl_values);
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3));
    const __m256i high = _mm256_shuffle_epi8(low, order);
    for (int i = 0; i < 2; i++) {
        __m256i v = half_lanes(at, 192 + 128 * b + 64 * i);
        const __m256i pairs[2] = {low_nibbles(v), high_nibbles(v)};
        for (int j = 0; j < 4; j++)
            w[4 * i + j] = _mm256_shuffle_epi8(j % 2 ? high : low, pairs[j / 2]);
        shift_by_row_bits(at, 32, 2 * b + i, 5, w + 4 * i);
    }
}

R_HEAD(iq3_k)
{
    h->d = half_halves(at, 0);
    half_scale_lanes(at, 96, 2, 1, h->sc);
    half_scale_lanes(at, 160, 2, 1, h->sc + 8);
    const __m128i bits = _mm_set1_epi64x((long long)0x8040201008040201);
    for (int n = 0; n < 8; n++) { /* negate where the row's bit is set */
        const uint8_t *p = at->p[0] + 64 + 4 * n + at->half;
        __m128i both = _mm_unpacklo_epi64(_mm_set1_epi8((char)p[0]), _mm_set1_epi8((char)p[2]));
        __m128i minus = _mm_cmpeq_epi8(_mm_and_si128(both, bits), bits);
        __m128i sc = avx2_load_half(h->sc[2 * n]);
        put_two(h->sc, n, _mm_sub_epi8(_mm_xor_si128(sc, minus), minus));
    }
}

R_CODES(iq3_k)
{
    codes_t16(at, 736, b, w);
    half_thirds(at, 224, b, w);
    for (int i = 0; i < 2; i++) {
        look_up(fr_iq3nl_values, w + 4 * i);
        shift_by_row_bits(at, 32, 2 * b + i, 4, w + 4 * i);
    }
}

R_HEAD(iq5_k)
{
    h->d = half_halves(at, 0);
    half_scales_6x16(at, 64, h);
}

R_CODES(iq5_k)
{
    codes_n16(at, 768, b, w);
    half_fifths(at, 256, b, w);
    for (int i = 0; i < 2; i++) {
        look_up_32(fr_iq5nl_values, w + 4 * i);
        shift_by_row_bits(at, 32, 2 * b + i, 2, w + 4 * i);
    }
}

/* Eight scales minus 32, high bits at `byte`, nibbles behind. */
CPU_INLINE void half_scales_6x8_only(const rows_at *at, int byte, rows_head *h)
{
    for (int n = 0; n < 4; n++) {
        __m128i low = bits_of(two_eights(at, byte + 32 + 32 * n % 64), 4 * (n / 2), 4);
        __m128i high = bits_of(two_eights(at, byte), 2 * n, 2);
        put_two(h->sc, n, _mm_sub_epi8(with_high_2(low, high), _mm_set1_epi8(32)));
    }
}

R_HEAD(iq4_xs)
{
    h->d = half_halves(at, 0);
    half_scales_6x8_only(at, 32, h);
}

R_CODES(iq4_xs)
{
    codes_n16(at, 128, b, w);
    look_up(fr_iq4k_values, w);
    look_up(fr_iq4k_values, w + 4);
}

/* Scale bytes whose bit 0 says something else, minus 127; d in the rows' header. */
CPU_INLINE void half_scales_even(const rows_at *at, rows_head *h)
{
    h->d = _mm256_loadu_ps((const float *)(const void *)at->meta[0] + ROWS * at->half);
    for (int n = 0; n < 4; n++) {
        __m128i even = _mm_and_si128(two_eights(at, 32 * n), _mm_set1_epi8(-2));
        put_two(h->sc, n, _mm_sub_epi8(even, _mm_set1_epi8(127)));
    }
}

/* Adds `step` where bit 0 of the row's scale byte is set. */
CPU_INLINE void shift_by_scale_bits(const rows_at *at, int b, const int step, __m256i w[8])
{
    const uint8_t *p = at->p[0] + 16 * b + 8 * at->half;
    __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    shift_by_rows(lanes, 0, step, w);
    shift_by_rows(lanes, 0, step, w + 4);
}

R_HEAD(iq4_ks)
{
    half_scales_even(at, h);
}

R_CODES(iq4_ks)
{
    codes_8_iq4_xs(at, b, w);
    shift_by_scale_bits(at, b, 4, w);
}

R_HEAD(iq5_ks)
{
    half_scales_even(at, h);
}

R_CODES(iq5_ks)
{
    codes_n16(at, 640, b, w);
    half_fifths(at, 128, b, w);
    look_up_32(fr_iq5nl_values, w);
    look_up_32(fr_iq5nl_values, w + 4);
    shift_by_scale_bits(at, b, 2, w);
}

/* ---- codebooks ------------------------------------------------------------------------------- */

/* Eight rows' signs of running xors in bits 0..6. */
CPU_INLINE __m256i half_signs_of_7(__m256i v)
{
    return _mm256_xor_si256(_mm256_and_si256(v, _mm256_set1_epi8(127)), _mm256_add_epi8(v, v));
}

/* Negates where bit n of byte i of a lane is set, n = 4 * (j % 2).., for byte i of register
 * 2i + j. */
CPU_INLINE void apply_eight_signs(__m256i signs, __m256i w[8])
{
    apply_signs(signs, w);
    apply_signs(_mm256_srli_epi32(signs, 16), w + 4);
}

/* Bytes of indices and, from bit `from` of `high`'s bytes on, `width` bits above them: byte i as a
 * lane. */
CPU_INLINE __m256i wide_index(__m256i low, __m256i high, const int i, int from, const int width)
{
    const __m256i byte = _mm256_set1_epi32(255), bits = _mm256_set1_epi32((1 << width) - 1);
    __m256i index = _mm256_and_si256(_mm256_srli_epi32(low, 8 * i), byte);
    __m256i above = _mm256_srl_epi32(high, _mm_cvtsi32_si128(8 * i + from));
    return _mm256_or_si256(index, _mm256_slli_epi32(_mm256_and_si256(above, bits), 8));
}

/* Word i of eight rows from a codebook of 4-byte words. */
CPU_INLINE __m256i grid_4(const uint32_t *grid, __m256i index)
{
    return _mm256_i32gather_epi32((const int *)grid, index, 4);
}

/* Both halves of the words of a codebook of 8-byte words. */
CPU_INLINE void grid_8(const uint64_t *grid, __m256i index, __m256i w[2])
{
    const int *words = (const int *)(const void *)grid;
    w[0] = _mm256_i32gather_epi32(words, index, 8);
    w[1] = _mm256_i32gather_epi32(words + 1, index, 8);
}

R_HEAD(iq3_xxs)
{
    h->d = _mm256_mul_ps(half_halves(at, 0), _mm256_set1_ps(0.25f));
    half_sign_scales(at, 32, h);
}

R_CODES(iq3_xxs)
{
    const __m256i zero = _mm256_setzero_si256();
    for (int j = 0; j < 8; j++) {
        __m256i v = half_lanes(at, 544 + 128 * b + 64 * (j % 2));
        w[j] = grid_4(cpu_native_books.iq3_xxs, wide_index(v, zero, j / 2, 0, 1));
    }
    apply_eight_signs(half_signs_of_7(half_lanes(at, 32 + 64 * b)), w);
}

R_HEAD(iq3_s)
{
    h->d = half_halves(at, 0);
    half_scale_lanes(at, 32, 2, 1, h->sc);
}

R_CODES(iq3_s)
{
    const __m256i ninth = half_lanes(at, 96 + 64 * (b / 4));
    for (int j = 0; j < 8; j++) {
        __m256i v = half_lanes(at, 736 + 128 * b + 64 * (j % 2));
        w[j] = grid_4(fr_iq3s_grid, wide_index(v, ninth, j / 2, 2 * (b % 4) + j % 2, 1));
    }
    apply_eight_signs(half_lanes(at, 224 + 64 * b), w);
}

R_HEAD(iq2_xxs)
{
    h->d = _mm256_mul_ps(half_halves(at, 0), _mm256_set1_ps(0.125f));
    half_sign_scales(at, 32, h);
}

R_CODES(iq2_xxs)
{
    const __m256i v = half_lanes(at, 544 + 64 * b), zero = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
        grid_8(fr_iq2xxs_grid, wide_index(v, zero, i, 0, 1), w + 2 * i);
    apply_eight_signs(half_signs_of_7(half_lanes(at, 32 + 64 * b)), w);
}

R_HEAD(iq2_xs)
{
    h->d = _mm256_mul_ps(half_halves(at, 0), _mm256_set1_ps(0.125f));
    half_scale_lanes(at, 32, 2, 1, h->sc);
    half_scale_lanes(at, 96, 2, 1, h->sc + 8);
}

R_CODES(iq2_xs)
{
    const __m256i nine_bits = _mm256_set1_epi32(511);
    __m256i v[2], signs;
    for (int i = 0; i < 2; i++) {
        v[i] = half_lanes(at, 160 + 128 * b + 64 * i);
        grid_8(fr_iq2xs_grid, _mm256_and_si256(v[i], nine_bits), w + 4 * i);
        grid_8(fr_iq2xs_grid, _mm256_and_si256(_mm256_srli_epi32(v[i], 16), nine_bits),
               w + 4 * i + 2);
        v[i] = _mm256_srli_epi16(v[i], 9); /* a word's signs, as a byte */
        v[i] = _mm256_or_si256(v[i], _mm256_srli_epi32(v[i], 8));
    }
    signs = _mm256_blend_epi16(v[0], _mm256_slli_epi32(v[1], 16), 0xAA);
    apply_eight_signs(half_signs_of_7(signs), w);
}

R_HEAD(iq2_s)
{
    head_8_iq2_xs(at, h);
}

R_CODES(iq2_s)
{
    const __m256i v = half_lanes(at, 160 + 64 * b), low = half_lanes(at, 1184 + 64 * (b / 4));
    const __m256i ten_bits = _mm256_set1_epi32(1023), byte = _mm256_set1_epi32(255);
    for (int i = 0; i < 3; i++)
        grid_8(fr_iq2s_grid, _mm256_and_si256(_mm256_srli_epi32(v, 10 * i), ten_bits), w + 2 * i);
    __m256i last = _mm256_and_si256(_mm256_srl_epi32(low, _mm_cvtsi32_si128(8 * (b % 4))), byte);
    last = _mm256_or_si256(last, _mm256_slli_epi32(_mm256_srli_epi32(v, 30), 8));
    grid_8(fr_iq2s_grid, last, w + 6);
    apply_eight_signs(half_lanes(at, 672 + 64 * b), w);
}

/* iq1, as in native_books_avx512.h: entries of 12 bits, an index and x. */
CPU_INLINE void weights_of_iq1(__m256i index, __m256i w[2])
{
    const __m256i values = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    __m256i nibbles =
        _mm256_i32gather_epi32((const int *)(const void *)cpu_native_books.iq1, index, 4);
    w[0] = _mm256_shuffle_epi8(values, low_nibbles(nibbles));
    w[1] = _mm256_shuffle_epi8(values, high_nibbles(nibbles));
}

CPU_INLINE __m256i lanes_and(__m256i v, const int mask)
{
    return _mm256_and_si256(v, _mm256_set1_epi32(mask));
}

/* Eight lanes as bytes. */
CPU_INLINE void put_eight_lanes(__m256i lanes, int8_t out[ROWS])
{
    __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    _mm_storel_epi64((__m128i *)(void *)out, _mm_packs_epi16(words, words));
}

/* 2 * sc + 1 of three bits from bit n on. */
CPU_INLINE void put_iq1_scale(__m256i lanes, const int n, int8_t out[ROWS])
{
    __m256i sc = lanes_and(_mm256_srl_epi32(lanes, _mm_cvtsi32_si128(n)), 7);
    put_eight_lanes(_mm256_add_epi32(_mm256_add_epi32(sc, sc), _mm256_set1_epi32(1)), out);
}

R_HEAD(iq1_s)
{
    h->d = _mm256_mul_ps(half_halves(at, 0), _mm256_set1_ps(0.125f));
    for (int s = 0; s < 8; s++)
        put_iq1_scale(half_lanes(at, 544 + 64 * (s / 2)), s % 2 ? 16 : 11, h->sc[s]);
}

R_CODES(iq1_s)
{
    const __m256i two = half_lanes(at, 32 + 64 * b), more = half_lanes(at, 544 + 64 * (b / 2));
    const __m256i tops = _mm256_srl_epi32(more, _mm_cvtsi32_si128(b % 2 ? 9 : 4));
    const __m256i x = lanes_and(tops, 2048);
    const __m256i last = lanes_and(_mm256_srl_epi32(more, _mm_cvtsi32_si128(b % 2 ? 21 : 0)), 2047);
    weights_of_iq1(_mm256_or_si256(lanes_and(two, 2047), x), w);
    weights_of_iq1(_mm256_or_si256(lanes_and(_mm256_srli_epi32(two, 11), 2047), x), w + 2);
    weights_of_iq1(_mm256_or_si256(_mm256_srli_epi32(two, 22), lanes_and(tops, 3072)), w + 4);
    weights_of_iq1(_mm256_or_si256(last, x), w + 6);
}

R_HEAD(iq1_m)
{
    h->d = _mm256_mul_ps(half_halves(at, 0), _mm256_set1_ps(0.125f));
    const __m256i ten = half_lanes(at, 32);
    const __m256i upper = _mm256_cvtepu16_epi32(avx2_load_half(at->p[0] + 96 + 16 * at->half));
    const __m256i six = _mm256_or_si256(_mm256_srli_epi32(ten, 30), _mm256_slli_epi32(upper, 2));
    for (int s = 0; s < 16; s++)
        put_iq1_scale(s < 10 ? ten : six, 3 * (s % 10), h->sc[s]);
}

R_CODES(iq1_m)
{
    const __m256i two = half_lanes(at, 128 + 64 * b), more = half_lanes(at, 640 + 64 * (b / 2));
    const __m256i tops = _mm256_srl_epi32(more, _mm_cvtsi32_si128(b % 2 ? 8 : 4));
    weights_of_iq1(lanes_and(two, 4095), w);
    weights_of_iq1(lanes_and(_mm256_srli_epi32(two, 12), 4095), w + 2);
    weights_of_iq1(_mm256_or_si256(_mm256_srli_epi32(two, 24), lanes_and(tops, 0xF00)), w + 4);
    weights_of_iq1(lanes_and(_mm256_srl_epi32(more, _mm_cvtsi32_si128(b % 2 ? 20 : 0)), 4095),
                   w + 6);
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

#define R_HEAD_D(NAME)                                                                             \
    R_HEAD(NAME)                                                                                   \
    {                                                                                              \
        h->d = half_halves(at, 0);                                                                 \
    }
#define R_HEAD_D_M(NAME)                                                                           \
    R_HEAD(NAME)                                                                                   \
    {                                                                                              \
        h->d = half_halves(at, 0);                                                                 \
        h->m = half_halves(at, 32);                                                                \
    }

R_HEAD_D(q4_0)
R_CODES(q4_0)
{
    codes_n16(at, 32, b, w);
    subtract_8(8, w);
}

R_HEAD_D_M(q4_1)
R_CODES(q4_1)
{
    codes_n16(at, 64, b, w);
}

R_HEAD_D(q5_0)
R_CODES(q5_0)
{
    codes_n16(at, 96, b, w);
    half_fifths(at, 32, b, w);
    subtract_8(16, w);
}

R_HEAD_D_M(q5_1)
R_CODES(q5_1)
{
    codes_n16(at, 128, b, w);
    half_fifths(at, 64, b, w);
}

R_HEAD_D(q6_0)
R_CODES(q6_0)
{
    codes_n16(at, 160, b, w);
    half_upper(at, 32, b, w);
    subtract_8(32, w);
}

R_HEAD_D(q8_0)
R_CODES(q8_0)
{
    (void)b;
    for (int j = 0; j < 8; j++)
        w[j] = _mm256_xor_si256(half_lanes(at, 32 + 64 * j), _mm256_set1_epi8(-128));
}

R_HEAD_D(iq4_nl)
R_CODES(iq4_nl)
{
    codes_n16(at, 32, b, w);
    look_up(fr_iq4k_values, w);
    look_up(fr_iq4k_values, w + 4);
}

R_HEAD(mxfp4)
{
    h->d = eight_powers(at->p[0] + 8 * at->half);
}

R_CODES(mxfp4)
{
    codes_n16(at, 16, b, w);
    look_up(fr_mxfp4_values, w);
    look_up(fr_mxfp4_values, w + 4);
}

#endif
