/* Rows of the KV cache as kernels see them: the types they are stored in, and where a position's
 * exact or rounded row stands. */
#ifndef FR_CUDA_KV_ROWS_CUH
#define FR_CUDA_KV_ROWS_CUH

#include "cuda/device_code.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

enum { Q8_WEIGHTS = 32, Q8_BYTES = 34 };

/* A type of cache rows: at(row, i) reads a number, four(row, i) four of them in as few loads as the
 * type has (i and the row's bytes a multiple of four numbers), write(row, i, v) writes one. With
 * whole_warp, write is for all 32 lanes at once: they hold neighbouring numbers, the first at a
 * multiple of 32. `align`: what `four` needs of the row's address. */
struct CacheF32 {
    static constexpr bool whole_warp = false;
    static constexpr int align = 16;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return ((const float *)row)[i];
    }
    static __device__ __forceinline__ float4 four(const uint8_t *row, int i)
    {
        return *(const float4 *)(row + i * (int)sizeof(float));
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        ((float *)row)[i] = v;
    }
};

struct CacheF16 {
    static constexpr bool whole_warp = false;
    static constexpr int align = 8;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return __half2float(((const __half *)row)[i]);
    }
    static __device__ __forceinline__ float4 four(const uint8_t *row, int i)
    {
        uint2 bits = *(const uint2 *)(row + i * 2);
        __half h[4];
        memcpy(h, &bits, sizeof h);
        return make_float4(__half2float(h[0]), __half2float(h[1]), __half2float(h[2]),
                           __half2float(h[3]));
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        ((uint16_t *)row)[i] = fr_f32_to_f16(fminf(fmaxf(v, -65504.0f), 65504.0f));
    }
};

struct CacheBF16 {
    static constexpr bool whole_warp = false;
    static constexpr int align = 8;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return __bfloat162float(((const __nv_bfloat16 *)row)[i]);
    }
    static __device__ __forceinline__ float4 four(const uint8_t *row, int i)
    {
        uint2 bits = *(const uint2 *)(row + i * 2);
        __nv_bfloat16 h[4];
        memcpy(h, &bits, sizeof h);
        return make_float4(__bfloat162float(h[0]), __bfloat162float(h[1]), __bfloat162float(h[2]),
                           __bfloat162float(h[3]));
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        ((uint16_t *)row)[i] = fr_f32_to_bf16(fminf(fmaxf(v, -0x1.FEp127f), 0x1.FEp127f));
    }
};

/* Blocks of 34 bytes: the scale (f16), then 32 signed bytes; nothing is aligned to more than 2. */
struct CacheQ8 {
    static constexpr bool whole_warp = true;
    static constexpr int align = 2;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return form_q8_0_plain::weight(row, row + i / Q8_WEIGHTS * Q8_BYTES, 0,
                                       (unsigned)(i % Q8_WEIGHTS));
    }
    static __device__ __forceinline__ float4 four(const uint8_t *row, int i)
    {
        const uint8_t *block = row + i / Q8_WEIGHTS * Q8_BYTES;
        const uint16_t *pair = (const uint16_t *)(block + 2 + i % Q8_WEIGHTS);
        unsigned low = pair[0], high = pair[1];
        float d = __half2float(*(const __half *)block);
        return make_float4(d * (float)(int8_t)low, d * (float)(int8_t)(low >> 8),
                           d * (float)(int8_t)high, d * (float)(int8_t)(high >> 8));
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        uint8_t *block = row + i / Q8_WEIGHTS * Q8_BYTES;
        float d = warp_max(fabsf(v)) / 127.0f;
        block[2 + i % Q8_WEIGHTS] = (uint8_t)(int)roundf(d > 0 ? v * (1.0f / d) : 0.0f);
        if (i % Q8_WEIGHTS == 0) {
            uint16_t bits = fr_f32_to_f16(d);
            block[0] = (uint8_t)bits;
            block[1] = (uint8_t)(bits >> 8);
        }
    }
};

/* Calls f with the cache type of t; false when caches cannot have it. */
template <class Fn> static inline bool with_cache_type(fr_type t, Fn f)
{
    if (t == FR_TYPE_F32)
        f(CacheF32());
    else if (t == FR_TYPE_F16)
        f(CacheF16());
    else if (t == FR_TYPE_BF16)
        f(CacheBF16());
    else if (t == FR_TYPE_Q8_0)
        f(CacheQ8());
    else
        return false;
    return true;
}

/* Number i of a rounded row of any type. */
static __device__ __forceinline__ float cache_number(fr_type t, const uint8_t *row, int64_t i)
{
    if (t == FR_TYPE_F32)
        return CacheF32::at(row, i);
    if (t == FR_TYPE_F16)
        return CacheF16::at(row, i);
    return t == FR_TYPE_BF16 ? CacheBF16::at(row, i) : CacheQ8::at(row, i);
}

/* The exact row of position p, head h, for a reader that takes positions above `beyond` exact;
 * nullptr: read the cache. */
static __device__ __forceinline__ const float *exact_row(const fr_gpu_kv &kv, int64_t p,
                                                         int64_t beyond, int64_t h)
{
    if (kv.window == 0 || p <= beyond)
        return nullptr;
    if (p >= kv.pos0)
        return kv.staged_d + ((p - kv.pos0) * kv.per_pos + h) * kv.stored;
    if (p >= kv.exact_from)
        return kv.recent_d + (p % kv.window * kv.per_pos + h) * kv.stored;
    return nullptr;
}

static __device__ __forceinline__ uint8_t *cache_row(const fr_gpu_kv &kv, int64_t p, int64_t h)
{
    return kv.base_d + (p * kv.per_pos + h) * kv.row_bytes;
}

} // namespace FERRY_GPU_NS
#endif
