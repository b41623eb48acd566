/* Scalar kernels for weights that meet quantized activations. Byte maps: the headers of
 * runtime/quant. */
#include <string.h>

#include "base/half.h"
#include "cpu/ref/ref.h"

static double half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return (double)fr_f16_to_f32(h);
}

/* ---- blocks of 32: d * q
 * ------------------------------------------------------------------------------ */

static double block_q8_0(const uint8_t *b, const fr_act_q8_32 *x)
{
    int32_t sum = 0;
    for (int i = 0; i < 32; i++)
        sum += (int8_t)b[2 + i] * x->q[i];
    return half_at(b) * (double)x->d * sum;
}

static double block_q4_0(const uint8_t *b, const fr_act_q8_32 *x)
{
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        sum += ((b[2 + i] & 15) - 8) * x->q[i];
        sum += ((b[2 + i] >> 4) - 8) * x->q[16 + i];
    }
    return half_at(b) * (double)x->d * sum;
}

/* ---- blocks of 256
 * ------------------------------------------------------------------------------------- */

/* The eight 6-bit scales and minima of q4_K and q5_K, packed in 12 bytes. */
static void unpack_scales(const uint8_t *p, int scale[8], int min[8])
{
    for (int s = 0; s < 4; s++) {
        scale[s] = p[s] & 63;
        min[s] = p[s + 4] & 63;
        scale[s + 4] = (p[s + 8] & 15) | (p[s] >> 6) << 4;
        min[s + 4] = (p[s + 8] >> 4) | (p[s + 4] >> 6) << 4;
    }
}

/* d * sum(scale * q * x) - m * sum(min * x), both sums exact. */
static double scaled_sum(const uint8_t *b, const uint8_t q[256], const fr_act_q8_256 *x)
{
    int scale[8], min[8];
    unpack_scales(b + 4, scale, min);
    int32_t sum = 0, min_sum = 0;
    for (int s = 0; s < 8; s++) {
        int32_t part = 0;
        for (int i = 0; i < 32; i++)
            part += q[32 * s + i] * x->q[32 * s + i];
        sum += scale[s] * part;
        min_sum += min[s] * (x->sums[2 * s] + x->sums[2 * s + 1]);
    }
    return (double)x->d * (half_at(b) * sum - half_at(b + 2) * min_sum);
}

static double block_q4_K(const uint8_t *b, const fr_act_q8_256 *x)
{
    uint8_t q[256];
    for (int e = 0; e < 256; e++)
        q[e] = b[16 + 32 * (e / 64) + e % 32] >> 4 * (e / 32 % 2) & 15;
    return scaled_sum(b, q, x);
}

static double block_q5_K(const uint8_t *b, const fr_act_q8_256 *x)
{
    uint8_t q[256];
    for (int e = 0; e < 256; e++) {
        int low = b[48 + 32 * (e / 64) + e % 32] >> 4 * (e / 32 % 2) & 15;
        q[e] = (uint8_t)(low | (b[16 + e % 32] >> e / 32 & 1) << 4);
    }
    return scaled_sum(b, q, x);
}

static double block_q6_K(const uint8_t *b, const fr_act_q8_256 *x)
{
    int32_t sum = 0;
    for (int s = 0; s < 16; s++) {
        int32_t part = 0;
        for (int e = 16 * s; e < 16 * s + 16; e++) {
            int low = b[64 * (e / 128) + e % 64] >> 4 * (e / 64 % 2) & 15;
            int high = b[128 + 32 * (e / 128) + e % 32] >> 2 * (e / 32 % 4) & 3;
            part += ((low | high << 4) - 32) * x->q[e];
        }
        sum += (int8_t)b[192 + s] * part;
    }
    return half_at(b + 208) * (double)x->d * sum;
}

/* ---- rows
 * ------------------------------------------------------------------------------------------------
 */

#define ROW_KERNEL(NAME, TYPE, ACT, WEIGHTS, BYTES)                                                \
    static void dot_##NAME(const cpu_dot_args *a)                                                  \
    {                                                                                              \
        size_t row_bytes = fr_row_bytes(TYPE, FR_LAYOUT_PLAIN, a->cols);                           \
        for (int64_t r = a->row_from; r < a->row_to; r++) {                                        \
            const uint8_t *w = (const uint8_t *)a->base + (size_t)r * row_bytes;                   \
            for (int t = 0; t < a->n_tokens; t++) {                                                \
                const ACT *x = a->x[t];                                                            \
                double sum = 0;                                                                    \
                for (int64_t i = 0; i < a->cols / (WEIGHTS); i++)                                  \
                    sum += block_##NAME(w + i * (BYTES), x + i);                                   \
                a->y[t][r - a->row_from] = (float)sum;                                             \
            }                                                                                      \
        }                                                                                          \
    }

ROW_KERNEL(q8_0, FR_TYPE_Q8_0, fr_act_q8_32, 32, 34)
ROW_KERNEL(q4_0, FR_TYPE_Q4_0, fr_act_q8_32, 32, 18)
ROW_KERNEL(q4_K, FR_TYPE_Q4_K, fr_act_q8_256, 256, 144)
ROW_KERNEL(q5_K, FR_TYPE_Q5_K, fr_act_q8_256, 256, 176)
ROW_KERNEL(q6_K, FR_TYPE_Q6_K, fr_act_q8_256, 256, 210)

void cpu_ref_fill_dot(cpu_table *t)
{
#define SLOT(TYPE, NAME, ACT)                                                                      \
    t->dot[FR_TYPE_##TYPE][FR_LAYOUT_PLAIN] = (cpu_kernel){#NAME ".ref", dot_##NAME, ACT, 1, 0}
    SLOT(Q8_0, q8_0, FR_ACT_Q8_32);
    SLOT(Q4_0, q4_0, FR_ACT_Q8_32);
    SLOT(Q4_K, q4_K, FR_ACT_Q8_256);
    SLOT(Q5_K, q5_K, FR_ACT_Q8_256);
    SLOT(Q6_K, q6_K, FR_ACT_Q8_256);
#undef SLOT
}
