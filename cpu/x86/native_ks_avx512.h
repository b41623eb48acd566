/* Types with a scale per row: how their native forms become registers of unsigned codes
 * (native_avx512.h). Byte maps: the types' headers (runtime/quant/types). */
#ifndef FR_CPU_X86_NATIVE_KS_AVX512_H
#define FR_CPU_X86_NATIVE_KS_AVX512_H

#include "cpu/x86/native_books_avx512.h"

/* ---- scales of five bits: nibbles in lanes, fifth bits beside them, minus 16
 * ------------------------------------------------------------------------ */

enum { KS_FIFTHS = 16, KS_NIBBLES = 32, KS_CODES = 96 }; /* bytes of a block */

CPU_INLINE __m512 ks_scale(const uint8_t *p, const native_head *h, __m512i table, int s)
{
    __mmask16 fifth;
    memcpy(&fifth, p + KS_FIFTHS + 2 * s, sizeof fifth);
    const __m512 low = lane_scale(h->lanes[0], table, s);
    return _mm512_mask_add_ps(low, fifth, low, _mm512_set1_ps(16.0f));
}

CPU_INLINE void ks_head(const uint8_t *p, const uint8_t *meta, native_head *h)
{
    h->d = sixteen_halves(meta);
    h->lanes[0] = load_64(p + KS_NIBBLES);
}

N_TABLES(iq2_ks)
{
    tables_iq2_k(t);
    t->t[3] = float_steps(-16, 1);
}

N_HEAD(iq2_ks)
{
    ks_head(p, meta, h);
}

N_CODES(iq2_ks)
{
    t16_by(p + KS_CODES + 128 * b, t->t, w);
}

N_SCALE(iq2_ks)
{
    return ks_scale(p, h, t->t[3], s);
}

N_TABLES(iq3_ks)
{
    tables_iq3_k(t);
    t->t[2] = float_steps(-16, 1);
}

N_HEAD(iq3_ks)
{
    ks_head(p, meta, h);
}

N_CODES(iq3_ks)
{
    t16_third_by(p + KS_CODES + 512 + 128 * b, p + KS_CODES + 64 * b, t->t, w);
}

N_SCALE(iq3_ks)
{
    return ks_scale(p, h, t->t[2], s);
}

/* ---- words that hold their scales' bits
 * ------------------------------------------------------------------------------ */

N_TABLES(iq4_kss)
{
    tables_iq4_k(t);
}

N_HEAD(iq4_kss)
{
    (void)p;
    h->d = _mm512_loadu_ps(meta);
}

N_CODES(iq4_kss)
{
    const __m512i not_scale = _mm512_set1_epi16((short)0xFFFE);
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 256 * b + 64 * j);
        __m512i q = _mm512_ternarylogic_epi32(not_scale, v, right(v, 1), 0x6A); /* a & b ^ c */
        w[j] = byte_of(t->t[0], q);
        w[4 + j] = byte_of(t->t[0], right(q, 4));
    }
}

/* Bits 0 and 16 of register j's lanes are bits 2j and 2j + 1 of the scale. */
N_SCALE(iq4_kss)
{
    (void)h, (void)t;
    __m512i bits = _mm512_setzero_si512();
    for (int j = 0; j < 4; j++) {
        const __m512i two = _mm512_set1_epi32(0x00010001 << (2 * j));
        __m512i v = left(load_64(p + 256 * s + 64 * j), 2 * j);
        bits = _mm512_ternarylogic_epi32(two, v, bits, 0xEA); /* a & b | c */
    }
    const __m512i even = _mm512_set1_epi32(254); /* bit 0 says which values */
    __m512i sc = _mm512_or_si512(bits, _mm512_srli_epi32(bits, 15));
    sc = _mm512_sub_epi32(_mm512_and_si512(sc, even), _mm512_set1_epi32(127));
    return _mm512_cvtepi32_ps(sc);
}

/* ---- pairs of weights ------------------------------------------------------------------------ */

N_TABLES(iq2_kl)
{
    for (int i = 0; i < 2; i++) {
        __m256i values = avx2_load(cpu_native_books.iq2_kl[i]);
        t->t[i] = _mm512_add_epi8(_mm512_broadcast_i64x4(values), _mm512_set1_epi8(64));
    }
}

N_HEAD(iq2_kl)
{
    h->d = sixteen_halves(meta);
    scales_6x8_only(p, h);
}

N_CODES(iq2_kl)
{
    const __m512i fifth = load_64(p + 96 + 64 * (b / 2));
    for (int i = 0; i < 4; i++) {
        __m512i v = load_64(p + 352 + 128 * b + 64 * (i % 2));
        __m512i pair = select_bits(16, moved(fifth, 4 * (b % 2) + i, 4), moved(v, 4 * (i / 2), 0));
        w[2 * i] = byte_of(t->t[0], pair);
        w[2 * i + 1] = byte_of(t->t[1], pair);
    }
}

N_SCALE(iq2_kl)
{
    (void)p, (void)t;
    return scale_bytes(h->sc[s]);
}

/* ---- blocks of 32, d in the rows' headers
 * ---------------------------------------------------------------------------- */

CPU_INLINE __m512 eighths_of_header(const uint8_t *meta)
{
    return _mm512_mul_ps(sixteen_halves(meta), _mm512_set1_ps(0.125f));
}

N_TABLES(iq1_s_r4)
{
    tables_iq1_s(t);
}

N_HEAD(iq1_s_r4)
{
    __m512i two = _mm512_srli_epi32(_mm512_cvtepu16_epi32(avx2_load(p + 64)), 11); /* 2 * sc */
    __m512i sc = part_or(two, 14, _mm512_set1_epi32(1));
    h->d = _mm512_mul_ps(eighths_of_header(meta), _mm512_cvtepi32_ps(sc));
}

N_CODES(iq1_s_r4)
{
    (void)b;
    const __m512i two = load_64(p), more = _mm512_cvtepu16_epi32(avx2_load(p + 64));
    const __m512i x = _mm512_and_si512(_mm512_srli_epi32(more, 4), _mm512_set1_epi32(2048));
    const __m512i tops = part_or(_mm512_slli_epi32(more, 10), 1024, x);
    const __m512i index[4] = {part_or(two, 2047, x), part_or(_mm512_srli_epi32(two, 11), 2047, x),
                              _mm512_or_si512(_mm512_srli_epi32(two, 22), tops),
                              part_or(_mm512_srli_epi32(more, 1), 2047, x)};
    for (int i = 0; i < 4; i++)
        weights_of_iq1(index[i], t->t[0], w + 2 * i);
}

N_TABLES(iq1_m_r4)
{
    tables_iq1_s(t);
}

N_HEAD(iq1_m_r4)
{
    const __m512 d = eighths_of_header(meta);
    const __m512i both = _mm512_cvtepu8_epi32(avx2_load_half(p + 96));
    const __m512i low = _mm512_and_si512(both, _mm512_set1_epi32(15));
    h->d = _mm512_mul_ps(d, _mm512_cvtepi32_ps(low));
    h->d_last = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4)));
}

N_CODES(iq1_m_r4)
{
    (void)b;
    const __m512i two = load_64(p), more = _mm512_cvtepu16_epi32(avx2_load(p + 64));
    const __m512i twelve = _mm512_set1_epi32(4095);
    const __m512i index[4] = {
        _mm512_and_si512(two, twelve), _mm512_and_si512(_mm512_srli_epi32(two, 12), twelve),
        part_or(_mm512_slli_epi32(more, 8), 0xF00, _mm512_srli_epi32(two, 24)),
        _mm512_srli_epi32(more, 4)};
    for (int i = 0; i < 4; i++)
        weights_of_iq1(index[i], t->t[0], w + 2 * i);
}

#endif
