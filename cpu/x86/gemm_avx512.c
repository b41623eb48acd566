/* The micro-kernels of gemm.inc: 32 rows (or 16) times up to six tokens in registers. Each
 * four activations are broadcast once and meet both registers of rows; each register of codes meets
 * all tokens. Twelve sums in flight hide the latency of the instruction. */
#include "cpu/x86/avx512.h"
#include "cpu/x86/rows_avx2.h"

/* 256 columns of a token's activations. */
typedef struct {
    _Alignas(64) int32_t start[16]; /* blocks of 256: what the sums of each scale start from */
    int32_t sums[8];                /* blocks of 256: two int16, of neighbouring scales */
    float d;                        /* of a block of 256 */
    const fr_act_q8_32 *x_32;
    _Alignas(64) uint8_t q[GEMM_COLS]; /* where they had to be changed */
} gemm_x;

/* Of up to six tokens. */
typedef struct {
    gemm_x x[GEMM_TOKENS];
    const uint8_t *q[GEMM_TOKENS];
    bool small; /* whether all keep the sums small (gemm_whole) */
} gemm_tile;

#define EACH_SIXTEEN _Pragma("GCC unroll 2") for (int r = 0; r < nr; r++)
#define EACH_TOKEN   _Pragma("GCC unroll 6") for (int t = 0; t < nt; t++)

/* ---- activations
 * ------------------------------------------------------------------------------------ */

/* Blocks of 32: activations 128 above their value. */
CPU_INLINE void take_32(const fr_act_q8_32 *from, int n_blocks, gemm_x *x)
{
    const __m256i top = _mm256_set1_epi8(-128);
    x->x_32 = from;
    for (int b = 0; b < n_blocks; b++) {
        __m256i moved = _mm256_xor_si256(avx2_load(from[b].q), top);
        _mm256_store_si256((__m256i *)(void *)(x->q + 32 * b), moved);
    }
}

/* Neighbouring sums of 32 columns in pairs, from those of 16. */
CPU_INLINE void pair_sums(int32_t *dst, __m256i sums)
{
    __m256i wide = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    _mm_storeu_si128((__m128i *)(void *)dst, _mm256_cvtepi32_epi16(wide));
}

/* -offset times the sums of the columns of each scale. */
CPU_INLINE void start_sums(int32_t start[16], __m256i sums, const gemm_form *f)
{
    if (f->scale_cols == 32) {
        __m256i minus = _mm256_set1_epi16((short)-f->offset);
        _mm256_store_si256((__m256i *)(void *)start, _mm256_madd_epi16(sums, minus));
    } else {
        __m512i minus = _mm512_set1_epi32(-f->offset & 0xFFFF); /* the upper half counts for 0 */
        _mm512_store_si512(start, _mm512_madd_epi16(_mm512_cvtepi16_epi32(sums), minus));
    }
}

/* The order of the form (gemm_form.by_8). */
CPU_INLINE void reorder(const int8_t *q, const gemm_form *f, uint8_t *room)
{
    const __m512i one_scale =
        _mm512_setr_epi32(0x18100800, 0x19110901, 0x1A120A02, 0x1B130B03, 0x1C140C04, 0x1D150D05,
                          0x1E160E06, 0x1F170F07, 0x38302820, 0x39312921, 0x3A322A22, 0x3B332B23,
                          0x3C342C24, 0x3D352D25, 0x3E362E26, 0x3F372F27);
    const __m512i two_scales =
        _mm512_setr_epi32(0x0C040800, 0x0D050901, 0x0E060A02, 0x0F070B03, 0x1C141810, 0x1D151911,
                          0x1E161A12, 0x1F171B13, 0x2C242820, 0x2D252921, 0x2E262A22, 0x2F272B23,
                          0x3C343830, 0x3D353931, 0x3E363A32, 0x3F373B33);
    const __m512i from = f->scale_cols == 32 ? one_scale : two_scales;
    for (int i = 0; i < GEMM_COLS; i += 64)
        _mm512_store_si512(room + i, _mm512_permutexvar_epi8(from, _mm512_loadu_si512(q + i)));
}

CPU_INLINE void take_256(const fr_act_q8_256 *from, const gemm_form *f, gemm_x *x)
{
    const __m256i sums = avx2_load(from->sums);
    x->d = from->d;
    start_sums(x->start, sums, f);
    if (f->by_8)
        reorder(from->q, f, x->q);
    if (f->min && f->scale_cols == 32)
        pair_sums(x->sums, sums);
    else if (f->min)
        _mm256_storeu_si256((__m256i *)(void *)x->sums, sums);
}

/* Asks for n bytes at `at` of the nt tokens' activations from t on, as far as these exist. */
CPU_INLINE void ask_x(const cpu_dot_args *a, size_t at, const size_t n, int t, int nt)
{
    for (; nt > 0 && t < a->n_tokens; t++, nt--)
        avx2_prefetch((const uint8_t *)a->x[t] + at, n);
}

/* nt tokens' activations of a chunk, from t on; asks for the next ones. */
static void take_tile(const cpu_dot_args *a, const gemm_form *f, int64_t chunk, int t, int nt,
                      gemm_tile *tile)
{
    tile->small = true;
    for (int i = 0; i < nt; i++) {
        const fr_act_q8_256 *from = (const fr_act_q8_256 *)a->x[t + i] + chunk;
        take_256(from, f, &tile->x[i]);
        tile->q[i] = f->by_8 ? tile->x[i].q : (const uint8_t *)from->q;
        if (from->most_abs > f->whole.most_abs || from->most_half > f->whole.most_half)
            tile->small = false;
    }
    ask_x(a, (size_t)chunk * sizeof(fr_act_q8_256), sizeof(fr_act_q8_256), t + nt, nt);
}

static void take_tile_32(const cpu_dot_args *a, int64_t chunk, int n_blocks, int t, int nt,
                         gemm_tile *tile)
{
    enum { BLOCKS = GEMM_COLS / 32 };
    for (int i = 0; i < nt; i++) {
        take_32((const fr_act_q8_32 *)a->x[t + i] + BLOCKS * chunk, n_blocks, &tile->x[i]);
        tile->q[i] = tile->x[i].q;
    }
    ask_x(a, (size_t)chunk * BLOCKS * sizeof(fr_act_q8_32), BLOCKS * sizeof(fr_act_q8_32), t + nt,
          nt);
}

/* ---- sums of one scale
 * ------------------------------------------------------------------------------ */

/* Loads that stay loads: a register copied to all sums would cost multiplying time. */
CPU_INLINE __m512i load_start(const int32_t *p)
{
    __m512i v;
    __asm__("vmovdqa64 %1, %0" : "=v"(v) : "m"(*(const __m512i *)(const void *)p));
    return v;
}

CPU_INLINE __m512i spread_start(const int32_t *p)
{
    __m512i v;
    __asm__("vpbroadcastd %1, %0" : "=v"(v) : "m"(*p));
    return v;
}

CPU_INLINE __m512i four_columns(const uint8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    __m512i fours = _mm512_set1_epi32(four);
    __asm__("" : "+v"(fours)); /* broadcast once, not by each of its two uses */
    return fours;
}

/* Adds the products of scale i, of n quads of columns, to sum. x_high: it is the activations that
 * are 128 above their value, otherwise the codes. */
CPU_INLINE void add_products(const gemm_strip *s, const uint8_t *const *x, int i, const int n,
                             const bool x_high, const int nr, const int nt,
                             __m512i sum[2][GEMM_TOKENS])
{
    _Pragma("GCC unroll 8") for (int q = 0; q < n; q++)
    {
        __m512i w[2];
        EACH_SIXTEEN w[r] = _mm512_load_si512(s->codes[n * i + q][16 * r]);
        EACH_TOKEN
        {
            __m512i fours = four_columns(x[t] + 4 * (n * i + q));
            EACH_SIXTEEN sum[r][t] = x_high ? _mm512_dpbusd_epi32(sum[r][t], fours, w[r])
                                            : _mm512_dpbusd_epi32(sum[r][t], w[r], fours);
        }
    }
}

/* ---- blocks of 32
 * -------------------------------------------------------------------------------- */

CPU_INLINE void multiply_32(const gemm_strip *s, const gemm_x *x, const uint8_t *const *q,
                            int n_blocks, const bool min, const int nr, const int nt,
                            float (*acc)[GEMM_ROWS])
{
    __m512 y[2][GEMM_TOKENS];
    EACH_SIXTEEN
    EACH_TOKEN y[r][t] = _mm512_load_ps(acc[t] + 16 * r);
    _Pragma("GCC unroll 1") for (int b = 0; b < n_blocks; b++)
    {
        __m512i sum[2][GEMM_TOKENS];
        EACH_SIXTEEN
        EACH_TOKEN sum[r][t] = load_start(s->start[b] + 16 * r);
        add_products(s, q, b, 8, true, nr, nt, sum);
        EACH_SIXTEEN
        {
            __m512 d = _mm512_load_ps(s->scale[b] + 16 * r);
            __m512 offset = _mm512_load_ps(s->offset[b] + 16 * r);
            EACH_TOKEN
            {
                __m512 v = _mm512_fmsub_ps(d, _mm512_castsi512_ps(sum[r][t]), offset);
                y[r][t] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[t].x_32[b].d), y[r][t]);
                if (min)
                    y[r][t] = _mm512_fmadd_ps(_mm512_load_ps(s->m[b] + 16 * r),
                                              _mm512_set1_ps(x[t].x_32[b].s), y[r][t]);
            }
        }
    }
    EACH_SIXTEEN
    EACH_TOKEN _mm512_store_ps(acc[t] + 16 * r, y[r][t]);
}

/* ---- blocks of 256
 * ------------------------------------------------------------------------------- */

/* y -= m * x.d * (the minima times the sums of activations) */
CPU_INLINE void take_minima_off(const gemm_strip *s, const gemm_x *x, const int n_pairs,
                                const int nr, const int nt, __m512 y[2][GEMM_TOKENS])
{
    __m512i sum[2][GEMM_TOKENS];
    EACH_SIXTEEN
    EACH_TOKEN sum[r][t] = _mm512_setzero_si512();
    _Pragma("GCC unroll 8") for (int i = 0; i < n_pairs; i++)
    {
        __m512i min[2];
        EACH_SIXTEEN min[r] = _mm512_load_si512(s->min[i][16 * r]);
        EACH_TOKEN
        {
            __m512i pair = four_columns((const uint8_t *)&x[t].sums[i]);
            EACH_SIXTEEN sum[r][t] = _mm512_dpwssd_epi32(sum[r][t], min[r], pair);
        }
    }
    EACH_SIXTEEN
    {
        __m512 m = _mm512_load_ps(s->m[0] + 16 * r);
        EACH_TOKEN y[r][t] = _mm512_fnmadd_ps(_mm512_mul_ps(m, _mm512_set1_ps(x[t].d)),
                                              _mm512_cvtepi32_ps(sum[r][t]), y[r][t]);
    }
}

/* acc + x.d * (d * part - m * minima) */
CPU_INLINE void finish_256(const gemm_strip *s, const gemm_x *x, const int scale_cols,
                           const bool min, const int nr, const int nt, __m512 part[2][GEMM_TOKENS],
                           float (*acc)[GEMM_ROWS])
{
    EACH_SIXTEEN
    {
        __m512 d = _mm512_load_ps(s->d + 16 * r);
        EACH_TOKEN part[r][t] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(x[t].d)),
                                                part[r][t], _mm512_load_ps(acc[t] + 16 * r));
    }
    if (min)
        take_minima_off(s, x, 128 / scale_cols, nr, nt, part);
    EACH_SIXTEEN
    EACH_TOKEN _mm512_store_ps(acc[t] + 16 * r, part[r][t]);
}

/* whole: the scales are whole numbers in the strip, and the sums too large. */
CPU_INLINE void multiply_256(const gemm_strip *s, const gemm_x *x, const uint8_t *const *q,
                             const int scale_cols, const bool min, const bool whole, const int nr,
                             const int nt, float (*acc)[GEMM_ROWS])
{
    __m512 part[2][GEMM_TOKENS];
    EACH_SIXTEEN
    EACH_TOKEN part[r][t] = _mm512_setzero_ps();
    _Pragma("GCC unroll 1") for (int i = 0; i < GEMM_COLS / scale_cols; i++)
    {
        __m512i sum[2][GEMM_TOKENS];
        EACH_SIXTEEN
        EACH_TOKEN sum[r][t] = spread_start(x[t].start + i);
        add_products(s, q, i, scale_cols / 4, false, nr, nt, sum);
        EACH_SIXTEEN
        {
            __m512 scale = _mm512_load_ps(s->scale[i] + 16 * r);
            if (whole) {
                __m512i bits = _mm512_slli_epi32(_mm512_load_si512(s->whole[i] + 16 * r), 16);
                scale = _mm512_cvtepi32_ps(_mm512_srai_epi32(bits, 16));
            }
            EACH_TOKEN part[r][t] =
                _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum[r][t]), part[r][t]);
        }
    }
    finish_256(s, x, scale_cols, min, nr, nt, part, acc);
}

/* The same for sums within 16 bits (gemm_whole). */
CPU_INLINE void multiply_whole(const gemm_strip *s, const gemm_x *x, const uint8_t *const *q,
                               const int scale_cols, const bool min, const int nr, const int nt,
                               float (*acc)[GEMM_ROWS])
{
    __m512i all[2][GEMM_TOKENS];
    __m512 part[2][GEMM_TOKENS];
    EACH_SIXTEEN
    EACH_TOKEN all[r][t] = _mm512_setzero_si512();
    _Pragma("GCC unroll 1") for (int i = 0; i < GEMM_COLS / scale_cols; i++)
    {
        __m512i sum[2][GEMM_TOKENS];
        EACH_SIXTEEN
        EACH_TOKEN sum[r][t] = spread_start(x[t].start + i);
        add_products(s, q, i, scale_cols / 4, false, nr, nt, sum);
        EACH_SIXTEEN
        {
            __m512i scale = _mm512_load_si512(s->whole[i] + 16 * r);
            EACH_TOKEN all[r][t] = _mm512_dpwssd_epi32(all[r][t], sum[r][t], scale);
        }
    }
    EACH_SIXTEEN
    EACH_TOKEN part[r][t] = _mm512_cvtepi32_ps(all[r][t]);
    finish_256(s, x, scale_cols, min, nr, nt, part, acc);
}

/* ---- one function for each number of tokens and registers of rows
 * -------------------------------- */

typedef void multiply_fn(const gemm_strip *s, const gemm_x *x, const uint8_t *const *q,
                         int n_blocks, float (*acc)[GEMM_ROWS]);

#define MULTIPLY(NAME, NR, NT, CALL)                                                               \
    static void NAME##_##NR##_##NT(const gemm_strip *s, const gemm_x *x, const uint8_t *const *q,  \
                                   int n_blocks, float(*acc)[GEMM_ROWS])                           \
    {                                                                                              \
        enum { nr = NR, nt = NT };                                                                 \
        (void)n_blocks;                                                                            \
        CALL;                                                                                      \
    }
#define SHAPES(NAME, CALL)                                                                         \
    MULTIPLY(NAME, 1, 1, CALL)                                                                     \
    MULTIPLY(NAME, 1, 2, CALL)                                                                     \
    MULTIPLY(NAME, 1, 3, CALL)                                                                     \
    MULTIPLY(NAME, 1, 4, CALL)                                                                     \
    MULTIPLY(NAME, 1, 5, CALL)                                                                     \
    MULTIPLY(NAME, 1, 6, CALL)                                                                     \
    MULTIPLY(NAME, 2, 1, CALL)                                                                     \
    MULTIPLY(NAME, 2, 2, CALL)                                                                     \
    MULTIPLY(NAME, 2, 3, CALL)                                                                     \
    MULTIPLY(NAME, 2, 4, CALL)                                                                     \
    MULTIPLY(NAME, 2, 5, CALL)                                                                     \
    MULTIPLY(NAME, 2, 6, CALL)

#define ROW(NAME, NR)                                                                              \
    {                                                                                              \
        NAME##_##NR##_1, NAME##_##NR##_2, NAME##_##NR##_3, NAME##_##NR##_4, NAME##_##NR##_5,       \
            NAME##_##NR##_6                                                                        \
    }
#define TABLE(NAME)                                                                                \
    {                                                                                              \
        ROW(NAME, 1), ROW(NAME, 2)                                                                 \
    }

SHAPES(of_32, multiply_32(s, x, q, n_blocks, false, nr, nt, acc))
SHAPES(of_32_min, multiply_32(s, x, q, n_blocks, true, nr, nt, acc))
SHAPES(of_256_by_16, multiply_256(s, x, q, 16, false, false, nr, nt, acc))
SHAPES(of_256_by_16_large, multiply_256(s, x, q, 16, false, true, nr, nt, acc))
SHAPES(of_256_by_16_whole, multiply_whole(s, x, q, 16, false, nr, nt, acc))
SHAPES(of_256_by_16_min, multiply_whole(s, x, q, 16, true, nr, nt, acc))
SHAPES(of_256_by_32, multiply_256(s, x, q, 32, false, false, nr, nt, acc))
SHAPES(of_256_by_32_min_large, multiply_256(s, x, q, 32, true, true, nr, nt, acc))
SHAPES(of_256_by_32_min, multiply_whole(s, x, q, 32, true, nr, nt, acc))

typedef multiply_fn *multiply_table[2][GEMM_TOKENS]; /* [registers of rows - 1][tokens - 1] */

static const multiply_table tables_32[2] = {TABLE(of_32), TABLE(of_32_min)}; /* [min] */

/* [scales of 32][min]; with minima all forms have whole scales, of 16 columns always small sums */
static const multiply_table tables_256[2][2] = {{TABLE(of_256_by_16), TABLE(of_256_by_16_min)},
                                                {TABLE(of_256_by_32), TABLE(of_256_by_32_min)}};
static const multiply_table table_whole_16 = TABLE(of_256_by_16_whole);
static const multiply_table table_large_16 = TABLE(of_256_by_16_large);
static const multiply_table table_large_32 = TABLE(of_256_by_32_min_large);

static const multiply_table *table_of(const gemm_form *f, bool small)
{
    const bool by_32 = f->scale_cols == 32;
    if (f->weights == 32)
        return &tables_32[f->min];
    if (!gemm_is_whole(f))
        return &tables_256[by_32][f->min];
    if (!small)
        return by_32 ? &table_large_32 : &table_large_16;
    return f->min ? &tables_256[by_32][true] : &table_whole_16;
}

/* ---- all tokens of a call
 * --------------------------------------------------------------------------- */

/* Asks for some lines of what is read next. */
CPU_INLINE void ask_ahead(gemm_ahead *g, int n)
{
    int unit = g->unit;
    size_t at = g->at;
    for (; n > 0 && unit < g->n; n--) {
        _mm_prefetch((const char *)g->p[unit] + at, _MM_HINT_T1);
        at += 64;
        if (at >= g->bytes)
            at = 0, unit++;
    }
    g->unit = unit;
    g->at = at;
}

void gemm_add(const cpu_dot_args *a, const gemm_form *f, int64_t chunk, int n_blocks,
              int n_sixteens, gemm_ahead *ahead, gemm_room *room)
{
    gemm_tile tile;
    /* tiles of tokens as even as possible: a small one would leave the multipliers waiting */
    int n_tiles = (a->n_tokens + GEMM_TOKENS - 1) / GEMM_TOKENS;
    int lines = (int)((ahead->bytes + 63) / 64 + 1) * ahead->n / (GEMM_STRIPS * n_tiles) + 1;
    for (int i = 0, t = 0; i < n_tiles; i++) {
        int nt = (a->n_tokens - t + n_tiles - i - 1) / (n_tiles - i);
        if (f->weights == 32)
            take_tile_32(a, chunk, n_blocks, t, nt, &tile);
        else
            take_tile(a, f, chunk, t, nt, &tile);
        const multiply_table *table = table_of(f, tile.small);
        for (int j = 0; j < n_sixteens; j += 2) {
            int nr = n_sixteens - j < 2 ? 1 : 2;
            ask_ahead(ahead, lines);
            (*table)[nr - 1][nt - 1](&room->strip[j / 2], tile.x, tile.q, n_blocks,
                                     room->acc[j / 2] + t);
        }
        t += nt;
    }
}

void gemm_clear(const cpu_dot_args *a, int n_sixteens, gemm_room *room)
{
    for (int j = 0; j < n_sixteens; j++) {
        for (int t = 0; t < a->n_tokens; t++)
            _mm512_store_ps(room->acc[j / 2][t] + j % 2 * 16, _mm512_setzero_ps());
    }
}

void gemm_store(const cpu_dot_args *a, int64_t r0, int n_sixteens, const gemm_room *room)
{
    for (int t = 0; t < a->n_tokens; t++) {
        for (int j = 0; j < n_sixteens; j++) {
            const float *from = room->acc[j / 2][t] + j % 2 * 16;
            int64_t r = r0 + 16 * j;
            if (r >= a->row_from && r + 16 <= a->row_to)
                _mm512_storeu_ps(a->y[t] + (r - a->row_from), _mm512_load_ps(from));
            else
                rows_store(a, r, t, from, 16);
        }
    }
}
