/* Matrices of any type and layout: decoding and matrix-vector products. The fallback
 * that every form has; faster kernels for single forms take its place in the table. */
#include "cuda/device_code.cuh"
#include "cuda/launchers.h"

namespace FERRY_GPU_NS
{

/* ---- decoding ------------------------------------------------------------------------------- */

struct RowsJob {
    const uint8_t *base;
    const int32_t *ids; /* NULL: first + i */
    int64_t first, cols, ldy;
    float *y;
};

enum { ROWS_BLOCK = 256 };

/* A thread a weight: neighbours share bytes, so reads meet in the cache. */
template <class F> __global__ void __launch_bounds__(ROWS_BLOCK) decode_rows(RowsJob job)
{
    int64_t col = (int64_t)blockIdx.x * ROWS_BLOCK + threadIdx.x;
    int64_t i = blockIdx.y, row = job.ids ? job.ids[i] : job.first + i;
    if (col < job.cols)
        job.y[i * job.ldy + col] = RowOf<F>(job.base, row, job.cols).at(col);
}

template <class F> static cudaError_t decode_form(RowsJob job, int64_t n_rows, cudaStream_t stream)
{
    unsigned columns = (unsigned)((job.cols + ROWS_BLOCK - 1) / ROWS_BLOCK);
    for (int64_t from = 0; from < n_rows; from += GRID_MOST) {
        unsigned n = (unsigned)(n_rows - from < GRID_MOST ? n_rows - from : GRID_MOST);
        cudaError_t e =
            FERRY_LAUNCH((decode_rows<F>), dim3(columns, n), dim3(ROWS_BLOCK), 0, stream, job);
        if (e != cudaSuccess)
            return e;
        job.ids += job.ids ? n : 0;
        job.first += n;
        job.y += n * job.ldy;
    }
    return cudaSuccess;
}

/* ---- matrix times vector -------------------------------------------------------------------- */

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

enum { MATVEC_WARPS = 4 };

/* A warp a row; lanes take columns in turn. Pair = (token, pick). */
template <class F> __global__ void __launch_bounds__(MATVEC_WARPS *WARP) matvec(MatvecJob job)
{
    int64_t row = (int64_t)blockIdx.x * MATVEC_WARPS + threadIdx.x / WARP;
    int64_t pair = job.first + blockIdx.y, t = pair / job.n_pick, pick = pair % job.n_pick;
    int lane = threadIdx.x % WARP;
    if (row >= job.rows)
        return;
    int64_t m = job.ids ? job.ids[pair] - job.id0 : pick;
    float *y = job.y + t * job.ldy + pick * job.y_stride + row, sum = 0;
    if (m >= 0 && m < job.n_mat) {
        const RowOf<F> w(job.base + (size_t)m * job.mat_bytes, row, job.cols);
        const float *x = job.x + t * job.ldx + pick * job.x_stride;
        for (int64_t i = lane; i < job.cols; i += WARP)
            sum = fmaf(w.at(i), x[i], sum);
        sum = warp_sum(sum);
    }
    if (lane == 0)
        *y = sum;
}

template <class F>
static cudaError_t matvec_form(MatvecJob job, int64_t n_pairs, cudaStream_t stream)
{
    unsigned tiles = (unsigned)((job.rows + MATVEC_WARPS - 1) / MATVEC_WARPS);
    for (; job.first < n_pairs; job.first += GRID_MOST) {
        int64_t left = n_pairs - job.first;
        unsigned n = (unsigned)(left < GRID_MOST ? left : GRID_MOST);
        cudaError_t e =
            FERRY_LAUNCH((matvec<F>), dim3(tiles, n), dim3(MATVEC_WARPS * WARP), 0, stream, job);
        if (e != cudaSuccess)
            return e;
    }
    return cudaSuccess;
}

/* ---- the table of forms --------------------------------------------------------------------- */

struct Form {
    cudaError_t (*decode)(RowsJob, int64_t, cudaStream_t);
    cudaError_t (*matvec)(MatvecJob, int64_t, cudaStream_t);
};

/* [type][layout]; a form that does not exist has no functions. */
template <class F, bool EXISTS> static constexpr Form make_form()
{
    if constexpr (EXISTS)
        return Form{decode_form<F>, matvec_form<F>};
    else
        return Form{nullptr, nullptr};
}

static const Form forms[FR_TYPE_COUNT][FR_LAYOUT_COUNT] = {
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, IL_WEIGHTS, IL_GGUF, IL_NAME,    \
          FLOAT, IL_ONLY, SEAL)                                                                    \
    {make_form<form_##T##_plain, !IL_ONLY>(), make_form<form_##T##_il, (GROUP > 0)>(),             \
     make_form<form_##T##_native, (fr_##T##_native_rows > 0)>()},
#include "quant/types.def"
#undef X
};

cudaError_t launch_rows(const fr_gpu_rows_args &a, cudaStream_t stream)
{
    const Form &form = forms[a.w->type][a.w->layout];
    if (!form.decode)
        return cudaErrorInvalidValue;
    const uint8_t *base = (const uint8_t *)a.w->data + (size_t)a.i_mat * a.w->mat_bytes;
    return form.decode(RowsJob{base, a.ids_d, a.first, a.w->cols, a.ldy, a.y_d}, a.n_rows, stream);
}

cudaError_t launch_matvec(const fr_gpu_matmul_args &a, cudaStream_t stream)
{
    const Form &form = forms[a.w->type][a.w->layout];
    if (!form.matvec)
        return cudaErrorInvalidValue;
    MatvecJob job = {(const uint8_t *)a.w->data,
                     a.w->mat_bytes,
                     a.ids_d,
                     a.first,
                     a.w->n_mat,
                     a.w->rows,
                     a.w->cols,
                     a.n_pick,
                     0,
                     a.x_d,
                     a.ldx,
                     a.x_stride,
                     a.y_d,
                     a.ldy,
                     a.y_stride};
    return form.matvec(job, a.n_tokens * a.n_pick, stream);
}

} // namespace FERRY_GPU_NS
