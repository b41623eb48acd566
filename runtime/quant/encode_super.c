#include "quant/encode_super.h"

#include <math.h>

float enc_nearest_multiplier(const enc_multipliers *m, float v)
{
    v = m->lo + m->step * rintf((v - m->lo) / m->step);
    return fminf(fmaxf(v, m->lo), m->hi);
}

/* ---- a first d ------------------------------------------------------------------------------ */

enum { TRIES = 3, ROUNDS = 3 };

float enc_rounding_cost(const enc_multipliers *m, const float *s, const float *b, int n, float d)
{
    float cost = 0, inv = 1 / d;
    for (int j = 0; j < n; j++) {
        float off = d * enc_nearest_multiplier(m, s[j] * inv) - s[j];
        cost += b[j] * off * off;
    }
    return cost;
}

float enc_sweep_d(const enc_multipliers *m, float most, int i)
{
    float end = i < ENC_D_SWEEP / 2 ? m->hi : m->lo;
    float r = 0.65f + 0.9f / ENC_D_SWEEP * (float)(i % (ENC_D_SWEEP / 2) + 1);
    return end != 0 && (i < ENC_D_SWEEP / 2 || end < 0) ? most / (end * r) : 0;
}

/* The TRIES best of a sweep over d, best first: the largest free scale becomes 0.65 to 1.1 times
 * one of the extreme multipliers. 0 = none. */
static void sweep(const enc_super *p, float *best)
{
    float most = 0, cost[TRIES];
    for (int j = 0; j < p->n; j++)
        most = fabsf(p->s[j]) > fabsf(most) ? p->s[j] : most;
    for (int t = 0; t < TRIES; t++) {
        cost[t] = INFINITY;
        best[t] = 0;
    }
    for (int i = 0; i < ENC_D_SWEEP && fabsf(most) > 1e-30f; i++) {
        float d = enc_sweep_d(&p->m, most, i), c = INFINITY;
        if (d != 0)
            c = enc_rounding_cost(&p->m, p->s, p->b, p->n, d);
        for (int t = 0; t < TRIES; t++) {
            if (c < cost[t]) {
                float swap_c = cost[t], swap_d = best[t];
                cost[t] = c;
                best[t] = d;
                c = swap_c;
                d = swap_d;
            }
        }
    }
}

/* ---- trying in earnest ---------------------------------------------------------------------- */

/* Goes from multiplier m, whose sums are *at, to the side for as long as that helps. */
static float climb(const enc_super *p, int j, float m, float d, float step, enc_sums *at)
{
    for (float next = m + step; next >= p->m.lo && next <= p->m.hi; next += step) {
        enc_sums t = p->round(p->ctx, j, d * next);
        if (t.err >= at->err)
            break;
        *at = t;
        m = next;
    }
    return m;
}

float enc_fit_multiplier(const enc_super *p, int j, float s, float d, enc_sums *at)
{
    float ratio = fabsf(d) > 1e-30f ? s / d : 0, near = 0, m;
    if (ratio != 0)
        near = enc_nearest_multiplier(&p->m, ratio);
    *at = p->round(p->ctx, j, d * near);
    if (ratio == 0)
        return near;
    float step = ratio > near ? p->m.step : -p->m.step;
    m = climb(p, j, near, d, step, at);
    return m != near ? m : climb(p, j, near, d, -step, at);
}

typedef struct {
    enc_f16 d;
    float m[ENC_SUBS_MAX];
    float err, better; /* its error; the best d for its codes */
} placing;

/* Rounds all sub-blocks with d, each with the multiplier nearest to its free scale; `climbing`,
 * with the best one around that. */
static void place(const enc_super *p, float d, bool climbing, placing *out)
{
    float a = 0, b = 0;
    out->d = enc_round_f16(d, p->exp);
    out->err = 0;
    d = out->d.value;
    for (int j = 0; j < p->n; j++) {
        enc_sums at;
        if (climbing) {
            out->m[j] = enc_fit_multiplier(p, j, p->s[j], d, &at);
        } else {
            out->m[j] = fabsf(d) > 1e-30f ? enc_nearest_multiplier(&p->m, p->s[j] / d) : 0;
            at = p->round(p->ctx, j, d * out->m[j]);
        }
        out->err += at.err;
        a += out->m[j] * at.a;
        b += out->m[j] * out->m[j] * at.b;
    }
    out->better = b > 0 ? a / b : 0;
}

enc_f16 enc_fit_super(const enc_super *p, float *multiplier)
{
    float first[TRIES];
    placing best = {.err = INFINITY}, now;
    sweep(p, first);
    for (int t = 0; t < TRIES; t++) {
        place(p, first[t], false, &now);
        if (now.err < best.err)
            best = now;
    }
    place(p, best.d.value, true, &best);
    for (int round = 0; round < ROUNDS; round++) {
        place(p, best.better, true, &now);
        if (!(now.err < best.err))
            break;
        best = now;
    }
    for (int j = 0; j < p->n; j++)
        multiplier[j] = best.m[j];
    return best.d;
}
