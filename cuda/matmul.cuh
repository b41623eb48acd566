/* Matrices times many vectors, one kernel a form: a tile of weights is decoded into shared memory
 * once and multiplied with all vectors of a tile of pairs. matmul_LAYOUT.cu instantiate it. */
#ifndef FR_CUDA_MATMUL_CUH
#define FR_CUDA_MATMUL_CUH

#include "cuda/atoms.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

/* Pair = (token, pick) = t * n_pick + k. Those of matrix m are order[starts[m] .. starts[m + 1]),
 * and from starts[n_mat] on stand those of no matrix; without starts they are pick m of each token.
 */
struct MatmulJob {
    const uint8_t *base;
    size_t mat_bytes;
    int64_t rows, cols, n_mat;
    int64_t n_tokens, n_pick;
    const int32_t *starts, *order;
    const float *x;
    int64_t ldx, x_stride;
    float *y;
    int64_t ldy, y_stride;
};

/* A block makes MM_ROWS rows of MM_PAIRS pairs, MM_COLS columns at a time; a thread MM_THREAD_ROWS
 * of MM_THREAD_PAIRS. */
enum { MM_ROWS = 64, MM_PAIRS = 64, MM_COLS = 32, MM_THREADS = 128 };
enum {
    MM_THREAD_ROWS = 8,
    MM_THREAD_PAIRS = 4,
    MM_PITCH = 68
}; /* padded, a multiple of 16 bytes */
/* On a processor at a time, which leaves a thread 128 registers. */
enum { MM_BLOCKS = 4 };
enum { MM_ROW_THREADS = MM_ROWS / MM_THREAD_ROWS };

/* Columns [c0, c0 + MM_COLS) of rows [row0, row0 + MM_ROWS) of the matrix at `mat`, zeros beyond
 * its end: ws[column][row]. */
template <class F>
__device__ __forceinline__ void decode_weights(const uint8_t *mat, const MatmulJob &job,
                                               int64_t row0, int64_t c0,
                                               float (&ws)[MM_COLS][MM_PITCH])
{
    int64_t row = row0 + threadIdx.x % MM_ROWS;
    const RowOf<F> w(mat, row < job.rows ? row : 0, job.cols);
    FERRY_ROLLED
    for (int c = threadIdx.x / MM_ROWS; c < MM_COLS; c += MM_THREADS / MM_ROWS)
        ws[c][threadIdx.x % MM_ROWS] = row < job.rows && c0 + c < job.cols ? w.at(c0 + c) : 0.0f;
}

/* The same of a form with atoms. Neighbouring threads have neighbouring bytes: quads of rows, or
 * columns of one row. */
template <class F>
__device__ __forceinline__ void decode_atoms(const uint8_t *mat, const MatmulJob &job, int64_t row0,
                                             int64_t c0, float (&ws)[MM_COLS][MM_PITCH])
{
    using A = Atoms<F>;
    constexpr int units = MM_ROWS / A::rows;
    for (int i = threadIdx.x; i < units * A::per; i += MM_THREADS) {
        int unit = A::rows > 1 ? i % units : i / A::per, a = A::rows > 1 ? i / units : i % A::per;
        int64_t row = row0 + unit * A::rows;
        Atom<A::rows, A::runs> w = {};
        if (row < job.rows) {
            int b;
            const RowOf<F> at(mat, row, job.cols);
            const uint8_t *blk = block_of<F>(at.blocks, c0 / 32, b);
            A::load(blk, (int)at.k / A::rows, b, a, w);
        }
        FERRY_UNROLL
        for (int r = 0; r < A::rows; r++)
            FERRY_UNROLL
        for (int run = 0; run < A::runs; run++)
            FERRY_UNROLL
        for (int c = 0; c < 4; c++) {
            float low = A::has_low ? -w.low[r] : 0.0f;
            ws[A::column(a, run) + c][unit * A::rows + r] =
                fmaf(w.scale[r][run], w.q[r][run][c], low);
        }
    }
}

template <class F, bool ATOMS>
__device__ __forceinline__ void decode_tile(const uint8_t *mat, const MatmulJob &job, int64_t row0,
                                            int64_t c0, float (&ws)[MM_COLS][MM_PITCH])
{
    if constexpr (ATOMS)
        decode_atoms<F>(mat, job, row0, c0, ws);
    else
        decode_weights<F>(mat, job, row0, c0, ws);
}

/* The same columns of the tile's vectors, which begin at x + at[i]; at[i] < 0: zeros. */
__device__ __forceinline__ void fetch_vectors(const MatmulJob &job, int64_t c0,
                                              const int64_t (&at)[MM_PAIRS],
                                              float (&xs)[MM_COLS][MM_PITCH])
{
    int lane = threadIdx.x % WARP;
    for (int i = threadIdx.x / WARP; i < MM_PAIRS; i += MM_THREADS / WARP)
        xs[lane][i] = at[i] >= 0 && c0 + lane < job.cols ? job.x[at[i] + c0 + lane] : 0.0f;
}

/* Row i of a thread: neighbours have neighbouring quads of rows, against bank conflicts. */
__device__ __forceinline__ int thread_row(int i)
{
    return i / 4 * (MM_ROWS / 2) + threadIdx.x % MM_ROW_THREADS * 4 + i % 4;
}

__device__ __forceinline__ int thread_pair(int j)
{
    return (int)threadIdx.x / MM_ROW_THREADS * MM_THREAD_PAIRS + j;
}

typedef float MatmulSums[MM_THREAD_PAIRS][MM_THREAD_ROWS];

/* sums += the product of what is in shared memory. */
__device__ __forceinline__ void multiply_tile(const float (&ws)[MM_COLS][MM_PITCH],
                                              const float (&xs)[MM_COLS][MM_PITCH],
                                              MatmulSums &sums)
{
    for (int c = 0; c < MM_COLS; c++) {
        float4 a = *(const float4 *)&ws[c][thread_row(0)];
        float4 b = *(const float4 *)&ws[c][thread_row(4)];
        float4 x = *(const float4 *)&xs[c][thread_pair(0)];
        const float w[MM_THREAD_ROWS] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        const float v[MM_THREAD_PAIRS] = {x.x, x.y, x.z, x.w};
        FERRY_UNROLL
        for (int j = 0; j < MM_THREAD_PAIRS; j++)
            FERRY_UNROLL
        for (int i = 0; i < MM_THREAD_ROWS; i++)
            sums[j][i] = fmaf(w[i], v[j], sums[j][i]);
    }
}

/* The pairs of a matrix. */
struct PairList {
    const int32_t *order; /* NULL: pick m of each token */
    int64_t m, n;

    __device__ PairList(const MatmulJob &job, int64_t mat) : order(job.order), m(mat), n(0)
    {
        if (!order) {
            n = job.n_tokens;
            return;
        }
        int64_t from = job.starts[mat];
        int64_t to = mat < job.n_mat ? (int64_t)job.starts[mat + 1] : job.n_tokens * job.n_pick;
        order += from;
        n = to - from;
    }
    __device__ int64_t token(const MatmulJob &job, int64_t i) const
    {
        return order ? order[i] / job.n_pick : i;
    }
    __device__ int64_t pick(const MatmulJob &job, int64_t i) const
    {
        return order ? order[i] % job.n_pick : m;
    }
};

/* Zeros for the rows of this block in the pairs that have no matrix. */
__device__ inline void clear_pairs(const MatmulJob &job, const PairList &list, int64_t row0)
{
    int64_t row = row0 + threadIdx.x % MM_ROWS;
    int64_t step = (int64_t)gridDim.z * (MM_THREADS / MM_ROWS);
    for (int64_t i = blockIdx.z * (MM_THREADS / MM_ROWS) + threadIdx.x / MM_ROWS;
         i < list.n && row < job.rows; i += step)
        job.y[list.token(job, i) * job.ldy + list.pick(job, i) * job.y_stride + row] = 0;
}

__device__ __forceinline__ void store_sums(const MatmulJob &job, const PairList &list, int64_t tile,
                                           int64_t row0, const MatmulSums &sums)
{
    FERRY_UNROLL
    for (int j = 0; j < MM_THREAD_PAIRS; j++) {
        int64_t p = tile + thread_pair(j);
        if (p >= list.n)
            break;
        float *y = job.y + list.token(job, p) * job.ldy + list.pick(job, p) * job.y_stride + row0;
        FERRY_UNROLL
        for (int i = 0; i < MM_THREAD_ROWS; i++)
            if (row0 + thread_row(i) < job.rows)
                y[thread_row(i)] = sums[j][i];
    }
}

/* Grid: tiles of rows, matrices (one more for pairs of none), tiles of pairs as far as they go.
 * Every sum is one thread's, over ascending columns. */
template <class F, bool ATOMS>
__global__ void __launch_bounds__(MM_THREADS, MM_BLOCKS) matmul_tiles(MatmulJob job)
{
    FERRY_SHARED(float, ws, [MM_COLS][MM_PITCH]);
    FERRY_SHARED(float, xs, [MM_COLS][MM_PITCH]);
    FERRY_SHARED(int64_t, at, [MM_PAIRS]);
    int64_t row0 = (int64_t)blockIdx.x * MM_ROWS, m = blockIdx.y;
    const PairList list(job, m);
    if (m >= job.n_mat) {
        clear_pairs(job, list, row0);
        return;
    }
    const uint8_t *mat = job.base + (size_t)m * job.mat_bytes;
    for (int64_t tile = (int64_t)blockIdx.z * MM_PAIRS; tile < list.n;
         tile += (int64_t)gridDim.z * MM_PAIRS) {
        MatmulSums sums = {};
        for (int64_t i = threadIdx.x, p = tile + i; i < MM_PAIRS; i = MM_PAIRS)
            at[i] =
                p < list.n ? list.token(job, p) * job.ldx + list.pick(job, p) * job.x_stride : -1;
        __syncthreads();
        for (int64_t c0 = 0; c0 < job.cols; c0 += MM_COLS) {
            decode_tile<F, ATOMS>(mat, job, row0, c0, ws);
            fetch_vectors(job, c0, at, xs);
            __syncthreads();
            if (tile + thread_pair(0) < list.n)
                multiply_tile(ws, xs, sums);
            __syncthreads();
        }
        store_sums(job, list, tile, row0, sums);
    }
}

template <class F>
static cudaError_t matmul_form(const MatmulJob &job, dim3 grid, cudaStream_t stream)
{
    if constexpr (Atoms<F>::there)
        if (fits_atoms<F>(job.base, job.mat_bytes, job.cols, job.x, job.ldx, job.x_stride))
            return FERRY_LAUNCH((matmul_tiles<F, true>), grid, dim3(MM_THREADS), 0, stream, job);
    return FERRY_LAUNCH((matmul_tiles<F, false>), grid, dim3(MM_THREADS), 0, stream, job);
}

typedef cudaError_t (*matmul_fn)(const MatmulJob &job, dim3 grid, cudaStream_t stream);

/* NULL for a form that does not exist. */
template <class F, bool EXISTS> static constexpr matmul_fn make_matmul()
{
    if constexpr (EXISTS)
        return matmul_form<F>;
    else
        return nullptr;
}

/* The kernels of all types in one layout: matmul_LAYOUT.cu. */
matmul_fn matmul_of_plain(fr_type type);
matmul_fn matmul_of_interleaved(fr_type type);
matmul_fn matmul_of_native(fr_type type);

} // namespace FERRY_GPU_NS
#endif
