/* Tokens of one head on packed K and V (attn_prompt in attn.h) in integers of 16 bits: VPDPWSSD
 * does twice the products of a fused multiply-add in the same time.
 *
 * Numbers are packed in pairs: d and d + 16 of 32 columns of queries and K, positions p and p + 16
 * of 32 of V and of the weights; zeros where there is no second. Each query, each position of K and
 * V and each row of weights of a panel has a factor of its own, which depends on the row itself
 * only, so a result does not depend on what else is packed.
 *
 * No sum can exceed 31 bits: that of a score is bounded by the product of the norms of query and K,
 * which are at most NORM; that of a column by the largest number of V times the sum of the weights.
 */
#include <math.h>
#include <string.h>

#include "cpu/attn.h"
#include "cpu/attn_vec_avx512.h"

#define ATTN_INLINE static inline __attribute__((always_inline))

enum {
    NORM = 44000,
    MOST = 32767,     /* of a number */
    MOST_OF_V = 8000, /* times SUM_OF_WEIGHTS and their rounding: below 2^31 */
    SUM_OF_WEIGHTS = 262144,
    GROUP = 2 * LANES, /* positions of K side by side, and of pairs of V */
    SUM_ROWS = 6,      /* of a tile of weighted sums */
    SUM_COLUMNS = 4,   /* and registers of columns */
};

#define ROWS_MASK ((__mmask16)((1u << ATTN_TILE_ROWS) - 1))
#define NOTHING   1e-30f  /* numbers below are zero */
#define MUCH      0x1p60f /* weights whose sum is above want another reference */
#define LOG2_E    1.44269504f
/* Added to a number below 2^22, leaves it as an integer in the lower bits. */
#define MAGIC     0x1.8p23f

/* ---- over the lanes of sixteen rows at once */

#define OF_SIXTEEN(NAME, OP)                                                                       \
    /* Lane i becomes OP over all lanes of m[i]. */                                                \
    ATTN_INLINE vec NAME(const vec m[LANES])                                                       \
    {                                                                                              \
        vec q[4];                                                                                  \
        for (int i = 0; i < 4; i++) {                                                              \
            const vec *r = m + 4 * i;                                                              \
            vec a = OP(_mm512_shuffle_f32x4(r[0], r[1], 0x88),                                     \
                       _mm512_shuffle_f32x4(r[0], r[1], 0xDD));                                    \
            vec b = OP(_mm512_shuffle_f32x4(r[2], r[3], 0x88),                                     \
                       _mm512_shuffle_f32x4(r[2], r[3], 0xDD));                                    \
            q[i] = OP(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));         \
        }                                                                                          \
        vec a = OP(_mm512_unpacklo_ps(q[0], q[1]), _mm512_unpackhi_ps(q[0], q[1]));                \
        vec b = OP(_mm512_unpacklo_ps(q[2], q[3]), _mm512_unpackhi_ps(q[2], q[3]));                \
        __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);                                  \
        a = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));                                            \
        b = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));                                            \
        const __m512i order =                                                                      \
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);               \
        return _mm512_permutexvar_ps(order, OP(a, b));                                             \
    }

OF_SIXTEEN(sums_of, _mm512_add_ps)
OF_SIXTEEN(highest_of, _mm512_max_ps)

/* ---- packing */

/* What numbers are multiplied by, for what they are to be multiplied by again; 0 for 0. */
ATTN_INLINE vec inverse_of(vec inverse)
{
    __mmask16 some = _mm512_cmp_ps_mask(inverse, v_zero(), _CMP_GT_OQ);
    return _mm512_maskz_div_ps(some, v_set1(1.0f), inverse);
}

ATTN_INLINE vec abs_max(vec a, vec b)
{
    return _mm512_range_ps(a, b, 0xB);
}

/* Rounded: the first in the lower half of a lane. */
ATTN_INLINE __m512i pair_up(vec first, vec f_first, vec second, vec f_second)
{
    __m512i low = _mm512_castps_si512(v_fmadd(first, f_first, v_set1(MAGIC)));
    __m512i high = _mm512_castps_si512(v_fmadd(second, f_second, v_set1(MAGIC)));
    return _mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16));
}

/* Columns 16 * b .. of row i, both parts in a row. */
ATTN_INLINE vec columns(const attn_rows *r, int64_t i, int64_t b)
{
    int64_t own = b - r->w1 / LANES;
    return v_load(own < 0 ? r->x1 + i * r->ld1 + b * LANES : r->x2 + i * r->ld2 + own * LANES);
}

static int64_t blocks(const attn_rows *r)
{
    return (r->w1 + r->w2) / LANES;
}

/* The largest number of a row and its sum of squares, lane by lane. */
ATTN_INLINE void measure(const attn_rows *r, int64_t i, vec *most, vec *squares)
{
    const float *x = r->x1 + i * r->ld1;
    vec m = v_zero(), s = v_zero();
    for (int64_t d = 0; d < r->w1; d += LANES) {
        vec v = v_load(x + d);
        m = abs_max(v, m);
        s = v_fmadd(v, v, s);
    }
    x = r->w2 > 0 ? r->x2 + i * r->ld2 : NULL;
    for (int64_t d = 0; d < r->w2; d += LANES) {
        vec v = v_load(x + d);
        m = abs_max(v, m);
        s = v_fmadd(v, v, s);
    }
    *most = m;
    *squares = s;
}

/* The factors' inverses of rows i .. i + 15, of which n are there, so that no number exceeds MOST
 * and no norm NORM. */
static vec fit_rows(const attn_rows *r, int64_t i, int64_t n)
{
    vec most[LANES], squares[LANES];
    for (int k = 0; k < LANES; k++) {
        most[k] = squares[k] = v_zero();
        if (k < n)
            measure(r, i + k, &most[k], &squares[k]);
    }
    vec highest = highest_of(most), norm = _mm512_sqrt_ps(sums_of(squares));
    vec inverse = v_max(v_mul(highest, v_set1(1.0f / MOST)), v_mul(norm, v_set1(1.0f / NORM)));
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(highest, v_set1(NOTHING), _CMP_GT_OQ), inverse);
}

/* Sixteen rows (of which n are there) turned round, pair by pair, ldo apart. */
static void pack_turned(const attn_rows *r, int64_t at, int64_t n, vec factors, __mmask16 wanted,
                        float *out, int64_t ldo)
{
    _Alignas(64) float factor[LANES];
    v_store(factor, factors);
    for (int64_t b = 0; b < blocks(r); b += 2, out += LANES * ldo) {
        vec m[LANES];
        for (int k = 0; k < LANES; k++) {
            m[k] = v_zero();
            if (k >= n)
                continue;
            vec f = v_set1(factor[k]), low = columns(r, at + k, b);
            vec high = b + 1 < blocks(r) ? columns(r, at + k, b + 1) : v_zero();
            m[k] = _mm512_castsi512_ps(pair_up(low, f, high, f));
        }
        v_transpose(m);
        for (int k = 0; k < LANES; k++)
            _mm512_mask_storeu_ps(out + k * ldo, wanted, m[k]);
    }
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Pairs of a tile's rows side by side, behind them what their scores are multiplied by. */
static void pack_queries(const attn_rows *r, float scale, float *out)
{
    int64_t w = r->w1 + r->w2, pairs = attn_pairs_16(w);
    for (int64_t t = 0; t < r->n; t += ATTN_TILE_ROWS, out += w * ATTN_TILE_ROWS) {
        int64_t n = min_i64(r->n - t, ATTN_TILE_ROWS);
        vec inverse = fit_rows(r, t, n);
        pack_turned(r, t, n, inverse_of(inverse), ROWS_MASK, out, ATTN_TILE_ROWS);
        _mm512_mask_storeu_ps(out + pairs * ATTN_TILE_ROWS, ROWS_MASK,
                              v_mul(inverse, v_set1(scale * LOG2_E)));
    }
}

/* Pairs of GROUP positions side by side, behind all groups what their scores are multiplied by. */
static void pack_keys(const attn_rows *r, float *out)
{
    int64_t pairs = attn_pairs_16(r->w1 + r->w2);
    float *inverses = out + ATTN_PANEL * pairs;
    for (int64_t p = 0; p < (r->n + GROUP - 1) / GROUP * GROUP; p += LANES) {
        vec inverse = fit_rows(r, p, r->n - p);
        v_store(inverses + p, inverse);
        pack_turned(r, p, r->n - p, inverse_of(inverse), 0xFFFF,
                    out + p / GROUP * GROUP * pairs + p % GROUP, GROUP);
    }
}

static vec fit_values(const attn_rows *r, int64_t p)
{
    vec most[LANES], squares;
    for (int k = 0; k < LANES; k++) {
        most[k] = v_zero();
        if (p + k < r->n)
            measure(r, p + k, &most[k], &squares);
    }
    vec highest = highest_of(most);
    return _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(highest, v_set1(NOTHING), _CMP_GT_OQ), highest,
                               v_set1(1.0f / MOST_OF_V));
}

/* Columns from d on that a tile of weighted sums takes together. */
static int64_t tile_columns(int64_t wv, int64_t d)
{
    return d + SUM_COLUMNS * LANES <= wv ? SUM_COLUMNS * LANES : LANES;
}

/* Two rows' columns as pairs, to pair number `pair` of each tile's part of the panel. */
static void pack_pair(const attn_rows *r, int64_t first, int64_t second, const float *factor,
                      int64_t pair, float *out)
{
    vec f = v_set1(factor[0]), g = v_set1(factor[LANES]);
    for (int64_t d = 0, nc; d < r->w1; d += nc) {
        nc = tile_columns(r->w1, d);
        float *to = out + d * (ATTN_PANEL / 2) + pair * nc;
        for (int64_t i = 0; i < nc; i += LANES) {
            vec x = first < r->n ? columns(r, first, (d + i) / LANES) : v_zero();
            vec y = second < r->n ? columns(r, second, (d + i) / LANES) : v_zero();
            _mm512_storeu_si512(to + i, pair_up(x, f, y, g));
        }
    }
}

/* Pairs of positions, all of them for the columns of a tile and then for the next ones; behind them
 * what weights are multiplied by. */
static void pack_values(const attn_rows *r, float *out)
{
    float *inverses = out + ATTN_PANEL / 2 * r->w1;
    for (int64_t p = 0; p < r->n; p += GROUP) {
        _Alignas(64) float factor[GROUP];
        for (int half = 0; half < GROUP; half += LANES) {
            vec inverse = fit_values(r, p + half);
            v_store(inverses + p + half, inverse);
            v_store(factor + half, inverse_of(inverse));
        }
        for (int k = 0; k < LANES; k++)
            pack_pair(r, p + k, p + k + LANES, factor + k, p / 2 + k, out);
    }
}

/* ---- scores */

/* A pair of 16 bits, stored as a float, in all lanes. */
ATTN_INLINE __m512i both_of(const float *pair)
{
    return _mm512_castps_si512(v_set1(*pair));
}

/* acc + the products of pairs. Not the intrinsic: with 24 sums at once, GCC 12 copies and spills
 * them. */
ATTN_INLINE void add_pairs(__m512i *acc, __m512i x, __m512i y)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*acc) : "v"(x), "v"(y));
}

/* Unrolled early, so that sums are registers. */
#define EACH_TILE_ROW _Pragma("GCC unroll 12") for (int i = 0; i < ATTN_TILE_ROWS; i++)

/* Scores but for the factor of the row: ATTN_PANEL apart. */
static void scores(const attn_tile *t, int64_t n, float *s)
{
    const int64_t pairs = attn_pairs_16(t->w);
    const float *inverses = t->k + ATTN_PANEL * pairs, *k = t->k;
    for (int64_t p = 0; p < n; p += GROUP) {
        __m512i low[ATTN_TILE_ROWS], high[ATTN_TILE_ROWS];
        const float *q = t->q;
        EACH_TILE_ROW low[i] = high[i] = _mm512_setzero_si512();
        for (int64_t d = 0; d < pairs; d++, k += GROUP, q += ATTN_TILE_ROWS) {
            __m512i k0 = _mm512_loadu_si512(k), k1 = _mm512_loadu_si512(k + LANES);
            EACH_TILE_ROW
            {
                __m512i x = both_of(q + i);
                add_pairs(&low[i], x, k0);
                add_pairs(&high[i], x, k1);
            }
        }
        vec f0 = v_load(inverses + p), f1 = v_load(inverses + p + LANES);
        EACH_TILE_ROW
        {
            v_store(s + i * ATTN_PANEL + p, v_mul(_mm512_cvtepi32_ps(low[i]), f0));
            v_store(s + i * ATTN_PANEL + p + LANES, v_mul(_mm512_cvtepi32_ps(high[i]), f1));
        }
    }
}

/* ---- softmax
 *
 * Weights are powers of two of scores less a reference, which is the highest score of the first
 * panel that the row meets, and stays while no panel's weights add up to more than MUCH: floats
 * hold them as exactly as they would below 1. state[2 * r] is the reference. */

/* 2^v, within 3e-6 of it, which is less than weights are rounded by: a polynomial of the
 * fraction. */
ATTN_INLINE vec power_of_two(vec v)
{
    vec f = _mm512_reduce_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vec p = v_fmadd(v_set1(0x1.b7f834p-7f), f, v_set1(0x1.abf8p-5f));
    p = v_fmadd(p, f, v_set1(0x1.ee245ep-3f));
    p = v_fmadd(p, f, v_set1(0x1.62d6c6p-1f));
    p = v_fmadd(p, f, v_set1(1.0f));
    return _mm512_scalef_ps(p, v);
}

/* Which of positions p .. p + 15 a row sees that sees so many. */
ATTN_INLINE __mmask16 in_sight_of(int64_t seen, int64_t p)
{
    return seen - p >= LANES ? 0xFFFF : seen <= p ? 0 : (__mmask16)((1u << (seen - p)) - 1);
}

/* What the panel's weights of a tile add up to. */
typedef struct {
    vec sum[LANES];      /* of each row */
    vec weighted[LANES]; /* times the factors of V */
} panel_sums;

/* From scores to weights times the factors of V, in place. */
ATTN_INLINE void weigh_rows(const attn_tile *t, int64_t n, const bool all, float *s,
                            panel_sums *sums)
{
    const float *f = t->q + attn_pairs_16(t->w) * ATTN_TILE_ROWS;
    const float *inverses = t->v + ATTN_PANEL / 2 * t->wv;
    for (int r = 0; r < ATTN_TILE_ROWS; r++, s += ATTN_PANEL) {
        const vec factor = v_set1(f[r]), reference = v_set1(t->state[2 * r]);
        vec sum = v_zero(), weighted = v_zero();
        for (int64_t p = 0; p < n; p += LANES) {
            vec x = power_of_two(_mm512_fmsub_ps(v_load(s + p), factor, reference));
            if (!all)
                x = _mm512_maskz_mov_ps(in_sight_of(t->seen[r], p), x);
            vec y = v_mul(x, v_load(inverses + p));
            v_store(s + p, y);
            sum = v_add(sum, x);
            weighted = v_add(weighted, y);
        }
        sums->sum[r] = sum;
        sums->weighted[r] = weighted;
    }
}

/* Positions of the panel that some row sees, in whole groups; whether all see all of them. */
static int64_t in_sight(const attn_tile *t, bool *all)
{
    int64_t most = 0, least = t->n;
    for (int r = 0; r < ATTN_TILE_ROWS; r++) {
        most = t->seen[r] > most ? t->seen[r] : most;
        least = t->seen[r] < least ? t->seen[r] : least;
    }
    most = (most + GROUP - 1) / GROUP * GROUP;
    *all = least >= most;
    return most;
}

/* The highest score of row r. */
static float highest_score(const attn_tile *t, int r, int64_t n, const float *s)
{
    vec most = v_set1(-INFINITY);
    for (int64_t p = 0; p < n; p += LANES)
        most = _mm512_mask_max_ps(most, in_sight_of(t->seen[r], p), most,
                                  v_load(s + r * ATTN_PANEL + p));
    return v_highest(most) * t->q[attn_pairs_16(t->w) * ATTN_TILE_ROWS + r];
}

/* Rows that see the first of their positions. */
static void find_references(const attn_tile *t, int64_t n, const float *s)
{
    for (int r = 0; r < ATTN_TILE_ROWS; r++)
        if (t->state[2 * r] == -INFINITY && t->seen[r] > 0)
            t->state[2 * r] = highest_score(t, r, n, s);
}

/* Takes the highest score of a row of the tile as its reference from here on. */
static void move_reference(const attn_tile *t, int r, int64_t n, const float *s)
{
    float to = highest_score(t, r, n, s), shrink = exp2f(t->state[2 * r] - to);
    t->state[2 * r] = to;
    t->state[2 * r + 1] *= shrink;
    for (int64_t d = 0; d < t->wv; d++)
        t->acc[r * t->wv + d] *= shrink;
}

/* Weights in place of scores, and sums[r] of each row. */
static vec weigh(const attn_tile *t, int64_t n, bool all, float *s, panel_sums *sums)
{
    for (;;) {
        if (all)
            weigh_rows(t, n, true, s, sums);
        else
            weigh_rows(t, n, false, s, sums);
        vec sum = sums_of(sums->sum);
        __mmask16 moved = _mm512_cmp_ps_mask(sum, v_set1(MUCH), _CMP_NLE_UQ) & ROWS_MASK;
        if (!moved)
            return sum;
        scores(t, n, s);
        for (int r = 0; r < ATTN_TILE_ROWS; r++)
            if (moved >> r & 1)
                move_reference(t, r, n, s);
    }
}

/* Rounds the weights, so that neither one nor their sum is too large; returns what sums with them
 * are to be multiplied by. A lane of `weighted` is the sum of some weights and so a bound of
 * them. */
static vec round_weights(int64_t n, const float *s, const panel_sums *sums, float *weights)
{
    vec highest = highest_of(sums->weighted), sum = sums_of(sums->weighted);
    vec inverse =
        v_max(v_mul(highest, v_set1(1.0f / MOST)), v_mul(sum, v_set1(1.0f / SUM_OF_WEIGHTS)));
    inverse = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(sum, v_set1(NOTHING), _CMP_GT_OQ), inverse);
    _Alignas(64) float factor[LANES];
    v_store(factor, inverse_of(inverse));
    for (int r = 0; r < ATTN_TILE_ROWS; r++, s += ATTN_PANEL, weights += ATTN_PANEL / 2) {
        vec f = v_set1(factor[r]);
        for (int64_t p = 0; p < n; p += GROUP)
            _mm512_storeu_si512(weights + p / 2,
                                pair_up(v_load(s + p), f, v_load(s + p + LANES), f));
    }
    return inverse;
}

/* ---- weighted sums */

#define EACH_ROW    _Pragma("GCC unroll 6") for (int i = 0; i < SUM_ROWS; i++)
#define EACH_COLUMN _Pragma("GCC unroll 4") for (int j = 0; j < nc; j++)

ATTN_INLINE void sum_tile(const attn_tile *t, int64_t r, int64_t d, const int nc, int64_t n,
                          const float *weights, const float *inverse)
{
    __m512i acc[SUM_ROWS][SUM_COLUMNS];
    const float *v = t->v + d * (ATTN_PANEL / 2);
    weights += r * (ATTN_PANEL / 2);
    EACH_ROW EACH_COLUMN acc[i][j] = _mm512_setzero_si512();
    for (int64_t p = 0; p < n / 2; p++, v += nc * LANES) {
        __m512i vd[SUM_COLUMNS];
        EACH_COLUMN vd[j] = _mm512_loadu_si512(v + j * LANES);
        EACH_ROW
        {
            __m512i weight = both_of(weights + i * (ATTN_PANEL / 2) + p);
            EACH_COLUMN add_pairs(&acc[i][j], weight, vd[j]);
        }
    }
    EACH_ROW EACH_COLUMN
    {
        float *to = t->acc + (r + i) * t->wv + d + j * LANES;
        v_store(to, v_fmadd(_mm512_cvtepi32_ps(acc[i][j]), v_set1(inverse[r + i]), v_load(to)));
    }
}

static void weighted_sums(const attn_tile *t, int64_t n, const float *weights, const float *inverse)
{
    for (int64_t d = 0, nc; d < t->wv; d += nc) {
        nc = tile_columns(t->wv, d);
        for (int r = 0; r < ATTN_TILE_ROWS; r += SUM_ROWS) {
            if (nc > LANES)
                sum_tile(t, r, d, SUM_COLUMNS, n, weights, inverse);
            else
                sum_tile(t, r, d, 1, n, weights, inverse);
        }
    }
}

static void add_tile(const attn_tile *t)
{
    _Alignas(64) float s[ATTN_TILE_ROWS * ATTN_PANEL], weights[ATTN_TILE_ROWS * ATTN_PANEL / 2];
    _Alignas(64) float inverse[LANES], sum[LANES];
    panel_sums sums;
    for (int r = ATTN_TILE_ROWS; r < LANES; r++)
        sums.sum[r] = sums.weighted[r] = v_zero();
    bool all;
    int64_t n = in_sight(t, &all);
    scores(t, n, s);
    find_references(t, n, s);
    v_store(sum, weigh(t, n, all, s, &sums));
    for (int r = 0; r < ATTN_TILE_ROWS; r++)
        t->state[2 * r + 1] += sum[r];
    v_store(inverse, round_weights(n, s, &sums, weights));
    weighted_sums(t, n, weights, inverse);
}

const attn_prompt attn_prompt_16_avx512 = {pack_queries, pack_keys, pack_values, add_tile};
