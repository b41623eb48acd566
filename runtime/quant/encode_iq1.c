/* Encoders of iq1_s and iq1_m: words of 8 weights of -1, 0, 1, all moved by 1/8 up or down, times
 * d * (2 sc + 1). iq1_s moves 32 weights together, iq1_m each 8; scales cover 32 and 16.
 *
 * At a given scale both moves are tried with the nearest word of all (encode_lattice.h). Scales are
 * found as encode_super.h says. */
#include <math.h>
#include <string.h>

#include "quant/encode.h"
#include "quant/encode_lattice.h"
#include "quant/encode_super.h"
#include "quant/types.h"

#define MOVE 0.125f

/* How a type is coded. */
typedef struct {
    int size;        /* of a sub-block */
    int moved;       /* weights that are moved together */
    enc_sweep sweep; /* of enc_free_scale */
} recipe;

/* A block on its way. */
typedef struct {
    recipe how;
    const enc_lattice *book;
    enc_block b;
    enc_super super;
    float m[ENC_SUBS_MAX];
    uint16_t g[ENC_BLOCK / 8];
    uint8_t down[ENC_BLOCK / 8]; /* per 8 weights */
} fitter;

static enc_sums add(enc_sums t, enc_sums u)
{
    return (enc_sums){t.err + u.err, t.a + u.a, t.b + u.b};
}

/* The word of 8 weights that are moved by `move`; s >= 0. */
static enc_sums round_8(const fitter *f, int at, float s, float move, uint16_t *g)
{
    const float *x = f->b.x + at, *w = f->b.w + at;
    float back[8];
    enc_sums t = {0, 0, 0};
    for (int i = 0; i < 8; i++)
        back[i] = x[i] - s * move;
    *g = (uint16_t)enc_lattice_nearest(f->book, back, w, s);
    const int8_t *level = f->book->at[*g];
    for (int i = 0; i < 8; i++) {
        float c = (float)(level[i] - 1) + move, e = x[i] - s * c;
        t.err += w[i] * e * e;
        t.a += w[i] * x[i] * c;
        t.b += w[i] * c * c;
    }
    return t;
}

/* The words of the weights that are moved together, and whether they are moved down. */
static enc_sums round_moved(const fitter *f, int at, float s, uint16_t *g, uint8_t *down)
{
    uint16_t low_g[ENC_BLOCK / 8];
    enc_sums high = {0, 0, 0}, low = {0, 0, 0};
    int n = f->how.moved / 8;
    for (int t = 0; t < n; t++) {
        high = add(high, round_8(f, at + 8 * t, s, MOVE, &g[t]));
        low = add(low, round_8(f, at + 8 * t, s, -MOVE, &low_g[t]));
    }
    bool is_low = low.err < high.err;
    for (int t = 0; t < n; t++) {
        g[t] = is_low ? low_g[t] : g[t];
        down[t] = is_low;
    }
    return is_low ? low : high;
}

static enc_sums round_sub(const void *ctx, int j, float s)
{
    const fitter *f = ctx;
    uint16_t g[ENC_BLOCK / 8];
    uint8_t down[ENC_BLOCK / 8];
    enc_sums sum = {0, 0, 0};
    for (int at = 0; at < f->how.size; at += f->how.moved)
        sum = add(sum, round_moved(f, j * f->how.size + at, s, g, down));
    return sum;
}

static enc_f16 fit_block(fitter *f)
{
    f->super.exp = f->b.exp;
    for (int j = 0; j < f->super.n; j++) {
        int at = j * f->how.size;
        enc_free_scale(&f->super, j, f->b.x + at, f->b.w + at, f->how.size, 1, 1, f->how.sweep);
    }
    enc_f16 d = enc_fit_super(&f->super, f->m);
    for (int at = 0; at < ENC_BLOCK; at += f->how.moved)
        round_moved(f, at, d.value * f->m[at / f->how.size], f->g + at / 8, f->down + at / 8);
    return d;
}

static void set_up(fitter *f, recipe how)
{
    f->how = how;
    f->book = enc_lattice_get(ENC_IQ1);
    f->super = (enc_super){
        .m = {1, 15, 2}, .n = ENC_BLOCK / how.size, .round = round_sub, .ctx = f, .patience = 1};
}

#define DEFINE_ENCODER(ID, T, ...)                                                                 \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        fitter f;                                                                                  \
        uint8_t *blk = dst;                                                                        \
        float unit = enc_weight_unit(importance, cols);                                            \
        memset(dst, 0, fr_row_bytes(FR_TYPE_##ID, FR_LAYOUT_PLAIN, cols));                         \
        set_up(&f, (recipe){__VA_ARGS__});                                                         \
        for (int64_t at = 0; at < cols; at += ENC_BLOCK) {                                         \
            fr_##T##_fields v;                                                                     \
            enc_load(&f.b, x, importance, at, ENC_BLOCK, unit, enc_exponent(x + at, ENC_BLOCK));   \
            v.d[0] = fit_block(&f).bits;                                                           \
            memcpy(v.g, f.g, sizeof(v.g));                                                         \
            for (size_t n = 0; n < sizeof(v.x); n++)                                               \
                v.x[n] = f.down[n * (size_t)f.how.moved / 8];                                      \
            for (int j = 0; j < f.super.n; j++)                                                    \
                v.sc[j] = (uint8_t)(f.m[j] / 2);                                                   \
            fr_##T##_pack_plain(&v, NULL, blk, 0);                                                 \
            blk += fr_type_get(FR_TYPE_##ID)->bytes;                                               \
        }                                                                                          \
    }

DEFINE_ENCODER(IQ1_S, iq1_s, 32, 32, {1.0f, 1.8f, 0.2f})
DEFINE_ENCODER(IQ1_M, iq1_m, 16, 8, {1.0f, 1.8f, 0.2f})
