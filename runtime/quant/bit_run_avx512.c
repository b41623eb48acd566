/* Programs of bit_program.h, four steps at a time: one in each 16 bytes of a register. */
#include <immintrin.h>

#include "quant/bit_program.h"

static inline __m128i load_1(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* 16 bytes of four steps that are `apart`. */
static inline __m512i load_4(const uint8_t *p, size_t apart)
{
    __m512i v = _mm512_castsi128_si512(load_1(p));
    v = _mm512_mask_broadcast_i32x4(v, 0x00F0, load_1(p + apart));
    v = _mm512_mask_broadcast_i32x4(v, 0x0F00, load_1(p + 2 * apart));
    return _mm512_mask_broadcast_i32x4(v, 0xF000, load_1(p + 3 * apart));
}

static inline void store_4(uint8_t *p, size_t apart, __m512i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_castsi512_si128(v));
    _mm_storeu_si128((__m128i *)(void *)(p + apart), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128((__m128i *)(void *)(p + 2 * apart), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128((__m128i *)(void *)(p + 3 * apart), _mm512_extracti32x4_epi32(v, 3));
}

/* Four strands' words side by side, for four words, out_step registers apart. */
static inline void weave_4(const uint8_t *src, size_t stride, size_t apart, __m512i *out,
                           size_t out_step)
{
    __m512i a = load_4(src, apart), b = load_4(src + stride, apart),
            c = load_4(src + 2 * stride, apart), d = load_4(src + 3 * stride, apart);
    __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    __m512i ef = _mm512_unpackhi_epi32(a, b), gh = _mm512_unpackhi_epi32(c, d);
    out[0] = _mm512_unpacklo_epi64(ab, cd);
    out[out_step] = _mm512_unpackhi_epi64(ab, cd);
    out[2 * out_step] = _mm512_unpacklo_epi64(ef, gh);
    out[3 * out_step] = _mm512_unpackhi_epi64(ef, gh);
}

/* v: what the term reads. No bit that the mask keeps leaves its byte, so words may rotate. */
static inline __m512i add(__m512i sum, const bit_term *t, __m512i v)
{
    __m512i x = _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(t->index));
    x = _mm512_rolv_epi32(x, _mm512_set1_epi32(t->rotate));
    return _mm512_ternarylogic_epi32(sum, x, _mm512_broadcast_i32x4(t->mask), 0x78);
}

/* As much as a unit moves. Asking faults nothing in, and may go beyond the end. */
static inline void ask(bit_place *at)
{
    __builtin_prefetch(at->soon_src);
    __builtin_prefetch(at->soon_dst, 1);
    at->soon_src += 64;
    at->soon_dst += 64;
}

/* By way of words that stand side by side: in `woven` 16 bytes of each step by turns. */
static void run_woven(const bit_program *p, bit_place at)
{
    __m512i woven[BIT_MAX_WEAVES * BIT_MAX_STRANDS], *out = woven;
    size_t row = (size_t)p->src.n / 4;
    for (int i = 0; i < p->n_weaves; i++, out += 4 * row)
        for (size_t s = 0; s < row; s++)
            weave_4(at.src + 4 * s * at.src_stride + p->weaves[i], at.src_stride, p->src.body,
                    out + s, row);
    for (const bit_unit *u = p->units, *end = u + p->n_units; u < end; u++) {
        const bit_term *t = p->terms + u->first;
        ask(&at);
        __m512i sum = _mm512_broadcast_i32x4(u->constant);
        for (const bit_term *e = t + u->n_left + u->n_right; t < e; t++)
            sum = add(sum, t, woven[t->off / 16]);
        store_4(at.dst + u->strand * at.dst_stride + u->off, p->dst.body, sum);
    }
}

static void run_strands(const bit_program *p, bit_place at)
{
    for (const bit_unit *u = p->units, *end = u + p->n_units; u < end; u++) {
        const bit_term *t = p->terms + u->first;
        ask(&at);
        __m512i sum = _mm512_broadcast_i32x4(u->constant);
        for (const bit_term *e = t + u->n_left + u->n_right; t < e; t++)
            sum = add(sum, t, load_4(at.src + t->strand * at.src_stride + t->off, p->src.body));
        store_4(at.dst + u->strand * at.dst_stride + u->off, p->dst.body, sum);
    }
}

void bit_run_4_avx512(const bit_program *p, bit_place at)
{
    if (p->n_weaves > 0)
        run_woven(p, at);
    else
        run_strands(p, at);
}

/* A look-up of bytes (vpermb) reads six bits of its index: every quarter of the table is looked up
 * where it, or none of those that follow, is meant. */
void bit_replace_avx512(uint8_t *p, size_t n, const uint8_t table[256])
{
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64),
                  t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (size_t i = 0; i < n; i += 64) {
        __m512i v = _mm512_loadu_si512(p + i);
        const __mmask64 bit_6 = _mm512_test_epi8_mask(v, _mm512_set1_epi8(64)),
                        bit_7 = _mm512_movepi8_mask(v), both = _kand_mask64(bit_6, bit_7);
        __m512i found = _mm512_permutexvar_epi8(v, t0);
        found = _mm512_mask_permutexvar_epi8(found, bit_6, v, t1);
        found = _mm512_mask_permutexvar_epi8(found, bit_7, v, t2);
        _mm512_storeu_si512(p + i, _mm512_mask_permutexvar_epi8(found, both, v, t3));
    }
}
