/* iq6_k by AVX2, as by AVX-512 (iq6_avx512.c): eight rows of the sixteen, and then the others,
 * block by block. */
#include "cpu/repacked.h"
#include "cpu/x86/native_rows_avx2.h"

enum { BLOCK_BYTES = 3392, CODES_HIGH = 320, CODES_LOW = 1344, X_BITS = 32, SCALES = 64 };

/* The values of byte i of every lane; `last` is the polynomial's constant, with x added. */
CPU_INLINE __m256 values_of(__m256i codes, const int i, __m256 last)
{
    const __m256i byte_i = _mm256_broadcastsi128_si256(_mm_setr_epi32(
        (int)0x80808000 + i, (int)0x80808004 + i, (int)0x80808008 + i, (int)0x8080800C + i));
    const __m256 q = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(codes, byte_i));
    __m256 v = _mm256_fmadd_ps(q, _mm256_set1_ps(0.0011972f), _mm256_set1_ps(-0.11218f));
    v = _mm256_fmadd_ps(q, v, _mm256_set1_ps(6.2568f));
    return _mm256_fmadd_ps(q, v, last);
}

/* part[t] + scale s times the sum of its 16 columns, from column c of the activations on. */
CPU_INLINE void add_scale(const cpu_dot_args *a, const rows_at *at, const __m256i w[4], int s,
                          int64_t c, const int n, __m256 *part)
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const uint8_t *scales = at->p[0] + SCALES + 16 * s + 8 * at->half;
    const __m256i all = _mm256_set1_epi32(at->p[0][X_BITS + 2 * s + at->half]);
    const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(all, bits), bits);
    const __m256 last = _mm256_blendv_ps(_mm256_set1_ps(-127.0f), _mm256_set1_ps(-126.0f),
                                         _mm256_castsi256_ps(set));
    const __m256 scale = _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)scales)));
    __m256 v[16];
    for (int i = 0; i < 16; i++)
        v[i] = values_of(w[i / 4], i % 4, last);
    for (int t = 0; t < n; t++) {
        const float *x = (const float *)a->x[t] + c;
        __m256 even = _mm256_mul_ps(v[0], _mm256_set1_ps(x[0]));
        __m256 odd = _mm256_mul_ps(v[1], _mm256_set1_ps(x[1]));
        for (int i = 2; i < 16; i += 2) {
            even = _mm256_fmadd_ps(v[i], _mm256_set1_ps(x[i]), even);
            odd = _mm256_fmadd_ps(v[i + 1], _mm256_set1_ps(x[i + 1]), odd);
        }
        part[t] = _mm256_fmadd_ps(scale, _mm256_add_ps(even, odd), part[t]);
    }
}

/* y[t] + what a block adds, for the eight rows of `at`. */
CPU_INLINE void add_block(const cpu_dot_args *a, const rows_at *at, int64_t i, const int n,
                          __m256 *y)
{
    __m256 part[CPU_MAX_TOKENS];
    for (int t = 0; t < n; t++)
        part[t] = _mm256_setzero_ps();
    for (int b = 0; b < 8; b++) {
        __m256i w[8];
        codes_n16(at, CODES_LOW, b, w);
        half_upper(at, CODES_HIGH, b, w);
        add_scale(a, at, w, 2 * b, 256 * i + 32 * b, n, part);
        add_scale(a, at, w + 4, 2 * b + 1, 256 * i + 32 * b + 16, n, part);
    }
    const __m256 d = half_halves(at, 0);
    for (int t = 0; t < n; t++)
        y[t] = _mm256_fmadd_ps(d, part[t], y[t]);
}

CPU_INLINE void sixteen_rows(const cpu_dot_args *a, int64_t r0, const uint8_t *group, const int n)
{
    __m256 y[2][CPU_MAX_TOKENS];
    rows_at at = {.p = {group}};
    for (int t = 0; t < n; t++)
        y[0][t] = y[1][t] = _mm256_setzero_ps();
    for (int64_t i = 0; i < a->cols / 256; i++, at.p[0] += BLOCK_BYTES) {
#pragma GCC unroll 1
        for (at.half = 0; at.half < 2; at.half++) {
            avx2_ask(at.p[0] + at.half * (BLOCK_BYTES / 2), BLOCK_BYTES / 2);
            add_block(a, &at, i, n, y[at.half]);
        }
    }
    rows_put(a, r0, n, y[0]);
    rows_put(a, r0 + ROWS, n, y[1]);
}

static void dot_iq6_k(const cpu_dot_args *a)
{
    const size_t row_bytes = fr_row_bytes(FR_TYPE_IQ6_K, FR_LAYOUT_NATIVE, a->cols);
    for (int64_t r = a->row_from / (2 * ROWS) * (2 * ROWS); r < a->row_to; r += 2 * ROWS) {
        const uint8_t *group = (const uint8_t *)a->base + (size_t)r * row_bytes;
        if (a->n_tokens == 1)
            sixteen_rows(a, r, group, 1);
        else
            sixteen_rows(a, r, group, a->n_tokens);
    }
}

static void repacked_iq6_k(const cpu_dot_args *a)
{
    cpu_dot_repacked(a, FR_LAYOUT_NATIVE, dot_iq6_k);
}

void cpu_avx2_fill_iq6(cpu_table *t)
{
    for (int layout = 0; layout < FR_LAYOUT_NATIVE; layout++)
        t->dot[FR_TYPE_IQ6_K][layout] =
            (cpu_kernel){"iq6_k.repacked.avx2", repacked_iq6_k, FR_ACT_F32, 2 * ROWS, 0};
    t->dot[FR_TYPE_IQ6_K][FR_LAYOUT_NATIVE] =
        (cpu_kernel){"iq6_k.native.avx2", dot_iq6_k, FR_ACT_F32, 2 * ROWS, 0};
}
