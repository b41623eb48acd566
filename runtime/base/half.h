/* binary16 and bfloat16 <-> binary32, in portable C that CUDA device code can share. Rounding is to
 * nearest even; NaN stays NaN, values beyond the range become infinities, subnormals are kept. */
#ifndef FR_BASE_HALF_H
#define FR_BASE_HALF_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FR_HD __host__ __device__
#else
#define FR_HD
#endif

static inline FR_HD float fr_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline FR_HD uint32_t fr_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline FR_HD float fr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3FF;
    if (exp == 31)
        return fr_f32_from_bits(sign | 0x7F800000 | man << 13);
    if (exp == 0) /* man * 2^-24 is exact in f32 */
        return fr_f32_from_bits(sign | fr_f32_bits((float)man * 0x1p-24f));
    return fr_f32_from_bits(sign | (exp + 112) << 23 | man << 13);
}

static inline FR_HD uint16_t fr_f32_to_f16(float f)
{
    uint32_t u = fr_f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000)
        return (uint16_t)(sign | 0x7E00 | (a >> 13 & 0x3FF));
    if (a >= 0x477FF000) /* 65520: rounds to infinity */
        return (uint16_t)(sign | 0x7C00);
    if (a < 0x38800000) /* below 2^-14: the sum rounds to a multiple of 2^-24 */
        return (uint16_t)(sign | (fr_f32_bits(fr_f32_from_bits(a) + 0.5f) - 0x3F000000));
    return (uint16_t)(sign | ((a + 0xFFF + (a >> 13 & 1) - 0x38000000) >> 13));
}

static inline FR_HD float fr_bf16_to_f32(uint16_t b)
{
    return fr_f32_from_bits((uint32_t)b << 16);
}

static inline FR_HD uint16_t fr_f32_to_bf16(float f)
{
    uint32_t u = fr_f32_bits(f);
    if ((u & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

#endif
