#include "support/encoders.h"

#include <math.h>
#include <stdlib.h>

#include "testing.h"

const encoder_case encoder_cases[] = {
    {FR_TYPE_F16, 127},  {FR_TYPE_BF16, 127}, {FR_TYPE_Q8_0, 120},  {FR_TYPE_Q8_KV, 31},
    {FR_TYPE_Q4_0, 7},   {FR_TYPE_Q4_1, 7},   {FR_TYPE_Q5_0, 15},   {FR_TYPE_Q5_1, 15},
    {FR_TYPE_Q6_0, 31},  {FR_TYPE_IQ4_NL, 7}, {FR_TYPE_MXFP4, 5},   {FR_TYPE_Q2_K, 2},
    {FR_TYPE_Q3_K, 3},   {FR_TYPE_Q4_K, 7},   {FR_TYPE_Q5_K, 15},   {FR_TYPE_Q6_K, 31},
    {FR_TYPE_IQ4_XS, 7}, {FR_TYPE_IQ2_K, 2},  {FR_TYPE_IQ3_K, 4},   {FR_TYPE_IQ4_K, 8},
    {FR_TYPE_IQ5_K, 16}, {FR_TYPE_IQ6_K, 32}, {FR_TYPE_IQ4_KS, 7},  {FR_TYPE_IQ5_KS, 15},
    {FR_TYPE_IQ3_S, 4},  {FR_TYPE_IQ2_S, 2},  {FR_TYPE_IQ3_XXS, 3}, {FR_TYPE_IQ2_XXS, 1},
    {FR_TYPE_IQ2_XS, 1}, {FR_TYPE_IQ1_S, 1},  {FR_TYPE_IQ1_M, 1},
};
const int n_encoder_cases = sizeof(encoder_cases) / sizeof(encoder_cases[0]);

/* Twelve uniform numbers make a bell. */
static float bell(uint64_t *seed)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += test_rand_f(seed);
    return sum / 2;
}

void make_weights(uint64_t *seed, float *x, int n)
{
    float deviation = 0.02f + 0.08f * fabsf(test_rand_f(seed));
    for (int i = 0; i < n; i++) {
        x[i] = bell(seed) * deviation;
        if (test_rand(seed) % 500 == 0)
            x[i] *= 5;
    }
}

void make_importance(uint64_t *seed, float *w, int n, int wide)
{
    for (int i = 0; i < n; i++)
        w[i] = wide ? expf(3.45f * test_rand_f(seed)) : 1 + 0.5f * test_rand_f(seed);
}

void encode_decode(fr_type type, const float *x, int cols, const float *importance, float *out)
{
    uint8_t *bytes = malloc(fr_row_bytes(type, FR_LAYOUT_PLAIN, cols));
    assert_non_null(bytes);
    fr_encode_row(type, x, cols, importance, bytes);
    fr_decode_row(type, FR_LAYOUT_PLAIN, bytes, 0, cols, out);
    free(bytes);
}

double weighted_rmse(const float *a, const float *b, const float *w, int rows, int cols)
{
    double err = 0, sum = 0;
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < cols; i++) {
            double e = (double)a[(size_t)r * cols + i] - b[(size_t)r * cols + i], wi = w ? w[i] : 1;
            err += wi * e * e;
            sum += wi;
        }
    }
    return sqrt(err / sum);
}
