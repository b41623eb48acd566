/* How the types' native forms become registers of unsigned codes (native_avx512.h). Byte maps: the
 * types' headers (runtime/quant/types) and maps.h.
 *
 * A look-up of bytes (vpermb) reads six bits of its index. So an index needs no masking: what
 * stands in its other bits, up to bit 5, is what a table repeats itself over. */
#ifndef FR_CPU_X86_NATIVE_CODES_AVX512_H
#define FR_CPU_X86_NATIVE_CODES_AVX512_H

#include "cpu/x86/native_avx512.h"
#include "quant/tables.h"

#define N_TABLES(NAME) CPU_INLINE void tables_##NAME(native_tables *t)
#define N_HEAD(NAME)                                                                               \
    CPU_INLINE void head_16_##NAME(const uint8_t *p, const uint8_t *meta, native_head *h)
#define N_CODES(NAME)                                                                              \
    CPU_INLINE void codes_16_##NAME(const uint8_t *p, int b, const native_tables *t, __m512i w[8])
#define N_SCALE(NAME)                                                                              \
    CPU_INLINE __m512 scale_##NAME(const uint8_t *p, const native_head *h, const native_tables *t, \
                                   int s)

/* ---- pieces ---------------------------------------------------------------------------------- */

CPU_INLINE __m512i load_64(const void *p)
{
    return _mm512_loadu_si512(p);
}

CPU_INLINE __m512 sixteen_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(avx2_load(p));
}

CPU_INLINE __m512i right(__m512i v, const int n)
{
    return _mm512_srli_epi16(v, (unsigned)n);
}

CPU_INLINE __m512i left(__m512i v, const int n)
{
    return _mm512_slli_epi16(v, (unsigned)n);
}

/* v moved so that its bit `from` is bit `to`; other bytes' bits come in behind. */
CPU_INLINE __m512i moved(__m512i v, const int from, const int to)
{
    return from == to ? v : from > to ? right(v, from - to) : left(v, to - from);
}

/* Bits of a where the mask is set, of b elsewhere. */
CPU_INLINE __m512i select_bits(const int mask, __m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)mask), a, b, 0xCA);
}

CPU_INLINE __m512i masked(__m512i v, const int mask)
{
    return _mm512_and_si512(v, _mm512_set1_epi8((char)mask));
}

CPU_INLINE __m512i byte_of(__m512i table, __m512i index)
{
    return _mm512_permutexvar_epi8(index, table);
}

/* 0..63. */
CPU_INLINE __m512i each_index(void)
{
    const __m512i low = _mm512_set1_epi32(0x03020100);
    const __m512i lanes =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
    return _mm512_add_epi8(
        low, _mm512_shuffle_epi8(lanes, _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0)));
}

/* 16 values as a table of 64 that looks at `bits` bits of the index from bit `from` on, each with
 * `offset` added. */
CPU_INLINE __m512i table_of(const int8_t *values, const int n, const int from, const int offset)
{
    __m128i v = _mm_setzero_si128();
    memcpy(&v, values, (size_t)n);
    __m512i index = masked(moved(each_index(), from, 0), n - 1);
    __m512i found = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(v), index);
    return _mm512_add_epi8(found, _mm512_set1_epi8((char)offset));
}

/* The numbers low.. in 16 lanes, by `step`, as floats. */
CPU_INLINE __m512i float_steps(const int low, const int step)
{
    const __m512i n = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i v =
        _mm512_add_epi32(_mm512_mullo_epi32(n, _mm512_set1_epi32(step)), _mm512_set1_epi32(low));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(v));
}

/* FR_N16. */
CPU_INLINE void n16_plain(const uint8_t *p, __m512i w[8])
{
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 64 * j);
        w[j] = masked(v, 15);
        w[4 + j] = masked(right(v, 4), 15);
    }
}

/* The same with fifth bits. */
CPU_INLINE void n16_fifth(const uint8_t *p, const uint8_t *bits, __m512i w[8])
{
    const __m512i fifth = load_64(bits);
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 64 * j);
        w[j] = masked(select_bits(16, moved(fifth, j, 4), v), 31);
        w[4 + j] = masked(select_bits(16, moved(fifth, 4 + j, 4), right(v, 4)), 31);
    }
}

/* The same with FR_T16_UPPER. */
CPU_INLINE void n16_upper(const uint8_t *p, const uint8_t *bits, __m512i w[8])
{
    const __m512i two = load_64(bits), upper = load_64(bits + 64);
    for (int j = 0; j < 4; j++) {
        const int from = 2 * ((j + 2) % 4);
        __m512i v = load_64(p + 64 * j);
        w[j] = masked(select_bits(0x30, moved(two, from, 4), v), 63);
        w[4 + j] = masked(select_bits(0x30, moved(upper, from, 4), right(v, 4)), 63);
    }
}

/* ---- scales ---------------------------------------------------------------------------------- */

CPU_INLINE __m512 scale_bytes(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(avx2_load_half(p)));
}

/* FR_SCALES_6X16: scales minus 32. */
CPU_INLINE void scales_6x16(const uint8_t *p, native_head *h)
{
    const __m512i high = load_64(p);
    for (int i = 0; i < 4; i++) {
        __m512i low = moved(load_64(p + 64 + 64 * (i % 2)), 4 * (i / 2), 0);
        __m512i six = masked(select_bits(0x30, moved(high, 2 * i, 4), low), 63);
        _mm512_store_si512(h->sc[4 * i], _mm512_sub_epi8(six, _mm512_set1_epi8(32)));
    }
}

/* FR_SCALES_6X8_16. */
CPU_INLINE void scales_6x8_16(const uint8_t *p, native_head *h)
{
    const __m512i high = load_64(p);
    for (int i = 0; i < 2; i++) {
        __m512i both = load_64(p + 64 + 64 * i);
        __m512i sc = masked(select_bits(0x30, moved(high, 2 * i, 4), both), 63);
        __m512i mn = masked(select_bits(0x30, moved(high, 4 + 2 * i, 4), right(both, 4)), 63);
        _mm512_store_si512(h->sc[4 * i], sc);
        _mm512_store_si512(h->mn[2 * i], mn);
    }
}

/* iq4_xs: eight scales minus 32, high bits at p, nibbles at p + 32. */
CPU_INLINE void scales_6x8_only(const uint8_t *p, native_head *h)
{
    const __m512i high = _mm512_broadcast_i64x4(avx2_load(p)), low = load_64(p + 32);
    const __m512i upper = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    for (int i = 0; i < 2; i++) {
        __m512i two = _mm512_srlv_epi16(moved(high, 4 * i, 0), upper);
        __m512i six = masked(select_bits(0x30, left(two, 4), moved(low, 4 * i, 0)), 63);
        _mm512_store_si512(h->sc[4 * i], _mm512_sub_epi8(six, _mm512_set1_epi8(32)));
    }
}

/* Scale bytes whose bit 0 says something else, minus 127. */
CPU_INLINE void scales_even(const uint8_t *p, native_head *h)
{
    for (int i = 0; i < 2; i++)
        _mm512_store_si512(
            h->sc[4 * i], _mm512_sub_epi8(masked(load_64(p + 64 * i), 254), _mm512_set1_epi8(127)));
}

/* FR_SCALE_LANES_16 and _8: a table of floats finds the scale. */
CPU_INLINE __m512 lane_scale(__m512i lanes, __m512i table, int i)
{
    __m512i index = _mm512_srli_epi32(lanes, (unsigned)(4 * i));
    return _mm512_permutexvar_ps(index, _mm512_castsi512_ps(table));
}

/* ---- minima and plain numbers
 * ------------------------------------------------------------------------------ */

N_TABLES(q4_K)
{
    (void)t;
}

N_HEAD(q4_K)
{
    (void)meta;
    h->d = sixteen_halves(p);
    h->m = sixteen_halves(p + 32);
    scales_6x8_16(p + 64, h);
}

N_CODES(q4_K)
{
    (void)t;
    n16_plain(p + 256 + 256 * b, w);
}

N_SCALE(q4_K)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

N_TABLES(q6_K)
{
    (void)t;
}

N_HEAD(q6_K)
{
    (void)meta;
    h->d = sixteen_halves(p);
}

N_CODES(q6_K)
{
    (void)t;
    n16_upper(p + 1312 + 256 * b, p + 288 + 128 * b, w);
}

N_SCALE(q6_K)
{
    (void)h, (void)t;
    return scale_bytes(p + 32 + 16 * s);
}

N_TABLES(q5_K)
{
    (void)t;
}

N_HEAD(q5_K)
{
    head_16_q4_K(p, meta, h);
}

N_CODES(q5_K)
{
    (void)t;
    n16_fifth(p + 768 + 256 * b, p + 256 + 64 * b, w);
}

N_SCALE(q5_K)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

/* Two-bit codes, T16, by tables of bits 0..1, 2..3 and 4..5. */
CPU_INLINE void t16_by(const uint8_t *p, const __m512i t[3], __m512i w[8])
{
    for (int i = 0; i < 2; i++) {
        __m512i v = load_64(p + 64 * i);
        for (int j = 0; j < 3; j++)
            w[4 * i + j] = byte_of(t[j], v);
        w[4 * i + 3] = byte_of(t[2], right(v, 2));
    }
}

N_TABLES(q2_K)
{
    static const int8_t values[4] = {0, 1, 2, 3};
    for (int i = 0; i < 3; i++)
        t->t[i] = table_of(values, 4, 2 * i, 0);
    t->t[3] = float_steps(0, 1);
}

N_HEAD(q2_K)
{
    (void)meta;
    h->d = sixteen_halves(p);
    h->m = sixteen_halves(p + 32);
    for (int i = 0; i < 2; i++) {
        __m512i both = load_64(p + 192 + 64 * i);
        h->lanes[i] = load_64(p + 64 + 64 * i);
        _mm512_store_si512(h->mn[2 * i], masked(both, 15));
        _mm512_store_si512(h->mn[4 + 2 * i], masked(right(both, 4), 15));
    }
}

N_CODES(q2_K)
{
    t16_by(p + 320 + 128 * b, t->t, w);
}

N_SCALE(q2_K)
{
    (void)p;
    return lane_scale(h->lanes[s / 8], t->t[3], s % 8);
}

/* Three-bit codes, T16 and FR_B16_THIRD: an index has the low bits of two codes in bits 0..3 and
 * their third bits in 4 and 5; a table for each of the two. */
CPU_INLINE void tables_of_3(const int8_t values[8], const int offset, __m512i t[2])
{
    const __m512i index = each_index(), eight = _mm512_broadcast_i64x2(
                                            _mm_loadl_epi64((const __m128i *)(const void *)values));
    for (int i = 0; i < 2; i++) {
        __m512i low = masked(moved(index, 2 * i, 0), 3), high = masked(moved(index, 4 + i, 2), 4);
        __m512i found = _mm512_shuffle_epi8(eight, _mm512_or_si512(low, high));
        t[i] = _mm512_add_epi8(found, _mm512_set1_epi8((char)offset));
    }
}

CPU_INLINE void t16_third_by(const uint8_t *p, const uint8_t *third, const __m512i t[2],
                             __m512i w[8])
{
    const __m512i high = load_64(third);
    for (int i = 0; i < 2; i++) {
        const __m512i v = load_64(p + 64 * i);
        for (int j = 0; j < 2; j++) {
            const int from = 4 - 4 * i + 2 * j;
            __m512i both = select_bits(0x30, moved(high, from, 4), moved(v, 4 * j, 0));
            w[4 * i + 2 * j] = byte_of(t[0], both);
            w[4 * i + 2 * j + 1] = byte_of(t[1], both);
        }
    }
}

N_TABLES(q3_K)
{
    static const int8_t values[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    tables_of_3(values, 0, t->t);
}

N_HEAD(q3_K)
{
    (void)meta;
    h->d = sixteen_halves(p);
    scales_6x16(p + 32, h);
}

N_CODES(q3_K)
{
    t16_third_by(p + 736 + 128 * b, p + 224 + 64 * b, t->t, w);
}

N_SCALE(q3_K)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

/* ---- tables of values
 * ---------------------------------------------------------------------------- */

N_TABLES(iq4_k)
{
    t->t[0] = table_of(fr_iq4k_values, 16, 0, 128);
}

N_HEAD(iq4_k)
{
    (void)meta;
    h->d = sixteen_halves(p);
    scales_6x16(p + 64, h);
}

/* N16 by a table of 16. */
CPU_INLINE void n16_by(const uint8_t *p, __m512i table, __m512i w[8])
{
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 64 * j);
        w[j] = byte_of(table, v);
        w[4 + j] = byte_of(table, right(v, 4));
    }
}

N_CODES(iq4_k)
{
    n16_by(p + 256 + 256 * b, t->t[0], w);
}

N_SCALE(iq4_k)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

N_TABLES(iq2_k)
{
    for (int i = 0; i < 3; i++)
        t->t[i] = table_of(fr_iq2nl_values, 4, 2 * i, 32);
    t->t[3] = float_steps(-8, 1);
}

N_HEAD(iq2_k)
{
    (void)meta;
    h->d = sixteen_halves(p);
    h->lanes[0] = load_64(p + 64);
    h->lanes[1] = load_64(p + 128);
}

N_CODES(iq2_k)
{
    t16_by(p + 192 + 128 * b, t->t, w);
}

N_SCALE(iq2_k)
{
    (void)p;
    return lane_scale(h->lanes[s / 8], t->t[3], s % 8);
}

N_TABLES(iq4_xs)
{
    tables_iq4_k(t);
}

N_HEAD(iq4_xs)
{
    (void)meta;
    h->d = sixteen_halves(p);
    scales_6x8_only(p + 32, h);
}

N_CODES(iq4_xs)
{
    n16_by(p + 128 + 256 * b, t->t[0], w);
}

N_SCALE(iq4_xs)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

N_TABLES(iq4_ks)
{
    tables_iq4_k(t);
}

N_HEAD(iq4_ks)
{
    h->d = _mm512_loadu_ps(meta);
    scales_even(p, h);
}

N_CODES(iq4_ks)
{
    n16_by(p + 128 + 256 * b, t->t[0], w);
}

N_SCALE(iq4_ks)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

/* 32 values by five bits of the index. */
N_TABLES(iq5_k)
{
    __m512i v = _mm512_broadcast_i64x4(avx2_load(fr_iq5nl_values));
    t->t[0] = _mm512_add_epi8(v, _mm512_set1_epi8(-128));
}

CPU_INLINE void n16_fifth_by(const uint8_t *p, const uint8_t *bits, __m512i table, __m512i w[8])
{
    const __m512i fifth = load_64(bits);
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 64 * j);
        w[j] = byte_of(table, select_bits(16, moved(fifth, j, 4), v));
        w[4 + j] = byte_of(table, select_bits(16, moved(fifth, 4 + j, 4), right(v, 4)));
    }
}

N_HEAD(iq5_k)
{
    (void)meta;
    h->d = sixteen_halves(p);
    scales_6x16(p + 64, h);
}

N_CODES(iq5_k)
{
    n16_fifth_by(p + 768 + 256 * b, p + 256 + 64 * b, t->t[0], w);
}

N_SCALE(iq5_k)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

N_TABLES(iq5_ks)
{
    tables_iq5_k(t);
}

N_HEAD(iq5_ks)
{
    h->d = _mm512_loadu_ps(meta);
    scales_even(p, h);
}

N_CODES(iq5_ks)
{
    n16_fifth_by(p + 640 + 256 * b, p + 128 + 64 * b, t->t[0], w);
}

N_SCALE(iq5_ks)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

N_TABLES(iq3_k)
{
    tables_of_3(fr_iq3nl_values, 64, t->t);
    t->t[2] = float_steps(1, 2);
}

N_HEAD(iq3_k)
{
    (void)meta;
    h->d = sixteen_halves(p);
    h->lanes[0] = load_64(p + 96);
    h->lanes[1] = load_64(p + 160);
}

N_CODES(iq3_k)
{
    t16_third_by(p + 736 + 128 * b, p + 224 + 64 * b, t->t, w);
}

N_SCALE(iq3_k)
{
    __mmask16 minus;
    memcpy(&minus, p + 64 + 2 * s, sizeof minus);
    __m512 scale = lane_scale(h->lanes[s / 8], t->t[2], s % 8);
    return _mm512_mask_xor_ps(scale, minus, scale, _mm512_set1_ps(-0.0f));
}

/* ---- codebooks ------------------------------------------------------------------------------- */

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
    static const int8_t values[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                      -4, -12, -20, -28, -36, -44, -52, -62};
    load_table(cpu_native_books.iq3_xxs[0], 8, t->t);
    level_tables_3(values, t->t + 8);
}

N_HEAD(iq3_xxs)
{
    (void)meta;
    h->d = _mm512_mul_ps(sixteen_halves(p), _mm512_set1_ps(0.25f));
}

N_CODES(iq3_xxs)
{
    const __m512i signs = load_64(p + 32 + 64 * b);
    for (int i = 0; i < 2; i++) {
        const __m512i index = load_64(p + 544 + 128 * b + 64 * i);
        const index_masks m = masks_of(index);
        for (int j = 0; j < 2; j++)
            weights_of_3(byte_of_256(t->t + 4 * j, index, &m), signs, 4 * i + 2 * j, true, t->t + 8,
                         w);
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

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

#define N_HEAD_D(NAME)                                                                             \
    N_HEAD(NAME)                                                                                   \
    {                                                                                              \
        (void)meta;                                                                                \
        h->d = sixteen_halves(p);                                                                  \
    }
#define N_HEAD_D_M(NAME)                                                                           \
    N_HEAD(NAME)                                                                                   \
    {                                                                                              \
        (void)meta;                                                                                \
        h->d = sixteen_halves(p);                                                                  \
        h->m = sixteen_halves(p + 32);                                                             \
    }
#define N_NO_TABLES(NAME)                                                                          \
    N_TABLES(NAME)                                                                                 \
    {                                                                                              \
        (void)t;                                                                                   \
    }

N_NO_TABLES(q4_0)
N_HEAD_D(q4_0)
N_CODES(q4_0)
{
    (void)b, (void)t;
    n16_plain(p + 32, w);
}

N_NO_TABLES(q4_1)
N_HEAD_D_M(q4_1)
N_CODES(q4_1)
{
    (void)b, (void)t;
    n16_plain(p + 64, w);
}

N_NO_TABLES(q5_0)
N_HEAD_D(q5_0)
N_CODES(q5_0)
{
    (void)b, (void)t;
    n16_fifth(p + 96, p + 32, w);
}

N_NO_TABLES(q5_1)
N_HEAD_D_M(q5_1)
N_CODES(q5_1)
{
    (void)b, (void)t;
    n16_fifth(p + 128, p + 64, w);
}

N_NO_TABLES(q6_0)
N_HEAD_D(q6_0)
N_CODES(q6_0)
{
    (void)b, (void)t;
    n16_upper(p + 160, p + 32, w);
}

N_NO_TABLES(q8_0)
N_HEAD_D(q8_0)
N_CODES(q8_0)
{
    (void)b, (void)t;
    for (int j = 0; j < 8; j++)
        w[j] = load_64(p + 32 + 64 * j);
}

N_TABLES(iq4_nl)
{
    tables_iq4_k(t);
}

N_HEAD_D(iq4_nl)
N_CODES(iq4_nl)
{
    (void)b;
    n16_by(p + 32, t->t[0], w);
}

N_TABLES(mxfp4)
{
    t->t[0] = table_of(fr_mxfp4_values, 16, 0, 12);
}

/* 2^(e - 128): exponents below 2 give subnormal numbers. */
N_HEAD(mxfp4)
{
    (void)meta;
    const __m512i e = _mm512_cvtepu8_epi32(avx2_load_half(p)), one = _mm512_set1_epi32(1);
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
    __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), e);
    __mmask16 is_normal = _mm512_cmpgt_epi32_mask(e, one);
    h->d = _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_normal, tiny, normal));
}

N_CODES(mxfp4)
{
    (void)b;
    n16_by(p + 16, t->t[0], w);
}

#endif
