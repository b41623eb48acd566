/* Q8_0 and Q4_0: blocks of 32 with one scale, times activations of 32 with one scale. The integer
 * sum of a block is exact, eight lanes of it go into eight float sums. */
#include "cpu/x86/avx2.h"

/* The lanes of the block's integer sum times the scale, onto acc. */
CPU_INLINE __m256 add_block(__m256 acc, float scale, __m256i sums_16)
{
    __m256i sums = _mm256_madd_epi16(sums_16, _mm256_set1_epi16(1));
    return _mm256_fmadd_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sums), acc);
}

/* The multiplication of bytes wants one side unsigned: |w| * (x with the sign of w). |w| may be
 * 128; x never is below -127, so pairs stay within 16 bits: 2 * 128 * 127 = 32512. */
CPU_INLINE void tile_q8_0(const avx2_tile *j, const int nr, const int nc)
{
    __m256 acc[4][4];
    for (int r = 0; r < nr; r++) {
        for (int t = 0; t < nc; t++)
            acc[r][t] = _mm256_setzero_ps();
    }
    const uint8_t *block = j->w;
    for (int64_t i = 0; i < j->cols / 32; i++, block += 34) {
        for (int r = 0; r < nr; r++) {
            const uint8_t *b = block + (size_t)r * j->row_bytes;
            if (nc == 1)
                avx2_prefetch(b + (size_t)nr * j->row_bytes, 1);
            __m256i w = avx2_load(b + 2), size = _mm256_abs_epi8(w);
            float d = avx2_half(b);
            for (int t = 0; t < nc; t++) {
                const fr_act_q8_32 *x = (const fr_act_q8_32 *)j->x[t] + i;
                __m256i signed_x = _mm256_sign_epi8(avx2_load(x->q), w);
                acc[r][t] = add_block(acc[r][t], d * x->d, _mm256_maddubs_epi16(size, signed_x));
            }
        }
    }
    for (int r = 0; r < nr; r++) {
        for (int t = 0; t < nc; t++)
            j->y[t][j->y_at + r] = avx2_sum(acc[r][t]);
    }
}

/* The codes 0..15 are unsigned as they are; what the offset of 8 adds is the same for all rows. */
CPU_INLINE void tile_q4_0(const avx2_tile *j, const int nr, const int nc)
{
    const __m256i low = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    __m256 acc[4][4];
    for (int r = 0; r < nr; r++) {
        for (int t = 0; t < nc; t++)
            acc[r][t] = _mm256_setzero_ps();
    }
    const uint8_t *block = j->w;
    for (int64_t i = 0; i < j->cols / 32; i++, block += 18) {
        __m256i offset[4];
        for (int t = 0; t < nc; t++) {
            const fr_act_q8_32 *x = (const fr_act_q8_32 *)j->x[t] + i;
            offset[t] = _mm256_maddubs_epi16(eight, avx2_load(x->q));
        }
        for (int r = 0; r < nr; r++) {
            const uint8_t *b = block + (size_t)r * j->row_bytes;
            if (nc == 1)
                avx2_prefetch(b + (size_t)nr * j->row_bytes, 1);
            __m128i packed = avx2_load_half(b + 2);
            __m256i w = _mm256_and_si256(low, avx2_pair(packed, _mm_srli_epi16(packed, 4)));
            float d = avx2_half(b);
            for (int t = 0; t < nc; t++) {
                const fr_act_q8_32 *x = (const fr_act_q8_32 *)j->x[t] + i;
                __m256i sums = _mm256_maddubs_epi16(w, avx2_load(x->q));
                acc[r][t] = add_block(acc[r][t], d * x->d, _mm256_sub_epi16(sums, offset[t]));
            }
        }
    }
    for (int r = 0; r < nr; r++) {
        for (int t = 0; t < nc; t++)
            j->y[t][j->y_at + r] = avx2_sum(acc[r][t]);
    }
}

AVX2_TILED(dot_q8_0, tile_q8_0, FR_TYPE_Q8_0, 2)
AVX2_TILED(dot_q4_0, tile_q4_0, FR_TYPE_Q4_0, 2)

void cpu_avx2_fill_q32(cpu_table *t)
{
    t->dot[FR_TYPE_Q8_0][FR_LAYOUT_PLAIN] = (cpu_kernel){"q8_0.avx2", dot_q8_0, FR_ACT_Q8_32, 4};
    t->dot[FR_TYPE_Q4_0][FR_LAYOUT_PLAIN] = (cpu_kernel){"q4_0.avx2", dot_q4_0, FR_ACT_Q8_32, 4};
}
