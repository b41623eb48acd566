/* One scale d for many sub-blocks, each of which multiplies it with a small integer (or odd, or
 * half) number: w = d * m * level. Shared by all types of 256 weights without minima.
 *
 * Every sub-block has a free scale s, found alone, and the curvature b of its error there. A sweep
 * over d minimizes  sum of b * (d * m - s)^2  with each m the nearest allowed. Then every sub-block
 * is rounded again with the multipliers around s / d, d is refitted to the codes, and that once
 * more. (Going on, or trying the three best d of the sweep, gains less than 0.1 % of RMSE.) */
#ifndef FR_QUANT_ENCODE_SUPER_H
#define FR_QUANT_ENCODE_SUPER_H

#include "quant/encode_fit.h"

enum { ENC_SUBS_MAX = 16 };

/* The allowed multipliers: lo, lo + step, .. hi. */
typedef struct {
    float lo, hi, step;
} enc_multipliers;

/* The one nearest to v. */
float enc_nearest_multiplier(const enc_multipliers *m, float v);

/* What it costs to round n free scales s of curvatures b to multiples of d. */
float enc_rounding_cost(const enc_multipliers *m, const float *s, const float *b, int n, float d);

/* Number i of the d to try, so that the largest free scale `most` becomes 0.65 to 1.1 times an
 * extreme multiplier; 0 = there is none of that number. */
enum { ENC_D_SWEEP = 48 };
float enc_sweep_d(const enc_multipliers *m, float most, int i);

/* Rounds sub-block j at scale s; the sums as enc_try. */
typedef enc_sums enc_round_fn(const void *ctx, int j, float s);

typedef struct {
    enc_multipliers m;
    int n;        /* sub-blocks */
    int exp;      /* of the block */
    int patience; /* multipliers tried in vain before a search in one direction ends */
    enc_round_fn *round;
    const void *ctx;
    float s[ENC_SUBS_MAX]; /* free scales */
    float b[ENC_SUBS_MAX]; /* their curvatures, sum of w c^2 */
} enc_super;

/* Finds the free scale and curvature of sub-block j, the n values x with weights w, whose levels
 * have magnitudes low .. top: tries a sweep that makes `top` r times the root mean square, and what
 * suits an outlier or a flat sub-block; then alternates codes and scale. The scale is positive. */
void enc_free_scale(enc_super *p, int j, const float *x, const float *w, int n, float low,
                    float top, enc_sweep sweep);

/* d of the block and the multiplier of each sub-block. */
enc_f16 enc_fit_super(const enc_super *p, float *multiplier);

/* The multiplier of sub-block j, whose free scale is s, for a given d; the sums in *at. */
float enc_fit_multiplier(const enc_super *p, int j, float s, float d, enc_sums *at);

#endif
