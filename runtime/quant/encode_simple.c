/* Encoders of floats. Values beyond the range of f16 or bf16 become its largest, not infinite. */
#include <string.h>

#include "base/half.h"
#include "quant/encode.h"

void quant_encode_f32(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    memcpy(dst, x, (size_t)cols * sizeof(float));
}

static float within(float x, float most)
{
    x = x > most ? most : x;
    return x < -most ? -most : x;
}

static void put_u16(uint8_t *dst, int64_t i, uint16_t v)
{
    memcpy(dst + 2 * i, &v, 2);
}

void quant_encode_f16(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    for (int64_t i = 0; i < cols; i++)
        put_u16(dst, i, fr_f32_to_f16(within(x[i], 65504)));
}

void quant_encode_bf16(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    for (int64_t i = 0; i < cols; i++)
        put_u16(dst, i, fr_f32_to_bf16(within(x[i], 0x1.FEp127f)));
}
