/* The inner loops of attention in plain C: the reference of the other tiers. */
#include <math.h>
#include <string.h>

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

static void fold_states(float *state, const float *parts, int64_t ld, int64_t n, float *shrink,
                        float *weight)
{
    for (int64_t i = 0; i < n; i++, parts += ld) {
        float max = parts[0] > state[0] ? parts[0] : state[0];
        shrink[i] = expf(state[0] - max);
        weight[i] = expf(parts[0] - max);
        state[0] = max;
        state[1] = state[1] * shrink[i] + weight[i] * parts[1];
    }
}

static void fold_sums(float *acc, const float *parts, int64_t ld, int64_t n, const float *shrink,
                      const float *weight, int64_t wv)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < wv; j++)
            acc[j] = acc[j] * shrink[i] + weight[i] * parts[i * ld + j];
}

static void decode(fr_type type, const void *row, int64_t n, float *out)
{
    fr_decode_row(type, FR_LAYOUT_PLAIN, row, 0, n, out);
}

const attn_kernels attn_kernels_base = {add_block, fold_states, fold_sums, decode, NULL};

/* ---- packed rows: as they come, zeros between the parts */

static void pack_rows(const attn_rows *r, float scale, float *out)
{
    int64_t w1 = attn_padded(r->w1), w = attn_width(r->w1, r->w2);
    for (int64_t i = 0; i < r->n; i++, out += w) {
        memset(out, 0, (size_t)w * sizeof *out);
        for (int64_t d = 0; d < r->w1; d++)
            out[d] = r->x1[i * r->ld1 + d] * scale;
        for (int64_t d = 0; d < r->w2; d++)
            out[w1 + d] = r->x2[i * r->ld2 + d] * scale;
    }
}

static void pack_queries(const attn_rows *r, float scale, float *out)
{
    int64_t w = attn_width(r->w1, r->w2), spare = attn_packed_rows(r->n) - r->n;
    pack_rows(r, scale, out);
    memset(out + r->n * w, 0, (size_t)(spare * w) * sizeof *out);
}

static void pack_keys_or_values(const attn_rows *r, float *out)
{
    pack_rows(r, 1.0f, out);
}

static void add_tile(const attn_tile *t)
{
    for (int64_t r = 0; r < ATTN_TILE_ROWS; r++)
        for (int64_t p = 0; p < t->seen[r]; p += FR_ATTN_BLOCK) {
            int64_t n = t->seen[r] - p;
            add_to_row(&(attn_block){.q = t->q,
                                     .w = t->w,
                                     .k = t->k + p * t->w,
                                     .v = t->v + p * t->wv,
                                     .ldk = t->w,
                                     .ldv = t->wv,
                                     .n = n < FR_ATTN_BLOCK ? n : FR_ATTN_BLOCK,
                                     .wv = t->wv,
                                     .scale = 1.0f,
                                     .state = t->state,
                                     .acc = t->acc},
                       r);
        }
}

const attn_prompt attn_prompt_base = {pack_queries, pack_keys_or_values, pack_keys_or_values,
                                      add_tile};
