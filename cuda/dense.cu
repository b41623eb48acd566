/* Rows of matrices of any type and layout, decoded to floats. */
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

/* ---- the table of forms --------------------------------------------------------------------- */

typedef cudaError_t (*decode_fn)(RowsJob, int64_t, cudaStream_t);

/* [type][layout]; NULL for a form that does not exist. */
template <class F, bool EXISTS> static constexpr decode_fn make_form()
{
    if constexpr (EXISTS)
        return decode_form<F>;
    else
        return nullptr;
}

static const decode_fn forms[FR_TYPE_COUNT][FR_LAYOUT_COUNT] = {
#define X(ID, T, WEIGHTS, BYTES, ACT, GGUF, META, GROUP, IL_META, IL_WEIGHTS, IL_GGUF, IL_NAME,    \
          FLOAT, IL_ONLY, SEAL)                                                                    \
    {make_form<form_##T##_plain, !IL_ONLY>(), make_form<form_##T##_il, (GROUP > 0)>(),             \
     make_form<form_##T##_native, (fr_##T##_native_rows > 0)>()},
#include "quant/types.def"
#undef X
};

cudaError_t launch_rows(const fr_gpu_rows_args &a, cudaStream_t stream)
{
    decode_fn decode = forms[a.w->type][a.w->layout];
    if (!decode)
        return cudaErrorInvalidValue;
    const uint8_t *base = (const uint8_t *)a.w->data + (size_t)a.i_mat * a.w->mat_bytes;
    return decode(RowsJob{base, a.ids_d, a.first, a.w->cols, a.ldy, a.y_d}, a.n_rows, stream);
}

} // namespace FERRY_GPU_NS
