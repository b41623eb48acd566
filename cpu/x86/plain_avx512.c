/* Plain Q8_0, Q4_0, Q4_K, Q5_K and Q6_K by AVX-512 VNNI: eight rows are unpacked each for itself,
 * 32 columns to a register, and turned so that they stand side by side (rows_avx2.h). */
#define ROWS_UNROLL _Pragma("GCC unroll 8")
#include "cpu/x86/avx512.h"
#include "cpu/x86/codes_avx2.h"

/* Row k's quad j to register j, lane k. */
CPU_INLINE void turn_quads(const __m256i r[8], __m256i w[8])
{
    __m256i pair[8], four[8];
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) { /* four[4 * i + q]: quads q and 4 + q of rows 4 * i .. */
        const __m256i *p = pair + 4 * i;
        four[4 * i] = _mm256_unpacklo_epi64(p[0], p[2]);
        four[4 * i + 1] = _mm256_unpackhi_epi64(p[0], p[2]);
        four[4 * i + 2] = _mm256_unpacklo_epi64(p[1], p[3]);
        four[4 * i + 3] = _mm256_unpackhi_epi64(p[1], p[3]);
    }
    for (int q = 0; q < 4; q++) {
        w[q] = _mm256_permute2x128_si256(four[q], four[4 + q], 0x20);
        w[4 + q] = _mm256_permute2x128_si256(four[q], four[4 + q], 0x31);
    }
}

/* n = 2: eight numbers a row, in the low halves; n = 4: sixteen. */
CPU_INLINE void turn_numbers(const __m128i r[8], const int n, int8_t out[16][ROWS])
{
    __m128i fours[2][4]; /* of rows 0..3 and 4..7: four numbers each */
    for (int i = 0; i < 2; i++) {
        const __m128i *p = r + 4 * i;
        for (int half = 0; half < n / 2; half++) {
            __m128i a = half ? _mm_unpackhi_epi8(p[0], p[1]) : _mm_unpacklo_epi8(p[0], p[1]);
            __m128i b = half ? _mm_unpackhi_epi8(p[2], p[3]) : _mm_unpacklo_epi8(p[2], p[3]);
            fours[i][2 * half] = _mm_unpacklo_epi16(a, b);
            fours[i][2 * half + 1] = _mm_unpackhi_epi16(a, b);
        }
    }
    join_numbers(fours[0], fours[1], n, out);
}

/* The f16 numbers at p[k] + at. */
CPU_INLINE __m256 halves_of_rows(const rows_at *at, size_t offset)
{
    uint16_t half[ROWS];
    for (int k = 0; k < ROWS; k++)
        memcpy(&half[k], at->p[k] + offset, sizeof half[k]);
    return _mm256_cvtph_ps(avx2_load_half(half));
}

/* ---- blocks of 32
 * ------------------------------------------------------------------------------------------ */

CPU_INLINE void head_d(const rows_at *at, rows_head *h)
{
    h->d = halves_of_rows(at, 0);
}

CPU_INLINE void codes_plain_q8_0(const rows_at *at, int b, __m256i w[8])
{
    (void)b;
    __m256i r[8];
    for (int k = 0; k < ROWS; k++)
        r[k] = avx2_load(at->p[k] + 2);
    turn_quads(r, w);
}

CPU_INLINE void codes_plain_q4_0(const rows_at *at, int b, __m256i w[8])
{
    (void)b;
    __m256i r[8];
    for (int k = 0; k < ROWS; k++) {
        __m128i packed = avx2_load_half(at->p[k] + 2);
        __m256i codes = low_nibbles(avx2_pair(packed, _mm_srli_epi16(packed, 4)));
        r[k] = _mm256_sub_epi8(codes, _mm256_set1_epi8(8));
    }
    turn_quads(r, w);
}

/* ---- blocks of 256
 * ----------------------------------------------------------------------------------------- */

/* The 6-bit scales and minima of q4_K and q5_K (FR_SCALES_6X8). */
CPU_INLINE void head_6x8(const rows_at *at, rows_head *h)
{
    __m128i sc[ROWS], mn[ROWS];
    h->d = halves_of_rows(at, 0);
    h->m = halves_of_rows(at, 2);
    for (int k = 0; k < ROWS; k++) {
        uint32_t p[3];
        memcpy(p, at->p[k] + 4, sizeof p);
        uint32_t sc_hi = (p[2] & 0x0F0F0F0F) | (p[0] >> 2 & 0x30303030);
        uint32_t mn_hi = (p[2] >> 4 & 0x0F0F0F0F) | (p[1] >> 2 & 0x30303030);
        uint64_t sc_8 = (p[0] & 0x3F3F3F3F) | (uint64_t)sc_hi << 32;
        uint64_t mn_8 = (p[1] & 0x3F3F3F3F) | (uint64_t)mn_hi << 32;
        sc[k] = _mm_cvtsi64_si128((long long)sc_8);
        mn[k] = _mm_cvtsi64_si128((long long)mn_8);
    }
    turn_numbers(sc, 2, h->sc);
    turn_numbers(mn, 2, h->mn);
}

CPU_INLINE void codes_plain_q4_K(const rows_at *at, int b, __m256i w[8])
{
    const int shift = 4 * (b % 2);
    __m256i r[8];
    for (int k = 0; k < ROWS; k++)
        r[k] = low_nibbles(_mm256_srli_epi16(avx2_load(at->p[k] + 16 + 32 * (b / 2)), shift));
    turn_quads(r, w);
}

CPU_INLINE void codes_plain_q5_K(const rows_at *at, int b, __m256i w[8])
{
    const int shift = 4 * (b % 2), from = b;
    const __m256i one = _mm256_set1_epi8(1);
    __m256i r[8];
    for (int k = 0; k < ROWS; k++) {
        __m256i low =
            low_nibbles(_mm256_srli_epi16(avx2_load(at->p[k] + 48 + 32 * (b / 2)), shift));
        __m256i fifth = _mm256_and_si256(_mm256_srli_epi16(avx2_load(at->p[k] + 16), from), one);
        r[k] = _mm256_or_si256(low, _mm256_slli_epi16(fifth, 4));
    }
    turn_quads(r, w);
}

CPU_INLINE void head_plain_q6_K(const rows_at *at, rows_head *h)
{
    __m128i sc[ROWS];
    h->d = halves_of_rows(at, 208);
    for (int k = 0; k < ROWS; k++)
        sc[k] = avx2_load_half(at->p[k] + 192);
    turn_numbers(sc, 4, h->sc);
}

CPU_INLINE void codes_plain_q6_K(const rows_at *at, int b, __m256i w[8])
{
    const int half = b / 4, i = b % 4;
    const int shift = 4 * (i / 2), from = 2 * i;
    const __m256i three = _mm256_set1_epi8(3), offset = _mm256_set1_epi8(32);
    __m256i r[8];
    for (int k = 0; k < ROWS; k++) {
        __m256i packed = avx2_load(at->p[k] + 64 * half + 32 * (i % 2));
        __m256i bits = avx2_load(at->p[k] + 128 + 32 * half);
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, from), three);
        __m256i low = low_nibbles(_mm256_srli_epi16(packed, shift));
        r[k] = _mm256_sub_epi8(_mm256_or_si256(low, _mm256_slli_epi16(high, 4)), offset);
    }
    turn_quads(r, w);
}

/* ---- slots
 * -------------------------------------------------------------------------------------------------
 */

/* X(NAME, TYPE, weights, bytes of a block, columns of a scale, signed, min, head) */
#define PLAIN_ALL(X)                                                                               \
    X(q8_0, Q8_0, 32, 34, 32, true, false, head_d)                                                 \
    X(q4_0, Q4_0, 32, 18, 32, true, false, head_d)                                                 \
    X(q4_K, Q4_K, 256, 144, 32, false, true, head_6x8)                                             \
    X(q5_K, Q5_K, 256, 176, 32, false, true, head_6x8)                                             \
    X(q6_K, Q6_K, 256, 210, 16, true, false, head_plain_q6_K)

#define PLAIN_DEFINE(NAME, TYPE, WEIGHTS, BYTES, COLS, SIGNED, MIN, HEAD)                          \
    static const rows_form plain_##NAME = {                                                        \
        FR_TYPE_##TYPE, FR_LAYOUT_PLAIN, 1, WEIGHTS, BYTES, 0, COLS, 1, SIGNED, MIN};              \
    static void dot_plain_##NAME(const cpu_dot_args *a)                                            \
    {                                                                                              \
        rows_dot(a, &plain_##NAME, HEAD, codes_plain_##NAME);                                      \
    }
PLAIN_ALL(PLAIN_DEFINE)

#define PLAIN_SLOT(NAME, TYPE, WEIGHTS, ...)                                                       \
    t->dot[FR_TYPE_##TYPE][FR_LAYOUT_PLAIN] = (cpu_kernel){                                        \
        #NAME ".avx512", dot_plain_##NAME, (WEIGHTS) == 32 ? FR_ACT_Q8_32 : FR_ACT_Q8_256, 16};

void cpu_avx512_fill_plain(cpu_table *t)
{
    PLAIN_ALL(PLAIN_SLOT)
}
