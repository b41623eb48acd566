/* Encoders of the types without sub-blocks: blocks of 32 with a scale of their own, and q8_KV,
 * whose scale is the row's.
 *
 * Sweep over scales that put the extreme value near either end of the levels, then alternate levels
 * and scale; the scale's rounding to f16 is part of the last alternations. mxfp4's powers of two
 * are all tried that can be best. Without importance q8_0 and q8_KV are written as everybody writes
 * them, byte for byte: the extreme value becomes +-127. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "quant/encode.h"
#include "quant/encode_fit.h"
#include "quant/types.h"

enum { N = 32 };

/* The scale of a block, rounded as the file wants it, and the codes. Blocks that are better off as
 * zeros (their scale is less than the least of f16) become zeros. */
static enc_f16 fit(const enc_levels *lv, const enc_block *b, enc_sweep sweep, uint8_t *q)
{
    enc_sums at = enc_try(lv, b->x, b->w, N, 0), t;
    enc_f16 d = {0, 0};
    float better = enc_best_scale(lv, b->x, b->w, N, sweep, &t);
    for (int round = 0; round < 5; round++) {
        enc_f16 next = enc_round_scale(better, b->exp);
        t = enc_try(lv, b->x, b->w, N, next.value);
        if (!(t.err < at.err))
            break;
        at = t;
        d = next;
        better = t.b > 0 ? t.a / t.b : 0;
    }
    enc_codes(lv, b->x, N, d.value, q);
    return d;
}

/* Codes count up from the lowest level. */
#define DEFINE_ENCODER(ID, T, init_levels, ...)                                                    \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        enc_levels lv;                                                                             \
        enc_block b;                                                                               \
        uint8_t *blk = dst;                                                                        \
        float unit = enc_weight_unit(importance, cols);                                            \
        init_levels;                                                                               \
        memset(dst, 0, fr_row_bytes(FR_TYPE_##ID, FR_LAYOUT_PLAIN, cols));                         \
        for (int64_t at = 0; at < cols; at += N) {                                                 \
            fr_##T##_fields v;                                                                     \
            enc_load(&b, x, importance, at, N, unit, enc_exponent(x + at, N));                     \
            v.d[0] = fit(&lv, &b, (enc_sweep){__VA_ARGS__}, v.q).bits;                             \
            fr_##T##_pack_plain(&v, NULL, blk, 0);                                                 \
            blk += fr_type_get(FR_TYPE_##ID)->bytes;                                               \
        }                                                                                          \
    }

DEFINE_ENCODER(Q4_0, q4_0, enc_levels_integers(&lv, -8, 16), 0.85f, 1.1f, 0.025f)
DEFINE_ENCODER(Q5_0, q5_0, enc_levels_integers(&lv, -16, 32), 0.9f, 1.1f, 0.02f)
DEFINE_ENCODER(Q6_0, q6_0, enc_levels_integers(&lv, -32, 64), 0.95f, 1.05f, 0.01f)
DEFINE_ENCODER(IQ4_NL, iq4_nl, enc_levels_table(&lv, fr_iq4k_values, 16), 0.85f, 1.1f, 0.025f)

/* ---- 8 bits ---------------------------------------------------------------------------------- */

static float magnitude(const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* The usual codes; they are made with the scale before it is rounded. */
static void round_to_127(const float *x, int n, float inv, uint8_t *q)
{
    for (int i = 0; i < n; i++)
        q[i] = (uint8_t)(int)roundf(x[i] * inv);
}

/* Codes above are counted from -127 here. */
static void as_int8(uint8_t *q, int n)
{
    for (int i = 0; i < n; i++)
        q[i] = (uint8_t)(q[i] - 127);
}

void quant_encode_q8_0(const float *x, int64_t cols, const float *importance, void *dst)
{
    static const enc_sweep sweep = {0.98f, 1.01f, 0.005f};
    enc_levels lv;
    enc_block b;
    fr_block_q8_0 *blk = dst;
    float unit = enc_weight_unit(importance, cols);
    enc_levels_integers(&lv, -127, 255);
    memset(dst, 0, fr_row_bytes(FR_TYPE_Q8_0, FR_LAYOUT_PLAIN, cols));
    for (int64_t at = 0; at < cols; at += N, blk++) {
        fr_q8_0_fields v;
        float d = magnitude(x + at, N) / 127;
        enc_f16 usual = enc_round_f16(d, 0);
        if (unit > 0 || usual.value < 0x1p-14f || d > 65504) {
            enc_load(&b, x, importance, at, N, unit, enc_exponent(x + at, N));
            v.d[0] = fit(&lv, &b, sweep, v.q).bits;
            as_int8(v.q, N);
        } else {
            v.d[0] = usual.bits;
            round_to_127(x + at, N, 1 / d, v.q);
        }
        fr_q8_0_pack_plain(&v, NULL, (uint8_t *)blk, 0);
    }
}

/* The best scale of a row with importance: some shrunk ranges are tried over all of it. */
static float row_scale(const float *x, int64_t cols, const float *importance, float unit,
                       float usual, int exp)
{
    enum { TRIES = 12 };
    enc_levels lv;
    enc_block b;
    double err[TRIES] = {0}, xc[TRIES] = {0}, cc[TRIES] = {0};
    int best = 0;
    enc_levels_integers(&lv, -127, 255);
    for (int64_t at = 0; at < cols; at += N) {
        enc_load(&b, x, importance, at, N, unit, exp);
        for (int t = 0; t < TRIES; t++) {
            enc_sums s = enc_try(&lv, b.x, b.w, N, ldexpf(usual, -exp) * (1 - 0.01f * (float)t));
            err[t] += s.err;
            xc[t] += s.a;
            cc[t] += s.b;
        }
    }
    for (int t = 1; t < TRIES; t++)
        if (err[t] < err[best])
            best = t;
    return cc[best] > 0 ? ldexpf((float)(xc[best] / cc[best]), exp) : usual;
}

void quant_encode_q8_KV(const float *x, int64_t cols, const float *importance, void *dst)
{
    uint8_t *row = dst, *blk = row + fr_type_get(FR_TYPE_Q8_KV)->row_meta;
    float unit = enc_weight_unit(importance, cols), d = magnitude(x, cols) / 127;
    if (unit > 0 && d > 0)
        d = row_scale(x, cols, importance, unit, d, enc_exponent(x, cols));
    d = fminf(d, FLT_MAX / 128); /* 127 of it must not pass binary32 */
    memset(dst, 0, fr_row_bytes(FR_TYPE_Q8_KV, FR_LAYOUT_PLAIN, cols));
    for (int64_t at = 0; at < cols; at += N, blk += N) {
        fr_q8_KV_fields v = {.d = {fr_f32_bits(d)}};
        for (int i = 0; i < N; i++)
            v.q[i] = (uint8_t)(int)fminf(fmaxf(rintf(d > 0 ? x[at + i] / d : 0), -127), 127);
        fr_q8_KV_pack_plain(&v, row, blk, 0);
    }
    fr_q8_KV_seal(row, cols);
}

/* ---- powers of two ----------------------------------------------------------------------------
 */

/* mxfp4's distinct values ascending, and the codes that stand for them. */
static const int8_t mx_levels[15] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};
static const uint8_t mx_codes[15] = {15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7};

/* 12 times 2^(d - 128) is finite up to this d. */
enum { MX_D_MAX = 252 };

/* The exponent of a block's scale: 12 times it is 3/4 to 6 times the extreme value. */
static int mx_exponent(const enc_levels *lv, const enc_block *b)
{
    int first, best = 0;
    float least = INFINITY;
    frexpf(magnitude(b->x, N) / 12, &first);
    for (int e = first - 1; e <= first + 1; e++) {
        float err = enc_try(lv, b->x, b->w, N, ldexpf(1, e)).err;
        if (err < least) {
            least = err;
            best = e;
        }
    }
    return best;
}

void quant_encode_mxfp4(const float *x, int64_t cols, const float *importance, void *dst)
{
    enc_levels lv;
    enc_block b;
    fr_block_mxfp4 *blk = dst;
    float unit = enc_weight_unit(importance, cols);
    enc_levels_table(&lv, mx_levels, 15);
    memset(dst, 0, fr_row_bytes(FR_TYPE_MXFP4, FR_LAYOUT_PLAIN, cols));
    for (int64_t at = 0; at < cols; at += N, blk++) {
        fr_mxfp4_fields v;
        enc_load(&b, x, importance, at, N, unit, enc_exponent(x + at, N));
        int e = mx_exponent(&lv, &b) + b.exp + 128;
        e = e < 0 ? 0 : e > MX_D_MAX ? MX_D_MAX : e;
        v.d[0] = (uint8_t)e;
        enc_codes(&lv, b.x, N, ldexpf(1, e - 128 - b.exp), v.q);
        for (int i = 0; i < N; i++)
            v.q[i] = mx_codes[v.q[i]];
        fr_mxfp4_pack_plain(&v, NULL, (uint8_t *)blk, 0);
    }
}
