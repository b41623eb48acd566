/* Matrices times one vector: the kernel that every form has, a weight at a time, and the one that
 * reads whole words of the common forms (atoms.cuh). */
#include "cuda/atoms.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

struct MatvecJob {
    const uint8_t *base;
    size_t mat_bytes;
    const int32_t *ids;
    int64_t id0, n_mat; /* matrices id0 .. id0 + n_mat */
    int64_t rows, cols, n_pick;
    int64_t first; /* pair of blockIdx.y = 0 */
    const float *x;
    int64_t ldx, x_stride;
    float *y;
    int64_t ldy, y_stride;
};

/* The pair of this block: (token, pick). */
struct MatvecPair {
    const uint8_t *mat; /* NULL: none, the result is zeros */
    const float *x;
    float *y;

    __device__ MatvecPair(const MatvecJob &job)
    {
        int64_t pair = job.first + blockIdx.y, t = pair / job.n_pick, pick = pair % job.n_pick;
        int64_t m = job.ids ? job.ids[pair] - job.id0 : pick;
        mat = m >= 0 && m < job.n_mat ? job.base + (size_t)m * job.mat_bytes : nullptr;
        x = job.x + t * job.ldx + pick * job.x_stride;
        y = job.y + t * job.ldy + pick * job.y_stride;
    }
};

enum { MATVEC_WARPS = 4, MATVEC_THREADS = MATVEC_WARPS * WARP };

/* ---- any form: a warp a row, lanes take columns in turn ------------------------------------- */

template <class F> __global__ void __launch_bounds__(MATVEC_THREADS) matvec(MatvecJob job)
{
    int64_t row = (int64_t)blockIdx.x * MATVEC_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    const MatvecPair pair(job);
    if (row >= job.rows)
        return;
    float sum = 0;
    if (pair.mat) {
        const RowOf<F> w(pair.mat, row, job.cols);
        for (int64_t i = lane; i < job.cols; i += WARP)
            sum = fmaf(w.at(i), pair.x[i], sum);
        sum = warp_sum(sum);
    }
    if (lane == 0)
        pair.y[row] = sum;
}

/* ---- forms with atoms: as many warps as a group has quads of rows --------------------------- */

/* How the threads of a block stand on rows. */
template <class F> struct Stand {
    using A = Atoms<F>;
    static constexpr int quads = F::group / A::rows;    /* neighbouring lanes have them in turn */
    static constexpr int threads = quads * WARP;        /* of a group of rows */
    static constexpr int groups = MATVEC_WARPS / quads; /* of a block */
    static constexpr int items = A::per / A::together;  /* in a sub-block */
};

/* sums += the item's weights times x, which begins at its sub-block. */
template <class F>
__device__ __forceinline__ void add_item(const uint8_t *blk, int quad, int b, int item,
                                         const float *x, float (&sums)[Atoms<F>::rows])
{
    using A = Atoms<F>;
    FERRY_UNROLL
    for (int i = 0; i < A::together; i++) {
        Atom<A::rows, A::runs> w;
        int a = item * A::together + i;
        A::load(blk, quad, b, a, w);
        FERRY_UNROLL
        for (int run = 0; run < A::runs; run++) {
            float4 v = *(const float4 *)(x + A::column(a, run));
            float total = v.x + v.y + (v.z + v.w);
            FERRY_UNROLL
            for (int r = 0; r < A::rows; r++) {
                const float *q = w.q[r][run];
                float dot = fmaf(q[3], v.w, fmaf(q[2], v.z, fmaf(q[1], v.y, q[0] * v.x)));
                sums[r] = fmaf(w.scale[r][run], dot, sums[r]);
                if (A::has_low)
                    sums[r] = fmaf(-w.low[r], total, sums[r]);
            }
        }
    }
}

/* Over the lanes of a warp that have the same quad of rows. */
template <int QUADS, int ROWS> __device__ __forceinline__ void sum_lanes(float (&sums)[ROWS])
{
    FERRY_UNROLL
    for (int d = WARP / 2; d >= QUADS; d /= 2)
        FERRY_UNROLL
    for (int r = 0; r < ROWS; r++)
        sums[r] += __shfl_xor_sync(ALL_LANES, sums[r], d);
}

template <class F> __global__ void __launch_bounds__(MATVEC_THREADS) matvec_atoms(MatvecJob job)
{
    using S = Stand<F>;
    using A = Atoms<F>;
    FERRY_SHARED(float, part, [MATVEC_WARPS][S::quads][A::rows]);
    const int t = threadIdx.x % S::threads, quad = t % S::quads;
    const int64_t row0 = ((int64_t)blockIdx.x * S::groups + threadIdx.x / S::threads) * F::group;
    const MatvecPair pair(job);
    float sums[A::rows] = {};
    if (pair.mat && row0 < job.rows) {
        const RowOf<F> w(pair.mat, row0, job.cols);
        const int64_t n_items = job.cols / 32 * S::items;
        for (int64_t i = t / S::quads; i < n_items; i += WARP) {
            int b;
            const uint8_t *blk = block_of<F>(w.blocks, i / S::items, b);
            add_item<F>(blk, quad, b, (int)(i % S::items), pair.x + i / S::items * 32, sums);
        }
    }
    sum_lanes<S::quads>(sums);
    if (threadIdx.x % WARP < S::quads)
        FERRY_UNROLL
    for (int r = 0; r < A::rows; r++)
        part[threadIdx.x / WARP][quad][r] = sums[r];
    __syncthreads();
    if (t < F::group && row0 < job.rows) {
        float sum = 0;
        for (int i = 0; i < S::quads; i++)
            sum += part[threadIdx.x / S::threads * S::quads + i][t / A::rows][t % A::rows];
        pair.y[row0 + t] = sum;
    }
}

/* ---- launching ------------------------------------------------------------------------------ */

static dim3 grid_of(const MatvecJob &job, int rows_a_block, unsigned n_pairs)
{
    return dim3((unsigned)((job.rows + rows_a_block - 1) / rows_a_block), n_pairs);
}

template <class F>
static cudaError_t launch_part(const MatvecJob &job, unsigned n_pairs, cudaStream_t stream)
{
    if constexpr (Atoms<F>::there) {
        dim3 grid = grid_of(job, Stand<F>::groups * F::group, n_pairs);
        if (fits_atoms<F>(job.base, job.mat_bytes, job.cols, job.x, job.ldx, job.x_stride))
            return FERRY_LAUNCH((matvec_atoms<F>), grid, dim3(MATVEC_THREADS), 0, stream, job);
    }
    return FERRY_LAUNCH((matvec<F>), grid_of(job, MATVEC_WARPS, n_pairs), dim3(MATVEC_THREADS), 0,
                        stream, job);
}

template <class F>
static cudaError_t matvec_form(MatvecJob job, int64_t n_pairs, cudaStream_t stream)
{
    for (; job.first < n_pairs; job.first += GRID_MOST) {
        int64_t left = n_pairs - job.first;
        cudaError_t e =
            launch_part<F>(job, (unsigned)(left < GRID_MOST ? left : GRID_MOST), stream);
        if (e != cudaSuccess)
            return e;
    }
    return cudaSuccess;
}

typedef cudaError_t (*matvec_fn)(MatvecJob job, int64_t n_pairs, cudaStream_t stream);

/* [type][layout]; NULL for a form that does not exist. */
template <class F, bool EXISTS> static constexpr matvec_fn make_form()
{
    if constexpr (EXISTS)
        return matvec_form<F>;
    else
        return nullptr;
}

static const matvec_fn forms[FR_TYPE_COUNT][FR_LAYOUT_COUNT] = {
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, IL_WEIGHTS, IL_GGUF, IL_NAME,    \
          FLOAT, IL_ONLY, SEAL)                                                                    \
    {make_form<form_##T##_plain, !IL_ONLY>(), make_form<form_##T##_il, (GROUP > 0)>(),             \
     make_form<form_##T##_native, (fr_##T##_native_rows > 0)>()},
#include "quant/types.def"
#undef X
};

cudaError_t launch_matvec(const fr_gpu_matmul_args &a, cudaStream_t stream)
{
    const fr_weight &w = *a.w;
    matvec_fn multiply = forms[w.type][w.layout];
    if (!multiply)
        return cudaErrorInvalidValue;
    MatvecJob job = {(const uint8_t *)w.data,
                     w.mat_bytes,
                     a.ids_d,
                     a.first,
                     w.n_mat,
                     w.rows,
                     w.cols,
                     a.n_pick,
                     0,
                     a.x_d,
                     a.ldx,
                     a.x_stride,
                     a.y_d,
                     a.ldy,
                     a.y_stride};
    return multiply(job, a.n_tokens * a.n_pick, stream);
}

} // namespace FERRY_GPU_NS
