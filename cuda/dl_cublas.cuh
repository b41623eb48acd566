/* NVIDIA's matrix products, where their library is on the machine: found by dlopen when they are
 * first asked for, so that a program starts without it. Where it is not, one line goes to the log.
 */
#ifndef FR_CUDA_DL_CUBLAS_CUH
#define FR_CUDA_DL_CUBLAS_CUH

#include "cuda/ferry_cuda.h"

namespace FERRY_GPU_NS
{

/* y[t * ldy + r] = dot(w[r * cols ..], x[t * ldx ..]), all float32 and multiplied as such. */
struct CublasProduct {
    const float *w;
    int64_t rows, cols, n_tokens;
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
};

/* Puts the product on `stream` of the current device. False: nothing was done, multiply yourself
 * (no library, no room for its state, a stream that captures, sizes beyond int). */
bool cublas_multiply(const CublasProduct &p, cudaStream_t stream);

/* Before a device is reset: what the library holds on it. */
void cublas_forget(int device);

} // namespace FERRY_GPU_NS
#endif
