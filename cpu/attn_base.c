/* The inner loops of attention in plain C: the reference of the other tiers. */
#include <math.h>

#include "cpu/attn.h"

/* In LANES partial sums: fast enough where there is nothing better. */
enum { LANES = 16 };

static float dot(const float *restrict a, const float *restrict b, int64_t n)
{
    float lane[LANES] = {0};
    for (int64_t i = 0; i < n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

/* (a, their sum of weights) as if their maximum had been `max`. */
static float shrink(float *restrict acc, int64_t wv, float old_max, float max)
{
    float factor = max > old_max ? expf(old_max - max) : 1.0f;
    if (factor != 1.0f)
        for (int64_t j = 0; j < wv; j++)
            acc[j] *= factor;
    return factor;
}

static void add_to_row(const attn_block *b, int64_t r)
{
    int64_t n = b->seen ? b->seen[r] : b->n;
    float p[FR_ATTN_BLOCK], *state = b->state + 2 * r, max = state[0];
    float *restrict acc = b->acc + r * b->wv;
    for (int64_t i = 0; i < n; i++) {
        p[i] = dot(b->q + r * b->w, b->k + i * b->ldk, b->w) * b->scale;
        max = p[i] > max ? p[i] : max;
    }
    float sum = state[1] * shrink(acc, b->wv, state[0], max);
    for (int64_t i = 0; i < n; i++) {
        float weight = expf(p[i] - max);
        const float *restrict v = b->v + i * b->ldv;
        sum += weight;
        for (int64_t j = 0; j < b->wv; j++)
            acc[j] += weight * v[j];
    }
    state[0] = max;
    state[1] = sum;
}

static void add_block(const attn_block *b)
{
    for (int64_t r = 0; r < b->n_rows; r++)
        add_to_row(b, r);
}

static void fold(float *state, float *acc, const float *part_state, const float *part_acc,
                 int64_t wv)
{
    float max = part_state[0] > state[0] ? part_state[0] : state[0];
    float sum = state[1] * shrink(acc, wv, state[0], max), weight = expf(part_state[0] - max);
    for (int64_t j = 0; j < wv; j++)
        acc[j] += weight * part_acc[j];
    state[0] = max;
    state[1] = sum + weight * part_state[1];
}

static void decode(fr_type type, const void *row, int64_t n, float *out)
{
    fr_decode_row(type, FR_LAYOUT_PLAIN, row, 0, n, out);
}

const attn_kernels attn_kernels_base = {add_block, fold, decode};
