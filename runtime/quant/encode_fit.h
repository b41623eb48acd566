/* What the encoders share: a row's piece made ready for fitting, sets of levels, and weighted least
 * squares.
 *
 * An encoder looks for codes c and a scale s that make  sum of w * (x - s * c)^2  small. Given the
 * codes, s = a / b with a = sum of w x c, b = sum of w c^2 is best; given s, the nearest levels
 * are. Both steps are cheap, so encoders try many scales and alternate.
 *
 * All inputs are brought to |x| < 1 by a power of two and to weights of mean 1 over the row, so
 * that no square overflows and no comparison is lost to underflow. */
#ifndef FR_QUANT_ENCODE_FIT_H
#define FR_QUANT_ENCODE_FIT_H

#include <stdbool.h>
#include <stdint.h>

enum { ENC_BLOCK = 256, ENC_LEVELS_MAX = 64, ENC_LANES = 16 };

/* Scales up to this are 0: there is nothing to divide. */
#define ENC_TINY 1e-36f

/* ---- input ---------------------------------------------------------------------------------- */

/* Up to 256 weights of a row: x is the input times 2^-exp, w > 0. */
typedef struct {
    float x[ENC_BLOCK], w[ENC_BLOCK];
    int exp;
} enc_block;

/* What importance (n floats >= 0, or NULL) is multiplied with for a mean of 1; 0 stands for equal
 * weights: there is no importance, or it is zero or infinite. */
float enc_weight_unit(const float *importance, int64_t n);

/* The exponent that brings n values below 1; never less than -100. */
int enc_exponent(const float *x, int64_t n);

/* The n <= 256 weights from x + at on. No weight is less than 1e-5: columns without importance are
 * still rounded to something near. */
void enc_load(enc_block *b, const float *x, const float *importance, int64_t at, int n, float unit,
              int exp);

float enc_root_mean_square(const float *x, const float *w, int n);

/* ---- scales --------------------------------------------------------------------------------- */

/* A scale as the file has it (f16), and what it is worth in a block's units. */
typedef struct {
    uint16_t bits;
    float value;
} enc_f16;

/* d * 2^exp rounded to f16, at most 65504. */
enc_f16 enc_round_f16(float d, int exp);

/* The same for a scale that small integers follow: not 0 unless d is 0, as they can be small then.
 */
enc_f16 enc_round_scale(float d, int exp);

/* ---- levels --------------------------------------------------------------------------------- */

/* The values that a code can stand for, ascending. */
typedef struct {
    int n;
    bool uniform; /* consecutive integers: codes are found by rounding */
    float level[ENC_LEVELS_MAX];
    float mid[ENC_LEVELS_MAX]; /* between level k and k + 1; the last is infinite */
    uint8_t cell[256];         /* how many mid values are < the integer i - 128 */
} enc_levels;

/* lo, lo + 1, .. lo + n - 1. */
void enc_levels_integers(enc_levels *lv, int lo, int n);

/* n values within +-127, ascending, their middles at least 1 apart. */
void enc_levels_values(enc_levels *lv, const float *value, int n);

/* The same for one of tables.h. */
void enc_levels_table(enc_levels *lv, const int8_t *value, int n);

/* The result of rounding at one scale: err = sum of w (x - s c)^2 at that s, and a, b as above. */
typedef struct {
    float err, a, b;
} enc_sums;

/* Rounds n (16 or 32, or a multiple) values at scale s; s = 0 gives err alone. */
enc_sums enc_try(const enc_levels *lv, const float *x, const float *w, int n, float s);

/* The codes of those values: index of the nearest level; at s = 0 of the one nearest to 0. */
void enc_codes(const enc_levels *lv, const float *x, int n, float s, uint8_t *q);

/* Scales that a search tries: the largest magnitude is put at r times the lowest and the highest
 * level, r = from, from + step, .. to. */
typedef struct {
    float from, to, step;
} enc_sweep;

/* The best free scale of n values (sign included, 0 when all are 0), its err and b in *at. */
float enc_best_scale(const enc_levels *lv, const float *x, const float *w, int n, enc_sweep sweep,
                     enc_sums *at);

#endif
