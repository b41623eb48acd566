/* The native layout by AVX-512 VNNI and VBMI. */
#include "cpu/repacked.h"
#include "cpu/x86/gemm_native_avx512.h"
#include "cpu/x86/native_alone.h"
#include "cpu/x86/native_books_avx512.h"
#include "cpu/x86/native_ks_avx512.h"
#include "cpu/x86/native_kt_avx512.h"

/* X(NAME, TYPE, bytes of sixteen rows' block, their headers, columns of a scale, offset, step,
 * bits at, bytes of them, order of columns, minima) */
#define NATIVE_ALL(X)                                                                              \
    X(q2_K, Q2_K, 1344, 0, 16, 0, 0, 0, 0, IN_ORDER, true)                                         \
    X(q3_K, Q3_K, 1760, 0, 16, 4, 0, 0, 0, IN_ORDER, false)                                        \
    X(q4_K, Q4_K, 2304, 0, 32, 0, 0, 0, 0, IN_ORDER, true)                                         \
    X(q5_K, Q5_K, 2816, 0, 32, 0, 0, 0, 0, IN_ORDER, true)                                         \
    X(q6_K, Q6_K, 3360, 0, 16, 32, 0, 0, 0, IN_ORDER, false)                                       \
    X(iq4_xs, IQ4_XS, 2176, 0, 32, 128, 0, 0, 0, IN_ORDER, false)                                  \
    X(iq2_k, IQ2_K, 1216, 0, 16, 32, 5, 32, 2, IN_ORDER, false)                                    \
    X(iq3_k, IQ3_K, 1760, 0, 16, 64, 4, 32, 2, IN_ORDER, false)                                    \
    X(iq4_k, IQ4_K, 2304, 0, 16, 128, 4, 32, 2, IN_ORDER, false)                                   \
    X(iq5_k, IQ5_K, 2816, 0, 16, 128, 2, 32, 2, IN_ORDER, false)                                   \
    X(iq4_ks, IQ4_KS, 2176, 64, 32, 128, 4, 0, 16, IN_ORDER, false)                                \
    X(iq5_ks, IQ5_KS, 2688, 64, 32, 128, 2, 0, 16, IN_ORDER, false)                                \
    X(iq2_xxs, IQ2_XXS, 1056, 0, 32, 64, 0, 0, 0, BY_8, false)                                     \
    X(iq2_xs, IQ2_XS, 1184, 0, 16, 64, 0, 0, 0, IN_ORDER, false)                                   \
    X(iq2_s, IQ2_S, 1312, 0, 16, 64, 0, 0, 0, IN_ORDER, false)                                     \
    X(iq3_xxs, IQ3_XXS, 1568, 0, 32, 64, 0, 0, 0, BY_8, false)                                     \
    X(iq3_s, IQ3_S, 1760, 0, 32, 64, 0, 0, 0, BY_8, false)                                         \
    X(iq2_ks, IQ2_KS, 1120, 32, 32, 32, 5, 0, 2, IN_ORDER, false)                                  \
    X(iq3_ks, IQ3_KS, 1632, 32, 32, 64, 4, 0, 2, IN_ORDER, false)                                  \
    X(iq4_kss, IQ4_KSS, 2048, 64, 32, 128, 4, 0, 256, IN_ORDER, false)                             \
    X(iq2_kl, IQ2_KL, 1376, 32, 32, 64, 0, 0, 0, BY_2, false)                                      \
    X(iq1_kt, IQ1_KT, 896, 64, 32, 128, 0, 0, 0, IN_ORDER, false)                                  \
    X(iq2_kt, IQ2_KT, 1088, 64, 32, 128, 0, 0, 0, IN_ORDER, false)                                 \
    X(iq3_kt, IQ3_KT, 1600, 64, 32, 128, 0, 0, 0, IN_ORDER, false)                                 \
    X(iq4_kt, IQ4_KT, 2048, 64, 32, 128, 0, 0, 0, IN_ORDER, false)                                 \
    X(iq1_s, IQ1_S, 800, 0, 32, 16, 0, 0, 0, IN_ORDER, false)                                      \
    X(iq1_m, IQ1_M, 896, 0, 16, 16, 0, 0, 0, IN_ORDER, false)

/* Blocks of 32. X(NAME, TYPE, bytes of sixteen rows' block, their headers, offset, minima) */
#define NATIVE_ALL_32(X)                                                                           \
    X(q4_0, Q4_0, 288, 0, 8, false)                                                                \
    X(q4_1, Q4_1, 320, 0, 0, true)                                                                 \
    X(q5_0, Q5_0, 352, 0, 16, false)                                                               \
    X(q5_1, Q5_1, 384, 0, 0, true)                                                                 \
    X(q6_0, Q6_0, 416, 0, 32, false)                                                               \
    X(q8_0, Q8_0, 544, 0, 128, false)                                                              \
    X(iq4_nl, IQ4_NL, 288, 0, 128, false)                                                          \
    X(iq1_s_r4, IQ1_S_R4, 96, 32, 16, false)                                                       \
    X(mxfp4, MXFP4, 272, 0, 12, false)

#define NATIVE_DEFINE(NAME, TYPE, BYTES, META, COLS, OFFSET, STEP, AT, EACH, ORDER, MIN)           \
    static const native_form native_form_##NAME = {                                                \
        FR_TYPE_##TYPE, BYTES, META, COLS, OFFSET, STEP, AT, EACH, NATIVE_##ORDER, MIN};           \
    static void expand_##NAME(gemm_source *g, const gemm_part *part, int b, gemm_strip *s)         \
    {                                                                                              \
        gemm_native_expand((gemm_native_source *)g, part, b, s, &native_form_##NAME,               \
                           head_16_##NAME, codes_16_##NAME, scale_##NAME);                         \
    }                                                                                              \
    static void many_##NAME(const cpu_dot_args *a)                                                 \
    {                                                                                              \
        gemm_native_source from = {.base = {a, expand_##NAME}};                                    \
        gemm_native_dot(a, &from, &native_form_##NAME, tables_##NAME);                             \
    }                                                                                              \
    static void dot_##NAME(const cpu_dot_args *a)                                                  \
    {                                                                                              \
        if (a->n_tokens >= GEMM_MIN_TOKENS)                                                        \
            many_##NAME(a);                                                                        \
        else                                                                                       \
            native_dot(a, &native_form_##NAME, tables_##NAME, head_16_##NAME, codes_16_##NAME,     \
                       scale_##NAME);                                                              \
    }
NATIVE_ALL(NATIVE_DEFINE)

#define NATIVE_DEFINE_32(NAME, TYPE, BYTES, META, OFFSET, MIN)                                     \
    static const native_form native_form_##NAME = {                                                \
        FR_TYPE_##TYPE, BYTES, META, 32, OFFSET, 0, 0, 0, NATIVE_IN_ORDER, MIN};                   \
    static void expand_##NAME(gemm_source *g, const gemm_part *part, int b, gemm_strip *s)         \
    {                                                                                              \
        gemm_native_expand_32((gemm_native_source *)g, part, b, s, &native_form_##NAME,            \
                              head_16_##NAME, codes_16_##NAME);                                    \
    }                                                                                              \
    static void many_##NAME(const cpu_dot_args *a)                                                 \
    {                                                                                              \
        gemm_native_source from = {.base = {a, expand_##NAME}};                                    \
        gemm_native_dot_32(a, &from, &native_form_##NAME, tables_##NAME);                          \
    }                                                                                              \
    static void dot_##NAME(const cpu_dot_args *a)                                                  \
    {                                                                                              \
        if (a->n_tokens >= GEMM_MIN_TOKENS)                                                        \
            many_##NAME(a);                                                                        \
        else                                                                                       \
            native_dot_32(a, 0, &native_form_##NAME, tables_##NAME, head_16_##NAME,                \
                          codes_16_##NAME);                                                        \
    }
NATIVE_ALL_32(NATIVE_DEFINE_32)

/* Blocks of 32 with two scales, token by token. */
static const native_form native_form_iq1_m_r4 = {
    .type = FR_TYPE_IQ1_M_R4, .bytes = 112, .meta = 32, .scale_cols = 16, .offset = 16};

static void dot_iq1_m_r4(const cpu_dot_args *a)
{
    for (int t = 0; t < a->n_tokens; t++)
        native_dot_32(a, t, &native_form_iq1_m_r4, tables_iq1_m_r4, head_16_iq1_m_r4,
                      codes_16_iq1_m_r4);
}

#define NATIVE_SLOT_OF(NAME, TYPE, ACT)                                                            \
    t->dot[FR_TYPE_##TYPE][FR_LAYOUT_NATIVE] = (cpu_kernel){.name = #NAME ".native.avx512",        \
                                                            .dot = dot_##NAME,                     \
                                                            .act = ACT,                            \
                                                            .grain = NATIVE_ROWS,                  \
                                                            .many_rows = ROWS_MANY};
#define NATIVE_SLOT(NAME, TYPE, ...)    NATIVE_SLOT_OF(NAME, TYPE, FR_ACT_Q8_256)
#define NATIVE_SLOT_32(NAME, TYPE, ...) NATIVE_SLOT_OF(NAME, TYPE, FR_ACT_Q8_32)

#define NATIVE_REPACKED(NAME, TYPE, ACT)                                                           \
    static void repacked_##NAME(const cpu_dot_args *a)                                             \
    {                                                                                              \
        cpu_dot_repacked(a, FR_LAYOUT_NATIVE, dot_##NAME);                                         \
    }
NATIVE_ALONE(NATIVE_REPACKED)

#define NATIVE_SLOTS_ALONE(NAME, TYPE, ACT)                                                        \
    for (int layout = 0; layout < FR_LAYOUT_NATIVE; layout++)                                      \
        t->dot[FR_TYPE_##TYPE][layout] =                                                           \
            (cpu_kernel){#NAME ".repacked.avx512", repacked_##NAME, ACT, NATIVE_ROWS, 0};

void cpu_avx512_fill_native(cpu_table *t)
{
    cpu_native_tables_make();
    NATIVE_ALL(NATIVE_SLOT)
    NATIVE_ALL_32(NATIVE_SLOT_32)
    NATIVE_ALONE(NATIVE_SLOTS_ALONE)
    NATIVE_SLOT_OF(iq1_m_r4, IQ1_M_R4, FR_ACT_Q8_32)
}
