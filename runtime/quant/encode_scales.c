/* Encoders of the types of 256 weights with a signed scale per sub-block and no minima: uniform
 * levels (q3_K, q6_K) and value tables (iq4_xs, iq2_k .. iq6_k; iq4_ks and iq5_ks with one d per
 * row). The method is encode_super.h's; where a bit per sub-block picks a table, both are tried. */
#include <math.h>
#include <string.h>

#include "quant/encode.h"
#include "quant/encode_super.h"
#include "quant/types.h"

/* How a type is coded. */
typedef struct {
    int size; /* of a sub-block */
    int n_levels;
    int lo;               /* uniform levels: the lowest; */
    const int8_t *values; /* else this table; */
    bool poly6;           /* else the polynomial of iq6_k */
    int n_tables;         /* 2: a bit per sub-block picks the first or second n_levels values */
    enc_multipliers m;
    int patience;
    enc_sweep sweep;
} recipe;

/* A block on its way. */
typedef struct {
    enc_levels lv[2];
    int n_tables, size;
    enc_sweep sweep;
    enc_block b;
    enc_super super;
    float m[ENC_SUBS_MAX];
    uint8_t x[ENC_SUBS_MAX], q[ENC_BLOCK];
} fitter;

static enc_sums round_sub(const void *ctx, int j, float s)
{
    const fitter *f = ctx;
    int at = j * f->size;
    enc_sums t = enc_try(&f->lv[0], f->b.x + at, f->b.w + at, f->size, s);
    if (f->n_tables > 1) {
        enc_sums u = enc_try(&f->lv[1], f->b.x + at, f->b.w + at, f->size, s);
        if (u.err < t.err)
            t = u;
    }
    return t;
}

static void poly6_levels(enc_levels *lv, int shift)
{
    float v[64];
    for (int q = 0; q < 64; q++)
        v[q] = fr_val_poly6(q) + (float)shift;
    enc_levels_values(lv, v, 64);
}

static void set_up(fitter *f, const recipe *r)
{
    f->size = r->size;
    f->n_tables = r->n_tables;
    f->sweep = r->sweep;
    f->super = (enc_super){
        .m = r->m, .n = ENC_BLOCK / r->size, .round = round_sub, .ctx = f, .patience = r->patience};
    for (int t = 0; t < r->n_tables; t++) {
        if (r->poly6)
            poly6_levels(&f->lv[t], t);
        else if (r->values)
            enc_levels_table(&f->lv[t], r->values + t * r->n_levels, r->n_levels);
        else
            enc_levels_integers(&f->lv[t], r->lo, r->n_levels);
    }
}

static void free_scale(fitter *f, int j)
{
    int at = j * f->size;
    enc_sums best, t;
    f->super.s[j] = enc_best_scale(&f->lv[0], f->b.x + at, f->b.w + at, f->size, f->sweep, &best);
    if (f->n_tables > 1) {
        float s = enc_best_scale(&f->lv[1], f->b.x + at, f->b.w + at, f->size, f->sweep, &t);
        if (t.err < best.err) {
            f->super.s[j] = s;
            best = t;
        }
    }
    f->super.b[j] = best.b;
}

/* Codes of sub-block j at scale s, and which table they are of. */
static void codes(fitter *f, int j, float s)
{
    const float *x = f->b.x + j * f->size, *w = f->b.w + j * f->size;
    f->x[j] = f->n_tables > 1 &&
              enc_try(&f->lv[1], x, w, f->size, s).err < enc_try(&f->lv[0], x, w, f->size, s).err;
    enc_codes(&f->lv[f->x[j]], x, f->size, s, f->q + j * f->size);
}

/* The block's weights are in f->b. */
static enc_f16 fit_block(fitter *f)
{
    f->super.exp = f->b.exp;
    for (int j = 0; j < f->super.n; j++)
        free_scale(f, j);
    enc_f16 d = enc_fit_super(&f->super, f->m);
    for (int j = 0; j < f->super.n; j++)
        codes(f, j, d.value * f->m[j]);
    return d;
}

/* m[j] is the multiplier of sub-block j; the statements after it set the other fields of v. */
#define DEFINE_ENCODER(ID, T, RECIPE, ...)                                                         \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        static const recipe how = RECIPE;                                                          \
        fitter f;                                                                                  \
        uint8_t *blk = dst;                                                                        \
        float unit = enc_weight_unit(importance, cols);                                            \
        memset(dst, 0, fr_row_bytes(FR_TYPE_##ID, FR_LAYOUT_PLAIN, cols));                         \
        set_up(&f, &how);                                                                          \
        for (int64_t at = 0; at < cols; at += ENC_BLOCK) {                                         \
            fr_##T##_fields v;                                                                     \
            enc_load(&f.b, x, importance, at, ENC_BLOCK, unit, enc_exponent(x + at, ENC_BLOCK));   \
            v.d[0] = fit_block(&f).bits;                                                           \
            memcpy(v.q, f.q, ENC_BLOCK);                                                           \
            for (int j = 0; j < f.super.n; j++) {                                                  \
                int m = (int)f.m[j];                                                               \
                __VA_ARGS__;                                                                       \
            }                                                                                      \
            fr_##T##_pack_plain(&v, NULL, blk, 0);                                                 \
            blk += fr_type_get(FR_TYPE_##ID)->bytes;                                               \
        }                                                                                          \
    }
#define LIST(...)                                                                                  \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

DEFINE_ENCODER(Q3_K, q3_K, LIST(16, 8, -4, NULL, false, 1, {-32, 31, 1}, 1, {0.6f, 1.2f, 0.05f}),
               v.sc[j] = (uint8_t)(m + 32))
DEFINE_ENCODER(Q6_K, q6_K,
               LIST(16, 64, -32, NULL, false, 1, {-128, 127, 1}, 2, {0.92f, 1.04f, 0.01f}),
               v.sc[j] = (uint8_t)m)
DEFINE_ENCODER(IQ4_XS, iq4_xs,
               LIST(32, 16, 0, fr_iq4k_values, false, 1, {-32, 31, 1}, 1, {0.85f, 1.1f, 0.025f}),
               v.sc[j] = (uint8_t)(m + 32))
DEFINE_ENCODER(IQ2_K, iq2_k,
               LIST(16, 4, 0, fr_iq2nl_values, false, 2, {-8, 7, 1}, 2, {0.5f, 1.25f, 0.05f}),
               v.sc[j] = (uint8_t)(m + 8), v.x[j] = f.x[j])
DEFINE_ENCODER(IQ3_K, iq3_k,
               LIST(16, 8, 0, fr_iq3nl_values, false, 2, {-31, 31, 2}, 1, {0.6f, 1.2f, 0.05f}),
               v.sc[j] = (uint8_t)((m < 0 ? -m : m) / 2), v.sg[j] = m < 0, v.x[j] = f.x[j])
DEFINE_ENCODER(IQ4_K, iq4_k,
               LIST(16, 16, 0, fr_iq4k_values, false, 2, {-32, 31, 1}, 2, {0.85f, 1.1f, 0.025f}),
               v.sc[j] = (uint8_t)(m + 32), v.x[j] = f.x[j])
DEFINE_ENCODER(IQ5_K, iq5_k,
               LIST(16, 32, 0, fr_iq5nl_values, false, 2, {-32, 31, 1}, 4, {0.92f, 1.06f, 0.02f}),
               v.sc[j] = (uint8_t)(m + 32), v.x[j] = f.x[j])
DEFINE_ENCODER(IQ6_K, iq6_k,
               LIST(16, 64, 0, NULL, true, 2, {-128, 127, 1}, 2, {0.96f, 1.02f, 0.01f}),
               v.sc[j] = (uint8_t)m, v.x[j] = f.x[j])

/* ---- a scale per row ------------------------------------------------------------------------ */

/* A row on its way. Before a block's codes are written its bytes keep the free scales and their
 * curvatures: a row may be long, and encoders have no memory of their own. */
typedef struct {
    const float *x, *importance;
    int64_t cols;
    float unit;
    int exp;
    uint8_t *blk; /* the first block */
    int bytes;    /* of a block */
} row;

typedef struct {
    float s[ENC_SUBS_MAX], b[ENC_SUBS_MAX];
} free_scales;

static void load_block(const row *r, int64_t i, enc_block *b)
{
    enc_load(b, r->x, r->importance, i * ENC_BLOCK, ENC_BLOCK, r->unit, r->exp);
}

static void load_scales(const row *r, int64_t i, fitter *f)
{
    free_scales k;
    memcpy(&k, r->blk + i * r->bytes, sizeof(k));
    memcpy(f->super.s, k.s, sizeof(k.s));
    memcpy(f->super.b, k.b, sizeof(k.b));
}

/* Finds the free scales of all blocks; returns the largest. */
static float row_free_scales(const row *r, fitter *f)
{
    float most = 0;
    for (int64_t i = 0; i < r->cols / ENC_BLOCK; i++) {
        free_scales k = {{0}, {0}};
        load_block(r, i, &f->b);
        for (int j = 0; j < f->super.n; j++) {
            free_scale(f, j);
            k.s[j] = f->super.s[j];
            k.b[j] = f->super.b[j];
            most = fabsf(k.s[j]) > fabsf(most) ? k.s[j] : most;
        }
        memcpy(r->blk + i * r->bytes, &k, sizeof(k));
    }
    return most;
}

/* The d of the sweep that rounds the free scales best. */
static float row_sweep(const row *r, fitter *f, float most)
{
    float d[ENC_D_SWEEP];
    double cost[ENC_D_SWEEP] = {0};
    int best = -1;
    for (int c = 0; c < ENC_D_SWEEP; c++)
        d[c] = enc_sweep_d(&f->super.m, most, c);
    for (int64_t i = 0; i < r->cols / ENC_BLOCK; i++) {
        load_scales(r, i, f);
        for (int c = 0; c < ENC_D_SWEEP; c++)
            cost[c] += enc_rounding_cost(&f->super.m, f->super.s, f->super.b, f->super.n, d[c]);
    }
    for (int c = 0; c < ENC_D_SWEEP; c++)
        if (best < 0 || cost[c] < cost[best])
            best = c;
    return d[best];
}

/* The best d for the codes that d leads to. */
static float row_refit(const row *r, fitter *f, float d)
{
    double a = 0, b = 0;
    for (int64_t i = 0; i < r->cols / ENC_BLOCK; i++) {
        load_block(r, i, &f->b);
        load_scales(r, i, f);
        for (int j = 0; j < f->super.n; j++) {
            enc_sums at;
            float m = enc_fit_multiplier(&f->super, j, f->super.s[j], d, &at);
            a += m * at.a;
            b += m * m * at.b;
        }
    }
    return b > 0 ? (float)(a / b) : d;
}

static float fit_row(const row *r, fitter *f)
{
    float most = row_free_scales(r, f);
    if (fabsf(most) <= ENC_TINY)
        return 0;
    float d = row_sweep(r, f, most);
    d = row_refit(r, f, d);
    if (r->exp > 127) /* near the end of binary32 no product may pass it */
        d = fminf(fmaxf(d, -0.99f / (127 * 127)), 0.99f / (127 * 127));
    return ldexpf(ldexpf(d, r->exp), -r->exp); /* as the file can hold it */
}

/* The codes and multipliers of block i, whose bytes become zero. */
static void fit_row_block(const row *r, int64_t i, fitter *f, float d)
{
    load_block(r, i, &f->b);
    load_scales(r, i, f);
    memset(r->blk + i * r->bytes, 0, (size_t)r->bytes);
    for (int j = 0; j < f->super.n; j++) {
        enc_sums at;
        f->m[j] = enc_fit_multiplier(&f->super, j, f->super.s[j], d, &at);
        codes(f, j, d * f->m[j]);
    }
}

#define DEFINE_ROW_ENCODER(ID, T, RECIPE)                                                          \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        static const recipe how = RECIPE;                                                          \
        const fr_type_info *info = fr_type_get(FR_TYPE_##ID);                                      \
        fitter f;                                                                                  \
        row r = {x,                                                                                \
                 importance,                                                                       \
                 cols,                                                                             \
                 enc_weight_unit(importance, cols),                                                \
                 enc_exponent(x, cols),                                                            \
                 (uint8_t *)dst + info->row_meta,                                                  \
                 info->bytes};                                                                     \
        set_up(&f, &how);                                                                          \
        float d = fit_row(&r, &f);                                                                 \
        memset(dst, 0, (size_t)info->row_meta);                                                    \
        for (int64_t i = 0; i < cols / ENC_BLOCK; i++) {                                           \
            fr_##T##_fields v = {.d = {fr_f32_bits(ldexpf(d, r.exp))}};                            \
            fit_row_block(&r, i, &f, d);                                                           \
            memcpy(v.q, f.q, ENC_BLOCK);                                                           \
            for (int j = 0; j < f.super.n; j++)                                                    \
                v.sc[j] = (uint8_t)(((int)f.m[j] + 127) | f.x[j]);                                 \
            fr_##T##_pack_plain(&v, dst, r.blk + i * r.bytes, 0);                                  \
        }                                                                                          \
    }

DEFINE_ROW_ENCODER(IQ4_KS, iq4_ks,
                   LIST(32, 16, 0, fr_iq4k_values, false, 2, {-127, 127, 2}, 1,
                        {0.85f, 1.1f, 0.025f}))
DEFINE_ROW_ENCODER(IQ5_KS, iq5_ks,
                   LIST(32, 32, 0, fr_iq5nl_values, false, 2, {-127, 127, 2}, 2,
                        {0.92f, 1.06f, 0.02f}))
