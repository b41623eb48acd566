#include <math.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx512.h"

enum { SCORE_ROWS = 12, SUM_ROWS = 6, SUM_COLUMNS = 4 };

#include "cpu/attn_prompt.inc"

const attn_prompt attn_prompt_avx512 = {pack_queries, pack_keys, pack_values, add_tile};

/* ---- in integers of 16 bits
 *
 * VPDPWSSD does twice the products of a fused multiply-add in the same time. Packed numbers are
 * pairs: (d, d + 1) of queries and K, two positions of V and of the weights, with a factor for each
 * query, each position of K and V, and each row of weights of a panel.
 *
 * No sum can exceed 31 bits: that of a score is bounded by the product of the norms of query and K,
 * which are at most NORM; that of a column by the largest number of V times the sum of the weights.
 * A factor depends on the row itself only, so a result does not depend on what else is packed. */

enum {
    NORM = 44000,
    MOST = 32767,     /* of a number */
    MOST_OF_V = 8000, /* times SUM_OF_WEIGHTS and their rounding: below 2^31 */
    SUM_OF_WEIGHTS = 262144,
    PAIR = 2,
};

static const float NOTHING = 1e-30f; /* numbers below are zero */

/* One number in two lanes of 16 bits: the first in the lower half. */
static inline __m512i pair_up(__m512i first, __m512i second)
{
    return _mm512_mask_blend_epi16(0xAAAAAAAA, first, _mm512_slli_epi32(second, 16));
}

static inline __m512i round_16(vec x, vec factor)
{
    return _mm512_cvtps_epi32(v_mul(x, factor));
}

static inline float higher(float a, float b)
{
    return a > b ? a : b;
}

static void add_size(const float *x, int64_t n, vec *most, vec *sum)
{
    for (int64_t d = 0; d < n; d += LANES) {
        vec a = _mm512_abs_ps(v_load(x + d));
        *most = v_max(a, *most);
        *sum = v_fmadd(a, a, *sum);
    }
}

/* What row i is multiplied by so that it fits, and its inverse; 0 and 0 for zeros. */
static float fit_row(const attn_rows *r, int64_t i, float *inverse)
{
    vec highest = v_zero(), squares = v_zero();
    add_size(r->x1 + i * r->ld1, r->w1, &highest, &squares);
    if (r->w2 > 0)
        add_size(r->x2 + i * r->ld2, r->w2, &highest, &squares);
    float most = v_highest(highest), norm = sqrtf(v_sum(squares));
    *inverse = 0.0f;
    if (!(most > NOTHING))
        return 0.0f;
    *inverse = higher(most * (1.0f / MOST), norm * (1.0f / NORM));
    return 1.0f / *inverse;
}

static void round_row(const float *x, int64_t n, float factor, int16_t *out)
{
    for (int64_t d = 0; d < n; d += LANES)
        _mm256_storeu_si256((__m256i *)(out + d),
                            _mm512_cvtepi32_epi16(round_16(v_load(x + d), v_set1(factor))));
}

/* Pairs of a tile's rows side by side, behind them a factor a row. */
static void pack_queries_16(const attn_rows *r, float scale, float *out)
{
    int64_t w = r->w1 + r->w2, pairs = w / PAIR;
    for (int64_t t = 0; t < r->n; t += ATTN_TILE_ROWS, out += w * ATTN_TILE_ROWS) {
        memset(out, 0, (size_t)((pairs + 1) * ATTN_TILE_ROWS) * sizeof *out);
        for (int64_t i = 0; i < ATTN_TILE_ROWS && t + i < r->n; i++) {
            int16_t row[ATTN_MOST_WIDTH_16];
            float inverse, factor = fit_row(r, t + i, &inverse);
            round_row(r->x1 + (t + i) * r->ld1, r->w1, factor, row);
            if (r->w2 > 0)
                round_row(r->x2 + (t + i) * r->ld2, r->w2, factor, row + r->w1);
            for (int64_t d = 0; d < pairs; d++)
                memcpy(out + d * ATTN_TILE_ROWS + i, row + PAIR * d, PAIR * sizeof *row);
            out[pairs * ATTN_TILE_ROWS + i] = inverse * scale * LOG2_E;
        }
    }
}

/* Pairs of LANES positions: out[d / PAIR * GROUP + position]. */
static void pack_lanes_16(const float *x, int64_t ld, int64_t width, int64_t n, vec factor,
                          float *out)
{
    for (int64_t d = 0; d < width; d += LANES) {
        vec m[LANES];
        for (int i = 0; i < LANES; i++)
            m[i] = i < n ? v_load(x + i * ld + d) : v_zero();
        v_transpose(m);
        for (int i = 0; i < LANES; i += PAIR)
            _mm512_storeu_si512(out + (d + i) / PAIR * GROUP,
                                pair_up(round_16(m[i], factor), round_16(m[i + 1], factor)));
    }
}

static float *factors_of(float *packed, int64_t w)
{
    return packed + ATTN_PANEL * w / PAIR;
}

static void pack_keys_16(const attn_rows *r, float *out)
{
    int64_t w = r->w1 + r->w2;
    float *inverse = factors_of(out, w);
    for (int64_t p = 0; p < (r->n + GROUP - 1) / GROUP * GROUP; p += LANES) {
        float *to = out + p / GROUP * GROUP * w / PAIR + p % GROUP, factor[LANES] = {0};
        memset(inverse + p, 0, LANES * sizeof *inverse);
        for (int64_t i = 0; i < LANES && p + i < r->n; i++)
            factor[i] = fit_row(r, p + i, &inverse[p + i]);
        pack_lanes_16(r->x1 + p * r->ld1, r->ld1, r->w1, r->n - p, v_load(factor), to);
        if (r->w2 > 0)
            pack_lanes_16(r->x2 + p * r->ld2, r->ld2, r->w2, r->n - p, v_load(factor),
                          to + r->w1 / PAIR * GROUP);
    }
}

static float fit_value(const float *x, int64_t n, float *inverse)
{
    vec highest = v_zero(), squares = v_zero();
    add_size(x, n, &highest, &squares);
    float most = v_highest(highest);
    *inverse = most > NOTHING ? most * (1.0f / MOST_OF_V) : 0.0f;
    return most > NOTHING ? 1.0f / *inverse : 0.0f;
}

/* Pairs of positions of a column; of an odd number, the last with zeros. */
static void pack_values_16(const attn_rows *r, float *out)
{
    float *inverse = factors_of(out, r->w1);
    memset(inverse, 0, ATTN_PANEL * sizeof *inverse);
    for (int64_t p = 0; p < r->n; p += PAIR, out += r->w1) {
        const float *x = r->x1 + p * r->ld1, *y = p + 1 < r->n ? x + r->ld1 : x;
        vec fx = v_set1(fit_value(x, r->w1, &inverse[p])), fy = v_zero();
        if (p + 1 < r->n)
            fy = v_set1(fit_value(y, r->w1, &inverse[p + 1]));
        for (int64_t d = 0; d < r->w1; d += LANES)
            _mm512_storeu_si512(out + d,
                                pair_up(round_16(v_load(x + d), fx), round_16(v_load(y + d), fy)));
    }
}

static inline __m512i both_of(const void *pair)
{
    int32_t x;
    memcpy(&x, pair, sizeof x);
    return _mm512_set1_epi32(x);
}

/* acc + the products of pairs. Not the intrinsic: with 24 sums at once, GCC 12 copies and spills
 * them. */
ATTN_INLINE void add_pairs(__m512i *acc, __m512i x, __m512i y)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*acc) : "v"(x), "v"(y));
}

static void scores_16(const attn_tile *t, int64_t n, float *s)
{
    int64_t pairs = t->w / PAIR;
    const float *row_factors = t->q + pairs * ATTN_TILE_ROWS;
    const float *factors = t->k + ATTN_PANEL * pairs, *k = t->k;
    for (int64_t p = 0; p < n; p += GROUP) {
        __m512i low[ATTN_TILE_ROWS], high[ATTN_TILE_ROWS];
        const float *q = t->q;
        for (int i = 0; i < ATTN_TILE_ROWS; i++)
            low[i] = high[i] = _mm512_setzero_si512();
        for (int64_t d = 0; d < pairs; d++, k += GROUP, q += ATTN_TILE_ROWS) {
            __m512i k0 = _mm512_loadu_si512(k), k1 = _mm512_loadu_si512(k + LANES);
            for (int i = 0; i < ATTN_TILE_ROWS; i++) {
                __m512i x = both_of(q + i);
                add_pairs(&low[i], x, k0);
                add_pairs(&high[i], x, k1);
            }
        }
        vec f0 = v_load(factors + p), f1 = v_load(factors + p + LANES);
        for (int i = 0; i < ATTN_TILE_ROWS; i++) {
            vec f = v_set1(row_factors[i]);
            float *to = s + i * ATTN_PANEL + p;
            v_store(to, v_mul(_mm512_cvtepi32_ps(low[i]), v_mul(f, f0)));
            v_store(to + LANES, v_mul(_mm512_cvtepi32_ps(high[i]), v_mul(f, f1)));
        }
    }
}

/* The weights of a row, times the factors of V: integers, and in *inverse what they are to be
 * multiplied by. Returns the sum of the weights. */
static float weigh_row_16(float *s, int64_t n, float max, const float *factors, int16_t *weights,
                          float *inverse)
{
    vec sum = v_zero(), most = v_zero(), all = v_zero();
    for (int64_t i = 0; i < n; i += LANES) {
        vec x = v_exp2(v_sub(v_load(s + i), v_set1(max)));
        vec y = v_mul(x, v_load(factors + i));
        v_store(s + i, y);
        sum = v_add(sum, x);
        all = v_add(all, y);
        most = v_max(y, most);
    }
    float highest = v_highest(most), factor = 0.0f;
    *inverse = 0.0f;
    if (highest > NOTHING) {
        *inverse = higher(highest * (1.0f / MOST), v_sum(all) * (1.0f / SUM_OF_WEIGHTS));
        factor = 1.0f / *inverse;
    }
    round_row(s, n, factor, weights);
    return v_sum(sum);
}

/* Unrolled early, so that sums are registers. */
#define EACH_ROW    _Pragma("GCC unroll 6") for (int i = 0; i < SUM_ROWS; i++)
#define EACH_COLUMN _Pragma("GCC unroll 4") for (int j = 0; j < nc; j++)

ATTN_INLINE void sum_tile_16(const attn_tile *t, int64_t r, int64_t d, const int nc, int64_t n,
                             const int16_t *weights, const float *shrink, const float *inverse)
{
    __m512i acc[SUM_ROWS][SUM_COLUMNS];
    const float *v = t->v + d;
    weights += r * ATTN_PANEL;
    EACH_ROW EACH_COLUMN acc[i][j] = _mm512_setzero_si512();
    for (int64_t p = 0; p < n; p += PAIR, v += t->wv) {
        __m512i vd[SUM_COLUMNS];
        EACH_COLUMN vd[j] = _mm512_loadu_si512(v + j * LANES);
        EACH_ROW
        {
            __m512i weight = both_of(weights + i * ATTN_PANEL + p);
            EACH_COLUMN add_pairs(&acc[i][j], weight, vd[j]);
        }
    }
    EACH_ROW EACH_COLUMN
    {
        float *to = t->acc + (r + i) * t->wv + d + j * LANES;
        vec old = v_mul(v_load(to), v_set1(shrink[r + i]));
        v_store(to, v_fmadd(_mm512_cvtepi32_ps(acc[i][j]), v_set1(inverse[r + i]), old));
    }
}

static void add_tile_16(const attn_tile *t)
{
    _Alignas(64) float s[ATTN_TILE_ROWS * ATTN_PANEL], shrink[16];
    _Alignas(64) int16_t weights[ATTN_TILE_ROWS * ATTN_PANEL];
    float inverse[ATTN_TILE_ROWS];
    const float *factors = t->v + ATTN_PANEL * t->wv / PAIR;
    int64_t n = in_sight(t), d = 0;
    scores_16(t, n, s);
    new_maxima(t, n, s, shrink);
    for (int r = 0; r < ATTN_TILE_ROWS; r++) {
        float sum = weigh_row_16(s + r * ATTN_PANEL, n, t->state[2 * r], factors,
                                 weights + r * ATTN_PANEL, &inverse[r]);
        t->state[2 * r + 1] = t->state[2 * r + 1] * shrink[r] + sum;
    }
    n = n < t->n ? n : t->n;
    for (; d + SUM_COLUMNS * LANES <= t->wv; d += SUM_COLUMNS * LANES)
        for (int r = 0; r < ATTN_TILE_ROWS; r += SUM_ROWS)
            sum_tile_16(t, r, d, SUM_COLUMNS, n, weights, shrink, inverse);
    for (; d < t->wv; d += LANES)
        for (int r = 0; r < ATTN_TILE_ROWS; r += SUM_ROWS)
            sum_tile_16(t, r, d, 1, n, weights, shrink, inverse);
}

const attn_prompt attn_prompt_16_avx512 = {pack_queries_16, pack_keys_16, pack_values_16,
                                           add_tile_16};
