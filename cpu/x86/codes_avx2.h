/* How the types' interleaved forms become rows side by side (rows_avx2.h). Byte maps: the types'
 * headers (runtime/quant/types). N4, T4, B4: the arrangements of maps.h.
 *
 * Groups of four rows are unpacked one by one to four registers, byte 16h + 4k + i of register j
 * being row k, column 16h + 4j + i; two groups then swap halves. */
#ifndef FR_CPU_X86_CODES_AVX2_H
#define FR_CPU_X86_CODES_AVX2_H

#include "cpu/x86/rows_avx2.h"
#include "quant/tables.h"

/* ---- pieces
 * ------------------------------------------------------------------------------------------------
 */

CPU_INLINE __m128 four_halves(const uint8_t *p)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

CPU_INLINE __m256 eight_halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(avx2_load_half(p));
}

/* A table of 16 bytes in both halves. */
CPU_INLINE __m256i table_16(const int8_t *values)
{
    return _mm256_broadcastsi128_si256(avx2_load_half(values));
}

CPU_INLINE __m256i low_nibbles(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

CPU_INLINE __m256i high_nibbles(__m256i v)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

CPU_INLINE __m128i bits_of(__m128i v, const int from, const int width)
{
    return _mm_and_si128(_mm_srli_epi16(v, from), _mm_set1_epi8((char)((1 << width) - 1)));
}

/* low | high << 4 for high of two bits. */
CPU_INLINE __m128i with_high_2(__m128i low, __m128i high)
{
    return _mm_or_si128(low, _mm_slli_epi16(high, 4));
}

/* N4: p is at the sub-block. */
CPU_INLINE void quads_n4(const uint8_t *p, __m256i w[4])
{
    __m256i even = avx2_load(p), odd = avx2_load(p + 32);
    w[0] = low_nibbles(even), w[2] = high_nibbles(even);
    w[1] = low_nibbles(odd), w[3] = high_nibbles(odd);
}

/* T4. */
CPU_INLINE void quads_t4(const uint8_t *p, __m256i w[4])
{
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i v = avx2_load(p);
    w[0] = _mm256_and_si256(v, mask);
    w[1] = _mm256_and_si256(_mm256_srli_epi16(v, 2), mask);
    w[2] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
    w[3] = _mm256_and_si256(_mm256_srli_epi16(v, 6), mask);
}

/* Bit `from` of every byte, moved to bit `to`. */
CPU_INLINE __m256i moved_bit(__m256i v, const int from, const int to)
{
    __m256i moved = from < to ? _mm256_slli_epi16(v, to - from) : _mm256_srli_epi16(v, from - to);
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)(1 << to)));
}

/* B4: the 16 bytes in both halves, the upper one's bits moved down by `upper`. */
CPU_INLINE __m256i bits_b4(const uint8_t *p, const int upper)
{
    __m256i both = _mm256_broadcastsi128_si256(avx2_load_half(p));
    return _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, upper, upper, upper, upper));
}

/* Adds `step` to the codes of row k in half h where bit b of byte 4h + k is set. */
CPU_INLINE void shift_by_bits(const uint8_t *p, int b, const int step, __m256i w[4])
{
    const __m256i bit = _mm256_set1_epi32(1 << b);
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(bytes, bit), bit);
    __m256i add = _mm256_and_si256(set, _mm256_set1_epi8((char)step));
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_add_epi8(w[j], add);
}

CPU_INLINE void look_up(const int8_t *values, __m256i w[4])
{
    __m256i table = table_16(values);
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_shuffle_epi8(table, w[j]);
}

CPU_INLINE void subtract(const int offset, __m256i w[4])
{
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_sub_epi8(w[j], _mm256_set1_epi8((char)offset));
}

/* ---- scales of four rows, number 4 * s + k
 * ------------------------------------------------------------------ */

typedef struct {
    __m128 d, m;
    __m128i sc[4], mn[4];
} head_4;

/* 64 split nibbles, with or without two further bits of each. */
CPU_INLINE void split_scales(const uint8_t *nibbles, const uint8_t *high, const int offset,
                             __m128i sc[4])
{
    for (int i = 0; i < 4; i++) {
        sc[i] = bits_of(avx2_load_half(nibbles + 16 * (i % 2)), 4 * (i / 2), 4);
        if (high)
            sc[i] = with_high_2(sc[i], bits_of(avx2_load_half(high), 2 * i, 2));
        sc[i] = _mm_sub_epi8(sc[i], _mm_set1_epi8((char)offset));
    }
}

/* FR_SCALES_6X8_R4. */
CPU_INLINE void scales_6x8(const uint8_t *p, head_4 *h)
{
    __m128i high = avx2_load_half(p);
    for (int i = 0; i < 2; i++) {
        __m128i both = avx2_load_half(p + 16 + 16 * i);
        h->sc[i] = with_high_2(bits_of(both, 0, 4), bits_of(high, 4 * i, 2));
        h->mn[i] = with_high_2(bits_of(both, 4, 4), bits_of(high, 4 * i + 2, 2));
    }
}

/* Two groups' numbers, 16 * n each, become those of eight rows. */
CPU_INLINE void join_numbers(const __m128i *a, const __m128i *b, const int n, int8_t out[16][ROWS])
{
    for (int i = 0; i < n; i++) {
        _mm_storeu_si128((__m128i *)(void *)out[4 * i], _mm_unpacklo_epi32(a[i], b[i]));
        _mm_storeu_si128((__m128i *)(void *)out[4 * i + 2], _mm_unpackhi_epi32(a[i], b[i]));
    }
}

/* head_NAME and codes_NAME of groups of four rows, from head_4_NAME and quads_NAME. N_SC, N_MN:
 * sixteens of scales and minima. */
#define FROM_FOURS(NAME, N_SC, N_MN)                                                               \
    CPU_INLINE void head_##NAME(const rows_at *at, rows_head *h)                                   \
    {                                                                                              \
        head_4 a, b;                                                                               \
        head_4_##NAME(at->p[0], at->meta[0], &a);                                                  \
        head_4_##NAME(at->p[1], at->meta[1], &b);                                                  \
        h->d = _mm256_set_m128(b.d, a.d);                                                          \
        h->m = _mm256_set_m128(b.m, a.m);                                                          \
        join_numbers(a.sc, b.sc, N_SC, h->sc);                                                     \
        join_numbers(a.mn, b.mn, N_MN, h->mn);                                                     \
    }                                                                                              \
    CPU_INLINE void codes_##NAME(const rows_at *at, int b, __m256i w[8])                           \
    {                                                                                              \
        __m256i u[4], v[4];                                                                        \
        quads_##NAME(at->p[0], b, u);                                                              \
        quads_##NAME(at->p[1], b, v);                                                              \
        for (int j = 0; j < 4; j++) {                                                              \
            w[j] = _mm256_permute2x128_si256(u[j], v[j], 0x20);                                    \
            w[4 + j] = _mm256_permute2x128_si256(u[j], v[j], 0x31);                                \
        }                                                                                          \
    }

#define HEAD_4(NAME) CPU_INLINE void head_4_##NAME(const uint8_t *p, const uint8_t *meta, head_4 *h)
#define QUADS(NAME)  CPU_INLINE void quads_##NAME(const uint8_t *p, int b, __m256i w[4])

/* d at the start, no minima. */
CPU_INLINE void only_d(const uint8_t *p, head_4 *h)
{
    h->d = four_halves(p);
    h->m = _mm_setzero_ps();
}

CPU_INLINE void d_and_m(const uint8_t *p, head_4 *h)
{
    h->d = four_halves(p);
    h->m = four_halves(p + 8);
}

/* ---- eight rows, blocks of 32
 * ----------------------------------------------------------------------------- */

CPU_INLINE void head_q8_0(const rows_at *at, rows_head *h)
{
    h->d = eight_halves(at->p[0]);
}

CPU_INLINE void codes_q8_0(const rows_at *at, int b, __m256i w[8])
{
    (void)b;
    for (int j = 0; j < 8; j++)
        w[j] = avx2_load(at->p[0] + 16 + 32 * j);
}

CPU_INLINE void head_q4_0(const rows_at *at, rows_head *h)
{
    h->d = eight_halves(at->p[0]);
}

CPU_INLINE void codes_q4_0(const rows_at *at, int b, __m256i w[8])
{
    (void)b;
    const __m256i eight = _mm256_set1_epi8(8);
    for (int j = 0; j < 4; j++) {
        __m256i v = avx2_load(at->p[0] + 16 + 32 * j);
        w[j] = _mm256_sub_epi8(low_nibbles(v), eight);
        w[4 + j] = _mm256_sub_epi8(high_nibbles(v), eight);
    }
}

/* 2^(e - 128) of eight bytes: exponents below 2 give subnormal numbers. */
CPU_INLINE __m256 eight_powers(const uint8_t *p)
{
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    const __m256i one = _mm256_set1_epi32(1), least = _mm256_set1_epi32(0x200000);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    __m256i tiny = _mm256_sllv_epi32(least, e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(tiny, normal, _mm256_cmpgt_epi32(e, one)));
}

CPU_INLINE void head_mxfp4(const rows_at *at, rows_head *h)
{
    h->d = eight_powers(at->p[0]);
}

CPU_INLINE void codes_mxfp4(const rows_at *at, int b, __m256i w[8])
{
    (void)b;
    for (int j = 0; j < 4; j++) {
        __m256i v = avx2_load(at->p[0] + 8 + 32 * j);
        w[j] = low_nibbles(v);
        w[4 + j] = high_nibbles(v);
    }
    look_up(fr_mxfp4_values, w);
    look_up(fr_mxfp4_values, w + 4);
}

/* ---- eight rows, blocks of 256
 * ---------------------------------------------------------------------------- */

CPU_INLINE void head_iq4_xs(const rows_at *at, rows_head *h)
{
    const uint8_t *p = at->p[0];
    __m128i sc[4];
    h->d = eight_halves(p);
    split_scales(p + 32, p + 16, 32, sc);
    for (int i = 0; i < 4; i++)
        _mm_storeu_si128((__m128i *)(void *)h->sc[2 * i], sc[i]);
}

CPU_INLINE void codes_iq4_xs(const rows_at *at, int b, __m256i w[8])
{
    for (int l = 0; l < 4; l++) {
        __m256i v = avx2_load(at->p[0] + 64 + 128 * b + 32 * l);
        w[2 * l] = low_nibbles(v);
        w[2 * l + 1] = high_nibbles(v);
    }
    look_up(fr_iq4k_values, w);
    look_up(fr_iq4k_values, w + 4);
}

/* ---- four rows, blocks of 32
 * ------------------------------------------------------------------------------ */

HEAD_4(iq4_nl)
{
    (void)meta;
    only_d(p, h);
}

QUADS(iq4_nl)
{
    (void)b;
    quads_n4(p + 8, w);
    look_up(fr_iq4k_values, w);
}

HEAD_4(q4_1)
{
    (void)meta;
    d_and_m(p, h);
}

QUADS(q4_1)
{
    (void)b;
    quads_n4(p + 16, w);
}

/* Fifth bits of q5_0 and q5_1. */
CPU_INLINE void add_fifth(const uint8_t *p, __m256i w[4])
{
    __m256i bits = bits_b4(p, 1);
    w[0] = _mm256_or_si256(w[0], moved_bit(bits, 0, 4));
    w[1] = _mm256_or_si256(w[1], moved_bit(bits, 2, 4));
    w[2] = _mm256_or_si256(w[2], moved_bit(bits, 4, 4));
    w[3] = _mm256_or_si256(w[3], moved_bit(bits, 6, 4));
}

HEAD_4(q5_0)
{
    (void)meta;
    only_d(p, h);
}

QUADS(q5_0)
{
    (void)b;
    quads_n4(p + 24, w);
    add_fifth(p + 8, w);
    subtract(16, w);
}

HEAD_4(q5_1)
{
    (void)meta;
    d_and_m(p, h);
}

QUADS(q5_1)
{
    (void)b;
    quads_n4(p + 32, w);
    add_fifth(p + 16, w);
}

HEAD_4(q6_0)
{
    (void)meta;
    only_d(p, h);
}

QUADS(q6_0)
{
    (void)b;
    __m256i high[4];
    quads_n4(p + 40, w);
    quads_t4(p + 8, high);
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_or_si256(w[j], _mm256_slli_epi16(high[j], 4));
    subtract(32, w);
}

/* ---- four rows, blocks of 256
 * ----------------------------------------------------------------------------- */

HEAD_4(q4_K)
{
    (void)meta;
    d_and_m(p, h);
    scales_6x8(p + 16, h);
}

QUADS(q4_K)
{
    quads_n4(p + 64 + 64 * b, w);
}

HEAD_4(q5_K)
{
    (void)meta;
    d_and_m(p, h);
    scales_6x8(p + 16, h);
}

QUADS(q5_K)
{
    __m256i bits = bits_b4(p + 64 + 16 * b, 4);
    quads_n4(p + 192 + 64 * b, w);
    w[0] = _mm256_or_si256(w[0], moved_bit(bits, 0, 4));
    w[1] = _mm256_or_si256(w[1], moved_bit(bits, 2, 4));
    w[2] = _mm256_or_si256(w[2], moved_bit(bits, 1, 4));
    w[3] = _mm256_or_si256(w[3], moved_bit(bits, 3, 4));
}

HEAD_4(q6_K)
{
    (void)meta;
    only_d(p, h);
    for (int i = 0; i < 4; i++)
        h->sc[i] = avx2_load_half(p + 8 + 16 * i);
}

QUADS(q6_K)
{
    const __m256i mask = _mm256_set1_epi8(48);
    __m256i high = avx2_load(p + 72 + 32 * b);
    quads_n4(p + 328 + 64 * b, w);
    w[0] = _mm256_or_si256(w[0], _mm256_and_si256(_mm256_slli_epi16(high, 4), mask));
    w[1] = _mm256_or_si256(w[1], _mm256_and_si256(high, mask));
    w[2] = _mm256_or_si256(w[2], _mm256_and_si256(_mm256_slli_epi16(high, 2), mask));
    w[3] = _mm256_or_si256(w[3], _mm256_and_si256(_mm256_srli_epi16(high, 2), mask));
    subtract(32, w);
}

HEAD_4(q2_K)
{
    (void)meta;
    d_and_m(p, h);
    for (int i = 0; i < 4; i++) {
        __m128i both = avx2_load_half(p + 16 + 16 * i);
        h->sc[i] = bits_of(both, 0, 4);
        h->mn[i] = bits_of(both, 4, 4);
    }
}

QUADS(q2_K)
{
    quads_t4(p + 80 + 32 * b, w);
}

HEAD_4(q3_K)
{
    (void)meta;
    only_d(p, h);
    split_scales(p + 24, p + 8, 32, h->sc);
}

/* Third bits, bit 4h + j, of q3_K and iq3_k. */
CPU_INLINE void add_third(const uint8_t *p, __m256i w[4])
{
    __m256i bits = bits_b4(p, 4);
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_or_si256(w[j], moved_bit(bits, j, 2));
}

QUADS(q3_K)
{
    quads_t4(p + 184 + 32 * b, w);
    add_third(p + 56 + 16 * b, w);
    subtract(4, w);
}

HEAD_4(iq4_k)
{
    (void)meta;
    only_d(p, h);
    split_scales(p + 32, p + 16, 32, h->sc);
}

/* The second half of the table is 4 above the first, of iq2_k's 5. */
QUADS(iq4_k)
{
    quads_n4(p + 64 + 64 * b, w);
    look_up(fr_iq4k_values, w);
    shift_by_bits(p + 8, b, 4, w);
}

HEAD_4(iq2_k)
{
    (void)meta;
    only_d(p, h);
    split_scales(p + 16, NULL, 8, h->sc);
}

QUADS(iq2_k)
{
    const __m256i table = rows_load_4(fr_iq2nl_values);
    quads_t4(p + 48 + 32 * b, w);
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_shuffle_epi8(table, w[j]);
    shift_by_bits(p + 8, b, 5, w);
}

HEAD_4(iq3_k)
{
    (void)meta;
    only_d(p, h);
    split_scales(p + 24, NULL, 0, h->sc);
    __m128i minus = _mm_loadl_epi64((const __m128i *)(const void *)(p + 16)); /* bit s / 2 */
    minus = _mm_unpacklo_epi64(minus, minus);
    for (int i = 0; i < 4; i++) { /* s = 4 * i .. 4 * i + 3 */
        const char a = (char)(1 << (2 * i)), b = (char)(2 << (2 * i));
        const __m128i bit = _mm_setr_epi8(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
        __m128i set = _mm_cmpeq_epi8(_mm_and_si128(minus, bit), bit);
        __m128i odd = _mm_add_epi8(_mm_add_epi8(h->sc[i], h->sc[i]), _mm_set1_epi8(1));
        h->sc[i] = _mm_sub_epi8(_mm_xor_si128(odd, set), set);
    }
}

QUADS(iq3_k)
{
    quads_t4(p + 56 + 32 * b, w);
    add_third(p + 312 + 16 * b, w);
    look_up(fr_iq3nl_values, w);
    shift_by_bits(p + 8, b, 4, w);
}

/* 32 values: bit 4 of the code picks the table. */
CPU_INLINE void look_up_32(const int8_t *values, __m256i w[4])
{
    __m256i low = table_16(values), high = table_16(values + 16);
    for (int j = 0; j < 4; j++) {
        __m256i upper = _mm256_slli_epi16(w[j], 3); /* bit 4 becomes the sign of the byte */
        __m256i code = low_nibbles(w[j]);
        w[j] = _mm256_blendv_epi8(_mm256_shuffle_epi8(low, code), _mm256_shuffle_epi8(high, code),
                                  upper);
    }
}

/* Fifth bits of iq5_k and iq5_ks. */
CPU_INLINE void add_fifth_k(const uint8_t *p, __m256i w[4])
{
    __m256i bits = bits_b4(p, 2);
    w[0] = _mm256_or_si256(w[0], moved_bit(bits, 0, 4));
    w[1] = _mm256_or_si256(w[1], moved_bit(bits, 4, 4));
    w[2] = _mm256_or_si256(w[2], moved_bit(bits, 1, 4));
    w[3] = _mm256_or_si256(w[3], moved_bit(bits, 5, 4));
}

HEAD_4(iq5_k)
{
    (void)meta;
    only_d(p, h);
    split_scales(p + 32, p + 16, 32, h->sc);
}

QUADS(iq5_k)
{
    quads_n4(p + 64 + 64 * b, w);
    add_fifth_k(p + 576 + 16 * b, w);
    look_up_32(fr_iq5nl_values, w);
    shift_by_bits(p + 8, b, 2, w);
}

/* ---- four rows, blocks of 256, d in the header
 * ------------------------------------------------------------- */

/* Scale bytes whose bit 0 picks the half of the table. */
CPU_INLINE void byte_scales(const uint8_t *p, const uint8_t *meta, head_4 *h)
{
    h->d = _mm_loadu_ps((const float *)(const void *)meta);
    h->m = _mm_setzero_ps();
    for (int i = 0; i < 2; i++) {
        __m128i even = _mm_and_si128(avx2_load_half(p + 16 * i), _mm_set1_epi8(-2));
        h->sc[i] = _mm_sub_epi8(even, _mm_set1_epi8(127));
    }
}

/* Four bytes, each a lane of 32 bits in both halves. */
CPU_INLINE __m256i four_bytes(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_broadcastsi128_si256(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
}

/* Adds `step` to the codes of row k where `bit` of lane k is set. */
CPU_INLINE void shift_by_rows(__m256i lanes, int bit, const int step, __m256i w[4])
{
    const __m256i mask = _mm256_set1_epi32(1 << bit);
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(lanes, mask), mask);
    __m256i add = _mm256_and_si256(set, _mm256_set1_epi8((char)step));
    for (int j = 0; j < 4; j++)
        w[j] = _mm256_add_epi8(w[j], add);
}

HEAD_4(iq4_ks)
{
    byte_scales(p, meta, h);
}

QUADS(iq4_ks)
{
    quads_n4(p + 32 + 64 * b, w);
    look_up(fr_iq4k_values, w);
    shift_by_rows(four_bytes(p + 4 * b), 0, 4, w);
}

HEAD_4(iq5_ks)
{
    byte_scales(p, meta, h);
}

QUADS(iq5_ks)
{
    quads_n4(p + 32 + 64 * b, w);
    add_fifth_k(p + 544 + 16 * b, w);
    look_up_32(fr_iq5nl_values, w);
    shift_by_rows(four_bytes(p + 4 * b), 0, 2, w);
}

/* ---- codebooks
 * ---------------------------------------------------------------------------- */

/* Negates where a bit of `signs` is set: bit 4 * (j % 2) + i of byte j / 2 of a lane for weight i
 * of register j. */
CPU_INLINE void apply_signs(__m256i signs, __m256i w[4])
{
    const __m256i lanes = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0C0C0C0C, 0, 0x04040404,
                                            0x08080808, 0x0C0C0C0C);
    for (int j = 0; j < 4; j++) {
        const __m256i bit = _mm256_set1_epi32(j % 2 ? (int)0x80402010 : 0x08040201);
        __m256i from = _mm256_add_epi8(lanes, _mm256_set1_epi8((char)(j / 2)));
        __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(signs, from), bit);
        __m256i minus = _mm256_cmpeq_epi8(set, bit);
        w[j] = _mm256_sub_epi8(_mm256_xor_si256(w[j], minus), minus);
    }
}

/* Signs stored as their running xor in bits 1..7 of the 4 bytes of each row, for 32 columns. */
CPU_INLINE __m256i running_signs(const uint8_t *p)
{
    __m128i v = avx2_load_half(p);
    __m128i codes = _mm_and_si128(_mm_srli_epi16(v, 1), _mm_set1_epi8(127));
    __m128i signs = _mm_xor_si128(codes, _mm_and_si128(v, _mm_set1_epi8(-2)));
    __m256i both = _mm256_broadcastsi128_si256(signs);
    return _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 16, 16, 16, 16));
}

/* The scales in bit 0 of the same bytes, as 2 * sc + 1. */
CPU_INLINE void bit_scales(const uint8_t *p, __m128i sc[4])
{
    const __m128i ones = _mm_set1_epi8(1), weights = _mm_set1_epi32(0x08040201);
    for (int i = 0; i < 2; i++) { /* four sub-blocks of four rows */
        __m128i lane[4];
        for (int s = 0; s < 4; s++) {
            __m128i bits = _mm_and_si128(avx2_load_half(p + 16 * (4 * i + s)), ones);
            lane[s] = _mm_madd_epi16(_mm_maddubs_epi16(weights, bits), _mm_set1_epi16(1));
        }
        __m128i all =
            _mm_packus_epi16(_mm_packs_epi32(lane[0], lane[1]), _mm_packs_epi32(lane[2], lane[3]));
        sc[i] = _mm_add_epi8(_mm_add_epi8(all, all), ones);
    }
}

HEAD_4(iq3_xxs)
{
    (void)meta;
    h->d = _mm_mul_ps(four_halves(p), _mm_set1_ps(0.25f));
    h->m = _mm_setzero_ps();
    bit_scales(p + 8, h->sc);
}

QUADS(iq3_xxs)
{
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7), low = _mm256_set1_epi32(255);
    __m256i g = _mm256_permutevar8x32_epi32(avx2_load(p + 136 + 32 * b), order);
    for (int j = 0; j < 4; j++) {
        __m256i index = _mm256_and_si256(_mm256_srli_epi32(g, 8 * j), low);
        w[j] = _mm256_i32gather_epi32((const int *)fr_iq3xxs_grid, index, 4);
    }
    apply_signs(running_signs(p + 8 + 16 * b), w);
}

HEAD_4(iq3_s)
{
    (void)meta;
    only_d(p, h);
    __m128i both = avx2_load_half(p + 424);
    for (int i = 0; i < 2; i++) {
        __m128i sc = bits_of(both, 4 * i, 4);
        h->sc[i] = _mm_add_epi8(_mm_add_epi8(sc, sc), _mm_set1_epi8(1));
    }
}

QUADS(iq3_s)
{
    const __m256i upper = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    __m256i ninth = _mm256_srlv_epi32(four_bytes(p + 264 + 4 * b), upper);
    __m256i signs = bits_b4(p + 296 + 16 * b, 4);
    for (int j = 0; j < 4; j++) {
        const uint8_t *at = p + 8 + 32 * b + 8 * j;
        __m256i low = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(ninth, j), _mm256_set1_epi32(1));
        __m256i index = _mm256_or_si256(low, _mm256_slli_epi32(high, 8));
        __m256i bit = _mm256_set1_epi8((char)(1 << j));
        __m256i minus = _mm256_cmpeq_epi8(_mm256_and_si256(signs, bit), bit);
        w[j] = _mm256_i32gather_epi32((const int *)fr_iq3s_grid, index, 4);
        w[j] = _mm256_sub_epi8(_mm256_xor_si256(w[j], minus), minus);
    }
}

/* ---- codebooks of eight weights: number t = 2h + j / 2 of a row's four, its half j % 2
 * --------------------- */

/* index[i]: of t = 2h + i. */
CPU_INLINE void grids_of_8(const uint64_t *grid, const __m256i index[2], __m256i w[4])
{
    for (int j = 0; j < 4; j++) {
        __m256i half = _mm256_add_epi32(index[j / 2], index[j / 2]);
        half = _mm256_add_epi32(half, _mm256_set1_epi32(j % 2));
        w[j] = _mm256_i32gather_epi32((const int *)(const void *)grid, half, 4);
    }
}

/* Four bytes a row: two for each half. */
CPU_INLINE __m256i two_bytes(const uint8_t *p)
{
    __m256i both = _mm256_broadcastsi128_si256(avx2_load_half(p));
    return _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 16, 16, 16, 16));
}

/* Nibbles of the scales of 16 columns as 2 * sc + 1: byte 4b + k has 2b low, 2b + 1 high. */
CPU_INLINE void nibble_scales(const uint8_t *p, __m128i sc[4])
{
    for (int i = 0; i < 2; i++) {
        __m128i both = avx2_load_half(p + 16 * i);
        __m128i low = bits_of(both, 0, 4), high = bits_of(both, 4, 4);
        sc[2 * i] = _mm_unpacklo_epi32(low, high);
        sc[2 * i + 1] = _mm_unpackhi_epi32(low, high);
    }
    for (int i = 0; i < 4; i++)
        sc[i] = _mm_add_epi8(_mm_add_epi8(sc[i], sc[i]), _mm_set1_epi8(1));
}

/* d / 8: with scales of 2 * sc + 1, (0.5 + sc) / 4. */
CPU_INLINE void d_eighth(const uint8_t *p, head_4 *h)
{
    h->d = _mm_mul_ps(four_halves(p), _mm_set1_ps(0.125f));
    h->m = _mm_setzero_ps();
}

HEAD_4(iq2_xxs)
{
    (void)meta;
    d_eighth(p, h);
    bit_scales(p + 8, h->sc);
}

QUADS(iq2_xxs)
{
    const __m256i low = _mm256_set1_epi32(255);
    __m256i g = two_bytes(p + 136 + 16 * b);
    const __m256i index[2] = {_mm256_and_si256(g, low),
                              _mm256_and_si256(_mm256_srli_epi32(g, 8), low)};
    grids_of_8(fr_iq2xxs_grid, index, w);
    apply_signs(running_signs(p + 8 + 16 * b), w);
}

HEAD_4(iq2_xs)
{
    (void)meta;
    d_eighth(p, h);
    nibble_scales(p + 264, h->sc);
}

/* Words of 9 bits index and 7 bits running xor of the signs. */
QUADS(iq2_xs)
{
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7), low = _mm256_set1_epi32(511);
    __m256i words = _mm256_permutevar8x32_epi32(avx2_load(p + 8 + 32 * b), order);
    const __m256i index[2] = {_mm256_and_si256(words, low),
                              _mm256_and_si256(_mm256_srli_epi32(words, 16), low)};
    const __m256i high = _mm256_set1_epi16(0xFE);
    __m256i v = _mm256_and_si256(_mm256_srli_epi16(words, 8), high);
    __m256i signs = _mm256_xor_si256(v, _mm256_srli_epi16(v, 1));
    signs = _mm256_or_si256(signs, _mm256_srli_epi32(signs, 8)); /* bytes 0 and 2 to 0 and 1 */
    grids_of_8(fr_iq2xs_grid, index, w);
    apply_signs(signs, w);
}

HEAD_4(iq2_s)
{
    (void)meta;
    d_eighth(p, h);
    nibble_scales(p + 296, h->sc);
}

QUADS(iq2_s)
{
    const __m256i low = _mm256_set1_epi32(255), two = _mm256_set1_epi32(0x300);
    const __m256i upper = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    __m256i g = two_bytes(p + 8 + 16 * b);
    __m256i high = _mm256_slli_epi32(_mm256_srlv_epi32(four_bytes(p + 136 + 4 * b), upper), 8);
    const __m256i index[2] = {
        _mm256_or_si256(_mm256_and_si256(g, low), _mm256_and_si256(high, two)),
        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(g, 8), low),
                        _mm256_and_si256(_mm256_srli_epi32(high, 2), two))};
    grids_of_8(fr_iq2s_grid, index, w);
    apply_signs(two_bytes(p + 168 + 16 * b), w);
}

FROM_FOURS(iq3_k, 4, 0)
FROM_FOURS(iq5_k, 4, 0)
FROM_FOURS(iq4_ks, 2, 0)
FROM_FOURS(iq5_ks, 2, 0)
FROM_FOURS(iq3_s, 2, 0)
FROM_FOURS(iq2_xxs, 2, 0)
FROM_FOURS(iq2_xs, 4, 0)
FROM_FOURS(iq2_s, 4, 0)
FROM_FOURS(iq4_nl, 0, 0)
FROM_FOURS(q4_1, 0, 0)
FROM_FOURS(q5_0, 0, 0)
FROM_FOURS(q5_1, 0, 0)
FROM_FOURS(q6_0, 0, 0)
FROM_FOURS(q4_K, 2, 2)
FROM_FOURS(q5_K, 2, 2)
FROM_FOURS(q6_K, 4, 0)
FROM_FOURS(q2_K, 4, 4)
FROM_FOURS(q3_K, 4, 0)
FROM_FOURS(iq4_k, 4, 0)
FROM_FOURS(iq2_k, 4, 0)
FROM_FOURS(iq3_xxs, 2, 0)

#endif
