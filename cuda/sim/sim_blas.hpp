/* The simulated GPUs' cuBLAS: the calls that dl_cublas.cu makes, with the library's types and order
 * of arguments. Setting blas=0: the machine has none. */
#ifndef FR_CUDA_SIM_BLAS_HPP
#define FR_CUDA_SIM_BLAS_HPP

#include "cuda/sim/cuda_sim.hpp"

struct cublasContext;

namespace fsim
{

bool has_blas();

/* All return cuBLAS's status codes; 7: an argument that it forbids. */
int cublasCreate_v2(cublasContext **out);
int cublasDestroy_v2(cublasContext *h);
int cublasSetStream_v2(cublasContext *h, cudaStream_t stream);

/* C (m x n) = alpha op(A) op(B) + beta C, all by columns. */
int cublasSgemm_v2(cublasContext *h, int op_a, int op_b, int m, int n, int k, const float *alpha,
                   const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                   int ldc);

} // namespace fsim
#endif
