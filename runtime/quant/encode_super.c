#include "quant/encode_super.h"

#include <math.h>

float enc_nearest_multiplier(const enc_multipliers *m, float v)
{
    v = m->lo + m->step * rintf((v - m->lo) / m->step);
    return fminf(fmaxf(v, m->lo), m->hi);
}

/* ---- free scales ---------------------------------------------------------------------------- */

/* Below this ratio of the largest magnitude to the root mean square all magnitudes are much the
 * same. */
#define FLAT 1.4f

/* Codes are as good as the error that they leave at their best scale: w x x - a a / b. */
static bool take_better(enc_sums t, float *gain, float *s, float *b)
{
    if (!(t.a > 0 && t.a * t.a > *gain * t.b))
        return false;
    *gain = t.a * t.a / t.b;
    *s = t.a / t.b;
    *b = t.b;
    return true;
}

void enc_free_scale(enc_super *p, int j, const float *x, const float *w, int n, float low,
                    float top, enc_sweep sweep)
{
    float gain = 0, s = 0, b = 0, most = 0, rms = enc_root_mean_square(x, w, n);
    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    for (float r = sweep.from; r <= sweep.to && rms > ENC_TINY; r += sweep.step)
        take_better(p->round(p->ctx, j, rms * r / top), &gain, &s, &b);
    if (most > sweep.to * rms)
        take_better(p->round(p->ctx, j, most / top), &gain, &s, &b);
    if (most < FLAT * rms && sweep.to < top / low)
        take_better(p->round(p->ctx, j, rms / low), &gain, &s, &b);
    for (int round = 0; round < 2 && s > 0; round++)
        if (!take_better(p->round(p->ctx, j, s), &gain, &s, &b))
            break;
    p->s[j] = s;
    p->b[j] = b;
}

/* ---- a first d ------------------------------------------------------------------------------ */

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

/* The best d of the sweep; 0 when all free scales are 0. */
static float first_d(const enc_super *p)
{
    float most = 0, least = INFINITY, best = 0;
    for (int j = 0; j < p->n; j++)
        most = fabsf(p->s[j]) > fabsf(most) ? p->s[j] : most;
    for (int i = 0; i < ENC_D_SWEEP && fabsf(most) > ENC_TINY; i++) {
        float d = enc_sweep_d(&p->m, most, i), cost = INFINITY;
        if (d != 0)
            cost = enc_rounding_cost(&p->m, p->s, p->b, p->n, d);
        if (cost < least) {
            least = cost;
            best = d;
        }
    }
    return best;
}

/* ---- trying in earnest ---------------------------------------------------------------------- */

/* The best multiplier from m, whose sums are *at, to one side; gives up after p->patience that are
 * no better. */
static float climb(const enc_super *p, int j, float m, float d, float step, enc_sums *at)
{
    int worse = 0;
    for (float next = m + step; worse < p->patience; next += step, worse++) {
        if (next < p->m.lo || next > p->m.hi)
            break;
        enc_sums t = p->round(p->ctx, j, d * next);
        if (t.err < at->err) {
            *at = t;
            m = next;
            worse = -1;
        }
    }
    return m;
}

float enc_fit_multiplier(const enc_super *p, int j, float s, float d, enc_sums *at)
{
    float ratio = fabsf(d) > ENC_TINY ? s / d : 0, near = 0, m;
    if (fabsf(d) > ENC_TINY)
        near = enc_nearest_multiplier(&p->m, ratio);
    *at = p->round(p->ctx, j, d * near);
    if (fabsf(d) <= ENC_TINY)
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

static void place(const enc_super *p, float d, placing *out)
{
    float a = 0, b = 0;
    out->d = enc_round_scale(d, p->exp);
    out->err = 0;
    for (int j = 0; j < p->n; j++) {
        enc_sums at;
        float m = enc_fit_multiplier(p, j, p->s[j], out->d.value, &at);
        out->m[j] = m;
        out->err += at.err;
        a += m * at.a;
        b += m * m * at.b;
    }
    out->better = b > 0 ? a / b : 0;
}

/* f16 bits below which a block may be better off as zeros: not all levels and multipliers have 0.
 */
enum { SMALL = 64 };

enc_f16 enc_fit_super(const enc_super *p, float *multiplier)
{
    placing first, second, third;
    place(p, first_d(p), &first);
    place(p, first.better, &second);
    const placing *best = second.err < first.err ? &second : &first;
    if ((best->d.bits & 0x7FFF) < SMALL) {
        place(p, 0, &third);
        best = third.err <= best->err ? &third : best;
    }
    for (int j = 0; j < p->n; j++)
        multiplier[j] = best->m[j];
    return best->d;
}
