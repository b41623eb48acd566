/* As native_codes_avx512.h, for the types whose codes are words of a codebook: iq2_xxs, iq2_xs,
 * iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m. cpu/README.md says how words are looked up. */
#ifndef FR_CPU_X86_NATIVE_BOOKS_AVX512_H
#define FR_CPU_X86_NATIVE_BOOKS_AVX512_H

#include "cpu/x86/native_codes_avx512.h"

/* Where bits 6 and 7 of 64 indices are set, bit 6, and bit 7; of both. */
typedef struct {
    __mmask64 bit_6, bit_7, both;
} index_masks;

CPU_INLINE index_masks masks_of(__m512i index)
{
    index_masks m = {_mm512_test_epi8_mask(index, _mm512_set1_epi8(64)), _mm512_movepi8_mask(index),
                     0};
    m.both = _kand_mask64(m.bit_6, m.bit_7);
    return m;
}

/* 64 bytes out of a table of 256: every quarter is looked up where it, or none of those that
 * follow, is meant. */
CPU_INLINE __m512i byte_of_256(const __m512i t[4], __m512i index, const index_masks *m)
{
    __m512i v = byte_of(t[0], index);
    v = _mm512_mask_permutexvar_epi8(v, m->bit_6, index, t[1]);
    v = _mm512_mask_permutexvar_epi8(v, m->bit_7, index, t[2]);
    return _mm512_mask_permutexvar_epi8(v, m->both, index, t[3]);
}

CPU_INLINE __m512i byte_of_512(const __m512i t[8], __m512i index, const index_masks *m,
                               __mmask64 bit_8)
{
    return _mm512_mask_blend_epi8(bit_8, byte_of_256(t, index, m), byte_of_256(t + 4, index, m));
}

CPU_INLINE void load_table(const uint8_t *from, const int n, __m512i *t)
{
    for (int i = 0; i < n; i++)
        t[i] = load_64(from + 64 * i);
}

/* Where bit n of a byte is set. */
CPU_INLINE __mmask64 bit_mask(__m512i v, const int n)
{
    return n == 7 ? _mm512_movepi8_mask(v) : _mm512_test_epi8_mask(v, _mm512_set1_epi8(1 << n));
}

/* What every byte becomes when its bit n is the exclusive or of the bits in byte 7 - n of the
 * matrix. */
CPU_INLINE __m512i bits_by(const uint64_t matrix, __m512i v)
{
    return _mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64((long long)matrix), 0);
}

/* The bits that sign n is the exclusive or of: itself, or of running xors of seven signs in bits
 * 0..6; the eighth makes their number even. */
CPU_INLINE uint64_t sign_bits(const int n, const bool running)
{
    return !running ? 1ull << n : n == 0 ? 1 : n == 7 ? 64 : 3ull << (n - 1);
}

/* Signs n and n + 1 of every byte in bits `to` and to + 1, zeros elsewhere. */
CPU_INLINE __m512i two_signs(__m512i v, const int n, const int to, const bool running)
{
    return bits_by(
        sign_bits(n, running) << (56 - 8 * to) | sign_bits(n + 1, running) << (48 - 8 * to), v);
}

/* 2 * sc + 1 of the bits 7 of a row's four bytes at p. */
CPU_INLINE __m512 sign_scale(const uint8_t *p)
{
    const __m512i weights = _mm512_set1_epi32(0x10080402), one = _mm512_set1_epi32(1);
    return _mm512_cvtepi32_ps(
        _mm512_dpbusd_epi32(one, bits_by(0x8000000000000000, load_64(p)), weights));
}

/* iq3: bytes of a level in bits 0..2, its sign in bit 3, the next one's in bit 4, and its level in
 * bits 5..7. t[0] finds the first by bits 0..3, t[1] the second, shifted by 4, by 0..3; values are
 * 64 +- those of the levels. */
CPU_INLINE void level_tables_3(const int8_t values[16], __m512i t[2])
{
    const __m512i index = each_index();
    t[0] = table_of(values, 16, 0, 64);
    t[1] = byte_of(t[0], _mm512_or_si512(masked(right(index, 1), 7), masked(left(index, 3), 8)));
}

/* Weights `first` and first + 1 of every group of 8. */
CPU_INLINE void weights_of_3(__m512i levels, __m512i signs, const int first, const bool running,
                             const __m512i t[2], __m512i w[8])
{
    levels = _mm512_or_si512(levels, two_signs(signs, first, 3, running));
    w[first] = byte_of(t[0], levels);
    w[first + 1] = byte_of(t[1], right(levels, 4));
}

N_TABLES(iq3_xxs)
{
    load_table(cpu_native_books.iq3_xxs_labels[0], 4, t->t);
    load_table(cpu_native_books.iq3_xxs_values[0], 4, t->t + 4);
}

N_HEAD(iq3_xxs)
{
    (void)meta;
    h->d = _mm512_mul_ps(sixteen_halves(p), _mm512_set1_ps(0.25f));
}

/* What picks values beside a label: signs 4i .. 4i + 3, each where its lane has it, and bit 7. */
CPU_INLINE __m512i picks_of_iq3_xxs(__m512i signs, const int i)
{
    uint64_t matrix = 128ull << (56 - 8 * 5);
    for (int lane = 0; lane < 4; lane++)
        matrix |= sign_bits(4 * i + lane, true) << (56 - 8 * cpu_iq3_xxs_lanes[lane].sign);
    return bits_by(matrix, signs);
}

/* A lane's weights from its pair's labels. */
CPU_INLINE __m512i weights_of_iq3_xxs(__m512i labels, __m512i picks, const int lane, __m512i table)
{
    const cpu_iq3_xxs_lane at = cpu_iq3_xxs_lanes[lane];
    return byte_of(table, select_bits(0x20 | 1 << at.sign, picks, moved(labels, at.shift, 0)));
}

N_CODES(iq3_xxs)
{
    const __m512i signs = load_64(p + 32 + 64 * b);
    for (int i = 0; i < 2; i++) {
        const __m512i index = load_64(p + 544 + 128 * b + 64 * i);
        const __mmask64 upper = bit_mask(index, 6);
        const __m512i picks = picks_of_iq3_xxs(select_bits(0x80, index, signs), i);
        for (int lane = 0; lane < 4; lane++) {
            const __m512i *pair = t->t + lane / 2 * 2;
            __m512i labels = byte_of(pair[0], index);
            labels = _mm512_mask_permutexvar_epi8(labels, upper, index, pair[1]);
            w[4 * i + lane] = weights_of_iq3_xxs(labels, picks, lane, t->t[4 + lane]);
        }
    }
}

N_SCALE(iq3_xxs)
{
    (void)h, (void)t;
    return sign_scale(p + 32 + 64 * s);
}

N_TABLES(iq3_s)
{
    static const int8_t values[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
    load_table(cpu_native_books.iq3_s[0], 16, t->t);
    level_tables_3(values, t->t + 16);
    t->t[18] = float_steps(1, 2);
}

N_HEAD(iq3_s)
{
    (void)meta;
    h->d = sixteen_halves(p);
    h->lanes[0] = load_64(p + 32);
}

N_CODES(iq3_s)
{
    const __m512i signs = load_64(p + 224 + 64 * b), ninth = load_64(p + 96 + 64 * (b / 4));
    for (int i = 0; i < 2; i++) {
        const __m512i index = load_64(p + 736 + 128 * b + 64 * i);
        const index_masks m = masks_of(index);
        const __mmask64 bit_8 = bit_mask(ninth, 2 * (b % 4) + i);
        for (int j = 0; j < 2; j++)
            weights_of_3(byte_of_512(t->t + 8 * j, index, &m, bit_8), signs, 4 * i + 2 * j, false,
                         t->t + 16, w);
    }
}

N_SCALE(iq3_s)
{
    (void)p;
    return lane_scale(h->lanes[0], t->t[18], s);
}

/* iq2: two levels of two bits in bits 0..3, their signs in 4 and 5; a table for each. */
CPU_INLINE void level_tables_2(__m512i t[2])
{
    const __m512i index = each_index();
    const __m512i values = _mm512_set4_epi32(0, 0, 0x00D5E7F8, 0x002B1908); /* 8 25 43, and minus */
    for (int i = 0; i < 2; i++) {
        __m512i low = masked(moved(index, 2 * i, 0), 3), sign = masked(moved(index, 4 + i, 2), 4);
        __m512i found = _mm512_shuffle_epi8(values, _mm512_or_si512(low, sign));
        t[i] = _mm512_add_epi8(found, _mm512_set1_epi8(64));
    }
}

/* Weights 4i .. 4i + 3 of every group of 8 from their levels. */
CPU_INLINE void weights_of_2(__m512i levels, __m512i signs, const int i, const bool running,
                             const __m512i t[2], __m512i w[8])
{
    for (int j = 0; j < 2; j++) {
        const int first = 4 * i + 2 * j;
        __m512i both =
            select_bits(0x30, two_signs(signs, first, 4, running), moved(levels, 4 * j, 0));
        w[first] = byte_of(t[0], both);
        w[first + 1] = byte_of(t[1], both);
    }
}

N_TABLES(iq2_xxs)
{
    load_table(cpu_native_books.iq2_xxs[0], 8, t->t);
    level_tables_2(t->t + 8);
}

/* d / 8: scales are 2 * sc + 1. */
CPU_INLINE void d_of_eighths(const uint8_t *p, native_head *h)
{
    h->d = _mm512_mul_ps(sixteen_halves(p), _mm512_set1_ps(0.125f));
}

N_HEAD(iq2_xxs)
{
    (void)meta;
    d_of_eighths(p, h);
}

N_CODES(iq2_xxs)
{
    const __m512i signs = load_64(p + 32 + 64 * b), index = load_64(p + 544 + 64 * b);
    const index_masks m = masks_of(index);
    for (int i = 0; i < 2; i++)
        weights_of_2(byte_of_256(t->t + 4 * i, index, &m), signs, i, true, t->t + 8, w);
}

N_SCALE(iq2_xxs)
{
    (void)h, (void)t;
    return sign_scale(p + 32 + 64 * s);
}

/* Larger codebooks are read from the first cache, which costs the two ports that compute little: 16
 * words of eight nibbles at a time. As text, because the compiler leaves the gathered registers'
 * old contents undefined instead of clearing them, and every gather then waits for an earlier one.
 */
CPU_INLINE __m512i words_of(const uint32_t *book, __m512i index)
{
    __m512i words;
    __mmask16 left;
    __asm__("vpxord %0, %0, %0\n\tkxnorw %1, %1, %1\n\tvpgatherdd (%2,%3,4), %0%{%1%}"
            : "=&v"(words), "=&Yk"(left)
            : "r"(book), "v"(index));
    return words;
}

/* Every lane's bits from bit n on in its first byte, from n + 1 on in the second, .. */
CPU_INLINE __m512i bits_from(__m512i v, const int n)
{
    const long long low = 0x03020100 + 0x01010101 * n, high = low + 0x20202020;
    return _mm512_multishift_epi64_epi8(_mm512_set1_epi64(high << 32 | low), v);
}

/* The weights of one group of 8 in two registers, from nibbles of a level in bits 1 and 2, and
 * signs from bit `at` of the row's lane on. */
CPU_INLINE void weights_of_nibbles(__m512i nibbles, __m512i signs, const int at, __m512i table,
                                   __m512i w[2])
{
    nibbles = select_bits(0x11, bits_from(signs, at), nibbles);
    w[0] = byte_of(table, nibbles);
    w[1] = byte_of(table, right(nibbles, 4));
}

/* All eight signs, from running xors of seven in bits 1..7. */
CPU_INLINE __m512i signs_of_upper_7(__m512i v)
{
    uint64_t matrix = 0;
    for (int n = 0; n < 8; n++)
        matrix |= sign_bits(n, true) << 1 << (56 - 8 * n);
    return bits_by(matrix, v);
}

N_TABLES(iq2_xs)
{
    static const int8_t values[16] = {8, -8, 25, -25, 43, -43};
    t->t[0] = table_of(values, 16, 0, 64);
    t->t[1] = float_steps(1, 2);
}

N_HEAD(iq2_xs)
{
    (void)meta;
    d_of_eighths(p, h);
    h->lanes[0] = load_64(p + 32);
    h->lanes[1] = load_64(p + 96);
}

N_CODES(iq2_xs)
{
    const __m512i nine_bits = _mm512_set1_epi32(511);
    for (int i = 0; i < 2; i++) {
        const __m512i v = load_64(p + 160 + 128 * b + 64 * i), signs = signs_of_upper_7(v);
        const __m512i first = _mm512_and_si512(v, nine_bits);
        const __m512i second = _mm512_and_si512(_mm512_srli_epi32(v, 16), nine_bits);
        weights_of_nibbles(words_of(cpu_native_books.iq2_xs, first), signs, 8, t->t[0], w + 4 * i);
        weights_of_nibbles(words_of(cpu_native_books.iq2_xs, second), signs, 24, t->t[0],
                           w + 4 * i + 2);
    }
}

N_SCALE(iq2_xs)
{
    (void)p;
    return lane_scale(h->lanes[s / 8], t->t[1], s % 8);
}

N_TABLES(iq2_s)
{
    tables_iq2_xs(t);
}

N_HEAD(iq2_s)
{
    head_16_iq2_xs(p, meta, h);
}

/* Three indices of 10 bits; the fourth has its low byte elsewhere. */
CPU_INLINE void indices_of_10(__m512i three, __m512i low_bytes, const int b, __m512i index[4])
{
    const __m512i ten_bits = _mm512_set1_epi32(1023), byte = _mm512_set1_epi32(255);
    for (int i = 0; i < 3; i++)
        index[i] = _mm512_and_si512(_mm512_srli_epi32(three, (unsigned)(10 * i)), ten_bits);
    index[3] = _mm512_ternarylogic_epi32(byte, _mm512_srli_epi32(low_bytes, 8 * (unsigned)(b % 4)),
                                         _mm512_srli_epi32(three, 22), 0xCA);
}

N_CODES(iq2_s)
{
    const __m512i signs = load_64(p + 672 + 64 * b);
    __m512i index[4];
    indices_of_10(load_64(p + 160 + 64 * b), load_64(p + 1184 + 64 * (b / 4)), b, index);
    for (int i = 0; i < 4; i++)
        weights_of_nibbles(words_of(cpu_native_books.iq2_s, index[i]), signs, 8 * i, t->t[0],
                           w + 2 * i);
}

N_SCALE(iq2_s)
{
    (void)p;
    return lane_scale(h->lanes[s / 8], t->t[1], s % 8);
}

/* iq1: entries of 12 bits, an index and above it x, which every lane has a nibble for: what eight
 * times the weight is. */
N_TABLES(iq1_s)
{
    static const int8_t values[16] = {-7, 1, 9, 0, -9, -1, 7};
    t->t[0] = table_of(values, 16, 0, 16);
    t->t[1] = _mm512_castps_si512(_mm512_setr_ps(1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13,
                                                 15)); /* bit 3 is not sc's */
}

N_HEAD(iq1_s)
{
    (void)meta;
    d_of_eighths(p, h);
}

CPU_INLINE void weights_of_iq1(__m512i index, __m512i table, __m512i w[2])
{
    const __m512i nibbles = words_of(cpu_native_books.iq1, index);
    w[0] = byte_of(table, nibbles);
    w[1] = byte_of(table, right(nibbles, 4));
}

/* (v & mask) | other. */
CPU_INLINE __m512i part_or(__m512i v, const int mask, __m512i other)
{
    return _mm512_ternarylogic_epi32(v, _mm512_set1_epi32(mask), other, 0xEA);
}

N_CODES(iq1_s)
{
    const __m512i two = load_64(p + 32 + 64 * b), more = load_64(p + 544 + 64 * (b / 2));
    const __m512i tops = _mm512_srli_epi32(more, b % 2 ? 9 : 4); /* of the third index, and x */
    const __m512i x = _mm512_and_si512(tops, _mm512_set1_epi32(2048));
    const __m512i index[4] = {part_or(two, 2047, x), part_or(_mm512_srli_epi32(two, 11), 2047, x),
                              part_or(tops, 3072, _mm512_srli_epi32(two, 22)),
                              b % 2 ? _mm512_or_si512(_mm512_srli_epi32(more, 21), x)
                                    : part_or(more, 2047, x)};
    for (int i = 0; i < 4; i++)
        weights_of_iq1(index[i], t->t[0], w + 2 * i);
}

N_SCALE(iq1_s)
{
    (void)h;
    const __m512i index = _mm512_srli_epi32(load_64(p + 544 + 64 * (s / 2)), s % 2 ? 16 : 11);
    return _mm512_permutexvar_ps(index, _mm512_castsi512_ps(t->t[1]));
}

N_TABLES(iq1_m)
{
    tables_iq1_s(t);
}

/* Lanes of ten scales of 3 bits, and of the six that follow. */
N_HEAD(iq1_m)
{
    (void)meta;
    d_of_eighths(p, h);
    h->lanes[0] = load_64(p + 32);
    h->lanes[1] = _mm512_or_si512(_mm512_srli_epi32(h->lanes[0], 30),
                                  _mm512_slli_epi32(_mm512_cvtepu16_epi32(avx2_load(p + 96)), 2));
}

N_CODES(iq1_m)
{
    const __m512i two = load_64(p + 128 + 64 * b), more = load_64(p + 640 + 64 * (b / 2));
    const __m512i twelve = _mm512_set1_epi32(4095);
    const __m512i index[4] = {
        _mm512_and_si512(two, twelve), _mm512_and_si512(_mm512_srli_epi32(two, 12), twelve),
        part_or(_mm512_srli_epi32(more, b % 2 ? 8 : 4), 0xF00, _mm512_srli_epi32(two, 24)),
        b % 2 ? _mm512_srli_epi32(more, 20) : _mm512_and_si512(more, twelve)};
    for (int i = 0; i < 4; i++)
        weights_of_iq1(index[i], t->t[0], w + 2 * i);
}

N_SCALE(iq1_m)
{
    (void)p;
    const __m512i index = _mm512_srli_epi32(h->lanes[s / 10], 3 * (unsigned)(s % 10));
    return _mm512_permutexvar_ps(index, _mm512_castsi512_ps(t->t[1]));
}

#endif
