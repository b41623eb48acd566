/* The KV cache: writing rows of its types, and attention that reads them in place. */
#include "cuda/device_code.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

enum { BLOCK = 128, WARPS = BLOCK / WARP, Q8_WEIGHTS = 32, Q8_BYTES = 34 };
static const int64_t POSITIONS = 32; /* a block of the running softmax: one lane each */

/* ---- rows of the cache ---------------------------------------------------------------------- */

/* A type of cache rows: at(row, i) reads a number, write(row, i, v) writes one. With whole_warp,
 * write is for all 32 lanes at once: they hold neighbouring numbers, the first at a multiple of 32.
 */
struct CacheF32 {
    static constexpr bool whole_warp = false;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return ((const float *)row)[i];
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        ((float *)row)[i] = v;
    }
};

struct CacheF16 {
    static constexpr bool whole_warp = false;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return __half2float(((const __half *)row)[i]);
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        ((uint16_t *)row)[i] = fr_f32_to_f16(fminf(fmaxf(v, -65504.0f), 65504.0f));
    }
};

struct CacheBF16 {
    static constexpr bool whole_warp = false;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return __bfloat162float(((const __nv_bfloat16 *)row)[i]);
    }
    static __device__ __forceinline__ void write(uint8_t *row, int64_t i, float v)
    {
        ((uint16_t *)row)[i] = fr_f32_to_bf16(fminf(fmaxf(v, -0x1.FEp127f), 0x1.FEp127f));
    }
};

/* Blocks of 34 bytes: the scale (f16), then 32 signed bytes. */
struct CacheQ8 {
    static constexpr bool whole_warp = true;
    static __device__ __forceinline__ float at(const uint8_t *row, int64_t i)
    {
        return form_q8_0_plain::weight(row, row + i / Q8_WEIGHTS * Q8_BYTES, 0,
                                       (unsigned)(i % Q8_WEIGHTS));
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
template <class Fn> static bool with_cache_type(fr_type t, Fn f)
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

/* ---- store ---------------------------------------------------------------------------------- */

/* Number i of the row of (token t, head h): a, then b, then zeros. */
static __device__ float row_input(const fr_gpu_kv_store_args &a, int64_t t, int64_t h, int64_t i)
{
    if (i < a.a_width)
        return a.a_d[t * a.lda + h * a.a_stride + i];
    return i < a.a_width + a.b_width ? a.b_d[t * a.ldb + i - a.a_width] : 0.0f;
}

/* A warp a row. A row that no type can hold becomes zeros, and the caller is told. */
template <class C> __global__ void __launch_bounds__(WARP) store_rows(fr_gpu_kv_store_args a)
{
    int64_t t = blockIdx.x / a.dst.per_pos, h = blockIdx.x % a.dst.per_pos;
    uint8_t *row = a.dst.base_d + ((a.pos0 + t) * a.dst.per_pos + h) * a.dst.row_bytes;
    int bad = 0;
    for (int64_t i = threadIdx.x; i < a.a_width + a.b_width; i += WARP)
        bad |= !isfinite(row_input(a, t, h, i));
    bad = __any_sync(ALL_LANES, bad);
    if (bad && threadIdx.x == 0 && a.not_finite_d)
        atomicMax(a.not_finite_d, 1);
    for (int64_t from = 0; from < a.dst.stored; from += WARP) {
        int64_t i = from + threadIdx.x;
        float v = bad ? 0.0f : row_input(a, t, h, i);
        if (C::whole_warp || i < a.dst.stored)
            C::write(row, i, v);
    }
}

cudaError_t launch_kv_store(const fr_gpu_kv_store_args &a, cudaStream_t stream)
{
    cudaError_t e = cudaErrorInvalidValue;
    if (a.dst.type == FR_TYPE_Q8_0 && a.dst.stored % Q8_WEIGHTS != 0)
        return e; /* no whole blocks */
    unsigned rows = (unsigned)(a.n_tokens * a.dst.per_pos);
    with_cache_type(a.dst.type, [&](auto c) {
        typedef decltype(c) C;
        e = FERRY_LAUNCH((store_rows<C>), dim3(rows), dim3(WARP), 0, stream, a);
    });
    return e;
}

/* ---- attention ------------------------------------------------------------------------------ */

static __device__ const uint8_t *cache_row(const fr_gpu_kv &kv, int64_t position, int64_t h)
{
    return kv.base_d + (position * kv.per_pos + (kv.per_pos > 1 ? h : 0)) * kv.row_bytes;
}

/* Scores of n <= POSITIONS positions, whose rows start at `row`, `step` bytes apart: a warp each.
 */
template <class K>
static __device__ void score_block(const fr_gpu_attn_args &a, const float *q, const uint8_t *row,
                                   size_t step, int n, float *scores)
{
    int lane = threadIdx.x % WARP, width = (int)(a.w1 + a.w2);
    for (int j = threadIdx.x / WARP; j < n; j += WARPS) {
        float sum = 0;
        for (int i = lane; i < width; i += WARP)
            sum = fmaf(q[i], K::at(row + j * step, i), sum);
        sum = warp_sum(sum);
        if (lane == 0)
            scores[j] = sum * a.scale;
    }
}

/* acc[i] = acc[i] * shrink + sum of weight_j v_j[i]; lane j of every warp holds weight_j. */
template <class V>
static __device__ void add_values(float *acc, int wv, float shrink, float weight,
                                  const uint8_t *row, size_t step, int n)
{
    for (int i = threadIdx.x; i < (wv + WARP - 1) / WARP * WARP; i += BLOCK) {
        float part = 0;
        for (int j = 0; j < n; j++) {
            float w = __shfl_sync(ALL_LANES, weight, j);
            if (i < wv)
                part = fmaf(w, V::at(row + j * step, i), part);
        }
        if (i < wv)
            acc[i] = fmaf(acc[i], shrink, part);
    }
}

/* A block a (token, head), a running maximum over blocks of positions (Milakov and Gimelshein 2018,
 * "Online normalizer calculation for softmax"). The query and the sums stand in shared memory; a
 * thread owns the sums of its columns. */
template <class K, class V> __global__ void __launch_bounds__(BLOCK) attend(fr_gpu_attn_args a)
{
    FERRY_SHARED_DYN(float, q);
    FERRY_SHARED(float, scores, [POSITIONS]);
    int64_t t = blockIdx.x, h = blockIdx.y, n_positions = a.pos0 + t + 1;
    float *acc = q + a.w1 + a.w2;
    for (int64_t i = threadIdx.x; i < a.w1; i += BLOCK)
        q[i] = a.q1_d[t * a.ldq1 + h * a.q1_stride + i];
    for (int64_t i = threadIdx.x; i < a.w2; i += BLOCK)
        q[a.w1 + i] = a.q2_d[t * a.ldq2 + h * a.q2_stride + i];
    for (int64_t i = threadIdx.x; i < a.wv; i += BLOCK)
        acc[i] = 0;
    float most = -INFINITY, sum = 0;
    for (int64_t p = 0; p < n_positions; p += POSITIONS) {
        int n = (int)(n_positions - p < POSITIONS ? n_positions - p : POSITIONS);
        __syncthreads();
        score_block<K>(a, q, cache_row(a.k, p, h), a.k.per_pos * a.k.row_bytes, n, scores);
        __syncthreads();
        int lane = threadIdx.x % WARP;
        float mine = lane < n ? scores[lane] : -INFINITY;
        float now = fmaxf(most, warp_max(mine)), shrink = expf(most - now);
        float weight = lane < n ? expf(mine - now) : 0.0f;
        sum = sum * shrink + warp_sum(weight);
        most = now;
        add_values<V>(acc, (int)a.wv, shrink, weight, cache_row(a.v, p, h),
                      a.v.per_pos * a.v.row_bytes, n);
    }
    for (int64_t i = threadIdx.x; i < a.wv; i += BLOCK)
        a.o_d[t * a.ldo + h * a.o_stride + i] = acc[i] / sum;
}

template <class K, class V>
static cudaError_t attend_with(const fr_gpu_attn_args &a, cudaStream_t stream)
{
    size_t shared = (size_t)(a.w1 + a.w2 + a.wv) * sizeof(float);
    cudaError_t e = cudaSuccess;
    if (shared > 40 << 10)
        e = cudaFuncSetAttribute(attend<K, V>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)shared);
    if (e != cudaSuccess)
        return e;
    return FERRY_LAUNCH((attend<K, V>), dim3((unsigned)a.n_tokens, (unsigned)a.n_heads),
                        dim3(BLOCK), shared, stream, a);
}

cudaError_t launch_attn(const fr_gpu_attn_args &a, cudaStream_t stream)
{
    fr_gpu_attn_args b = a;
    cudaError_t e = cudaErrorInvalidValue;
    if (!b.v.base_d)
        b.v = b.k;
    with_cache_type(b.k.type, [&](auto k) {
        with_cache_type(b.v.type,
                        [&](auto v) { e = attend_with<decltype(k), decltype(v)>(b, stream); });
    });
    return e;
}

} // namespace FERRY_GPU_NS
