/* Encoders without a search: floats, q8_0. */
#include <math.h>
#include <string.h>

#include "quant/encode.h"
#include "quant/types.h"

void quant_encode_f32(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    memcpy(dst, x, (size_t)cols * sizeof(float));
}

static void put_u16(uint8_t *dst, int64_t i, uint16_t v)
{
    memcpy(dst + 2 * i, &v, 2);
}

void quant_encode_f16(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    for (int64_t i = 0; i < cols; i++)
        put_u16(dst, i, fr_f32_to_f16(x[i]));
}

void quant_encode_bf16(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    for (int64_t i = 0; i < cols; i++)
        put_u16(dst, i, fr_f32_to_bf16(x[i]));
}

/* The value of largest magnitude, with its sign. */
static float extreme(const float *x, int n)
{
    float at = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(at))
            at = x[i];
    return at;
}

/* Codes are made with the scale before it is rounded to f16: the usual reference does. */
void quant_encode_q8_0(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    fr_block_q8_0 *blk = dst;
    for (int64_t i = 0; i < cols; i += 32, blk++) {
        float d = fabsf(extreme(x + i, 32)) / 127, inv = d > 0 ? 1 / d : 0;
        fr_q8_0_fields f = {.d = {fr_f32_to_f16(d)}};
        for (int e = 0; e < 32; e++)
            f.q[e] = (uint8_t)(int)roundf(x[i + e] * inv);
        memset(blk, 0, sizeof(*blk));
        fr_q8_0_pack_plain(&f, NULL, (uint8_t *)blk, 0);
    }
}
