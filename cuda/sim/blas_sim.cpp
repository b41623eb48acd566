/* Products by columns as cuBLAS makes them, as an ordinary kernel: its accesses are checked like
 * all others'. */
#include "cuda/sim/sim_blas.hpp"

struct cublasContext {
    int device;
    fsim::cudaStream_t stream;
};

namespace fsim
{

enum { DONE = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, THREADS = 128 };

struct Sgemm {
    const float *a, *b;
    float *c;
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col, ldc; /* steps */
    float alpha, beta;
};

static void sgemm(Sgemm g)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i % g.m, col = i / g.m;
    if (col >= g.n)
        return;
    float sum = 0, *c = g.c + row + col * g.ldc;
    for (int64_t j = 0; j < g.k; j++)
        sum = fmaf(g.a[row * g.a_row + j * g.a_col], g.b[j * g.b_row + col * g.b_col], sum);
    *c = g.alpha * sum + (g.beta != 0.0f ? g.beta * *c : 0.0f);
}

int cublasCreate_v2(cublasContext **out)
{
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess)
        return INVALID_VALUE;
    *out = new cublasContext{device, nullptr};
    return DONE;
}

int cublasDestroy_v2(cublasContext *h)
{
    delete h;
    return DONE;
}

int cublasSetStream_v2(cublasContext *h, cudaStream_t stream)
{
    h->stream = stream;
    return DONE;
}

int cublasSgemm_v2(cublasContext *h, int op_a, int op_b, int m, int n, int k, const float *alpha,
                   const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                   int ldc)
{
    int device = -1;
    cudaGetDevice(&device);
    if (device != h->device || m < 1 || n < 1 || k < 1 || lda < (op_a ? k : m) ||
        ldb < (op_b ? n : k) || ldc < m)
        return INVALID_VALUE;
    Sgemm g = {
        a,   b,      c,    m, n, k, op_a ? lda : 1, op_a ? 1 : lda, op_b ? ldb : 1, op_b ? 1 : ldb,
        ldc, *alpha, *beta};
    unsigned blocks = (unsigned)(((int64_t)m * n + THREADS - 1) / THREADS);
    cudaError_t e = launch("cublasSgemm", sgemm, dim3(blocks), dim3(THREADS), 0, h->stream, g);
    return e == cudaSuccess ? DONE : EXECUTION_FAILED;
}

} // namespace fsim
