/* Encoders of the codebook types with signs: iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s.
 *
 * At a given scale every 8 weights get the nearest words of all (encode_lattice.h). Where only 7
 * signs are stored and the weights have an odd number of negative ones, the sign that costs least
 * is given up first. Scales are found as encode_super.h says. */
#include <math.h>
#include <string.h>

#include "quant/encode.h"
#include "quant/encode_lattice.h"
#include "quant/encode_super.h"
#include "quant/types.h"

/* How a type is coded: w = d * m * unit * level * sign. */
typedef struct {
    enc_codebook book;
    int size;    /* of a sub-block */
    bool parity; /* signs of 8 weights are even in number */
    float unit;
    enc_multipliers m;
    enc_sweep sweep; /* of enc_free_scale */
} recipe;

/* What 8 weights become. */
typedef struct {
    uint16_t g[2]; /* one word of 8 lanes or two of 4 */
    uint8_t signs;
    enc_sums sums;
} eight;

/* A block on its way; ax = |x|. */
typedef struct {
    const recipe *how;
    const enc_lattice *book;
    enc_block b;
    float ax[ENC_BLOCK];
    uint8_t negative[ENC_BLOCK / 8]; /* sign bits of 8 weights each */
    enc_super super;
    float m[ENC_SUBS_MAX];
    uint16_t g[ENC_BLOCK / 4];
    uint8_t signs[ENC_BLOCK / 8];
} fitter;

static bool odd(uint8_t bits)
{
    bits ^= (uint8_t)(bits >> 4);
    bits ^= (uint8_t)(bits >> 2);
    return (bits ^ bits >> 1) & 1;
}

/* The lane that would cost least, were its sign given up and every level to be had: its level would
 * be the lowest instead of the nearest. */
static int cheapest_lane(const enc_lattice *l, const float *x, const float *w, float s)
{
    float low = s * l->level[0], high = s * l->level[l->n_levels - 1], least = INFINITY;
    int best = 0;
    for (int i = 0; i < 8; i++) {
        float near = fminf(fmaxf(x[i], low), high);
        float cost = w[i] * ((x[i] + low) * (x[i] + low) - (x[i] - near) * (x[i] - near));
        best = cost < least ? i : best;
        least = cost < least ? cost : least;
    }
    return best;
}

static eight round_8(const fitter *f, int at, float s)
{
    const enc_lattice *l = f->book;
    const float *w = f->b.w + at;
    float x[8], su = s * f->how->unit;
    eight r = {.signs = f->negative[at / 8]};
    memcpy(x, f->ax + at, sizeof(x));
    if (f->how->parity && odd(r.signs)) {
        int lane = cheapest_lane(l, x, w, su);
        r.signs ^= (uint8_t)(1 << lane);
        x[lane] = -x[lane];
    }
    for (int i = 0; i < 8; i += l->lanes) {
        r.g[i / l->lanes] = (uint16_t)enc_lattice_nearest(l, x + i, w + i, su);
        const int8_t *level = l->at[r.g[i / l->lanes]];
        for (int k = 0; k < l->lanes; k++) {
            float c = f->how->unit * l->level[level[k]], e = x[i + k] - s * c;
            r.sums.err += w[i + k] * e * e;
            r.sums.a += w[i + k] * x[i + k] * c;
            r.sums.b += w[i + k] * c * c;
        }
    }
    return r;
}

static enc_sums round_sub(const void *ctx, int j, float s)
{
    const fitter *f = ctx;
    enc_sums sum = {0, 0, 0};
    for (int at = 0; at < f->how->size; at += 8) {
        enc_sums t = round_8(f, j * f->how->size + at, s).sums;
        sum.err += t.err;
        sum.a += t.a;
        sum.b += t.b;
    }
    return sum;
}

static enc_f16 fit_block(fitter *f)
{
    int size = f->how->size, per_8 = 8 / f->book->lanes;
    float low = f->how->unit * f->book->level[0];
    float top = f->how->unit * f->book->level[f->book->n_levels - 1];
    for (int i = 0; i < ENC_BLOCK; i++) {
        f->ax[i] = fabsf(f->b.x[i]);
        f->negative[i / 8] = (uint8_t)(f->negative[i / 8] >> 1 | (f->b.x[i] < 0) << 7);
    }
    f->super.exp = f->b.exp;
    for (int j = 0; j < f->super.n; j++)
        enc_free_scale(&f->super, j, f->ax + j * size, f->b.w + j * size, size, low, top,
                       f->how->sweep);
    enc_f16 d = enc_fit_super(&f->super, f->m);
    for (int t = 0; t < ENC_BLOCK / 8; t++) {
        eight r = round_8(f, 8 * t, d.value * f->m[8 * t / size]);
        memcpy(f->g + per_8 * t, r.g, (size_t)per_8 * sizeof(r.g[0]));
        f->signs[t] = r.signs;
    }
    return d;
}

static void set_up(fitter *f, const recipe *how)
{
    f->how = how;
    f->book = enc_lattice_get(how->book);
    f->super = (enc_super){
        .m = how->m, .n = ENC_BLOCK / how->size, .round = round_sub, .ctx = f, .patience = 1};
}

/* signs_field is s7 (the eighth sign follows) or s8; m0 is the multiplier of sc = 0. */
#define DEFINE_ENCODER(ID, T, signs_field, ...)                                                    \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        static const recipe how = {__VA_ARGS__};                                                   \
        fitter f;                                                                                  \
        uint8_t *blk = dst;                                                                        \
        float unit = enc_weight_unit(importance, cols);                                            \
        memset(dst, 0, fr_row_bytes(FR_TYPE_##ID, FR_LAYOUT_PLAIN, cols));                         \
        set_up(&f, &how);                                                                          \
        for (int64_t at = 0; at < cols; at += ENC_BLOCK) {                                         \
            fr_##T##_fields v;                                                                     \
            enc_load(&f.b, x, importance, at, ENC_BLOCK, unit, enc_exponent(x + at, ENC_BLOCK));   \
            v.d[0] = fit_block(&f).bits;                                                           \
            for (size_t t = 0; t < sizeof(v.g) / sizeof(v.g[0]); t++)                              \
                v.g[t] = f.g[t] & (uint16_t)(sizeof(v.g[0]) > 1 ? 0xFFFF : 0xFF);                  \
            memcpy(v.signs_field, f.signs, sizeof(f.signs));                                       \
            for (int j = 0; j < f.super.n; j++)                                                    \
                v.sc[j] = (uint8_t)((f.m[j] - how.m.lo) / how.m.step);                             \
            fr_##T##_pack_plain(&v, NULL, blk, 0);                                                 \
            blk += fr_type_get(FR_TYPE_##ID)->bytes;                                               \
        }                                                                                          \
    }

DEFINE_ENCODER(IQ2_XXS, iq2_xxs, s7, ENC_IQ2_XXS, 32, true, 0.25f, {0.5f, 15.5f, 1},
               {1.3f, 2.5f, 0.3f})
DEFINE_ENCODER(IQ2_XS, iq2_xs, s7, ENC_IQ2_XS, 16, true, 0.25f, {0.5f, 15.5f, 1},
               {1.3f, 2.5f, 0.3f})
DEFINE_ENCODER(IQ2_S, iq2_s, s8, ENC_IQ2_S, 16, false, 0.25f, {0.5f, 15.5f, 1}, {1.3f, 2.5f, 0.3f})
DEFINE_ENCODER(IQ3_XXS, iq3_xxs, s7, ENC_IQ3_XXS, 32, true, 0.5f, {0.5f, 15.5f, 1},
               {1.6f, 3.1f, 0.3f})
DEFINE_ENCODER(IQ3_S, iq3_s, s8, ENC_IQ3_S, 32, false, 1, {1, 31, 2}, {1.6f, 3.1f, 0.3f})
