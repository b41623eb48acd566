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
