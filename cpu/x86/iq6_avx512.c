/* iq6_k by AVX-512: its values are no integers, so activations are floats. Sixteen native rows, a
 * lane each; a column's values are computed as the registry says, a polynomial of the code, and
 * meet one activation in all lanes. Rows in other layouts are repacked. */
#include "cpu/repacked.h"
#include "cpu/x86/native_codes_avx512.h"

enum { BLOCK_BYTES = 3392, CODES_HIGH = 320, CODES_LOW = 1344, X_BITS = 32, SCALES = 64 };

/* The values of byte i of every lane; `last` is the polynomial's constant, with x added. */
CPU_INLINE __m512 values_of(__m512i codes, const int i, __m512 last)
{
    const __m512i byte_i = _mm512_set4_epi32((int)0x8080800C + i, (int)0x80808008 + i,
                                             (int)0x80808004 + i, (int)0x80808000 + i);
    const __m512 q = _mm512_cvtepi32_ps(_mm512_shuffle_epi8(codes, byte_i));
    __m512 v = _mm512_fmadd_ps(q, _mm512_set1_ps(0.0011972f), _mm512_set1_ps(-0.11218f));
    v = _mm512_fmadd_ps(q, v, _mm512_set1_ps(6.2568f));
    return _mm512_fmadd_ps(q, v, last);
}

/* part[t] + scale s times the sum of its 16 columns, from column c of the activations on. */
CPU_INLINE void add_scale(const cpu_dot_args *a, const uint8_t *p, const __m512i w[4], int s,
                          int64_t c, const int n, __m512 *part)
{
    __m512 v[16];
    __mmask16 x_bits;
    memcpy(&x_bits, p + X_BITS + 2 * s, sizeof x_bits);
    const __m512 last =
        _mm512_mask_blend_ps(x_bits, _mm512_set1_ps(-127.0f), _mm512_set1_ps(-126.0f));
    const __m512 scale = scale_bytes(p + SCALES + 16 * s);
    for (int i = 0; i < 16; i++)
        v[i] = values_of(w[i / 4], i % 4, last);
    for (int t = 0; t < n; t++) {
        const float *x = (const float *)a->x[t] + c;
        __m512 even = _mm512_mul_ps(v[0], _mm512_set1_ps(x[0]));
        __m512 odd = _mm512_mul_ps(v[1], _mm512_set1_ps(x[1]));
        for (int i = 2; i < 16; i += 2) {
            even = _mm512_fmadd_ps(v[i], _mm512_set1_ps(x[i]), even);
            odd = _mm512_fmadd_ps(v[i + 1], _mm512_set1_ps(x[i + 1]), odd);
        }
        part[t] = _mm512_fmadd_ps(scale, _mm512_add_ps(even, odd), part[t]);
    }
}

/* Sixteen rows times n tokens. */
CPU_INLINE void sixteen_rows(const cpu_dot_args *a, const uint8_t *p, const int n, __m512 *y)
{
    __m512 part[CPU_MAX_TOKENS];
    for (int t = 0; t < n; t++)
        y[t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < a->cols / 256; i++, p += BLOCK_BYTES) {
        const __m512 d = sixteen_halves(p);
        for (int t = 0; t < n; t++)
            part[t] = _mm512_setzero_ps();
        for (int b = 0; b < 8; b++) {
            __m512i w[8];
            avx2_ask(p + BLOCK_BYTES / 8 * b, BLOCK_BYTES / 8);
            n16_upper(p + CODES_LOW + 256 * b, p + CODES_HIGH + 128 * b, w);
            add_scale(a, p, w, 2 * b, 256 * i + 32 * b, n, part);
            add_scale(a, p, w + 4, 2 * b + 1, 256 * i + 32 * b + 16, n, part);
        }
        for (int t = 0; t < n; t++)
            y[t] = _mm512_fmadd_ps(d, part[t], y[t]);
    }
}

static void dot_iq6_k(const cpu_dot_args *a)
{
    __m512 y[CPU_MAX_TOKENS];
    const size_t row_bytes = fr_row_bytes(FR_TYPE_IQ6_K, FR_LAYOUT_NATIVE, a->cols);
    for (int64_t r = a->row_from / NATIVE_ROWS * NATIVE_ROWS; r < a->row_to; r += NATIVE_ROWS) {
        const uint8_t *group = (const uint8_t *)a->base + (size_t)r * row_bytes;
        if (a->n_tokens == 1)
            sixteen_rows(a, group, 1, y);
        else
            sixteen_rows(a, group, a->n_tokens, y);
        for (int t = 0; t < a->n_tokens; t++) {
            cpu_dot_args one = *a;
            one.y = a->y + t;
            native_store(&one, r, 0, y[t]);
        }
    }
}

static void repacked_iq6_k(const cpu_dot_args *a)
{
    cpu_dot_repacked(a, FR_LAYOUT_NATIVE, dot_iq6_k);
}

void cpu_avx512_fill_iq6(cpu_table *t)
{
    for (int layout = 0; layout < FR_LAYOUT_NATIVE; layout++)
        t->dot[FR_TYPE_IQ6_K][layout] =
            (cpu_kernel){"iq6_k.repacked.avx512", repacked_iq6_k, FR_ACT_F32, NATIVE_ROWS, 0};
    t->dot[FR_TYPE_IQ6_K][FR_LAYOUT_NATIVE] =
        (cpu_kernel){"iq6_k.native.avx512", dot_iq6_k, FR_ACT_F32, NATIVE_ROWS, 0};
}
