#include "quant/encode_fit.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

/* ---- input ---------------------------------------------------------------------------------- */

float enc_weight_unit(const float *importance, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; importance && i < n; i++)
        sum += importance[i];
    double unit = sum > 0 ? (double)n / sum : 0;
    return unit > 0 && unit < 1e30 ? (float)unit : 0;
}

int enc_exponent(const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    int exp;
    frexpf(most, &exp);
    return exp < -100 ? -100 : exp;
}

void enc_load(enc_block *b, const float *x, const float *importance, int64_t at, int n, float unit,
              int exp)
{
    float factor = ldexpf(1, -exp);
    b->exp = exp;
    for (int i = 0; i < n; i++)
        b->x[i] = x[at + i] * factor;
    for (int i = 0; i < n; i++)
        b->w[i] = unit > 0 ? fminf(fmaxf(importance[at + i] * unit, 1e-5f), 1e9f) : 1;
}

float enc_root_mean_square(const float *x, const float *w, int n)
{
    float xx = 0, sw = 0;
    for (int i = 0; i < n; i++) {
        xx += w[i] * x[i] * x[i];
        sw += w[i];
    }
    return sqrtf(xx / sw);
}

/* ---- scales --------------------------------------------------------------------------------- */

enc_f16 enc_round_f16(float d, int exp)
{
    enc_f16 r = {.bits = fr_f32_to_f16(fminf(fmaxf(ldexpf(d, exp), -65504), 65504))};
    r.value = ldexpf(fr_f16_to_f32(r.bits), -exp);
    return r;
}

enc_f16 enc_round_scale(float d, int exp)
{
    float least = ldexpf(1, -24 - exp);
    return enc_round_f16(d != 0 && fabsf(d) < least ? copysignf(least, d) : d, exp);
}

/* ---- levels --------------------------------------------------------------------------------- */

void enc_levels_integers(enc_levels *lv, int lo, int n)
{
    *lv = (enc_levels){.n = n, .uniform = true, .level = {(float)lo}};
}

void enc_levels_values(enc_levels *lv, const float *value, int n)
{
    *lv = (enc_levels){.n = n};
    memcpy(lv->level, value, (size_t)n * sizeof(float));
    for (int k = 0; k < n; k++)
        lv->mid[k] = k + 1 < n ? (value[k] + value[k + 1]) / 2 : INFINITY;
    for (int i = 0; i < 256; i++)
        while (lv->mid[lv->cell[i]] < (float)(i - 128))
            lv->cell[i]++;
}

void enc_levels_table(enc_levels *lv, const int8_t *value, int n)
{
    float v[ENC_LEVELS_MAX];
    for (int k = 0; k < n; k++)
        v[k] = value[k];
    enc_levels_values(lv, v, n);
}

/* Adding and taking away 1.5 * 2^23 rounds to the nearest integer, and is done four at a time. */
static void nearest_integers(const float *x, float inv, float lo, float hi, float *c)
{
    for (int i = 0; i < ENC_LANES; i++) {
        float v = x[i] * inv;
        v = v < lo ? lo : v;
        v = v > hi ? hi : v;
        c[i] = (v + 0x1.8p23f) - 0x1.8p23f;
    }
}

/* The last middle below v's cell of width 1, and at most one in it, decide. */
static int nearest_index(const enc_levels *lv, float v)
{
    v = v < -128 ? -128 : v;
    v = v > 127 ? 127 : v;
    int k = lv->cell[(int)(v + 128)];
    return k + (v > lv->mid[k]);
}

static void nearest_of_table(const enc_levels *lv, const float *x, float inv, float *c)
{
    int cell[ENC_LANES];
    float v[ENC_LANES];
    for (int i = 0; i < ENC_LANES; i++) {
        float u = x[i] * inv;
        u = u < -128 ? -128 : u;
        v[i] = u > 127 ? 127 : u;
        cell[i] = (int)(v[i] + 128);
    }
    for (int i = 0; i < ENC_LANES; i++) {
        int k = lv->cell[cell[i]];
        c[i] = lv->level[k + (v[i] > lv->mid[k])];
    }
}

/* Rounds ENC_LANES values. */
static void nearest(const enc_levels *lv, const float *x, float inv, float *c)
{
    if (lv->uniform)
        nearest_integers(x, inv, lv->level[0], lv->level[0] + (float)(lv->n - 1), c);
    else
        nearest_of_table(lv, x, inv, c);
}

static float inverse(float s)
{
    return fabsf(s) > ENC_TINY ? 1 / s : 0;
}

enc_sums enc_try(const enc_levels *lv, const float *x, const float *w, int n, float s)
{
    float err[4] = {0}, a[4] = {0}, b[4] = {0}, c[ENC_LANES], inv = inverse(s);
    for (int at = 0; at < n; at += ENC_LANES, x += ENC_LANES, w += ENC_LANES) {
        nearest(lv, x, inv, c);
        for (int i = 0; i < ENC_LANES; i += 4) {
            for (int l = 0; l < 4; l++) {
                float wc = w[i + l] * c[i + l], e = x[i + l] - s * c[i + l];
                err[l] += w[i + l] * (e * e);
                a[l] += wc * x[i + l];
                b[l] += wc * c[i + l];
            }
        }
    }
    return (enc_sums){err[0] + err[1] + err[2] + err[3], a[0] + a[1] + a[2] + a[3],
                      b[0] + b[1] + b[2] + b[3]};
}

void enc_codes(const enc_levels *lv, const float *x, int n, float s, uint8_t *q)
{
    float inv = inverse(s), c[ENC_LANES];
    for (int at = 0; at < n; at += ENC_LANES) {
        if (lv->uniform)
            nearest(lv, x + at, inv, c);
        for (int i = 0; i < ENC_LANES; i++)
            q[at + i] = (uint8_t)(lv->uniform ? (int)(c[i] - lv->level[0])
                                              : nearest_index(lv, x[at + i] * inv));
    }
}

/* The value of largest magnitude, with its sign. */
static float extreme(const float *x, int n)
{
    float at = 0;
    for (int i = 0; i < n; i++)
        at = fabsf(x[i]) > fabsf(at) ? x[i] : at;
    return at;
}

float enc_best_scale(const enc_levels *lv, const float *x, const float *w, int n, enc_sweep sweep,
                     enc_sums *at)
{
    float most = extreme(x, n), s = 0, gain = 0;
    float end[2] = {lv->level[0], lv->level[0] + (float)(lv->n - 1)};
    if (!lv->uniform)
        end[1] = lv->level[lv->n - 1];
    for (int side = 0; side < 2; side++) {
        for (float r = sweep.from; r <= sweep.to; r += sweep.step) {
            enc_sums t = enc_try(lv, x, w, n, most / (r * end[side]));
            if (t.a * t.a > gain * t.b) {
                gain = t.a * t.a / t.b;
                s = t.a / t.b;
            }
        }
    }
    *at = enc_try(lv, x, w, n, s);
    for (int round = 0; round < 8 && at->b > 0; round++) {
        float better = at->a / at->b;
        enc_sums t = enc_try(lv, x, w, n, better);
        if (t.err >= at->err)
            break;
        *at = t;
        s = better;
    }
    return s;
}
