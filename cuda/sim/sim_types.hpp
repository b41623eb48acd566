/* Types of the device language that the simulator brings itself, so that it needs no toolkit: small
 * vectors, half and bfloat16 with one exact rounding per operation. */
#ifndef FR_CUDA_SIM_TYPES_HPP
#define FR_CUDA_SIM_TYPES_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace fsim
{

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};

#define FSIM_VECTORS(T, NAME)                                                                      \
    struct alignas(2 * sizeof(T)) NAME##2                                                          \
    {                                                                                              \
        T x, y;                                                                                    \
    };                                                                                             \
    struct alignas(4 * sizeof(T)) NAME##4                                                          \
    {                                                                                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline NAME##2 make_##NAME##2(T a, T b)                                                 \
    {                                                                                              \
        return {a, b};                                                                             \
    }                                                                                              \
    static inline NAME##4 make_##NAME##4(T a, T b, T c, T d)                                       \
    {                                                                                              \
        return {a, b, c, d};                                                                       \
    }
FSIM_VECTORS(float, float)
FSIM_VECTORS(int, int)
FSIM_VECTORS(unsigned, uint)
#undef FSIM_VECTORS

/* ---- half and bfloat16 ---------------------------------------------------------------------- */

struct half {
    uint16_t bits;
    half() = default;
    explicit half(float f) : bits(fr_f32_to_f16(f))
    {
    }
    explicit operator float() const
    {
        return fr_f16_to_f32(bits);
    }
};

struct alignas(4) half2 {
    half x, y;
};

struct nv_bfloat16 {
    uint16_t bits;
    nv_bfloat16() = default;
    explicit nv_bfloat16(float f) : bits(fr_f32_to_bf16(f))
    {
    }
    explicit operator float() const
    {
        return fr_bf16_to_f32(bits);
    }
};

typedef half __half;
typedef half2 __half2;
typedef nv_bfloat16 __nv_bfloat16;

static inline half __float2half(float f)
{
    return half(f);
}
static inline float __half2float(half h)
{
    return (float)h;
}
static inline half __ushort_as_half(unsigned short bits)
{
    half h;
    h.bits = bits;
    return h;
}
static inline half2 __floats2half2_rn(float a, float b)
{
    return {half(a), half(b)};
}
static inline float2 __half22float2(half2 a)
{
    return {(float)a.x, (float)a.y};
}
static inline half __hadd(half a, half b)
{
    return half((float)a + (float)b);
}
static inline half __hmul(half a, half b)
{
    return half((float)a * (float)b);
}
static inline half __hfma(half a, half b, half c)
{
    return half((float)((double)(float)a * (double)(float)b + (double)(float)c));
}
static inline half2 __hadd2(half2 a, half2 b)
{
    return {__hadd(a.x, b.x), __hadd(a.y, b.y)};
}
static inline half2 __hmul2(half2 a, half2 b)
{
    return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
static inline half2 __hfma2(half2 a, half2 b, half2 c)
{
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
static inline nv_bfloat16 __float2bfloat16(float f)
{
    return nv_bfloat16(f);
}
static inline float __bfloat162float(nv_bfloat16 h)
{
    return (float)h;
}

/* ---- intrinsics without a thread context ---------------------------------------------------- */

static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += (int)(int8_t)(a >> i) * (int)(int8_t)(b >> i);
    return c;
}
/* Byte n of the result is the one of a's four and b's four that nibble n of `which` names. */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which)
{
    const uint64_t both = (uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++)
        out |= (unsigned)(both >> (8 * (which >> (4 * i) & 7)) & 255) << (8 * i);
    return out;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __expf(float x)
{
    return expf(x);
}
static inline float __int_as_float(int i)
{
    return fr_f32_from_bits((uint32_t)i);
}
static inline int __float_as_int(float f)
{
    return (int)fr_f32_bits(f);
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
template <class T> inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> inline T max(T a, T b)
{
    return a < b ? b : a;
}
template <class T> inline T __ldg(const T *p)
{
    return *p;
}
template <class T> inline T __ldcs(const T *p)
{
    return *p;
}

} // namespace fsim
#endif
