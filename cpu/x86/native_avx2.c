/* The native layout by AVX2: rows side by side, the two eights of a group in turn, block by block,
 * so that memory is read in one stream. */
#include "cpu/repacked.h"
#include "cpu/x86/native_alone.h"
#include "cpu/x86/native_ks_avx2.h"
#include "cpu/x86/native_kt_avx2.h"

/* A part of what is asked for while sixteen rows' block of `bytes` is met, eight parts a half; in
 * bursts it would have to wait. */
CPU_INLINE void ask_part(const rows_at *at, int b, const size_t bytes)
{
    const size_t lines = (bytes + 63) / 64, i = 8 * (size_t)at->half + (size_t)b;
    const size_t from = lines * i / 16, to = lines * (i + 1) / 16;
    avx2_ask_on(&at->ahead, 64 * from, 64 * (to - from));
}

/* Rows r0 .. r0 + 15, of which some may lie outside the call, times n tokens. */
CPU_INLINE void two_eights_of_rows(const cpu_dot_args *a, int64_t r0, const int n,
                                   const avx2_stream *stream, const rows_form *f,
                                   rows_head_fn *head, rows_codes_fn *codes)
{
    __m256 acc[2][CPU_MAX_TOKENS];
    rows_at at[2] = {rows_find(a, r0, f), rows_find(a, r0, f)};
    at[1].half = 1;
    for (int t = 0; t < n; t++)
        acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    for (int64_t i = 0; i < a->cols / f->weights; i++) {
        at[0].ahead = at[1].ahead = avx2_ahead_of(stream, at[0].p[0]);
#pragma GCC unroll 1
        for (int half = 0; half < 2; half++) {
            if (f->weights == 32) {
                avx2_ask_on(&at[half].ahead, (size_t)half * f->bytes / 2, f->bytes / 2);
                rows_block_32(a, &at[half], i, n, f, head, codes, acc[half]);
            } else {
                rows_block_256(a, &at[half], i, n, f, head, codes, acc[half]);
            }
            rows_next(&at[half], f);
        }
    }
    rows_put(a, r0, n, acc[0]);
    rows_put(a, r0 + ROWS, n, acc[1]);
}

CPU_INLINE void native_dot(const cpu_dot_args *a, const rows_form *f, rows_head_fn *head,
                           rows_codes_fn *codes)
{
    const size_t row_bytes = fr_row_bytes(f->type, FR_LAYOUT_NATIVE, a->cols);
    const avx2_stream stream = avx2_stream_of(a, row_bytes, 2 * ROWS);
    for (int64_t r = a->row_from / f->unit * f->unit; r < a->row_to; r += f->unit) {
        if (a->n_tokens == 1)
            two_eights_of_rows(a, r, 1, &stream, f, head, codes);
        else
            two_eights_of_rows(a, r, a->n_tokens, &stream, f, head, codes);
    }
}

/* X(NAME, TYPE, weights, bytes of sixteen rows' block, their headers, columns of a scale, fits,
 * signed, min): rows.inc says what they are. */
#define NATIVE_ALL(X)                                                                              \
    X(q2_K, Q2_K, 256, 1344, 0, 16, 4, false, true)                                                \
    X(q3_K, Q3_K, 256, 1760, 0, 16, 4, true, false)                                                \
    X(q4_K, Q4_K, 256, 2304, 0, 32, 8, false, true)                                                \
    X(q5_K, Q5_K, 256, 2816, 0, 32, 4, false, true)                                                \
    X(q6_K, Q6_K, 256, 3360, 0, 16, 4, true, false)                                                \
    X(iq4_xs, IQ4_XS, 256, 2176, 0, 32, 1, true, false)                                            \
    X(iq2_k, IQ2_K, 256, 1216, 0, 16, 4, true, false)                                              \
    X(iq3_k, IQ3_K, 256, 1760, 0, 16, 2, true, false)                                              \
    X(iq4_k, IQ4_K, 256, 2304, 0, 16, 1, true, false)                                              \
    X(iq5_k, IQ5_K, 256, 2816, 0, 16, 1, true, false)                                              \
    X(iq4_ks, IQ4_KS, 256, 2176, 64, 32, 1, true, false)                                           \
    X(iq5_ks, IQ5_KS, 256, 2688, 64, 32, 1, true, false)                                           \
    X(iq2_ks, IQ2_KS, 256, 1120, 32, 32, 2, true, false)                                           \
    X(iq3_ks, IQ3_KS, 256, 1632, 32, 32, 1, true, false)                                           \
    X(iq4_kss, IQ4_KSS, 256, 2048, 64, 32, 1, true, false)                                         \
    X(iq2_kl, IQ2_KL, 256, 1376, 32, 32, 2, true, false)                                           \
    X(iq2_xxs, IQ2_XXS, 256, 1056, 0, 32, 2, true, false)                                          \
    X(iq2_xs, IQ2_XS, 256, 1184, 0, 16, 2, true, false)                                            \
    X(iq2_s, IQ2_S, 256, 1312, 0, 16, 2, true, false)                                              \
    X(iq3_xxs, IQ3_XXS, 256, 1568, 0, 32, 2, true, false)                                          \
    X(iq3_s, IQ3_S, 256, 1760, 0, 32, 8, true, false)                                              \
    X(iq1_kt, IQ1_KT, 256, 896, 64, 32, 1, true, false)                                            \
    X(iq2_kt, IQ2_KT, 256, 1088, 64, 32, 1, true, false)                                           \
    X(iq3_kt, IQ3_KT, 256, 1600, 64, 32, 1, true, false)                                           \
    X(iq4_kt, IQ4_KT, 256, 2048, 64, 32, 1, true, false)                                           \
    X(iq1_s, IQ1_S, 256, 800, 0, 32, 8, true, false)                                               \
    X(iq1_m, IQ1_M, 256, 896, 0, 16, 8, true, false)                                               \
    X(q4_0, Q4_0, 32, 288, 0, 32, 8, true, false)                                                  \
    X(q4_1, Q4_1, 32, 320, 0, 32, 8, false, true)                                                  \
    X(q5_0, Q5_0, 32, 352, 0, 32, 8, true, false)                                                  \
    X(q5_1, Q5_1, 32, 384, 0, 32, 4, false, true)                                                  \
    X(q6_0, Q6_0, 32, 416, 0, 32, 4, true, false)                                                  \
    X(q8_0, Q8_0, 32, 544, 0, 32, 1, true, false)                                                  \
    X(iq4_nl, IQ4_NL, 32, 288, 0, 32, 1, true, false)                                              \
    X(iq1_s_r4, IQ1_S_R4, 32, 96, 32, 32, 8, true, false)                                          \
    X(mxfp4, MXFP4, 32, 272, 0, 32, 8, true, false)

#define NATIVE_DEFINE(NAME, TYPE, WEIGHTS, BYTES, META, COLS, FITS, SIGNED, MIN)                   \
    static const rows_form form_##NAME = {                                                         \
        FR_TYPE_##TYPE, FR_LAYOUT_NATIVE, 16, WEIGHTS, BYTES, META, COLS, FITS, SIGNED, MIN};      \
    static void expand_##NAME(const cpu_dot_args *a, int64_t r, int64_t chunk, gemm8_strip *s)     \
    {                                                                                              \
        gemm8_expand(a, r, chunk, s, &form_##NAME, head_8_##NAME, codes_8_##NAME);                 \
    }                                                                                              \
    CPU_INLINE void asking_##NAME(const rows_at *at, int b, __m256i w[8])                          \
    {                                                                                              \
        if ((WEIGHTS) == 256)                                                                      \
            ask_part(at, b, BYTES);                                                                \
        codes_8_##NAME(at, b, w);                                                                  \
    }                                                                                              \
    static void dot_##NAME(const cpu_dot_args *a)                                                  \
    {                                                                                              \
        const gemm8_form form = gemm8_form_of(&form_##NAME);                                       \
        if (a->n_tokens >= gemm8_min_tokens(&form))                                                \
            gemm8_run(a, &form, a->row_from / 16 * 16, expand_##NAME);                             \
        else                                                                                       \
            native_dot(a, &form_##NAME, head_8_##NAME, asking_##NAME);                             \
    }
NATIVE_ALL(NATIVE_DEFINE)

/* Blocks of 32 with two scales, in the order of native_avx512.h. */
static const rows_form form_iq1_m_r4 = {
    FR_TYPE_IQ1_M_R4, FR_LAYOUT_NATIVE, 16, 32, 112, 32, 16, 8, true, false};

static __m256 add_iq1_m_r4(__m256 y, const rows_at *at, const fr_act_q8_32 *x)
{
    _Alignas(32) int8_t room[32];
    __m256i w[8];
    __m256 d[2];
    half_iq1_m_r4_scales(at, d);
    codes_8_iq1_m_r4(at, 0, w);
    const rows_base base = rows_start(w, &form_iq1_m_r4);
    const int8_t *q = rows_x(x->q, &form_iq1_m_r4, room);
    __m256i first = rows_sum(base.start[0], w, q, 4, &form_iq1_m_r4);
    __m256i last = rows_sum(base.start[1], w + 4, q + 16, 4, &form_iq1_m_r4);
    __m256 v = _mm256_fmadd_ps(d[1], _mm256_cvtepi32_ps(last),
                               _mm256_mul_ps(d[0], _mm256_cvtepi32_ps(first)));
    return _mm256_fmadd_ps(v, _mm256_set1_ps(x->d), y);
}

static void dot_iq1_m_r4(const cpu_dot_args *a)
{
    for (int64_t r = a->row_from / ROWS * ROWS; r < a->row_to; r += ROWS) {
        for (int t = 0; t < a->n_tokens; t++) {
            const fr_act_q8_32 *x = a->x[t];
            rows_at at = rows_find(a, r, &form_iq1_m_r4);
            __m256 y = _mm256_setzero_ps();
            float lanes[ROWS];
            for (int64_t i = 0; i < a->cols / 32; i++, rows_next(&at, &form_iq1_m_r4))
                y = add_iq1_m_r4(y, &at, x + i);
            _mm256_storeu_ps(lanes, y);
            rows_store(a, r, t, lanes, ROWS);
        }
    }
}

#define NATIVE_SLOT(NAME, TYPE, WEIGHTS, ...)                                                      \
    t->dot[FR_TYPE_##TYPE][FR_LAYOUT_NATIVE] =                                                     \
        (cpu_kernel){.name = #NAME ".native.avx2",                                                 \
                     .dot = dot_##NAME,                                                            \
                     .act = (WEIGHTS) == 32 ? FR_ACT_Q8_32 : FR_ACT_Q8_256,                        \
                     .grain = 2 * ROWS,                                                            \
                     .many_rows = ROWS_MANY};

#define NATIVE_REPACKED(NAME, TYPE, ACT)                                                           \
    static void repacked_##NAME(const cpu_dot_args *a)                                             \
    {                                                                                              \
        cpu_dot_repacked(a, FR_LAYOUT_NATIVE, dot_##NAME);                                         \
    }
NATIVE_ALONE(NATIVE_REPACKED)

#define NATIVE_SLOTS_ALONE(NAME, TYPE, ACT)                                                        \
    for (int layout = 0; layout < FR_LAYOUT_NATIVE; layout++)                                      \
        t->dot[FR_TYPE_##TYPE][layout] =                                                           \
            (cpu_kernel){#NAME ".repacked.avx2", repacked_##NAME, ACT, 2 * ROWS, 0};

void cpu_avx2_fill_native(cpu_table *t)
{
    cpu_native_tables_make();
    NATIVE_ALL(NATIVE_SLOT)
    NATIVE_ALONE(NATIVE_SLOTS_ALONE)
    NATIVE_SLOT(iq1_m_r4, IQ1_M_R4, 32)
}
