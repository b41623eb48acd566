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

/* FR_SCALE_LANES_16 and _8: a table of floats finds the scale. */
CPU_INLINE __m512 lane_scale(__m512i lanes, __m512i table, int i)
{
    __m512i index = _mm512_srli_epi32(lanes, (unsigned)(4 * i));
    return _mm512_permutexvar_ps(index, _mm512_castsi512_ps(table));
}

/* 2 * sc + 1 of the bits 7 of a row's four bytes at p. */
CPU_INLINE __m512 sign_scale(const uint8_t *p)
{
    const __m512i weights = _mm512_set1_epi32(0x08040201), half = _mm512_set1_epi32(64);
    __m512i v = _mm512_dpbusd_epi32(half, masked(load_64(p), 0x80), weights);
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(v, 6));
}

/* ---- q4_K, q6_K ------------------------------------------------------------------------------ */

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
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 256 + 256 * b + 64 * j);
        w[j] = masked(v, 15);
        w[4 + j] = masked(right(v, 4), 15);
    }
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
    const __m512i two = load_64(p + 288 + 128 * b), upper = load_64(p + 352 + 128 * b);
    for (int j = 0; j < 4; j++) {
        const int from = 2 * ((j + 2) % 4);
        __m512i v = load_64(p + 1312 + 256 * b + 64 * j);
        w[j] = masked(select_bits(0x30, moved(two, from, 4), v), 63);
        w[4 + j] = masked(select_bits(0x30, moved(upper, from, 4), right(v, 4)), 63);
    }
}

N_SCALE(q6_K)
{
    (void)h, (void)t;
    return scale_bytes(p + 32 + 16 * s);
}

/* ---- iq4_k, iq2_k ---------------------------------------------------------------------------- */

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

N_CODES(iq4_k)
{
    for (int j = 0; j < 4; j++) {
        __m512i v = load_64(p + 256 + 256 * b + 64 * j);
        w[j] = byte_of(t->t[0], v);
        w[4 + j] = byte_of(t->t[0], right(v, 4));
    }
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
    for (int i = 0; i < 2; i++) {
        __m512i v = load_64(p + 192 + 128 * b + 64 * i);
        for (int j = 0; j < 3; j++)
            w[4 * i + j] = byte_of(t->t[j], v);
        w[4 * i + 3] = byte_of(t->t[2], right(v, 2));
    }
}

N_SCALE(iq2_k)
{
    (void)p;
    return lane_scale(h->lanes[s / 8], t->t[3], s % 8);
}

/* ---- codebooks ------------------------------------------------------------------------------- */

/* 64 bytes out of a table of 256. */
CPU_INLINE __m512i byte_of_256(const __m512i t[4], __m512i index, __mmask64 upper)
{
    __m512i low = _mm512_permutex2var_epi8(t[0], index, t[1]);
    __m512i high = _mm512_permutex2var_epi8(t[2], index, t[3]);
    return _mm512_mask_blend_epi8(upper, low, high);
}

/* The eight signs of running xors in bits 0..6. */
CPU_INLINE __m512i signs_of_7(__m512i v)
{
    return _mm512_ternarylogic_epi32(v, _mm512_add_epi8(v, v), _mm512_set1_epi8(127), 0x6C);
}

/* iq3: bytes of a level in bits 0..2, its sign in bit 3, the next one's in bit 4, and its level in
 * bits 5..7, at two places of the index; values 64 +- level. */
N_TABLES(iq3_xxs)
{
    static const int8_t values[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                      -4, -12, -20, -28, -36, -44, -52, -62};
    for (int i = 0; i < 4; i++) {
        t->t[i] = load_64(cpu_native_books.iq3_xxs[0] + 64 * i);
        t->t[4 + i] = load_64(cpu_native_books.iq3_xxs[1] + 64 * i);
    }
    t->t[8] = table_of(values, 16, 0, 64);
    /* sign in bit 0, level in bits 1..3, after a shift by 4 */
    __m512i index = each_index();
    index = _mm512_or_si512(masked(right(index, 1), 7), masked(left(index, 3), 8));
    t->t[9] = byte_of(t->t[8], index);
}

N_HEAD(iq3_xxs)
{
    (void)meta;
    h->d = _mm512_mul_ps(sixteen_halves(p), _mm512_set1_ps(0.25f));
}

N_CODES(iq3_xxs)
{
    const __m512i signs = signs_of_7(load_64(p + 32 + 64 * b));
    for (int i = 0; i < 2; i++) {
        __m512i index = load_64(p + 544 + 128 * b + 64 * i);
        __mmask64 upper = _mm512_movepi8_mask(index);
        for (int j = 0; j < 2; j++) {
            __m512i both = byte_of_256(t->t + 4 * j, index, upper);
            both = select_bits(0x18, moved(signs, 4 * i + 2 * j, 3), both);
            w[4 * i + 2 * j] = byte_of(t->t[8], both);
            w[4 * i + 2 * j + 1] = byte_of(t->t[9], right(both, 4));
        }
    }
}

N_SCALE(iq3_xxs)
{
    (void)h, (void)t;
    return sign_scale(p + 32 + 64 * s);
}

#endif
