/* The KV cache: writing rows of its types, and moving exact rows. Attention reads them in place. */
#include "cuda/kv_rows.cuh"

namespace FERRY_GPU_NS
{

enum { BLOCK = 128 };

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
    const fr_gpu_kv &kv = a.dst;
    int64_t t = blockIdx.x / kv.per_pos, h = blockIdx.x % kv.per_pos;
    uint8_t *row = cache_row(kv, a.pos0 + t, h);
    float *exact = kv.window > 0 ? kv.staged_d + (t * kv.per_pos + h) * kv.stored : nullptr;
    int bad = 0;
    for (int64_t i = threadIdx.x; i < a.a_width + a.b_width; i += WARP)
        bad |= !isfinite(row_input(a, t, h, i));
    bad = __any_sync(ALL_LANES, bad);
    if (bad && threadIdx.x == 0 && a.not_finite_d)
        atomicMax(a.not_finite_d, 1);
    for (int64_t from = 0; from < kv.stored; from += WARP) {
        int64_t i = from + threadIdx.x;
        float v = bad ? 0.0f : row_input(a, t, h, i);
        if (exact && i < kv.stored)
            exact[i] = v;
        if (C::whole_warp || i < kv.stored)
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

/* ---- keep, load: a block a position --------------------------------------------------------- */

static __global__ void __launch_bounds__(BLOCK) keep_rows(fr_gpu_kv kv, int64_t first)
{
    int64_t t = first + blockIdx.x, n = kv.per_pos * kv.stored;
    const float *from = kv.staged_d + t * n;
    float *to = kv.recent_d + (kv.pos0 + t) % kv.window * n;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK)
        to[i] = from[i];
}

cudaError_t launch_kv_keep(const fr_gpu_kv &kv, int64_t n_tokens, cudaStream_t stream)
{
    int64_t n = n_tokens < kv.window ? n_tokens : kv.window;
    if (n <= 0)
        return cudaSuccess;
    return FERRY_LAUNCH(keep_rows, dim3((unsigned)n), dim3(BLOCK), 0, stream, kv, n_tokens - n);
}

static __global__ void __launch_bounds__(BLOCK) load_rows(fr_gpu_kv kv, int64_t from, float *out)
{
    int64_t p = from + blockIdx.x;
    const float *exact = exact_row(kv, p, kv.pos0 - kv.window, 0);
    const uint8_t *row = cache_row(kv, p, 0);
    out += blockIdx.x * kv.stored;
    for (int64_t i = threadIdx.x; i < kv.stored; i += BLOCK)
        out[i] = exact ? exact[i] : cache_number(kv.type, row, i);
}

cudaError_t launch_kv_load(const fr_gpu_kv &kv, int64_t from, int64_t n, float *out_d,
                           cudaStream_t stream)
{
    if (kv.per_pos != 1 || !with_cache_type(kv.type, [](auto) {}))
        return cudaErrorInvalidValue;
    if (n <= 0)
        return cudaSuccess;
    return FERRY_LAUNCH(load_rows, dim3((unsigned)n), dim3(BLOCK), 0, stream, kv, from, out_d);
}

} // namespace FERRY_GPU_NS
