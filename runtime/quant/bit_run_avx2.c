/* Programs of bit_program.h, two steps at a time: the lower and the upper half of a register. */
#include <immintrin.h>

#include "quant/bit_program.h"

/* 16 bytes of two steps that are `apart`. */
static inline __m256i load_2(const uint8_t *p, size_t apart)
{
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm_loadu_si128((const __m128i *)(const void *)(p + apart)), 1);
}

static inline void store_2(uint8_t *p, size_t apart, __m256i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)(void *)(p + apart), _mm256_extracti128_si256(v, 1));
}

/* Four strands' words side by side, for four words, out_step registers apart. */
static inline void weave_4(const uint8_t *src, size_t stride, size_t apart, __m256i *out,
                           size_t out_step)
{
    __m256i a = load_2(src, apart), b = load_2(src + stride, apart),
            c = load_2(src + 2 * stride, apart), d = load_2(src + 3 * stride, apart);
    __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    __m256i ef = _mm256_unpackhi_epi32(a, b), gh = _mm256_unpackhi_epi32(c, d);
    out[0] = _mm256_unpacklo_epi64(ab, cd);
    out[out_step] = _mm256_unpackhi_epi64(ab, cd);
    out[2 * out_step] = _mm256_unpacklo_epi64(ef, gh);
    out[3 * out_step] = _mm256_unpackhi_epi64(ef, gh);
}

static inline __m256i both(const __m128i *p)
{
    return _mm256_broadcastsi128_si256(*p);
}

static inline __m256i shuffled(const bit_term *t, __m256i v)
{
    return _mm256_shuffle_epi8(v, both(&t->index));
}

/* v: what a term reads. */
static inline __m256i add_left(__m256i sum, const bit_term *t, __m256i v)
{
    __m256i x = _mm256_sll_epi16(shuffled(t, v), _mm_cvtsi32_si128(t->shift));
    return _mm256_xor_si256(sum, _mm256_and_si256(x, both(&t->mask)));
}

static inline __m256i add_right(__m256i sum, const bit_term *t, __m256i v)
{
    __m256i x = _mm256_srl_epi16(shuffled(t, v), _mm_cvtsi32_si128(t->shift));
    return _mm256_xor_si256(sum, _mm256_and_si256(x, both(&t->mask)));
}

/* As much as a unit moves. Asking faults nothing in, and may go beyond the end. */
static inline void ask(bit_place *at)
{
    __builtin_prefetch(at->soon_src);
    __builtin_prefetch(at->soon_dst, 1);
    at->soon_src += 32;
    at->soon_dst += 32;
}

/* By way of words that stand side by side: in `woven` 16 bytes of each step by turns. */
static void run_woven(const bit_program *p, bit_place at)
{
    __m256i woven[BIT_MAX_WEAVES * BIT_MAX_STRANDS], *out = woven;
    size_t row = (size_t)p->src.n / 4;
    for (int i = 0; i < p->n_weaves; i++, out += 4 * row)
        for (size_t s = 0; s < row; s++)
            weave_4(at.src + 4 * s * at.src_stride + p->weaves[i], at.src_stride, p->src.body,
                    out + s, row);
    for (const bit_unit *u = p->units, *end = u + p->n_units; u < end; u++) {
        const bit_term *t = p->terms + u->first;
        ask(&at);
        __m256i sum = both(&u->constant);
        for (const bit_term *e = t + u->n_left; t < e; t++)
            sum = add_left(sum, t, woven[t->off / 16]);
        for (const bit_term *e = t + u->n_right; t < e; t++)
            sum = add_right(sum, t, woven[t->off / 16]);
        store_2(at.dst + u->strand * at.dst_stride + u->off, p->dst.body, sum);
    }
}

static void run_strands(const bit_program *p, bit_place at)
{
    for (const bit_unit *u = p->units, *end = u + p->n_units; u < end; u++) {
        const bit_term *t = p->terms + u->first;
        ask(&at);
        __m256i sum = both(&u->constant);
        for (const bit_term *e = t + u->n_left; t < e; t++)
            sum =
                add_left(sum, t, load_2(at.src + t->strand * at.src_stride + t->off, p->src.body));
        for (const bit_term *e = t + u->n_right; t < e; t++)
            sum =
                add_right(sum, t, load_2(at.src + t->strand * at.src_stride + t->off, p->src.body));
        store_2(at.dst + u->strand * at.dst_stride + u->off, p->dst.body, sum);
    }
}

void bit_run_2_avx2(const bit_program *p, bit_place at)
{
    if (p->n_weaves > 0)
        run_woven(p, at);
    else
        run_strands(p, at);
}

/* A look-up of bytes (vpshufb) reads four bits of its index and gives 0 where bit 7 is set: so each
 * sixteenth of the table is looked up by what the index is above it, where less than 16, and by
 * something with bit 7 where not. */
void bit_replace_avx2(uint8_t *p, size_t n, const uint8_t table[256])
{
    const __m256i up = _mm256_set1_epi8(0x70), sixteen = _mm256_set1_epi8(16);
    for (size_t i = 0; i < n; i += 64) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(p + i)), found_a;
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 32)), found_b;
        found_a = found_b = _mm256_setzero_si256();
        for (int part = 0; part < 16; part++) {
            const __m256i t = _mm256_broadcastsi128_si256(
                _mm_loadu_si128((const __m128i *)(const void *)(table + 16 * part)));
            found_a = _mm256_or_si256(found_a, _mm256_shuffle_epi8(t, _mm256_adds_epu8(a, up)));
            found_b = _mm256_or_si256(found_b, _mm256_shuffle_epi8(t, _mm256_adds_epu8(b, up)));
            a = _mm256_sub_epi8(a, sixteen);
            b = _mm256_sub_epi8(b, sixteen);
        }
        _mm256_storeu_si256((__m256i *)(void *)(p + i), found_a);
        _mm256_storeu_si256((__m256i *)(void *)(p + i + 32), found_b);
    }
}
