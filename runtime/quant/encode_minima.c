/* Encoders of the types with a scale and a minimum per block or sub-block: w = s * q + o.
 *
 * Alone, a sub-block is fitted by a sweep over ranges, a 2 x 2 least squares at each, and
 * alternation of codes and fit. For q2_K, q4_K and q5_K, where s = d * sc and o = -m * mn: d and m
 * are chosen in turn by what rounding the free s and o to their multiples costs, then every
 * sub-block is rounded again with the scales near its own and the minimum that suits each, and d
 * and m are refitted to the codes together for as long as that helps. */
#include <math.h>
#include <string.h>

#include "quant/encode.h"
#include "quant/encode_fit.h"
#include "quant/types.h"

/* ---- a sub-block alone ---------------------------------------------------------------------- */

/* A line s * q + o. */
typedef struct {
    float s, o;
} line;

/* Sub-block: n values, n a multiple of 4, and their sums over w, w x. */
typedef struct {
    const float *x, *w;
    int n;
    float top; /* the largest code */
    float sw, sx;
    float lo, hi; /* range of x */
} piece;

/* Of codes q: err = sum of w (x - s q - o)^2; sums of w q q, w q, w x q. */
typedef struct {
    float err, qq, q, xq;
} line_sums;

static piece piece_of(const enc_block *b, int at, int n, int top)
{
    piece p = {b->x + at, b->w + at, n, (float)top, 0, 0, b->x[at], b->x[at]};
    for (int i = 0; i < n; i++) {
        p.sw += p.w[i];
        p.sx += p.w[i] * p.x[i];
        p.lo = fminf(p.lo, p.x[i]);
        p.hi = fmaxf(p.hi, p.x[i]);
    }
    return p;
}

static float inverse(float s)
{
    return s > ENC_TINY ? 1 / s : 0;
}

static float code_of(float x, float inv, float o, float top)
{
    float v = (x - o) * inv;
    v = v < 0 ? 0 : v;
    v = v > top ? top : v;
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

static line_sums try_line(const piece *p, line l)
{
    float err[4] = {0}, qq[4] = {0}, q[4] = {0}, xq[4] = {0}, inv = inverse(l.s);
    for (int i = 0; i < p->n; i += 4) {
        for (int k = 0; k < 4; k++) {
            float x = p->x[i + k], w = p->w[i + k], c = code_of(x, inv, l.o, p->top);
            float e = x - l.o - l.s * c, wc = w * c;
            err[k] += w * (e * e);
            qq[k] += wc * c;
            q[k] += wc;
            xq[k] += wc * x;
        }
    }
    return (line_sums){err[0] + err[1] + err[2] + err[3], qq[0] + qq[1] + qq[2] + qq[3],
                       q[0] + q[1] + q[2] + q[3], xq[0] + xq[1] + xq[2] + xq[3]};
}

/* The best line for given codes; `below` demands o <= 0. */
static line refit(const piece *p, line_sums t, bool below)
{
    float det = p->sw * t.qq - t.q * t.q;
    line l = {0, p->sx / p->sw};
    if (det > 1e-6f * p->sw * t.qq) {
        l.s = (p->sw * t.xq - p->sx * t.q) / det;
        l.o = (p->sx - l.s * t.q) / p->sw;
    }
    if (below && l.o > 0)
        l = (line){t.qq > 0 ? t.xq / t.qq : 0, 0};
    return l;
}

/* How far a line found by refit lowers the error below that of zeros. */
static float gain(const piece *p, line l, line_sums t)
{
    return l.s * t.xq + l.o * p->sx;
}

/* The best free line; its sums in *at. */
static line best_line(const piece *p, bool below, enc_sweep sweep, line_sums *at)
{
    float lo = below ? fminf(p->lo, 0) : p->lo, most = -INFINITY;
    line best = {0, below ? fminf(p->sx / p->sw, 0) : p->sx / p->sw};
    for (float r = sweep.from; r <= sweep.to && p->hi > lo; r += sweep.step) {
        for (float cut = 0; cut < 0.6f; cut += 0.25f) {
            line l = {(p->hi - lo) / (p->top + r), lo};
            l.o += cut * l.s;
            line_sums t = try_line(p, l);
            l = refit(p, t, below);
            if (gain(p, l, t) > most) {
                most = gain(p, l, t);
                best = l;
            }
        }
    }
    *at = try_line(p, best);
    for (int round = 0; round < 8; round++) {
        line l = refit(p, *at, below);
        line_sums t = try_line(p, l);
        if (!(t.err < at->err))
            break;
        *at = t;
        best = l;
    }
    return best;
}

static void put_codes(const piece *p, line l, uint8_t *q)
{
    float inv = inverse(l.s);
    for (int i = 0; i < p->n; i++)
        q[i] = (uint8_t)code_of(p->x[i], inv, l.o, p->top);
}

/* ---- blocks of 32 --------------------------------------------------------------------------- */

static void fit_32(const enc_block *b, int top, enc_sweep sweep, uint16_t *d, uint16_t *m,
                   uint8_t *q)
{
    piece p = piece_of(b, 0, 32, top);
    line_sums at;
    line l = best_line(&p, false, sweep, &at);
    enc_f16 s = enc_round_f16(l.s, b->exp), o = enc_round_f16(l.o, b->exp);
    at = try_line(&p, (line){s.value, o.value});
    for (int round = 0; round < 4; round++) {
        l = refit(&p, at, false);
        enc_f16 s2 = enc_round_f16(l.s, b->exp), o2 = enc_round_f16(l.o, b->exp);
        line_sums t = try_line(&p, (line){s2.value, o2.value});
        if (!(t.err < at.err))
            break;
        at = t;
        s = s2;
        o = o2;
    }
    *d = s.bits;
    *m = o.bits;
    put_codes(&p, (line){s.value, o.value}, q);
}

#define DEFINE_ENCODER_32(ID, T, top, ...)                                                         \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        enc_block b;                                                                               \
        uint8_t *blk = dst;                                                                        \
        float unit = enc_weight_unit(importance, cols);                                            \
        memset(dst, 0, fr_row_bytes(FR_TYPE_##ID, FR_LAYOUT_PLAIN, cols));                         \
        for (int64_t at = 0; at < cols; at += 32) {                                                \
            fr_##T##_fields v;                                                                     \
            enc_load(&b, x, importance, at, 32, unit, enc_exponent(x + at, 32));                   \
            fit_32(&b, top, (enc_sweep){__VA_ARGS__}, v.d, v.m, v.q);                              \
            fr_##T##_pack_plain(&v, NULL, blk, 0);                                                 \
            blk += fr_type_get(FR_TYPE_##ID)->bytes;                                               \
        }                                                                                          \
    }

DEFINE_ENCODER_32(Q4_1, q4_1, 15, -1, 1, 0.2f)
DEFINE_ENCODER_32(Q5_1, q5_1, 31, -1, 1, 0.2f)

/* ---- blocks of 256 -------------------------------------------------------------------------- */

enum { SUBS_MAX = 16, SWEEP = 20 };

/* A block on its way: the free lines of its sub-blocks and their sums. */
typedef struct {
    enc_block b;
    int n, top, steps; /* sub-blocks; largest code; largest sc and mn */
    enc_sweep sweep;
    piece p[SUBS_MAX];
    line l[SUBS_MAX];
    line_sums at[SUBS_MAX];
} fitter;

typedef struct {
    enc_f16 d, m;
    float sc[SUBS_MAX], mn[SUBS_MAX];
    float err;
    float better_d, better_m; /* the best for its codes */
} placing;

static float multiple(float v, float inv, float steps)
{
    return fminf(fmaxf(rintf(v * inv), 0), steps);
}

/* What it costs to round the free lines to multiples of d and m; 0 leaves s or o free. */
static float cost_of(const fitter *f, float d, float m)
{
    float cost = 0, steps = (float)f->steps, inv_d = inverse(d), inv_m = inverse(m);
    for (int j = 0; j < f->n; j++) {
        line l = f->l[j];
        const line_sums *t = &f->at[j];
        float ds = d > 0 ? d * multiple(l.s, inv_d, steps) - l.s : 0;
        float move = -t->q * ds / f->p[j].sw; /* the best o moves so far */
        float o = fminf(l.o + move, 0);
        float to = m > 0 ? -m * multiple(-o, inv_m, steps) - l.o : o - l.o;
        cost += t->qq * ds * ds + 2 * t->q * ds * to + f->p[j].sw * to * to;
    }
    return cost;
}

/* Sweeps d (or m, `for_m`) so that the largest is 0.65 to 1.1 times what its integer can say. */
static float sweep_scale(const fitter *f, float d, bool for_m)
{
    float most = 0, least = INFINITY, best = 0;
    for (int j = 0; j < f->n; j++)
        most = fmaxf(most, for_m ? -f->l[j].o : f->l[j].s);
    for (int i = 1; i <= SWEEP && most > ENC_TINY; i++) {
        float v = most / ((float)f->steps * (0.65f + 0.45f / SWEEP * (float)i));
        float c = for_m ? cost_of(f, d, v) : cost_of(f, v, 0);
        if (c < least) {
            least = c;
            best = v;
        }
    }
    return best;
}

/* The best scale and minimum of sub-block j; returns its sums. */
static line_sums place_sub(const fitter *f, int j, placing *p)
{
    const piece *s = &f->p[j];
    float d = p->d.value, m = p->m.value, steps = (float)f->steps;
    float near = multiple(f->l[j].s, inverse(d), steps);
    line_sums best = {.err = INFINITY};
    for (float sc = fmaxf(near - 1, 0); sc <= fminf(near + 1, steps); sc++) {
        float o = f->l[j].o - f->at[j].q * (d * sc - f->l[j].s) / s->sw, last = -1;
        for (int round = 0; round < 3; round++) {
            float mn = multiple(-o, inverse(m), steps);
            if (mn == last)
                break;
            line_sums t = try_line(s, (line){d * sc, -m * mn});
            if (t.err < best.err) {
                best = t;
                p->sc[j] = sc;
                p->mn[j] = mn;
            }
            o = (s->sx - d * sc * t.q) / s->sw;
            last = mn;
        }
    }
    return best;
}

static void place(const fitter *f, float d, float m, placing *p)
{
    double dd = 0, dm = 0, mm = 0, xd = 0, xm = 0;
    p->d = enc_round_scale(d, f->b.exp);
    p->m = enc_round_scale(m, f->b.exp);
    p->err = 0;
    for (int j = 0; j < f->n; j++) {
        line_sums t = place_sub(f, j, p);
        float sc = p->sc[j], mn = p->mn[j];
        p->err += t.err;
        dd += sc * sc * t.qq;
        dm -= sc * mn * t.q;
        mm += mn * mn * f->p[j].sw;
        xd += sc * t.xq;
        xm -= mn * f->p[j].sx;
    }
    double det = dd * mm - dm * dm;
    p->better_d = (float)(dd > 0 ? xd / dd : 0);
    p->better_m = 0;
    if (det > 1e-9 * dd * mm) {
        p->better_d = (float)((xd * mm - xm * dm) / det);
        p->better_m = (float)((xm * dd - xd * dm) / det);
    } else if (mm > 0 && dd <= 0) {
        p->better_m = (float)(xm / mm);
    }
}

static placing fit_block(fitter *f, uint8_t *q)
{
    for (int j = 0; j < f->n; j++) {
        f->p[j] = piece_of(&f->b, j * (ENC_BLOCK / f->n), ENC_BLOCK / f->n, f->top);
        f->l[j] = best_line(&f->p[j], true, f->sweep, &f->at[j]);
    }
    placing best = {.err = INFINITY}, now;
    float d = sweep_scale(f, 0, false), m = sweep_scale(f, d, true);
    place(f, d, m, &now);
    for (int round = 0; round < 5 && now.err < best.err; round++) {
        best = now;
        if (best.better_d >= 0 && best.better_m >= 0)
            place(f, best.better_d, best.better_m, &now);
    }
    for (int j = 0; j < f->n; j++)
        put_codes(&f->p[j], (line){best.d.value * best.sc[j], -best.m.value * best.mn[j]},
                  q + j * f->p[j].n);
    return best;
}

#define DEFINE_ENCODER_256(ID, T, subs, top_code, top_scale, ...)                                  \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        fitter f = {.n = subs, .top = top_code, .steps = top_scale, .sweep = {__VA_ARGS__}};       \
        uint8_t *blk = dst;                                                                        \
        float unit = enc_weight_unit(importance, cols);                                            \
        memset(dst, 0, fr_row_bytes(FR_TYPE_##ID, FR_LAYOUT_PLAIN, cols));                         \
        for (int64_t at = 0; at < cols; at += ENC_BLOCK) {                                         \
            fr_##T##_fields v;                                                                     \
            enc_load(&f.b, x, importance, at, ENC_BLOCK, unit, enc_exponent(x + at, ENC_BLOCK));   \
            placing p = fit_block(&f, v.q);                                                        \
            v.d[0] = p.d.bits;                                                                     \
            v.m[0] = p.m.bits;                                                                     \
            for (int j = 0; j < subs; j++) {                                                       \
                v.sc[j] = (uint8_t)p.sc[j];                                                        \
                v.mn[j] = (uint8_t)p.mn[j];                                                        \
            }                                                                                      \
            fr_##T##_pack_plain(&v, NULL, blk, 0);                                                 \
            blk += fr_type_get(FR_TYPE_##ID)->bytes;                                               \
        }                                                                                          \
    }

DEFINE_ENCODER_256(Q2_K, q2_K, 16, 3, 15, -0.6f, 1.2f, 0.2f)
DEFINE_ENCODER_256(Q4_K, q4_K, 8, 15, 63, -1, 1, 0.2f)
DEFINE_ENCODER_256(Q5_K, q5_K, 8, 31, 63, -1, 1, 0.2f)
