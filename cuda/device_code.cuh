/* What kernels share: reductions, and weights decoded from the registry's field maps. */
#ifndef FR_CUDA_DEVICE_CODE_CUH
#define FR_CUDA_DEVICE_CODE_CUH

#include "cuda/ferry_cuda.h"

#ifdef __NVCC__
/* The registry makes more functions and tables than a kernel uses. */
#pragma nv_diag_suppress 177
#endif
#include "quant/types.h"

namespace FERRY_GPU_NS
{

enum { WARP = 32 };
static const unsigned ALL_LANES = 0xFFFFFFFFu;

/* ---- reductions: fixed trees, so the same bits every time ----------------------------------- */

template <class T> __device__ __forceinline__ T warp_sum(T v)
{
    for (int d = WARP / 2; d > 0; d /= 2)
        v += __shfl_xor_sync(ALL_LANES, v, d);
    return v;
}

__device__ __forceinline__ float warp_max(float v)
{
    for (int d = WARP / 2; d > 0; d /= 2)
        v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, d));
    return v;
}

/* sum + a . b, and sum += factor * x: four at a time. */
__device__ __forceinline__ float dot_four(const float4 &a, const float4 &b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ __forceinline__ void add_scaled(float4 &sum, float factor, const float4 &x)
{
    sum = make_float4(fmaf(factor, x.x, sum.x), fmaf(factor, x.y, sum.y), fmaf(factor, x.z, sum.z),
                      fmaf(factor, x.w, sum.w));
}

/* Over a block of BLOCK threads (a multiple of 32, at most 1024), for all of them. `part` is shared
 * memory of one entry a warp; the barrier at the start protects what it held. */
template <int BLOCK> __device__ float block_sum(float v, float *part)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    return warp_sum(lane < BLOCK / WARP ? part[lane] : 0.0f);
}

template <int BLOCK> __device__ float block_max(float v, float *part)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    v = warp_max(v);
    __syncthreads();
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    return warp_max(lane < BLOCK / WARP ? part[lane] : part[0]);
}

/* ---- weights -------------------------------------------------------------------------------- */

/* Inlined where it runs; in the simulator kept apart, or its compiler would unfold all forms in
 * every kernel. */
#ifdef FERRY_CUDA_SIM
#define FERRY_INLINE_DEVICE __attribute__((noinline))
#else
#define FERRY_INLINE_DEVICE __forceinline__
#endif

/* A form (type, layout) as kernels see it. chunk weights stand in step bytes for `group` rows;
 * weight() decodes one weight of row k of the group, from the field maps. */
#define FERRY_FORM(T, L, WEIGHTS, BYTES, META, GROUP)                                              \
    struct form_##T##_##L {                                                                        \
        static constexpr int chunk = fr_##T##_chunk, group = GROUP, meta = META;                   \
        static constexpr int step = group * (fr_##T##_chunk / WEIGHTS * BYTES);                    \
        static constexpr int weights = WEIGHTS, bytes = BYTES;                                     \
        static __device__ FERRY_INLINE_DEVICE float                                                \
        weight(const uint8_t *head, const uint8_t *blk, unsigned k, unsigned e)                    \
        {                                                                                          \
            return fr_##T##_weight_##L(head, blk, k, e);                                           \
        }                                                                                          \
    };
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, ...)                             \
    FERRY_FORM(T, plain, WEIGHTS, BYTES, META, 1)                                                  \
    FERRY_FORM(T, il, WEIGHTS, BYTES, IL_META, GROUP)                                              \
    FERRY_FORM(T, native, WEIGHTS, BYTES, META, fr_##T##_native_rows)
#include "quant/types.def"
#undef X
#undef FERRY_FORM

/* One row of a matrix in form F. */
template <class F> struct RowOf {
    const uint8_t *head, *blocks;
    unsigned k;

    __device__ RowOf(const uint8_t *base, int64_t row, int64_t cols)
    {
        int64_t row_bytes = F::meta + cols / F::weights * F::bytes;
        head = base + row / F::group * F::group * row_bytes;
        blocks = head + F::group * F::meta;
        k = (unsigned)(row % F::group);
    }
    __device__ __forceinline__ float at(int64_t i) const
    {
        return F::weight(head, blocks + i / F::chunk * F::step, k, (unsigned)(i % F::chunk));
    }
};

} // namespace FERRY_GPU_NS
#endif
