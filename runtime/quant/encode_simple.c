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

/* fr_f32_to_f16 but for the largest numbers, without branches: of a loop over it compilers make
 * vectors. */
static uint16_t f16_within_range(float f)
{
    uint32_t u = fr_f32_bits(f), sign = u >> 16 & 0x8000;
    int32_t a = (int32_t)(u & 0x7FFFFFFF);
    int32_t normal = (a + 0xFFF + (a >> 13 & 1) - 0x38000000) >> 13;
    int32_t small = (int32_t)fr_f32_bits(fr_f32_from_bits((uint32_t)a) + 0.5f) - 0x3F000000;
    int32_t h = a < 0x38800000 ? small : normal;
    h = a > 0x477FE000 ? 0x7BFF : h;
    h = a > 0x7F800000 ? (0x7E00 | (a >> 13 & 0x3FF)) : h;
    return (uint16_t)(sign | (uint32_t)h);
}

void quant_encode_f16(const float *x, int64_t cols, const float *importance, void *dst)
{
    enum { PIECE = 64 };
    uint16_t piece[PIECE];
    (void)importance;
    for (int64_t i = 0, n; i < cols; i += n) {
        n = cols - i < PIECE ? cols - i : PIECE;
        for (int64_t k = 0; k < n; k++)
            piece[k] = f16_within_range(x[i + k]);
        memcpy((uint8_t *)dst + 2 * i, piece, 2 * (size_t)n);
    }
}

void quant_encode_bf16(const float *x, int64_t cols, const float *importance, void *dst)
{
    (void)importance;
    for (int64_t i = 0; i < cols; i++)
        put_u16(dst, i, fr_f32_to_bf16(within(x[i], 0x1.FEp127f)));
}
