#include "quant/act.h"

#include <math.h>
#include <string.h>

int fr_act_block(fr_act_type type)
{
    static const int weights[] = {[FR_ACT_F32] = 1, [FR_ACT_Q8_32] = 32, [FR_ACT_Q8_256] = 256};
    return weights[type];
}

size_t fr_act_row_bytes(fr_act_type type, int64_t cols)
{
    static const size_t bytes[] = {[FR_ACT_F32] = sizeof(float),
                                   [FR_ACT_Q8_32] = sizeof(fr_act_q8_32),
                                   [FR_ACT_Q8_256] = sizeof(fr_act_q8_256)};
    return (size_t)(cols / fr_act_block(type)) * bytes[type];
}

/* Quantizes n floats and returns the scale: max|x| / 127, NaN (and codes 0) where x is not finite.
 */
static float encode_block(const float *x, int n, int8_t *q)
{
    float most = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    float d = finite ? most / 127 : NAN;
    for (int i = 0; i < n; i++) {
        /* a subnormal d is inexact: the quotient may pass 127 */
        float v = finite && d > 0 ? roundf(x[i] / d) : 0;
        q[i] = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    return d;
}

static int sum_of(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i];
    return sum;
}

/* The largest sums of parts of a block (act.h). */
static void note_largest(fr_act_q8_256 *a)
{
    int most_abs = 0, most_half = 0;
    for (int i = 0; i < 256; i += 32) {
        int abs[2] = {0, 0}, sum = 0;
        for (int k = 0; k < 32; k++) {
            abs[k / 16] += a->q[i + k] < 0 ? -a->q[i + k] : a->q[i + k];
            sum += a->q[i + k];
        }
        int half = (abs[0] + abs[1] + (sum < 0 ? -sum : sum)) / 2;
        most_half = half > most_half ? half : most_half;
        for (int k = 0; k < 2; k++)
            most_abs = abs[k] > most_abs ? abs[k] : most_abs;
    }
    a->most_abs = (uint16_t)most_abs;
    a->most_half = (uint16_t)most_half;
}

static void note_sums(fr_act_q8_256 *a)
{
    memset(a->unused, 0, sizeof a->unused);
    for (int s = 0; s < 16; s++)
        a->sums[s] = (int16_t)sum_of(a->q + 16 * s, 16);
    for (int s = 0; s < 8; s++)
        a->sums_32[s] = (int16_t)(a->sums[2 * s] + a->sums[2 * s + 1]);
}

void fr_act_encode_row(fr_act_type type, const float *x, int64_t cols, void *dst)
{
    if (type == FR_ACT_F32)
        memcpy(dst, x, (size_t)cols * sizeof(float));
    if (type == FR_ACT_Q8_32) {
        fr_act_q8_32 *a = dst;
        for (int64_t i = 0; i < cols; i += 32, a++) {
            a->d = encode_block(x + i, 32, a->q);
            const int sum = sum_of(a->q, 32);
            a->s = a->d * (float)sum;
            a->start = FR_ACT_MAGIC_BITS - 128 * sum;
        }
    }
    if (type == FR_ACT_Q8_256) {
        fr_act_q8_256 *a = dst;
        for (int64_t i = 0; i < cols; i += 256, a++) {
            a->d = encode_block(x + i, 256, a->q);
            note_sums(a);
            note_largest(a);
        }
    }
}

static void decode_block(const int8_t *q, float d, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = d * (float)q[i];
}

void fr_act_decode_row(fr_act_type type, const void *src, int64_t cols, float *out)
{
    if (type == FR_ACT_F32)
        memcpy(out, src, (size_t)cols * sizeof(float));
    if (type == FR_ACT_Q8_32)
        for (int64_t i = 0; i < cols / 32; i++)
            decode_block(((const fr_act_q8_32 *)src)[i].q, ((const fr_act_q8_32 *)src)[i].d, 32,
                         out + 32 * i);
    if (type == FR_ACT_Q8_256)
        for (int64_t i = 0; i < cols / 256; i++)
            decode_block(((const fr_act_q8_256 *)src)[i].q, ((const fr_act_q8_256 *)src)[i].d, 256,
                         out + 256 * i);
}
