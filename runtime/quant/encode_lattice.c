#include "quant/encode_lattice.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "quant/tables.h"

/* ---- search --------------------------------------------------------------------------------- */

/* What the levels of the lanes cost. */
typedef struct {
    float err[ENC_LANES_MAX][8];
} lane_costs;

static inline void price(const enc_lattice *l, int lanes, int levels, const float *x,
                         const float *w, float s, lane_costs *c)
{
    for (int k = 0; k < levels; k++) {
        float v = s * l->level[k];
        for (int i = 0; i < lanes; i++)
            c->err[i][k] = w[i] * (x[i] - v) * (x[i] - v);
    }
}

/* Joins the costs of np and nq contents to those of np * nq. */
static inline void join(const float *p, int np, const float *q, int nq, float *out)
{
    for (int i = 0; i < np; i++)
        for (int k = 0; k < nq; k++)
            out[i * nq + k] = p[i] + q[k];
}

static inline float least(const float *v, int n)
{
    float m = v[0];
    for (int i = 1; i < n; i++)
        m = v[i] < m ? v[i] : m;
    return m;
}

/* An error that is not negative and an entry, ordered by error: taking the minimum of such numbers
 * keeps loops free of branches, which nothing could predict. */
static inline uint64_t ranked(float err, int entry)
{
    return (uint64_t)fr_f32_bits(err) << 32 | (uint32_t)entry;
}

/* The word nearest to the best levels of all lanes: it need not be the best, but bounds it. */
static inline uint64_t guess(const enc_lattice *l, const lane_costs *c, int lanes, int levels)
{
    int key = 0;
    float err = 0;
    for (int i = 0; i < lanes; i++) {
        int best = 0;
        for (int k = 1; k < levels; k++)
            best = c->err[i][k] < c->err[i][best] ? k : best;
        key = key * levels + best;
    }
    const int8_t *at = l->at[l->index[l->near[key]]];
    for (int i = 0; i < lanes; i++)
        err += c->err[i][at[i]];
    return ranked(err, l->near[key]);
}

/* p and q are the costs of the first half's halves, n contents each; `second` of the second half.
 */
static inline int search(const enc_lattice *l, uint64_t best, const float *p, const float *q, int n,
                         const float *second, float least_second)
{
    float limit = fr_f32_from_bits((uint32_t)(best >> 32)) - least_second, least_q = least(q, n);
    int first[9], half[ENC_HALVES_MAX], n_first = 0, n_half = 0;
    for (int i = 0; i < n; i++) {
        first[n_first] = i;
        n_first += p[i] + least_q < limit;
    }
    for (int i = 0; i < n_first; i++) {
        for (int k = 0; k < n; k++) {
            half[n_half] = first[i] * n + k;
            n_half += p[first[i]] + q[k] < limit;
        }
    }
    for (int i = 0; i < n_half; i++) {
        float err = p[half[i] / n] + q[half[i] % n];
        for (int e = l->start[half[i]]; e < l->start[half[i] + 1]; e++) {
            uint64_t r = ranked(err + second[l->second[e]], e);
            best = r < best ? r : best;
        }
    }
    return (int)(best & 0xFFFFFFFF);
}

static int search_4(const enc_lattice *l, const float *x, const float *w, float s)
{
    lane_costs c;
    float second[64];
    price(l, 4, 8, x, w, s, &c);
    join(c.err[2], 8, c.err[3], 8, second);
    return search(l, guess(l, &c, 4, 8), c.err[0], c.err[1], 8, second,
                  least(c.err[2], 8) + least(c.err[3], 8));
}

static int search_8(const enc_lattice *l, const float *x, const float *w, float s)
{
    lane_costs c;
    float pair[4][9], second[81];
    price(l, 8, 3, x, w, s, &c);
    for (int i = 0; i < 4; i++)
        join(c.err[2 * i], 3, c.err[2 * i + 1], 3, pair[i]);
    join(pair[2], 9, pair[3], 9, second);
    return search(l, guess(l, &c, 8, 3), pair[0], pair[1], 9, second,
                  least(pair[2], 9) + least(pair[3], 9));
}

static int nearest_entry(const enc_lattice *l, const float *x, const float *w, float s)
{
    return l->lanes == 4 ? search_4(l, x, w, s) : search_8(l, x, w, s);
}

int enc_lattice_nearest(const enc_lattice *l, const float *x, const float *w, float s)
{
    return l->index[nearest_entry(l, x, w, s)];
}

/* ---- codebooks ------------------------------------------------------------------------------ */

static int half_number(const enc_lattice *l, const int8_t *at)
{
    int n = 0;
    for (int i = 0; i < l->lanes / 2; i++)
        n = n * l->n_levels + at[i];
    return n;
}

/* Fills l->near; a search in which all of it is 0 works. */
static void find_near(enc_lattice *l)
{
    static const float equal[ENC_LANES_MAX] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int key = 0; key < l->n_halves * l->n_halves; key++) {
        float x[ENC_LANES_MAX];
        for (int i = l->lanes - 1, rest = key; i >= 0; i--, rest /= l->n_levels)
            x[i] = l->level[rest % l->n_levels];
        l->near[key] = (uint16_t)nearest_entry(l, x, equal, 1);
    }
}

void enc_lattice_init(enc_lattice *l, int lanes, int n_levels, const float *level, int n_words,
                      enc_lanes_fn *lanes_of)
{
    int next[ENC_HALVES_MAX];
    l->lanes = lanes;
    l->n_levels = n_levels;
    l->n_halves = lanes == 8 ? 81 : 64;
    memset(l->start, 0, sizeof(l->start));
    memcpy(l->level, level, (size_t)n_levels * sizeof(float));
    for (int i = 0; i < n_words; i++) {
        lanes_of(i, l->at[i]);
        l->start[half_number(l, l->at[i]) + 1]++;
    }
    for (int a = 0; a < l->n_halves; a++) {
        l->start[a + 1] += l->start[a];
        next[a] = l->start[a];
    }
    for (int i = 0; i < n_words; i++) {
        int entry = next[half_number(l, l->at[i])]++;
        l->second[entry] = (uint8_t)half_number(l, l->at[i] + lanes / 2);
        l->index[entry] = (uint16_t)i;
    }
    find_near(l);
}

/* Lanes of 8, 25, 43; of 4, 12, .. 52, 62; of 1, 3, .. 15; of -1, 0, 1. */
static void split(uint64_t word, int lanes, int8_t *at, int (*number)(int))
{
    for (int i = 0; i < lanes; i++)
        at[i] = (int8_t)number(fr_grid_u8(word, (unsigned)i));
}

static int number_of_3(int v)
{
    return v / 20;
}

static int number_of_8(int v)
{
    return v / 8;
}

static int number_of_odd(int v)
{
    return v / 2;
}

static int number_of_sign(int v)
{
    return (int8_t)v + 1;
}

static void lanes_iq2_xxs(int i, int8_t *at)
{
    split(fr_iq2xxs_grid[i], 8, at, number_of_3);
}

static void lanes_iq2_xs(int i, int8_t *at)
{
    split(fr_iq2xs_grid[i], 8, at, number_of_3);
}

static void lanes_iq2_s(int i, int8_t *at)
{
    split(fr_iq2s_grid[i], 8, at, number_of_3);
}

static void lanes_iq3_xxs(int i, int8_t *at)
{
    split(fr_iq3xxs_grid[i], 4, at, number_of_8);
}

static void lanes_iq3_s(int i, int8_t *at)
{
    split(fr_iq3s_grid[i], 4, at, number_of_odd);
}

static void lanes_iq1(int i, int8_t *at)
{
    split(fr_iq1s_grid[i], 8, at, number_of_sign);
}

static enc_lattice lattices[ENC_CODEBOOKS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_all(void)
{
    static const float l2[] = {8, 25, 43}, l3[] = {4, 12, 20, 28, 36, 44, 52, 62},
                       odd[] = {1, 3, 5, 7, 9, 11, 13, 15}, l1[] = {-1, 0, 1};
    enc_lattice_init(&lattices[ENC_IQ2_XXS], 8, 3, l2, 256, lanes_iq2_xxs);
    enc_lattice_init(&lattices[ENC_IQ2_XS], 8, 3, l2, 512, lanes_iq2_xs);
    enc_lattice_init(&lattices[ENC_IQ2_S], 8, 3, l2, 1024, lanes_iq2_s);
    enc_lattice_init(&lattices[ENC_IQ3_XXS], 4, 8, l3, 256, lanes_iq3_xxs);
    enc_lattice_init(&lattices[ENC_IQ3_S], 4, 8, odd, 512, lanes_iq3_s);
    enc_lattice_init(&lattices[ENC_IQ1], 8, 3, l1, 2048, lanes_iq1);
}

const enc_lattice *enc_lattice_get(enc_codebook which)
{
    pthread_once(&once, make_all);
    return &lattices[which];
}
