/* What the AVX2 files share. Only included by files whose name ends in _avx2.c. */
#ifndef FR_CPU_X86_AVX2_H
#define FR_CPU_X86_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "cpu/kernels.h"

void cpu_avx2_fill_float(cpu_table *t);
void cpu_avx2_fill_plain(cpu_table *t);
void cpu_avx2_fill_rows(cpu_table *t);
void cpu_avx2_fill_native(cpu_table *t);
void cpu_avx2_fill_iq6(cpu_table *t);
void cpu_avx2_fill_any(cpu_table *t);
void cpu_avx2_fill_act(cpu_table *t);

#define CPU_INLINE static inline __attribute__((always_inline))

/* Some rows (from w on) times some tokens. A tile kernel takes it with constant nr rows and nc
 * tokens: y[t][r], t < nc, r < nr. */
typedef struct {
    const uint8_t *w;
    size_t row_bytes;
    int64_t cols;
    const void *const *x;
    float *const *y;
    int64_t y_at;
} avx2_tile;

/* The sum of the lanes, in one order for all kernels. */
CPU_INLINE float avx2_sum(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

CPU_INLINE float avx2_half(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

CPU_INLINE __m256i avx2_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

CPU_INLINE __m128i avx2_load_half(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

/* Asks for n bytes that will be read soon. With one token a kernel is as fast as memory; rows are
 * too short for the machine to find out by itself where the next one lies. May point behind the
 * matrix. */
CPU_INLINE void avx2_prefetch(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

/* The same for kernels that read one stream: asks for what stands so many bytes behind p, twice for
 * the second cache, which measured faster than once (cpu/README.md), and then for the first. */
enum { AVX2_FAR = 8192, AVX2_MIDDLE = 4096, AVX2_NEAR = 1024 };

CPU_INLINE void avx2_ask(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 64) {
        _mm_prefetch((const char *)p + AVX2_FAR + i, _MM_HINT_T1);
        _mm_prefetch((const char *)p + AVX2_MIDDLE + i, _MM_HINT_T1);
        _mm_prefetch((const char *)p + AVX2_NEAR + i, _MM_HINT_T0);
    }
}

/* What avx2_ask will not ask for: the start of the stream. */
CPU_INLINE void avx2_ask_first(const uint8_t *p)
{
    for (size_t i = 0; i < AVX2_FAR; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

/* A stream that goes on elsewhere at `end`: so many bytes further. */
typedef struct {
    const uint8_t *end;
    ptrdiff_t jump;
} avx2_stream;

typedef struct {
    const uint8_t *far, *middle, *near;
} avx2_ahead;

/* Of the rows of a call, in groups of `group` rows; asks for their start if nobody has. */
CPU_INLINE avx2_stream avx2_stream_of(const cpu_dot_args *a, size_t row_bytes, const int group)
{
    const uint8_t *base = a->base;
    avx2_stream s = {base + (size_t)((a->row_to + group - 1) / group * group) * row_bytes, 0};
    if (a->next)
        s.jump = (const uint8_t *)a->next - s.end;
    if (!a->asked)
        avx2_ask_first(base + (size_t)(a->row_from / group * group) * row_bytes);
    return s;
}

CPU_INLINE const uint8_t *avx2_stream_at(const avx2_stream *s, const uint8_t *p)
{
    return p < s->end ? p : p + s->jump;
}

CPU_INLINE avx2_ahead avx2_ahead_of(const avx2_stream *s, const uint8_t *p)
{
    return (avx2_ahead){avx2_stream_at(s, p + AVX2_FAR), avx2_stream_at(s, p + AVX2_MIDDLE),
                        avx2_stream_at(s, p + AVX2_NEAR)};
}

/* avx2_ask for n bytes, `at` bytes behind where `ahead` was made. */
CPU_INLINE void avx2_ask_on(const avx2_ahead *ahead, size_t at, size_t n)
{
    for (size_t i = at; i < at + n; i += 64) {
        _mm_prefetch((const char *)ahead->far + i, _MM_HINT_T1);
        _mm_prefetch((const char *)ahead->middle + i, _MM_HINT_T1);
        _mm_prefetch((const char *)ahead->near + i, _MM_HINT_T0);
    }
}

/* Two halves of a register, low first. */
CPU_INLINE __m256i avx2_pair(__m128i low, __m128i high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* A cpu_dot_fn from a tile kernel: four rows at a time, and of the tokens four, two, then one.
 * ROWS4 is how many rows a tile of four tokens takes (4, 2 or 1: as many as the registers hold).
 * The kernel must accumulate an element in the same order for every nr and nc. */
#define AVX2_TILED(NAME, TILE, TYPE, ROWS4)                                                        \
    static void NAME(const cpu_dot_args *a)                                                        \
    {                                                                                              \
        avx2_tile j = {.row_bytes = fr_row_bytes(TYPE, FR_LAYOUT_PLAIN, a->cols),                  \
                       .cols = a->cols};                                                           \
        for (int64_t r = a->row_from, n; r < a->row_to; r += n) {                                  \
            const uint8_t *w = (const uint8_t *)a->base + (size_t)r * j.row_bytes;                 \
            n = a->row_to - r >= 4 ? 4 : 1;                                                        \
            for (int t = 0, m; t < a->n_tokens; t += m) {                                          \
                m = a->n_tokens - t >= 4 ? 4 : a->n_tokens - t >= 2 ? 2 : 1;                       \
                j.w = w, j.x = a->x + t, j.y = a->y + t, j.y_at = r - a->row_from;                 \
                if (n == 4 && m == 4) {                                                            \
                    for (int i = 0; i < 4; i += ROWS4) {                                           \
                        TILE(&j, ROWS4, 4);                                                        \
                        j.w += ROWS4 * j.row_bytes, j.y_at += ROWS4;                               \
                    }                                                                              \
                } else if (n == 4 && m == 2) {                                                     \
                    TILE(&j, 4, 2);                                                                \
                } else if (n == 4) {                                                               \
                    TILE(&j, 4, 1);                                                                \
                } else if (m == 4) {                                                               \
                    TILE(&j, 1, 4);                                                                \
                } else if (m == 2) {                                                               \
                    TILE(&j, 1, 2);                                                                \
                } else {                                                                           \
                    TILE(&j, 1, 1);                                                                \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

#endif
