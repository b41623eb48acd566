/* What the tests of the encoders share. */
#ifndef FR_TEST_ENCODERS_H
#define FR_TEST_ENCODERS_H

#include <stdint.h>

#include "quant/qtype.h"

/* Types that have an encoder. `steps` is how fine a plain rounding of 32 weights (extreme value =
 * +-steps) may be that the encoder must still beat. */
typedef struct {
    fr_type type;
    int steps;
} encoder_case;

extern const encoder_case encoder_cases[];
extern const int n_encoder_cases;

/* n weights as models have them: bell-shaped, a deviation per row, 1 in 500 an outlier. */
void make_weights(uint64_t *seed, float *x, int n);

/* Positive, mean about 1, over a factor of 3 (or of 1000, `wide`). */
void make_importance(uint64_t *seed, float *w, int n, int wide);

/* out = decoded bytes of the encoded row, in memory of its own. */
void encode_decode(fr_type type, const float *x, int cols, const float *importance, float *out);

/* Root of the mean square of a - b, weighted by w (NULL: equally); rows x cols, w has cols. */
double weighted_rmse(const float *a, const float *b, const float *w, int rows, int cols);

#endif
