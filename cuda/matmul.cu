/* Products with many vectors: which kernel, which grid, and the grouping of (token, pick) pairs by
 * the matrix that they picked. */
#include "cuda/dl_cublas.cuh"
#include "cuda/matmul.cuh"

namespace FERRY_GPU_NS
{

/* ---- grouping: a counting sort by one block ------------------------------------------------- */

struct GroupJob {
    const int32_t *ids;
    int64_t first, n_mat, n_pairs;
    int32_t *starts; /* n_mat + 1: where each matrix's pairs begin, and those of none */
    int32_t *order;  /* n_pairs, ascending within a matrix */
};

enum { GROUP_WARPS = 8, GROUP_THREADS = GROUP_WARPS * WARP, GROUP_MATS = FR_GPU_MAX_EXPERTS };
typedef int32_t GroupCounts[GROUP_WARPS][GROUP_MATS + 1]; /* [warp][matrix]; n_mat: of none */

/* The matrix of pair i, -1 beyond the warp's part. */
static __device__ int group_of(const GroupJob &job, int64_t i, int64_t to)
{
    if (i >= to)
        return -1;
    int64_t m = job.ids[i] - job.first;
    return (int)(m >= 0 && m < job.n_mat ? m : job.n_mat);
}

/* Visits the warp's pairs in order: mine[m] counts those of matrix m, and with PLACE each pair gets
 * its place. Lanes of the same matrix know each other by their mask, so that nothing is atomic. */
template <bool PLACE> static __device__ void visit_pairs(const GroupJob &job, int32_t *mine)
{
    int lane = threadIdx.x % WARP;
    int64_t per = (job.n_pairs + GROUP_THREADS - 1) / GROUP_THREADS * WARP;
    int64_t from = threadIdx.x / WARP * per;
    int64_t to = from + per < job.n_pairs ? from + per : job.n_pairs;
    for (int64_t i = from; i < to; i += WARP) {
        int m = group_of(job, i + lane, to);
        unsigned same = __match_any_sync(ALL_LANES, m);
        int before = __popc(same & ((1u << lane) - 1));
        if (PLACE && m >= 0)
            job.order[mine[m] + before] = (int32_t)(i + lane);
        __syncwarp();
        if (m >= 0 && before == 0)
            mine[m] += __popc(same);
        __syncwarp();
    }
}

/* counts -> each warp's first place for each matrix; the matrices' own go to starts. By one warp,
 * 32 matrices at a time. */
static __device__ void place_groups(const GroupJob &job, GroupCounts &counts)
{
    int lane = threadIdx.x % WARP;
    int32_t begin = 0;
    for (int64_t m0 = 0; m0 <= job.n_mat; m0 += WARP) {
        int64_t m = m0 + lane;
        int32_t sum = 0, before;
        for (int w = 0; w < GROUP_WARPS && m <= job.n_mat; w++)
            sum += counts[w][m];
        before = sum;
        for (int d = 1; d < WARP; d *= 2) {
            int32_t v = __shfl_up_sync(ALL_LANES, before, d);
            before += lane >= d ? v : 0;
        }
        int32_t next = begin + __shfl_sync(ALL_LANES, before, WARP - 1);
        int32_t at = begin + before - sum;
        if (m <= job.n_mat)
            job.starts[m] = at;
        for (int w = 0; w < GROUP_WARPS && m <= job.n_mat; w++) {
            int32_t n = counts[w][m];
            counts[w][m] = at;
            at += n;
        }
        begin = next;
    }
}

static __global__ void __launch_bounds__(GROUP_THREADS) group_pairs(GroupJob job)
{
    FERRY_SHARED(int32_t, counts, [GROUP_WARPS][GROUP_MATS + 1]);
    int warp = threadIdx.x / WARP;
    for (int64_t m = threadIdx.x % WARP; m <= job.n_mat; m += WARP)
        counts[warp][m] = 0;
    __syncwarp();
    visit_pairs<false>(job, counts[warp]);
    __syncthreads();
    if (warp == 0)
        place_groups(job, counts);
    __syncthreads();
    visit_pairs<true>(job, counts[warp]);
}

/* ---- launching ------------------------------------------------------------------------------ */

static matmul_fn matmul_of(const fr_weight &w)
{
    switch (w.layout) {
    case FR_LAYOUT_PLAIN:
        return matmul_of_plain(w.type);
    case FR_LAYOUT_INTERLEAVED:
        return matmul_of_interleaved(w.type);
    default:
        return matmul_of_native(w.type);
    }
}

static int64_t tiles(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

/* As many blocks along the pairs as twice a matrix's share of them has tiles; a matrix that was
 * picked more often has its blocks go on. */
static int64_t pair_blocks(const MatmulJob &job)
{
    int64_t n = job.starts ? 2 * job.n_tokens * job.n_pick / job.n_mat : job.n_tokens;
    int64_t blocks = tiles(n, MM_PAIRS);
    return blocks < 1 ? 1 : blocks < GRID_MOST ? blocks : GRID_MOST;
}

static cudaError_t group(const fr_gpu_matmul_args &a, MatmulJob *job, cudaStream_t stream)
{
    int64_t n_pairs = a.n_tokens * a.n_pick, n_mat = a.w->n_mat;
    if (n_mat > GROUP_MATS || n_pairs > INT32_MAX ||
        a.scratch_bytes < fr_gpu_grouped_scratch_bytes(n_pairs, n_mat))
        return cudaErrorInvalidValue;
    int32_t *starts = (int32_t *)a.scratch_d, *order = starts + n_mat + 1;
    job->starts = starts;
    job->order = order;
    return FERRY_LAUNCH(group_pairs, dim3(1), dim3(GROUP_THREADS), 0, stream,
                        GroupJob{a.ids_d, a.first, n_mat, n_pairs, starts, order});
}

/* By cuBLAS: floats of many tokens. What does not stand as rows of float32 is decoded to scratch,
 * as many rows at a time as it holds. False: nothing was done that has to stay. */
static bool multiply_by_cublas(const fr_gpu_matmul_args &a, cudaStream_t stream)
{
    const fr_weight &w = *a.w;
    bool ready = w.type == FR_TYPE_F32 && w.layout == FR_LAYOUT_PLAIN;
    int64_t room = ready ? w.rows : (int64_t)(a.scratch_bytes / ((size_t)w.cols * sizeof(float)));
    if (a.ids_d || a.n_tokens < FR_GPU_CUBLAS_TOKENS || room < 1 ||
        fr_type_get(w.type)->act != FR_ACT_F32)
        return false;
    for (int64_t m = 0; m < a.n_pick; m++)
        for (int64_t from = 0; from < w.rows; from += room) {
            int64_t n = w.rows - from < room ? w.rows - from : room;
            float *decoded = (float *)a.scratch_d;
            if (!ready && launch_rows(fr_gpu_rows_args{&w, m, from, n, nullptr, decoded, w.cols},
                                      stream) != cudaSuccess)
                return false;
            const float *rows =
                ready ? (const float *)((const uint8_t *)w.data + (size_t)m * w.mat_bytes)
                      : decoded;
            if (!cublas_multiply(CublasProduct{rows, n, w.cols, a.n_tokens, a.x_d + m * a.x_stride,
                                               a.ldx, a.y_d + m * a.y_stride + from, a.ldy},
                                 stream))
                return false;
        }
    return true;
}

cudaError_t launch_matmul(const fr_gpu_matmul_args &a, cudaStream_t stream)
{
    const fr_weight &w = *a.w;
    matmul_fn multiply = matmul_of(w);
    if (!multiply || (!a.ids_d && a.n_pick > w.n_mat))
        return cudaErrorInvalidValue;
    if (multiply_by_cublas(a, stream))
        return cudaSuccess;
    MatmulJob job = {(const uint8_t *)w.data,
                     w.mat_bytes,
                     w.rows,
                     w.cols,
                     w.n_mat,
                     a.n_tokens,
                     a.n_pick,
                     nullptr,
                     nullptr,
                     a.x_d,
                     a.ldx,
                     a.x_stride,
                     a.y_d,
                     a.ldy,
                     a.y_stride};
    if (a.ids_d) {
        cudaError_t e = group(a, &job, stream);
        if (e != cudaSuccess)
            return e;
    }
    int64_t n_mat = a.ids_d ? w.n_mat + 1 : a.n_pick;
    if (n_mat > GRID_MOST)
        return cudaErrorInvalidValue;
    return multiply(
        job, dim3((unsigned)tiles(w.rows, MM_ROWS), (unsigned)n_mat, (unsigned)pair_blocks(job)),
        stream);
}

} // namespace FERRY_GPU_NS
