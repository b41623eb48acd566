/* The micro-kernels of gemm_avx2.inc: sixteen rows times up to four tokens. Each four activations
 * are broadcast once and meet both registers of rows; each register of codes meets all tokens. */
#include "cpu/x86/rows_avx2.h"

enum { PASS_ROWS = GEMM8_STRIPS * GEMM8_ROWS };

typedef float row_sums[PASS_ROWS]; /* of a token, the results so far */

/* Up to four tokens at the columns of a strip. */
typedef struct {
    const void *x[GEMM8_TOKENS]; /* their blocks */
    int n_blocks;                /* of 32 */
    union {
        _Alignas(64) uint8_t bytes[GEMM8_TOKENS][GEMM8_COLS]; /* for signed codes 128 above */
        int16_t words[GEMM8_TOKENS][GEMM8_COLS]; /* of 32 columns the even ones first */
    };
} tile_x;

/* What a call keeps on its stack. */
typedef struct {
    gemm8_strip strips[GEMM8_STRIPS];
    _Alignas(64) row_sums acc[CPU_MANY_TOKENS];
    tile_x tile;
} room;

#define EACH_EIGHT _Pragma("GCC unroll 2") for (int r = 0; r < 2; r++)
#define EACH_TOKEN _Pragma("GCC unroll 4") for (int t = 0; t < nt; t++)

CPU_INLINE __m256i load(const void *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

CPU_INLINE __m256i four_bytes(const void *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    __m256i fours = _mm256_set1_epi32(four);
    __asm__("" : "+x"(fours)); /* broadcast once, not by each of its two uses */
    return fours;
}

/* Keeps the compiler from making all products before it adds any: they do not fit the registers. */
CPU_INLINE __m256i in_order(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

/* ---- activations ----------------------------------------------------------------------------- */

/* 32 columns from q on. */
CPU_INLINE void put_x(tile_x *tile, int t, int b, const int8_t *q, gemm8_codes codes)
{
    __m256i v = avx2_load(q);
    if (codes == GEMM8_WORDS) {
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
        gemm8_store(tile->words[t] + 32 * b, even);
        gemm8_store(tile->words[t] + 32 * b + 16, _mm256_srai_epi16(v, 8));
        return;
    }
    if (codes == GEMM8_SIGNED)
        v = _mm256_xor_si256(v, _mm256_set1_epi8(-128));
    gemm8_store(tile->bytes[t] + 32 * b, v);
}

static void make_tile(tile_x *tile, const gemm8_form *f, const void *const *x, size_t at, int nt)
{
    for (int t = 0; t < nt; t++) {
        tile->x[t] = (const char *)x[t] + at;
        for (int b = 0; b < tile->n_blocks; b++)
            put_x(tile, t, b,
                  f->weights == 32 ? ((const fr_act_q8_32 *)tile->x[t])[b].q
                                   : ((const fr_act_q8_256 *)tile->x[t])->q + 32 * b,
                  f->codes);
    }
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* The sum of group g, in pairs of 16 bits. */
CPU_INLINE void sum_group(const gemm8_strip *s, const tile_x *tile, int g, const gemm8_form *f,
                          const int nt, __m256i sum[2][GEMM8_TOKENS])
{
    const uint8_t *x = tile->bytes[0] + 4 * f->group * g;
    _Pragma("GCC unroll 8") for (int q = 0; q < f->group; q++)
    {
        __m256i w[2];
        EACH_EIGHT w[r] = load(s->codes[f->group * g + q][ROWS * r]);
        EACH_TOKEN
        {
            __m256i fours = four_bytes(x + GEMM8_COLS * t + 4 * q);
            EACH_EIGHT
            {
                __m256i both = f->codes == GEMM8_SIGNED ? _mm256_maddubs_epi16(fours, w[r])
                                                        : _mm256_maddubs_epi16(w[r], fours);
                if (q > 0)
                    both = _mm256_add_epi16(both, sum[r][t]);
                else if (f->codes == GEMM8_SIGNED)
                    both = _mm256_add_epi16(both, load(s->start[g][ROWS * r]));
                sum[r][t] = in_order(both);
            }
        }
    }
}

/* sum += products of 32 columns as words */
CPU_INLINE void add_words(const gemm8_strip *s, const tile_x *tile, int b, const int nt,
                          __m256i sum[2][GEMM8_TOKENS])
{
    _Pragma("GCC unroll 16") for (int q = 16 * b; q < 16 * b + 16; q++)
    {
        __m256i w[2];
        EACH_EIGHT w[r] = load(s->words[q][ROWS * r]);
        EACH_TOKEN
        {
            __m256i two = four_bytes(tile->words[t] + 2 * q);
            EACH_EIGHT sum[r][t] =
                in_order(_mm256_add_epi32(sum[r][t], _mm256_madd_epi16(w[r], two)));
        }
    }
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

CPU_INLINE void sum_block(const gemm8_strip *s, const tile_x *tile, const gemm8_form *f,
                          const int nt, __m256i all[2][GEMM8_TOKENS])
{
    EACH_EIGHT
    EACH_TOKEN all[r][t] = _mm256_setzero_si256();
    if (f->codes == GEMM8_WORDS) {
        _Pragma("GCC unroll 1") for (int b = 0; b < 8; b++) add_words(s, tile, b, nt, all);
        return;
    }
    _Pragma("GCC unroll 1") for (int g = 0; g < 64 / f->group; g++)
    {
        __m256i sum[2][GEMM8_TOKENS];
        sum_group(s, tile, g, f, nt, sum);
        EACH_EIGHT
        {
            __m256i scale = load(s->scale[g][ROWS * r]);
            EACH_TOKEN all[r][t] = _mm256_add_epi32(all[r][t], _mm256_madd_epi16(sum[r][t], scale));
        }
    }
}

/* y -= m * x.d * (the minima times the sums of activations) */
CPU_INLINE __m256 take_minima_off(const gemm8_strip *s, const fr_act_q8_256 *x, const int r,
                                  const int scale_cols, __m256 x_d, __m256 y)
{
    const int16_t *sums = scale_cols == 16 ? x->sums : x->sums_32;
    __m256i sum = _mm256_setzero_si256();
    _Pragma("GCC unroll 8") for (int i = 0; i < 128 / scale_cols; i++)
    {
        __m256i pair = rows_load_4((const int8_t *)(sums + 2 * i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(load(s->min[i][ROWS * r]), pair));
    }
    __m256 m = _mm256_load_ps(s->m[0] + ROWS * r);
    return _mm256_fnmadd_ps(_mm256_mul_ps(m, x_d), _mm256_cvtepi32_ps(sum), y);
}

CPU_INLINE void multiply_256(const gemm8_strip *s, const tile_x *tile, const gemm8_form f,
                             const int nt, float *acc)
{
    __m256i all[2][GEMM8_TOKENS];
    sum_block(s, tile, &f, nt, all);
    EACH_TOKEN
    {
        const fr_act_q8_256 *x = tile->x[t];
        const __m256 x_d = _mm256_set1_ps(x->d);
        EACH_EIGHT
        {
            float *to = acc + PASS_ROWS * t + ROWS * r;
            __m256 d = _mm256_mul_ps(_mm256_load_ps(s->d[0] + ROWS * r), x_d);
            __m256 y = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(all[r][t]), _mm256_load_ps(to));
            if (f.min)
                y = take_minima_off(s, x, r, f.scale_cols, x_d, y);
            _mm256_store_ps(to, y);
        }
    }
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

CPU_INLINE void sum_block_32(const gemm8_strip *s, const tile_x *tile, int b, const gemm8_form *f,
                             const int nt, __m256i all[2][GEMM8_TOKENS])
{
    if (f->codes == GEMM8_WORDS) {
        EACH_EIGHT
        EACH_TOKEN all[r][t] = _mm256_setzero_si256();
        add_words(s, tile, b, nt, all);
        return;
    }
    const __m256i ones = _mm256_set1_epi16(1);
    _Pragma("GCC unroll 4") for (int g = 0; g < 8 / f->group; g++)
    {
        __m256i sum[2][GEMM8_TOKENS];
        sum_group(s, tile, 8 / f->group * b + g, f, nt, sum);
        EACH_EIGHT
        EACH_TOKEN
        {
            __m256i wide = _mm256_madd_epi16(sum[r][t], ones);
            all[r][t] = g == 0 ? wide : _mm256_add_epi32(all[r][t], wide);
        }
    }
}

CPU_INLINE void multiply_32(const gemm8_strip *s, const tile_x *tile, const gemm8_form f,
                            const int nt, float *acc)
{
    const int n_blocks = tile->n_blocks;
    __m256 y[2][GEMM8_TOKENS];
    EACH_EIGHT
    EACH_TOKEN y[r][t] = _mm256_load_ps(acc + PASS_ROWS * t + ROWS * r);
    _Pragma("GCC unroll 1") for (int b = 0; b < n_blocks; b++)
    {
        __m256i sum[2][GEMM8_TOKENS];
        sum_block_32(s, tile, b, &f, nt, sum);
        EACH_TOKEN
        {
            const fr_act_q8_32 *x = (const fr_act_q8_32 *)tile->x[t] + b;
            EACH_EIGHT
            {
                __m256 d = _mm256_load_ps(s->d[b] + ROWS * r);
                __m256 scaled = _mm256_mul_ps(d, _mm256_cvtepi32_ps(sum[r][t]));
                y[r][t] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(x->d), y[r][t]);
                if (f.min)
                    y[r][t] = _mm256_fmadd_ps(_mm256_load_ps(s->m[b] + ROWS * r),
                                              _mm256_set1_ps(x->s), y[r][t]);
            }
        }
    }
    EACH_EIGHT
    EACH_TOKEN _mm256_store_ps(acc + PASS_ROWS * t + ROWS * r, y[r][t]);
}

/* ---- one function for each form and number of tokens ----------------------------------------- */

/* acc: of the tile's first token and the strip's first row. */
typedef void multiply_fn(const gemm8_strip *s, const tile_x *x, float *acc);

#define MULTIPLY(NAME, NT, WEIGHTS, ...)                                                           \
    static void NAME##_##NT(const gemm8_strip *s, const tile_x *x, float *acc)                     \
    {                                                                                              \
        multiply_##WEIGHTS(s, x, (gemm8_form){.weights = WEIGHTS, __VA_ARGS__}, NT, acc);          \
    }
#define SHAPES(NAME, ...)                                                                          \
    MULTIPLY(NAME, 1, __VA_ARGS__)                                                                 \
    MULTIPLY(NAME, 2, __VA_ARGS__)                                                                 \
    MULTIPLY(NAME, 3, __VA_ARGS__)                                                                 \
    MULTIPLY(NAME, 4, __VA_ARGS__)
#define ROW(NAME)                                                                                  \
    {                                                                                              \
        NAME##_1, NAME##_2, NAME##_3, NAME##_4                                                     \
    }

#define U(COLS, GROUP) .codes = GEMM8_UNSIGNED, .scale_cols = COLS, .group = GROUP, .min = true
#define S(GROUP)       .codes = GEMM8_SIGNED, .group = GROUP
#define W              .codes = GEMM8_WORDS, .group = 1

SHAPES(u16_4, 256, U(16, 4))
SHAPES(u32_4, 256, U(32, 4))
SHAPES(u32_8, 256, U(32, 8))
SHAPES(s_2, 256, S(2))
SHAPES(s_4, 256, S(4))
SHAPES(s_8, 256, S(8))
SHAPES(words, 256, W)
SHAPES(u_4_of_32, 32, U(32, 4))
SHAPES(u_8_of_32, 32, U(32, 8))
SHAPES(s_4_of_32, 32, S(4))
SHAPES(s_8_of_32, 32, S(8))
SHAPES(words_of_32, 32, W)

typedef multiply_fn *multiply_row[GEMM8_TOKENS]; /* [tokens - 1] */

static const multiply_row by_16 = ROW(u16_4), by_32[2] = {ROW(u32_4), ROW(u32_8)},
                          by_sign[3] = {ROW(s_2), ROW(s_4), ROW(s_8)}, by_word = ROW(words),
                          of_32[2][2] = {{ROW(s_4_of_32), ROW(s_8_of_32)},
                                         {ROW(u_4_of_32), ROW(u_8_of_32)}},
                          of_32_word = ROW(words_of_32);

/* Unsigned codes of blocks of 256 fit by 4 or 8, as those of blocks of 32 do. */
static const multiply_row *kernels_of(const gemm8_form *f)
{
    if (f->codes == GEMM8_WORDS)
        return f->weights == 32 ? &of_32_word : &by_word;
    if (f->weights == 32)
        return &of_32[f->codes == GEMM8_UNSIGNED][f->group == 8];
    if (f->codes == GEMM8_SIGNED)
        return &by_sign[f->group == 2 ? 0 : f->group == 4 ? 1 : 2];
    return f->scale_cols == 16 ? &by_16 : &by_32[f->group == 8];
}

/* ---- all tokens of a call -------------------------------------------------------------------- */

/* Tokens i.. of n that a tile takes: tiles as even as possible. */
static int tile_at(int n, int i)
{
    const int n_tiles = (n + GEMM8_TOKENS - 1) / GEMM8_TOKENS;
    return n * i / n_tiles;
}

/* All tokens meet the strips of a pass at columns 256 * chunk. */
static void meet(const cpu_dot_args *a, const gemm8_form *f, int64_t chunk, int n_strips, room *m)
{
    const multiply_row *kernels = kernels_of(f);
    const size_t at = (size_t)chunk * fr_act_row_bytes(a->act, GEMM8_COLS);
    m->tile.n_blocks = gemm8_blocks_32(a, chunk);
    for (int i = 0, t = 0, nt; t < a->n_tokens; i++, t += nt) {
        nt = tile_at(a->n_tokens, i + 1) - t;
        make_tile(&m->tile, f, a->x + t, at, nt);
        for (int k = 0; k < n_strips; k++)
            (*kernels)[nt - 1](&m->strips[k], &m->tile, m->acc[t] + GEMM8_ROWS * k);
    }
}

/* Writes the results of a pass's rows that the call asks for. */
static void store(const cpu_dot_args *a, int64_t r0, int n_strips, const row_sums *acc)
{
    for (int t = 0; t < a->n_tokens; t++) {
        for (int k = 0; k < n_strips * GEMM8_ROWS; k += ROWS) {
            if (r0 + k >= a->row_from && r0 + k + ROWS <= a->row_to)
                _mm256_storeu_ps(a->y[t] + (r0 + k - a->row_from), _mm256_load_ps(acc[t] + k));
            else
                rows_store(a, r0 + k, t, acc[t] + k, ROWS);
        }
    }
}

void gemm8_run(const cpu_dot_args *a, const gemm8_form *f, int64_t r0, gemm8_expand_fn *expand)
{
    room m;
    for (int64_t pass = r0; pass < a->row_to; pass += PASS_ROWS) {
        const int64_t left = (a->row_to - pass + GEMM8_ROWS - 1) / GEMM8_ROWS;
        const int n_strips = left < GEMM8_STRIPS ? (int)left : GEMM8_STRIPS;
        memset(m.acc, 0, (size_t)a->n_tokens * sizeof m.acc[0]);
        for (int64_t chunk = 0; chunk * GEMM8_COLS < a->cols; chunk++) {
            for (int k = 0; k < n_strips; k++)
                expand(a, pass + GEMM8_ROWS * k, chunk, &m.strips[k]);
            meet(a, f, chunk, n_strips, &m);
        }
        store(a, pass, n_strips, m.acc);
    }
}
