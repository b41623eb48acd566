#include "quant/encode_lattice.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "quant/tables.h"

/* ---- search --------------------------------------------------------------------------------- */

/* Tables over the contents of a half, numbered with the first lane most significant. */
typedef struct {
    float err[2][ENC_HALVES_MAX];  /* of either half */
    float flip[2][ENC_HALVES_MAX]; /* what the cheapest sign change in it adds */
} halves;

static void sums(const float *p, int np, const float *q, int nq, float *out)
{
    for (int i = 0; i < np; i++)
        for (int k = 0; k < nq; k++)
            out[i * nq + k] = p[i] + q[k];
}

static void minima(const float *p, int np, const float *q, int nq, float *out)
{
    for (int i = 0; i < np; i++)
        for (int k = 0; k < nq; k++)
            out[i * nq + k] = p[i] < q[k] ? p[i] : q[k];
}

typedef void join_fn(const float *p, int np, const float *q, int nq, float *out);

/* From tables of 2 or 4 lanes (8 floats apart) to the table of the half. */
static inline void join_lanes(const enc_lattice *l, const float *lane, join_fn *join, float *out)
{
    int n = l->n_levels;
    float first[9], second[9];
    if (l->lanes == 4) {
        join(lane, n, lane + 8, n, out);
        return;
    }
    join(lane, n, lane + 8, n, first);
    join(lane + 16, n, lane + 24, n, second);
    join(first, n * n, second, n * n, out);
}

static void tabulate(const enc_lattice *l, const float *x, const float *w, float s, bool flip,
                     halves *t)
{
    float err[ENC_LANES_MAX][8], turn[ENC_LANES_MAX][8];
    int half = l->lanes / 2;
    for (int i = 0; i < l->lanes; i++) {
        for (int k = 0; k < l->n_levels; k++) {
            float v = s * l->level[k];
            err[i][k] = w[i] * (x[i] - v) * (x[i] - v);
            turn[i][k] = 4 * w[i] * x[i] * v;
        }
    }
    for (int h = 0; h < 2; h++) {
        join_lanes(l, err[h * half], sums, t->err[h]);
        if (flip)
            join_lanes(l, turn[h * half], minima, t->flip[h]);
    }
}

typedef struct {
    float err;
    int entry;
} found;

static inline void look_at(const enc_lattice *l, const halves *t, int a, bool flip, found *best)
{
    float first = t->err[0][a];
    for (int i = l->start[a]; i < l->start[a + 1]; i++) {
        int b = l->second[i];
        float e = first + t->err[1][b];
        if (flip)
            e += t->flip[0][a] < t->flip[1][b] ? t->flip[0][a] : t->flip[1][b];
        if (e < best->err) {
            best->err = e;
            best->entry = i;
        }
    }
}

static int least(const float *v, int n)
{
    int at = 0;
    for (int i = 1; i < n; i++)
        if (v[i] < v[at])
            at = i;
    return at;
}

/* The lane of a word whose sign change costs least. */
static int cheapest_lane(const enc_lattice *l, int index, const float *x, const float *w)
{
    int best = 0;
    float cost = INFINITY;
    for (int i = 0; i < l->lanes; i++) {
        float c = w[i] * x[i] * l->level[l->at[index][i]];
        if (c < cost) {
            cost = c;
            best = i;
        }
    }
    return best;
}

int enc_lattice_nearest(const enc_lattice *l, const float *x, const float *w, float s, bool flip,
                        float *err, int *lane)
{
    halves t;
    found best = {INFINITY, 0};
    tabulate(l, x, w, s, flip, &t);
    int a0 = least(t.err[0], l->n_halves);
    float least1 = t.err[1][least(t.err[1], l->n_halves)];
    look_at(l, &t, a0, flip, &best);
    for (int a = 0; a < l->n_halves; a++)
        if (a != a0 && t.err[0][a] + least1 < best.err)
            look_at(l, &t, a, flip, &best);
    int index = l->index[best.entry];
    *err = best.err;
    *lane = flip ? cheapest_lane(l, index, x, w) : -1;
    return index;
}

/* ---- codebooks ------------------------------------------------------------------------------ */

static int half_number(const enc_lattice *l, const int8_t *at)
{
    int n = 0;
    for (int i = 0; i < l->lanes / 2; i++)
        n = n * l->n_levels + at[i];
    return n;
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
