/* F32 weights, as a router has them: sixteen partial sums per element, in float32. */
#include "cpu/x86/avx512.h"

enum { ROWS_AT_ONCE = 6, TOKENS_AT_ONCE = 4 };

#define EACH_ROW   _Pragma("GCC unroll 6") for (int r = 0; r < nr; r++)
#define EACH_TOKEN _Pragma("GCC unroll 4") for (int t = 0; t < nt; t++)

/* The sum of the lanes, in the order of float_sums. */
static float float_sum(__m512 v)
{
    __m128 low = _mm_add_ps(_mm512_castps512_ps128(v), _mm512_extractf32x4_ps(v, 1));
    __m128 high = _mm_add_ps(_mm512_extractf32x4_ps(v, 2), _mm512_extractf32x4_ps(v, 3));
    __m128 s = _mm_add_ps(low, high);
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* Of two registers: a's and b's quarters 0 and 2, plus 1 and 3. */
CPU_INLINE __m512 fold_quarters(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

/* The sums of the lanes of four registers. */
static __m128 float_sums(const __m512 v[4])
{
    __m512 s = fold_quarters(fold_quarters(v[0], v[1]), fold_quarters(v[2], v[3]));
    /* quarter t: four sums of v[t] */
    s = _mm512_add_ps(s, _mm512_shuffle_ps(s, s, 0x4E));
    s = _mm512_add_ps(s, _mm512_shuffle_ps(s, s, 0xB1));
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), s));
}

static __mmask16 first_lanes(int64_t n)
{
    return n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1);
}

/* nr rows times nt tokens. */
CPU_INLINE void float_tile(const avx2_tile *j, const int nr, const int nt)
{
    __m512 acc[ROWS_AT_ONCE][TOKENS_AT_ONCE];
    EACH_ROW EACH_TOKEN acc[r][t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < j->cols; i += 16) {
        const __mmask16 lanes = first_lanes(j->cols - i);
        __m512 x[TOKENS_AT_ONCE];
        EACH_TOKEN x[t] = _mm512_maskz_loadu_ps(lanes, (const float *)j->x[t] + i);
        EACH_ROW
        {
            const uint8_t *p = j->w + (size_t)r * j->row_bytes + (size_t)i * sizeof(float);
            if (nt == 1)
                avx2_ask(p, 64);
            __m512 w = _mm512_maskz_loadu_ps(lanes, p);
            EACH_TOKEN acc[r][t] = _mm512_fmadd_ps(w, x[t], acc[r][t]);
        }
    }
    EACH_ROW
    {
        if (nt == TOKENS_AT_ONCE) {
            _Alignas(16) float sums[4];
            _mm_store_ps(sums, float_sums(acc[r]));
            EACH_TOKEN j->y[t][j->y_at + r] = sums[t];
        } else {
            EACH_TOKEN j->y[t][j->y_at + r] = float_sum(acc[r][t]);
        }
    }
}

typedef void float_tile_fn(const avx2_tile *j);

#define SHAPE(NR, NT)                                                                              \
    static void tile_##NR##_##NT(const avx2_tile *j)                                               \
    {                                                                                              \
        float_tile(j, NR, NT);                                                                     \
    }
#define SHAPES_OF(NR)                                                                              \
    SHAPE(NR, 1)                                                                                   \
    SHAPE(NR, 2)                                                                                   \
    SHAPE(NR, 3)                                                                                   \
    SHAPE(NR, 4)
SHAPES_OF(1)
SHAPES_OF(2)
SHAPES_OF(3)
SHAPES_OF(4)
SHAPES_OF(5)
SHAPES_OF(6)

#define ROW_OF(NR)                                                                                 \
    {                                                                                              \
        tile_##NR##_1, tile_##NR##_2, tile_##NR##_3, tile_##NR##_4                                 \
    }
static float_tile_fn *const tiles[ROWS_AT_ONCE][TOKENS_AT_ONCE] = {ROW_OF(1), ROW_OF(2), ROW_OF(3),
                                                                   ROW_OF(4), ROW_OF(5), ROW_OF(6)};

/* What the next tokens need, a part with every tile of rows. */
static void ask_tokens(const cpu_dot_args *a, int t, int64_t r)
{
    int64_t bytes = a->cols * (int64_t)sizeof(float), n_rows = a->row_to - a->row_from;
    int64_t steps = (n_rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    int64_t part = (bytes / steps + 64) / 64 * 64, from = (r - a->row_from) / ROWS_AT_ONCE * part;
    for (int i = t; i < t + TOKENS_AT_ONCE && i < a->n_tokens; i++)
        for (int64_t b = from; b < from + part && b < bytes; b += 64)
            _mm_prefetch((const char *)a->x[i] + b, _MM_HINT_T1);
}

static void dot_f32(const cpu_dot_args *a)
{
    avx2_tile j = {.row_bytes = (size_t)a->cols * sizeof(float), .cols = a->cols};
    for (int t = 0, nt; t < a->n_tokens; t += nt) {
        nt = a->n_tokens - t < TOKENS_AT_ONCE ? a->n_tokens - t : TOKENS_AT_ONCE;
        for (int64_t r = a->row_from, nr; r < a->row_to; r += nr) {
            nr = a->row_to - r < ROWS_AT_ONCE ? a->row_to - r : ROWS_AT_ONCE;
            j.w = (const uint8_t *)a->base + (size_t)r * j.row_bytes;
            j.x = a->x + t, j.y = a->y + t, j.y_at = r - a->row_from;
            ask_tokens(a, t + TOKENS_AT_ONCE, r);
            tiles[nr - 1][nt - 1](&j);
        }
    }
}

void cpu_avx512_fill_float(cpu_table *t)
{
    t->dot[FR_TYPE_F32][FR_LAYOUT_PLAIN] = (cpu_kernel){"f32.avx512", dot_f32, FR_ACT_F32, 4, 0};
}
