/* The micro-kernels of gemm.inc: 32 rows (or 16) times up to six tokens in registers. Each
 * four activations are broadcast once and meet both registers of rows; each register of codes meets
 * all tokens. Twelve sums in flight hide the latency of the instruction. */
#include "cpu/x86/avx512.h"
#include "cpu/x86/rows_avx2.h"

/* What a call keeps on its stack. */
typedef struct {
    gemm_strip strip[2]; /* one is met while the other is made */
    _Alignas(64) float acc[GEMM_STRIPS][CPU_MANY_TOKENS][GEMM_ROWS]; /* the results so far */
    _Alignas(
        64) int32_t start[GEMM_TOKENS][16]; /* of a tile, blocks of 256: of each scale's sums */
    bool large[CPU_MANY_TOKENS]; /* of tiles: some sums may be too large for 16 bits (gemm_whole) */
} gemm_room;

/* Activations of up to six tokens: 256 columns that stand `at` bytes behind the rows' beginnings.
 */
typedef struct {
    const void *const *x;
    size_t at;
    int n_blocks; /* of 32 */
    int32_t (*start)[16];
} gemm_tile;

#define EACH_SIXTEEN _Pragma("GCC unroll 2") for (int r = 0; r < nr; r++)
#define EACH_TOKEN   _Pragma("GCC unroll 6") for (int t = 0; t < nt; t++)

/* -offset times the sums of the columns of each scale. */
CPU_INLINE void make_starts(const gemm_tile *tile, const gemm_form *f, int nt)
{
    const __m512i minus = _mm512_set1_epi32(-f->offset & 0xFFFF); /* the upper half counts for 0 */
    for (int t = 0; t < nt; t++) {
        const fr_act_q8_256 *x = (const void *)((const char *)tile->x[t] + tile->at);
        const int16_t *sums = f->scale_cols == 16 ? x->sums : x->sums_32;
        __m512i wide = _mm512_cvtepi16_epi32(avx2_load(sums));
        _mm512_store_si512(tile->start[t], _mm512_madd_epi16(wide, minus));
    }
}

/* Whether some of a tile's sums may be too large for 16 bits (gemm_whole). */
CPU_INLINE bool is_large(const gemm_tile *tile, const gemm_form *f, int nt)
{
    const __m128i most = _mm_set1_epi32(f->whole.most_half << 16 | f->whole.most_abs);
    __m128i above = _mm_setzero_si128();
    for (int t = 0; t < nt; t++) {
        const fr_act_q8_256 *x = (const void *)((const char *)tile->x[t] + tile->at);
        int32_t both;
        memcpy(&both, &x->most_abs, sizeof both);
        above = _mm_or_si128(above, _mm_subs_epu16(_mm_cvtsi32_si128(both), most));
    }
    return _mm_cvtsi128_si32(above) != 0;
}

/* ---- sums of one scale
 * ------------------------------------------------------------------------------ */

/* A load that stays a load: a register copied to all sums would cost multiplying time. */
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

/* Adds the products of scale i, of n quads of columns, to sum; x: the activations of its first. */
CPU_INLINE void add_products(const gemm_strip *s, const uint8_t *const *x, int i, const int n,
                             const int nr, const int nt, __m512i sum[2][GEMM_TOKENS])
{
    _Pragma("GCC unroll 8") for (int q = 0; q < n; q++)
    {
        __m512i w[2];
        EACH_SIXTEEN w[r] = _mm512_load_si512(s->codes[n * i + q][16 * r]);
        EACH_TOKEN
        {
            __m512i fours = four_columns(x[t] + 4 * q);
            EACH_SIXTEEN sum[r][t] = _mm512_dpbusd_epi32(sum[r][t], w[r], fours);
        }
    }
}

typedef float gemm_sums[GEMM_ROWS]; /* of a token */

/* ---- blocks of 32
 * -------------------------------------------------------------------------------- */

CPU_INLINE void multiply_32(const gemm_strip *s, const gemm_tile *tile, const bool min,
                            const int nr, const int nt, gemm_sums *from, gemm_sums *to)
{
    const int n_blocks = tile->n_blocks;
    const fr_act_q8_32 *x[GEMM_TOKENS];
    __m512 y[2][GEMM_TOKENS];
    EACH_TOKEN x[t] = (const void *)((const char *)tile->x[t] + tile->at);
    EACH_SIXTEEN
    EACH_TOKEN y[r][t] = _mm512_load_ps(from[t] + 16 * r);
    _Pragma("GCC unroll 1") for (int b = 0; b < n_blocks; b++)
    {
        __m512i sum[2][GEMM_TOKENS];
        const uint8_t *q[GEMM_TOKENS];
        EACH_TOKEN q[t] = (const uint8_t *)x[t][b].q;
        EACH_SIXTEEN
        EACH_TOKEN sum[r][t] = spread_start(&x[t][b].start);
        add_products(s, q, b, 8, nr, nt, sum);
        EACH_SIXTEEN
        {
            __m512 d = _mm512_load_ps(s->scale[b] + 16 * r);
            __m512 offset = _mm512_load_ps(s->offset[b] + 16 * r);
            EACH_TOKEN
            {
                __m512 v = _mm512_fmsub_ps(d, _mm512_castsi512_ps(sum[r][t]), offset);
                y[r][t] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[t][b].d), y[r][t]);
                if (min)
                    y[r][t] = _mm512_fmadd_ps(_mm512_load_ps(s->m[b] + 16 * r),
                                              _mm512_set1_ps(x[t][b].s), y[r][t]);
            }
        }
    }
    EACH_SIXTEEN
    EACH_TOKEN _mm512_store_ps(to[t] + 16 * r, y[r][t]);
}

/* ---- blocks of 256
 * ------------------------------------------------------------------------------- */

/* Of a micro-kernel. */
typedef struct {
    int scale_cols;
    bool min;
    bool whole; /* scales are whole numbers in the strip */
    bool wide;  /* of multiply_whole: any sums */
} gemm_kind;

/* y -= m * x.d * (the minima times the sums of activations) */
CPU_INLINE void take_minima_off(const gemm_strip *s, const fr_act_q8_256 *const *x,
                                const int scale_cols, const int nr, const int nt,
                                __m512 y[2][GEMM_TOKENS])
{
    __m512i sum[2][GEMM_TOKENS];
    EACH_SIXTEEN
    EACH_TOKEN sum[r][t] = _mm512_setzero_si512();
    _Pragma("GCC unroll 8") for (int i = 0; i < 128 / scale_cols; i++)
    {
        __m512i min[2];
        EACH_SIXTEEN min[r] = _mm512_load_si512(s->min[i][16 * r]);
        EACH_TOKEN
        {
            const int16_t *sums = scale_cols == 16 ? x[t]->sums : x[t]->sums_32;
            __m512i pair = four_columns((const uint8_t *)(sums + 2 * i));
            EACH_SIXTEEN sum[r][t] = _mm512_dpwssd_epi32(sum[r][t], min[r], pair);
        }
    }
    EACH_SIXTEEN
    {
        __m512 m = _mm512_load_ps(s->m[0] + 16 * r);
        EACH_TOKEN y[r][t] = _mm512_fnmadd_ps(_mm512_mul_ps(m, _mm512_set1_ps(x[t]->d)),
                                              _mm512_cvtepi32_ps(sum[r][t]), y[r][t]);
    }
}

/* from + x.d * (d * part - m * minima) */
CPU_INLINE void finish_256(const gemm_strip *s, const fr_act_q8_256 *const *x, const int scale_cols,
                           const bool min, const int nr, const int nt, __m512 part[2][GEMM_TOKENS],
                           gemm_sums *from, gemm_sums *to)
{
    EACH_SIXTEEN
    {
        __m512 d = _mm512_load_ps(s->d + 16 * r);
        EACH_TOKEN part[r][t] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(x[t]->d)),
                                                part[r][t], _mm512_load_ps(from[t] + 16 * r));
    }
    if (min)
        take_minima_off(s, x, scale_cols, nr, nt, part);
    EACH_SIXTEEN
    EACH_TOKEN _mm512_store_ps(to[t] + 16 * r, part[r][t]);
}

/* The sums of scale i. Without offset (forms with minima) they start from 0, which costs no
 * multiplying time. */
CPU_INLINE void sums_of_scale(const gemm_strip *s, const gemm_tile *tile,
                              const fr_act_q8_256 *const *x, int i, const gemm_kind *k,
                              const int nr, const int nt, __m512i sum[2][GEMM_TOKENS])
{
    const uint8_t *q[GEMM_TOKENS];
    EACH_TOKEN q[t] = (const uint8_t *)x[t]->q + k->scale_cols * i;
    EACH_SIXTEEN
    EACH_TOKEN sum[r][t] = k->min ? _mm512_setzero_si512() : spread_start(tile->start[t] + i);
    add_products(s, q, i, k->scale_cols / 4, nr, nt, sum);
}

CPU_INLINE void multiply_256(const gemm_strip *s, const gemm_tile *tile, const gemm_kind k,
                             const int nr, const int nt, gemm_sums *from, gemm_sums *to)
{
    __m512 part[2][GEMM_TOKENS];
    const fr_act_q8_256 *x[GEMM_TOKENS];
    EACH_TOKEN x[t] = (const void *)((const char *)tile->x[t] + tile->at);
    EACH_SIXTEEN
    EACH_TOKEN part[r][t] = _mm512_setzero_ps();
    _Pragma("GCC unroll 1") for (int i = 0; i < GEMM_COLS / k.scale_cols; i++)
    {
        __m512i sum[2][GEMM_TOKENS];
        sums_of_scale(s, tile, x, i, &k, nr, nt, sum);
        EACH_SIXTEEN
        {
            __m512 scale = _mm512_load_ps(s->scale[i] + 16 * r);
            if (k.whole) {
                __m512i bits = _mm512_slli_epi32(_mm512_load_si512(s->whole[i] + 16 * r), 16);
                scale = _mm512_cvtepi32_ps(_mm512_srai_epi32(bits, 16));
            }
            EACH_TOKEN part[r][t] =
                _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum[r][t]), part[r][t]);
        }
    }
    finish_256(s, x, k.scale_cols, k.min, nr, nt, part, from, to);
}

/* The same in integers: sums within 16 bits (gemm_whole), or any (k.wide). */
CPU_INLINE void multiply_whole(const gemm_strip *s, const gemm_tile *tile, const gemm_kind k,
                               const int nr, const int nt, gemm_sums *from, gemm_sums *to)
{
    __m512i all[2][GEMM_TOKENS];
    __m512 part[2][GEMM_TOKENS];
    const fr_act_q8_256 *x[GEMM_TOKENS];
    EACH_TOKEN x[t] = (const void *)((const char *)tile->x[t] + tile->at);
    EACH_SIXTEEN
    EACH_TOKEN all[r][t] = _mm512_setzero_si512();
    _Pragma("GCC unroll 1") for (int i = 0; i < GEMM_COLS / k.scale_cols; i++)
    {
        __m512i sum[2][GEMM_TOKENS];
        sums_of_scale(s, tile, x, i, &k, nr, nt, sum);
        EACH_SIXTEEN
        {
            __m512i scale = _mm512_load_si512(s->whole[i] + 16 * r);
            if (k.wide)
                scale = _mm512_srai_epi32(_mm512_slli_epi32(scale, 16), 16);
            EACH_TOKEN all[r][t] =
                k.wide ? _mm512_add_epi32(all[r][t], _mm512_mullo_epi32(sum[r][t], scale))
                       : _mm512_dpwssd_epi32(all[r][t], sum[r][t], scale);
        }
    }
    EACH_SIXTEEN
    EACH_TOKEN part[r][t] = _mm512_cvtepi32_ps(all[r][t]);
    finish_256(s, x, k.scale_cols, k.min, nr, nt, part, from, to);
}

/* ---- one function for each number of tokens and registers of rows
 * -------------------------------- */

typedef void multiply_fn(const gemm_strip *s, const gemm_tile *x, gemm_sums *from, gemm_sums *to);

#define MULTIPLY(NAME, NR, NT, CALL)                                                               \
    static void NAME##_##NR##_##NT(const gemm_strip *s, const gemm_tile *x, gemm_sums *from,       \
                                   gemm_sums *to)                                                  \
    {                                                                                              \
        enum { nr = NR, nt = NT };                                                                 \
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

#define KIND(COLS, ...) ((gemm_kind){.scale_cols = COLS, __VA_ARGS__})

SHAPES(of_32, multiply_32(s, x, false, nr, nt, from, to))
SHAPES(of_32_min, multiply_32(s, x, true, nr, nt, from, to))
SHAPES(by_16, multiply_256(s, x, KIND(16, .min = false), nr, nt, from, to))
SHAPES(by_16_large, multiply_256(s, x, KIND(16, .whole = true), nr, nt, from, to))
SHAPES(by_16_whole, multiply_whole(s, x, KIND(16, .whole = true), nr, nt, from, to))
SHAPES(by_16_wide, multiply_whole(s, x, KIND(16, .wide = true), nr, nt, from, to))
SHAPES(by_16_min, multiply_whole(s, x, KIND(16, .whole = true, .min = true), nr, nt, from, to))
SHAPES(by_32, multiply_256(s, x, KIND(32, .min = false), nr, nt, from, to))
SHAPES(by_32_large, multiply_256(s, x, KIND(32, .whole = true, .min = true), nr, nt, from, to))
SHAPES(by_32_min, multiply_whole(s, x, KIND(32, .whole = true, .min = true), nr, nt, from, to))

typedef multiply_fn *multiply_table[2][GEMM_TOKENS]; /* [registers of rows - 1][tokens - 1] */

static const multiply_table tables_32[2] = {TABLE(of_32), TABLE(of_32_min)}; /* [min] */
static const multiply_table table_16 = TABLE(by_16), table_16_large = TABLE(by_16_large),
                            table_16_whole = TABLE(by_16_whole), table_16_wide = TABLE(by_16_wide),
                            table_16_min = TABLE(by_16_min);
static const multiply_table table_32 = TABLE(by_32), table_32_large = TABLE(by_32_large),
                            table_32_min = TABLE(by_32_min);

/* With minima all forms of 256 have whole scales, of 16 columns always small sums; whole scales of
 * 32 columns without minima occur in none. */
static const multiply_table *table_of(const gemm_form *f, bool large)
{
    if (f->weights == 32)
        return &tables_32[f->min];
    if (f->scale_cols == 32)
        return !gemm_is_whole(f) ? &table_32 : large ? &table_32_large : &table_32_min;
    return !gemm_is_whole(f) ? &table_16
           : large           ? (f->exact ? &table_16_wide : &table_16_large)
           : f->min          ? &table_16_min
                             : &table_16_whole;
}

/* ---- all tokens of a call
 * --------------------------------------------------------------------------- */

/* What stays the same in a call. */
typedef struct {
    const cpu_dot_args *a;
    const gemm_form *form;
    gemm_source *from;
    size_t chunk_bytes; /* of activations */
    int n_tiles;
    int tile_at[CPU_MANY_TOKENS / GEMM_TOKENS + 2]; /* its first token */
    const multiply_table *table[2];                 /* [large] */
} gemm_call;

/* Tiles of tokens as even as possible: a small one would leave the multipliers waiting. */
static gemm_call open_call(const cpu_dot_args *a, const gemm_form *f, gemm_source *from)
{
    gemm_call c = {.a = a,
                   .form = f,
                   .from = from,
                   .chunk_bytes = fr_act_row_bytes(a->act, GEMM_COLS),
                   .n_tiles = (a->n_tokens + GEMM_TOKENS - 1) / GEMM_TOKENS,
                   .table = {table_of(f, false), table_of(f, true)}};
    for (int i = 0; i <= c.n_tiles; i++)
        c.tile_at[i] = a->n_tokens * i / c.n_tiles;
    return c;
}

static void count_sixteens(const cpu_dot_args *a, gemm_part *part)
{
    part->n_sixteens = a->row_to - part->r > GEMM_ROWS / 2 ? 2 : 1;
}

/* The part that is met after *part: the pass's next strip, its first one of the next columns, or
 * the next pass. pass: its first row. */
static bool next_part(const cpu_dot_args *a, gemm_part *part, int64_t *pass)
{
    part->r += GEMM_ROWS;
    if (part->r >= a->row_to || part->r == *pass + GEMM_STRIPS * GEMM_ROWS) {
        int64_t end = part->r;
        part->r = *pass;
        if (++part->chunk * GEMM_COLS >= a->cols) {
            part->chunk = 0;
            part->r = *pass = end;
        }
    }
    count_sixteens(a, part);
    return part->r < a->row_to;
}

/* All tokens meet a strip, while the next one is made (if there is one). first: of the columns. */
static void meet(const gemm_call *c, const gemm_part *part, bool first, const gemm_strip *strip,
                 const gemm_part *next, gemm_strip *next_strip, gemm_sums *acc, gemm_room *room)
{
    static _Alignas(64) gemm_sums zeros[GEMM_TOKENS];
    gemm_tile tile = {.at = (size_t)part->chunk * c->chunk_bytes,
                      .n_blocks = gemm_blocks_32(c->a, part->chunk),
                      .start = room->start};
    for (int i = 0, piece = 0, ready = 0; i < c->n_tiles; i++) {
        const int t = c->tile_at[i], nt = c->tile_at[i + 1] - t;
        tile.x = c->a->x + t;
        if (c->form->weights == 256 && c->form->offset)
            make_starts(&tile, c->form, nt);
        if (first && gemm_is_whole(c->form))
            room->large[i] = is_large(&tile, c->form, nt);
        (*c->table[room->large[i]])[part->n_sixteens - 1][nt - 1](
            strip, &tile, part->chunk == 0 ? zeros : acc + t, acc + t);
        for (ready += GEMM_PIECES; next && ready >= c->n_tiles; ready -= c->n_tiles)
            c->from->expand(c->from, next, piece++, next_strip);
    }
}

/* Sixteen results of a token; a whole line of the cache may go past it. */
CPU_INLINE void store_sixteen(float *to, const float *from, bool far)
{
    if (far && (uintptr_t)to % 64 == 0)
        _mm512_stream_ps(to, _mm512_load_ps(from));
    else
        _mm512_storeu_ps(to, _mm512_load_ps(from));
}

/* Writes the results of a part's rows that the call asks for. */
static void store(const cpu_dot_args *a, const gemm_part *part, const gemm_sums *acc)
{
    for (int t = 0; t < a->n_tokens; t++) {
        for (int j = 0; j < part->n_sixteens; j++) {
            const float *from = acc[t] + 16 * j;
            int64_t r = part->r + 16 * j;
            if (r >= a->row_from && r + 16 <= a->row_to)
                store_sixteen(a->y[t] + (r - a->row_from), from, a->far);
            else
                rows_store(a, r, t, from, 16);
        }
    }
}

void gemm_run(const cpu_dot_args *a, const gemm_form *f, int64_t r0, gemm_source *g)
{
    gemm_room room;
    memset(room.large, 0, sizeof room.large);
    const gemm_call call = open_call(a, f, g);
    gemm_part part = {.r = r0}, next;
    int64_t pass = r0;
    count_sixteens(a, &part);
    for (int i = 0; i < GEMM_PIECES; i++)
        g->expand(g, &part, i, &room.strip[0]);
    bool more = true;
    for (int n = 0; more; n++, part = next) {
        gemm_sums *acc = room.acc[(part.r - pass) / GEMM_ROWS];
        const bool first = part.r == pass;
        next = part;
        more = next_part(a, &next, &pass);
        meet(&call, &part, first, &room.strip[n % 2], more ? &next : NULL, &room.strip[(n + 1) % 2],
             acc, &room);
        if ((part.chunk + 1) * GEMM_COLS >= a->cols)
            store(a, &part, acc);
    }
    if (a->far)
        _mm_sfence(); /* before anybody is told that this is done */
}
