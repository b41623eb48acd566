/* Encoders of the types whose blocks of 32 have a scale of their own.
 *
 * One scale: sweep over scales that put the extreme value near either end of the levels, then
 * alternate levels and scale; the scale's rounding to f16 is part of the last alternations. */
#include <string.h>

#include "quant/encode.h"
#include "quant/encode_fit.h"
#include "quant/types.h"

enum { N = 32 };

/* The scale of a block, rounded as the file wants it, and the codes. */
static enc_f16 fit(const enc_levels *lv, const enc_block *b, enc_sweep sweep, uint8_t *q)
{
    enc_sums at;
    enc_f16 d = enc_round_f16(enc_best_scale(lv, b->x, b->w, N, sweep, &at), b->exp);
    at = enc_try(lv, b->x, b->w, N, d.value);
    for (int round = 0; round < 4 && at.b > 0; round++) {
        enc_f16 better = enc_round_f16(at.a / at.b, b->exp);
        enc_sums t = enc_try(lv, b->x, b->w, N, better.value);
        if (t.err >= at.err)
            break;
        at = t;
        d = better;
    }
    enc_codes(lv, b->x, N, d.value, q);
    return d;
}

/* Codes count up from the lowest level. */
#define DEFINE_ENCODER(T, init_levels, ...)                                                        \
    void quant_encode_##T(const float *x, int64_t cols, const float *importance, void *dst)        \
    {                                                                                              \
        enc_levels lv;                                                                             \
        enc_block b;                                                                               \
        fr_block_##T *blk = dst;                                                                   \
        float unit = enc_weight_unit(importance, cols);                                            \
        init_levels;                                                                               \
        for (int64_t at = 0; at < cols; at += N, blk++) {                                          \
            fr_##T##_fields f;                                                                     \
            enc_load(&b, x, importance, at, N, unit, enc_exponent(x + at, N));                     \
            f.d[0] = fit(&lv, &b, (enc_sweep){__VA_ARGS__}, f.q).bits;                             \
            memset(blk, 0, sizeof(*blk));                                                          \
            fr_##T##_pack_plain(&f, NULL, (uint8_t *)blk, 0);                                      \
        }                                                                                          \
    }

DEFINE_ENCODER(q4_0, enc_levels_integers(&lv, -8, 16), 0.85f, 1.1f, 0.025f)
DEFINE_ENCODER(q5_0, enc_levels_integers(&lv, -16, 32), 0.9f, 1.1f, 0.01f)
DEFINE_ENCODER(q6_0, enc_levels_integers(&lv, -32, 64), 0.95f, 1.05f, 0.005f)
DEFINE_ENCODER(iq4_nl, enc_levels_table(&lv, fr_iq4k_values, 16), 0.85f, 1.1f, 0.025f)
